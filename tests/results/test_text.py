"""perpo.results.text: every number of the leaderboard is the record's, and is said where it came from."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from perpo.errors import PerpoError
from perpo.results.compare import paired_difference
from perpo.results.experiment_table import leaderboard
from perpo.results.run_tables import answer_notes, loop_notes, run_texts
from perpo.results.samples import read_scores
from perpo.results.text import TINY_NOTE, _pages, cell
from perpo.stats import Estimate

TASKS = ("refshapes_testA", "refshapes_testB")


def rows(hits: int) -> dict[str, list[tuple[str, float]]]:
    """20 expressions a task, two per image, of which `hits` are right."""
    return {task: [(f"image{k // 2}", float(k % 20 < hits)) for k in range(20)] for task in TASKS}


@pytest.fixture
def runs(make_run):
    return {"base": make_run("base", rows(9)), "SFT": make_run("SFT", rows(9)), "PerPO": make_run("PerPO", rows(14))}


def test_leaderboard_holds_the_runs_numbers(runs) -> None:
    board = leaderboard(runs, "base", against="SFT", seconds={"PerPO": {"train": 41.2, "evaluate": 9.0}})
    base, sft, perpo = board.entries
    assert (base.delta, base.average.value, perpo.average.value) == (None, 0.45, 0.7)
    assert perpo.delta == paired_difference(read_scores(runs["PerPO"]), read_scores(runs["base"]), "acc@0.5")
    assert perpo.delta_against == paired_difference(read_scores(runs["PerPO"]), read_scores(runs["SFT"]), "acc@0.5")
    assert (sft.delta.value, sft.delta_against, board.n, board.n_clusters) == (0.0, None, 40, 10)

    text = board.text()
    assert text.header == ["run", "avg", "vs base", "vs SFT", "mean IoU", "unreadable", "train s", "evaluate s", *TASKS]
    last = dict(zip(text.header, text.rows[2], strict=True))
    half = 100 * (perpo.delta.ci_high - perpo.delta.ci_low) / 2
    assert last["vs base"] == f"+25.0 ±{half:.1f}"
    assert (last["refshapes_testA"], last["mean IoU"], last["unreadable"]) == ("70.0", "70.0", "0.0")
    assert (last["train s"], text.rows[0][6]) == ("41", "")
    assert TINY_NOTE in text.notes

    board = leaderboard(runs, "base", seconds={"base": {"evaluate": 9.0}, "PerPO": {"train": 41.2, "evaluate": 9.0}})
    assert [name for name in board.text().header if name.endswith(" s")] == ["train s", "evaluate s"]


def test_as_markdown_and_json(runs) -> None:
    board = leaderboard(runs, "base")
    markdown = board.text().markdown()
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(lines) == 5
    assert len({line.count("|") for line in lines}) == 1
    assert lines[1] == "| --- |" + " ---: |" * (len(board.text().header) - 1)
    data = json.loads(json.dumps(board.as_json()))
    assert data["entries"][2]["delta"]["value"] == pytest.approx(0.25)
    assert (data["metric"], data["tiny"], data["base"]) == ("acc@0.5", True, "base")


@pytest.mark.parametrize(("width", "tables"), [(60, 3), (80, 2), (130, 1)])
def test_a_terminal_shows_every_cell_whole(runs, monkeypatch, capsys, width, tables) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = leaderboard(runs, "base", against="SFT", seconds={"PerPO": {"train": 41.2, "evaluate": 9.0}}).text()
    text.show()
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert sum(set(line) == {"─"} for line in lines) == tables
    for row in text.rows:
        of_run = [line.removeprefix(row[0]) for line in lines if line.startswith(f"{row[0]} ")]
        assert len(of_run) == tables
        assert [part for line in of_run for part in line.split()] == " ".join(row[1:]).split()
    assert [word for line in lines for word in line.split()].count("testA") == 1


def test_a_column_wider_than_the_terminal_is_still_shown() -> None:
    assert _pages([5, 100, 3, 3], (2,), 20) == [[0, 1], [0, 2, 3]]
    assert _pages([5, 3, 6, 6], (2,), 20) == [[0, 1, 2], [0, 3]]  # the group fits nowhere whole
    assert _pages([5, 3, 5, 4], (2,), 20) == [[0, 1], [0, 2, 3]]  # here it does
    assert _pages([50, 3], (), 20) == [[0, 1]]


def test_real_data_carry_no_note_about_the_tiny_world(make_run) -> None:
    run = make_run("base", rows(9), dataset="hub:lmms-lab-encoder/RefCOCO")
    assert TINY_NOTE not in run_texts(run.record)[-1].notes
    assert TINY_NOTE not in leaderboard({"base": run}, "base").text().notes


def test_a_run_of_a_benchmark_that_is_not_known_is_refused_in_a_sentence(runs) -> None:
    """A later perpo may have stored it; a table without titles and notes would say less than it seems to."""
    record = runs["base"].record
    other = replace(record, groups=[replace(group, benchmark="chartqa") for group in record.groups])
    with pytest.raises(PerpoError, match="benchmark 'chartqa' is not known"):
        run_texts(other)


def test_one_run(runs) -> None:
    (text,) = run_texts(runs["base"].record)
    assert [row[0] for row in text.rows] == [*TASKS, "average"]
    assert text.header == ["task", "n", "images", "Acc@0.5", "mean IoU", "unreadable"]
    assert text.rows[2][1:3] == ["40", "10"]
    assert text.rows[2][3].startswith("45.0 ±")


def test_unknown_labels_and_unlike_runs_are_refused(runs, make_run) -> None:
    with pytest.raises(PerpoError) as error:
        leaderboard(runs, "Base")
    assert error.value.hint == "did you mean 'base'?"
    with pytest.raises(PerpoError, match="no run called 'SFFT'"):
        leaderboard(runs, "base", against="SFFT")
    other = make_run("other", rows(3), data_sha256="1" * 64)
    with pytest.raises(PerpoError, match="cannot be compared"):
        leaderboard(runs | {"other": other}, "base")


@pytest.mark.parametrize(
    ("estimate", "signed", "expected"),
    [
        (Estimate(0.6478, 0.01, 0.6308, 0.6648, 99, 9, "cluster-t"), False, "64.8 ±1.7"),
        (Estimate(0.117, 0.005, 0.107, 0.127, 99, 9, "cluster-t"), True, "+11.7 ±1.0"),
        (Estimate(-0.0001, 0.005, -0.01, 0.0098, 99, 9, "cluster-t"), True, "+0.0 ±1.0"),
        (Estimate(0.0, None, 0.0, 0.012, 99, 9, "cluster-exact"), False, "0.0 [0.0, 1.2]"),
        (Estimate(0.25, 0.3, 0.0, 1.0, 2, 2, "cluster-t"), False, "25.0 [0.0, 100.0]"),
        (Estimate(0.5, 0.1, 0.35, 0.67, 30, 24, "cluster-bootstrap"), False, "50.0 ±16.0"),
        (Estimate(0.5, None, None, None, 2, 1, "undefined"), False, "50.0"),
        (Estimate(None, None, None, None, 0, 0, "undefined"), False, ""),
        (None, True, ""),
    ],
)
def test_cells(estimate: Estimate | None, signed: bool, expected: str) -> None:
    assert cell(estimate, signed=signed) == expected


def test_what_was_cut_is_said(make_run) -> None:
    record = make_run("a", {"refcoco_val": [("i", 1.0), ("k", 0.0)]}).record
    (task,) = record.tasks
    assert task.n_truncated is None
    assert answer_notes(task, record) == []
    (note,) = answer_notes(replace(task, n_truncated=1), record)
    assert note == "1 of 2 answers to refcoco_val were cut at 64 tokens."
    stopping = replace(record, generation=record.generation | {"stop_on_repetition": True})
    (note,) = answer_notes(replace(task, n_truncated=1), stopping)
    assert note == "1 of 2 answers to refcoco_val were cut at 64 tokens or where they looped."
    (note,) = loop_notes(replace(task, n_looped=2, n_looped_truncated=1))
    assert note == "2 of 2 answers to refcoco_val end in a loop, 1 of them cut."
    (note,) = loop_notes(replace(task, n_looped=1))
    assert note == "1 of 2 answers to refcoco_val end in a loop."
    assert loop_notes(task) == loop_notes(replace(task, n_looped=0, n_looped_truncated=0)) == []
    (note,) = answer_notes(replace(task, n_parse_fail=1, metrics=[]), record)
    assert note.startswith("1 of 2 responses to refcoco_val hold no answer")
