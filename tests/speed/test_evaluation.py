"""The benchmarks of evaluation run at a small size, and refuse numbers that are not right."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.support import ROOT

BENCHMARKS = ROOT / "benchmarks"


def run(name: str, *words: object, timeout: int = 300) -> str:
    """Standard output of a benchmark."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(table: str) -> dict[str, list[float]]:
    """The numbers of each line that has any, by its label."""
    found = (re.match(r"(\D.*?)\s{2,}([\d.,]+(?:\s+[\d.,]+)*)", line) for line in table.splitlines())
    return {match[1]: [float(word.replace(",", "")) for word in match[2].split()] for match in found if match}


def test_scoring_and_storing_many_rows() -> None:
    out = run("score_rows", "--rows", 2000, "--images", 20)
    table = rows(out)
    for kind in ("grounding", "pope"):
        for step in ("score", "metrics of the task", "join, write, check", "read scores for a comparison"):
            seconds, speed, peak = table[f"{kind}: {step}"]
            # Printed with two decimals of a second.
            assert seconds - 0.005 <= 2000 / speed <= seconds + 0.006
            assert peak > 0
    (peak,) = table["peak of the whole process"]
    assert max(line[2] for line in table.values() if len(line) == 3) <= peak < 2048
    assert "equal what was counted" in out


def test_a_judge_is_kept_busy() -> None:
    out = run("judge_throughput", "--pairs", 6, "--ratings", 10, "--delay_s", 0.2, "--concurrency", 4)
    table = rows(out)
    (ideal,), (taken, ratio) = table["ideal"], rows(out.replace(" s ", "  "))["taken"]
    assert ideal == 16 / 4 * 0.2
    assert ideal <= taken < 3 * ideal  # the claim is the benchmark's, on a machine of its own
    assert abs(ratio - taken / ideal) < 0.01
    assert "without a call" in out


def test_a_wrong_metric_ends_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts are the benchmark's own: a scorer that says otherwise is found."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import score_rows

    from perpo_eval.benchmarks.base import Scored
    from perpo_eval.benchmarks.pope import POPE

    def broken(response: str, target: str, *rest: object) -> Scored:
        scored = POPE.score(response, target, (1, 1), score_rows.LLAVA)
        return replace(scored, scores=scored.scores | {"accuracy": 1.0})

    monkeypatch.setitem(score_rows.BENCHMARKS, "pope", replace(POPE, score=broken))
    monkeypatch.setattr(score_rows, "KINDS", score_rows.KINDS[1:])
    monkeypatch.setattr(sys, "argv", ["score_rows", "--rows", "16", "--images", "2"])
    monkeypatch.setenv("XDG_CACHE_HOME", "")  # the benchmark sets its own
    with pytest.raises(SystemExit, match=r"the metric accuracy is 1\.0, counted were 0\.5"):
        score_rows.main()


def test_throughput_beside_lmms_evals_own_model_class() -> None:
    """At a size that shows nothing but that it works: both were timed, and every answer was compared."""
    out = run("eval_throughput", "--rows", 6, "--batch_size", 3, "--repeats", 1)
    table = rows(out)
    seconds = {}
    for name, size in (("perpo", 3), ("llava_hf", 1)):
        batch, seconds[name], cpu, speed = table[name]
        assert batch == size
        assert cpu > 0
        # As rounded in the table.
        assert 6 / speed == pytest.approx(seconds[name], rel=0.05, abs=0.01)
    found = re.search(r"ratio\s+([\d.]+) x\s+([\d.]+) x", out)
    assert found
    ratio = float(found[1])
    assert ratio == pytest.approx(seconds["llava_hf"] / seconds["perpo"], rel=0.2, abs=0.06)
    compared = re.search(r"answers that agree: (\d+) of (\d+)", out)
    assert compared
    agree, of = map(int, compared.groups())
    assert of == 6
    assert 0 <= agree <= of
