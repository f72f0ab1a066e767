"""Measure how long the dashboard makes people wait, in a real browser over two runs of 100,000 samples each.

Medians of: the start of the program until it answers; the first useful paint of a page, from the address being entered
until what it is for is there (its first table, the counts, the sample's picture), and the whole page, by a server that
has just been started (cold) and by one that has shown it before (warm);
a change of the filter until the new count of samples is shown, each of them new to the server; the next sample, by its
key, until it is named and its picture is painted. Then the most memory that a server held. Counts and order are held
against the runs' tables. There is no peer. Run: python benchmarks/dashboard.py
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.compute as pc
import visiting
from made_answers import TASKS
from made_runs import write_pair
from playwright.sync_api import BrowserContext
from visiting import Dashboard, Visitor

from perpo.records.store import Run
from perpo_dashboard.shared.links import PAGES, label_of

USEFUL = {
    "leaderboard": "[data-testid='stDataFrame'] canvas",
    "compare": "[data-testid='stMain'] [data-testid='stButton'] button",
    "samples": "[data-testid='stImage'] img",
    "vote": "[data-testid='stMain'] [data-testid='stButton'] button",
    "regressions": "[data-testid='stDataFrame'] canvas",
}
"""What a page is for; these runs have no training."""

_USEFUL = """selector => { const found = document.querySelector(selector);
    return found && (found.tagName !== "IMG" || (found.complete && found.naturalWidth > 0)); }"""
_PAINTED = """([title, idle]) => document.querySelector("h1")?.innerText === title
    && document.querySelector(idle) && !document.querySelector("[data-testid='stSkeleton'], [data-stale='true']")
    && [...document.images].every(image => image.complete && image.naturalWidth > 0)"""
_COUNTED = """words => document.querySelector("[data-testid='stMain']").innerText.includes(words)"""
_OPENED = """([label, key]) => document.querySelector(`[aria-label='${label}']`)?.value.startsWith(key)
    && [...document.images].every(image => image.complete && image.naturalWidth > 0)
    && !document.querySelector("[data-testid='stImage'] [data-stale='true']")"""


def main() -> None:
    """Print a line for each thing that is waited for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000, help="samples of each run")
    parser.add_argument("--repeats", type=int, default=5, help="how often each thing is done")
    args = parser.parse_args()
    load = f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs before it"
    with tempfile.TemporaryDirectory() as name, visiting.chromium() as browser:
        folder = Path(name)
        runs = write_pair(folder / "results", args.samples)
        print(f"2 runs of {args.samples:,} samples, {args.repeats} repeats, {load}")
        print(f"{'':<40} {'median s':>8} {'worst s':>8}  aim")
        peaks = [_first_paints(folder, browser, runs, args.repeats), _steps(folder, browser, runs, args.repeats)]
        print(f"{'most memory of a server':<40} {max(peaks):>8.0f} MiB, aim below 1,536 MiB")


def _first_paints(folder: Path, browser: BrowserContext, runs: Sequence[Run], repeats: int) -> float:
    """Every page, cold and warm; the most memory in MiB."""
    state = dict(zip("ab", map(label_of, runs), strict=True))
    server = _start(folder)[1]
    visiting.visitor(browser, server).open()  # the browser has seen the program's own files before
    peaks, starts = [_stop(server)], []
    for page in USEFUL:
        times: dict[str, list[float]] = {}
        for _ in range(repeats):
            start, server = _start(folder)
            starts.append(start)
            for how in ("cold", "warm"):
                visitor = visiting.visitor(browser, server)
                began = time.perf_counter()
                visitor.page.goto(visitor.address(page, **state), wait_until="commit")
                visitor.page.wait_for_function(_USEFUL, arg=USEFUL[page])
                times.setdefault(f"first useful paint, {how}", []).append(time.perf_counter() - began)
                visitor.page.wait_for_function(_PAINTED, arg=[PAGES[page].title, visiting.IDLE])
                times.setdefault(f"all of it, {how}", []).append(time.perf_counter() - began)
                visitor.page.close()
            peaks.append(_stop(server))
        for what, seconds in times.items():
            _print(f"{page}: {what}", seconds, "< 2" if "useful" in what else "")
    _print("start of the program", starts, "< 2")
    return max(peaks)


def _steps(folder: Path, browser: BrowserContext, runs: Sequence[Run], repeats: int) -> float:
    """Filters and steps on the page of samples; the most memory in MiB."""
    server = _start(folder)[1]
    visitor = visiting.visitor(browser, server)
    visitor.open("samples", a=label_of(runs[0]), b=label_of(runs[1]), sort="key")
    table = runs[0].samples(["sample_key", "task", "question"]).sort_by("sample_key")
    steps = []
    for key in table["sample_key"].to_pylist()[1 : 1 + 2 * repeats]:
        steps.append(_timed(lambda: _next(visitor, key)))  # noqa: B023
    filters = []
    for task in list(TASKS)[:repeats]:
        visitor.page.get_by_label("Task").click()
        option = visitor.page.get_by_role("option", name=task, exact=True)
        option.wait_for()
        count = pc.sum(pc.equal(table["task"], task)).as_py()
        filters.append(_timed(lambda: _filter(visitor, option.click, count)))  # noqa: B023
        visitor.settle()
    searches = []
    count = 0
    visitor.open("samples", a=label_of(runs[0]), b=label_of(runs[1]))
    for number in range(repeats):
        words = f"number {number + 1}1"
        count = pc.sum(pc.match_substring(table["question"], words)).as_py()
        visitor.page.get_by_label("Search questions").fill(words)
        searches.append(_timed(lambda: _filter(visitor, lambda: visitor.page.keyboard.press("Enter"), count)))  # noqa: B023
        visitor.settle()
    _print("filter change: task", filters, "< 0.5")
    _print("filter change: words in the question", searches, "< 0.5")
    _print("next sample", steps, "< 0.3")
    return _stop(server)


def _filter(visitor: Visitor, act: Callable[[], None], count: int) -> None:
    act()
    visitor.page.wait_for_function(_COUNTED, arg=f"1 of {count:,}")


def _next(visitor: Visitor, key: str) -> None:
    visitor.page.keyboard.press("ArrowRight")
    visitor.page.wait_for_function(_OPENED, arg=["Sample key", key[:8]])


def _start(folder: Path) -> tuple[float, Dashboard]:
    began = time.perf_counter()
    server = visiting.start(folder / "results", folder / "log", cache=folder / "cache")
    return time.perf_counter() - began, server


def _stop(server: Dashboard) -> float:
    """Stop a server; the most memory that it held, in MiB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    server.stop()
    if "Traceback" in (log := server.log.read_text()):
        raise SystemExit(log)
    return int(peak.split()[1]) / 1024


def _timed(act: Callable[[], None]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def _print(what: str, times: Sequence[float], aim: str) -> None:
    print(f"{what:<40} {statistics.median(times):>8.2f} {max(times):>8.2f}  {aim}", flush=True)


if __name__ == "__main__":
    main()
