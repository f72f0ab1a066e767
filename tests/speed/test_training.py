"""The benchmarks of training run at a small size, and refuse ways that do not agree."""

from __future__ import annotations

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
