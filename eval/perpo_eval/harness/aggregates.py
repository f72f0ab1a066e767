"""A task's own aggregation functions: asked for the number of all samples, and for those of drawn ones.

An aggregation function is written to be called once. Some add to a table that stays, some write a file, some count on
ids that come once. So each call finds the module as it was, writes into a folder that is thrown away, and a cluster
that is drawn twice has other ids the second time.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import inspect
import io
import math
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perpo.stats import draw_clusters

SEED = 0
"""Of the draws: two runs on the same samples draw the same clusters."""

_CHECKS = 8  # mixtures of right, empty and given answers that a mean must be the mean of
_CLOSE = 1e-9


@dataclass
class Aggregation:
    """An aggregation function of a task's.

    Attributes:
        function: The function.
        failed: Why it gave no number when it was asked last, or None.
    """

    function: Callable[..., Any]
    failed: str | None = None
    _state: list[tuple[Any, Any]] = field(default_factory=list)
    _changes: bool | None = None  # whether it changes what it is given: seen at its first call

    def __post_init__(self) -> None:
        from loguru import logger

        logger.disable(
            self.function.__globals__["__name__"] if isinstance(self.function, FunctionType) else "lmms_eval"
        )
        self._state = [(held, copy.deepcopy(held)) for held in _tables(self.function)]

    @property
    def name(self) -> str:
        """Return what it is called."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def is_mean(self) -> bool:
        """Return whether it is lmms-eval's own mean."""
        from lmms_eval.api.metrics import mean

        return self.function is mean

    def __call__(self, payloads: Sequence[Any]) -> float | None:
        """Return the number of some payloads; None where it gives none: `failed` says why."""
        self.failed = None
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            more = {}
            if "args" in inspect.signature(self.function).parameters:
                more["args"] = SimpleNamespace(output_path=folder, model="perpo", tasks=None, log_samples=False)
            try:
                value = self._called(payloads, more)
            except Exception as error:  # any code of the task's
                self.failed = f"{type(error).__name__}: {' '.join(str(error).split()):.160}"
                return None
            finally:
                self._restore()
        if hasattr(value, "item"):
            value = value.item()
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
        self.failed = f"it gives {value!r:.60}"
        return None

    def _called(self, payloads: Sequence[Any], more: Mapping[str, Any]) -> Any:
        """What it gives for payloads that stay as they are."""
        if self._changes is False:  # to copy all of them a thousand times would take most of the time
            return self.function(list(payloads), **more)
        handed = copy.deepcopy(list(payloads))
        value = self.function(handed, **more)
        if self._changes is None:
            self._changes = not _alike(handed, copy.deepcopy(list(payloads)))
        return value

    def _restore(self) -> None:
        for held, was in self._state:
            if held == was:
                continue
            fresh = copy.deepcopy(was)
            if isinstance(held, dict):
                held.clear()
                held.update(fresh)
            elif isinstance(held, list):
                held[:] = fresh
            else:
                held.clear()
                held |= fresh


def _alike(one: Any, other: Any) -> bool:
    try:
        return pickle.dumps(one) == pickle.dumps(other)
    except Exception:  # what cannot be written is copied each time
        return False


def _tables(function: Callable[..., Any]) -> list[Any]:
    """The dicts, lists and sets of a function's module that it, or what it calls there, uses."""
    tables: list[Any] = []
    waiting, seen = [function], set()
    while waiting:
        current = waiting.pop()
        if not isinstance(current, FunctionType) or current in seen:
            continue
        seen.add(current)
        for name in _names(current.__code__):
            held = current.__globals__.get(name)
            if isinstance(held, dict | list | set) and not any(held is other for other in tables):
                with contextlib.suppress(Exception):  # what cannot be copied is not kept
                    copy.deepcopy(held)
                    tables.append(held)
            elif isinstance(held, FunctionType) and held.__globals__ is current.__globals__:
                waiting.append(held)
    return tables


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def is_mean(aggregation: Aggregation, choices: Sequence[Sequence[Any]], numbers: Callable[[Any], float | None]) -> bool:
    """Return whether an aggregation is the mean of the samples' numbers.

    lmms-eval's own mean is. Another one is asked for the given answers, for halves of them, and for mixtures with right
    and empty ones, so that what it is does not depend on how good a model is.

    Args:
        aggregation: The function.
        choices: For each sample, its payloads: of the answer given, and of the others where they are known.
        numbers: What makes a number of a payload.
    """
    if aggregation.is_mean:
        return all(isinstance(payload, int | float) or hasattr(payload, "item") for each in choices for payload in each)
    rng = np.random.default_rng(SEED)
    trials = [[each[0] for each in choices]]
    for _ in range(_CHECKS):
        chosen = [each for each in choices if rng.random() < 0.5]
        trials.append([each[int(rng.integers(len(each)))] for each in chosen])
    for payloads in filter(None, trials):
        held = [number for payload in payloads if (number := numbers(payload)) is not None]
        value = aggregation(payloads)
        if value is None or len(held) < len(payloads) or abs(value - math.fsum(held) / len(held)) > _CLOSE:
            return False
    return True


def drawn(aggregation: Aggregation, payloads: Sequence[Any], clusters: NDArray[np.str_], draws: int) -> dict[str, Any]:
    """Return what an aggregation gives when the clusters are drawn with replacement, in a record's form.

    Args:
        aggregation: The function.
        payloads: (n,) what each sample has for the metric.
        clusters: (n,) what the samples share; clusters are drawn in the order of their names.
        draws: How many times.
    """
    names, places = np.unique(clusters, return_inverse=True)
    members = [
        [payloads[place] for place in np.flatnonzero(places == cluster).tolist()] for cluster in range(len(names))
    ]
    digest = hashlib.sha256("\n".join(names.tolist()).encode()).hexdigest()
    values = [aggregation(sample) for sample in _samples(members, draws, rename=True)]
    if not any(value is not None for value in values):  # a function may look ids up
        values = [aggregation(sample) for sample in _samples(members, draws, rename=False)]
    return {"seed": SEED, "n_clusters": len(names), "clusters_sha256": digest, "values": values}


def _samples(members: Sequence[list[Any]], draws: int, *, rename: bool) -> Iterator[list[Any]]:
    """What the samples of drawn clusters have; with `rename`, a cluster that is drawn again has other ids."""
    renamed: dict[tuple[int, int], list[Any]] = {}
    for chosen in draw_clusters(len(members), draws, SEED):
        times: dict[int, int] = {}
        sample: list[Any] = []
        for place in chosen.tolist():
            again = times[place] = times.get(place, -1) + 1
            if rename and again and (place, again) not in renamed:
                renamed[place, again] = [_renamed(each, again) for each in members[place]]
            sample += renamed[place, again] if rename and again else members[place]
        yield sample


def _renamed(payload: Any, again: int) -> Any:
    """A payload of a cluster that was drawn before: what names its sample is another name."""
    if not isinstance(payload, Mapping):
        return payload
    return {name: _other(value, again) if _is_id(str(name)) else value for name, value in payload.items()}


def _is_id(name: str) -> bool:
    last = name.lower().split("_")[-1]
    return last in ("id", "idx", "index", "key", "uid", "qid") or name.endswith(("Id", "ID"))


def _other(value: Any, again: int) -> Any:
    if isinstance(value, str):
        return f"{value}#{again + 1}"
    return value + again * 10**12 if isinstance(value, int) and not isinstance(value, bool) else value
