"""perpo.records.run_record: what is written is read back, and nothing else is."""

from __future__ import annotations

import hashlib
import json

import jsonschema
import pytest

from perpo.errors import PerpoError
from perpo.records.run_json import from_json, json_schema, to_json
from perpo.records.run_record import Metric, RunRecord, metric_of, sample_key
from tests.support import ROOT


@pytest.fixture
def record(make_run) -> RunRecord:
    return make_run("base", {"a": [("x", 1.0), ("y", 0.0)]}).record


def test_round_trip(record: RunRecord) -> None:
    assert from_json(to_json(record), "run.json") == record
    assert record.task("a").n_scored == 2
    assert metric_of(record.group("grounding").metrics, "acc@0.5").value == 0.5
    assert metric_of(record.groups[0].metrics, "no such") is None
    assert record.group("pope") is None
    with pytest.raises(KeyError):
        record.task("b")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 7}, "has schema version 7; this perpo reads versions 2 to 6"),
        ({"schema_version": 1}, "has schema version 1; this perpo reads versions 2 to 6"),
        ({"schema_version": None}, "is not a run record"),
        ({"surprise": 1}, "surprise"),
        ({"status": "fine"}, "status"),
        ({"duration_s": "long"}, "duration_s"),
        ({"created_utc": "yesterday"}, "created_utc: Invalid isoformat"),
        (
            {"created_utc": "0001-01-01T00:00:00+02:00"},
            "created_utc: 0001-01-01T00:00:00+02:00 is not a date and time in UTC",
        ),
        ({"tasks": [{}]}, "tasks.0.task"),
    ],
)
def test_what_it_does_not_know_is_refused(record: RunRecord, change: dict, said: str) -> None:
    with pytest.raises(PerpoError) as error:
        from_json(json.dumps(json.loads(to_json(record)) | change), "here/run.json")
    assert error.value.message.startswith("here/run.json")
    assert said in error.value.message


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\xff"])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(PerpoError, match=r"run\.json is no"):
        from_json(text, "run.json")


def test_undefined_is_null_and_nan_is_refused(record: RunRecord) -> None:
    assert json.loads(to_json(record))["tasks"][0]["metrics"][2]["stderr"] is None
    with pytest.raises(ValueError, match="finite"):
        Metric("acc", float("nan"), None, None, None, "x", 1, 1, True, "fraction")


def test_sample_keys_tell_all_parts_apart() -> None:
    expected = hashlib.sha256(b"d\x1fr\x1fs\x1f7/0\x1fthe red one").hexdigest()
    assert sample_key("d", "r", "s", "7/0", "the red one") == expected
    parts = [
        ("d", None, "s", "7", "ab"),
        ("d", "s", "", "7", "ab"),
        ("d", None, "s", "7a", "b"),
        ("ds", None, "", "7", "ab"),
    ]
    assert len({sample_key(*part) for part in parts}) == len(parts)


def test_the_published_schema_is_that_of_the_code_and_fits_the_committed_records() -> None:
    root = ROOT
    published = json.loads((root / "docs" / "run-record.schema.json").read_text())
    assert published == json.loads(json.dumps(json_schema()))
    checker = jsonschema.Draft202012Validator(published)
    files = [*root.glob("results/paper/*/*/run.json"), *root.glob("results/baselines/*/*/run.json")]
    assert len(files) == 21
    for file in files:
        checker.validate(json.loads(file.read_text()))
    with pytest.raises(jsonschema.ValidationError):
        checker.validate(json.loads(files[0].read_text()) | {"status": "fine"})


@pytest.mark.parametrize("version", [2, 3, 4, 5])
def test_earlier_versions_are_read_on(record: RunRecord, version: int) -> None:
    old = json.loads(to_json(record)) | {"schema_version": version}
    assert from_json(json.dumps(old), "run.json") == record
