"""A CI service as far as our templates need one: steps of GitHub's actions and GitLab's jobs, run with bash."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support import ROOT

CI = ROOT / "docs" / "ci"
ACTION = yaml.safe_load((CI / "github" / "perpo-gate" / "action.yml").read_text())
WORKFLOW_TEXT = (CI / "github" / "workflow.yml").read_text()
WORKFLOW = yaml.safe_load(WORKFLOW_TEXT)
GITLAB_TEXT = (CI / "gitlab" / "gitlab-ci.yml").read_text()
GITLAB = yaml.safe_load(GITLAB_TEXT)

_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")


@dataclass(frozen=True)
class Done:
    """How a job ended: its exit code, all that it printed, what it left as GitHub's output and step summary."""

    code: int
    printed: str
    report: Path | None = None
    summary: str = ""


def bash(script: str, folder: Path, env: Mapping[str, str]) -> tuple[int, str]:
    """Run a script as both services do: bash that ends at the first failure."""
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script],
        cwd=folder,
        env=dict(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def run_action(folder: Path, temp: Path, env: Mapping[str, str], given: Mapping[str, str]) -> Done:
    """Run the composite action's steps on a checkout, up to the first that fails."""
    unknown = set(given) - set(ACTION["inputs"])
    assert not unknown, unknown
    inputs = {name: str(value.get("default", "")) for name, value in ACTION["inputs"].items()} | dict(given)
    values = {f"inputs.{name}": value for name, value in inputs.items()}
    files = {name: temp / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    env = {**env, "RUNNER_TEMP": str(temp), **{name: str(path) for name, path in files.items()}}
    printed, code = "", 0
    for step in ACTION["runs"]["steps"]:
        assert step["shell"] == "bash"
        if not _holds(step.get("if", ""), inputs):
            continue
        code, said = bash(step["run"], folder, {**env, **_filled(step.get("env", {}), values)})
        printed += said
        if code:
            break
    output, summary = (path.read_text() if path.exists() else "" for path in files.values())
    report = Path(output.strip().removeprefix("report=")) if output else None
    return Done(code, printed, report, summary)


def run_workflow(folder: Path, temp: Path, env: Mapping[str, str], base: str, changes: Mapping[str, str]) -> Done:
    """Run the workflow's steps on a checkout; those of other people's actions are left out.

    Args:
        folder: The checkout.
        temp: The runner's folder for files of a job.
        env: The environment.
        base: Name of the base branch.
        changes: Inputs that a user of the template gives otherwise.
    """
    values = {"github.base_ref": base, "runner.temp": str(temp)}
    for step in WORKFLOW["jobs"]["gate"]["steps"]:
        if "run" in step:
            script_env = {**env, "RUNNER_TEMP": str(temp), **_filled(step.get("env", {}), values)}
            code, printed = bash(step["run"], folder, script_env)
            if code:
                return Done(code, printed)
        elif step["uses"] == "./.github/actions/perpo-gate":
            return run_action(folder, temp, env, _filled(step["with"], values) | dict(changes))
    raise AssertionError("the workflow does not use the action")


def run_gitlab(folder: Path, env: Mapping[str, str], base: str, changes: Mapping[str, str]) -> Done:
    """Run GitLab's job on a checkout, its installation included, in one shell."""
    job = GITLAB["perpo-gate"]
    variables = {name: str(value) for name, value in job["variables"].items()} | dict(changes)
    assert set(changes) <= set(job["variables"])
    env = {**env, **variables, "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": base}
    code, printed = bash("\n".join([*job["before_script"], *job["script"]]), folder, env)
    junit = folder / job["artifacts"]["reports"]["junit"]
    return Done(code, printed, junit.parent if junit.is_file() else None)


def _filled(words: Mapping[str, Any], values: Mapping[str, str]) -> dict[str, str]:
    """Texts with the service's expressions as their values."""
    return {name: _EXPRESSION.sub(lambda found: values[found[1]], str(text)) for name, text in words.items()}


def _holds(condition: str, inputs: Mapping[str, str]) -> bool:
    """Whether a step runs; the only conditions of the action's are that an input is, or is not, empty."""
    if not condition:
        return True
    name, sign = re.fullmatch(r"inputs\.(\w+) (==|!=) ''", condition).groups()  # type: ignore[union-attr]
    return (inputs[name] == "") == (sign == "==")


def clean_environment(programs: str) -> dict[str, str]:
    """The environment of a fresh job: no settings of Python's or git's, and these programs before all others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "GIT_", "PERPO_"))}
    return kept | {"PATH": f"{programs}:{os.environ['PATH']}"}
