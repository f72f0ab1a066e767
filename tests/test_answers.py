"""perpo.answers: what of a response is the answer."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perpo.answers import after_prompt, answer_of, opened_thought, text_answer

MARKS = [
    "<think>", "</think>", "<thinking>", "</thinking>", "<answer>", "</answer>", "<|begin_of_box|>", "<|end_of_box|>",
    "\\boxed{", "{", "}", "Answer:", "\nFinal answer: ", "[1, 2, 3, 4]", "no", " ", "\n", "◁think▷", "答案：",
]  # fmt: skip


@pytest.mark.parametrize("kind", ["box", "yes_no", "text"])
@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("<think>A</think>B", "B"),
        ("\n<think>\nA\n</think>\n\nB\n", "B"),
        ("<thinking>A</thinking>B", "B"),
        ("<THINK>A</THINK> B", "B"),
        ("<seed:think>A</seed:think>B", "B"),
        ("<thoughts>A</thoughts>B", "B"),
        ("<analysis>A</analysis>B", "B"),
        ("<analysis>A</analysis><think>B</think><answer>C</answer>", "C"),
        ("<|channel|>analysis<|message|>A<|end|><|start|>assistant<|channel|>final<|message|>B", "B"),
        ("<|begin_of_thought|>A<|end_of_thought|>B", "B"),
        ("◁think▷A◁/think▷B", "B"),
        ("[THINK]A[/THINK]B", "B"),
        ("A</think>B", "B"),  # the prompt has opened it
        ("<think>A<think>B</think>C</think>D", "D"),
        ("<think><think>A</think>B", "B"),
        ("<think>A</think><think>B</think>C", "C"),
        ("<think>so <answer>A</answer> it is</think><answer>B</answer>", "B"),
        ("<think>A</think><answer>B", "B"),  # cut, or ended by a stop string
        ("<think>A</think><|begin_of_box|>B<|end_of_box|>", "B"),
        ("<think>A</think>\n<answer>\n<|begin_of_box|>B<|end_of_box|></answer>", "B"),
        ("<think></think>", ""),
        ("<think>A", None),
        ("A</think><think>B", None),
        ("<think>A</think>\n<think>B", None),
        ("<think>the <answer>A</answer>", None),
    ],
)
def test_thoughts_are_no_answer_of_any_kind(kind, response, answer) -> None:
    assert answer_of(response, kind) == answer


@pytest.mark.parametrize("kind", ["box", "yes_no"])
@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("I see A. <answer>B</answer> as told", "B"),
        ("<answer>A</answer> no: <answer>B</answer>", "B"),
        ("<answer>A</answer> <answer>B", "A"),
        ("A, so <answer>B", "B"),
        ("B</answer>", "B"),
        (r"A, so $\boxed{B}$.", "B"),
        (r"\boxed{A} or \boxed{\{B\}}", r"\{B\}"),
        (r"\boxed{{A}{B}} C", "{A}{B}"),
        (r"\boxed{\text{no}}", "no"),
        (r"A \boxed{B", "B"),
        ("Maybe A.\nAnswer: B", "B"),
        ("Maybe A.\n**Answer:** B", "B"),
        ("Maybe A.\n**Answer**: B", "B"),
        ("Maybe A.\n### Final Answer\nB", "B"),
        ("Maybe A. Final answer: B", "B"),
        ("Maybe A.\nThe final answer is: B", "B"),
        ("A\n最终答案：B", "B"),
        ("Answer: A\nAnswer: B", "B"),
        (r"Answer: $\boxed{B}$", "B"),
        ("<answer>Final answer: B</answer>", "B"),
        ("the answer may be A", "the answer may be A"),
        ("A <think>B", None),  # what it thought of afterwards is not known
    ],
)
def test_marks_of_short_answers(kind, response, answer) -> None:
    assert answer_of(response, kind) == answer


@pytest.mark.parametrize(
    "page",
    [
        "Question 1\nAnswer: 4\nQuestion 2\nAnswer: 5",
        r"Thus \boxed{7} is the sum.",
        "Write <answer>no</answer> into the form.",
        "<answer>no</answer> is written into the form",
        "The tag <think> opens what </think> closes.",
        "a lone <think> on a page",
    ],
)
def test_marks_that_a_page_holds_are_its_text(page) -> None:
    assert answer_of(page, "text") == page
    assert answer_of(f"<think>A page.</think>\n{page}", "text") == page
    assert answer_of(f"<answer>{page}</answer>", "text") == page


@given(st.text())
def test_a_response_without_marks_is_the_answer(text) -> None:
    bare = (
        "".join(each for each in text if each.isascii() and each not in "<[\\")
        .replace("nswer", "")
        .replace("boxed", "")
    )
    assert all(answer_of(bare, kind) == bare for kind in ("box", "yes_no", "text"))


@given(st.lists(st.sampled_from(MARKS)).map("".join), st.sampled_from(["box", "yes_no", "text"]))
def test_an_answer_is_a_part_of_the_response(response, kind) -> None:
    said = answer_of(response, kind)
    assert said is None or said in response


@given(st.text(), st.sampled_from(["box", "yes_no", "text"]))
def test_thoughts_change_nothing_about_the_answer(thought, kind) -> None:
    response = f"<think>{thought.replace('<', '').replace('[/', '')}</think>[1, 2, 3, 4]"
    assert answer_of(response, kind) == "[1, 2, 3, 4]"


def test_a_prompt_may_open_the_thought() -> None:
    prompt = "<|im_start|>assistant\n<think>\n"
    assert opened_thought(prompt) == "<think>"
    assert answer_of(after_prompt(prompt, "perhaps [1, 2, 3, 4], or"), "box") is None
    assert answer_of(after_prompt(prompt, "perhaps A</think>B"), "box") == "B"
    for other in (None, "", "Do you <think> so?", "<|im_start|>assistant\n<think>\n\n</think>\n\n"):
        assert after_prompt(other, "B") == "B"


@pytest.mark.parametrize("mark", MARKS)
def test_time_is_in_proportion_to_the_length(mark) -> None:
    began = time.process_time()
    for kind in ("box", "yes_no", "text"):
        answer_of(mark * (200_000 // len(mark)), kind)
    # A quadratic reader would take minutes.
    assert time.process_time() - began < 10


MARKED = "Models end a thought with </think> and go on."


@pytest.mark.parametrize(
    ("response", "truth", "answer"),
    [
        ("<think>A</think>B", "B", "B"),
        ("A</think>B", "B", "B"),
        (MARKED, MARKED, MARKED),
        (f"<think>A page.</think>\n{MARKED}", MARKED, MARKED),
        ("<think>A page", MARKED, None),
        ("nothing of it", MARKED, "nothing of it"),
        ("<answer>B</answer>", "<answer>B</answer>", "<answer>B</answer>"),
        ("<answer>B</answer>", "B", "B"),
        ("<think>A</think>B", "<think>A</think>B", "<think>A</think>B"),
        ("<think>A", "<think>A", "<think>A"),
    ],
)
def test_a_truth_is_never_cut_and_an_answer_that_spells_its_marks_is_not_either(response, truth, answer) -> None:
    assert text_answer(response, truth) == answer
