"""Merge requests on the templates, run as the services run them: from a wheel, on data of one's own.

A scratch repository holds a baseline, approved, with a pinned case. Three merge requests change the model: not at all;
by so little that no statistics can tell, but a pinned case is lost; and so much that it is worse.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from xml.etree import ElementTree

import pytest

from perpo.records.store import find_runs
from perpo.results.regression.report import compare_runs
from perpo.tiny.world.rows import benchmark_rows
from perpo_eval.cli.eval import main as evaluate
from tests.support import ROOT
from tests.support.services import GITLAB_TEXT, WORKFLOW_TEXT, bash, clean_environment, run_gitlab, run_workflow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

IMAGES = 40
REASON = "a customer reported it"
WHEEL = "./dist/perpo-*.whl"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of this checkout, built beside it."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("tests/", "results/")):
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(folder / "source")], check=True)
    return next(folder.glob("perpo-*.whl"))


@pytest.fixture
def job(tmp_path) -> dict[str, str]:
    """A fresh environment that has all that perpo needs, and no perpo: nothing is downloaded, all else is as there."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(tmp_path / "env")}))
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "perpo" not in entry.name:
            (site / entry.name).symlink_to(entry)
    env = clean_environment(str(tmp_path / "env" / "bin"))
    return env | {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def story(wheel, tmp_path_factory) -> dict[str, str]:
    """The repository with its branches, and the key of the pinned case."""
    folder = tmp_path_factory.mktemp("story")
    repository = folder / "repository"
    _own_rows(repository / "evaluation")
    (repository / "dist").mkdir()
    shutil.copy(wheel, repository / "dist")
    _git(repository, "init -q -b main", "remote add origin .")
    lines = [line[4:] for line in WORKFLOW_TEXT.splitlines() if line.startswith(("#   perpo-", "#   git "))]
    assert lines == [line[4:] for line in GITLAB_TEXT.splitlines() if line.startswith(("#   perpo-", "#   git "))]
    key = ""
    for line in lines:
        program, *words = shlex.split(line)
        if words[0] == "pin":
            key = _models(repository, folder)
        words = [{"MODEL": "tiny", "KEY": key}.get(word, word) for word in words]
        _program(repository, program, words)
    _git(repository, "add -A", "commit -qm baseline")
    for name in ("slight", "heavy"):
        _git(repository, f"checkout -q -b {name} main")
        shutil.copytree(folder / name, repository / "model")
        _git(repository, "add -A", f"commit -qm {name}")
    return {"repository": str(repository), "key": key}


def _own_rows(folder: Path) -> None:
    """Pictures and boxes as a user would have them: files, and a line of JSON each."""
    (folder / "pictures").mkdir(parents=True)
    lines = []
    for row in benchmark_rows("refshapes", "val", images=IMAGES):
        row["image"].save(folder / "pictures" / row["file_name"])
        x, y, width, height = row["bbox"]
        own = {"image": f"pictures/{row['file_name']}", "answer": [x, y, x + width, y + height]}
        lines += [json.dumps(own | {"expression": expression}) for expression in row["answer"]]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")


def _program(folder: Path, program: str, words: list[str]) -> None:
    """Run a program of this checkout; git as it is."""
    modules = {"perpo-data": "perpo.cli.data", "perpo-eval": "perpo_eval.cli", "perpo-report": "perpo.cli.report"}
    command = ["git", *words] if program == "git" else [sys.executable, "-P", "-m", modules[program], *words]
    env = os.environ | {"PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _git(folder: Path, *commands: str) -> None:
    for command in commands:
        code, printed = bash(f"git -c user.name=a -c user.email=a@b {command}", folder, os.environ)
        assert code == 0, printed


def _models(repository: Path, folder: Path) -> str:
    """Make a model that loses little and one that loses all; return the key of a sample that the first loses."""
    (base,) = find_runs(repository / "results" / "baselines")[0]
    for share in (0.02, 0.05, 0.1, 0.2, 0.3):
        run = _noisy(repository, folder / "slight", share)
        right = [{row["sample_key"]: row["scores"]["acc@0.5"] for row in _rows(each)} for each in (base, run)]
        lost = sorted(key for key, score in right[0].items() if score > right[1][key])
        if lost and compare_runs(base, run).verdict == "inconclusive":
            break
    else:
        pytest.fail("no noise loses a sample without being seen")
    assert compare_runs(base, _noisy(repository, folder / "heavy", 3.0)).verdict == "regressed"
    return lost[0][:12]


def _rows(run) -> list[dict]:
    return run.samples(["sample_key", "scores"]).to_pylist()


def _noisy(repository: Path, place: Path, share: float):
    """The embedded model with noise on its weights, evaluated; `share` is the noise's, of each weight's spread."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(ROOT / "perpo" / "tiny" / "checkpoint", place)
    generator, weights = torch.Generator().manual_seed(0), load_file(place / "model.safetensors")
    for name, weight in weights.items():
        if weight.is_floating_point() and weight.numel() > 1:
            noise = torch.randn(weight.shape, generator=generator) * weight.float().std()
            weights[name] = (weight.float() + share * noise).to(weight.dtype)
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    output = place.with_name(f"{place.name}-{share}")
    words = ["--model", str(place), "--suite", "grounding", "--data", str(repository / "data"), "--output", str(output)]
    assert evaluate(words) == 0
    return find_runs(output)[0][-1]


def _checkout(story: dict[str, str], branch: str, place: Path) -> Path:
    """A fresh clone, as a runner makes one."""
    subprocess.run(["git", "clone", "-q", "--branch", branch, story["repository"], str(place)], check=True)
    return place


CASES = [("main", "tiny", 0), ("slight", "./model", 1), ("heavy", "./model", 1)]


@pytest.mark.parametrize(("branch", "model", "code"), CASES)
def test_github_gates_a_merge_request(story, job, tmp_path, branch, model, code) -> None:
    temp = tmp_path / "temp"
    temp.mkdir()
    checkout = _checkout(story, branch, tmp_path / "checkout")
    done = run_workflow(checkout, temp, job, "main", {"install": WHEEL, "model": model})
    assert done.code == code, done.printed
    assert "Successfully installed perpo" in done.printed
    assert done.report is not None
    _named(story, branch, done.printed, done.report, done.summary)


@pytest.mark.parametrize(("branch", "model", "code"), CASES)
def test_gitlab_gates_a_merge_request(story, job, tmp_path, branch, model, code) -> None:
    checkout = _checkout(story, branch, tmp_path / "checkout")
    done = run_gitlab(checkout, job, "main", {"INSTALL": WHEEL, "MODEL": model})
    assert done.code == code, done.printed
    assert "Successfully installed perpo" in done.printed
    assert done.report is not None
    _named(story, branch, done.printed, done.report, (done.report / "report.md").read_text())


def _named(story: dict[str, str], branch: str, printed: str, report: Path, summary: str) -> None:
    """What failed is named in the log, the summary, the page and JUnit; what did not, is not."""
    page = (report / "report.html").read_text()
    suite = ElementTree.parse(report / "report.xml").getroot()
    failed = {case.attrib["name"] for case in suite.iter("testcase") if case.find("failure") is not None}
    pinned = f"boxes_own {story['key'][:12]}"
    loss = "boxes_own acc@0.5"
    expected = {"main": set(), "slight": {pinned}, "heavy": {pinned, loss}}[branch]
    if branch == "heavy":  # whose answers cannot be read and do not end, which gates too
        assert failed >= expected
    else:
        assert failed == expected
    headline = re.compile(
        r"(\w+): \w+ against tiny(?: \((.*?) points\))?(?:; pinned cases failed: (\S+ \S+) \((.*?)\))?"
    )
    for text in (printed, summary, page):
        found = headline.search(" ".join(text.split()))
        assert found is not None
        assert (found[1] == "regressed") == bool(expected)
        assert (found[3], found[4]) == ((pinned, REASON) if pinned in expected else (None, None))
        assert ("boxes_own -" in (found[2] or "")) == (loss in expected)
    assert "The baseline is approved by " in summary
    assert "tokens an answer" in summary


def test_a_baseline_that_nobody_approved_holds_nobody(story, job, tmp_path) -> None:
    checkout = _checkout(story, "main", tmp_path / "checkout")
    (approval,) = checkout.rglob("approval.json")
    _git(checkout, f"rm -q {approval.relative_to(checkout)}", "commit -qm gone", "remote set-url origin .")
    temp = tmp_path / "temp"
    temp.mkdir()
    done = run_workflow(checkout, temp, job, "main", {"install": WHEEL})
    assert done.code == 2
    assert "is not approved: nobody approved it" in done.printed
    assert done.summary == ""
