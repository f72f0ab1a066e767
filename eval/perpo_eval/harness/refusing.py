"""Refuse tasks of lmms-eval that cannot be run here: told from the task file alone, before anything is fetched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from perpo.errors import PerpoError
from perpo_eval.harness.finding import TaskFile

_OTHERS = {
    "loglikelihood": "compares the likelihoods of given texts",
    "multiple_choice": "compares the likelihoods of its choices",
    "generate_until_multi_round": "asks in several rounds",
    "generate_until_agentic": "lets the model act in several rounds",
    "generate_visual_cot": "lets the model make pictures",
}
_SERVICE = r"openai|anthropic|azure|API_KEY|API_URL|api_key|llm_judge"
_TEXTS = re.compile(_SERVICE)
"""What texts in a function say that asks a judge or another service."""

_NAMES = re.compile(rf"{_SERVICE}|judge|chat_response|get_server|gpt_response|call_gpt|get_gpt|post_gpt|GPT_EVAL")
"""What the names that it uses say."""


def check_task(file: TaskFile) -> None:
    """Refuse a task that cannot be run here.

    Raises:
        PerpoError: It is none that asks for a text once and scores it itself.
    """
    if reason := _reason(file.config):
        raise PerpoError(
            f"lmms-eval's task '{file.name}' {reason}",
            "perpo-eval runs tasks that ask once for a text (generate_until) and score each answer themselves",
        )


def _reason(config: dict[str, Any]) -> str | None:
    kind = config.get("output_type", "generate_until")
    if "class" in config:
        return "is made by a class of its own"
    if kind != "generate_until":
        return f"{_OTHERS.get(kind, 'is of another kind')} (output_type {kind})"
    if int(config.get("repeats") or 1) > 1:
        return f"asks each question {config['repeats']} times"
    filters = config.get("filter_list")
    if isinstance(filters, list) and len(filters) > 1:
        return f"scores each answer through {len(filters)} filters (filter_list)"
    metrics = config.get("metric_list") or []
    functions = [config.get("process_results"), *(metric.get("aggregation") for metric in metrics)]
    for function in functions:
        if isinstance(function, FunctionType) and (word := asks_a_judge(function)) is not None:
            return f"asks a judge or another service for its scores ('{word}' in {function.__name__})"
    return None


def asks_a_judge(function: FunctionType) -> str | None:
    """Return the name or text by which a function seems to ask a judge or another service; None where none does.

    Functions that it calls are looked at too. Objects that it calls are not: they may be able to do both.
    """
    waiting, seen = [function], set()
    while waiting:
        current = waiting.pop()
        if current in seen:
            continue
        seen.add(current)
        for code in _codes(current.__code__):
            texts = [each for each in code.co_consts if isinstance(each, str) and each != current.__doc__]
            for pattern, words in ((_NAMES, code.co_names), (_TEXTS, texts)):
                if (word := next(filter(pattern.search, words), None)) is not None:
                    return word if len(word) <= 40 else f"{word[:40]}..."
            called = (current.__globals__.get(name) for name in code.co_names)
            waiting += [each for each in called if isinstance(each, FunctionType)]
    return None


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code of a function, and of those within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
