"""Two processes of one evaluation: together they give the record of one, and a killed pair continues as one."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from perpo.common.processes import Processes
from perpo.engines import hf
from perpo.records.store import Run, read_run
from perpo_eval.arguments import EvalArguments
from perpo_eval.engines.choice import load_engine
from perpo_eval.evaluate import run as evaluation
from perpo_eval.evaluate.run import evaluate

ROWS, QUESTIONS = 30, 20
"""Of the folder below: two tasks ask the same about the same pictures, which is answered once."""

SETTINGS = {"suite": "paper", "batch_size": 2, "max_new_tokens": 8, "device": "cpu"}

PROGRAM = """
import os, signal, sys
from pathlib import Path
import perpo.engines.hf
from perpo_eval.cli.eval import main

real, rank, most = perpo.engines.hf.answer, os.environ.get("RANK", "0"), int(os.environ.get("MOST", 1000))
counts = Path(f"counts.{rank}")
Path(f"pid.{rank}").write_text(str(os.getpid()))

def answer(loaded, prompts, *rest):
    if len(counts.read_text()) >= most:
        signal.pause()
    answers = real(loaded, prompts, *rest)
    with counts.open("a") as file:
        file.write("." * len(prompts))
    return answers

counts.touch()
perpo.engines.hf.answer = answer
sys.exit(main())
"""
"""perpo-eval, each process of which writes a dot for every question that it answers."""


@pytest.fixture(scope="module")
def folder(refcoco_folder, tmp_path_factory) -> Path:
    """Boxes and yes/no questions about five pictures."""
    folder = tmp_path_factory.mktemp("data")
    for file in refcoco_folder.iterdir():
        shutil.copy(file, folder)
    rows = pq.read_table(folder / "refcoco_val.parquet").to_pylist()
    asked = [
        {"question_id": f"{row['question_id']}{thing}", "question": f"Is there a {thing} in the image?"}
        | {"answer": answer, "image_source": row["file_name"], "image": row["image"]}
        for row in rows
        for thing, answer in (("dog", "yes"), ("cat", "no"))
    ]
    pq.write_table(pa.Table.from_pylist(asked), folder / "coco_pope_random.parquet")
    return folder


def arguments(folder: Path, checkpoint: Path, output: Path) -> dict[str, object]:
    return {"model": str(checkpoint), "data": str(folder), "output": str(output), **SETTINGS}


@pytest.fixture(scope="module")
def alone(folder, checkpoint, tmp_path_factory) -> Run:
    """The run of one process."""
    path = evaluate(EvalArguments(**arguments(folder, checkpoint, tmp_path_factory.mktemp("alone"))))
    assert path is not None
    run = read_run(path)
    assert run.samples().num_rows == ROWS
    return run


def assert_same(run: Run, other: Run) -> None:
    """All numbers and all rows but the times are equal."""
    assert run.record.tasks == other.record.tasks
    assert run.record.groups == other.record.groups
    assert run.samples().drop(["latency_ms"]).equals(other.samples().drop(["latency_ms"]))


def only_run(output: Path) -> Run:
    """The one run that is stored, with nothing beside it."""
    assert not (output / ".responses").exists()
    (path,) = output.glob("*/*/run.json")
    return read_run(path)


# ---- one after the other, in this process ----


class Alone(Processes):
    """One process of several that waits for nobody."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    def wait(self) -> None:
        pass


@pytest.fixture
def shares(monkeypatch) -> list[list[int]]:
    """The images that each process answers about, by their number."""
    told: list[list[int]] = []
    real = hf.answer

    def noting(loaded, prompts, images, image_of, settings) -> list[list[int]]:
        told[-1] += [hash(images[k].tobytes()) for k in image_of]
        return real(loaded, prompts, images, image_of, settings)

    monkeypatch.setattr(hf, "answer", noting)
    return told


@pytest.mark.parametrize("size", [2, 3, 7])
def test_shares_are_disjoint_and_whole(size, folder, checkpoint, tmp_path, alone, shares, monkeypatch) -> None:
    """Each question is answered once, an image's questions by one process; seven share five images."""
    settings = arguments(folder, checkpoint, tmp_path)
    for rank in reversed(range(size)):  # the first one collects, so that it comes last
        shares.append([])
        monkeypatch.setattr(evaluation, "Processes", lambda rank=rank: Alone(rank, size))
        path = evaluate(EvalArguments(**settings))
        assert (path is None) == (rank > 0)
        if rank > 0:
            assert list(tmp_path.glob("*/*/run.json")) == []
    assert sum(map(len, shares)) == QUESTIONS
    images = [set(share) for share in shares]
    assert sum(map(len, images)) == len(set().union(*images)) == 5
    assert sum(map(bool, images)) == min(size, 5)
    assert_same(only_run(tmp_path), alone)


def test_another_number_of_processes_continues(folder, checkpoint, tmp_path, alone, shares, monkeypatch) -> None:
    """The second of three has answered when the run ends; then two go on."""
    settings = arguments(folder, checkpoint, tmp_path)
    for rank, size in ((1, 3), (1, 2), (0, 2)):
        shares.append([])
        monkeypatch.setattr(evaluation, "Processes", lambda rank=rank, size=size: Alone(rank, size))
        evaluate(EvalArguments(**settings))
    assert all(shares)
    assert sum(map(len, shares)) == QUESTIONS
    assert_same(only_run(tmp_path), alone)


def test_each_process_of_a_machine_has_a_device_of_its_own(checkpoint, monkeypatch) -> None:
    """Unless --device names one."""
    asked: list[str | None] = []
    real = hf.load_hf

    def load(name, adapter, *, dtype, device) -> hf.HfEngine:
        asked.append(device)
        return real(name, adapter, dtype=dtype, device="cpu")

    monkeypatch.setattr(hf, "load_hf", load)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("LOCAL_RANK", "3")
    usual, other = (EvalArguments(model=str(checkpoint), **flags) for flags in ({}, {"device": "cuda:7"}))
    load_engine(usual.engine_wanted, usual.reading)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    load_engine(usual.engine_wanted, usual.reading)
    load_engine(other.engine_wanted, other.reading)
    assert asked == [None, "cuda:3", "cuda:7"]


# ---- at once, in real processes ----


def start(
    launcher: list[str], folder: Path, checkpoint: Path, place: Path, **environment: str
) -> subprocess.Popen[str]:
    """Start perpo-eval under a launcher, with as many threads as here, so that sums are made in the same order."""
    (place / "program.py").write_text(PROGRAM)
    words = [
        w for name, value in arguments(folder, checkpoint, place / "out").items() for w in (f"--{name}", str(value))
    ]
    return subprocess.Popen(
        [sys.executable, "-m", *launcher, "program.py", *words],
        cwd=place,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())} | environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def dots(place: Path) -> list[int]:
    """How much each process answered."""
    return [len(file.read_text()) for file in sorted(place.glob("counts.*"))]


# Without --multi_gpu, and without a configuration, accelerate starts one process, whatever --num_processes says.
LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
    "accelerate": ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"],
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_store_the_run_of_one(launcher, folder, checkpoint, tmp_path, alone) -> None:
    process = start(LAUNCHERS[launcher], folder, checkpoint, tmp_path)
    out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    answered = dots(tmp_path)
    assert len(answered) == 2
    assert min(answered) > 0
    assert sum(answered) == QUESTIONS
    run = only_run(tmp_path / "out")
    assert_same(run, alone)
    assert said.count("run record:") == out.count("grounding") == 1
    assert "Traceback" not in said


@pytest.mark.slow
def test_a_killed_pair_continues_as_one(folder, checkpoint, tmp_path, alone, monkeypatch) -> None:
    """One process is killed in the middle; the launcher ends the other; one process alone does the rest."""
    process = start(LAUNCHERS["torchrun"], folder, checkpoint, tmp_path, MOST="4")
    try:
        deadline = time.monotonic() + 200
        while dots(tmp_path) != [4, 4]:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.kill(int((tmp_path / "pid.1").read_text()), signal.SIGKILL)
        assert process.wait(timeout=100) != 0
    finally:
        process.kill()
        process.communicate()
    assert list(tmp_path.glob("out/*/*/run.json")) == []
    real, answered = hf.answer, []

    def counting(loaded, prompts, *rest) -> list[list[int]]:
        answered.append(len(prompts))
        return real(loaded, prompts, *rest)

    monkeypatch.setattr(hf, "answer", counting)
    evaluate(EvalArguments(**arguments(folder, checkpoint, tmp_path / "out")))
    assert sum(answered) == QUESTIONS - 8
    assert_same(only_run(tmp_path / "out"), alone)
