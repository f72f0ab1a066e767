"""Settings of two runs: what differs is listed, what is the same or came out of the run is not."""

import dataclasses

import pytest

from perpo.records.store import read_run, run_files
from perpo_dashboard.compare.setups import configuration_differences


@pytest.fixture(scope="module")
def record(request):
    folder = request.config.rootpath / "results" / "tiny"
    return read_run(run_files(folder)[0]).record


def test_a_run_differs_in_nothing_from_itself_run_again(record):
    task = dataclasses.replace(record.tasks[0], metrics=[], n_parse_fail=7)
    again = dataclasses.replace(record, run_id="other", duration_s=1.0, created_utc="", tasks=[task, *record.tasks[1:]])
    assert configuration_differences(record, again) == []


def test_what_was_set_otherwise_is_named_with_both_values(record):
    model = dataclasses.replace(record.model, dtype="bfloat16", adapter=None)
    task = dataclasses.replace(record.tasks[0], prompt="Where?")
    other = dataclasses.replace(
        record, model=model, tasks=[task, *record.tasks[1:]], generation=record.generation | {"temperature": 0.7}
    )
    found = {name: told for name, *told in configuration_differences(record, other)}
    assert found["model.dtype"] == [record.model.dtype, "bfloat16"]
    assert found["generation.temperature"] == [str(record.generation["temperature"]), "0.7"]
    assert found[f"task.{task.task}.prompt"] == [record.tasks[0].prompt, "Where?"]
    assert set(found) <= {"model.dtype", "model.adapter", "generation.temperature", f"task.{task.task}.prompt"}


def test_what_only_one_has_is_blank_in_the_other(record):
    other = dataclasses.replace(record, packages=record.packages | {"new-package": "1"}, tasks=record.tasks[1:])
    found = {name: told for name, *told in configuration_differences(record, other)}
    assert found["packages.new-package"] == ["", "1"]
    assert found[f"task.{record.tasks[0].task}.dataset"] == [record.tasks[0].dataset, ""]
