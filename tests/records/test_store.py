"""perpo.records.store: a run is stored whole or not at all, and a damaged one is not read."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perpo.errors import PerpoError
from perpo.records import store

ROWS = {"a": [("x", 1.0), ("y", 0.0)]}


def test_written_and_read_back(make_run, tmp_path: Path) -> None:
    run = make_run("base", ROWS)
    assert run.path == tmp_path / "results" / "tiny" / "run-base"
    assert store.read_run(run.path) == store.read_run(run.path / "run.json") == run
    assert run.record.samples.rows == 2
    assert run.samples(["task", "scores"]).to_pylist()[1]["scores"]["iou"] == 0.0
    assert [path.name for path in run.path.parent.iterdir()] == ["run-base"]


def test_a_run_without_samples(make_run, tmp_path: Path) -> None:
    record = dataclasses.replace(make_run("base", ROWS).record, samples=None, source="reported", run_id="paper")
    run = store.write_run(tmp_path, record, None)
    assert store.read_run(run.path).record == record
    with pytest.raises(PerpoError, match="holds no samples"):
        run.samples()


def test_a_killed_writer_leaves_no_run(make_run, tmp_path: Path) -> None:
    """Killed between the samples and the record: the next reader sees nothing, the next writer succeeds."""
    make_run("base", ROWS)
    code = """
        import dataclasses, os, pathlib, signal, sys
        from perpo.records import store
        root = pathlib.Path(sys.argv[1])
        run = store.read_run(root / "tiny" / "run-base")
        samples = run.samples()
        store.to_json = lambda record: os.kill(os.getpid(), signal.SIGKILL)
        store.write_run(root, dataclasses.replace(run.record, run_id="new", samples=None), samples)
    """
    root = tmp_path / "results"
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(root)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert [path.parent.name for path in root.glob("*/[!.]*/run.json")] == ["run-base"]
    assert make_run("new", ROWS).path.is_dir()


def test_a_failed_write_leaves_nothing_and_says_so(make_run, monkeypatch, tmp_path: Path) -> None:
    def full(*words: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    with pytest.raises(PerpoError, match="No space left") as error:
        make_run("base", ROWS)
    assert error.value.exit_code == 3
    assert list((tmp_path / "results" / "tiny").iterdir()) == []


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda run: (run / "samples.parquet").unlink(), "is missing"),
        (lambda run: (run / "samples.parquet").write_bytes(b"PAR1"), "sha256"),
        (lambda run: os.truncate(run / "samples.parquet", 100), "sha256"),
    ],
    ids=["missing", "other", "truncated"],
)
def test_damaged_samples_are_refused(make_run, harm, said: str) -> None:
    run = make_run("base", ROWS)
    harm(run.path)
    with pytest.raises(PerpoError, match=said):
        store.read_run(run.path).samples()


def test_no_run_there(tmp_path: Path) -> None:
    with pytest.raises(PerpoError, match="there is no run at"):
        store.read_run(tmp_path)


def test_what_is_no_run_is_named_and_the_hint_says_what_to_give(tmp_path: Path) -> None:
    def made(name: str, **files: str) -> str:
        (tmp_path / name).mkdir()
        for file, content in files.items():
            (tmp_path / name / file.replace("__", ".")).write_text(content)
        return str(tmp_path / name)

    training = json.dumps({"model": {"name": "owner/llava 7b"}})
    adapter = {"adapter_model__safetensors": ""}
    (tmp_path / "preferences.jsonl").write_text("{}\n")
    for text, sentence, hint in (
        (made("dpo", **adapter, training__json=training), "holds an adapter", "--model 'owner/llava 7b' --adapter "),
        (made("peft", **adapter, adapter_config__json='{"base_model_name_or_path": "b"}'), "an adapter", "--model b "),
        (made("bare", **adapter), "holds an adapter", f"perpo-eval --model MODEL --adapter {tmp_path}/bare and"),
        (made("whole", model__safetensors="", training__json=training), "holds a model", f"--model {tmp_path}/whole"),
        (
            made("begun", training__json=training),
            "an unfinished training, which has no adapter yet",
            "--resume_from_checkpoint",
        ),
        (str(tmp_path / "preferences.jsonl"), "is a file, but a run is a folder", "folder that perpo-eval printed"),
    ):
        for give in (lambda text=text: store.resolve_run(text, tmp_path), lambda text=text: store.read_run(Path(text))):
            with pytest.raises(PerpoError) as error:
                give()
            assert error.value.message.startswith(text)
            assert sentence in error.value.message
            assert hint in error.value.hint
            assert error.value.exit_code == 2
    with pytest.raises(PerpoError, match="holds no finished run") as error:
        store.resolve_run(made("empty"), tmp_path)
    assert error.value.exit_code == 3


def test_a_runs_name_counts_more_than_an_adapter_of_that_name(make_run, tmp_path: Path, monkeypatch) -> None:
    run = make_run("dpo", ROWS)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dpo").mkdir()
    (tmp_path / "dpo" / "adapter_model.safetensors").touch()
    assert store.resolve_run("dpo", tmp_path / "results") == run


def test_two_writers_of_one_run(make_run) -> None:
    run = make_run("base", ROWS)
    with pytest.raises(PerpoError, match="could not be written"):
        make_run("base", {"a": [("x", 0.0), ("y", 0.0)]})
    assert store.read_run(run.path) == run


def test_names_of_runs() -> None:
    when = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    first, second = (store.new_run_id("PerPO, 6 rounds", "grounding", when) for _ in range(2))
    assert first.startswith("20260304T050607Z-grounding-PerPO-6-rounds-")
    assert first != second
    assert store.slug("llava-hf/llava-1.5-7b-hf") == "llava-hf-llava-1.5-7b-hf"
    assert store.slug("../..") == "model"


def test_samples_keep_their_types(make_run) -> None:
    schema = make_run("base", ROWS).samples().schema
    assert schema.field("scores").type.field("acc@0.5").type == pa.float64()


def test_a_column_that_older_runs_do_not_have_is_null_there(tmp_path: Path) -> None:
    table, file = pa.table({"task": ["a", "b"], "layout": ["1 column", None]}), tmp_path / store.SAMPLES_FILE
    pq.write_table(table, file)
    assert store.read_samples(file, ["layout"])["layout"].to_pylist() == ["1 column", None]
    pq.write_table(table.drop_columns("layout"), file)
    assert store.read_samples(file, ["layout", "task"])["layout"].to_pylist() == [None, None]
    assert set(store.read_samples(file).column_names) == {"task", "layout"}
    assert store.read_samples(file, []).column_names == []
    with pytest.raises(pa.ArrowInvalid):
        store.read_samples(file, ["no such column"])


def test_runs_are_ordered_by_their_times_in_any_zone(make_run, tmp_path: Path) -> None:
    """The newest is what a gate compares: 11:00 at +02:00 is 09:00, before 10:00 in UTC and 10:30 of no zone."""
    times = {"last": "2026-01-31T10:30:00", "first": "2026-01-31T11:00:00+02:00", "middle": "2026-01-31T10:00:00+00:00"}
    for name, when in times.items():
        file = make_run(name, {"refshapes_val": [("a", 1.0), ("b", 0.0)]}).path / "run.json"
        record = json.loads(file.read_text()) | {"created_utc": when}
        file.write_text(json.dumps(record))
    runs, unreadable = store.find_runs(tmp_path)
    assert [run.record.name for run in runs] == ["first", "middle", "last"]
    assert unreadable == []
    assert store.resolve_run(str(tmp_path), tmp_path).record.name == "last"
