"""kill -9 at any moment of a training run, and what lies on the disk then."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from perpo.common.locks import only_process
from perpo.records.training_record import read_log, read_record
from perpo.train.resuming import damage, last_checkpoint, rotate, seal

LAST = "--resume_from_checkpoint=last"
GO_ON = "run the same command with --resume_from_checkpoint last to continue from the last checkpoint"


def log_steps(output):
    return [entry["step"] for entry in read_log(output) if "loss" in entry]


@pytest.fixture(scope="module")
def killed(runs, words, tmp_path_factory):
    """A run that was killed after its fifth step, with checkpoints of the second and the fourth."""
    output = tmp_path_factory.mktemp("killed") / "run"
    assert runs(words(output), kill="step:5")[0] == -signal.SIGKILL
    return output


@pytest.fixture
def cut(killed, tmp_path):
    """A copy of it."""
    return shutil.copytree(killed, tmp_path / "run")


slow = pytest.mark.slow


@pytest.mark.parametrize("step", [1, pytest.param(2, marks=slow), 3, pytest.param(5, marks=slow), 6])
def test_killed_after_a_step_it_ends_with_the_weights_of_an_uninterrupted_run(runs, words, same_end, tmp_path, step):
    output = tmp_path / "run"
    code, _ = runs(words(output), kill=f"step:{step}")
    assert code == -signal.SIGKILL
    assert read_record(output)["status"] == "running"
    assert runs(words(output))[0] == (2 if step > 2 else 0)  # a whole checkpoint is not overwritten unasked
    code, err = runs(words(output, LAST))
    assert (code, "warning" in err) == (0, False), err
    assert same_end(output)
    assert log_steps(output) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("save:2:adapter_model.safetensors", "it was not written completely"),
        pytest.param("save:2:optimizer.pt", "it was not written completely", marks=slow),
        pytest.param("save:2:trainer_state.json", "it was not written completely", marks=slow),
        ("seal:2", "it was not written completely"),
    ],
)
def test_killed_while_a_checkpoint_is_written_it_goes_on_from_the_one_before(
    runs, words, same_end, tmp_path, place, reason
):
    output = tmp_path / "run"
    assert runs(words(output, "--save_total_limit=1"), kill=place)[0] == -signal.SIGKILL
    assert last_checkpoint(output) == output / "checkpoint-2"  # not deleted before the new one is whole
    code, err = runs(words(output, LAST))
    assert code == 0
    assert f"warning: checkpoint-4 cannot be used: {reason}; continuing from checkpoint-2\n" in err
    assert same_end(output)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["step:5", "rename:1", "rename:2", "rename:3"])
def test_a_killed_validation_goes_on_with_the_scores_of_an_uninterrupted_run(runs, words, inputs, tmp_path, place):
    """Also when it is killed before the best adapter is put into its place, or between the two renames that do it."""
    held_out = [f"--eval_data={inputs / 'records.jsonl'}", "--eval_steps=1", "--eval_max_new_tokens=6"]
    held_out += ["--eval_reward=edit", "--method=sft", "--learning_rate=0.03", "--lr_scheduler_type=constant"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert runs(words(whole, *held_out))[0] == 0
    expected = read_record(whole)
    rising = [score["reward"] for score in expected["validation"]["scores"]]
    assert max(rising) > rising[0]  # so that there is a best one to replace
    assert runs(words(cut, *held_out), kill=place)[0] == -signal.SIGKILL
    assert runs(words(cut, LAST, *held_out))[0] == 0
    found = read_record(cut)
    assert found["validation"] == expected["validation"]
    for name in ("adapter_model.safetensors", "README.md"):
        ours, theirs = ((path / "best" / name).read_bytes() for path in (cut, whole))
        assert ours.replace(b"cut", b"whole") == theirs
    assert not list(cut.glob(".best*"))


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def zero(path):
    """What a power cut can leave: the right size, and nothing in it."""
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize(
    ("name", "tear", "reason"),
    [
        ("adapter_model.safetensors", truncate, "adapter_model.safetensors has "),
        ("adapter_model.safetensors", zero, "adapter_model.safetensors has changed since it was written"),
        ("optimizer.pt", Path.unlink, "optimizer.pt is missing"),
        ("trainer_state.json", truncate, "trainer_state.json has "),
        ("manifest.json", truncate, "manifest.json is damaged"),
    ],
)
def test_a_torn_checkpoint_is_passed_over(runs, words, same_end, cut, name, tear, reason):
    tear(cut / "checkpoint-4" / name)
    code, err = runs(words(cut, LAST))
    assert code == 0
    assert f"warning: checkpoint-4 cannot be used: {reason}" in err
    assert "; continuing from checkpoint-2\n" in err
    assert same_end(cut)
    assert damage(cut / "checkpoint-4") is None  # it was written again


def test_without_a_whole_checkpoint_it_begins_again_and_says_so(runs, words, same_end, cut):
    for checkpoint in cut.glob("checkpoint-*"):
        truncate(checkpoint / "optimizer.pt")
    code, err = runs(words(cut, LAST))
    assert code == 0
    assert "checkpoint-4 cannot be used: optimizer.pt has " in err
    assert "checkpoint-2 cannot be used: optimizer.pt has " in err
    assert "; there is no earlier checkpoint, so training starts again\n" in err
    assert same_end(cut)


def test_a_torn_checkpoint_that_is_asked_for_by_its_path_is_refused(runs, words, cut):
    truncate(cut / "checkpoint-4" / "optimizer.pt")
    code, err = runs(words(cut, f"--resume_from_checkpoint={cut / 'checkpoint-4'}"))
    assert code == 2
    assert "checkpoint-4 is not a checkpoint of a run: optimizer.pt has " in err


def test_a_run_is_not_continued_by_another_number_of_processes(runs, words, cut):
    record = read_record(cut) | {"world_size": 2}
    (cut / "training.json").write_text(json.dumps(record))
    code, err = runs(words(cut, LAST))
    assert code == 2
    assert "started with 2 processes, not 1" in err


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_said_and_earlier_checkpoints_stay(runs, words, same_end, small_disk):
    """With so much room that one file or another of the second checkpoint finds none."""
    output = small_disk / "run"
    assert runs(words(output), kill="seal:2")[0] == -signal.SIGKILL
    needed = sum(file.stat().st_size for file in (output / "checkpoint-4").iterdir())
    for share in (0, 0.3, 0.6, 0.9):
        shutil.rmtree(output / "checkpoint-4", ignore_errors=True)
        filler = small_disk / "filler"
        filler.write_bytes(bytes(max(0, shutil.disk_usage(small_disk).free - int(share * needed))))
        code, err = runs(words(output, LAST))
        filler.unlink()
        assert code == 3, err
        assert f"error: {output}" in err
        assert " could not be written: " in err
        assert " (0.0 MiB left)" in err
        assert "\nhint: make room; run the same command with --resume_from_checkpoint last" in err
        assert "Traceback" not in err
        assert last_checkpoint(output) == output / "checkpoint-2"
    assert runs(words(output, LAST))[0] == 0
    assert same_end(output)


def test_older_checkpoints_go_when_newer_ones_are_whole(tmp_path):
    for step in (2, 4, 6, 8, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_text(str(step))
        if step not in (4, 10):
            seal(folder)
    rotate(tmp_path, None)
    assert len(list(tmp_path.iterdir())) == 5
    rotate(tmp_path, 2)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-6", "checkpoint-8", "checkpoint-10"}
    assert last_checkpoint(tmp_path).name == "checkpoint-8"


@pytest.mark.parametrize(("step", "more"), [(3, "--dataloader_num_workers=1"), (5, "--save_steps=0")])
def test_after_sigterm_it_saves_a_checkpoint_and_goes_on_bit_by_bit(runs, words, same_end, tmp_path, step, more):
    """A scheduler sends it to the whole group, also to the processes that load images."""
    output = tmp_path / "run"
    code, err = runs(words(output, more), kill=f"term:{step}")
    assert (code, err.splitlines()[-1]) == (143, f"terminated; {GO_ON}"), err
    assert last_checkpoint(output).name == f"checkpoint-{step}"
    assert read_record(output)["status"] == "running"
    assert not (output / ".lock").exists()
    assert runs(words(output, LAST, more))[0] == 0
    assert same_end(output)
    assert log_steps(output) == [1, 2, 3, 4, 5, 6]


def test_before_the_first_step_sigterm_ends_it_at_once(runs, words, tmp_path):
    code, err = runs(words(tmp_path / "run"), kill="term:0")
    assert (code, err) == (143, f"terminated; {GO_ON}\n")
    assert not (tmp_path / "run").exists()


def test_two_trainings_in_one_folder_are_refused(runs, words, cut):
    (cut / ".lock").unlink()  # which the killed one left, and which locks nothing
    before = {path: path.stat().st_mtime_ns for path in cut.rglob("*") if path.is_file()}
    with only_process(cut, "training"):
        for more in ([], [LAST]):
            code, err = runs(words(cut, *more))
            assert code == 2
            assert f"error: {cut} is in use by another training, process {os.getpid()} on " in err
    assert {path: path.stat().st_mtime_ns for path in cut.rglob("*") if path.is_file()} == before
    assert runs(words(cut, LAST))[0] == 0
