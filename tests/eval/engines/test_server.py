"""perpo-eval --engine server: a real server with a real model behind it gives the numbers of our own engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perpo.engines import chat
from perpo.engines.hf import load_hf
from perpo.records.store import Run, read_run
from perpo_eval.cli.eval import main
from tests.support.model_server import GOOD, Outcome, error, model_server

FLAGS = ["--suite", "pope", "--tasks", "tinypope_random", "--limit", "12"]


@pytest.fixture(scope="module")
def engine():
    return load_hf("tiny", None, dtype="float32", device="cpu")


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch) -> None:
    monkeypatch.setattr(chat, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(chat, "_LONGEST_WAIT_S", 0.02)


def stored(output: Path) -> Run:
    (path,) = (file.parent for file in output.rglob("run.json"))
    return read_run(path)


def served(server: Any, output: Path, *more: str) -> int:
    return main([*FLAGS, "--engine", "server", "--base_url", server.url, "--output", str(output), *more])


def test_a_server_gives_the_numbers_of_our_own_engine(engine, tmp_path) -> None:
    with model_server(engine) as server:
        assert served(server, tmp_path / "server") == 0
    assert main([*FLAGS, "--output", str(tmp_path / "own"), "--dtype", "float32"]) == 0
    theirs, ours = stored(tmp_path / "server"), stored(tmp_path / "own")
    assert [metric.value for metric in theirs.record.tasks[0].metrics] == [
        metric.value for metric in ours.record.tasks[0].metrics
    ]
    columns = ["sample_key", "question", "response", "prompt", "finish_reason"]
    assert theirs.samples(columns).to_pylist() == ours.samples(columns).to_pylist()
    assert (theirs.record.model.engine, theirs.record.model.weights_sha256) == ("server", None)
    assert theirs.record.generation["max_error_share"] == 0.01
    assert server.url not in (theirs.path / "run.json").read_text().replace(f"--base_url {server.url}", "")


def test_questions_without_an_answer_have_no_score_and_are_asked_again(engine, tmp_path, capsys) -> None:
    def behave(body: dict[str, Any], before: int) -> Outcome:
        bad = body["max_tokens"] != 1 and "red circle" in body["messages"][0]["content"][1]["text"]
        return error(400, "invalid_image") if bad else GOOD

    with model_server(engine, behave) as server:
        code = served(server, tmp_path / "out")
    bad = sum("red circle" in body["messages"][0]["content"][1]["text"] for body in server.bodies[1:])
    assert bad
    assert code == 3
    record = stored(tmp_path / "out").record
    assert (record.status, record.tasks[0].metrics[0].n) == ("partial", 12 - bad)
    assert "status 400" in capsys.readouterr().err
    with model_server(engine) as again:
        assert served(again, tmp_path / "out") == 0
    assert len(again.bodies) == bad + 1  # and the look at the prompt


def test_what_a_dying_server_had_answered_is_kept(engine, tmp_path, capsys) -> None:
    dying = lambda body, before: GOOD if before < 5 else error(402)  # noqa: E731
    with model_server(engine, dying) as server:
        assert served(server, tmp_path / "out", "--concurrency", "1") == 3
    assert "credit is used up" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("run.json"))
    with model_server(engine) as again:
        assert served(again, tmp_path / "out") == 0
    assert len(again.bodies) == 12 - 4 + 1


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--engine", "server"], "needs the server's address"),
        (["--base_url", "http://127.0.0.1:1/v1"], "--base_url is for --engine server"),
        (["--engine", "server", "--base_url", "http://a/v1", "--device", "cpu"], "--device is not for --engine server"),
        (["--engine", "server", "--base_url", "http://a/v1", "--model_args", "a=b"], "--model_args is for"),
        (["--engine", "server", "--base_url", "http://127.0.0.1:1/v1"], "there is no server at"),
    ],
)
def test_flags(flags, sentence, tmp_path, capsys) -> None:
    assert main([*FLAGS, "--output", str(tmp_path), *flags]) == 2
    assert sentence in capsys.readouterr().err
