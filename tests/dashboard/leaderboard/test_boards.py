"""perpo_dashboard.leaderboard.boards and meanings, on the committed records and on boards made by hand."""

from __future__ import annotations

import dataclasses
from datetime import date, timedelta

import pytest

from perpo.benchmarks.metrics import METRICS
from perpo.benchmarks.table import meaning, title
from perpo.records.run_record import Metric
from perpo.records.store import find_runs
from perpo.results.leaderboard import board as leaderboard
from perpo.results.leaderboard import files
from perpo.results.leaderboard.board import Column
from perpo_dashboard.leaderboard import boards, tables
from tests.support import ROOT

RESULTS = ROOT / "results"


@pytest.fixture(scope="module")
def runs():
    return find_runs(RESULTS)[0]


@pytest.fixture(scope="module")
def found(runs):
    return leaderboard.boards(runs)


def test_every_metric_has_a_meaning() -> None:
    for benchmark, metrics in METRICS.items():
        for metric in metrics:
            assert meaning(benchmark, metric.name) != metric.name, (benchmark, metric.name)
    assert meaning("grounding", "acc@0.7").endswith("at least 0.7")
    assert "32 x 32" in meaning("grounding", "acc@0.5:small")
    assert (meaning("new", "metric"), title("new", "metric")) == ("metric", "metric")


def test_a_choice_leaves_what_it_names(runs) -> None:
    chosen = boards.RunChoice(methods=["PerPO"], sources=["reported"])
    left = [run for run in runs if chosen.holds(run)]
    assert {run.record.training_run["arguments"]["method"] for run in left} == {"perpo"}
    assert len(left) == 5  # one for each base of the paper's two tables
    day = date.fromisoformat(runs[0].record.created_utc[:10])
    assert boards.RunChoice(since=day, until=day).holds(runs[0])
    assert not boards.RunChoice(since=date(day.year + 1, 1, 1)).holds(runs[0])
    assert not boards.RunChoice(until=date(day.year - 1, 1, 1)).holds(runs[0])
    judged = dataclasses.replace(runs[0], record=dataclasses.replace(runs[0].record, judge={"id": "gpt-4-0613"}))
    assert boards.judge_of(judged.record) == "gpt-4-0613"
    assert boards.RunChoice(judges=["gpt-4-0613"]).holds(judged)
    assert boards.RunChoice(judges=[boards.NO_JUDGE]).holds(runs[0])
    assert not boards.RunChoice(bases=["another"]).holds(runs[0])


@pytest.mark.parametrize(
    ("when", "day"),
    [
        ("2026-02-01T00:30:00+02:00", date(2026, 1, 31)),
        ("2026-02-01T23:30:00-05:00", date(2026, 2, 2)),
        ("2026-02-01T23:30:00Z", date(2026, 2, 1)),
        ("2026-02-01T00:30:00", date(2026, 2, 1)),
    ],
)
def test_days_are_those_of_utc(runs, when, day) -> None:
    run = dataclasses.replace(runs[0], record=dataclasses.replace(runs[0].record, created_utc=when))
    assert boards.RunChoice(since=day, until=day).holds(run)
    assert not boards.RunChoice(until=day - timedelta(days=1)).holds(run)
    assert not boards.RunChoice(since=day + timedelta(days=1)).holds(run)


def test_rows_without_a_common_column_are_tables_of_their_own(found) -> None:
    whole = found[0]
    parts = boards.split(whole)
    assert [{row.run.record.source for row in part.rows} for part in parts] == [{"measured"}, {"reported"}]
    assert sum(len(part.rows) for part in parts) == len(whole.rows)
    assert parts[1].title == "Object grounding: refcoco, refcoco+, refcocog, ..."
    for part in parts:
        assert all(any(column in row.metrics for row in part.rows) for column in part.columns)
    assert boards.topic(parts[0].columns[0]) == boards.AVERAGES
    assert [part.title for part in boards.split(found[1])] == ["Dense OCR"]


def test_columns_can_be_left_out_by_what_they_are_about(found) -> None:
    assert {"refcoco", "refcoco+", "refcocog", "pope", "ocr", "averages"} <= set(boards.benchmarks(found))
    left = boards.only(found[0], ["refcocog"])
    assert [column.task for column in left.columns] == ["refcocog_val", "refcocog_test"]
    assert boards.only(found[0], []).columns == found[0].columns


def test_rows_are_ordered_as_asked(found) -> None:
    ocr = found[1]
    best = boards.ordered(ocr, "fox_ocr_en F1")
    values = [row.metrics[next(c for c in ocr.columns if c.metric == "f1")].value for row in best.rows]
    assert values == sorted(values, reverse=True)
    assert [row.base for row in boards.ordered(ocr, "base").rows] == sorted(row.base for row in ocr.rows)
    assert boards.ordered(ocr, "a column of another table").rows == ocr.rows
    newest = [row.run.record.created_utc for row in boards.ordered(found[0], "newest first").rows]
    assert newest == sorted(newest, reverse=True)


def test_headers_say_once_what_columns_share(found) -> None:
    heads = dict(zip([c.title for c in found[0].columns], tables.headers(found[0].columns), strict=True))
    assert heads["refcoco_val Acc@0.5"] == ("Acc@0.5, % ↑", "refcoco_val")
    assert heads["grounding average of 5 Acc@0.5"] == ("Acc@0.5, % ↑", "average of 5")
    told = {group: name for title, (group, name) in heads.items() if title.startswith("MMHal score")}
    assert told == {"mmhal_bench": "MMHal score, judge not named, points of 6 ↑"}
    assert heads["tinypages_test edit distance"] == ("tinypages_test", "edit distance, % ↓")
    assert len(set(heads.values())) == len(found[0].columns)
    above = tables.headers(found[0].columns, points=True)  # differences of percentages are points
    assert not any("%" in word for words in above for word in words)
    assert ("Acc@0.5, points ↑", "refcoco_val") in above


def test_help_says_what_how_and_on_how_much(found) -> None:
    column = next(c for c in found[0].columns if c.task == "grounding average of 5")
    told = tables.help_of(found[0], column)
    assert "IoU of at least 0.5" in told
    assert "Higher is better." in told
    assert "4,040 samples about 450 images" in told
    reported = next(c for c in found[0].columns if c.task == "mmhal_bench" and c.metric == "score")
    assert "points of 6" in tables.help_of(found[0], reported)
    assert "samples" not in tables.help_of(found[0], reported)


def test_cells_are_numbers_to_sort_by_and_texts_to_read(found) -> None:
    numbers, texts = tables.cells(found[0])
    place = files.names(found[0]).index("tiny + SFT (sft-exact)")
    column = "grounding average of 5 Acc@0.5"
    value = next(m for c, m in found[0].rows[place].metrics.items() if c.title == column)
    assert numbers[column][place] == pytest.approx(100 * value.value)
    assert texts[column][place] == f"{100 * value.value:.1f} ±{100 * (value.ci_high - value.ci_low) / 2:.1f}"
    tied = {texts[c.title][n][-1] for (n, c), mark in found[0].marks.items() if mark == "tied"}
    assert tied == {"≈"}
    reported = files.names(found[0]).index("LLaVA-v1.5-7B")
    assert texts[column][reported] == ""
    assert numbers[column].isna()[reported]
    assert texts["MMHal score, judge not named"][reported] == "2.11"


def test_what_is_written_is_each_rows_own(found) -> None:
    """Two rows of one value are written with their own intervals and marks."""
    part = boards.split(found[0])[0]
    column = part.columns[0]
    rows = [row for row in part.rows if column in row.metrics][:3]
    metrics = [
        dataclasses.replace(rows[0].metrics[column], value=0.5, ci_low=0.5 - d, ci_high=0.5 + d) for d in (0.1, 0.2)
    ]
    same = [
        dataclasses.replace(row, metrics={column: metric})
        for row, metric in zip(rows, [*metrics, metrics[0]], strict=True)
    ]
    board = dataclasses.replace(part, columns=[column], rows=same, marks={(1, column): "best", (2, column): "tied"})
    table, first = tables.styled(board)
    written = [line[first + 1] for line in table._translate(False, False)["body"]]  # what Streamlit reads too
    assert [cell["display_value"] for cell in written] == ["50.0 ±10.0 \u2007", "50.0 ±20.0 \u2007", "50.0 ±10.0 ≈"]
    assert table.data.iloc[:, first].tolist() == [50.0, 50.0, 50.0]
    assert "font-weight" in tables._style(board, 1, column)
    assert tables._style(board, 0, column) == ""


@pytest.mark.parametrize(
    ("low", "high", "higher", "said"),
    [
        (0.01, 0.02, True, "better"),
        (0.01, 0.02, False, "worse"),
        (-0.02, -0.01, True, "worse"),
        (-0.02, -0.01, False, "better"),
        (-0.01, 0.01, True, ""),
        (0.01, 0.02, None, ""),
        (None, None, True, ""),
    ],
)
def test_a_difference_is_told_where_its_interval_leaves_out_zero(low, high, higher, said) -> None:
    column = Column("b", "t", "m", "t m", "fraction", higher)
    metric = Metric("m", 0.0, None, low, high, None, None, None, higher, "fraction")
    assert tables.verdict(column, metric) == said
    assert tables.verdict(column, None) == ""


def test_bars_leave_out_what_is_missing(found) -> None:
    column = next(c for c in found[0].columns if c.task == "refcoco_val")
    lines = boards.bars(found[0], [column])
    assert set(lines["source"]) == {"reported"}
    assert len(lines) == 12
    assert lines["low"].isna().all()
    assert lines["value"].max() == pytest.approx(86.7)


def test_parts_of_a_leaderboard_are_never_called_alike(runs) -> None:
    """Three sets of pages of one's own and a second one of one name: pages that stand apart need keys of their own."""
    base = next(run for run in runs if any(task.benchmark == "ocr" for task in run.record.tasks))
    (task,) = [task for task in base.record.tasks if task.benchmark == "ocr"][:1]

    def own(number: int, name: str, digest: str):
        tasks = [dataclasses.replace(task, task=name, data_sha256=digest * 64)]
        record = dataclasses.replace(base.record, run_id=f"own{number}", tasks=tasks, groups=[])
        return dataclasses.replace(base, record=record)

    named = [("pages_a", "a"), ("pages_b", "b"), ("pages_b", "c"), ("pages_d", "d")]
    (board,) = leaderboard.boards([own(n, *each) for n, each in enumerate(named)])
    parts = boards.split(board)
    assert len({part.title for part in parts}) == len(parts) == 4
    assert any(part.title.endswith("pages_b#cccccc") for part in parts)
    for part in parts:
        table, _ = tables.styled(part)
        assert table.data.columns.is_unique
