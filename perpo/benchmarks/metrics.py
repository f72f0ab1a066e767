"""The metrics of the benchmarks, by benchmark: all of them, the one that stands for it, those of a judge. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from perpo.benchmarks.base import Definition
from perpo.benchmarks.grounding import IN_FRAMES
from perpo.benchmarks.table import INFO

METRICS: dict[str, tuple[Definition, ...]] = {name: info.metrics for name, info in INFO.items()}
"""The metrics of each benchmark, in the order of tables."""

PRIMARY = {name: info.primary for name, info in INFO.items()}
"""The metric that stands for a benchmark."""

JUDGED = tuple(name for name, info in INFO.items() if info.judged)
"""The benchmarks that a judge scores."""

JUDGE_READINGS = {
    "official": "as the official script counts what the judge wrote",
    "out_of_scale": "share of ratings outside of the asked scale, which count as the official script counts them",
    "judge_stderr": "standard error of the judge itself, from its votes",
    "first_advantage": "how much higher an answer is rated where it stands first",
}
"""What records hold of judged metrics beside their values, behind the colon of the name, and what it is."""


def metrics_of(benchmark: str, scores: Sequence[str], box_frame: str | None = None) -> list[Definition]:
    """Return the metrics of a benchmark that samples with these scores have.

    Of the accuracies in several frames, the one in `box_frame`, the declared frame, comes first.
    """
    held = [metric for metric in METRICS[benchmark] if metric.needs() <= set(scores)]
    frames = [metric for metric in held if metric.name in IN_FRAMES]
    ordered = iter(sorted(frames, key=lambda metric: metric.name != f"acc@0.5:{box_frame}"))
    return [next(ordered) if metric in frames else metric for metric in held]
