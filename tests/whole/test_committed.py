"""The committed records of the full tiny recipe: whole, and what the README prints of them."""

import json

import pytest

from perpo.records.store import find_runs, read_run
from perpo.results.experiment_table import leaderboard
from perpo.results.text import cell
from tests.support import ROOT

FOLDER = ROOT / "results" / "tiny"


@pytest.fixture(scope="module")
def runs():
    found = [read_run(path) for path in sorted(FOLDER.glob("*/run.json"))]
    return {run.record.name: run for run in found}


def test_all_six_experiments_are_there_and_clean(runs):
    assert set(runs) == {"base", "sft-loose", "sft-exact", "rft", "dpo", "perpo"}
    for run in runs.values():
        assert run.record.status == "complete"
        assert run.record.code["dirty"] is False
        assert run.samples(["sample_key"]).num_rows == sum(task.n_scored for task in run.record.tasks) >= 3000
    assert len({run.record.model.weights_sha256 for run in runs.values()}) == 1


def test_the_leaderboard_follows_from_the_records(runs):
    stored = json.loads((FOLDER / "leaderboard.json").read_text())
    order = [entry["label"] for entry in stored["entries"]]
    seconds = {entry["label"]: entry["seconds"] for entry in stored["entries"]}
    board = leaderboard({name: runs[name] for name in order}, "base", against="sft-loose", seconds=seconds)
    again = json.loads(json.dumps(board.as_json()))
    for ours, theirs in zip(again["entries"], stored["entries"], strict=True):
        for kept, name in ((ours, "average"), (ours["metrics"], "iou")):
            stored_one = (theirs if kept is ours else theirs["metrics"])[name]
            assert kept[name]["value"] == pytest.approx(stored_one["value"])
        for name in ("delta", "delta_against"):
            assert (ours[name] is None) == (theirs[name] is None)
            if ours[name]:
                for field in ("value", "ci_low", "ci_high"):
                    assert ours[name][field] == pytest.approx(theirs[name][field])
    assert board.text().markdown() in (FOLDER / "leaderboard.md").read_text()


def test_score_only_feedback_corrects_the_loose_base(runs):
    board = leaderboard(runs, "base", against="sft-loose")
    (perpo,) = (entry for entry in board.entries if entry.label == "perpo")
    assert perpo.delta.value >= 0.08
    assert perpo.delta.ci_low > 0
    assert perpo.delta_against.ci_low > 0


def test_the_readme_prints_these_numbers(runs):
    readme = (ROOT / "README.md").read_text()
    board = leaderboard(runs, "base", against="sft-loose")
    for entry in board.entries:
        assert f"| {entry.label} | {100 * entry.average.value:.1f} ±" in readme


OCR_FOLDERS = [ROOT / "results" / "tiny-ocr" / f"seed-{seed}" for seed in range(3)]


def ocr_board(folder):
    """The stored leaderboard of pages, and the same made of the records beside it."""
    runs = {run.record.name: run for run in (read_run(path) for path in sorted(folder.glob("*/run.json")))}
    stored = json.loads((folder / "leaderboard.json").read_text())
    order = [entry["label"] for entry in stored["entries"]]
    seconds = {entry["label"]: entry["seconds"] for entry in stored["entries"]}
    runs = {name: runs[name] for name in order}
    return runs, stored, leaderboard(runs, "base", against="sft-sloppy", seconds=seconds, benchmark="ocr")


@pytest.mark.parametrize("folder", OCR_FOLDERS, ids=lambda folder: folder.name)
def test_the_runs_on_pages_are_whole_and_their_leaderboard_follows(folder):
    runs, stored, board = ocr_board(folder)
    assert set(runs) == {"base", "sft-sloppy", "sft-exact", "rft", "dpo", "perpo"}
    for run in runs.values():
        assert (run.record.status, run.record.code["dirty"], run.record.model.id) == ("complete", False, "tiny-ocr")
    assert len({run.record.model.weights_sha256 for run in runs.values()}) == 1
    assert json.loads(json.dumps(board.as_json())) == stored
    assert board.text().markdown() in (folder / "leaderboard.md").read_text()


@pytest.mark.parametrize("folder", OCR_FOLDERS, ids=lambda folder: folder.name)
def test_score_only_feedback_corrects_the_sloppy_base(folder):
    entries = {entry.label: entry for entry in ocr_board(folder)[2].entries}
    assert 0.15 < entries["base"].average.value < 0.4
    assert entries["sft-exact"].average.value < 0.08
    for label in ("rft", "dpo", "perpo"):
        assert entries[label].delta.ci_high < 0
        assert entries[label].delta_against.ci_high < 0
        assert set(entries[label].beside) == {"grounding", "pope"}


def test_the_readme_prints_the_numbers_on_pages():
    readme = (ROOT / "README.md").read_text()
    for entry in ocr_board(OCR_FOLDERS[0])[2].entries:
        assert f"| {entry.label} | {cell(entry.average)} | {cell(entry.delta, signed=True)} |" in readme


SHARED = ROOT.parent / "shared" / "reference" / "paper_tables.json"
SCALES = {"acc@0.5": 100, "relative_score": 100, "pope": 100}  # how many of the printed number are 1 here


@pytest.mark.skipif(not SHARED.is_file(), reason="the paper's tables are not at hand")
def test_the_papers_numbers_are_reported_ones_as_they_are_printed():
    records = {run.record.run_id: run.record for run in find_runs(ROOT / "results" / "paper")[0]}
    rows = [
        (name, table["columns"], row)
        for name, table in json.loads(SHARED.read_text())["tables"].items()
        for row in table["rows"]
    ]
    assert len(records) == len(rows) == 20
    for table, columns, row in rows:
        run_id = f"reported-{table.replace('_', '-')}-{row['base']}-{row['method'].lower()}"
        record = records[run_id]
        assert (record.source, record.model.id, record.samples) == ("reported", row["base"], None)
        found = [
            (round(metric.value * SCALES.get(metric.name, SCALES.get(task.task, 1)), 6), metric.higher_is_better)
            for task in record.tasks
            for metric in task.metrics
        ]
        assert found == [(row[column["name"]], column["higher_is_better"]) for column in columns]
        assert all(metric.stderr is None and metric.n is None for task in record.tasks for metric in task.metrics)


def test_the_probable_misprint_is_kept_and_flagged():
    flagged = [
        (run.record.name, task.task, task.metrics[0].value)
        for run in find_runs(ROOT / "results" / "paper")[0]
        for task in run.record.tasks
        if "misprint" in (task.note or "")
    ]
    assert flagged == [("LLaVA-NEXT-7B + PerPO", "refcoco+_val", 0.694)]
