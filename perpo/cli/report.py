"""perpo-report: is a candidate worse than its baseline; the exit code gates a merge."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from perpo.cli.gating import approve_main, pin_main
from perpo.common.arguments import arg, parse_arguments
from perpo.common.program import run_program
from perpo.common.yaml_keys import refuse_repeated_keys
from perpo.errors import PerpoError

if TYPE_CHECKING:
    from perpo.results.regression.entries import Entry
    from perpo.results.regression.report import Report
    from perpo.results.regression.rows import Waiver

DESCRIPTION = (
    "Compare candidate runs with a baseline run, sample by sample. The exit code is 1 if a candidate "
    "regressed. perpo-report trend follows a metric over time, perpo-report pin names samples that may never be lost, "
    "perpo-report approve takes a run as a baseline."
)


@dataclass(frozen=True, kw_only=True)
class ReportArguments:
    """The arguments of perpo-report."""

    baseline: str = arg(
        help="folder of a run, a folder of runs (its newest is used), or the id or name of a run in --results. Several "
        "runs of one configuration that differ only in the seed, joined by commas, count as one: their mean"
    )
    candidate: list[str] = arg(
        help="the run to check, given in the same way; several candidates are separated by spaces and adjusted together"
    )
    results: Path = arg(Path("results"), "folder in which ids and names of runs are looked up")
    threshold: list[str] = arg(
        [],
        "smallest difference that matters, in points of 100: one number for all, one for a task or benchmark, such as "
        "grounding=1.0, or one for a metric, such as pope.yes_ratio=2.0, which then gates (default: 0.5)",
    )
    metrics: Literal["primary", "losses", "all"] = arg(
        "losses",
        "metrics that gate, besides those that --threshold names. primary: the primary metric of each task. losses: "
        "these, and a rise of unreadable or cut answers. all: every metric with a better direction. The others are "
        "only reported",
    )
    slices: Literal["none", "tell", "gate"] = arg(
        "none",
        "kinds of samples (box size, length, type, truth). tell: report the primary metric of each kind. gate: gate on "
        "each kind too",
    )
    common: bool = arg(
        False, "compare only the tasks and samples that both runs have; otherwise runs that differ in them are refused"
    )
    strict: bool = arg(False, "refuse runs that were scored by different code; otherwise the report only says so")
    waivers: Path | None = arg(
        None, "YAML file with accepted losses: a list of task, reason, expires (a date) and max_loss (points)"
    )
    pinned: Path | None = arg(
        None,
        "YAML file with samples that may never be lost: a list of key and reason; perpo-report pin adds to it",
    )
    need_approved: bool = arg(
        False, "refuse a baseline that nobody approved with perpo-report approve; otherwise the report only says so"
    )
    price_per_hour: str | None = arg(
        None, 'price of an hour of the machine, such as "USD 2.50", for money per right answer in the table of costs'
    )
    fail_on: Literal["regressed", "inconclusive"] = arg("regressed", "mildest verdict that gives exit code 1")
    images: Path | None = arg(None, "folder of the pictures, for the small pictures in --html")
    markdown: Path | None = arg(None, "write the report as Markdown to this file")
    junit: Path | None = arg(None, "write the report as JUnit XML to this file")
    html: Path | None = arg(None, "write the report as one HTML page to this file")
    json: Path | None = arg(None, "write the report as JSON to this file")


@dataclass(frozen=True, kw_only=True)
class TrendArguments:
    """The arguments of perpo-report trend."""

    results: Path = arg(Path("results"), "the results folder")
    task: str | None = arg(None, "task or benchmark (default: the first benchmark of the newest run)")
    metric: str | None = arg(None, "metric of the task (default: its primary metric, such as acc@0.5)")
    name: str | None = arg(None, "only runs of this name")
    picture: Path | None = arg(None, "also draw the metric into this file, which ends in .svg or .png")


def main(argv: list[str] | None = None) -> int:
    """Return the program."""
    return run_program(_main, argv)


def _trend(argv: list[str]) -> int:
    args = parse_arguments(TrendArguments, argv, prog="perpo-report trend", description="Follow a metric over runs.")
    from perpo.records.store import find_runs
    from perpo.results import trend

    runs = [run for run in find_runs(args.results)[0] if run.record.source == "measured"]
    runs = [run for run in runs if args.name in (None, run.record.name)]
    table = trend.history(runs, args.task, args.metric)
    title = trend.title_of(args.task or runs[-1].record.groups[0].name, args.metric, runs)
    if args.picture is not None:
        trend.draw(table, title, args.picture)
        print(f"{args.picture} written", file=sys.stderr)
    trend.text(table, title).show()
    return 0


def _main(argv: list[str]) -> int:
    if argv and argv[0] == "trend":
        return _trend(argv[1:])
    if argv and argv[0] in ("pin", "approve"):
        return {"pin": pin_main, "approve": approve_main}[argv[0]](argv[1:])
    args = parse_arguments(ReportArguments, argv, prog="perpo-report", description=DESCRIPTION)
    thresholds = _thresholds(args.threshold)
    waivers = _waivers(args.waivers)
    from perpo.results.regression import many
    from perpo.results.regression.costs import read_price
    from perpo.results.regression.extras import extras_of, require_approved
    from perpo.results.regression.pinned import read_pins
    from perpo.results.regression.report import compare_entries
    from perpo.results.regression.rows import Wanted

    pins = [] if args.pinned is None else read_pins(args.pinned)
    price = None if args.price_per_hour is None else read_price(args.price_per_hour)
    entries = [_entry(text, args.results) for text in (args.baseline, *args.candidate)]
    if args.need_approved:
        require_approved(entries[0].runs)
    reports = compare_entries(
        entries[0],
        entries[1:],
        Wanted(thresholds, args.metrics, args.slices),
        common=args.common,
        strict=args.strict,
        waivers=waivers,
    )
    reports = [
        dataclasses.replace(
            report, extras=extras_of(report.baseline_entry.runs, report.candidate_entry.runs, pins=pins, price=price)
        )
        for report in reports
    ]
    _write(args, reports)
    many.show(reports)
    print(many.headline(reports), file=sys.stderr)
    closed = many.FAILURES if args.fail_on == "regressed" else (*many.FAILURES, "inconclusive")
    return int(any(report.verdict in closed for report in reports))


def _entry(text: str, results: Path) -> Entry:
    """The runs that somebody joined by commas; a folder's name may hold some itself."""
    from perpo.records.store import resolve_run
    from perpo.results.regression.entries import Entry

    words = [text] if Path(text).exists() else text.split(",")
    if len(words) > 1 and not all(word.strip() for word in words):  # an empty variable would be one seed less
        raise PerpoError(f"'{text}' names no run before or behind a comma", "join the names of runs by single commas")
    return Entry(tuple(resolve_run(word, results) for word in words))


def _write(args: ReportArguments, reports: list[Report]) -> None:
    from perpo.common.files import atomic_write_text
    from perpo.results.regression import many
    from perpo.results.regression.junit import junit
    from perpo.results.regression.page import page

    outputs: dict[Path | None, Any] = {
        args.markdown: lambda: many.markdown(reports),
        args.junit: lambda: junit(*reports),
        args.html: lambda: page(reports, [args.images] if args.images else []),
        args.json: lambda: json.dumps(many.as_json(reports), indent=1, ensure_ascii=False) + "\n",
    }
    for path, render in outputs.items():
        if path is not None:
            atomic_write_text(path, render())
            print(f"{path} written", file=sys.stderr)


def _thresholds(words: list[str]) -> dict[str, float]:
    thresholds: dict[str, float] = {}
    for word in words:
        name, _, number = word.rpartition("=")
        try:
            points = float(number)
        except ValueError:
            points = float("nan")
        if not 0 < points <= 100 or name in thresholds:
            raise PerpoError(
                f"--threshold {word} is not a number of points between 0 and 100", "such as 0.5 or grounding=1.0"
            )
        thresholds[name] = points
    return thresholds


def _waivers(path: Path | None) -> list[Waiver]:
    import yaml

    from perpo.results.regression.rows import Waiver

    if path is None:
        return []
    try:
        text = path.read_text(encoding="utf-8")
        refuse_repeated_keys(text)
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PerpoError(f"{path} cannot be read: {' '.join(str(error).split())}", _WAIVER_HINT) from error
    if not isinstance(content, list):
        raise PerpoError(f"{path} does not hold a list of waivers", _WAIVER_HINT)
    waivers = []
    for number, item in enumerate(content, 1):
        whole = isinstance(item, dict) and set(item) == {"task", "reason", "expires", "max_loss"}
        whole = whole and type(item["expires"]) is date and all(str(value).strip() for value in item.values())
        if not (whole and type(item["max_loss"]) in (int, float) and 0 < item["max_loss"] <= 100):
            raise PerpoError(
                f"{path}, waiver {number}: expected task, reason, expires (a date) and max_loss (points above 0)",
                _WAIVER_HINT,
            )
        waivers.append(Waiver(str(item["task"]), str(item["reason"]), item["expires"], float(item["max_loss"])))
    return waivers


_WAIVER_HINT = (
    "write each waiver as - {task: refcoco_val, reason: known loss of the new frame, expires: 2027-01-31, "
    "max_loss: 1.0}"
)

if __name__ == "__main__":
    sys.exit(main())
