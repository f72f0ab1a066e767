"""perpo-report pin and approve: what a gate holds beside the numbers, written to files."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from perpo.common.arguments import arg, parse_arguments


@dataclass(frozen=True, kw_only=True)
class PinArguments:
    """The arguments of perpo-report pin."""

    run: str = arg(help="a run that has the samples: its folder, a folder of runs, or an id or name in --results")
    key: list[str] = arg(
        help="keys of samples, or their first 8 digits or more, as reports and the dashboard show them"
    )
    reason: str = arg(help="why these samples may never be lost")
    file: Path = arg(Path("pinned.yaml"), "the file of pinned cases, which is made where there is none")
    results: Path = arg(Path("results"), "folder in which ids and names of runs are looked up")


@dataclass(frozen=True, kw_only=True)
class ApproveArguments:
    """The arguments of perpo-report approve."""

    run: str = arg(help="the run: its folder, a folder of runs (its newest is used), or an id or name in --results")
    why: str = arg(help="why this run is the baseline from now on")
    who: str | None = arg(None, "who approves (default: git's user.name, else the name of the user)")
    results: Path = arg(Path("results"), "folder in which ids and names of runs are looked up")


def approve_main(argv: list[str]) -> int:
    """Approve a run as a baseline."""
    args = parse_arguments(
        ApproveArguments,
        _named(argv, "run"),
        prog="perpo-report approve",
        description="perpo-report approve RUN --why TEXT: write beside a run that it is approved as a baseline.",
    )
    from perpo.records.approval import APPROVAL_FILE, approve
    from perpo.records.store import resolve_run
    from perpo.results.regression.checks import check_complete

    run = resolve_run(args.run, args.results)
    check_complete(run)
    run.samples(["sample_key"])  # whole, and those that run.json describes
    approval = approve(run, args.why, args.who)
    print(f"{run.path / APPROVAL_FILE}: approved by {approval.who}", file=sys.stderr)
    return 0


def pin_main(argv: list[str]) -> int:
    """Add samples to a file of pinned cases."""
    args = parse_arguments(
        PinArguments,
        _named(argv, "run", "key"),
        prog="perpo-report pin",
        description="perpo-report pin RUN KEY ... --reason TEXT: add samples to a file for perpo-report --pinned.",
    )
    from perpo.records.store import resolve_run
    from perpo.results.regression.pinned import add_pins

    run = resolve_run(args.run, args.results)
    for key, state in add_pins(run, args.key, args.reason, args.file):
        more = "" if state == "right" else f" (note: {run.record.name} answers it with: {state})"
        print(f"{args.file}: {key} pinned{more}", file=sys.stderr)
    return 0


def _named(argv: list[str], first: str, others: str | None = None) -> list[str]:
    """Words that come before all flags, as flags: the first is one argument, those behind it another."""
    end = next((place for place, word in enumerate(argv) if word.startswith("-")), len(argv))
    words = argv[:end] if others else argv[: min(end, 1)]
    named = [f"--{first}", words[0]] if words else []
    named += [f"--{others}", *words[1:]] if words[1:] else []
    return [*named, *argv[len(words) :]]
