"""perpo.engines.base: one protocol, which perpo-sample, validation and perpo-eval take."""

from __future__ import annotations

import json
import sys
import textwrap
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from perpo.data import read_preferences
from perpo.engines.base import Answer, Decoding, EngineInfo, Query, ask
from perpo.engines.choice import load_engine
from perpo.errors import PerpoError
from perpo.models.families import FAMILIES
from perpo.records.store import read_run
from perpo.results.samples import read_scores
from perpo.rewards.asked import Asked, QuestionSet
from perpo.rewards.functions import load_reward
from perpo.sample.arguments import SampleArguments
from perpo.sample.run import run_sampling
from perpo.train.watching.validation import Validation
from perpo_eval.arguments import EvalArguments
from perpo_eval.evaluate.run import evaluate

SAID = "[0.25, 0.25, 0.75, 0.75]"


class Server:
    """An engine that is no Hugging Face model: it has no tokens, no weights and no batches that matter."""

    info = EngineInfo(name="server", model="m", by_batch=False, family=FAMILIES["llava"])

    def __init__(self) -> None:
        self.asked: list[tuple[Query, Decoding]] = []

    def check(self, questions, image_root, decoding) -> None:
        """Everything fits."""

    def prompt(self, question: str) -> str:
        return question

    def lengths(self, prompts) -> list[int]:
        return [len(prompt) for prompt in prompts]

    def answers(self, queries, decoding) -> list[list[Answer]]:
        self.asked += [(query, decoding) for query in queries]
        said = [Answer(SAID, False, None), Answer("none", True, None), *[Answer(SAID, False, None)] * 8]
        return [said[: decoding.num_candidates] for _ in queries]


@pytest.fixture
def server(monkeypatch) -> Server:
    """The one place where engines are chosen gives this one."""
    engine = Server()
    monkeypatch.setattr("perpo.engines.hf.load_hf", lambda *args, **kwargs: engine)
    return engine


def test_sampling_takes_any_engine(server, tmp_path) -> None:
    args = SampleArguments(output=str(tmp_path / "o.jsonl"), num_candidates=2, limit=3, temperature=0.5, seed=7)
    run = run_sampling(args)
    lines = [json.loads(line) for line in run.output.read_text().splitlines()]
    assert [(line["answers_gen"], line["truncated"]) for line in lines] == [([SAID, "none"], [False, True])] * 3
    assert lines[0]["sampling"] == {
        "engine": "server",
        "temperature": 0.5,
        "top_p": 1.0,
        "seed": 7,
        "max_new_tokens": args.max_new_tokens,
        "model": "m",
        "dtype": None,
        "weights_sha256": None,
        "adapter_sha256": None,
    }
    assert [query.draw for query, _ in server.asked] == [0, 1, 2]
    assert {decoding for _, decoding in server.asked} == {args.decoding}
    journal = run.output.with_name("o.jsonl.journal").read_bytes()
    server.asked.clear()
    run_sampling(args)
    assert server.asked == []
    assert run.output.with_name("o.jsonl.journal").read_bytes() == journal


LOOP = "0.1 " * 100


def test_sampling_says_which_answers_loop(server, tmp_path, monkeypatch, capsys) -> None:
    said = [Answer(SAID, False, None), Answer(LOOP, False, None), Answer(LOOP, True, None), Answer("", True, None)]
    said[3] = Answer("", True, None, whole="\n" * 400)  # of blanks, which no text keeps
    monkeypatch.setattr(server, "answers", lambda queries, decoding: [said for _ in queries])
    args = SampleArguments(output=str(tmp_path / "o.jsonl"), num_candidates=4, limit=2)
    run = run_sampling(args)
    assert (run.summary.candidates, run.summary.truncated) == (8, 4)
    assert (run.summary.looped, run.summary.looped_truncated) == (6, 4)
    assert [record.looped for record in read_preferences(run.output)] == [[False, True, True, True]] * 2
    assert run_sampling(args).summary == run.summary  # from the journal


def test_answers_that_were_stopped_are_cut_ones_for_training(server, tmp_path, monkeypatch) -> None:
    said = [Answer(SAID, False, None), Answer(LOOP, True, -1.0, stopped=True)]
    monkeypatch.setattr(server, "answers", lambda queries, decoding: [said for _ in queries])
    monkeypatch.setattr(server, "info", replace(Server.info, stops_loops=True))
    args = SampleArguments(output=str(tmp_path / "o.jsonl"), num_candidates=2, limit=1, stop_on_repetition=True)
    (record,) = read_preferences(run_sampling(args).output)
    assert (record.truncated, record.looped) == ([False, True], [False, True])
    assert record.answers_gen == [SAID, LOOP]  # as it was said
    assert record.sampling is not None
    assert record.sampling["stop_on_repetition"] is True


def test_an_engine_that_cannot_stop_loops_is_asked_nothing(server, tmp_path) -> None:
    with pytest.raises(PerpoError, match="the engine server cannot stop an answer that loops"):
        run_sampling(SampleArguments(output=str(tmp_path / "o.jsonl"), limit=1, stop_on_repetition=True))
    asked = {"limit": 1, "tasks": ["refshapes_val"], "device": "cpu", "stop_on_repetition": True}
    with pytest.raises(PerpoError, match="the engine server cannot stop an answer that loops"):
        evaluate(EvalArguments(output=str(tmp_path), **asked))
    assert server.asked == []


def test_rewards_wait_until_all_is_sampled(server, tmp_path, monkeypatch) -> None:
    """A slow reward holds no model up, and one that fails loses no answer."""
    monkeypatch.chdir(tmp_path)
    code = """
        from pathlib import Path
        calls = []
        def slow(said, truth, sample):
            journal = Path("o.jsonl.journal")
            calls.append(len(journal.read_text().splitlines()) if journal.exists() else None)
            if Path("broken").exists() and said != truth:
                raise ValueError("no")
            return float(said == truth)
    """
    (tmp_path / "slow_reward.py").write_text(textwrap.dedent(code))
    (tmp_path / "broken").touch()
    args = SampleArguments(output="o.jsonl", num_candidates=2, limit=20, batch_size=3, reward="slow_reward:slow")
    with pytest.raises(PerpoError, match="the reward function slow_reward:slow failed"):
        run_sampling(args)
    (tmp_path / "broken").unlink()
    server.asked.clear()
    run_sampling(args)
    assert server.asked == []
    calls = sys.modules.pop("slow_reward").calls
    assert set(calls) == {None, 21}  # the truths before the first question, all else after the last


def test_validation_takes_any_engine(server, tmp_path) -> None:
    Image.new("RGB", (9, 9)).save(tmp_path / "0.png")
    questions = [SimpleNamespace(image_path="0.png", question=text, answer=SAID) for text in ("a", "b", "c")]
    questions[1].answer = SAID + SAID  # half of it is said
    held_out = QuestionSet(
        asked=[Asked(question, (9, 9), "") for question in questions],
        image_root=tmp_path,
        reward=load_reward("edit", None, None),
        reward_name="edit",
        of_file=[],
    )
    validation = SimpleNamespace(in_step=True, args=SimpleNamespace(per_device_eval_batch_size=2), held_out=held_out,
                                 engine=server, decoding=Decoding(max_new_tokens=9))  # fmt: skip
    assert Validation._answered(validation) == [(0.5, True, False), (1.0, True, False), (1.0, True, False)]
    assert [query.question for query, _ in server.asked] == ["a", "b", "c"]


def test_evaluation_takes_any_engine(server, tmp_path) -> None:
    evaluate(EvalArguments(output=str(tmp_path), limit=2, tasks=["refshapes_val"], device="cpu"))
    model = json.loads(next(tmp_path.rglob("run.json")).read_text())["model"]
    assert (model["dtype"], model["weights_sha256"], model["family"]) == (None, None, "llava")
    assert len(server.asked) == 2
    assert {(d.temperature, d.num_candidates, d.logps) for _, d in server.asked} == {(0.0, 1, False)}
    assert all(isinstance(query.image, Image.Image) for query, _ in server.asked)


@pytest.mark.parametrize("stops", [False, True])
def test_evaluation_counts_answers_that_loop(server, tmp_path, monkeypatch, stops) -> None:
    said = [Answer(SAID, False, None), Answer(LOOP, False, None), Answer(LOOP, True, None, stopped=stops)]
    said.append(Answer(SAID, True, None))
    asked: list[Decoding] = []

    def answers(queries, decoding):
        asked.extend(decoding for _ in queries)
        return [[said[(len(asked) - len(queries) + place) % 4]] for place, _ in enumerate(queries)]

    monkeypatch.setattr(server, "answers", answers)
    monkeypatch.setattr(server, "info", replace(Server.info, stops_loops=True))
    tasks = {"tasks": ["refshapes_val"], "limit": 8, "device": "cpu"}
    folder = evaluate(EvalArguments(output=str(tmp_path), stop_on_repetition=stops, **tasks))
    assert folder is not None
    run = read_run(folder)
    (task,) = run.record.tasks
    assert (task.n_truncated, task.n_looped, task.n_looped_truncated) == (4, 4, 2)
    reasons = run.samples(["finish_reason"])["finish_reason"].to_pylist()
    assert Counter(reasons) == ({"stop": 4, "length": 2, "repetition": 2} if stops else {"stop": 4, "length": 4})
    assert {decoding.stop_on_repetition for decoding in asked} == {stops}
    assert run.record.generation["stop_on_repetition"] is stops
    cut = read_scores(run).cut
    assert cut is not None
    assert cut.sum() == 4
    again = read_run(evaluate(EvalArguments(output=str(tmp_path), rescore=folder)) or folder).record.tasks[0]
    assert (again.n_truncated, again.n_looped, again.n_looped_truncated) == (4, 4, 2)


@pytest.fixture(scope="module")
def engine(checkpoint):
    return load_engine(str(checkpoint), device="cpu")


@pytest.fixture(scope="module")
def queries() -> list[Query]:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 80, 120, 3), dtype=np.uint8)
    pictures = [Image.fromarray(each) for each in pixels]
    return [Query("where?" + " thing" * (k % 4), pictures[k % 3], draw=k) for k in range(9)]


def test_an_engine_says_what_it_is(engine, checkpoint) -> None:
    info = engine.info
    assert (info.name, info.model, info.dtype, info.by_batch) == ("hf", str(checkpoint), "float32", False)
    assert (info.adapter_sha256, info.device, info.family.model_type) == (None, "cpu", "llava")
    assert len(info.weights_sha256) == 64
    assert load_engine(str(checkpoint), dtype="bfloat16", device="cpu").info.by_batch


def test_with_or_without_log_probabilities_the_same_is_said(engine, queries) -> None:
    """Greedy answers without them share pictures and go through generate(); all others share prompts."""
    for how in ({"temperature": 0.0}, {"temperature": 1.0, "seed": 3}):
        with_them, without = (
            engine.answers(queries, Decoding(max_new_tokens=12, logps=logps, **how)) for logps in (True, False)
        )
        assert len({answer.text for (answer,) in with_them}) > 3
        for (one,), (other,) in zip(with_them, without, strict=True):
            assert (one.text, one.whole, one.tokens) == (other.text, other.whole, other.tokens)
            assert (one.truncated, one.finish_reason) == (other.truncated, other.finish_reason)
            assert one.text == one.whole.strip()
            assert other.logp is None


def test_what_is_drawn_depends_on_the_query_and_the_seed_alone(engine, queries) -> None:
    decoding = Decoding(max_new_tokens=8, num_candidates=3, temperature=1.0)
    together = engine.answers(queries, decoding)
    alone = [engine.answers([query], decoding)[0] for query in reversed(queries)][::-1]
    assert [[a.text for a in found] for found in together] == [[a.text for a in found] for found in alone]
    assert {len(found) for found in together} == {3}
    other = engine.answers(queries, Decoding(max_new_tokens=8, num_candidates=3, temperature=1.0, seed=1))
    assert [a.text for a in other[0]] != [a.text for a in together[0]]


def test_asking_opens_pictures_and_draws_by_the_place_in_the_file(tmp_path) -> None:
    Image.new("RGB", (4, 3), "red").save(tmp_path / "0.png")
    server = Server()
    question = SimpleNamespace(image_path="0.png", question="?", answer="")
    assert len(ask(server, [(5, question), (2, question)], Path(tmp_path), Decoding(max_new_tokens=1))) == 2
    assert [(query.draw, query.image.size) for query, _ in server.asked] == [(5, (4, 3)), (2, (4, 3))]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_candidates": 0}, "--num_candidates must be at least 1, got 0"),
        ({"temperature": -0.5}, "--temperature must be at least 0, got -0.5"),
        ({"temperature": float("nan")}, "--temperature must be at least 0, got nan"),
        ({"top_p": 1.5}, "--top_p must be above 0 and at most 1, got 1.5"),
        ({"seed": 2**64}, r"--seed must be from 0 to 2\^64 - 1, got 18446744073709551616"),
        ({"max_new_tokens": 0}, "--max_new_tokens must be at least 1, got 0"),
    ],
)
def test_decoding_is_right_from_the_moment_it_is_made(changes, message) -> None:
    with pytest.raises(PerpoError, match=message):
        Decoding(**{"max_new_tokens": 4} | changes)
