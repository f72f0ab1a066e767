"""Cards, W&B and the hub: nothing that was not measured, nothing of the machine, nothing unasked."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from huggingface_hub import ModelCard

from perpo.cli.train import main
from perpo.errors import PerpoError
from perpo.records.training_record import read_record
from perpo.train.arguments import TrainArguments
from perpo.train.outputs import services
from perpo.train.run import train


@pytest.fixture(scope="module")
def options(tmp_path_factory, small_run, write_records):
    root = tmp_path_factory.mktemp("secret-place")
    answers = {"answers_gen": ["up", "left"], "rewards": [0.1, 1.0], "reward_name": "edit"}
    return small_run | {
        "data": write_records(root, [{"question": "what?", "answer": "left"} | answers] * 2),
        "image_root": str(root),
        "save_steps": 1,
        "max_steps": 2,
        "beta": 0.5,
    }


@pytest.fixture(scope="module")
def validated(options, tmp_path_factory):
    changes = {"eval_data": options["data"], "eval_max_new_tokens": 4, "license": "apache-2.0", "run_name": "my run"}
    return train(TrainArguments(**options | changes, output_dir=str(tmp_path_factory.mktemp("secret-place") / "out")))


def test_a_card_tells_what_was_measured(validated, options):
    card = ModelCard.load(validated / "README.md")
    scores = read_record(validated)["validation"]["scores"]
    assert card.data.base_model == Path(options["model"]).name
    assert (card.data.library_name, card.data.license) == ("peft", "apache-2.0")
    assert card.data.model_name == "my run"
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values == {"mean_reward": scores[-1]["reward"], "unreadable": scores[-1]["unreadable"]}
    assert all(result.dataset_name == "records.jsonl" for result in card.data.eval_results)
    assert "https://arxiv.org/abs/2502.04371" in card.text
    assert f"| mean reward | {scores[0]['reward']:.4f} | {scores[-1]['reward']:.4f} |" in card.text
    assert "- beta: 0.5" in card.text


def test_every_kept_adapter_has_one_without_a_path_of_the_machine(validated, options):
    cards = [validated / "README.md", validated / "best" / "README.md", validated / "checkpoint-1" / "README.md"]
    for path in cards:
        assert str(Path(options["data"]).parents[1]) not in path.read_text()
        assert str(validated.parents[1]) not in path.read_text()
    assert ModelCard.load(cards[2]).data.eval_results is None  # there was no validation at that step
    assert "Optimizer steps: 1." in cards[2].read_text()


def test_without_validation_and_licence_the_card_claims_neither(options, tmp_path):
    output = train(TrainArguments(**options | {"method": "dpo"}, output_dir=str(tmp_path / "dpo-run")))
    card = ModelCard.load(output / "README.md")
    assert card.data.license == "unknown"
    assert card.data.eval_results is None
    assert card.data.model_name is None or card.data.model_name == "dpo-run"
    assert "Measured" not in card.text
    assert "arxiv.org/abs/2305.18290" in card.text
    assert not (output / "wandb").exists()


def test_nobody_is_told_if_nobody_is_to_be(options, tmp_path):
    output = train(TrainArguments(**options | {"report_to": "none"}, output_dir=str(tmp_path / "run")))
    assert not (output / "tensorboard").exists()
    assert (output / "log.jsonl").exists()


def words(options, tmp_path, **changes):
    return [f"--{name}={value}" for name, value in (options | {"output_dir": tmp_path / "run"} | changes).items()]


@pytest.mark.slow
def test_wandb_offline_logs_into_the_output(options, tmp_path):
    """A process of its own, as W&B keeps threads; stdout stays what it is."""
    environment = os.environ | {"WANDB_MODE": "offline"}
    command = [sys.executable, "-m", "perpo.cli.train", *words(options, tmp_path, report_to="wandb", run_name="mine")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'run'}\n"
    (log,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    content = log.read_bytes()
    assert b"train/loss" in content
    assert b"mine" in content
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_wandb_without_a_key_is_refused_at_once_and_asks_nobody(options, tmp_path, monkeypatch, capsys):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setattr("builtins.input", lambda *args: pytest.fail("somebody was asked"))
    assert main(words(options, tmp_path, report_to="wandb")) == 2
    error = capsys.readouterr().err
    assert "error: --report_to wandb needs a key" in error
    assert "\nhint: set WANDB_API_KEY, or WANDB_MODE=offline" in error
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PerpoError, match="is not installed"):
        services.check_services(TrainArguments(**options, output_dir="run", report_to="wandb"))
    assert not (tmp_path / "run").exists()


class FakeHub(BaseHTTPRequestHandler):
    """As much of the hub as one commit of small files needs."""

    asked: ClassVar[list[tuple[str, str | None, bytes]]] = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.asked.append((self.path, self.headers.get("Authorization"), body))
        if self.headers.get("Authorization") != "Bearer hf_secret":
            self._answer({"error": "Invalid credentials"}, 401)
        elif self.path.endswith("/repos/create"):
            self._answer({"url": f"http://{self.headers['Host']}/me/mine"})
        elif "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        else:
            url = f"http://{self.headers['Host']}/me/mine/commit/0"
            self._answer({"commitUrl": url, "commitOid": "0", "hookOutput": ""})

    def _answer(self, content, code=200):
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    FakeHub.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), FakeHub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


PUSH = """
import json, sys
from perpo.common.program import run_program
from perpo.train.outputs.services import check_services, push
from perpo.train.arguments import TrainArguments
from perpo.records.training_record import read_record

def main(words):
    args = TrainArguments(**json.loads(words[0]))
    check_services(args)
    push(args, read_record(args.output_dir))

sys.exit(run_program(main))
"""


def pushed(arguments, hub, token):
    """The same calls as a training makes, in a process that knows no other hub."""
    environment = os.environ | {"HF_ENDPOINT": hub, "HF_HUB_OFFLINE": "0", "HF_TOKEN": token}
    command = [sys.executable, "-c", PUSH, json.dumps(arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_a_finished_run_is_uploaded_without_data_paths_and_token(validated, options, hub):
    arguments = options | {"output_dir": str(validated), "push_to_hub": True, "hub_model_id": "me/mine"}
    done = pushed(arguments, hub, "hf_secret")
    assert done.returncode == 0, done.stderr
    (created,) = (json.loads(body) for path, _, body in FakeHub.asked if path.endswith("/repos/create"))
    assert (created["name"], created["organization"]) == ("mine", "me")
    assert created.get("private") is True or created.get("visibility") == "private"
    (commit,) = (body for path, _, body in FakeHub.asked if "/commit/" in path)
    lines = [json.loads(line) for line in commit.decode().splitlines()]
    contents = {line["value"]["path"]: line["value"]["content"] for line in lines if line["key"] == "file"}
    assert contents.keys() >= {
        "adapter_model.safetensors",
        "adapter_config.json",
        "README.md",
        "training.json",
        "log.jsonl",
    }
    assert "probe.parquet" not in contents
    assert b"hf_secret" not in commit
    text = base64.b64decode(contents["training.json"]).decode()
    assert json.loads(text)["arguments"]["data"] == "records.jsonl"
    assert str(validated.parents[1]) not in text
    for path in validated.rglob("*"):
        assert not path.is_file() or b"hf_secret" not in path.read_bytes()


def test_a_hub_that_refuses_is_said_before_training(options, hub, tmp_path, monkeypatch, capsys):
    arguments = options | {"output_dir": str(tmp_path), "push_to_hub": True, "hub_model_id": "me/mine"}
    done = pushed(arguments, hub, "hf_wrong")
    assert done.returncode == 2
    assert "error: nothing can be uploaded to me/mine: " in done.stderr
    assert "hf_wrong" not in done.stderr
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert main(words(options, tmp_path, push_to_hub=True, hub_model_id="me/mine")) == 2
    assert "needs a token of the hub in HF_TOKEN" in capsys.readouterr().err
    assert main(words(options, tmp_path, push_to_hub=True)) == 2
    assert "--push_to_hub needs --hub_model_id" in capsys.readouterr().err


def test_an_upload_that_failed_can_be_repeated(options, tmp_path, monkeypatch, capsys):
    done = []
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    class Hub:
        def create_repo(self, *args, **kwargs):
            pass

        def create_commit(self, *args, **kwargs):
            done.append(args[0])
            if len(done) == 1:
                raise ConnectionError("the line is dead")

    monkeypatch.setattr(services, "_hub", Hub)
    command = words(options, tmp_path, push_to_hub=True, hub_model_id="me/mine")
    assert main(command) == 3
    assert "is complete, but the upload to the hub failed" in capsys.readouterr().err
    assert read_record(tmp_path / "run")["status"] == "complete"
    assert main([*command, "--resume_from_checkpoint=last"]) == 0
    assert done == ["me/mine", "me/mine"]
