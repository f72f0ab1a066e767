"""The benchmarks of training run at a small size, and refuse ways that do not agree."""

from __future__ import annotations

import json
import sys

import pytest

from tests.support import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def train_step(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import train_step

    monkeypatch.setitem(train_step.SIZES, "small", train_step.Size(64, 1, 128, 4, 512, 32, 2, 4))
    monkeypatch.setitem(train_step.SHAPES, "llava15", train_step.ListSize(1, 20, 3, 10, 1))
    return train_step


def run(module, monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", [module.__name__, *words])
    module.main()
    return capsys.readouterr().out.splitlines()


def test_a_step_beside_others(train_step, monkeypatch, capsys):
    first, shape, *ways, last = run(train_step, monkeypatch, capsys, "--shapes", "llava15")
    assert "width 64" in first
    assert shape == "llava15: 596 + 3 x 10 tokens"
    assert [line.split()[0] for line in ways] == ["ours", "repeated"]
    assert last == "trl is not installed: left out"
    *_, ours, dense = run(train_step, monkeypatch, capsys, "--shapes", "llava15", "--attention")
    assert [line.split()[0] for line in (ours, dense)] == ["ours", "dense"]


def test_another_loss_ends_the_benchmark(train_step, monkeypatch):
    step = train_step._repeated_step
    monkeypatch.setattr(train_step, "_repeated_step", lambda *parts: step(*parts) + 0.01)
    monkeypatch.setattr(sys, "argv", ["train_step", "--shapes", "llava15"])
    with pytest.raises(SystemExit, match="the losses differ"):
        train_step.main()


def test_without_a_gpu_the_full_size_is_not_run(train_step, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["train_step", "--size", "7b"])
    with pytest.raises(SystemExit, match="needs a GPU: not run"):
        train_step.main()


def test_ways_of_attention(monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.delitem(sys.modules, "attention", raising=False)
    import attention

    threads, names, *rows = run(attention, monkeypatch, capsys, "--longest", "200")
    assert threads.endswith("milliseconds")
    assert [row.split()[:4] for row in rows] == [["2", "90", "4", "12"]]
    assert len(rows[0].split()) == len(names.replace("split pays", "pays").split())


def test_long_answers_in_a_process_each(monkeypatch, capsys):
    """Every way and number of candidates is one process, whose numbers become one line."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import long_answers

    measured = []

    def in_process(way, count, args):
        measured.append((way, count))
        return 2.0 * count, 1.0 * count, 100.0 + count

    monkeypatch.setattr(long_answers, "_in_process", in_process)
    first, *rows, last = run(long_answers, monkeypatch, capsys, "--ways", "ours", "pairs", "--budget", "900")
    assert "636 + N x 1500 tokens, at most 900 tokens a pass" in first
    assert measured == [("ours", 5), ("pairs", 5), ("ours", 20), ("pairs", 20)]
    assert [row.split()[2:4] for row in rows] == [["5", "ours"], ["5", "pairs"], ["20", "ours"], ["20", "pairs"]]
    assert last == "ours: the largest peak is 1.143 times the smallest"


def test_a_way_of_long_answers_measures_itself(train_step, monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "long_answers", raising=False)
    import long_answers

    sizes = ("--candidates", "4", "--answer", "10", "--budget", "680", "--repeats", "1")
    for way in long_answers.WAYS:
        (line,) = run(long_answers, monkeypatch, capsys, "--way", way, *sizes)
        seconds, cpu, peak = json.loads(line)
        assert min(seconds, cpu, peak) > 0
