"""The committed records of the full tiny recipe: whole, and what the README prints of them."""

import json
from pathlib import Path

import pytest

from perpo.store import read_run
from perpo.tables import leaderboard

ROOT = Path(__file__).parents[2]
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
        for name in ("average", "iou"):
            assert ours[name]["value"] == pytest.approx(theirs[name]["value"])
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
