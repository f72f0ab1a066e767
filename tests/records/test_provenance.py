"""Where a result came from."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import version

from perpo.records import provenance
from tests.support import ROOT


def test_the_commit_is_that_of_the_checkout():
    found = provenance.code_version()
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    assert found["commit"] == (head.stdout.strip() if head.returncode == 0 else None)
    assert found["version"] == version("perpo")


def test_outside_of_a_checkout_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "site" / "perpo" / "provenance.py"))
    assert provenance.code_version() == {"version": version("perpo"), "commit": None, "dirty": None}


def test_packages_are_those_installed():
    found = provenance.package_versions(["torch", "no-such-package"])
    assert found == {"python": platform.python_version(), "torch": version("torch")}


def test_hardware():
    found = provenance.hardware("cpu")
    assert found["device"] == "cpu"
    assert found["cpus"] >= 1
