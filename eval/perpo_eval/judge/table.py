"""How a judge rates the benchmarks that have one."""

from __future__ import annotations

from perpo_eval.judge import llava_bench, mmhal

JUDGINGS = {judging.info.name: judging for judging in (llava_bench.JUDGING, mmhal.JUDGING)}
"""By the benchmark's name."""
