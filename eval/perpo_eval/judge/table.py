"""The table of benchmarks that a judge rates, each with its way of judging."""

from __future__ import annotations

from perpo_eval.judge import llava_bench, mmhal

JUDGINGS = {judging.info.name: judging for judging in (llava_bench.JUDGING, mmhal.JUDGING)}
"""By the benchmark's name."""
