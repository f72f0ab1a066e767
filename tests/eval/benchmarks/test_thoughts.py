"""Models that think aloud: what is scored and judged, what is counted as cut, and limits that let them finish."""

from __future__ import annotations

import json

import pytest

from perpo.engines.chat import ChatServer
from perpo.errors import PerpoError
from perpo.models.families import FAMILIES
from perpo_eval.benchmarks.grounding import GROUNDING
from perpo_eval.benchmarks.llava_bench import LLAVA_BENCH
from perpo_eval.benchmarks.ocr import OCR_PAGES
from perpo_eval.benchmarks.pope import POPE
from perpo_eval.engines.responses import Response
from perpo_eval.evaluate.numbers import _ends
from perpo_eval.evaluate.scoring import _scored, score_names
from perpo_eval.evaluate.token_limits import token_limits
from perpo_eval.judge.settings import JudgeSettings
from perpo_eval.judge.verdicts import Judge
from perpo_eval.rows.suites import TASKS, spec_of
from perpo_eval.scorers.pope import parse_answer, parse_answer_strict, score_answer

LLAVA = FAMILIES["llava"]
SQUARE = (100, 100)


def test_a_box_within_a_thought_is_not_scored() -> None:
    target = [60.0, 60.0, 80.0, 80.0]
    said = "<think>Not [0.10, 0.20, 0.30, 0.40].</think><answer>[0.60, 0.60, 0.80, 0.80]</answer>"
    scored = GROUNDING.score(said, target, SQUARE, LLAVA)
    assert (scored.scores["acc@0.9"], scored.readable) == (1.0, True)
    cut = GROUNDING.score("<think>It is [0.60, 0.60, 0.80, 0.80]", target, SQUARE, LLAVA)
    assert (cut.scores["iou"], cut.scores["parse_fail"], cut.readable) == (0.0, 1.0, False)


@pytest.mark.parametrize("said", ["<think>no, wait</think>Yes.", "no?</think>\nYes.", r"No. So \boxed{\text{Yes}}"])
def test_a_no_within_a_thought_is_no_answer(said: str) -> None:
    assert parse_answer(said) == parse_answer_strict(said) == "yes"


@pytest.mark.parametrize("label", ["yes", "no"])
def test_a_thought_that_never_ends_is_wrong_by_both_rules(label: str) -> None:
    scores = score_answer("<think>There is no", label)
    for suffix in ("", ":strict"):
        assert [scores[name + suffix] for name in ("accuracy", "tp", "tn", "yes")] == [0, 0, 0, 0]
        assert scores[f"fn{suffix}"] + scores[f"fp{suffix}"] == 1
    assert scores["parse_fail"] == 1
    assert POPE.score("<think>There is no", label, SQUARE, LLAVA).prediction is None


def test_a_page_is_read_behind_the_thought() -> None:
    scored = OCR_PAGES.score("<think>A page.</think>\nAnswer: 4", "Answer: 4", SQUARE, LLAVA)
    assert (scored.scores["edit_distance"], scored.prediction, scored.readable) == (0.0, "Answer: 4", True)
    cut = OCR_PAGES.score("<think>Answer: 4", "Answer: 4", SQUARE, LLAVA)
    assert (cut.scores["edit_distance"], cut.prediction, cut.readable) == (1.0, None, False)


def test_a_thought_that_the_prompt_opened_is_known_by_the_prompt() -> None:
    names = score_names(GROUNDING, LLAVA)
    for prompt, read in (("USER: where?\nASSISTANT: <think>\n", False), ("USER: where?", True), (None, True)):
        response = Response("perhaps [0.1, 0.1, 0.3, 0.3]", prompt)
        row = _scored(GROUNDING, response, [10.0, 10.0, 30.0, 30.0], SQUARE, LLAVA, names)
        assert row["parse_ok"] is read


@pytest.mark.parametrize(
    ("response", "prompt", "shown"),
    [
        ("<think>A cat?</think>\nA dog.", None, "A dog."),
        ("A dog. Answer: a dog", None, "A dog. Answer: a dog"),
        ("<think>A cat", None, ""),
        ("A cat", "ASSISTANT: <think>", ""),
    ],
)
def test_the_judge_sees_the_answer_alone(response: str, prompt: str | None, shown: str, tmp_path) -> None:
    judge = Judge(JudgeSettings("x", ChatServer("http://x")), swap=False, cache=tmp_path)
    target = json.dumps({"category": "conv", "caption": "c", "reference": "r"})
    row = {"sample_key": "k", "question": "q", "response": response, "prompt": prompt, "target": target}
    (asked,) = judge._questions("llava_bench", row)
    assert f"[Assistant 2]\n{shown}\n\n[End of Assistant 2]" in asked.messages[-1]["content"]
    scored = _scored(LLAVA_BENCH, Response(response, prompt), None, SQUARE, None, score_names(LLAVA_BENCH, None))
    assert scored["parse_ok"] is bool(shown)


def test_what_was_cut_is_counted_where_it_is_known() -> None:
    told = {2: ["stop", "length", None, "length"], 0: ["stop"], None: [None, None]}
    for count, reasons in told.items():
        assert _ends(["said"] * len(reasons), reasons)["n_truncated"] == count
    assert _ends([], [])["n_truncated"] is None


SPECS = [TASKS["refcoco_val"], TASKS["refcoco_testA"], TASKS["coco_pope_random"], spec_of("pages_own")]


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        (None, [64, 64, 128, 2048]),
        (9, [9, 9, 9, 9]),
        ("2048", [2048] * 4),
        ("pope=1024,refcoco_val=512", [512, 64, 1024, 2048]),
        ("refcoco_val=5, grounding=7, 9, pages_own=11", [5, 7, 9, 11]),
    ],
)
def test_limits_by_task_and_benchmark(given: int | str | None, limits: list[int]) -> None:
    found = token_limits(given, SPECS, embedded=False)
    assert list(found.items()) == [(spec.name, limit) for spec, limit in zip(SPECS, limits, strict=True)]


@pytest.mark.parametrize(
    ("given", "problem", "hint"),
    [
        ("popee=9", "names 'popee', which is not run", "pope"),
        ("ocr=9,mmhal=9", "names 'mmhal', which is not run", ""),
        ("pope=x", "max_new_tokens is pope=x; expected a number of at least 1", ""),
        ("pope=0", "--max_new_tokens must be at least 1, got 0", ""),
        (0, "--max_new_tokens must be at least 1, got 0", ""),
        ("", "expected a number of at least 1", ""),
        ("pope=1,pope=2", "gives two limits to pope", ""),
        ("1,2", "gives two limits to all", ""),
    ],
)
def test_limits_that_nobody_can_mean_are_refused(given: int | str, problem: str, hint: str) -> None:
    with pytest.raises(PerpoError, match=problem) as caught:
        token_limits(given, SPECS, embedded=False)
    assert hint in str(caught.value.hint)
