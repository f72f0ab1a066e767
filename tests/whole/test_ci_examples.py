"""The CI examples: their YAML is what it should be, and their shell lines run; `test_merge_requests.py` runs all."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from perpo.records.store import find_runs
from tests.support.services import ACTION, GITLAB, WORKFLOW, bash, clean_environment, run_action, run_gitlab

PROGRAMS = {"perpo-eval": "perpo_eval.cli", "perpo-report": "perpo.cli.report", "perpo-data": "perpo.cli.data"}


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """The programs of this very code on the PATH; like installed ones, they look for nothing where they are run."""
    folder = tmp_path_factory.mktemp("bin")
    for name, module in PROGRAMS.items():
        (folder / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m {module} "$@"\n')
        (folder / name).chmod(0o755)
    path = {"PYTHONPATH": ":".join(filter(None, sys.path))}
    return clean_environment(str(folder)) | path


@pytest.fixture(scope="module")
def repository(environment, tmp_path_factory) -> Path:
    """A git repository whose branch `main` holds a baseline of twelve samples a task."""
    folder = tmp_path_factory.mktemp("repository")
    for words in (
        "perpo-eval --model tiny --suite grounding --data tiny --limit 12 --output results/baselines",
        "perpo-report approve results/baselines --why 'the first' --who Ada",
        "git init -q -b main",
        "git add -A",
        "git -c user.name=a -c user.email=a@b commit -qm baseline",
        "git remote add origin .",
    ):
        code, printed = bash(words, folder, environment)
        assert code == 0, printed
    return folder


def _expressions(node: object) -> list[str]:
    return re.findall(r"\$\{\{.*?\}\}", yaml.safe_dump(node))


def test_the_action_runs_and_says_what_it_found(repository, environment, tmp_path) -> None:
    inputs = {"install": "", "model": "tiny", "limit": "12", "baseline": str(repository / "results" / "baselines")}
    done = run_action(repository, tmp_path, environment, inputs | {"need_approved": "true"})
    assert done.code == 0, done.printed
    assert done.summary.startswith("**≡ identical: tiny against tiny**")
    assert "The baseline is approved by Ada" in done.summary
    assert {path.name for path in done.report.iterdir()} == {f"report.{kind}" for kind in ("md", "xml", "html", "json")}

    # A run that is there is not made again. Other data: refused with code 2, and nothing pretends to be a report.
    again = tmp_path / "again"
    again.mkdir()
    inputs |= {"candidate": str(tmp_path / "perpo" / "results"), "model": "there is none"}
    assert run_action(repository, again, environment, inputs).code == 0
    (again / "GITHUB_STEP_SUMMARY").unlink()
    done = run_action(repository, again, environment, inputs | {"baseline": str(tmp_path / "nowhere")})
    assert (done.code, done.summary) == (2, "")


def test_no_input_is_ever_part_of_a_script() -> None:
    """What a pull request can set reaches the shell as a variable, not as text of the script."""
    steps = [*ACTION["runs"]["steps"], *WORKFLOW["jobs"]["gate"]["steps"]]
    assert all("${{" not in step.get("run", "") for step in steps)
    used = {text.strip("${} ").removeprefix("inputs.") for text in _expressions(ACTION["runs"]) if "inputs" in text}
    assert used == set(ACTION["inputs"])


def test_an_input_that_is_shell_stays_a_word(environment, tmp_path) -> None:
    (tmp_path / "x").mkdir()
    hostile = f'"; touch {tmp_path}/x/gone; $(touch {tmp_path}/x/gone) `touch {tmp_path}/x/gone` #'
    inputs = dict.fromkeys(ACTION["inputs"], hostile)
    for given in (inputs, inputs | {"install": "", "rows": ""}, inputs | {"install": "", "rows": "", "candidate": ""}):
        assert run_action(tmp_path, tmp_path, environment | {"PIP_NO_INDEX": "1"}, given).code != 0
    assert run_gitlab(tmp_path, environment | {"PIP_NO_INDEX": "1"}, hostile, {"INSTALL": hostile}).code != 0
    assert list((tmp_path / "x").iterdir()) == []


def test_the_workflow_may_only_read() -> None:
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert set(WORKFLOW[True]) == {"pull_request"}  # YAML 1.1 reads `on` as true
    gate = next(step for step in WORKFLOW["jobs"]["gate"]["steps"] if step.get("id") == "gate")
    assert set(gate["with"]) <= set(ACTION["inputs"])
    assert {name for name, value in ACTION["inputs"].items() if value.get("required")} <= set(gate["with"])


def test_what_holds_a_candidate_comes_from_the_base_branch() -> None:
    gate = next(step for step in WORKFLOW["jobs"]["gate"]["steps"] if step.get("id") == "gate")
    base = "${{ runner.temp }}/base/results/baselines"
    assert (gate["with"]["baseline"], gate["with"]["pinned"]) == (base, f"{base}/pinned.yaml")
    assert GITLAB["perpo-gate"]["variables"]["PINNED"] == "perpo-gate/base/results/baselines/pinned.yaml"


def test_the_base_branchs_record_is_fetched(repository, environment, tmp_path) -> None:
    (step,) = [s for s in WORKFLOW["jobs"]["gate"]["steps"] if "base branch" in s.get("name", "")]
    code, printed = bash(step["run"], repository, environment | {"RUNNER_TEMP": str(tmp_path), "BASE": "main"})
    assert code == 0, printed
    assert len(find_runs(tmp_path / "base" / "results" / "baselines")[0]) == 1


def test_gitlabs_script_runs(repository, environment) -> None:
    job = GITLAB["perpo-gate"]
    env = environment | {name: str(value) for name, value in job["variables"].items()}
    env |= {"CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main", "LIMIT": "12", "ROWS": "", "PINNED": ""}
    code, printed = bash("\n".join(job["script"]), repository, env)
    assert code == 0, printed
    for path in [*job["artifacts"]["paths"], job["artifacts"]["reports"]["junit"]]:
        assert (repository / path).is_file()
    assert ElementTree.parse(repository / job["artifacts"]["reports"]["junit"]).getroot().attrib["failures"] == "0"


def test_the_scripts_of_both_are_shell_without_faults(tmp_path) -> None:
    scripts = [step["run"] for step in (*ACTION["runs"]["steps"], *WORKFLOW["jobs"]["gate"]["steps"]) if "run" in step]
    scripts.append("\n".join([*GITLAB["perpo-gate"]["before_script"], *GITLAB["perpo-gate"]["script"]]))
    for script in scripts:
        subprocess.run(["bash", "-n", "-c", script], check=True)
