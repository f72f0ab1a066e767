"""A real browser before real servers: Chromium, dashboards on loopback, and the runs that they show.

Where no Chromium can be had the tests skip and say so; with PERPO_NEED_BROWSER=1 they fail instead.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from playwright.sync_api import BrowserContext, Error

from perpo.records.run_record import SCHEMA_VERSION
from perpo.records.store import Run
from tests.support import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import made_runs
import visiting
from visiting import Dashboard, Visitor

Serve = Callable[..., Dashboard]
Visit = Callable[..., Visitor]


@pytest.fixture(scope="session", name="made_runs")
def _made_runs() -> ModuleType:
    """The module that makes up runs."""
    return made_runs


@pytest.fixture(scope="package")
def chromium() -> Iterator[BrowserContext]:
    """A browser for all tests here; each visitor has a tab.

    It ends with this folder: as long as it lives its event loop runs in this thread, and no other can.
    """
    try:
        with visiting.chromium() as browser:
            yield browser
    except Error as error:
        reason = f"no Chromium could be started: {error.message.splitlines()[0]}"
        if os.environ.get("PERPO_NEED_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(f"{reason}; on Debian: apt-get install chromium")


@pytest.fixture(scope="package")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start dashboards, each once however often it is asked for; at the end none of them may have met an exception."""
    cache = tmp_path_factory.mktemp("cache")
    started: dict[tuple[Path, ...], Dashboard] = {}

    def start(results: Path, *media: Path) -> Dashboard:
        if (results, *media) not in started:
            log = tmp_path_factory.mktemp("log") / "stderr"
            started[results, *media] = visiting.start(results, log, cache=cache, media=media)
        return started[results, *media]

    yield start
    codes = [each.stop() for each in started.values()]
    assert [text for each in started.values() if "Traceback" in (text := each.log.read_text())] == []
    assert set(codes) <= {0, 130}


@pytest.fixture
def visit(chromium: BrowserContext) -> Iterator[Visit]:
    """Visitors of dashboards; at the end their browsers must not have complained, nor asked for any other site."""
    visitors: list[Visitor] = []

    def arrive(dashboard: Dashboard, *, width: int = 1440, dark: bool = False) -> Visitor:
        visitors.append(visiting.visitor(chromium, dashboard, width=width, dark=dark))
        return visitors[-1]

    yield arrive
    for each in visitors:
        each.page.close()
    assert [each.complaints for each in visitors if each.complaints] == []


HOSTILE = {
    "script": "<script>alert('perpo')</script><img src=x onerror=\"alert('perpo')\"><b>bold?</b>",
    "markdown": "# Heading?\n\n**bold?** _italic?_ [a link](https://example.org) ![picture](x.png) `code?`\n\n| a |\n",
    "latex": r"$x^2$ and $$\int_0^1 f$$ and \(y\) and \[z\]",
    "directives": ":red[red?] :material/home: :streamlit: :orange-badge[badge?] :shortcode: :smile:",
    "emoji": "\U0001f9d1\U0001f3fd‍\U0001f680 \U0001f1fa\U0001f1e6 ✊\U0001f3ff é Z̸̢͘algo",
    "right to left": "שלום עולם ‮ reversed ‬ مرحبا",
    "address": "https://example.org www.example.org someone@example.org javascript:alert(1)",
    "long": "long " * 10_000,
    "one word": "w" * 5_000,
    "controls": "tab\there, bell\x07, escape\x1b[31m, nothing\x00, feed\x0c end",
    "blank": " \n\n ",
    "empty": "",
}
"""What models may say and people may ask."""


@pytest.fixture(scope="session")
def hostile_texts() -> dict[str, str]:
    """What models may say and people may ask, by its kind."""
    return HOSTILE


@pytest.fixture(scope="session")
def large_pair(tmp_path_factory) -> tuple[Path, tuple[Run, Run]]:
    """Two runs, base and perpo, of 100,000 samples each, and their folder."""
    folder = tmp_path_factory.mktemp("large")
    return folder, made_runs.write_pair(folder)


@pytest.fixture(scope="session")
def hostile_pair(tmp_path_factory) -> tuple[Path, tuple[Run, Run]]:
    """Two small runs of the worst texts, one of them also called so; and their folder."""
    folder = tmp_path_factory.mktemp("hostile")
    names = ("base", "<b>perpo</b> **bold** $x^2$ :red[red] [l](https://example.org)")
    return folder, made_runs.write_pair(folder, 400, pictures=8, names=names, texts=list(HOSTILE.values()))


@pytest.fixture(scope="session")
def tiny_results(tmp_path_factory) -> Path:
    """A copy of what the repository keeps: the full tiny recipe's runs, a baseline, the paper's reported numbers.

    The runs on pages are left out: they have the same names.
    """
    folder = tmp_path_factory.mktemp("tiny") / "results"
    shutil.copytree(ROOT / "results", folder, ignore=shutil.ignore_patterns("tiny-ocr"))
    return folder


@pytest.fixture(scope="session")
def broken_results(tmp_path_factory) -> Path:
    """One whole pair beside runs that are broken in every way: the folder's name says which."""
    folder = tmp_path_factory.mktemp("broken")
    one, _ = made_runs.write_pair(folder, 60, pictures=2)

    def copy(kind: str) -> Path:
        return Path(shutil.copytree(one.path, folder / kind))

    (copy("no-json") / "run.json").write_text("{not json")
    (copy("half") / "run.json").write_bytes((one.path / "run.json").read_bytes()[:500])
    text = (one.path / "run.json").read_text()
    (copy("future") / "run.json").write_text(
        text.replace(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 99')
    )
    (copy("wrong-type") / "run.json").write_text(text.replace('"status": "complete"', '"status": "<b>fine</b>"'))
    for kind in ("samples-missing", "samples-changed"):
        file = copy(kind) / "run.json"
        file.write_text(text.replace(one.record.run_id, f"{one.record.run_id}-{kind}").replace('"base"', f'"{kind}"'))
    (folder / "samples-missing" / "samples.parquet").unlink()
    with open(folder / "samples-changed" / "samples.parquet", "ab") as file:
        file.write(b"x")
    return folder


@pytest.fixture(scope="session")
def no_results(tmp_path_factory) -> Path:
    """A folder without anything."""
    return tmp_path_factory.mktemp("nothing")
