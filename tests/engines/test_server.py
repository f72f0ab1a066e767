"""perpo.engines.server: a real server on loopback with a real model behind it, well and badly behaved."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perpo.cli.sample import main
from perpo.data import read_preferences
from perpo.data.images import open_image, plain_bytes
from perpo.engines import chat
from perpo.engines.base import Decoding, NoAnswer, Query, first_seed
from perpo.engines.hf import load_hf
from perpo.engines.served import ServersWanted
from perpo.engines.server import load_server
from perpo.errors import PerpoError
from tests.support.model_server import GOOD, ModelServer, Outcome, error, model_server

QUESTIONS = 6
KEY = "sk-a-key-that-must-not-be-told"


@pytest.fixture(scope="module")
def engine():
    return load_hf("tiny", None, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Path:
    from perpo.tiny.world import write_questions

    return write_questions(tmp_path_factory.mktemp("questions"), images=4)


@pytest.fixture(autouse=True)
def no_long_waits(monkeypatch) -> None:
    monkeypatch.setattr(chat, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(chat, "_LONGEST_WAIT_S", 0.02)


def words(questions: Path, output: Path, *servers: ModelServer, **flags: Any) -> list[str]:
    given = {"questions": questions, "output": output, "num_candidates": 3, "limit": QUESTIONS, "max_new_tokens": 12}
    given |= {"reward": "iou", "engine": "server", "timeout_s": 20} | flags
    urls = [server.url for server in servers]
    return ["--base_url", *urls, *(str(word) for name, value in given.items() for word in (f"--{name}", value))]


def wanted(*servers: ModelServer, **more: Any) -> ServersWanted:
    usual = {"served_model": None, "concurrency": 8, "rps": None, "timeout_s": 20.0}
    return ServersWanted(base_url=[server.url for server in servers], **usual | more)


def first(body: dict[str, Any], before: int) -> bool:
    """Whether a call is the one that looks at the prompt."""
    return body["max_tokens"] == 1


# ---- what is sent, and what comes back ----


def test_answers_are_those_that_the_model_gives_here(engine, questions) -> None:
    rows = [json.loads(line) for line in questions.read_text().splitlines()][:4]
    queries = []
    for number, row in enumerate(rows):
        file = questions.parent / row["image_path"]
        queries.append(Query(row["question"], open_image(file), number, file))
    with model_server(engine) as server:
        theirs = load_server("tiny", wanted(server)).answers(queries, Decoding(max_new_tokens=12))
    ours = engine.answers(queries, Decoding(max_new_tokens=12))
    assert [[answer.text for answer in each] for each in theirs] == [[answer.text for answer in each] for each in ours]
    assert [each[0].finish_reason for each in theirs] == [each[0].finish_reason for each in ours]
    assert {each[0].logp for each in theirs} == {None}


def test_every_setting_is_sent(engine, questions, tmp_path) -> None:
    with model_server(engine) as server:
        assert main(words(questions, tmp_path / "out.jsonl", server, temperature=0.7, top_p=0.9, seed=5)) == 0
    body = next(body for body in server.bodies if body["max_tokens"] != 1)
    assert {name: value for name, value in body.items() if name not in ("messages", "seed")} == {
        "model": "tiny", "n": 3, "max_tokens": 12, "temperature": 0.7, "top_p": 0.9,
        "frequency_penalty": 0.0, "presence_penalty": 0.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0,
        "return_token_ids": True, "skip_special_tokens": False,
    }  # fmt: skip
    record = read_preferences(tmp_path / "out.jsonl")[0]
    assert record.sampling["engine"] == "server"
    assert record.sampling["served"] == {"model": "tiny", "root": "tiny", "software": "test", "version": "0.1"}
    assert record.reference_logps == [None] * 3
    assert server.url not in (tmp_path / "out.jsonl").read_text()


def test_a_mark_of_the_picture_in_a_question_is_not_sent_as_text(engine, questions) -> None:
    row = json.loads(questions.read_text().splitlines()[0])
    file = questions.parent / row["image_path"]
    with model_server(engine) as server:
        asked = load_server("tiny", wanted(server))
        query = Query(f"<image>\n{row['question']}", open_image(file), 0, file)
        (theirs,) = asked.answers([query], Decoding(max_new_tokens=12))
        (ours,) = engine.answers([query], Decoding(max_new_tokens=12))
    assert [answer.text for answer in theirs] == [answer.text for answer in ours]
    assert {body["messages"][0]["content"][1]["text"] for body in server.bodies} == {row["question"]}


def test_no_two_candidates_share_a_seed() -> None:
    seeds = [
        first_seed(Decoding(max_new_tokens=1, num_candidates=5, temperature=1.0, seed=seed), draw) + place
        for seed in range(4)
        for draw in range(200)
        for place in range(5)
    ]
    assert len(set(seeds)) == len(seeds)
    assert max(seeds) < 2**53


def test_the_pictures_sent_are_those_that_the_model_sees_here(engine, tmp_path) -> None:
    """A turned JPEG and a transparent PNG become what `open_image` makes of them, padded as LLaVA-1.5 pads."""
    turned = Image.fromarray(np.arange(40 * 20 * 3, dtype=np.uint8).reshape(40, 20, 3))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    Image.new("RGBA", (20, 10), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    Image.new("L", (20, 10), 0).save(tmp_path / "grey.png", transparency=0)
    assert plain_bytes(tmp_path / "grey.png") is None  # black, and told to be clear
    with model_server(engine) as server:
        asked = load_server("tiny", wanted(server))
        for name in ("turned.jpg", "clear.png"):
            file = tmp_path / name
            asked.answers([Query("a red ring", open_image(file), 0, file)], Decoding(max_new_tokens=2))
            url = server.bodies[-1]["messages"][0]["content"][0]["image_url"]["url"]
            sent = Image.open(io.BytesIO(base64.b64decode(url.partition("base64,")[2])))
            np.testing.assert_array_equal(np.asarray(sent), np.asarray(asked.loaded.shown(open_image(file))))
    assert sent.size == (20, 20)


# ---- faults: what is said, with which exit code, and that nothing is lost or asked twice ----


def _flaky(kind: Outcome):
    """Every third call goes wrong."""
    return lambda body, before: kind if before % 3 == 1 and not first(body, before) else GOOD


def _always(kind: Outcome):
    return lambda body, before: GOOD if first(body, before) else kind


def _change(name: str, value: Any):
    def change(completion: dict[str, Any]) -> None:
        for choice in completion["choices"]:
            choice["message" if name == "content" else name] = {"content": value} if name == "content" else value

    return Outcome(change=change)


def _thought(completion: dict[str, Any]) -> None:
    completion["choices"][0]["message"]["reasoning_content"] = "I think"


def _other_template(completion: dict[str, Any]) -> None:
    completion["prompt_token_ids"] = completion["prompt_token_ids"][:-2]


def _other_size(completion: dict[str, Any]) -> None:
    ids = completion["prompt_token_ids"]
    image = max(set(ids), key=ids.count)
    completion["prompt_token_ids"] = [each for place, each in enumerate(ids) if each != image or place % 2]


PASSES = {
    "429": _flaky(error(429)),
    "429 with Retry-After": _flaky(error(429, Retry_After="0.05")),
    "500": _flaky(error(500)),
    "503": _flaky(Outcome(503, b"busy")),
    "half a body": _flaky(Outcome(cut=True)),
    "no JSON": _flaky(Outcome(body=b"<html>")),
    "no choices": _flaky(Outcome(body=b'{"choices": []}')),
}


@pytest.mark.parametrize("kind", PASSES)
def test_what_passes_is_tried_again(kind, engine, questions, tmp_path) -> None:
    with model_server(engine) as good:
        assert main(words(questions, tmp_path / "good.jsonl", good)) == 0
    with model_server(engine, PASSES[kind]) as server:
        assert main(words(questions, tmp_path / "bad.jsonl", server)) == 0
    assert (tmp_path / "bad.jsonl").read_bytes() == (tmp_path / "good.jsonl").read_bytes()
    assert len(server.bodies) > len(good.bodies)


ENDS: dict[str, tuple[Any, int, str, str]] = {
    "wrong model": (_always(error(404, "model_not_found")), 2, "refuses the request: status 404", "--served_model"),
    "credit": (_always(error(402)), 3, "credit is used up", "kept"),
    "redirect": (_always(Outcome(307, b"", {"Location": "http://127.0.0.1:1/"})), 2, "status 307", "redirects"),
    "key": (lambda body, before: error(401), 2, "status 401", "PERPO_SERVER_API_KEY"),
    "picture refused": (_always(error(400, "invalid_image")), 3, "answered none of 6 questions", "same command"),
    "content filter": (_always(_change("finish_reason", "content_filter")), 3, "no whole answer", "same command"),
    "no text": (_always(_change("content", None)), 3, "no whole answer", "same command"),
    "thoughts taken out": (_always(Outcome(change=_thought)), 2, "takes thoughts out", "reasoning"),
    "other template": (lambda body, before: Outcome(change=_other_template), 2, "another prompt", "--chat-template"),
    "other size": (lambda body, before: Outcome(change=_other_size), 2, "tokens of a picture", "processor settings"),
    "server gone": (_always(error(500)), 3, "answered none of 6 questions, such as: status 500", "kept"),
    "asks to wait": (_always(error(429, Retry_After="9999")), 3, "asks to wait for 9999 s", "after that time"),
}


@pytest.mark.parametrize("kind", ENDS)
def test_what_does_not_pass_is_said(kind, engine, questions, tmp_path, capsys, monkeypatch) -> None:
    behave, code, sentence, hint = ENDS[kind]
    monkeypatch.setattr(chat, "TRIES", 2)
    monkeypatch.setattr(chat._TryAgain.__init__, "__kwdefaults__", {"tries": 2, "reached": True})
    with model_server(engine, behave) as server:
        assert main(words(questions, tmp_path / "out.jsonl", server)) == code
    said, advice = capsys.readouterr().err.rsplit("\nhint: ", 1)
    assert sentence in said
    assert hint in advice
    assert not (tmp_path / "out.jsonl").exists()


def test_a_server_that_hangs(engine, questions, tmp_path, capsys) -> None:
    hanging = lambda body, before: GOOD if first(body, before) or "ring" not in str(body["messages"]) else HANGS  # noqa: E731
    with model_server(engine, hanging) as server:
        code = main(words(questions, tmp_path / "out.jsonl", server, timeout_s=0.5))
    err = capsys.readouterr().err
    asked = {body["messages"][0]["content"][1]["text"] for body in server.bodies}
    assert any("ring" in each for each in asked)
    assert code == 3
    assert "no answer within 0.5 s" in err


HANGS = Outcome(hang=True)


def test_failed_questions_alone_are_asked_again(engine, questions, tmp_path, capsys) -> None:
    """Nothing is lost, and nothing is asked twice."""
    output, rows = tmp_path / "out.jsonl", [json.loads(line) for line in questions.read_text().splitlines()]
    bad = rows[2]["question"]

    def behave(body: dict[str, Any], before: int) -> Outcome:
        asks = body["messages"][0]["content"][1]["text"] == bad
        return error(400, "invalid_image") if asks and not first(body, before) else GOOD

    with model_server(engine, behave) as server:
        assert main(words(questions, output, server)) == 3
    assert "1 of 6 questions have no answer" in capsys.readouterr().err
    with model_server(engine) as again:
        assert main(words(questions, output, again)) == 0
    assert again.asked == {bad: 3} | {text: 1 for text, count in again.asked.items() if text != bad and count == 1}
    with model_server(engine) as good:
        assert main(words(questions, tmp_path / "good.jsonl", good)) == 0
    assert output.read_bytes() == (tmp_path / "good.jsonl").read_bytes()


def test_one_of_two_servers_dies(engine, questions, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(chat._TryAgain.__init__, "__kwdefaults__", {"tries": 2, "reached": True})
    dying = lambda body, before: GOOD if before < 2 else error(500)  # noqa: E731
    with model_server(engine) as good, model_server(engine, dying) as bad:
        assert main(words(questions, tmp_path / "out.jsonl", good, bad, concurrency=1)) in (0, 3)
        if not (tmp_path / "out.jsonl").exists():  # those that met it before it was known to be gone
            assert main(words(questions, tmp_path / "out.jsonl", good, concurrency=1)) == 0
    with model_server(engine) as alone:
        assert main(words(questions, tmp_path / "alone.jsonl", alone)) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()


def test_fewer_choices_than_asked(engine, questions, tmp_path, capsys) -> None:
    def fewer(completion: dict[str, Any]) -> None:
        del completion["choices"][1:]

    with model_server(engine, lambda body, before: Outcome(change=fewer)) as server:
        assert main(words(questions, tmp_path / "out.jsonl", server)) == 0
    assert "gives 1 of 3 candidates at once" in capsys.readouterr().err
    with model_server(engine) as good:
        assert main(words(questions, tmp_path / "good.jsonl", good)) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "good.jsonl").read_bytes()


def test_one_seed_for_all_candidates_is_noticed(engine, questions, tmp_path, capsys) -> None:
    with model_server(engine, seeded=False) as server:
        assert main(words(questions, tmp_path / "out.jsonl", server)) == 0
    assert "one seed" in capsys.readouterr().err
    records = read_preferences(tmp_path / "out.jsonl")
    assert any(len(set(record.answers_gen)) > 1 for record in records)


def test_a_strict_server_is_asked_without_what_it_does_not_know(engine, questions, tmp_path, capsys) -> None:
    strict = lambda body, before: error(400, "unknown_field") if "top_k" in body else GOOD  # noqa: E731
    with model_server(engine, strict) as server:
        assert main(words(questions, tmp_path / "out.jsonl", server)) == 0
    assert "its own defaults hold" in capsys.readouterr().err
    assert not any("top_k" in body for body in server.bodies[1:])


def test_a_server_that_cannot_answer_now_is_no_strict_one(engine, questions, tmp_path, capsys) -> None:
    """At the first look it hangs once; nothing of what is sent is left out because of that."""
    with model_server(engine, lambda body, before: HANGS if before == 0 else GOOD) as server:
        assert main(words(questions, tmp_path / "out.jsonl", server, timeout_s=2)) == 0
    assert all("top_k" in body for body in server.bodies)
    assert "its own defaults hold" not in capsys.readouterr().err


LISTS: dict[str, tuple[Any, dict[str, Any], str, str]] = {
    "no list": (Outcome(404, b"{}"), {}, "gives no list of models", "/v1"),
    "no models": ([], {}, "lists no models", "/v1"),
    "several": ([{"id": "a"}, {"id": "b"}], {}, "has 2 models: a, b", "--served_model"),
    "another": ([{"id": "tinny"}], {"served_model": "tiny"}, "has no model 'tiny'", "tinny"),
    "key": (Outcome(401, b"{}"), {}, "wants a key", "PERPO_SERVER_API_KEY"),
    "short context": (
        [{"id": "tiny", "max_model_len": 90}],
        {},
        "exceed the 90 tokens that the server takes",
        "model-len",
    ),
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_server_is_looked_at_before_it_is_asked(kind, engine, questions, tmp_path, capsys) -> None:
    models, flags, sentence, hint = LISTS[kind]
    with model_server(engine, models=models) as server:
        assert main(words(questions, tmp_path / "out.jsonl", server, **flags)) == 2
    said, advice = capsys.readouterr().err.rsplit("\nhint: ", 1)
    assert sentence in said
    assert hint in advice
    assert not server.bodies


def test_servers_of_two_models_and_none_at_all(engine, questions, tmp_path, capsys) -> None:
    other = [{"id": "tiny", "root": "another", "owned_by": "test"}]
    with model_server(engine) as one, model_server(engine, models=other) as two:
        assert main(words(questions, tmp_path / "out.jsonl", one, two)) == 2
    assert "do not serve the same model" in capsys.readouterr().err
    assert main(words(questions, tmp_path / "out.jsonl", one)) == 2
    assert "there is no server at" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--engine", "server"], "needs the server's address"),
        (["--base_url", "http://127.0.0.1:1/v1"], "--base_url is for --engine server"),
        (["--engine", "server", "--base_url", "http://a/v1", "http://a/v1/"], "one address twice"),
        (["--engine", "server", "--base_url", "http://me:secret@a/v1"], "must not hold a user, password"),
        (["--engine", "server", "--base_url", "http://a/v1", "--adapter", "x"], "--adapter is not for --engine server"),
        (["--engine", "server", "--base_url", "http://a/v1", "--dtype", "float32"], "--dtype is not for"),
    ],
)
def test_flags(flags, sentence, tmp_path, capsys) -> None:
    assert main(["--output", str(tmp_path / "out.jsonl"), *flags]) == 2
    assert sentence in capsys.readouterr().err


def test_the_key_is_sent_and_told_nowhere(engine, questions, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("PERPO_SERVER_API_KEY", KEY)
    echo = lambda body, before: GOOD if before < 3 else error(400, "bad", f"no: {KEY}")  # noqa: E731
    with model_server(engine, echo) as server:
        assert main(words(questions, tmp_path / "out.jsonl", server)) == 3
    assert set(server.keys) == {f"Bearer {KEY}"}
    said = capsys.readouterr()
    assert KEY not in said.err + said.out
    assert "***" in said.err
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()]


def test_a_killed_run_goes_on_where_it_was(engine, questions, tmp_path) -> None:
    output = tmp_path / "out.jsonl"
    command = [sys.executable, "-m", "perpo.cli.sample"]
    slow = lambda body, before: (time.sleep(0.05), GOOD)[1]  # noqa: E731
    with model_server(engine, slow) as server:
        flags = [*words(questions, output, server), "--batch_size", "1", "--concurrency", "1"]
        process = subprocess.Popen([*command, *flags], env=os.environ | {"OMP_NUM_THREADS": "1"})
        journal = Path(f"{output}.journal")
        while not journal.exists() or journal.read_bytes().count(b"\n") < 3:
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = dict(server.asked)
        assert subprocess.run([*command, *flags], env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode == 0
    twice = [text for text, count in server.asked.items() if count - before.get(text, 0) > 3 and before.get(text, 0)]
    assert len(twice) <= 1
    assert len(read_preferences(output)) == QUESTIONS


def test_missing_answers_are_no_answers(engine, questions) -> None:
    row = json.loads(questions.read_text().splitlines()[0])
    file = questions.parent / row["image_path"]
    with model_server(engine, _always(error(400, "invalid_image"))) as server:
        asked = load_server("tiny", wanted(server))
        (given,) = asked.answers([Query(row["question"], open_image(file), 0, file)], Decoding(max_new_tokens=4))
    assert isinstance(given, NoAnswer)
    assert given.ends is None
    assert re.search("status 400", given.why)


def test_a_family_that_is_not_listed_is_refused(tmp_path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "aya_vision"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    from perpo.models.loading import load_processor

    with pytest.raises(PerpoError, match="is not listed"):
        load_processor(str(tmp_path))
