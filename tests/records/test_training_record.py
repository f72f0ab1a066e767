"""training.json and log.jsonl: what they hold, which versions are read, and that the docs say the same."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest

from perpo.errors import PerpoError
from perpo.models.checkpoints import public_name
from perpo.records.training_record import (
    TrainingRecord,
    json_schema,
    public_record,
    read_log,
    read_record,
    write_log,
    write_record,
)
from perpo.train.arguments import TrainArguments
from perpo.train.recording import new_record
from perpo.train.run import train
from perpo.train.watching.probe import COLUMNS
from tests.support import ROOT


@pytest.fixture(scope="module")
def output(small_run, write_records, tmp_path_factory):
    """A run of two steps."""
    root = tmp_path_factory.mktemp("data")
    data = write_records(root, [{"question": "?", "answer": "x", "answers_gen": ["a", "b"], "rewards": [0.1, 0.9]}])
    return train(TrainArguments(**small_run, data=data, output_dir=str(root / "out"), max_steps=2))


def test_a_finished_run_says_all_of_it(output):
    record = read_record(output)
    assert json.loads((output / "training.json").read_text()) == record
    unknown = {name for name, value in record.items() if value is None}
    assert unknown == {"error", "validation", "weights_sha256"}
    assert (record["schema_version"], record["status"], record["steps"]) == (2, "complete", 2)
    assert (record["world_size"], record["precision"]) == (1, "float32")
    assert record["peak_memory_bytes"] > 50e6  # torch alone takes more
    log = read_log(output)
    assert record["last_log"] == log[1]
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2]
    assert "train_runtime" in log[-1]


def test_the_committed_records_of_version_1_are_read(tmp_path):
    found = 0
    for path in ROOT.glob("results/**/run.json"):
        training = json.loads(path.read_text())["training_run"]
        if training is None or training.get("schema_version") != 1:
            continue
        found += 1
        (tmp_path / "training.json").write_text(json.dumps(training))
        record = read_record(tmp_path)
        assert record["schema_version"] == 2
        new = {"error", "world_size", "precision", "attention", "peak_memory_bytes", "log", "validation", "probe"}
        assert {name for name, value in record.items() if value is None} >= new
        training["data"]["images_sha256"] = None  # was not taken down then
        assert {name: record[name] for name in training if name != "schema_version"} == {
            name: value for name, value in training.items() if name != "schema_version"
        }
    assert found >= 5


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"schema_version": 3}, "has schema version 3; this perpo reads versions 1 to 2", "install a newer perpo"),
        ({"status": "fine"}, "is damaged: status", "delete the folder"),
        ({"steps": "2"}, "is damaged: steps", "delete the folder"),
        ({"speed": 1}, "is damaged: speed", "delete the folder"),
        ({"model": {"name": "x"}}, "is damaged: model.weights_sha256", "delete the folder"),
    ],
)
def test_what_is_not_known_is_refused(output, tmp_path, change, message, hint):
    (tmp_path / "training.json").write_text(json.dumps(read_record(output) | change))
    with pytest.raises(PerpoError, match=re.escape(message)) as caught:
        read_record(tmp_path)
    assert hint in caught.value.hint


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '"x"'])
def test_half_a_file_is_refused(tmp_path, text):
    (tmp_path / "training.json").write_text(text)
    with pytest.raises(PerpoError, match="is damaged"):
        read_record(tmp_path)
    assert read_record(tmp_path / "elsewhere") is None


def test_a_wrong_record_is_not_written(output, tmp_path):
    with pytest.raises(ValueError, match="stauts"):
        write_record(tmp_path, read_record(output) | {"stauts": "complete"})
    assert list(tmp_path.iterdir()) == []


def test_the_log_is_read_up_to_its_last_whole_line(tmp_path):
    assert read_log(tmp_path) == []
    write_log(tmp_path, [{"step": 1, "loss": 0.5}, {"step": 2, "loss": float("nan"), "grad_norm": float("inf")}])
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    assert read_log(tmp_path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None, "grad_norm": None}]


@pytest.mark.parametrize("content", [b'{"step": 1\n{"step": 2}\n', b"\xff\n"])
def test_a_log_that_is_damaged_is_named(tmp_path, content):
    (tmp_path / "log.jsonl").write_bytes(content)
    with pytest.raises(PerpoError, match=r"log\.jsonl is damaged"):
        read_log(tmp_path)


def test_a_record_holds_no_secrets(monkeypatch, tmp_path):
    for name in ("weights_digest", "data_sha256"):
        monkeypatch.setattr(f"perpo.train.recording.{name}", lambda place: "0" * 64)
    monkeypatch.setattr("perpo.train.recording.local_directory", lambda place: tmp_path)
    monkeypatch.setattr("perpo.train.recording.resolve_model", lambda name: name)
    address = "https://user:hunter22@host/path"
    record = new_record(TrainArguments(model=address, data=address, eval_data=address, output_dir=str(tmp_path)))
    write_record(tmp_path, record)
    assert "hunter22" not in (tmp_path / "training.json").read_text()
    assert record["model"]["name"] == record["data"]["path"] == "https://***@host/path"
    assert record["model"]["weights_sha256"] == "0" * 64
    assert public_name(address) == "https://***@host/path"


def test_a_public_record_names_no_directory(output):
    record = read_record(output)
    info = {"data": "/home/me/held.jsonl", "data_sha256": "0", "reward_name": "iou", "questions": 1}
    record["validation"] = info | {"scores": [], "best": None}
    record["arguments"] |= {"adapter": "./runs/one", "model": "owner/model", "eval_data": "/home/me/held.jsonl"}
    public = public_record(record)
    assert str(output.parent) not in json.dumps(public)
    assert "/home/me" not in json.dumps(public)
    assert (public["arguments"]["adapter"], public["arguments"]["model"]) == ("one", "owner/model")
    assert public["validation"]["data"] == "held.jsonl"
    assert record["arguments"]["eval_data"] == "/home/me/held.jsonl"


def test_docs_and_published_schema_are_those_of_the_code(output):
    page = (ROOT / "docs" / "training-record.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.+) \|$", page, flags=re.MULTILINE)
    fields = list(TrainingRecord.__annotations__)
    assert [name for name, _ in rows[: len(fields)]] == fields
    assert dict(rows[len(fields) :]) == COLUMNS
    published = json.loads((ROOT / "docs" / "training-record.schema.json").read_text())
    assert published == json_schema()
    jsonschema.Draft202012Validator(published).validate(read_record(output))
