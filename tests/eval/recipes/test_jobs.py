"""Experiments side by side: the results of one process, and nothing goes on behind anybody's back."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from perpo.common import processes
from perpo.errors import PerpoError
from perpo_eval.cli import run as cli
from perpo_eval.recipes import jobs
from tests.support.recipes import different, results_of, start

RECIPE: dict[str, Any] = {
    "name": "small",
    "data": {"exact": {"tiny": {"images": 8}}, "pairs": {"sampled": "exact"}},
    "sample": {"num_candidates": 4, "max_new_tokens": 12, "batch_size": 8},
    "train": {"lora_r": 4, "lora_alpha": 8, "mm_projector_lr": 0.0, "save_steps": 0},
    "evaluate": {"data": "tiny", "tasks": ["refshapes_val"], "limit": 6},
    "experiments": {
        "base": {},
        "same": {},  # its answers have the journal of base's
        "sft": {"data": "exact", "train": {"method": "sft"}},
        "dpo": {"data": "pairs", "train": {"method": "dpo", "precompute_reference": True}},
        "lipo": {"data": "pairs", "train": {"method": "lipo", "precompute_reference": True}},
        "perpo": {"data": "exact", "rounds": 2, "train": {"method": "perpo", "reference": "recorded"}},
    },
}
SMALLER = RECIPE | {
    "experiments": {name: RECIPE["experiments"][name] for name in ("base", "same", "dpo", "lipo")},
}
RUN = ("recipe.yaml", "--output_dir", "out")


def folder_with(recipe: dict[str, Any], folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return folder


def ran(recipe: dict[str, Any], folder: Path, *words: str) -> dict[str, Any]:
    """What a run makes."""
    process = start(folder_with(recipe, folder), *RUN, *words)
    _, said = process.communicate()
    assert process.returncode == 0, said
    return results_of(folder / "out")


def heard(descriptor: int) -> str:
    """What a terminal was shown, until the last process has let go of it."""
    said = b""
    while True:
        try:
            more = os.read(descriptor, 4096)
        except OSError:  # what Linux says at the end
            return said.decode()
        said += more


@pytest.mark.timeout(900)
def test_two_processes_make_what_one_makes_and_say_it_line_by_line(tmp_path):
    alone = ran(SMALLER, tmp_path / "alone")
    ours, theirs = pty.openpty()
    process = start(folder_with(SMALLER, tmp_path / "two"), *RUN, "--jobs", "2", stderr=theirs)
    os.close(theirs)
    said = heard(ours)
    out, _ = process.communicate()
    assert process.returncode == 0, said
    assert different(results_of(tmp_path / "two" / "out"), alone) == []
    assert all(name in out for name in SMALLER["experiments"])
    lines = said.replace("\r\n", "\n").split("all of it took")[0].splitlines()
    assert "\x1b" not in said
    assert all(line.startswith("perpo-run: ") for line in lines), said
    begun = [line.removeprefix("perpo-run: ").removesuffix(" ...") for line in lines if line.endswith(" ...")]
    # First what they share, then the longest, and nothing twice.
    assert begun[:2] == ["data: exact", "data: pairs"]
    assert sorted(begun[2:4]) == ["dpo: train", "lipo: train"]
    assert sorted(begun[4:]) == [f"{name}: evaluate" for name in sorted(SMALLER["experiments"])]
    assert not list((tmp_path / "two" / "out").rglob(".*"))  # no lock is left


def children_of(process: subprocess.Popen[str]) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(each) for each in listed.split()]


def wait_for(*files: Path) -> None:
    until = time.monotonic() + 300
    while not all(file.exists() for file in files):
        assert time.monotonic() < until, files
        time.sleep(0.01)


def are_gone(numbers: list[int]) -> bool:
    """Whether processes end within some seconds; those that nobody waits for any more count as ended."""
    for _ in range(500):
        states = [Path(f"/proc/{number}/stat") for number in numbers]
        if all(not file.exists() or file.read_text().rpartition(")")[2].split()[0] == "Z" for file in states):
            return True
        time.sleep(0.01)
    return False


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_whatever_ends_it_nothing_goes_on_and_the_same_command_continues(tmp_path):
    alone = ran(RECIPE, tmp_path / "alone")
    output = folder_with(RECIPE, tmp_path) / "out"

    def until(*files: str) -> tuple[subprocess.Popen[str], list[int]]:
        process = start(tmp_path, *RUN, "--jobs", "2")
        wait_for(*(output / file for file in files))
        assert process.poll() is None
        return process, children_of(process)

    process, workers = until("data/exact/stage.json")
    assert len(workers) == 2
    process.kill()
    process.communicate()
    assert are_gone(workers)

    process, workers = until("data/pairs/stage.json", "perpo/round-1/sample/stage.begun")
    os.kill(workers[0], signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == 3
    assert re.search(r"error: the process that did \S+ has ended early \(SIGKILL\)\nhint: the same command", said)
    assert are_gone(workers)

    for sent, code, file in (
        (signal.SIGTERM, 143, "perpo/round-1/sample/stage.json"),
        (signal.SIGINT, 130, "perpo/round-1/adapter/stage.json"),
    ):
        process, workers = until(file)
        process.send_signal(sent)
        _, said = process.communicate()
        assert (process.returncode, "run the same command again" in said) == (code, True), said
        assert "Traceback" not in said
        assert are_gone(workers)

    before = {path: path.stat().st_mtime_ns for path in output.rglob("stage.json")}
    assert {str(path.parent.relative_to(output)) for path in before} >= {"data/pairs", "perpo/round-1/adapter"}
    process = start(tmp_path, *RUN, "--jobs", "2")
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert {path: path.stat().st_mtime_ns for path in before} == before
    # A training that was asked to end leaves its checkpoint, and logs the mean loss of the steps that came after it.
    kinds = {"adapter_model.safetensors": 5, "samples.parquet": 6, "questions.jsonl": 4, "preferences.jsonl": 3}
    made = {name: each for name, each in alone.items() if name.endswith(tuple(kinds))}
    assert {kind: sum(name.endswith(kind) for name in made) for kind in kinds} == kinds
    now = results_of(output)
    assert different({name: now.get(name) for name in made}, made) == []


@pytest.mark.timeout(300)
def test_an_error_of_one_ends_all_with_its_sentence(tmp_path):
    bad = {"data": "exact", "rounds": 1, "sample": {"min_margin": 1.0}, "train": {"method": "dpo"}}
    recipe = RECIPE | {"experiments": {"base": {}, "bad": bad}}
    process = start(folder_with(recipe, tmp_path), *RUN, "--jobs", "2", "--debug")
    _, said = process.communicate()
    assert process.returncode == 2, said
    assert said.count("\nerror: ") == 1
    assert "perpo-run: bad failed, so all are ended; what they have done is kept\n" in said
    assert "sample/run.py" in said  # the traceback is the one of the process that failed


def test_more_jobs_than_gpus_are_refused_and_each_has_its_own(monkeypatch):
    monkeypatch.setattr(jobs, "gpus", lambda: ["2", "5"])
    jobs.check_jobs(2)
    with pytest.raises(PerpoError, match="--jobs 3 needs 3 GPUs, one for each, and 2 can be used here"):
        jobs.check_jobs(3)
    started: list[Any] = []

    class Worker:
        task = None

        def __init__(self, work, environment, running):
            started.append(environment["CUDA_VISIBLE_DEVICES"])
            self.pipe = self

        def give(self, task):
            pass

    monkeypatch.setattr(jobs, "_JobProcess", Worker)
    jobs.side_by_side(None, ["a", "b", "c"], 2)  # type: ignore[arg-type]
    assert started == ["2", "5"]


def test_threads_are_shared_unless_the_user_says_how_many(monkeypatch):
    monkeypatch.setattr(processes, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [processes.threads_each(size)["OMP_NUM_THREADS"] for size in (1, 3, 8, 9)] == ["8", "2", "1", "1"]
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert processes.threads_each(4) == {"OMP_NUM_THREADS": "5"}


@pytest.mark.parametrize(
    ("cores", "devices", "words", "expected"),
    [(1, [], [], 1), (2, [], [], 2), (64, [], [], 4), (64, ["0"], [], 1), (2, [], ["--jobs", "3"], 3)],
)
def test_the_demo_has_one_thread_a_job(monkeypatch, cores, devices, words, expected):
    ran = []
    monkeypatch.setattr(cli, "_run", ran.append)
    monkeypatch.setattr(cli, "cores", lambda: cores)
    monkeypatch.setattr(jobs, "gpus", lambda: devices)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # so that it is put back
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert cli.demo_main(words) == 0
    assert (ran[0].jobs, os.environ["OMP_NUM_THREADS"]) == (expected, "1")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_quick_demo_is_the_same_with_any_number_of_jobs(tmp_path):
    results = []
    for number in ("1", "2", "4"):
        folder = tmp_path / number
        folder.mkdir()
        process = start(folder, "--quick", "--output_dir", "out", "--jobs", number, program="demo_main")
        _, said = process.communicate()
        assert process.returncode == 0, said
        results.append(results_of(folder / "out"))
    assert different(results[0], results[1]) == different(results[0], results[2]) == []
    assert sum(name.endswith("adapter_model.safetensors") for name in results[0]) == 5
