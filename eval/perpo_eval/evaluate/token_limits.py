"""ScoreLimits at which answers are cut: one for all tasks, or one for each task or kind of task. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from perpo.benchmarks.metrics import JUDGED
from perpo.common.hints import did_you_mean
from perpo.common.numbers import COUNT
from perpo.errors import PerpoError
from perpo_eval.rows.suites import TaskSpec, is_ours

_EMBEDDED_TOKENS = 64


def token_limits(max_new_tokens: int | str | None, specs: Sequence[TaskSpec], *, embedded: bool) -> dict[str, int]:
    """Return the limit of each task, by name: the task's own if one is given, else its benchmark's, else that of all.

    The embedded model's context is too short for the open answers that judged benchmarks and tasks of lmms-eval allow
    for, and it was not taught to give any: by default they are cut where those to its own questions are.

    Args:
        max_new_tokens: A number, or text such as "2048", "pope=1024,refcoco_val=512" or "64,pope=1024".
        specs: The tasks that are run.
        embedded: Whether the embedded model answers.

    Raises:
        PerpoError: No number of at least 1, a name twice, or one that is none of the tasks or their benchmarks.
    """
    given = _given(max_new_tokens)
    known = list(dict.fromkeys(name for spec in specs for name in (spec.name, spec.benchmark)))
    for name in given:
        if name and name not in known:
            raise PerpoError(f"--max_new_tokens names '{name}', which is not run", did_you_mean(name, known))

    def limit(spec: TaskSpec) -> int:
        usual = spec.max_new_tokens
        if embedded and (spec.benchmark in JUDGED or not is_ours(spec.name)):
            usual = min(usual, _EMBEDDED_TOKENS)
        return next((given[name] for name in (spec.name, spec.benchmark, "") if name in given), usual)

    return {spec.name: limit(spec) for spec in specs}


def _given(value: int | str | None) -> dict[str, int]:
    """The limits by task or benchmark; that of all others by the empty name."""
    limits: dict[str, int] = {}
    for part in [] if value is None else str(value).split(","):
        name, _, number = part.rpartition("=")
        if not number.strip().removeprefix("-").isdecimal():
            raise PerpoError(
                f"--max_new_tokens is {value}; expected a number of at least 1, or limits for tasks or benchmarks",
                "write for example 2048, or pope=1024,refcoco_val=512, or 64,pope=1024",
            )
        if name.strip() in limits:
            raise PerpoError(f"--max_new_tokens gives two limits to {name.strip() or 'all'}", "give one")
        COUNT.check(int(number), "--max_new_tokens")
        limits[name.strip()] = int(number)
    return limits
