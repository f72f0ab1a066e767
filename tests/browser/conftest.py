"""A real browser before real servers: Chromium, dashboards on loopback, and the runs that they show.

Where no Chromium can be had the tests skip and say so; with PERPO_NEED_BROWSER=1 they fail instead.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

from perpo.store import Run
from perpo_dashboard.show import PAGES

ROOT = Path(__file__).parents[2]
QUIET = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
IDLE = '[data-testid="stApp"][data-test-connection-state="CONNECTED"][data-test-script-state="notRunning"]'
WAIT_S = 30
expect.set_options(timeout=WAIT_S * 1000)


@dataclass
class Dashboard:
    """A running dashboard: where it listens, and what it has written to stderr so far."""

    url: str
    process: subprocess.Popen[str]
    log: Path


@dataclass
class Visitor:
    """Someone who looks at a dashboard.

    Attributes:
        page: The browser's tab.
        url: The dashboard's address.
        complaints: What the browser reported: exceptions that nobody caught, and errors of its console.
    """

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def open(self, place: str = "", **state: str) -> Page:
        """Go to a page of the dashboard, or to an address as it was copied, and wait until it is there."""
        query = f"?{urlencode(state)}" if state else ""
        path = "" if place == next(iter(PAGES)) else place  # the first page has no name in its address
        self.page.goto(place if "://" in place else f"{self.url}/{path}{query}")
        return self.settle()

    def settle(self) -> Page:
        """Wait until the script has run and the page shows what came of it."""
        self.page.locator(IDLE).wait_for(state="attached")
        # What an interaction starts is not always running yet when it returns: idle has to last.
        self.page.wait_for_function(
            """selector => new Promise(done => {
                let since = performance.now();
                const look = () => {
                    const now = performance.now();
                    const busy = !document.querySelector(selector) || document.querySelector("[data-stale='true']")
                        || document.querySelector("[data-testid='stSkeleton']");
                    if (busy) since = now;
                    now - since > 250 ? done(true) : requestAnimationFrame(look);
                };
                look();
            })""",
            arg=IDLE,
        )
        return self.page

    @property
    def state(self) -> dict[str, str]:
        """What the address says beside the page's name."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.page.url).query).items()}

    def text(self) -> str:
        """All text of the page, as it is read."""
        return self.page.get_by_test_id("stMain").inner_text()

    def errors(self) -> list[str]:
        """What the page says where a script of it failed."""
        return self.page.get_by_test_id("stException").all_inner_texts()


Serve = Callable[..., Dashboard]
Visit = Callable[..., Visitor]


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, or the one that playwright has got."""
    try:
        with sync_playwright() as playwright:
            path = shutil.which("chromium") or shutil.which("chromium-browser")
            browser = playwright.chromium.launch(executable_path=path, args=QUIET.split())
            yield browser
            browser.close()
    except Error as error:
        reason = f"no Chromium could be started: {error.message.splitlines()[0]}"
        if os.environ.get("PERPO_NEED_BROWSER") == "1":
            pytest.fail(reason)
        pytest.skip(f"{reason}; on Debian: apt-get install chromium")


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start dashboards, each once however often it is asked for; at the end none of them may have met an exception."""
    cache = tmp_path_factory.mktemp("cache")
    started: dict[tuple[Path, ...], Dashboard] = {}

    def start(results: Path, *media: Path) -> Dashboard:
        if (results, *media) not in started:
            log = tmp_path_factory.mktemp("log") / "stderr"
            started[results, *media] = _start(results, media, log, cache)
        return started[results, *media]

    yield start
    for each in started.values():
        each.process.send_signal(signal.SIGINT)
    codes = [each.process.wait(WAIT_S) for each in started.values()]
    wrong = [text for each in started.values() if "Traceback" in (text := each.log.read_text())]
    assert not wrong, "\n".join(wrong)
    assert set(codes) <= {0, 130}


def _start(results: Path, media: tuple[Path, ...], log: Path, cache: Path) -> Dashboard:
    words = ["--results", str(results), "--port", "0", *(["--media", *map(str, media)] if media else [])]
    with open(log, "w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "perpo_dashboard.cli", *words],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=log.parent,
            env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        )
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], WAIT_S)
    line = process.stdout.readline().strip() if ready else ""
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", line), f"{line!r}: {log.read_text()}"
    _wait_until_it_answers(line, process, log)
    return Dashboard(line, process, log)


def _wait_until_it_answers(url: str, process: subprocess.Popen[str], log: Path) -> None:
    end = time.monotonic() + WAIT_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=WAIT_S):
                return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, "the dashboard does not answer"
            time.sleep(0.02)


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Visit]:
    """Visitors of dashboards; at the end their browsers must not have complained."""
    visitors: list[Visitor] = []

    def arrive(dashboard: Dashboard, *, width: int = 1440, dark: bool = False) -> Visitor:
        page = chromium.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
        page.set_default_timeout(WAIT_S * 1000)
        visitor = Visitor(page, dashboard.url)
        page.on("pageerror", lambda error: visitor.complaints.append(str(error)))
        page.on("dialog", lambda dialog: (visitor.complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
        visitors.append(visitor)
        return visitor

    yield arrive
    for each in visitors:
        each.page.close()
    assert [each.complaints for each in visitors if each.complaints] == []


@pytest.fixture(scope="session")
def made_runs() -> Iterator[object]:
    """The module that makes up runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import made_runs

        yield made_runs


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
def large_pair(made_runs, tmp_path_factory) -> tuple[Path, tuple[Run, Run]]:
    """Two runs, base and perpo, of 100,000 samples each, and their folder."""
    folder = tmp_path_factory.mktemp("large")
    return folder, made_runs.write_pair(folder)


@pytest.fixture(scope="session")
def hostile_pair(made_runs, tmp_path_factory) -> tuple[Path, tuple[Run, Run]]:
    """Two small runs of the worst texts, one of them also called so; and their folder."""
    folder = tmp_path_factory.mktemp("hostile")
    names = ("base", "<b>perpo</b> **bold** $x^2$ :red[red] [l](https://example.org)")
    return folder, made_runs.write_pair(folder, 400, pictures=8, names=names, texts=list(HOSTILE.values()))


@pytest.fixture(scope="session")
def tiny_results(tmp_path_factory) -> Path:
    """A copy of what the repository keeps: the full tiny recipe's runs, a baseline, the paper's reported numbers."""
    folder = tmp_path_factory.mktemp("tiny") / "results"
    shutil.copytree(ROOT / "results", folder)
    return folder


@pytest.fixture(scope="session")
def broken_results(made_runs, tmp_path_factory) -> Path:
    """One whole pair beside runs that are broken in every way: the folder's name says which."""
    folder = tmp_path_factory.mktemp("broken")
    one, _ = made_runs.write_pair(folder, 60, pictures=2)

    def copy(kind: str) -> Path:
        return Path(shutil.copytree(one.path, folder / kind))

    (copy("no-json") / "run.json").write_text("{not json")
    (copy("half") / "run.json").write_bytes((one.path / "run.json").read_bytes()[:500])
    text = (one.path / "run.json").read_text()
    (copy("future") / "run.json").write_text(text.replace('"schema_version": 3', '"schema_version": 99'))
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
