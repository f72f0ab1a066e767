"""Every number that a program takes is held to its kind's range, before anything is read or loaded."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

import perpo.cli.data
import perpo.cli.gating
import perpo.cli.report
import perpo.cli.sample
import perpo.cli.train
import perpo.tiny.build
import perpo.tiny.build_pages
import perpo_dashboard.cli
import perpo_eval.cli.eval
import perpo_eval.cli.results
import perpo_eval.cli.run
from perpo.common.arguments import parse_arguments
from perpo.common.numbers import ranges_of
from perpo.sample.arguments import SampleArguments
from perpo.train.arguments import TrainArguments
from perpo.train.outputs.export import ExportArguments
from perpo.train.outputs.merge import MergeArguments
from perpo_eval.arguments import EvalArguments, JudgeArguments
from perpo_eval.imports.arguments import ImportArguments
from tests.support import ROOT

Main = Callable[[list[str]], int]
EVAL, TRAIN = perpo_eval.cli.eval.main, perpo.cli.train.main
DATA = {"pdf": ["--pdf", "none", "--output", "out"]}
PROGRAMS: dict[str, tuple[type[Any], Main, list[str]]] = {
    "perpo-sample": (SampleArguments, perpo.cli.sample.main, ["--model", "none", "--output", "out.jsonl"]),
    "perpo-train": (TrainArguments, TRAIN, ["--model", "none", "--data", "none", "--output_dir", "out"]),
    "perpo-train merge": (MergeArguments, TRAIN, ["merge"]),
    "perpo-train export": (ExportArguments, TRAIN, ["export"]),
    "perpo-report": (perpo.cli.report.ReportArguments, perpo.cli.report.main, []),
    "perpo-report pin": (perpo.cli.gating.PinArguments, perpo.cli.report.main, ["pin"]),
    "perpo-report approve": (perpo.cli.gating.ApproveArguments, perpo.cli.report.main, ["approve"]),
    "perpo-report trend": (perpo.cli.report.TrendArguments, perpo.cli.report.main, ["trend"]),
    "perpo-eval": (EvalArguments, EVAL, ["--model", "none"]),
    "perpo-eval import": (ImportArguments, EVAL, ["import", "none.jsonl", "--name", "none"]),
    "perpo-eval judge": (JudgeArguments, EVAL, ["judge", "--run", "none"]),
    "perpo-eval list": (perpo_eval.cli.results.ListArguments, EVAL, ["list"]),
    "perpo-eval show": (perpo_eval.cli.results.ShowArguments, EVAL, ["show"]),
    "perpo-eval readings": (perpo_eval.cli.results.ReadingsArguments, EVAL, ["readings"]),
    "perpo-eval export": (perpo_eval.cli.results.ExportTableArguments, EVAL, ["export"]),
    "perpo-run": (perpo_eval.cli.run.RunArguments, perpo_eval.cli.run.main, ["tiny", "--output_dir", "out"]),
    "perpo-demo": (perpo_eval.cli.run.DemoArguments, perpo_eval.cli.run.demo_main, ["--output_dir", "out"]),
    "perpo-dashboard": (perpo_dashboard.cli.DashboardArguments, perpo_dashboard.cli.main, []),
    "perpo-dashboard export": (perpo_dashboard.cli.ExportPageArguments, perpo_dashboard.cli.main, ["export"]),
    "perpo.tiny.build": (perpo.tiny.build.BuildArguments, perpo.tiny.build.main, ["--out", "out"]),
    "perpo.tiny.build_pages": (perpo.tiny.build_pages.PagesBuildArguments, perpo.tiny.build_pages.main, ["--out", "o"]),
} | {
    f"perpo-data {name}": (command.arguments, perpo.cli.data.main, [name, *DATA.get(name, ("--output", "out"))])
    for name, command in perpo.cli.data._COMMANDS.items()
}

ZERO_MEANS_SOMETHING = {
    *("seed", "temperature", "min_margin", "max_error_share", "port", "gamma", "lora_dropout", "mm_projector_lr"),
    *("warmup_steps", "warmup_ratio", "weight_decay", "max_grad_norm", "save_steps", "probe_lists", "loose"),
    *("min_height", "eval_share"),
    *("dataloader_num_workers", "easy_until"),
}
SHARES = {"top_p", "min_margin", "max_error_share", "lora_dropout", "warmup_ratio", "loose", "easy_until", "eval_share"}


def numbers(cls: type[Any]) -> Iterator[tuple[str, type]]:
    """The fields that are an int or a float, and which of them."""
    for name, hint in get_type_hints(cls).items():
        kinds = {hint, *get_args(hint)} & {int, float}
        if kinds and str not in get_args(hint):
            yield name, kinds.pop()


FLAGS = [(program, name, kind) for program, (cls, *_) in PROGRAMS.items() for name, kind in numbers(cls)]


def bad_values(program: str, name: str, kind: type) -> list[str]:
    """What nobody can mean by a flag."""
    bad = ["nan", "inf", "-inf"]
    if name == "max_steps":  # -1 means whole epochs, and 0 has a sentence of its own
        return [*bad, "-2", str(2**64)]
    bad.append("-1")
    bad += [] if name in ZERO_MEANS_SOMETHING or (program, name) == ("perpo-train", "num_candidates") else ["0"]
    bad += [str(2**64)] if kind is int or name in SHARES else []  # the others have no largest value
    return bad


def test_every_program_is_looked_at():
    """Whoever reads a command line stands in the table; perpo-data's commands have a table of their own."""
    read = {
        ast.unparse(node.args[0]).rpartition(".")[2]
        for folder in ("perpo", "eval/perpo_eval", "dashboard/perpo_dashboard")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == parse_arguments.__name__
    }
    assert len(read) > 10
    assert read - {"arguments"} <= {cls.__name__ for cls, *_ in PROGRAMS.values()}


def test_every_number_has_a_kind():
    for cls, *_ in PROGRAMS.values():
        assert {name for name, _ in numbers(cls)} <= set(ranges_of(cls)), cls
    assert len(FLAGS) > 50


@pytest.mark.parametrize(("program", "name", "kind"), FLAGS)
def test_a_number_that_nobody_can_mean_is_refused_in_one_sentence(
    program, name, kind, tmp_path: Path, monkeypatch, capsys
) -> None:
    _, main, words = PROGRAMS[program]
    monkeypatch.chdir(tmp_path)
    for value in bad_values(program, name, kind):
        assert main([*words, f"--{name}={value}"]) == 2, value
        sentence, hint, *more = capsys.readouterr().err.splitlines()
        verb = "expects" if value in ("nan", "inf", "-inf") else "must be"
        assert sentence.startswith(f"error: --{name} {verb} ")
        assert sentence.endswith(f", got {value!r}" if verb == "expects" else f", got {kind(value)}")
        assert hint.startswith("hint: ")
        assert more == []
    assert list(tmp_path.iterdir()) == []


def test_all_programs_say_it_in_the_same_words(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (("limit", "0"), ("batch_size", "-1"), ("temperature", "-1"), ("top_p", "2"), ("limit", "1e3")):
        said = set()
        for program in ("perpo-sample", "perpo-eval"):
            _, main, words = PROGRAMS[program]
            assert main([*words, f"--{name}={value}"]) == 2
            said.add(capsys.readouterr().err)
        assert len(said) == 1


@pytest.mark.parametrize("value", ["0", "-1", "pope=0", str(2**64), "nan", "inf"])
def test_numbers_within_text(value, tmp_path: Path, monkeypatch, capsys) -> None:
    """--max_new_tokens of perpo-eval holds one limit or several."""
    monkeypatch.chdir(tmp_path)
    assert EVAL(["--model", "none", "--suite", "pope", f"--max_new_tokens={value}"]) == 2
    sentence, hint, *more = capsys.readouterr().err.splitlines()
    assert sentence.startswith("error: --max_new_tokens ")
    assert hint.startswith("hint: ")
    assert more == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["0", "-1", "pope=0", str(2**64), "nan", "inf"])
def test_thresholds(value, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert perpo.cli.report.main(["--baseline", "a", "--candidate", "b", f"--threshold={value}"]) == 2
    sentence, hint = capsys.readouterr().err.splitlines()
    assert sentence == f"error: --threshold {value} is not a number of points between 0 and 100"
    assert hint.startswith("hint: ")
