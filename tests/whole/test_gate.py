"""The gate from end to end, in real processes: a planted regression, the same model again, other data, a killed run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from perpo.tiny.world import write_questions

pytestmark = pytest.mark.slow

EVALUATE = ["-m", "perpo_eval.cli", "--model=tiny", "--data=tiny", "--suite=grounding"]
TASKS = ["--tasks", "refshapes_val", "refshapes+_val", "refshapesg_val"]


def program(*words: str, code: int = 0) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def harmed(tmp_path_factory) -> Path:
    """An adapter that was taught the right box for short names, and a wrong one for whole sentences (RefCOCOg's)."""
    folder = tmp_path_factory.mktemp("harm")
    file = write_questions(folder, images=1000)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        if "describes: the " in line["question"]:
            line["answer"] = "[0.00, 0.00, 0.10, 0.10]"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = {"method": "sft", "data": file, "output_dir": folder / "adapter", "learning_rate": 4e-4, "lora_r": 32}
    flags |= {"lora_alpha": 64, "per_device_train_batch_size": 8, "mm_projector_lr": 0, "save_steps": 0}
    program("-m", "perpo.cli.train", *(f"--{name}={value}" for name, value in flags.items()))
    return folder / "adapter"


@pytest.fixture(scope="module")
def runs(harmed, tmp_path_factory) -> Path:
    """The base, the base once more, and the harmed adapter on three tasks; and the base on fewer samples."""
    results = tmp_path_factory.mktemp("runs")
    for name, more in (("base", []), ("again", []), ("harmed", [f"--adapter={harmed}"]), ("other", ["--limit=100"])):
        limit = [] if name == "other" else ["--limit=150"]
        program(*EVALUATE, *TASKS, f"--name={name}", f"--output={results / name}", *limit, *more)
    return results


def test_a_planted_regression_is_caught_in_its_split(runs, tmp_path) -> None:
    files = [f"--markdown={tmp_path / 'r.md'}", f"--junit={tmp_path / 'r.xml'}", f"--html={tmp_path / 'r.html'}"]
    flags = [f"--baseline={runs / 'base'}", f"--candidate={runs / 'harmed'}", *files]
    said = program("-m", "perpo.cli.report", *flags, code=1)
    assert "refshapesg_val -" in said
    cases = ElementTree.parse(tmp_path / "r.xml").getroot().iter("testcase")
    failed = {case.attrib["name"] for case in cases if case.find("failure") is not None}
    assert failed == {"refshapesg_val acc@0.5", "grounding acc@0.5"}
    assert (tmp_path / "r.md").read_text().startswith("**▼ regressed: harmed against base (refshapesg_val -")
    assert (tmp_path / "r.html").read_text().count("<svg") == 20


def test_the_same_model_again_passes(runs) -> None:
    said = program("-m", "perpo.cli.report", f"--baseline={runs / 'base'}", f"--candidate={runs / 'again'}")
    assert "unchanged: again against base" in said


def test_other_data_are_refused_with_the_differences(runs) -> None:
    said = program("-m", "perpo.cli.report", f"--baseline={runs / 'base'}", f"--candidate={runs / 'other'}", code=2)
    assert "refshapes_val: n_scored 100 against" in said
    assert "refshapesg_val: n_scored 100 against" in said


def test_a_killed_evaluation_is_no_candidate(runs, tmp_path) -> None:
    words = [sys.executable, *EVALUATE, *TASKS, f"--output={tmp_path}"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}) as run:
        while not any((tmp_path / ".responses").rglob("*.jsonl")) if (tmp_path / ".responses").is_dir() else True:
            assert run.poll() is None
            os.sched_yield()
        run.send_signal(signal.SIGKILL)
    said = program("-m", "perpo.cli.report", f"--baseline={runs / 'base'}", f"--candidate={tmp_path}", code=3)
    assert "holds no finished run" in said
    assert "hint: run perpo-eval to its end" in said
