"""Each benchmark is one row of each package's table, the row is whole, and nobody else spells the name out."""

import ast
from dataclasses import fields
from importlib.resources import files
from typing import get_args, get_type_hints

import pytest

from perpo.benchmarks.base import BenchmarkInfo
from perpo.benchmarks.table import INFO, answer_kind, meaning, title
from perpo.prepare.parquet import Kind
from perpo_eval.arguments import EvalArguments
from perpo_eval.benchmarks.table import BENCHMARKS
from perpo_eval.judge.table import JUDGINGS
from perpo_eval.rows.suites import SUITES, TASKS, spec_of
from tests.support import ROOT

SOURCES = ("perpo", "eval/perpo_eval", "dashboard/perpo_dashboard")
MAY_BE_EMPTY = {
    "readings", "told_scores", "board", "column_titles", "leading_tasks", "several_data_sets", "note", "note_splits",
    "rows", "own_files", "judge_prompt",
}  # fmt: skip


def strings() -> dict[str, set[str]]:
    """The text constants of each source file."""
    return {
        path.relative_to(ROOT).as_posix(): {
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        for folder in SOURCES
        for path in (ROOT / folder).rglob("*.py")
    }


def test_a_benchmark_is_one_row_of_each_table() -> None:
    assert list(INFO) == [info.name for info in INFO.values()] == list(BENCHMARKS)
    assert all(BENCHMARKS[name].info is info for name, info in INFO.items())
    assert list(JUDGINGS) == [name for name, info in INFO.items() if info.judged]
    assert all(judging.info is INFO[name] for name, judging in JUDGINGS.items())


def test_a_benchmark_is_one_file_of_its_name_in_each_package() -> None:
    for name in INFO:
        wanted = ["perpo/benchmarks", "eval/perpo_eval/benchmarks", *(["eval/perpo_eval/judge"] * (name in JUDGINGS))]
        for folder in wanted:
            assert (ROOT / folder / f"{name}.py").is_file()


@pytest.mark.parametrize("info", INFO.values(), ids=INFO)
def test_a_row_is_whole(info: BenchmarkInfo) -> None:
    empty = {field.name for field in fields(info) if not getattr(info, field.name)}
    assert empty <= MAY_BE_EMPTY
    names, scores = list(info.by_name), set(info.score_names())
    assert len(names) == len(info.metrics)
    assert info.shown[0] == info.primary
    assert set(info.shown) <= set(names)
    assert {info.right.score, info.right.measure, *info.flip_scores, *info.told_scores} <= scores
    assert info.right.rival is None or info.right.rival in scores
    assert set(info.flip_scores) <= set(names)  # their scale and direction are the metric's
    assert all(info.meaning(name) != name for name in names)
    assert {metric for _, metric in info.column_titles} <= set(names)
    assert {task for task, _ in info.column_titles} <= set(TASKS)
    assert bool(info.judge_prompt) == info.judged
    assert not info.judge_prompt or (files("perpo_eval") / "judge" / "prompts" / info.judge_prompt).is_file()
    assert bool(info.rows) == bool(info.own_files)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_tasks_of_a_benchmark_are_its_own(name: str) -> None:
    assert BENCHMARKS[name].tasks
    assert {spec.benchmark for spec in BENCHMARKS[name].tasks} == {name}
    if INFO[name].own_files:
        spec = spec_of(f"{INFO[name].own_files}mine")
        assert (spec.benchmark, spec.split, spec.max_new_tokens) == (name, "mine", INFO[name].max_new_tokens)


def test_flags_name_the_suites_and_kinds_of_rows_of_the_rows() -> None:
    assert set(get_args(get_type_hints(EvalArguments)["suite"])) == set(SUITES)
    assert sorted(get_args(Kind)) == sorted(info.rows for info in INFO.values() if info.rows)


def test_of_a_benchmark_of_tomorrow_nothing_is_known() -> None:
    assert answer_kind("of tomorrow") is None
    assert meaning("of tomorrow", "score") == title("of tomorrow", "score") == "score"


def test_the_names_of_judged_benchmarks_are_spelt_out_in_their_rows_alone() -> None:
    allowed = {
        "llava_bench": {"perpo/benchmarks/llava_bench.py"},
        "mmhal": {
            "perpo/benchmarks/mmhal.py",
            "eval/perpo_eval/rows/published.py",  # a folder
            "eval/perpo_eval/imports/layouts.py",  # a layout of prediction files
        },
    }
    found = strings()
    assert {name: {file for file, texts in found.items() if name in texts} for name in allowed} == allowed


def test_other_names_are_spelt_out_where_they_mean_a_suite_a_command_or_a_kind_of_rows_too() -> None:
    """ "grounding" is a kind of rows of perpo-data, "pope" one of its commands, and all are suites of perpo-eval."""
    beside = {
        "grounding": {"arguments.py", "wanted.py", "own_rows.py", "parquet.py", "rows.py", "run.py"},
        "pope": {"arguments.py", "wanted.py", "parquet.py", "data.py", "layouts.py"},
        "ocr": {"wanted.py", "fox.py", "run.py"},
    }
    found = strings()
    for name, others in beside.items():
        # The files of benchmarks name their suites.
        spelt = {file for file, texts in found.items() if name in texts and not file.startswith("perpo/benchmarks/")}
        assert {file for file in spelt if not file.startswith("perpo/prepare/")} <= {
            "perpo/cli/data.py",
            "eval/perpo_eval/arguments.py",  # the suite that is usual
            "eval/perpo_eval/cli/run.py",  # what the demo can be about, and the suites of that
            "eval/perpo_eval/wanted.py",
            "eval/perpo_eval/imports/layouts.py",
        }
        assert {file.rpartition("/")[2] for file in spelt} <= others
