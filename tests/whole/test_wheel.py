"""A wheel in an empty environment elsewhere has all it needs: checkpoint, task files, recipes."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.support import ROOT


def _run(*command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    return next(folder.glob("*.whl"))


def test_the_wheel_carries_what_is_needed_and_no_module_called_eval(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for needed in (
        "perpo/tiny/checkpoint/model.safetensors",
        "perpo/tiny/checkpoint/tokenizer.json",
        "perpo/tiny/ocr_checkpoint/model.safetensors",
        "perpo/tiny/ocr_checkpoint/tokenizer.json",
        "perpo_eval/recipes/tiny.yaml",
        "perpo_dashboard/__init__.py",
        "perpo_dashboard/leaderboard/page.py",
    ):
        assert needed in names
    assert any(name.startswith("perpo_eval/tasks/") and name.endswith(".yaml") for name in names)
    tops = {name.split("/")[0] for name in names if not name.split("/")[0].endswith(".dist-info")}
    assert tops == {"perpo", "perpo_eval", "perpo_dashboard"}
    assert Path(wheel).stat().st_size < 17_000_000  # two checkpoints of 8 MB each


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_an_empty_environment_evaluates_the_embedded_model(wheel, tmp_path):
    _run(sys.executable, "-m", "venv", tmp_path / "env")
    python = tmp_path / "env/bin/python"
    _run(python, "-m", "pip", "install", "--quiet", f"{wheel}[eval]", "-c", ROOT / "constraints.txt")
    _run(python, ROOT / "tools/mend_torchvision.py")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    printed = _run(
        tmp_path / "env/bin/perpo-eval", "--suite", "grounding", "--limit", 20, "--json", cwd=elsewhere, env=environment
    )
    record = json.loads(printed)
    assert record["status"] == "complete"
    assert [task["n_scored"] for task in record["tasks"]] == [20] * 8
