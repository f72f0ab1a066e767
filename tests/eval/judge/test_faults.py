"""A judge that fails in every way: nothing is lost, and nothing is paid for twice."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from openai import APIConnectionError, AsyncOpenAI, OpenAI

from perpo.engines.bodies import BodyTooLarge, limit_bodies
from perpo.errors import PerpoError
from tests.support import ROOT
from tests.support.judge_questions import QUESTIONS, ask, settled
from tests.support.judge_server import PAIR, RATING, Answer, Call, good, judge_server, refusal

DOCS = ROOT / "docs/judged.md"
pytestmark = pytest.mark.usefixtures("quick_judge")


class Fault(NamedTuple):
    """A fault that the judge shows to the first question.

    Attributes:
        name: As the table says.
        behave: What the server does at the first question's n-th call.
        calls: How often that question is asked.
        outcome: "scored", "missing", or the exit code of the error.
        again: How often it is asked when the same command is run again, with a judge that is well.
        said: In the verdict's flags or error, or in the error's sentence.
    """

    name: str
    behave: list[Answer]
    calls: int
    outcome: str | int
    again: int
    said: str


WELL = Answer(PAIR)
PACKED = Answer(body=gzip.compress(bytes(64 << 20), 1), headers={"Content-Encoding": "gzip"})
FAULTS = [
    Fault("429 with Retry-After: 1, once", [refusal(429, headers={"Retry-After": "1"}), WELL], 2, "scored", 0, ""),
    Fault("429 without Retry-After, three times", [refusal(429)] * 3 + [WELL], 4, "scored", 0, ""),
    Fault("500, 502 and 503", [refusal(500), refusal(502), refusal(503), WELL], 4, "scored", 0, ""),
    Fault("hangs, once", [Answer(hang=True), WELL], 2, "scored", 0, ""),
    Fault("closes the connection in the middle of a body", [Answer(PAIR, cut=True), WELL], 2, "scored", 0, ""),
    Fault("200 with a body that is no JSON", [Answer(body=b"<html>busy</html>"), WELL], 2, "scored", 0, ""),
    Fault("200 with JSON that is no completion", [Answer(body=b'{"choices": []}'), WELL], 2, "scored", 0, ""),
    Fault("an answer without a rating, then a good one", [Answer("Well."), WELL], 2, "scored", 0, "asked_again"),
    Fault("no rating, twice", [Answer("Well."), Answer("Hm.")], 2, "missing", 0, "unreadable"),
    Fault("scores off the scale", [Answer("0 9")], 1, "scored", 0, "out_of_scale"),
    Fault("an empty answer, twice", [Answer("")] * 2, 2, "missing", 0, "unreadable"),
    Fault(
        "a refusal, twice",
        [Answer(message={"role": "assistant", "content": None, "refusal": "I can't."})] * 2,
        2,
        "missing",
        0,
        "refusal",
    ),
    Fault("400 of a content filter, twice", [refusal(400, "content_filter")] * 2, 2, "missing", 0, "refusal"),
    Fault("cut at the token limit, twice", [Answer("Let me see", finish_reason="length")] * 2, 2, "missing", 0, "cut"),
    Fault("hangs at every try", [Answer(hang=True)] * 3, 3, "missing", 1, "no answer within 1 s"),
    Fault("500 at every try", [refusal(500)] * 6, 6, "missing", 1, "status 500"),
    Fault("400: longer than the context", [refusal(400, "context_length_exceeded")], 1, "missing", 1, "status 400"),
    Fault("a body of 17 MiB", [Answer(body=b" " * (17 << 20))], 1, "missing", 1, "larger than 16 MiB"),
    Fault("a packed body of 64 MiB", [PACKED], 1, "missing", 1, "larger than 16 MiB"),
    Fault("500 with a body of 17 MiB", [refusal(500, "x" * (17 << 20))], 1, "missing", 1, "larger than 16 MiB"),
    Fault("401: wrong key", [refusal(401)], 1, 2, 1, "status 401"),
    Fault("404: no such model", [refusal(404, "model_not_found")], 1, 2, 1, "status 404"),
    Fault("redirected", [refusal(307, headers={"Location": "http://127.0.0.1:9/v1"})], 1, 2, 1, "status 307"),
    Fault("429: the credit is used up", [refusal(429, "insufficient_quota")], 1, 3, 1, "credit"),
    Fault("429 with Retry-After: 3600", [refusal(429, headers={"Retry-After": "3600"})], 1, 3, 1, "wait for 3600 s"),
]


@pytest.fixture(scope="module")
def table(request):
    """Takes the cells of the fault table's rows; the table is printed when the last fault was shown."""
    head = ["fault", "calls", "what came of it", "calls when run again", "answers kept"]
    rows = [head, ["---", "--:", "---", "--:", "--:"]]

    def add(*cells: object) -> None:
        rows.append([str(cell) for cell in cells])
        assert _line(rows[-1]) in DOCS.read_text(), "docs/judged.md shows another row of the fault table"

    yield add
    with request.config.pluginmanager.get_plugin("capturemanager").global_and_fixture_disabled():
        print("", *map(_line, rows), sep="\n")


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def outcome_of(fault: Fault, ask_once) -> tuple[str, str]:
    """What came of the first question, and what was said about it."""
    if isinstance(fault.outcome, int):
        with pytest.raises(PerpoError) as raised:
            ask_once()
        assert raised.value.exit_code == fault.outcome
        assert raised.value.hint
        return f"error, exit code {fault.outcome}", raised.value.message
    answers = ask_once()
    assert all(rating is not None for name, rating in settled(answers).items() if name != QUESTIONS[0].id)
    (verdict,) = answers[QUESTIONS[0].id]
    assert (verdict.rating is None) == (fault.outcome == "missing")
    assert (verdict.rating is None) == (verdict.error is not None or "unreadable" in verdict.flags)
    return fault.outcome, " ".join([*verdict.flags, verdict.error or ""]).strip()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_costs_its_own_question_at_most(fault: Fault, tmp_path, table) -> None:
    first = QUESTIONS[0].messages[-1]["content"]

    def behave(call: Call, times: int) -> Answer:
        return fault.behave[times - 1] if call.prompt == first else good(call, times)

    patience_s = 1 if any(answer.hang for answer in fault.behave) else 60
    # one call at a time, the faulty question last: what the others were answered is known
    order = [*QUESTIONS[1:], QUESTIONS[0]]
    with judge_server(behave) as server:
        outcome, said = outcome_of(fault, lambda: ask(server, tmp_path, order, concurrency=1, timeout_s=patience_s))
        calls = Counter(call.prompt == first for call in server.calls)
        assert (calls[True], calls[False]) == (fault.calls, 5)
        assert fault.said in said

        server.behave = lambda call, times: WELL if call.prompt == first else Answer("another answer")
        server.calls.clear()
        after = ask(server, tmp_path, order)
        assert [call.prompt for call in server.calls] == [first] * fault.again
    with judge_server() as other:  # what a good judge says of the others
        expected = settled(ask(other, tmp_path / "other", order))
    kept = sum(settled(after)[question.id] == expected[question.id] for question in QUESTIONS[1:])
    assert kept == 5
    said = re.sub(r" at http\S+| \(.*\)", "", said).replace("_", " ")
    table(fault.name, fault.calls, f"{outcome}{said and ': '}{said}", fault.again, f"{kept} of 5")


def test_a_judge_that_is_gone_ends_the_run_with_all_that_it_said(tmp_path, table) -> None:
    with judge_server() as server:
        ask(server, tmp_path, QUESTIONS[:2])
        server.close()
        with pytest.raises(PerpoError, match="gives no answers: ConnectError") as raised:
            ask(server, tmp_path)
        assert raised.value.exit_code == 3
    assert _lines(tmp_path) == 1 + 2  # its head and two answers
    table("the judge is gone", "6 each", "error, exit code 3: the judge gives no answers", 4, "2 of 2")


def test_questions_that_always_fail_do_not_keep_the_others_from_a_record(tmp_path) -> None:
    """As many as would say that a judge is gone, were it not known to answer."""
    bad = {question.messages[-1]["content"] for question in QUESTIONS[:5]}
    order = [*QUESTIONS[5:], *QUESTIONS[:5]]
    with judge_server(lambda call, times: refusal(500) if call.prompt in bad else good(call, times)) as server:
        for _ in range(2):
            ratings = settled(ask(server, tmp_path, order, concurrency=1))
            assert [rating is None for rating in ratings.values()] == [False] + [True] * 5
        with pytest.raises(PerpoError, match="gives no answers: status 500"):
            ask(server, tmp_path / "anew", order[1:])


ASKER = """
import sys
from pathlib import Path
from perpo.common.program import run_program
from perpo.engines.chat import ChatServer
from perpo_eval.judge.asking import JudgeQuestion, ask_judge
from perpo_eval.judge.messages import mmhal_messages
from perpo_eval.judge.settings import JudgeSettings
def main(words):
    questions = [JudgeQuestion(str(n), mmhal_messages(f"What is {n}?", [], "g", "a"), "mmhal") for n in range(20)]
    ask_judge(JudgeSettings("gpt", ChatServer(words[0], concurrency=3)), questions, Path(words[1]), key=None)
sys.exit(run_program(main))
"""


@pytest.mark.parametrize(("blow", "name"), [(signal.SIGKILL, "kill -9"), (signal.SIGINT, "Ctrl-C")])
def test_killed_in_the_middle_no_answer_is_paid_for_twice(blow, name, tmp_path, table) -> None:
    answers = itertools.count()

    def behave(call: Call, times: int) -> Answer:
        return Answer(RATING) if next(answers) < 8 else Answer(hang=True)

    with judge_server(behave) as server:
        command = [sys.executable, "-c", ASKER, server.url, str(tmp_path)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            _until(lambda: _lines(tmp_path) == 9 and (len(server.answered), len(server.calls)) == (8, 11), process)
            process.send_signal(blow)
            _, err = process.communicate(timeout=30)
        assert process.returncode == (-signal.SIGKILL if blow == signal.SIGKILL else 130)
        assert "Traceback" not in err
        kept = set(server.answered)
        server.behave = lambda call, times: Answer(RATING)
        server.calls.clear()
        subprocess.run(command, check=True, timeout=60, capture_output=True)
        again = [call.prompt for call in server.calls]
        _until(lambda: len(server.answered) == 20)
        assert len(set(server.answered)) == 20
        kept -= set(again)
        table(f"{name} after 8 of 20 answers, 3 calls open", 11, "the program ends", len(again), f"{len(kept)} of 8")
        server.calls.clear()
        subprocess.run(command, check=True, timeout=60, capture_output=True)
        assert server.calls == []


def _lines(folder: Path) -> int:
    """Whole lines of the journals of a folder."""
    return sum(file.read_bytes().count(b"\n") for file in folder.glob("*.jsonl"))


def _until(true, process: subprocess.Popen | None = None) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert process is None or process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_two_processes_do_not_ask_one_judge_with_one_cache(tmp_path) -> None:
    with judge_server(lambda call, times: Answer(hang=True)) as server:
        command = [sys.executable, "-c", ASKER, server.url, str(tmp_path)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            _until(lambda: len(server.calls) == 3, process)
            with pytest.raises(PerpoError, match="in use by another process"):
                ask(server, tmp_path)
            process.kill()


def test_a_torn_line_costs_its_own_call_alone(tmp_path) -> None:
    with judge_server() as server:
        before = ask(server, tmp_path, concurrency=1)
        (journal,) = tmp_path.iterdir()
        journal.write_bytes(journal.read_bytes()[:-7])
        assert ask(server, tmp_path) == before
        assert len(server.calls) == 6 + 1


@pytest.mark.parametrize("body", [None, b" " * (17 << 20)], ids=["good", "large"])
def test_a_server_that_an_lmms_eval_model_asks_sends_no_more_than_the_limit_either(body) -> None:
    asked: Any = {"model": "m", "messages": [{"role": "user", "content": "?"}]}
    with judge_server(lambda call, times: Answer("yes", body=body)) as server:
        plain = OpenAI(api_key="none", base_url=server.url, max_retries=0)
        waiting = AsyncOpenAI(api_key="none", base_url=server.url, max_retries=0)
        assert limit_bodies(plain)
        assert limit_bodies(waiting)

        async def wait() -> Any:
            return await waiting.chat.completions.create(**asked)

        for ask_it in (lambda: plain.chat.completions.create(**asked), lambda: asyncio.run(wait())):
            if body is None:
                assert ask_it().choices[0].message.content == "yes"
                continue
            with pytest.raises((BodyTooLarge, APIConnectionError)) as raised:  # openai's versions differ
                ask_it()
            assert "larger than 16 MiB" in f"{raised.value} {raised.value.__cause__}"
    assert not limit_bodies(None)
