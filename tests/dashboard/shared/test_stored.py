"""What is stored is read once, read again when it changes, and what cannot be read is told apart."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from perpo.errors import PerpoError
from perpo.records.store import find_runs, read_run
from perpo.results.samples import read_scores
from perpo_dashboard.shared import stored
from perpo_dashboard.shared.settings import Settings, settings
from perpo_dashboard.training import stored as stored_trainings


@pytest.fixture
def pair(made_runs, announce, tmp_path):
    """Two small runs and their folder."""
    folder = tmp_path / "results"
    announce(folder)
    return folder, made_runs.write_pair(folder, 100, pictures=3)


def look_again() -> None:
    """What three seconds do: forget which files there were."""
    stored._listing.clear()
    stored_trainings._training_files.clear()


def test_settings_are_handed_over_as_absolute_folders(announce, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    announce(Path("a"), Path("b"), Path("c"))
    assert settings() == Settings(tmp_path / "a", (tmp_path / "b", tmp_path / "c"))
    assert settings().roots == (tmp_path / "a", tmp_path / "b", tmp_path / "c")


def test_runs_come_in_time_and_measured_ones_have_samples(pair):
    folder, (one, two) = pair
    assert [run.record for run in stored.runs()] == [run.record for run in find_runs(folder)[0]]
    assert {run.record.name for run in stored.measured()} == {one.record.name, two.record.name}
    assert stored.unreadable() == []


def test_a_record_is_read_once_and_again_when_it_changes(pair):
    _, (one, _) = pair
    first = stored.runs()
    look_again()
    again = stored.runs()
    assert all(a is b for a, b in zip(first, again, strict=True))
    text = (one.path / "run.json").read_text()
    (one.path / "run.json").write_text(text.replace('"name": "base"', '"name": "renamed"'))
    look_again()
    assert "renamed" in {run.record.name for run in stored.runs()}
    shutil.rmtree(one.path)
    look_again()
    assert len(stored.runs()) == 1


def test_what_cannot_be_read_is_listed_with_its_reason(pair):
    folder, (one, _) = pair
    shutil.copytree(one.path, folder / "broken")
    (folder / "broken" / "run.json").write_text("{")
    shutil.copytree(one.path, folder / ".hidden.part")
    (unreadable,) = stored.unreadable()
    assert unreadable.path == folder / "broken" / "run.json"
    assert "is not JSON" in unreadable.reason
    assert len(stored.runs()) == 2
    (folder / "broken" / "run.json").write_bytes(b"\xff\xfe")
    look_again()
    (unreadable,) = stored.unreadable()
    assert "is not JSON" in unreadable.reason


def test_columns_are_in_the_order_of_the_keys_and_kept(pair):
    _, (one, _) = pair
    keys = stored.column(one, "sample_key").to_pylist()
    assert keys == sorted(keys)
    table = {row["sample_key"]: row for row in read_run(one.path).samples().to_pylist()}
    assert stored.column(one, "response").to_pylist() == [table[key]["response"] for key in keys]
    assert stored.column(one, "image").to_pylist() == [table[key]["image"] for key in keys]
    assert stored.column(one, "response") is stored.column(one, "response")
    assert stored.sample(one, 7, ("task", "parse_ok")) == {name: table[keys[7]][name] for name in ("task", "parse_ok")}
    scores, expected = stored.scores(one), read_scores(one)
    assert scores.keys.tolist() == keys
    for name, values in expected.values.items():
        np.testing.assert_array_equal(scores.values[name], values)


@pytest.mark.parametrize("harm", ["missing", "changed", "cut"])
def test_samples_that_are_not_those_of_the_record_are_refused_even_after_they_were_read(pair, harm):
    _, (one, two) = pair
    stored.column(one, "response")
    file = one.path / "samples.parquet"
    if harm == "missing":
        file.unlink()
    elif harm == "changed":
        file.write_bytes((two.path / "samples.parquet").read_bytes())
    else:
        file.write_bytes(file.read_bytes()[:-100])
    for read in (lambda: stored.column(one, "response"), lambda: stored.scores(one)):
        with pytest.raises(PerpoError, match=r"samples\.parquet is (missing|not the file)"):
            read()


def test_trainings_are_found_and_hidden_ones_are_not(pair):
    folder, _ = pair
    for name in ("b/adapter", "a", ".part/adapter", "c/.old"):
        (folder / name).mkdir(parents=True)
        (folder / name / "training.json").write_text("{}")
    look_again()
    assert stored_trainings.training_folders() == [folder / "a", folder / "b" / "adapter"]
