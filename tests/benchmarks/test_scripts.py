"""The measuring scripts of benchmarks/ still fit the packages: each can be imported, and the simulation runs."""

import subprocess
import sys

import pytest

from tests.support import ROOT

SCRIPTS = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py"))


def python(*words: str) -> str:
    """Run Python among the scripts; return what it printed."""
    done = subprocess.run([sys.executable, *words], cwd=ROOT / "benchmarks", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_every_script_can_be_imported() -> None:
    assert "simulate_tests" in SCRIPTS
    python("-c", f"import importlib\nfor name in {SCRIPTS}: importlib.import_module(name)")


@pytest.mark.parametrize("part", ["gate", "seeds", "equivalence"])
def test_the_simulation_makes_its_tables(part: str) -> None:
    assert "Percent of" in python("simulate_tests.py", "--trials", "2", "--part", part)
