"""A whole experiment on the embedded model, cut off and continued, in real processes."""

import dataclasses
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from perpo.common.arguments import parse_arguments
from perpo.common.locks import only_process
from perpo.data import data_sha256
from perpo.models.checkpoints import checkpoint_dir
from perpo.records.store import find_runs, read_run
from perpo.sample.arguments import SampleArguments
from perpo.sample.run import run_sampling
from perpo_dashboard.cli import DashboardArguments
from perpo_eval.arguments import EvalArguments
from perpo_eval.cli.run import RunArguments, _say_what_next, main

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
    code = "import sys; from perpo_eval.cli.run import main; sys.exit(main(sys.argv[1:]))"
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


@pytest.fixture
def finished(killed_and_continued, tmp_path):
    """A copy of the finished run, to spoil. Gives a function that runs a changed recipe in it, in this process."""
    shutil.copytree(killed_and_continued[0] / "out", tmp_path / "out")

    def run(*words, **changes):
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | changes, sort_keys=False))
        place = [] if "--output_dir" in words else ["--output_dir", str(tmp_path / "out")]
        return main([str(tmp_path / "recipe.yaml"), *place, *words])

    return run


def _files(folder):
    return {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*") if path.is_file()}


def _experiments(**changes):
    return {"experiments": RECIPE["experiments"] | changes}


def test_what_no_stage_depends_on_may_change(finished, capsys):
    changes = {"name": "other", "note": "a note", "compare": {}} | _experiments(more={})
    assert finished("--dry_run", **changes) == 0
    stages = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert stages.pop("more") == "evaluate"
    assert list(stages) == ["base", "sft", "perpo"]
    assert all(stage.endswith(" (done)") for line in stages.values() for stage in line.split(", "))


PERPO = RECIPE["experiments"]["perpo"]


@pytest.mark.parametrize(
    ("changes", "folder", "what"),
    [
        ({"data": {"exact": {"tiny": {"images": 9}}}}, "data/exact", "images"),
        ({"sample": RECIPE["sample"] | {"temperature": 0.7}}, "perpo/round-1/sample", "temperature"),
        (_experiments(perpo=PERPO | {"rounds": 1}), "perpo/round-1/sample", "part"),
        ({"train": RECIPE["train"] | {"lora_r": 8}}, "sft/train", "lora_r"),
        (
            _experiments(perpo=PERPO | {"train": PERPO["train"] | {"beta": 1.0}}),
            "perpo/round-1/adapter", "beta",
        ),
        ({"evaluate": RECIPE["evaluate"] | {"limit": 5}}, "base/evaluate", "limit"),
    ],
)  # fmt: skip
def test_a_stage_that_was_made_with_other_settings_is_refused(finished, tmp_path, capsys, changes, folder, what):
    before = _files(tmp_path)
    assert finished(**changes) == 2
    assert f"out/{folder} was made with another {what} than" in capsys.readouterr().err
    assert _files(tmp_path) == before


def test_a_stage_that_was_made_of_something_else_is_refused(finished, tmp_path, capsys, monkeypatch):
    def refused(folder, what):
        code, err = finished(), capsys.readouterr().err
        assert (code, f"out/{folder} was made with another {what} than" in err) == (2, True), err

    with monkeypatch.context() as patch:
        patch.setattr("perpo_eval.recipes.experiment.tiny_version", lambda *drawn: "2-none")
        refused("data/exact", "world")
    with monkeypatch.context() as patch:
        patch.setattr("perpo_eval.rows.suites.tiny_version", lambda *drawn: "2-none")
        refused("base/evaluate", "data")
    with monkeypatch.context() as patch:
        patch.setattr("perpo_eval.recipes.experiment.suite_sha256", lambda: "none")
        refused("base/evaluate", "suite_sha256")
    for file, folder, what in [
        ("perpo/round-1/sample/preferences.jsonl", "perpo/round-1/adapter", "data"),
        ("perpo/round-1/adapter/adapter_model.safetensors", "perpo/round-2/sample", "adapter"),
        ("perpo/round-1/adapter/adapter_config.json", "perpo/round-2/sample", "adapter_config"),
        ("data/exact/questions.jsonl", "sft/train", "data"),
    ]:
        content = (tmp_path / "out" / file).read_bytes()
        (tmp_path / "out" / file).write_bytes(content + b"\n")
        refused(folder, what)
        (tmp_path / "out" / file).write_bytes(content)


def test_another_model_under_the_same_name_is_refused(tmp_path, capsys):
    shutil.copytree(checkpoint_dir(), tmp_path / "model")
    recipe = RECIPE | {"model": str(tmp_path / "model"), "experiments": {"base": {}}, "compare": {}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    words = [str(tmp_path / "recipe.yaml"), "--output_dir", str(tmp_path / "out")]
    assert main(words) == 0
    for name, what in (("model.safetensors", "model"), ("chat_template.jinja", "processor")):
        file = tmp_path / "model" / name
        content = file.read_bytes()
        file.write_bytes(content + b"\n")
        capsys.readouterr()
        assert main(words) == 2
        assert f"out/base/evaluate was made with another {what} than" in capsys.readouterr().err
        file.write_bytes(content)


def test_another_seed_is_refused(finished, capsys):
    assert finished("--seed", "1") == 2
    assert "holds the work of small with another seed, 0" in capsys.readouterr().err


def test_what_is_not_asked_for_and_was_made_differently_is_left_out(finished, tmp_path, capsys):
    changes = _experiments(perpo=PERPO | {"rounds": 1}, more={})
    assert finished("--only", "base", "sft", **changes) == 0
    err = capsys.readouterr().err
    assert "'perpo' is left out of the leaderboard: " in err
    assert "round-1/sample was made with another part" in err
    assert "--only more " in err
    board = json.loads((tmp_path / "out/leaderboard.json").read_text())
    assert [entry["label"] for entry in board["entries"]] == ["base", "sft"]


def test_that_the_second_reference_was_not_run_is_said(finished, tmp_path, capsys):
    shutil.rmtree(tmp_path / "out/sft")
    assert finished("--only", "base") == 0
    err = capsys.readouterr().err
    assert "'sft' has not been run, so no experiment is compared with it" in err
    assert "--only sft " in err
    board = json.loads((tmp_path / "out/leaderboard.json").read_text())
    assert board["against"] is None


def test_experiments_share_what_is_sampled_once(finished, tmp_path, monkeypatch):
    calls = []

    def sample(arguments):
        calls.append(arguments.output)
        return run_sampling(arguments)

    monkeypatch.setattr("perpo.sample.run.run_sampling", sample)
    shared = {
        "base": {},
        "sft": {"data": "pairs", "train": {"method": "sft"}},
        "dpo": {"data": "pairs", "train": {"method": "dpo", "reference": "recorded"}},
    }
    data = RECIPE["data"] | {"pairs": {"sampled": "exact"}}
    words = ("--output_dir", str(tmp_path / "shared"))
    assert finished(*words, data=data, experiments=shared) == 0
    assert calls == [str(tmp_path / "shared/data/pairs/preferences.jsonl")]
    sft, dpo = (json.loads((tmp_path / f"shared/{name}/train/training.json").read_text()) for name in ("sft", "dpo"))
    assert sft["data"]["sha256"] == dpo["data"]["sha256"] == data_sha256(calls[0])
    assert dpo["model"]["adapter"] is None
    assert finished(*words, data=data, experiments=shared) == 0  # nothing is left to do
    assert len(calls) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quick_demo_of_pages(tmp_path):
    code = "import sys; from perpo_eval.cli.run import demo_main; sys.exit(demo_main(['--task', 'ocr', '--quick']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    board = json.loads(Path(tmp_path / "runs/tiny-ocr-quick-seed0/leaderboard.json").read_text())
    assert (board["benchmark"], board["metric"], board["n"]) == ("ocr", "edit_distance", 40)
    entries = {entry["label"]: entry for entry in board["entries"]}
    assert set(entries) == {"base", "sft-sloppy", "perpo"}
    # Less is better; all that was scored stands beside it.
    assert entries["perpo"]["delta"]["ci_high"] < 0
    for entry in entries.values():
        assert list(entry["metrics"]) == ["f1", "precision", "recall", "bleu", "meteor"]
        assert set(entry["beside"]) == {"grounding", "pope"}
    assert "too small for conclusions" in done.stdout
    assert "drawn pages" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quick_demo(tmp_path):
    code = "import sys; from perpo_eval.cli.run import demo_main; sys.exit(demo_main(['--quick']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    board = json.loads(Path(tmp_path / "runs/tiny-quick-seed0/leaderboard.json").read_text())
    gains = {entry["label"]: entry["delta"] for entry in board["entries"]}
    assert gains["base"] is None
    # Its rows are few, but the effect is large: the interval stays clear of zero.
    assert gains["perpo"]["ci_low"] > 0
    assert "too small for conclusions" in done.stdout
    # Its last words are a command, and that shows what the demo has made.
    words = shlex.split(done.stderr.splitlines()[-1], comments=True)
    assert Path(words[0]).name == "perpo-dashboard"
    results = parse_arguments(DashboardArguments, words[1:], prog="perpo-dashboard", description="").results
    shown, unreadable = find_runs(tmp_path / results)
    assert {run.record.name for run in shown} == set(gains)
    assert unreadable == []


PARSERS = {"perpo-run": RunArguments, "perpo-eval": EvalArguments, "perpo-sample": SampleArguments}


def test_the_commands_that_it_prints_are_read_as_they_are_meant(tmp_path, capsys):
    output = tmp_path / "my runs"
    again = RunArguments(recipe="a recipe.yaml", seed=3, output_dir=str(output))
    for rest, model in (([], "tiny"), (["sft", "dpo"], "tiny-ocr")):
        _say_what_next(again, model, output, rest)
        commands = [shlex.split(line, comments=True) for line in capsys.readouterr().err.splitlines()[1:]]
        programs = [Path(program).name for program, *_ in commands]
        assert programs == ["perpo-run", "perpo-eval", "perpo-sample", "perpo-dashboard"]
        run, evaluation, sampling, dashboard = (
            parse_arguments(PARSERS.get(Path(program).name, DashboardArguments), words, prog=program, description="")
            for program, *words in commands
        )
        assert run == dataclasses.replace(again, only=rest, json=not rest)
        pages = model == "tiny-ocr"
        assert evaluation == EvalArguments(model=model, limit=20, suite="ocr" if pages else "grounding")
        asked = (model, "tiny-pages", "edit") if pages else (model, "tiny", "iou")
        assert (sampling.model, sampling.questions, sampling.reward) == asked
        assert dashboard.results == output


def test_two_in_one_folder_are_refused(finished, tmp_path, capsys):
    with only_process(tmp_path / "out", "perpo-run"):
        assert finished() == 2
    assert "out is in use by another perpo-run, process" in capsys.readouterr().err
    assert finished() == 0
