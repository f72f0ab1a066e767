"""The dashboard's benchmark runs at a small size, and the pictures for the documentation are taken."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from PIL import Image

from perpo_dashboard.shared.links import PAGES
from tests.support import ROOT

WAITED = ("first useful paint", "all of it")


def run(script: str, *words: object) -> str:
    """Standard output of a script of the repository."""
    command = [sys.executable, str(ROOT / script), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_everything_that_is_waited_for_is_measured(chromium) -> None:
    table = run("benchmarks/dashboard.py", "--samples", 3000, "--repeats", 1)
    found = dict(re.findall(r"^(\S.*?)\s{2,}([\d.]+) ", table, re.MULTILINE))
    pages = set(PAGES) - {"training"}
    paints = {f"{page}: {what}, {how}" for page in pages for what in WAITED for how in ("cold", "warm")}
    others = {"start of the program", "filter change: task", "filter change: words in the question", "next sample"}
    assert set(found) == paints | others | {"most memory of a server"}
    assert all(0 < float(number) < 60 for name, number in found.items() if "memory" not in name)
    assert 100 < float(found["most memory of a server"]) < 1536


@pytest.mark.slow
def test_pictures_are_taken_in_every_look(chromium, tiny_results, tmp_path) -> None:
    run("tools/screenshots.py", "--results", tiny_results, "--output", tmp_path, "--page", "compare")
    files = {path.name: Image.open(path) for path in tmp_path.iterdir()}
    assert set(files) == {
        f"dashboard-compare-{look}-{width}.png" for look in ("light", "dark") for width in (1440, 900)
    }
    for name, picture in files.items():
        assert picture.width == int(name.removesuffix(".png").rpartition("-")[2])
        brightness = picture.convert("L").resize((1, 1)).getpixel((0, 0))
        assert (brightness > 128) == ("light" in name)
