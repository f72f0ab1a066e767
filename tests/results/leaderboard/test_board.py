"""perpo.results.leaderboard.board and perpo-eval list, show, export: marks derived by hand, formats read back."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
from typing import get_args, get_type_hints

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel
from statsmodels.stats.multitest import multipletests

from perpo.errors import PerpoError
from perpo.records.store import find_runs
from perpo.results.leaderboard import board as leaderboard
from perpo.results.leaderboard import files
from perpo.results.leaderboard.board import boards
from perpo.results.leaderboard.files import frame, render, text
from perpo.results.samples import read_scores
from perpo_eval.cli.eval import main
from perpo_eval.cli.results import ExportTableArguments
from tests.support import ROOT

PAPER = ROOT / "results" / "paper"


def rows(seed: int, better: float) -> dict[str, list[tuple[str, float]]]:
    rng = np.random.default_rng(seed)
    hard = rng.random(400)
    return {"refcoco_val": [(str(k), float(hard[k] < 0.5 + better)) for k in range(400)]}


def test_bold_is_what_is_better_than_all_others_and_ties_are_told(make_run) -> None:
    scores = {"low": rows(1, 0.0), "high": rows(1, 0.2), "near": rows(1, 0.0)}
    scores["near"]["refcoco_val"][0] = ("0", 1.0 - scores["near"]["refcoco_val"][0][1])
    runs = [make_run(name, each) for name, each in scores.items()]
    values = {name: [score for _, score in each["refcoco_val"]] for name, each in scores.items()}
    assert ttest_rel(values["high"], values["low"]).pvalue < 0.01
    assert ttest_rel(values["near"], values["low"]).pvalue > 0.3

    (board,) = boards(runs)
    marked = {board.rows[n].label: mark for (n, _), mark in board.marks.items()}
    assert marked == {"high": "best"}
    (board,) = boards([runs[0], runs[2]])
    assert {board.rows[n].label for (n, _) in board.marks} == {"low", "near"}
    assert set(board.marks.values()) == {"tied"}


def test_runs_on_other_data_are_never_said_to_be_worse(make_run) -> None:
    runs = [make_run("low", rows(1, 0.0)), make_run("high", rows(1, 0.3), dataset="tiny:other", data_sha256="1" * 64)]
    (board,) = boards(runs)
    assert board.marks == {}
    found = {(column.task, column.data) for column in board.columns}
    assert found == {("refcoco_val", "000000"), ("refcoco_val", "111111")}
    assert [len(row.metrics) for row in board.rows] == [1, 1]
    assert "refcoco val#111111 Acc@0.5" in render(board, "markdown").replace("_", " ").replace("\\", "")
    assert {"refcoco_val#000000 Acc@0.5", "refcoco_val#111111 Acc@0.5"} < set(frame(board).columns)
    assert any(note.startswith("#: other data of the same name") for note in text(board).notes)


def test_the_samples_of_each_run_are_read_once(make_run, monkeypatch) -> None:
    """Of 40 runs in three columns, more than are kept at a time; the marks are those of each column alone."""
    scores = {f"run{k}": {task: rows(1, k / 100)["refcoco_val"] for task in ("refcoco_val", "b")} for k in range(40)}
    runs, asked = [make_run(*each) for each in scores.items()], []
    monkeypatch.setattr(leaderboard, "read_scores", lambda run: asked.append(run.path) or read_scores(run))
    (board,) = boards(runs)
    assert sorted(asked) == sorted(run.path for run in runs)
    assert len(board.columns) == 3
    for column in board.columns:
        told = [leaderboard.difference(runs[39], run, column) for run in runs[:39]]
        ties = multipletests([each.p_value for each in told], method="holm")[1] >= 0.05
        marked = {board.rows[n].label: mark for (n, c), mark in board.marks.items() if c == column}
        assert marked == {f"run{k}": "tied" for k in np.flatnonzero(ties)} | {"run39": "tied" if ties.any() else "best"}


def test_one_data_set_of_a_name_has_its_plain_name_and_shares_it_with_reported_numbers(make_run) -> None:
    measured = make_run("low", rows(1, 0.0))
    (task,) = measured.record.tasks
    reported = dataclasses.replace(
        measured.record, run_id="paper", source="reported", tasks=[dataclasses.replace(task, data_sha256=None)]
    )
    (board,) = boards([measured, dataclasses.replace(measured, record=reported)])
    assert [(column.name, len(board.rows)) for column in board.columns] == [("refcoco_val", 2)]


def test_reported_and_measured_rows_are_told_apart(make_run) -> None:
    reported = find_runs(PAPER)[0]
    measured = make_run("ours", rows(1, 0.0))
    grounding, ocr = boards([*reported, measured])
    assert [row.run.record.source for row in grounding.rows] == ["measured"] + ["reported"] * 12
    assert (ocr.title, len(ocr.rows)) == ("Dense OCR", 8)
    assert not grounding.marks
    assert not ocr.marks
    notes = " ".join(text(grounding).notes)
    assert "they have no interval" in notes
    assert "Probably a misprint" in notes
    table = frame(grounding)
    line = table[table["name"] == "LLaVA-v1.5-7B + PerPO"].iloc[0]
    assert (line["refcoco_val Acc@0.5"], line["MMHal score, judge not named"]) == (0.638, 2.26)
    assert pd.isna(line["refcoco_val Acc@0.5 low"])


def test_a_format_of_the_command_line_is_one_that_is_written(make_run) -> None:
    (board,) = boards([make_run("a", rows(2, 0.0))])
    formats = set(get_args(get_type_hints(ExportTableArguments)["format"])) - {"text"}
    assert formats == set(files._WRITERS)
    assert len({render(board, kind) for kind in formats}) == len(formats)
    with pytest.raises(KeyError):
        render(board, "excel")


def test_each_format_holds_the_numbers(make_run) -> None:
    (board,) = boards([make_run("a_&", rows(2, 0.0)), make_run("b|", rows(2, 0.2))])
    value = board.rows[1].metrics[board.columns[0]].value
    table = pd.read_csv(io.StringIO(render(board, "csv")))
    assert table["refcoco_val Acc@0.5"].iloc[1] == value
    assert table["name"].tolist() == ["a_&", "b|"]
    data = json.loads(render(board, "json"))
    assert data["rows"][1]["refcoco_val Acc@0.5"] == value
    assert data["marks"] == [{"run_id": "run-b", "column": "refcoco_val Acc@0.5", "mark": "best"}]
    printed = f"{100 * value:.1f}"
    assert f"| **{printed} ±" in render(board, "markdown")
    assert "b\\|" in render(board, "markdown")
    latex = render(board, "latex")
    assert rf"\textbf{{{printed} $\pm$" in latex
    assert r"a\_\&" in latex
    body = latex.split(r"\midrule")[1].split(r"\bottomrule")[0]
    assert {line.count("&") - line.count(r"\&") for line in body.strip().splitlines()} == {2}


def test_no_runs() -> None:
    with pytest.raises(PerpoError, match="no runs to show"):
        boards([])


def test_the_programs_find_show_and_export(make_run, tmp_path, capsys) -> None:
    run = make_run("base", rows(3, 0.0))
    results = ["--results", str(tmp_path / "results"), str(PAPER)]
    assert main(["list", *results]) == 0
    assert "21 runs" in capsys.readouterr().out
    assert main(["list", *results, "--model", "ONEVISION", "--source", "reported", "--suite", "object_grounding"]) == 0
    assert "4 runs" in capsys.readouterr().out
    assert main(["list", *results, "--since", "2026-06-01"]) == 0  # the run above is of 2026-01-01
    assert "20 runs" in capsys.readouterr().out

    assert main(["show", "--run", str(run.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "base"
    assert main(["show", "--run", "LLaVA-v1.5-7B + DPO", "--results", str(PAPER)]) == 0
    assert "LLaVA^W" in capsys.readouterr().out
    assert main(["export", *results, "--format", "csv", "--source", "measured"]) == 0
    assert len(pd.read_csv(io.StringIO(capsys.readouterr().out))) == 1
    assert main(["export", *results, "--format", "csv"]) == 2
    assert "these runs make 2 tables: Object grounding, Dense OCR" in capsys.readouterr().err

    shutil.copytree(run.path, tmp_path / "results" / "tiny" / "torn")
    (tmp_path / "results" / "tiny" / "torn" / "run.json").write_text('{"schema_version": 9}')
    assert main(["list", *results]) == 0
    said = capsys.readouterr()
    assert "21 runs" in said.out
    assert "is left out: " in said.err
    assert "schema version 9" in said.err


def test_list_tells_days_and_times_in_utc_and_sorts_by_them_across_folders(make_run, tmp_path, capsys) -> None:
    """22:30 at -05:00 is 03:30 of the next day in UTC; 00:30 at +02:00 is 22:30 of the day before."""
    times = {"west": "2026-01-31T22:30:00-05:00", "east": "2026-02-01T00:30:00+02:00", "utc": "2026-02-01T01:00:00"}
    for name, when in times.items():
        file = make_run(name, rows(2, 0.0)).path / "run.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"created_utc": when}))
    for name in times:  # each in a results folder of its own
        (tmp_path / name).mkdir()
        shutil.move(tmp_path / "results" / "tiny" / f"run-{name}", tmp_path / name)
    results = ["--results", *(str(tmp_path / name) for name in times)]

    def listed(*words: str) -> list[str]:
        assert main(["list", *results, *words]) == 0
        return re.findall(r"(east|utc|west) .*(2026-\S+ \d\d:\d\d)", capsys.readouterr().out)

    expected = [("east", "2026-01-31 22:30"), ("utc", "2026-02-01 01:00"), ("west", "2026-02-01 03:30")]
    assert listed() == expected
    assert listed("--since", "2026-02-01") == expected[1:]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["list", "--since", "soon"], "--since soon is not a day"),
        (["export", "--format", "pdf"], "--format expects one of"),
        (["show"], "run is required"),
        (["list", "--results", "nowhere"], "there is no results folder nowhere"),
    ],
)
def test_bad_flags(words, said, capsys) -> None:
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_names_are_text_in_every_file(make_run) -> None:
    names = ["=HYPERLINK(1)", "@SUM(1)", "-1+2", "<b>bold</b> [l](x) `c`\n\\input{x}"]
    (board,) = boards([make_run(name, rows(2, 0.0)) for name in names])
    kept = pd.read_csv(io.StringIO(render(board, "csv")))["name"]
    assert set(kept) == {*("'" + name for name in names[:3]), names[3]}
    assert kept.str.match(r"^[=+\-@\t\r]").sum() == 0
    told = render(board, "markdown")
    assert "<b>" not in told
    assert "[l]\\(x) \\`c\\` \\\\input{x}" in told
    lines = render(board, "latex").splitlines()
    assert [line for line in lines if not line.startswith(("%", "\\")) and not line.endswith(r"\\")] == []
    assert all(r"\input" not in line for line in lines)
