"""A real browser before a real dashboard: for tests, measurements and screenshots."""

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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

from playwright.sync_api import BrowserContext, Error, Page, Request, WebSocket, expect, sync_playwright
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from perpo_dashboard.shared.links import PAGES

WAIT_S = 30
IDLE = '[data-testid="stApp"][data-test-connection-state="CONNECTED"][data-test-script-state="notRunning"]'
QUIET_MS = 250
"""How long nothing may happen until a page counts as settled."""

_FLAGS = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync"
_SETTLED = """([selector, quiet]) => new Promise(done => {
    let since = performance.now();
    const look = () => {
        const now = performance.now();
        const busy = "[data-stale='true'], [data-testid='stSkeleton'], [data-testid='stSpinner'],"
            + "[data-testid='stVegaLiteChart']:not(:has(canvas, svg))";
        if (!document.querySelector(selector) || document.querySelector(busy)) since = now;
        now - since > quiet ? done(true) : requestAnimationFrame(look);
    };
    look();
})"""
expect.set_options(timeout=WAIT_S * 1000)


@contextmanager
def chromium() -> Iterator[BrowserContext]:
    """The system's Chromium, or the one that playwright has got; its tabs share a cache.

    Raises:
        playwright.sync_api.Error: There is none, or it does not start.
    """
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS.split())
        yield browser.new_context()
        browser.close()


@dataclass
class Dashboard:
    """A running dashboard.

    Attributes:
        url: Where it listens.
        process: Its process.
        log: The file that its stderr goes to.
    """

    url: str
    process: subprocess.Popen[str]
    log: Path

    def stop(self) -> int:
        """Press Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(WAIT_S)


def start(results: Path, log: Path, *, cache: Path, media: Sequence[Path] = ()) -> Dashboard:
    """Start a dashboard on a free port and wait until it answers.

    Args:
        results: What it shows.
        log: The file that its stderr goes to.
        cache: Its cache folder, instead of the user's.
        media: As --media.
    """
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
    end = time.monotonic() + WAIT_S
    while not _answers(line):
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end, "the dashboard does not answer"
        time.sleep(0.02)
    return Dashboard(line, process, log)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/_stcore/health", timeout=WAIT_S):
            return True
    except OSError:
        return False


@dataclass
class Visitor:
    """Someone who looks at a dashboard.

    Attributes:
        page: The browser's tab.
        url: The dashboard's address.
        complaints: What must not happen: exceptions that nobody caught, dialogs, requests to any other site.
    """

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    _waiting: bool = False

    def __post_init__(self) -> None:
        self.page.set_default_timeout(WAIT_S * 1000)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(f"dialog {dialog.message}"), dialog.dismiss()))
        self.page.on("request", self._asked)
        self.page.on("websocket", self._connected)

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.url, "data:", "blob:")):
            self.complaints.append(f"asked for {request.url}")

    def _connected(self, socket: WebSocket) -> None:
        socket.on("framesent", self._sent)
        socket.on("framereceived", self._received)

    def _sent(self, frame: bytes | str) -> None:
        if isinstance(frame, bytes) and BackMsg.FromString(frame).WhichOneof("type") == "rerun_script":
            self._waiting = True

    def _received(self, frame: bytes | str) -> None:
        said = ForwardMsg.FromString(frame) if isinstance(frame, bytes) else ForwardMsg()
        if said.WhichOneof("type") == "script_finished" and said.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
            self._waiting = False

    def open(self, place: str = "", **state: str) -> Page:
        """Go to a page of the dashboard, or to an address as it was copied, and wait until it is there."""
        self.page.goto(place if "://" in place else self.address(place, **state))
        return self.settle()

    def address(self, page: str, **state: str) -> str:
        """The address of a page in a state."""
        path = "" if page == next(iter(PAGES)) else page  # the first page has no name in its address
        return f"{self.url}/{path}{'?' if state else ''}{urlencode(state)}"

    def settle(self) -> Page:
        """Wait until the script has run for all that was asked of it, and the page shows what came of it.

        A page that looks idle may have asked the server for another run that has not begun: so what goes to the server
        and comes from there is listened to.
        """
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            self.page.locator(IDLE).wait_for(state="attached")
            self.page.wait_for_function(_SETTLED, arg=[IDLE, QUIET_MS])
            if not self._waiting:
                return self.page
        raise TimeoutError(f"{self.page.url} is not settled after {WAIT_S} s")

    def choose(self, title: str, option: str) -> None:
        """Choose from a list, which closes by itself where charts above it still move the page: then once more."""
        wanted = self.page.get_by_role("option", name=option, exact=True)
        for wait_ms in (2000, 5000, WAIT_S * 1000):
            self.page.get_by_role("combobox", name=title).click()
            try:
                wanted.click(timeout=wait_ms)
                break
            except Error:
                self.page.keyboard.press("Escape")
        self.settle()

    def press(self, name: str) -> None:
        """Choose one of a row of buttons."""
        self.page.get_by_role("radio", name=name, exact=True).click()
        self.settle()

    @property
    def state(self) -> dict[str, str]:
        """Return what the address says beside the page's name."""
        return {name: values[0] for name, values in parse_qs(urlsplit(self.page.url).query).items()}

    def text(self) -> str:
        """All text of the page, as it is read."""
        return self.page.get_by_test_id("stMain").inner_text()

    def words(self) -> list[str]:
        """Return what the page says outside of charts, whose axes depend on the room that they have."""
        parts = ":is(h1, h2, h3, p, button, label, code, input)"
        shown = self.page.get_by_test_id("stMain").locator(parts)
        return shown.evaluate_all("all => all.filter(e => !e.closest('svg')).map(e => e.innerText || e.value || '')")

    def errors(self) -> list[str]:
        """Return what the page says where a script of it failed."""
        return self.page.get_by_test_id("stException").all_inner_texts()


def visitor(browser: BrowserContext, dashboard: Dashboard, *, width: int = 1440, dark: bool = False) -> Visitor:
    """A new visitor with a window of that width, who likes it light or dark."""
    page = browser.new_page()
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme="dark" if dark else "light")
    return Visitor(page, dashboard.url)
