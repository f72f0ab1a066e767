"""Several processes of one sampling: together they write the file of one, whatever is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perpo.common.journal import finished_rows
from perpo.tiny.world import write_questions

ENV = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
ENV |= {"OMP_NUM_THREADS": "1"}
FLAGS = ["--num_candidates", "4", "--limit", "24", "--batch_size", "2", "--max_new_tokens", "12", "--dtype", "float32"]


@pytest.fixture(scope="module")
def questions(tmp_path_factory) -> Path:
    return write_questions(tmp_path_factory.mktemp("questions"), images=20)


@pytest.fixture(scope="module")
def alone(questions, tmp_path_factory) -> Path:
    """What one process writes."""
    output = tmp_path_factory.mktemp("alone") / "out.jsonl"
    assert run(questions, output).returncode == 0
    return output


def command(questions: Path, output: Path, *more: str) -> list[str]:
    given = ["--questions", str(questions), "--output", str(output), *FLAGS, *more]
    return [sys.executable, "-m", "perpo.cli.sample", *given]


def run(questions: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(questions, output, *more), env=ENV, capture_output=True, text=True)


def test_two_processes_write_the_file_of_one(questions, alone, tmp_path) -> None:
    output = tmp_path / "out.jsonl"
    done = run(questions, output, "--processes", "2")
    assert done.returncode == 0, done.stderr
    assert output.read_bytes() == alone.read_bytes()
    assert done.stdout.count("questions   ") == 1
    assert {file.name for file in tmp_path.iterdir()} == {"out.jsonl", "out.jsonl.journal", "out.jsonl.journal.1"}
    again = run(questions, tmp_path / "out.jsonl", "--processes", "3")  # nothing is left to ask
    assert again.returncode == 0, again.stderr
    assert output.read_bytes() == alone.read_bytes()


def test_a_question_that_another_process_asked_again_has_its_new_answers(questions, tmp_path) -> None:
    """The first process's journal has the answers to the picture as it was."""
    from PIL import Image

    shutil.copytree(questions.parent, tmp_path / "data")
    asked, output = tmp_path / "data" / "questions.jsonl", tmp_path / "out.jsonl"
    assert run(asked, output).returncode == 0
    third = json.loads(asked.read_text().splitlines()[2])["image_path"]  # of the second batch: the second process's
    with Image.open(asked.parent / third) as image:
        turned = image.rotate(180)
    turned.save(asked.parent / third)
    assert run(asked, output, "--processes", "2").returncode == 0
    assert run(asked, tmp_path / "new.jsonl").returncode == 0
    assert output.read_bytes() == (tmp_path / "new.jsonl").read_bytes()


def test_torchrun_starts_them_too(questions, alone, tmp_path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = command(questions, tmp_path / "out.jsonl")[1:]
    done = subprocess.run([*launcher, *words], env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == alone.read_bytes()


@pytest.mark.parametrize("killed", ["the second process", "all"])
def test_a_killed_one_ends_all_and_nothing_is_lost(killed, questions, alone, tmp_path) -> None:
    output = tmp_path / "out.jsonl"
    parent = subprocess.Popen(command(questions, output, "--processes", "2"), env=ENV, stderr=subprocess.PIPE)
    journals = [tmp_path / "out.jsonl.journal", tmp_path / "out.jsonl.journal.1"]
    while not all(file.exists() and file.read_bytes().count(b"\n") > 1 for file in journals):
        assert parent.poll() is None
        time.sleep(0.01)
    children = [int(each) for each in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
    if killed == "all":
        parent.kill()
    for child in children if killed == "all" else children[1:]:
        os.kill(child, signal.SIGKILL)
    assert parent.wait(60) == (-signal.SIGKILL if killed == "all" else 128 + signal.SIGKILL)
    assert parent.stderr is not None
    parent.stderr.close()
    assert not output.exists()
    kept = [file.read_bytes() for file in journals]
    assert run(questions, output).returncode == 0  # one process goes on with the journals of both
    assert output.read_bytes() == alone.read_bytes()
    assert [file.read_bytes()[: len(before)] for file, before in zip(journals, kept, strict=True)] == [
        before[: before.rfind(b"\n") + 1] if file is journals[0] else before
        for file, before in zip(journals, kept, strict=True)
    ]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_whoever_started_them_ends_them(sent, code, questions, alone, tmp_path) -> None:
    """As a scheduler or Ctrl-C ends a job; nothing goes on behind its back, and what is done is kept."""
    output = tmp_path / "out.jsonl"
    parent = subprocess.Popen(
        command(questions, output, "--processes", "2"), env=ENV, stderr=subprocess.PIPE, text=True
    )
    journals = [tmp_path / "out.jsonl.journal", tmp_path / "out.jsonl.journal.1"]
    while not all(file.exists() and file.read_bytes().count(b"\n") > 1 for file in journals):
        assert parent.poll() is None
        time.sleep(0.01)
    children = [int(each) for each in Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()]
    parent.send_signal(sent)
    _, said = parent.communicate(timeout=60)
    assert parent.returncode == code
    assert "finished work is kept" in said
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
    assert run(questions, output, "--processes", "2").returncode == 0
    assert output.read_bytes() == alone.read_bytes()


def test_bad_input_is_said_once(questions, tmp_path) -> None:
    done = run(questions, tmp_path / "out.jsonl", "--processes", "2", "--reward", "iuo")
    assert done.returncode == 2
    assert done.stderr.count("there is no reward 'iuo'") == 1
    done = run(questions, tmp_path / "out.jsonl", "--processes", "2", "--device", "cpu")
    assert done.returncode == 2
    assert "--processes is for models that are loaded here" in done.stderr


def test_a_failure_of_another_process_is_heard(questions, tmp_path) -> None:
    """The second process finds its journal taken; the first one alone would have gone on."""
    output = tmp_path / "out.jsonl"
    taken = tmp_path / "out.jsonl.journal.1"
    taken.write_text('{"journal": "another"}\n')
    done = run(questions, output, "--processes", "2")
    assert done.returncode == 2
    assert "out.jsonl.journal.1 holds unfinished work with other settings" in done.stderr
    with pytest.raises(Exception, match="other settings"):
        finished_rows(taken, "mine")
