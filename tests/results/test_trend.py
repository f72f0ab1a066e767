"""perpo.results.trend and perpo-report trend."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import pytest
from PIL import Image

from perpo.cli.report import main
from perpo.errors import PerpoError
from perpo.records.store import Run, write_run
from perpo.results.trend import history, picture, text


def over_time(make_run, *values: float) -> list[Run]:
    runs = []
    for day, value in enumerate(values, 1):
        run = make_run(f"v{day}", {"a": [(str(k), float(k < 10 * value)) for k in range(10)]})
        record = dataclasses.replace(
            run.record, created_utc=f"2026-03-0{day}T00:00:00+00:00", run_id=f"r{day}", name="m", samples=None
        )
        runs.append(write_run(run.path.parents[1] / "time", record, run.samples()))
    return runs


def test_the_history_is_that_of_the_records(make_run) -> None:
    runs = over_time(make_run, 0.5, 0.7, 0.6)
    table = history(runs)
    assert table["value"].tolist() == [0.5, 0.7, 0.6]
    metrics = [run.record.groups[0].metrics[0] for run in runs]
    assert table["low"].tolist() == [metric.ci_low for metric in metrics]
    assert [str(when.date()) for when in table["when"]] == ["2026-03-01", "2026-03-02", "2026-03-03"]
    assert history(runs, "a", "iou")["value"].tolist() == [0.5, 0.7, 0.6]
    assert [row[2][:4] for row in text(table, "x").rows] == ["50.0", "70.0", "60.0"]
    assert len(text(table, "x").notes) == 1


def test_a_change_of_data_is_said(make_run) -> None:
    other = make_run("other", {"a": [("x", 1.0), ("y", 0.0)]}, data_sha256="1" * 64)
    table = history([*over_time(make_run, 0.5), other])
    assert "The data changed" in text(table, "x").notes[-1]


def test_what_is_not_there(make_run) -> None:
    with pytest.raises(PerpoError, match="no measured runs"):
        history([])
    with pytest.raises(PerpoError, match="no run has the primary metric for 'grouding'") as error:
        history(over_time(make_run, 0.5), "grouding")
    assert error.value.hint == "did you mean 'grounding'?"


def test_the_program_draws(make_run, tmp_path, capsys) -> None:
    over_time(make_run, 0.5, 0.7)
    flags = ["trend", f"--results={tmp_path / 'results' / 'time'}"]
    for name in ("t.svg", "t.png"):
        assert main([*flags, f"--picture={tmp_path / name}"]) == 0
    assert "2026-03-02 00:00" in capsys.readouterr().out
    words = "".join(ElementTree.parse(tmp_path / "t.svg").getroot().itertext())
    assert "grounding: Acc@0.5" in words
    with Image.open(tmp_path / "t.png") as image:
        assert image.width > 640
    assert main([*flags, "--picture=t.gif"]) == 2
    assert "ends neither in .svg nor in .png" in capsys.readouterr().err
    assert main([*flags, "--name=nobody"]) == 2


def test_runs_whose_times_are_written_in_several_ways_are_followed(make_run) -> None:
    """With and without a fraction of a second, in another zone, or as UTC without saying so."""
    times = [
        "2026-01-01T10:00:00+00:00",
        "2026-01-01T10:00:01.500+00:00",
        "2026-01-01T12:00:02+02:00",
        "2026-01-01T10:00:03",
    ]
    runs = [make_run(f"run {n}", {"refcoco_val": [("a", 1.0), ("b", 0.0)]}) for n in range(4)]
    changed = [
        dataclasses.replace(run, record=dataclasses.replace(run.record, created_utc=time))
        for run, time in zip(runs, times, strict=True)
    ]
    table = history(changed, "grounding")
    assert (table["when"] - table["when"][0]).dt.total_seconds().tolist() == [0.0, 1.5, 2.0, 3.0]
    picture(table, "grounding").to_dict()  # raises where a chart cannot be made of it
