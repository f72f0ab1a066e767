"""A whole experiment on the embedded model, cut off and continued, in real processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from perpo.store import read_run

RECIPE = {
    "name": "small",
    "data": {"exact": {"tiny": {"images": 8}}},
    "sample": {"num_candidates": 4, "max_new_tokens": 12, "batch_size": 8},
    "train": {"lora_r": 4, "lora_alpha": 8, "mm_projector_lr": 0.0, "save_steps": 0},
    "evaluate": {"data": "tiny", "tasks": ["refshapes_val", "refshapesg_val"], "limit": 6},
    "experiments": {
        "base": {},
        "sft": {"data": "exact", "train": {"method": "sft"}},
        "perpo": {"data": "exact", "rounds": 2, "train": {"method": "perpo", "reference": "recorded"}},
    },
    "compare": {"base": "base", "against": "sft"},
}


def _start(folder, *words):
    code = "import sys; from perpo_eval.run_cli import main; sys.exit(main(sys.argv[1:]))"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, "recipe.yaml", "--output_dir", "out", *words],
        cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _stages(folder):
    return {
        str(path.parent.relative_to(folder / "out")): path.stat().st_mtime_ns
        for path in (folder / "out").rglob("stage.json")
    }


@pytest.fixture(scope="module")
def killed_and_continued(tmp_path_factory):
    """A run that got SIGKILL when its first PerPO round had been sampled, and was then run again."""
    folder = tmp_path_factory.mktemp("experiment")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    process = _start(folder)
    while process.poll() is None and not (folder / "out/perpo/round-1/sample/stage.json").exists():
        time.sleep(0.01)  # polls for a file
    assert process.poll() is None, process.communicate()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    before = _stages(folder)
    process = _start(folder)
    out, err = process.communicate(timeout=400)
    return folder, before, process.returncode, out, err


@pytest.mark.timeout(900)
def test_a_run_that_was_killed_continues_and_does_nothing_twice(killed_and_continued):
    folder, before, code, out, err = killed_and_continued
    assert code == 0, err
    after = _stages(folder)
    assert {name: after[name] for name in before} == before
    assert set(after) == {
        "data/exact", "base/evaluate", "sft/train", "sft/evaluate", "perpo/round-1/sample", "perpo/round-1/adapter",
        "perpo/round-2/sample", "perpo/round-2/adapter", "perpo/evaluate",
    }  # fmt: skip
    assert "base: evaluate" not in err
    assert "perpo: round-2/sample" in err
    assert all(name in out for name in ("base", "sft", "perpo"))


def test_rounds_start_from_the_policy_before_them(killed_and_continued):
    folder = killed_and_continued[0]

    def record(part):
        return json.loads((folder / f"out/perpo/round-{part}/adapter/training.json").read_text())

    def first(part):
        lines = (folder / f"out/perpo/round-{part}/sample/preferences.jsonl").read_text().splitlines()
        return json.loads(lines[0])

    assert first(1)["sampling"].get("adapter_sha256") is None
    assert first(2)["sampling"]["adapter_sha256"] == record(1)["adapter_sha256"]
    assert record(2)["model"]["adapter_sha256"] == record(1)["adapter_sha256"]
    # The two rounds asked different questions, and together all of them.
    asked = [
        [json.loads(line)["question"] + json.loads(line)["image_path"] for line in path.read_text().splitlines()]
        for path in sorted(folder.glob("out/perpo/round-*/sample/questions.jsonl"))
    ]
    everything = (folder / "out/data/exact/questions.jsonl").read_text().splitlines()
    assert [q for part in asked for q in part] == [
        json.loads(line)["question"] + json.loads(line)["image_path"] for line in everything
    ]


def test_the_leaderboard_is_made_of_the_run_records(killed_and_continued):
    folder = killed_and_continued[0]
    board = json.loads((folder / "out/leaderboard.json").read_text())
    assert [entry["label"] for entry in board["entries"]] == ["base", "sft", "perpo"]
    runs = {path.parent.name: read_run(path) for path in (folder / "out/results").rglob("run.json")}
    assert len(runs) == 3
    for entry in board["entries"]:
        run = runs[entry["run_id"]]
        right = [row["acc@0.5"] for row in run.samples(["scores"]).column("scores").to_pylist()]
        # Both tasks have six samples, so their mean is the mean of all.
        assert entry["average"]["value"] == pytest.approx(sum(right) / 12)
    assert "tiny world" in (folder / "out/leaderboard.md").read_text()


def test_running_again_does_nothing_and_says_the_same(killed_and_continued):
    folder = killed_and_continued[0]
    before = _stages(folder)
    process = _start(folder, "--json")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    assert _stages(folder) == before
    assert json.loads(out) == json.loads((folder / "out/leaderboard.json").read_text())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quick_demo(tmp_path):
    code = "import sys; from perpo_eval.run_cli import demo_main; sys.exit(demo_main(['--quick']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    board = json.loads(Path(tmp_path / "runs/tiny-quick-seed0/leaderboard.json").read_text())
    gains = {entry["label"]: entry["delta"] for entry in board["entries"]}
    assert gains["base"] is None
    # Its rows are few, but the effect is large: the interval stays clear of zero.
    assert gains["perpo"]["ci_low"] > 0
    assert "too small for conclusions" in done.stdout
