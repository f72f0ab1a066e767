"""The version of each benchmark's scores, and of the suite: runs of one version may be compared, others may not.

A version counts up whenever an answer can get another score than before. So that nobody forgets, `scorer_digests.json`
holds which code each version stands for, and a test compares the two. After a change of that code, raise the version
(`Benchmark.version`, in `perpo_eval.benchmarks`) if a number can change, and write the digests down again:

    python -m perpo_eval.evaluate.versions
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from perpo.benchmarks.table import INFO
from perpo.common.code_digest import code_digest, module_file
from perpo_eval.benchmarks.base import TaskSpec
from perpo_eval.benchmarks.table import BENCHMARKS
from perpo_eval.harness.loading import HarnessSpec

VERSIONS = {name: benchmark.version for name, benchmark in BENCHMARKS.items()}

DIGESTS = Path(__file__).with_name("scorer_digests.json")

_ALL = {
    "answers": "perpo.answers",
    "metrics": "perpo.benchmarks.base",
    "which metrics": "perpo.benchmarks.metrics",
    "what a benchmark is": "perpo_eval.benchmarks.base",
}


SUITE_VERSION = "2"
_ASKED_AND_SCORED = {
    "documents": "perpo_eval.rows.documents",
    "answers": "perpo.answers",
    "images": "perpo.data.images",
    "orientation": "perpo.data.orientation",
    "prompts": "perpo.benchmarks.prompts",
    "metrics": "perpo.benchmarks.base",
    "which metrics": "perpo.benchmarks.metrics",
    "intervals": "perpo.stats.intervals",
}
"""What is asked and how answers are scored, beside what benchmarks name themselves, by its job: the module."""


def scorer_digest(benchmark: str) -> str:
    """Return the SHA-256 of what makes a benchmark's scores.

    Args:
        benchmark: A key of `VERSIONS`.
    """
    jobs = {**_ALL, **BENCHMARKS[benchmark].sources, "benchmark": f"perpo_eval.benchmarks.{benchmark}"}
    return _digest({job: module_file(module) for job, module in jobs.items()}, [benchmark])


def _digest(files: Mapping[str, Path], benchmarks: Iterable[str]) -> str:
    """Return the SHA-256 of code and of metrics, these without their titles: notes and titles make no number."""
    metrics = [[replace(metric, title="") for metric in INFO[name].metrics] for name in benchmarks]
    return hashlib.sha256(f"{code_digest(files)}{metrics!r}".encode()).hexdigest()


def digests() -> dict[str, dict[str, str]]:
    """Return the version of each benchmark, and the digest of its code as it is now."""
    return {name: {"version": each, "sha256": scorer_digest(name)} for name, each in VERSIONS.items()}


def version_of(spec: TaskSpec) -> str:
    """Return the version of a task's scores; of one of lmms-eval's, its version and the task file's digest."""
    if isinstance(spec, HarnessSpec):
        return f"{version('lmms_eval')} {spec.file.sha256[:12]}"
    return VERSIONS[spec.benchmark]


def suite_sha256(specs: Sequence[TaskSpec] = ()) -> str:
    """Return the digest of what is asked and how answers are scored.

    Args:
        specs: What is run. Tasks of lmms-eval's are made by their files, and by what calls them here.
    """
    here = Path(__file__).parents[1]
    if harness := [spec for spec in specs if isinstance(spec, HarnessSpec)]:
        calls = {path.name: path for path in sorted((here / "harness").glob("*.py"))}
        return hashlib.sha256(repr([code_digest(calls), *map(version_of, harness)]).encode()).hexdigest()
    files = {
        f"{job}/{path.relative_to(here / folder).as_posix()}": path
        for job, folder in (
            ("tasks", "tasks"),
            ("scorers", "scorers"),
            ("benchmarks", "benchmarks"),
            ("judge prompts", "judge/prompts"),
        )
        for path in (here / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    own = {f"{name}: {job}": module for name, each in BENCHMARKS.items() for job, module in each.sources.items()}
    return _digest(files | {job: module_file(module) for job, module in (_ASKED_AND_SCORED | own).items()}, INFO)


if __name__ == "__main__":
    DIGESTS.write_text(json.dumps(digests(), indent=1) + "\n", encoding="utf-8")
