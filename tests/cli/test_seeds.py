"""Every program with a --seed says what seeds it takes, before anything is read or loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import perpo.cli.sample
import perpo.cli.train
import perpo.tiny.build
import perpo_eval.cli.eval
import perpo_eval.cli.run

PROGRAMS: dict[str, tuple[Callable[[list[str]], int], list[str], int]] = {
    "perpo-sample": (perpo.cli.sample.main, ["--model", "none", "--output", "out.jsonl"], 64),
    "perpo-train": (perpo.cli.train.main, ["--model", "none", "--data", "none", "--output_dir", "out"], 32),
    "perpo-eval": (perpo_eval.cli.eval.main, ["--model", "none", "--suite", "grounding", "--temperature", "1"], 64),
    "perpo-run": (perpo_eval.cli.run.main, ["tiny", "--output_dir", "out"], 32),
    "perpo-demo": (perpo_eval.cli.run.demo_main, ["--output_dir", "out"], 32),
    "perpo.tiny.build": (perpo.tiny.build.main, ["--out", "out"], 32),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_seed_out_of_range_is_refused_at_once(name, tmp_path: Path, monkeypatch, capsys) -> None:
    main, words, bits = PROGRAMS[name]
    monkeypatch.chdir(tmp_path)
    for seed in (-1, 1 << bits):
        assert main([*words, f"--seed={seed}"]) == 2
        said = f"error: --seed must be from 0 to 2^{bits} - 1, got {seed}\nhint: "
        assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
