"""A judge is asked what the official scripts ask, no faster than allowed, and its key is nowhere."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import socket
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from perpo.errors import PerpoError
from perpo_eval.judge.asking import JudgeQuestion, Verdict, ask_judge
from perpo_eval.judge.messages import llava_messages, mmhal_messages, prompts_sha256
from perpo_eval.judge.settings import judge_key
from tests.support import ROOT, SHARED
from tests.support.judge_questions import QUESTIONS, ask, judge_at, pair, rating, settled
from tests.support.judge_server import Answer, Call, good, judge_server, refusal

KEY = "sk-a-secret-of-the-tests-0123456789"
pytestmark = pytest.mark.usefixtures("quick_judge")


def test_answers_are_read_and_counted(tmp_path) -> None:
    with judge_server() as server:
        answers = ask(server, tmp_path)
    for question in QUESTIONS:
        call = Call({"messages": question.messages}, None, 0)
        said = good(call, 1).text
        numbers = re.findall(r"[0-9]+", said)
        expected = int(numbers[0]) if question.benchmark == "mmhal" else tuple(map(float, numbers))
        read = sum(len(message["content"].split()) for message in question.messages)
        (verdict,) = answers[question.id]
        assert verdict == Verdict(question.id, 0, said, expected, [], None, 1, read, len(said.split()), "gpt", said)


def test_the_official_request_is_sent(tmp_path) -> None:
    caption = "A photo."
    question = JudgeQuestion("1", llava_messages("Where?", "detail", caption, "Here.", "There."), "llava_bench")
    with judge_server() as server:
        ask(server, tmp_path, [question, rating(1)], key=KEY)
    sent = {call.body["temperature"]: call for call in server.calls}
    assert {call.authorization for call in server.calls} == {f"Bearer {KEY}"}
    assert {name: value for name, value in sent[0.0].body.items() if name != "messages"} == {
        "model": "gpt",
        "temperature": 0.0,
    }
    pairs = sent[0.2].body
    assert {name: value for name, value in pairs.items() if name != "messages"} == {
        "model": "gpt",
        "temperature": 0.2,
        "max_tokens": 1024,
    }
    system, user = pairs["messages"]
    assert system["content"] == "You are a helpful and precise assistant for checking the quality of the answer."
    assert user["content"].startswith(
        "[Context]\nA photo.\n\n[Question]\nWhere?\n\n[Assistant 1]\nHere.\n\n[End of Assistant 1]\n\n"
        "[Assistant 2]\nThere.\n\n[End of Assistant 2]\n\n[System]\nWe would like to request your feedback"
    )
    assert user["content"].endswith("does not affect your judgment.\n\n")
    (only,) = sent[0.0].body["messages"]
    assert only["role"] == "user"
    assert only["content"].endswith(
        "### Image Contents\nCat, Dog\n\n### Question\nWhat is 1?\n\n"
        "### Standard Human-Generated Answer\nA cat.\n\n### LMM Response to Evaluate\nA\n"
    )


def test_answers_may_hold_braces_and_be_swapped() -> None:
    (message,) = mmhal_messages("{}?", ["{x}"], "{0}", "{answer}")
    assert message["content"].count("{answer}") == message["content"].count("{0}") == 1
    swapped = llava_messages("?", "complex", "c", "reference", "answer", swapped=True)
    assert swapped == llava_messages("?", "complex", "c", "answer", "reference")


def test_the_published_rules_are_the_ones_that_are_sent() -> None:
    published = SHARED / "data/llava_bench_wild/rule.json"
    if not published.exists():
        pytest.skip("the published rule.json is not here")
    rules = json.loads(published.read_text())
    for category in ("conv", "detail", "complex"):
        user = llava_messages("?", category, "c", "r", "a")[1]["content"]
        assert user.endswith(f"[System]\n{rules[f'llava_bench_{category}']['prompt']}\n\n")


def test_digests_are_of_prompt_and_settings() -> None:
    folder = ROOT / "eval/perpo_eval/judge/prompts"
    settings = json.loads((folder / "settings.json").read_text())
    for benchmark, name in {"llava_bench": "llava_bench.json", "mmhal": "mmhal.txt"}.items():
        digested = (folder / name).read_bytes() + b"\x1f" + json.dumps(settings[benchmark], sort_keys=True).encode()
        assert prompts_sha256(benchmark) == hashlib.sha256(digested).hexdigest()


def test_a_wrong_key_costs_no_more_than_the_open_calls(tmp_path) -> None:
    questions = [pair(number) for number in range(60)]
    with judge_server(lambda call, times: refusal(401), delay_s=0.05) as server:
        with pytest.raises(PerpoError, match="status 401") as raised:
            ask(server, tmp_path, questions, concurrency=4)
        assert len(server.calls) <= 4
    assert (raised.value.exit_code, raised.value.hint) == (2, "set PERPO_JUDGE_API_KEY to the key of this judge")


def test_one_bad_request_ends_all_only_while_no_other_was_answered(tmp_path) -> None:
    bad = pair(0).messages[-1]["content"]

    def behave(call: Call, times: int) -> Answer:
        return refusal(400) if call.prompt == bad else good(call, times)

    with judge_server(behave) as server:
        with pytest.raises(PerpoError, match="status 400"):
            ask(server, tmp_path, [pair(0), pair(1)], concurrency=1)
        answers = ask(server, tmp_path, [pair(1), pair(0)], concurrency=1)
        (verdict,) = answers["pair 0"]
        assert (verdict.rating, verdict.error, answers["pair 1"][0].rating is None) == (None, "status 400 (no)", False)
        assert ask(server, tmp_path, [pair(0)])["pair 0"] == [verdict]  # others were answered in an earlier run


def test_an_address_where_nothing_listens(tmp_path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        settings = judge_at("gpt", f"http://127.0.0.1:{unused.getsockname()[1]}/v1")
        with pytest.raises(PerpoError, match="gives no answers") as raised:
            ask_judge(settings, QUESTIONS, tmp_path, key=None)
    assert raised.value.exit_code == 3


def test_retry_after_holds_every_call_back(tmp_path) -> None:
    """As seconds and as a date, whose resolution is a second."""
    quick, slow = (question.messages[-1]["content"] for question in QUESTIONS[:2])

    def refused(server) -> Call:
        return next(call for call in server.calls if call.prompt == quick)

    def in_two_seconds() -> str:
        return format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)

    for name, value in {"seconds": lambda: "1", "date": in_two_seconds}.items():

        def behave(call: Call, times: int, value=value) -> Answer:
            if call.prompt == slow:
                server.over.wait(0.2)  # the next question comes up while the first one's 429 is known
            return refusal(429, headers={"Retry-After": value()}) if call is refused(server) else good(call, times)

        with judge_server(behave) as server:
            answers = ask(server, tmp_path / name, concurrency=2)
            assert all(rating is not None for rating in settled(answers).values())
            at = refused(server).at
            later = [call.at - at for call in server.calls if call is not refused(server) and call.prompt != slow]
            assert len(later) == 5
            assert min(later) >= 0.9


def test_no_more_calls_are_open_than_allowed(tmp_path) -> None:
    with judge_server(delay_s=0.3) as server:
        ask(server, tmp_path, [rating(number) for number in range(14)], concurrency=7)
        assert server.most_open == 7


def test_no_more_calls_begin_in_a_second_than_allowed(tmp_path) -> None:
    with judge_server() as server:
        ask(server, tmp_path, [rating(number) for number in range(11)], rps=20.0)
    begun = sorted(call.at for call in server.calls)
    assert begun[-1] - begun[0] >= 10 / 20 * 0.7  # less what the first one may have been late


def test_votes_are_calls_of_their_own_and_are_kept(tmp_path) -> None:
    turns = itertools.count()
    with judge_server(lambda call, times: Answer(f"{1 + next(turns) % 9} 9")) as server:
        one = ask(server, tmp_path, [pair(0)])
        three = ask(server, tmp_path, [pair(0)], votes=3)
        assert len(server.calls) == 3
    assert three["pair 0"][0] == one["pair 0"][0]
    assert [verdict.vote for verdict in three["pair 0"]] == [0, 1, 2]
    assert sorted(verdict.rating[0] for verdict in three["pair 0"]) == [1, 2, 3]


def test_another_judge_or_prompt_is_asked_anew_and_equal_requests_once(tmp_path) -> None:
    twin = JudgeQuestion("twin", pair(0).messages, "llava_bench")
    with judge_server() as server:
        answers = ask(server, tmp_path, [pair(0), twin])
        assert len(server.calls) == 1
        assert answers["pair 0"][0].rating == answers["twin"][0].rating
        ask(server, tmp_path, [pair(1)])
        ask_judge(judge_at("other", server.url), [pair(0)], tmp_path, key=None)
        assert len(server.calls) == 3
        ask_judge(judge_at("other", f"{server.url}/", rps=100.0, concurrency=1), [pair(0)], tmp_path, key=KEY)
        assert len(server.calls) == 3  # pace and key change no answer


def test_the_key_comes_from_the_environment_alone() -> None:
    assert judge_key({}) is None
    assert judge_key({"OPENAI_API_KEY": "b"}) == "b"
    assert judge_key({"PERPO_JUDGE_API_KEY": "a", "OPENAI_API_KEY": "b"}) == "a"
    assert judge_key({"PERPO_JUDGE_API_KEY": "", "OPENAI_API_KEY": "b"}) == "b"


def test_the_key_is_nowhere(tmp_path, capfd) -> None:
    """Not where the server says it back: in its words, its name, its error, its headers."""
    echo = json.dumps({"error": {"message": f"Incorrect API key provided: {KEY}.", "code": "invalid_api_key"}}).encode()
    seen = []
    for number, answer in enumerate(
        [
            Answer(f"Your key is {KEY}.\n8 9"),
            Answer(body=json.dumps({"choices": [{"message": {"content": "8 9"}}], "model": KEY}).encode()),
            Answer(status=401, body=echo),
            Answer(status=500, body=echo),
            Answer(body=f"no JSON but {KEY}".encode()),
            Answer(status=307, headers={"Location": f"http://127.0.0.1:9/{KEY}"}),
        ]
    ):
        with judge_server(lambda call, times, answer=answer: answer) as server:
            try:
                answers = ask(server, tmp_path / str(number), [pair(0), pair(1), rating(0)], key=KEY)
                seen += [repr(answers)]
            except PerpoError as error:
                seen += ["".join(traceback.format_exception(error)), error.hint]
            assert {call.authorization for call in server.calls} == {f"Bearer {KEY}"}
            seen.append(repr(judge_at("gpt", server.url)))
    seen += capfd.readouterr()
    seen += [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert any("***" in text for text in seen)
    assert [text for text in seen if KEY in text] == []


@pytest.mark.parametrize("key", ["sk-with\na-break-of-the-line", "sk-schlüssel-0123", "sk with spaces"])
def test_a_key_that_no_header_can_hold_is_refused_unsaid(key, tmp_path) -> None:
    settings = judge_at("gpt", "http://127.0.0.1:9/v1")
    with pytest.raises(PerpoError) as raised:
        ask_judge(settings, QUESTIONS, tmp_path, key=key)
    assert key not in "".join(traceback.format_exception(raised.value)) + raised.value.hint


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"url": "http://me:secret@host/v1"}, "must not hold a user"),
        ({"url": "http://host/v1?key=secret"}, "must not hold a user"),
        ({"url": "127.0.0.1:8000/v1"}, "as the address of the judge"),
        ({"url": "ftp://host/v1"}, "as the address of the judge"),
        ({"url": ""}, "as the address of the judge"),
        ({"url": "http://me:secret@host:port/v1"}, "not a URL"),
        ({"url": "http://[::1/v1"}, "not a URL"),
        ({"model": ""}, "has no name"),
        ({"votes": 0}, "votes"),
        ({"rps": 0.0}, "rps"),
        ({"concurrency": -1}, "concurrency"),
        ({"timeout_s": float("inf")}, "timeout_s"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changed, sentence) -> None:
    with pytest.raises(PerpoError, match=sentence) as raised:
        judge_at(**{"model": "gpt", "url": "http://127.0.0.1:8000/v1"} | changed)
    assert "secret" not in raised.value.message + raised.value.hint


def test_the_record_names_what_answers_depend_on_and_nothing_else() -> None:
    one = judge_at("gpt", "http://127.0.0.1:1/v1").identity()
    assert one == judge_at("gpt", "https://host/v1", rps=2.0, concurrency=3, timeout_s=9.0).identity()
    assert one != judge_at("gpt", "http://127.0.0.1:1/v1", votes=3).identity()
    assert (one["id"], one["settings"]["official_model"]) == ("gpt", "gpt-4-0314")
    assert json.loads(json.dumps(one)) == one


def test_the_estimate_comes_first_and_the_count_last(tmp_path) -> None:
    said: list[str] = []
    with judge_server() as server:
        settings = judge_at("gpt", server.url)
        for _ in range(2):
            ask_judge(settings, QUESTIONS, tmp_path, key=None, report=said.append)
    characters = sum(len(message["content"]) for question in QUESTIONS for message in question.messages)
    words = sum(len(message["content"].split()) for question in QUESTIONS for message in question.messages)
    assert f"6 of 6 calls to make, prompts of about {characters // 4:,} tokens (an estimate" in said[0]
    assert f"6 answers, {words:,} tokens read" in said[1]
    assert said[2:] == ["judge gpt: no calls to make, all 6 were answered before"]


def test_proxies_of_the_environment_are_honoured(tmp_path, monkeypatch) -> None:
    """A judge behind a company's proxy is reached through it."""
    with judge_server() as proxy:
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("HTTP_PROXY", proxy.url.removesuffix("/v1"))
        with pytest.raises(PerpoError, match="status 404"):  # the server sees the whole address for a path
            ask_judge(judge_at("gpt", "http://judge.invalid/v1"), [pair(0)], tmp_path, key=None)
    assert os.environ["HTTP_PROXY"]
