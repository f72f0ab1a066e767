"""Pinned cases: samples that no candidate may answer wrongly, whatever the statistics say. No torch.

The file is a YAML list of `key` (the sample's, or its first 8 digits or more) and `reason`; `perpo-report pin` adds to
it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from perpo.benchmarks.declared import info_in
from perpo.common.files import atomic_write_text
from perpo.common.yaml_keys import refuse_repeated_keys
from perpo.errors import PerpoError
from perpo.records.store import Run
from perpo.results.regression.flips import Flip, described

State = Literal["right", "wrong", "no answer"]
"""An answer by its benchmark's rule; "no answer" also where a judgement is missing."""

_KEY = re.compile(r"[0-9a-f]{8,64}")
_HINT = "write each case as - {key: 1f3a9c0e, reason: a customer reported it}; perpo-report pin does it"
_NO_ANSWER = "(no answer)"


@dataclass(frozen=True)
class Pin:
    """A sample that may never be lost: its key, or how that begins, and why."""

    key: str
    reason: str


@dataclass(frozen=True)
class PinnedCase:
    """A pinned sample in two runs: why it is pinned, how each answered, and the sample itself.

    Of several runs of one configuration, each must be right: the state and the answer are those of the first that is
    not.
    """

    reason: str
    baseline: State
    candidate: State
    sample: Flip

    @property
    def fails(self) -> bool:
        """Return whether the gate fails because of it."""
        return self.candidate != "right"

    @property
    def said(self) -> str:
        """Return how both runs answered, as half a sentence."""
        return f"{self.candidate}; baseline {self.baseline}"


def read_pins(path: Path) -> list[Pin]:
    """Read a file of pinned cases.

    Raises:
        PerpoError: It cannot be read, or holds something else.
    """
    import yaml

    try:  # BaseLoader reads no number in a key of digits alone
        text = path.read_text(encoding="utf-8")
        refuse_repeated_keys(text)
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PerpoError(f"{path} cannot be read: {' '.join(str(error).split())}", _HINT) from error
    if not isinstance(content, list) or not content:
        raise PerpoError(f"{path} does not hold a list of pinned cases", _HINT)
    pins: list[Pin] = []
    for number, item in enumerate(content, 1):
        whole = isinstance(item, dict) and set(item) == {"key", "reason"}
        if not (whole and all(isinstance(value, str) and value.strip() for value in item.values())):
            raise PerpoError(f"{path}, case {number}: expected key and reason", _HINT)
        key = item["key"].strip().lower()
        if not _KEY.fullmatch(key):
            raise PerpoError(f"{path}, case {number}: '{key:.70}' is not the first 8 to 64 digits of a key", _HINT)
        if twice := next((pin.key for pin in pins if pin.key.startswith(key) or key.startswith(pin.key)), None):
            raise PerpoError(f"{path}, case {number}: {key} is the case {twice} once more", "keep one of them")
        pins.append(Pin(key, " ".join(item["reason"].split())))
    return pins


def pinned_cases(pins: Sequence[Pin], baseline: Sequence[Run], candidate: Sequence[Run]) -> list[PinnedCase]:
    """Return how two configurations answered the pinned samples, those that fail first.

    Args:
        pins: The samples.
        baseline: The run that was, or runs of one configuration.
        candidate: The run in question, or runs of one configuration.

    Raises:
        PerpoError: A case is in none of a run's samples, or its key begins those of several.
    """
    if not pins:
        return []
    whole = {pin.key: row["sample_key"] for pin, row in zip(pins, _found(baseline[0], pins), strict=True)}
    pins = [replace(pin, key=whole[pin.key]) for pin in pins]
    sides = [[(run, _states(run, pins)) for run in runs] for runs in (baseline, candidate)]
    cases = []
    for place, pin in enumerate(pins):
        (old, was), (new, becomes) = (_worst([(run, states[place]) for run, states in side]) for side in sides)
        (sample,) = described(old, new, [(pin.key, 0.0)])
        told = [_NO_ANSWER if text is None else text for text in (sample.baseline, sample.candidate)]
        cases.append(PinnedCase(pin.reason, was, becomes, replace(sample, baseline=told[0], candidate=told[1])))
    return sorted(cases, key=lambda case: not case.fails)


def _worst(told: Sequence[tuple[Run, State]]) -> tuple[Run, State]:
    """The first run that is not right, else the first of all."""
    return next((each for each in told if each[1] != "right"), told[0])


def _states(run: Run, pins: Sequence[Pin]) -> list[State]:
    """How a run answered each pinned sample."""
    return [_state(run, row) for row in _found(run, pins)]


def _state(run: Run, row: Mapping[str, Any]) -> State:
    task = run.record.task(row["task"])
    rule = info_in([task], task.benchmark).right
    if not rule.score:
        raise PerpoError(
            f"a pinned sample is of {task.task}, whose scores do not say when an answer is right", "leave it out"
        )
    right = rule.holds(row["scores"])
    if right is None or row["response"] is None:
        return "no answer"
    return "right" if right else "wrong"


def _found(run: Run, pins: Sequence[Pin]) -> list[dict[str, Any]]:
    """The sample of a run that each pin means."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = run.samples(["sample_key", "task", "question", "response", "scores"])
    heads = pa.array([pin.key[:8] for pin in pins], pa.string())
    near = table.filter(pc.is_in(pc.utf8_slice_codeunits(table["sample_key"], 0, 8), value_set=heads)).to_pylist()
    samples = []
    for pin in pins:
        meant = [row for row in near if row["sample_key"].startswith(pin.key)]
        if len(meant) != 1:
            fault = f"begins the keys of {len(meant)} samples" if meant else "is the key of no sample"
            hint = "give more digits" if meant else "evaluate the data that hold it, or take it out of the pinned cases"
            raise PerpoError(f"pinned case {pin.key} {fault} of {run.record.name} ({run.path})", hint)
        samples += meant
    return samples


def add_pins(run: Run, keys: Sequence[str], reason: str, path: Path) -> list[tuple[str, State]]:
    """Add samples of a run to a file of pinned cases, which is made where there is none.

    Args:
        run: A run that has the samples.
        keys: Their keys, or at least the first 8 digits.
        reason: Why they may not be lost.
        path: The file.

    Returns:
        Their whole keys, and how the run answers them.

    Raises:
        PerpoError: A key means no sample or several, is pinned already, or there is no reason.
    """
    reason, keys = " ".join(reason.split()), [key.strip().lower() for key in keys]
    if not reason or not keys:
        raise PerpoError("a pinned case needs a key and a reason", "perpo-report pin RUN KEY ... --reason TEXT")
    if bad := next((key for key in keys if not _KEY.fullmatch(key)), None):
        raise PerpoError(f"'{bad:.70}' is not the first 8 to 64 digits of a sample's key", "copy it from a report")
    known = read_pins(path) if path.exists() else []
    lines: list[str] = []
    added: list[tuple[str, State]] = []
    for row in _found(run, [Pin(key, reason) for key in keys]):
        key = row["sample_key"]
        if twice := next((pin for pin in known if key.startswith(pin.key)), None):
            raise PerpoError(f"{twice.key} is pinned in {path} already: {twice.reason}", "leave it out")
        about = "".join(char if char.isprintable() else "?" for char in " ".join(str(row["question"]).split()))
        lines += [f"# {row['task']}: {about[:200]}", f"- key: {key}", f"  reason: {json.dumps(reason)}"]
        known.append(Pin(key, reason))
        added.append((key, _state(run, row)))
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    atomic_write_text(path, old + ("\n" if old and not old.endswith("\n") else "") + "\n".join(lines) + "\n")
    return added
