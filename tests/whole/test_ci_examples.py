"""The CI examples: their YAML is what it should be, and their shell lines run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from perpo.records.store import find_runs
from tests.support import ROOT

CI = ROOT / "docs" / "ci"
ACTION = yaml.safe_load((CI / "github" / "perpo-gate" / "action.yml").read_text())
WORKFLOW = yaml.safe_load((CI / "github" / "workflow.yml").read_text())
GITLAB = yaml.safe_load((CI / "gitlab" / "gitlab-ci.yml").read_text())


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> str:
    """A folder with the programs of this very code, for PATH; like them, they look for nothing where they are run."""
    folder = tmp_path_factory.mktemp("bin")
    for name, module in (("perpo-eval", "perpo_eval.cli"), ("perpo-report", "perpo.cli.report")):
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m {module} "$@"\n')
        (folder / name).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.fixture(scope="module")
def repository(programs, tmp_path_factory) -> Path:
    """A git repository whose branch `main` holds a baseline of twelve samples a task."""
    folder = tmp_path_factory.mktemp("repository")
    words = "perpo-eval --model tiny --suite grounding --data tiny --limit 12 --output results/baselines"
    _run(words, folder, {"PATH": programs})
    for words in (
        "git init -q -b main",
        "git add -A",
        "git -c user.name=a -c user.email=a@b commit -qm baseline",
        "git remote add origin .",
    ):
        _run(words, folder, {})
    return folder


def _run(script: str, folder: Path, env: dict[str, str], *, code: int = 0) -> str:
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def _expressions(node: object) -> list[str]:
    return re.findall(r"\$\{\{.*?\}\}", yaml.safe_dump(node))


def test_the_action_runs_and_says_what_it_found(repository, programs, tmp_path) -> None:
    env = {"PATH": programs, "RUNNER_TEMP": str(tmp_path)}
    env |= {name: str(tmp_path / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    inputs = {name: str(value.get("default", "")) for name, value in ACTION["inputs"].items()}
    inputs |= {"model": "tiny", "limit": "12", "baseline": str(repository / "results" / "baselines")}
    evaluate, compare = ACTION["runs"]["steps"]
    for step in (evaluate, compare):
        values = {name: inputs[re.sub(r"[${} ]|inputs\.", "", text)] for name, text in step["env"].items()}
        _run(step["run"], tmp_path, env | values)
    assert (tmp_path / "GITHUB_STEP_SUMMARY").read_text().startswith("**≡ identical: tiny against tiny**")
    report = Path((tmp_path / "GITHUB_OUTPUT").read_text().strip().removeprefix("report="))
    assert {path.name for path in report.iterdir()} == {f"report.{kind}" for kind in ("md", "xml", "html", "json")}

    # Other data: refused with code 2, and nothing pretends to be a report.
    (tmp_path / "GITHUB_STEP_SUMMARY").unlink()
    values = {"BASELINE": str(tmp_path / "nowhere"), "THRESHOLD": "0.5", "FAIL_ON": "regressed"}
    again = tmp_path / "again"
    (again / "perpo").mkdir(parents=True)
    (again / "perpo" / "results").symlink_to(tmp_path / "perpo" / "results")
    _run(compare["run"], tmp_path, env | values | {"RUNNER_TEMP": str(again)}, code=2)
    assert not (tmp_path / "GITHUB_STEP_SUMMARY").exists()


def test_no_input_is_ever_part_of_a_script(repository) -> None:
    """What a pull request can set reaches the shell as a variable, not as text of the script."""
    steps = [*ACTION["runs"]["steps"], *WORKFLOW["jobs"]["gate"]["steps"]]
    assert all("${{" not in step.get("run", "") for step in steps)
    used = {text.strip("${} ").removeprefix("inputs.") for text in _expressions(ACTION["runs"]) if "inputs" in text}
    assert used == set(ACTION["inputs"])


def test_the_workflow_may_only_read(repository) -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert set(WORKFLOW[True]) == {"pull_request"}  # YAML 1.1 reads `on` as true
    gate = next(step for step in WORKFLOW["jobs"]["gate"]["steps"] if step.get("id") == "gate")
    assert set(gate["with"]) <= set(ACTION["inputs"])
    assert {name for name, value in ACTION["inputs"].items() if value.get("required")} <= set(gate["with"])


def test_the_base_branchs_record_is_fetched(repository, tmp_path) -> None:
    (step,) = [s for s in WORKFLOW["jobs"]["gate"]["steps"] if "base branch" in s.get("name", "")]
    _run(step["run"], repository, {"RUNNER_TEMP": str(tmp_path), "BASE": "main"})
    assert len(find_runs(tmp_path / "base" / "results" / "baselines")[0]) == 1


def test_gitlabs_script_runs(repository, programs) -> None:
    job = GITLAB["perpo-gate"]
    env = {"PATH": programs, "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main"}
    env |= {name: str(value) for name, value in job["variables"].items()} | {"LIMIT": "12"}
    _run("\n".join(job["script"]), repository, env)
    for path in [*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]]:
        assert (repository / path).is_file()
    assert ElementTree.parse(repository / job["artifacts"]["reports"]["junit"]).getroot().attrib["failures"] == "0"
