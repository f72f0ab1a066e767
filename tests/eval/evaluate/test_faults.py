"""An evaluation that is killed anywhere goes on where it was, and another way of answering meets no old answers."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel

from perpo.engines.base import Answer
from perpo.engines.hf import HfEngine
from perpo.errors import PerpoError
from perpo.models.loading import load_model
from perpo.models.lora import add_lora
from perpo.records.store import Run, read_run
from perpo.train.outputs.saving import save_checkpoint
from perpo_eval.arguments import EvalArguments
from perpo_eval.evaluate.run import evaluate

ROWS, QUESTIONS = 60, 45
"""Of the folder below: some tasks ask the same about the same picture, which is answered once."""

SETTINGS = {"suite": "paper", "batch_size": 4, "max_new_tokens": 8, "device": "cpu"}

PROGRAM = """
import os, signal, sys
import perpo.engines.hf, perpo.records.store, perpo_eval.evaluate.scoring
from perpo_eval.cli.eval import main
from perpo_eval.engines.responses import ResponseJournal

real = perpo.engines.hf.answer

def answer(loaded, prompts, *rest):
    if sum(map(int, open("counts"))) >= {pause}:
        signal.pause()
    answers = real(loaded, prompts, *rest)
    with open("counts", "a") as file:
        file.write(f"{{len(prompts)}}\\n")
    return answers

def die(*words):
    os.kill(os.getpid(), signal.SIGKILL)

os.chdir({place!r})
open("counts", "a").close()
os.dup2(os.open("stderr", os.O_CREAT | os.O_WRONLY), 2)
perpo.engines.hf.answer = answer
{patch}
sys.exit(main({words!r}))
"""
"""perpo-eval that counts what it answers, and waits for its end before it answers more than it is allowed."""

# A process of its own each time, but the libraries are imported once.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["perpo.engines.hf", "perpo_eval.engines.lmms_model", "perpo_eval.evaluate.run", "lmms_eval.api.task"]
)


@pytest.fixture(scope="module")
def folder(refcoco_folder, tmp_path_factory) -> Path:
    """Boxes, yes/no questions and pages: 60 rows about five pictures."""
    folder = tmp_path_factory.mktemp("data")
    for file in refcoco_folder.iterdir():
        shutil.copy(file, folder)
    rows = pq.read_table(folder / "refcoco_val.parquet").to_pylist()
    images = {row["file_name"]: row["image"] for row in rows}

    def yes_no(name: str, things: list[str]) -> None:
        asked = [
            {"id": str(k), "question_id": f"{k}{thing}", "question": f"Is there a {thing} in the image?"}
            | {"answer": "yes" if thing == "dog" else "no", "image_source": image_name, "image": image}
            | {"category": name}
            for k, (image_name, image) in enumerate(images.items())
            for thing in things
        ]
        pq.write_table(pa.Table.from_pylist(asked), folder / f"{name}.parquet")

    yes_no("coco_pope_random", ["dog", "cat"])
    yes_no("coco_pope_popular", ["dog", "car"])  # as in POPE, the splits share their questions about what is there
    yes_no("yesno_birds", ["robin", "wren", "finch"])
    pages = [
        {"question_id": name, "image": image, "question": "", "answer": f"page {k} of a book", "language": "en"}
        | {"file_name": name}
        for k, (name, image) in enumerate(images.items())
    ]
    pq.write_table(pa.Table.from_pylist(pages), folder / "pages_book.parquet")
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder, checkpoint, tmp_path_factory) -> Run:
    """The run that nothing happens to."""
    output = tmp_path_factory.mktemp("undisturbed")
    run = run_here(folder, checkpoint, output)
    assert run.record.samples is not None
    assert run.record.samples.rows == ROWS
    assert not (output / ".responses").exists()
    return run


class Evaluation:
    """A process of perpo-eval in a folder of its own, and how much it answered."""

    def __init__(self, folder: Path, checkpoint: Path, place: Path, pause: int = 10**6, patch: str = "") -> None:
        self.output, self.place = place / "out", place
        arguments = {"model": checkpoint, "data": folder, "output": self.output, **SETTINGS}
        words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
        self.code = PROGRAM.format(pause=pause, patch=patch, place=str(place), words=words)
        self.process = PROCESSES.Process(target=exec, args=(self.code, {}))
        self.process.start()

    def wait_for_answers(self, count: int) -> None:
        """Until so many answers are in the journal."""
        deadline = time.monotonic() + 400
        while len(self.answers()) < count:
            assert self.process.is_alive(), self.end()
            assert time.monotonic() < deadline, "no answers come"
            time.sleep(0.01)

    def answers(self) -> list[str]:
        """The whole lines of the journal, but the first."""
        files = list(self.output.glob(".responses/*.jsonl"))
        return [line for file in files for line in file.read_text().split("\n")[1:-1]]

    def answered(self) -> int:
        return sum(map(int, (self.place / "counts").read_text().split()))

    def send(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def end(self) -> tuple[int | None, str]:
        """Its exit code, and what it said."""
        self.process.join(timeout=400)
        return self.process.exitcode, (self.place / "stderr").read_text()


@pytest.fixture
def start(folder, checkpoint, tmp_path) -> Iterator[Callable[..., Evaluation]]:
    """Start perpo-eval on the folder; whatever still runs at the end of the test is killed."""
    started: list[Evaluation] = []

    def begin(**settings: object) -> Evaluation:
        started.append(Evaluation(folder, checkpoint, tmp_path, **settings))  # type: ignore[arg-type]
        return started[-1]

    yield begin
    for one in started:
        one.process.kill()
        one.process.join()


def run_here(folder: Path, checkpoint: Path, output: Path, **settings: object) -> Run:
    """Evaluate in this process."""
    arguments = {"model": str(checkpoint), "data": str(folder), "output": str(output), **SETTINGS} | settings
    path = evaluate(EvalArguments(**arguments))  # type: ignore[arg-type]
    assert path is not None
    return read_run(path)


@pytest.fixture
def counted(monkeypatch) -> list[int]:
    """The sizes of the batches that are answered in this process."""
    sizes: list[int] = []
    real = HfEngine.answers

    def counting(engine, queries, decoding) -> list[list[Answer]]:
        sizes.append(len(queries))
        return real(engine, queries, decoding)

    monkeypatch.setattr(HfEngine, "answers", counting)
    return sizes


def assert_same(run: Run, other: Run) -> None:
    """All numbers and all rows but the times are equal."""
    assert run.record.tasks == other.record.tasks
    assert run.record.groups == other.record.groups
    mine, others = (one.samples().drop(["latency_ms"]) for one in (run, other))
    assert mine.equals(others)


def stored(output: Path) -> list[Path]:
    """What readers of the results take for runs."""
    return list(output.glob("[!.]*/[!.]*"))


def assert_clean(output: Path, runs: int = 1) -> None:
    """No answers are left over, and what looks like a run is a whole one."""
    assert not (output / ".responses").exists()
    folders = stored(output)
    assert len(folders) == runs
    for folder in folders:
        assert read_run(folder).samples().num_rows == ROWS


# ---- killed ----


def test_killed_while_it_answers(start, folder, checkpoint, counted, undisturbed) -> None:
    killed = start(pause=20)
    killed.wait_for_answers(20)
    killed.send(signal.SIGKILL)
    assert killed.end()[0] == -signal.SIGKILL
    assert (len(killed.answers()), killed.answered()) == (20, 20)
    assert list(killed.output.glob("**/run.json")) == []
    run = run_here(folder, checkpoint, killed.output)
    assert killed.answered() + sum(counted) == QUESTIONS
    assert_same(run, undisturbed)
    assert_clean(killed.output)


def test_killed_at_no_chosen_moment(start, folder, checkpoint, counted, undisturbed) -> None:
    """The batch that was being answered is lost, and nothing else."""
    killed = start()
    killed.wait_for_answers(1)
    killed.send(signal.SIGKILL)
    killed.end()
    kept = len(killed.answers())
    run = run_here(folder, checkpoint, killed.output)
    assert kept + sum(counted) == QUESTIONS
    assert killed.answered() - kept in (0, 4)
    assert_same(run, undisturbed)
    assert_clean(killed.output)


@pytest.mark.parametrize(
    "place",
    [
        "perpo_eval.evaluate.scoring.score_task",
        "perpo.records.store._write_samples",
        "perpo.records.store.to_json",
        "perpo.records.store.os.rename",
    ],
    ids=["before scoring", "before the samples", "between samples and record", "before the run has its name"],
)
def test_killed_when_all_is_answered(place, start, folder, checkpoint, counted, undisturbed) -> None:
    killed = start(patch=f"{place} = die")
    assert killed.end()[0] == -signal.SIGKILL
    assert (len(killed.answers()), killed.answered()) == (QUESTIONS, QUESTIONS)
    assert stored(killed.output) == []
    run = run_here(folder, checkpoint, killed.output)
    assert counted == []
    assert_same(run, undisturbed)
    assert_clean(killed.output)


def test_killed_when_the_run_is_stored(start, folder, checkpoint, counted, undisturbed) -> None:
    """Between storing the run and forgetting its answers: the same numbers once more, and nothing is asked."""
    killed = start(patch="ResponseJournal.forget = die")
    assert killed.end()[0] == -signal.SIGKILL
    (path,) = stored(killed.output)
    assert_same(read_run(path), undisturbed)
    assert_same(run_here(folder, checkpoint, killed.output), undisturbed)
    assert counted == []
    assert_clean(killed.output, runs=2)


def test_interrupted_from_the_keyboard(start, undisturbed) -> None:
    """Ctrl-C says that nothing is lost, and the same command continues."""
    first = start(pause=12)
    first.wait_for_answers(12)
    first.send(signal.SIGINT)
    code, said = first.end()
    assert code == 130
    assert said.splitlines()[-1] == "interrupted; finished work is kept: run the same command again to continue"
    assert len(first.answers()) == 12
    again = [sys.executable, "-c", first.code.replace("signal.pause()", "pass")]
    # As many threads as here, so that sums are made in the same order.
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    assert subprocess.run(again, env=environment, stdout=subprocess.DEVNULL, timeout=400).returncode == 0, first.end()
    assert f"continuing: 12 of {QUESTIONS} questions were answered before" in first.end()[1]
    assert first.answered() == QUESTIONS  # in both
    (path,) = stored(first.output)
    assert_same(read_run(path), undisturbed)
    assert_clean(first.output)


# ---- what is left of a run that ended early ----


class Enough(Exception):
    """Ends an evaluation in the middle."""


@pytest.fixture
def interrupted(folder, checkpoint, tmp_path, monkeypatch, counted) -> Callable[..., Path]:
    """Evaluate into an output until so many questions are answered; returns the journal. Counts nothing."""

    def begin(answers: int = 8, **settings: object) -> Path:
        with monkeypatch.context() as patch:
            left = [answers]
            real = HfEngine.answers

            def ending(engine, queries, decoding) -> list[list[Answer]]:
                left[0] -= len(queries)
                if left[0] < 0:
                    raise Enough
                return real(engine, queries, decoding)

            patch.setattr(HfEngine, "answers", ending)
            with pytest.raises(Enough):
                run_here(folder, checkpoint, tmp_path / "out", **settings)
        counted.clear()
        return max((tmp_path / "out/.responses").glob("*.jsonl"), key=lambda file: file.stat().st_mtime_ns)

    return begin


def test_a_torn_line_does_not_count(interrupted, folder, checkpoint, tmp_path, counted, undisturbed) -> None:
    journal = interrupted(answers=12)
    content = journal.read_bytes()
    journal.write_bytes(content[:-25])
    run = run_here(folder, checkpoint, tmp_path / "out")
    assert sum(counted) == QUESTIONS - 11
    assert_same(run, undisturbed)
    assert_clean(tmp_path / "out")


def test_a_damaged_line_is_named(interrupted, folder, checkpoint, tmp_path) -> None:
    journal = interrupted()
    lines = journal.read_text().split("\n")
    lines[3] = lines[3][:40]
    journal.write_text("\n".join(lines))
    with pytest.raises(PerpoError, match=r"\.jsonl, line 4: damaged"):
        run_here(folder, checkpoint, tmp_path / "out")


def test_one_evaluation_at_a_time(start, folder, checkpoint) -> None:
    first = start(pause=4)
    first.wait_for_answers(4)
    with pytest.raises(PerpoError, match="is in use by another process"):
        run_here(folder, checkpoint, first.output)


@pytest.mark.parametrize("change", [{"batch_size": 9}, {"name": "another name"}, {"tasks": ["yesno_birds"]}])
def test_what_changes_no_answer_keeps_the_answers(change, interrupted, folder, checkpoint, tmp_path, counted) -> None:
    journal = interrupted(answers=32)
    keys = {json.loads(line)["id"] for line in journal.read_text().splitlines()[1:]}
    assert len(keys) == 32
    run = run_here(folder, checkpoint, tmp_path / "out", **change)
    assert 0 < sum(counted) + len(keys) <= QUESTIONS
    assert sum(counted) < run.record.samples.rows


@pytest.mark.parametrize("change", [{}, {"batch_size": 3}, {"limit": 9}], ids=str)
def test_in_half_precision_only_answers_of_the_same_batches_are_kept(
    change, interrupted, folder, checkpoint, tmp_path, counted
) -> None:
    half = {"dtype": "bfloat16", "tasks": ["refcoco_val"]}
    interrupted(answers=8, **half)
    run = run_here(folder, checkpoint, tmp_path / "out", **half | change)
    rows = run.samples().num_rows
    assert sum(counted) == (rows if change else rows - 8)
    whole = run_here(folder, checkpoint, tmp_path / "whole", **half | change)
    assert run.samples(["sample_key", "response"]) == whole.samples(["sample_key", "response"])
    assert (run.record.model.dtype, run.record.generation["batch_size"]) == ("bfloat16", change.get("batch_size", 4))


def test_a_larger_limit_asks_only_what_is_new(interrupted, folder, checkpoint, tmp_path, counted) -> None:
    task = {"tasks": ["yesno_birds"]}
    interrupted(answers=4, limit=5, **task)
    run = run_here(folder, checkpoint, tmp_path / "out", limit=9, **task)
    assert run.record.samples.rows == 9
    assert sum(counted) == 5


# ---- another way of answering ----


def noisy(model: torch.nn.Module | PeftModel, seed: int) -> None:
    """Other weights, from a seed."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)


def write_adapter(model: Path, folder: Path, seed: int) -> None:
    """An adapter with training.json, as perpo-train leaves it."""
    loaded = load_model(str(model))
    adapted = add_lora(loaded, r=2, alpha=4, dropout=0.0, train_projector=False)
    noisy(adapted, seed)
    save_checkpoint(adapted, loaded.processor, folder)
    about = {"name": "its base", "weights_sha256": loaded.weights_sha256}
    record = {"schema_version": 1, "status": "complete", "arguments": {}, "model": about, "data": {"sha256": "b"}}
    (folder / "training.json").write_text(json.dumps(record))


def edit(file: Path, change: Callable[[dict], object]) -> None:
    """Change a JSON file in its place."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def other_weights(model: Path) -> None:
    loaded = load_model(str(model))
    noisy(loaded.model.requires_grad_(True), 1)
    loaded.model.save_pretrained(model)


def other_mean(model: Path) -> None:
    edit(model / "processor_config.json", lambda c: c["image_processor"].update(image_mean=[0.1, 0.1, 0.1]))


def other_template(model: Path) -> None:
    file = model / "chat_template.jinja"
    file.write_text(file.read_text().replace("USER: ", "HUMAN: "))


@pytest.fixture
def copied(checkpoint, tmp_path) -> Path:
    """The checkpoint in a place where it can be changed."""
    return Path(shutil.copytree(checkpoint, tmp_path / "model"))


SHORT = {"suite": "grounding", "tasks": ["refcoco_val"]}
ASKED = 10


@pytest.mark.parametrize("change", [other_weights, other_mean, other_template])
def test_a_model_that_changed_at_its_place_is_asked_anew(
    change, interrupted, folder, copied, tmp_path, counted
) -> None:
    interrupted(model=str(copied), **SHORT)
    change(copied)
    run_here(folder, copied, tmp_path / "out", **SHORT)
    assert sum(counted) == ASKED


def test_an_adapter_is_another_model_and_so_is_one_trained_again(
    interrupted, folder, copied, tmp_path, counted
) -> None:
    adapter = tmp_path / "adapter"
    write_adapter(copied, adapter, seed=0)
    interrupted(model=str(copied), **SHORT)
    adapted = {"adapter": str(adapter), **SHORT}
    interrupted(model=str(copied), **adapted)
    write_adapter(copied, adapter, seed=1)
    run_here(folder, copied, tmp_path / "out", **adapted)
    assert sum(counted) == ASKED
    interrupted(model=str(copied), **adapted)
    edit(adapter / "adapter_config.json", lambda c: c.update(lora_alpha=c["lora_alpha"] * 3))
    run_here(folder, copied, tmp_path / "out", **adapted)
    assert sum(counted) == ASKED


@pytest.mark.parametrize(
    "change",
    [
        {"dtype": "bfloat16"},
        {"prompt_style": "lmms_eval"},
        {"max_new_tokens": 9},
        {"temperature": 0.7},
        {"temperature": 0.7, "seed": 1},
    ],
    ids=str,
)
def test_other_settings_meet_no_old_answers(change, interrupted, folder, checkpoint, tmp_path, counted) -> None:
    interrupted(**SHORT)
    if "seed" in change:
        interrupted(temperature=0.7, **SHORT)
    run_here(folder, checkpoint, tmp_path / "out", **SHORT | change)
    assert sum(counted) == ASKED


def test_other_questions_and_pictures_are_asked_anew(interrupted, folder, checkpoint, tmp_path, counted) -> None:
    """Under the same names, in the same file."""
    interrupted(**SHORT)
    data = tmp_path / "changed"
    data.mkdir()
    rows = pq.read_table(folder / "refcoco_val.parquet").to_pylist()
    rows[0]["answer"] = [f"{text}!" for text in rows[0]["answer"]]
    rows[1]["image"] = dict(rows[2]["image"], path=rows[1]["image"]["path"])
    pq.write_table(pa.Table.from_pylist(rows), data / "refcoco_val.parquet")
    before = run_here(folder, checkpoint, tmp_path / "before", **SHORT).samples().to_pylist()
    counted.clear()
    run = run_here(data, checkpoint, tmp_path / "out", **SHORT)
    # Eight were answered. Nothing is known of the four that changed; of the other six at most the two that were not.
    assert 4 <= sum(counted) <= 4 + 2
    after = run.samples().to_pylist()
    assert [row["sample_key"] for row in after[2:]] == [row["sample_key"] for row in before[2:]]
    changed = [k for k in range(ASKED) if after[k]["response"] != before[k]["response"]]
    assert changed == [0, 1, 2, 3]


def test_answers_of_another_model_stay_until_it_continues(interrupted, folder, copied, tmp_path, counted) -> None:
    """Two models in one results folder: each finds its own answers."""
    old = interrupted(model=str(copied), **SHORT)
    weights = {file.name: file.read_bytes() for file in copied.iterdir()}
    other_weights(copied)
    other = run_here(folder, copied, tmp_path / "out", **SHORT)
    assert old.is_file()
    counted.clear()
    for name, content in weights.items():
        (copied / name).write_bytes(content)
    run = run_here(folder, copied, tmp_path / "out", **SHORT)
    assert sum(counted) == ASKED - 8
    assert run.samples(["response"]) != other.samples(["response"])
    assert not old.parent.exists()
