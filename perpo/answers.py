"""Find the part of a response that is its answer: behind the thoughts, within the marks that name it. No torch.

Reasoning models think aloud first, and what they think of on the way is not what they answer. All that reads a
response or a truth asks here; what is stored stays whole.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from typing import Literal

Kind = Literal["box", "yes_no", "text"]
"""What an answer is. A page of text may itself hold every mark but those that stand around all of it."""

_THINK = "(?:seed:)?think|thinking|thoughts?|reasoning|analysis"
_ANY = re.compile(r"<|boxed|answer|答案|◁|\[/?think", re.IGNORECASE)
_THOUGHT = re.compile(
    rf"(?P<open><(?:{_THINK})>|◁think▷|\[think\]|<\|begin_of_thought\|>"
    rf"|<\|channel\|>(?:analysis|commentary))|</(?:{_THINK})>|◁/think▷|\[/think\]|<\|end_of_thought\|>"
    r"|<\|channel\|>final(?:<\|message\|>)?",
    re.IGNORECASE,
)
_ANSWER = re.compile(r"<(?P<close>/?)(?:answer|conclusion)>", re.IGNORECASE)
_GLM_BOX = re.compile(r"<\|(?:begin|(?P<close>end))_of_box\|>")
_BOXED = re.compile(r"\\f?boxed\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_LATEX_TEXT = re.compile(r"\\(?:text\w*|math\w+)\s*\{([^{}]*)\}")
_LABEL = re.compile(
    r"(?:^|(?<=[.!?。！？]))[ \t>#*_]*(?:(?:the|my)\s+)?(?:final\s+|最终)?(?:answer|答案)"
    r"(?:\s+is)?[ \t]*[*_]*[ \t]*(?:[:：][ \t]*[*_]*|$)",
    re.IGNORECASE | re.MULTILINE,
)


def answer_of(response: str, kind: Kind) -> str | None:
    r"""Return the part of a response that is the answer.

    Thoughts end at the last mark that closes one (`</think>`, also where the prompt has opened it). Boxes and
    yes/no answers are then looked for in the last `<answer>..</answer>`, `<|begin_of_box|>..<|end_of_box|>` and
    `\boxed{}`, and behind the last "Answer:" that begins a line or a sentence; where such a mark is opened and never
    closed, what follows it is the answer. Of a text only a thought that it begins with is cut, and marks that stand
    around all that is left.

    Args:
        response: All that a model said, or a truth that is written like it.
        kind: What the answer is.

    Returns:
        The answer, without the space around it where something was cut; the response itself where it has no marks;
        None where a thought never ends, so that there is no answer.
    """
    if not _ANY.search(response):
        return response
    said = _behind_thoughts(response, kind)
    if said is None:
        return None
    return _unwrapped(said) if kind == "text" else _labelled(_boxed(_within(_within(said, _ANSWER), _GLM_BOX)))


def text_answer(response: str, truth: str) -> str | None:
    """Return the part of a response that is to be compared with a true text, which itself is never cut.

    A page may spell what would be taken for marks of a thought, as papers about models do. Of a response to such a page
    only a thought is cut that it begins with, up to the first mark that ends it; and nothing around it.

    Args:
        response: All that a model said.
        truth: The true text.

    Returns:
        As for `answer_of`.
    """
    if answer_of(truth, "text") == truth:
        return answer_of(response, "text")
    first = next(_THOUGHT.finditer(response), None)
    if first is None or not first["open"] or response[: first.start()].strip() or _begins_with_thought(truth):
        return response
    ends = (mark for mark in _THOUGHT.finditer(response, first.end()) if not mark["open"])
    end = next(ends, None)
    return None if end is None else response[end.end() :].strip()


def _begins_with_thought(text: str) -> bool:
    first = next(_THOUGHT.finditer(text), None)
    return first is not None and first["open"] is not None and not text[: first.start()].strip()


def after_prompt(prompt: str | None, response: str) -> str:
    """Return the response together with the thought that its prompt opened, as chat templates of some models do.

    Without it, a response that was cut while it was thinking would look like an answer.

    Args:
        prompt: What the model read; None where that is not known.
        response: What it said.
    """
    return opened_thought(prompt or "") + response


def opened_thought(prompt: str) -> str:
    """Return the mark of a thought that a prompt ends with, or an empty text."""
    mark = _last(_THOUGHT.finditer(prompt, max(0, len(prompt) - 40)))
    return mark[0] if mark and mark["open"] and not prompt[mark.end() :].strip() else ""


def _behind_thoughts(response: str, kind: Kind) -> str | None:
    end, is_open = 0, False
    for mark in _THOUGHT.finditer(response):
        # A page of text may hold such a mark, but no thought begins within it.
        if mark["open"] and not is_open and kind == "text" and response[end : mark.start()].strip():
            break
        is_open = mark["open"] is not None
        end = end if is_open else mark.end()
    if is_open:
        return None
    return response[end:].strip() if end else response


def _unwrapped(text: str) -> str:
    """The text without the marks that stand around all of it; the closing one may be missing."""
    for marks in (_ANSWER, _GLM_BOX):
        first = marks.match(text.lstrip())
        if first is None or first["close"]:
            continue
        inner = text.lstrip()[first.end() :].rstrip()
        closing = [mark for mark in marks.finditer(inner) if mark["close"]]
        if not closing or closing[-1].end() == len(inner):
            text = inner[: closing[-1].start() if closing else None].strip()
    return text


def _within(text: str, marks: re.Pattern[str]) -> str:
    """What stands in the last complete pair of marks; else behind the last opening or before a lone closing one."""
    opened: int | None = None
    span: tuple[int, int] | None = None
    for mark in marks.finditer(text):
        if not mark["close"]:
            opened = mark.end()
        elif opened is not None or span is None:
            span, opened = (opened or 0, mark.start()), None
    if span is not None:
        return text[slice(*span)].strip()
    return text if opened is None else text[opened:].strip()


def _boxed(text: str) -> str:
    r"""What stands in the last `\boxed{}`."""
    start = _last(_BOXED.finditer(text))
    if start is None:
        return text
    depth, end = 1, len(text)
    for brace in _BRACE.finditer(text, start.end()):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if not depth:
            end = brace.start()
            break
    return _LATEX_TEXT.sub(r"\1", text[start.end() : end]).strip()


def _labelled(text: str) -> str:
    label = _last(_LABEL.finditer(text))
    return text if label is None else text[label.end() :].strip()


def _last(matches: Iterator[re.Match[str]]) -> re.Match[str] | None:
    return next(iter(deque(matches, maxlen=1)), None)
