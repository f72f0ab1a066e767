"""perpo-eval list, show, readings and export: find stored runs, and make tables and leaderboards of them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from perpo.common.arguments import arg, parse_arguments
from perpo.errors import PerpoError
from perpo_eval.cli.exports import SampleExports, export_samples, exports_samples

if TYPE_CHECKING:
    from perpo.records.store import Run


@dataclass(frozen=True, kw_only=True)
class StoredRunFlags:
    """Flags that say which runs of a results folder are meant."""

    results: list[Path] = arg([Path("results")], "results folders")
    model: str | None = arg(None, "only runs with this text in their name or model")
    suite: str | None = arg(None, "only runs of this suite")
    source: Literal["measured", "reported"] | None = arg(None, "only these")
    since: str | None = arg(None, "only runs from this day on, such as 2026-11-23 (UTC)")


@dataclass(frozen=True, kw_only=True)
class ListArguments(StoredRunFlags):
    """The arguments of perpo-eval list."""


@dataclass(frozen=True, kw_only=True)
class ShowArguments:
    """The arguments of perpo-eval show."""

    run: str = arg(
        help="folder of a run, a folder of runs (its newest is used), or the id or name of a run in --results"
    )
    results: Path = arg(Path("results"), "folder in which ids and names of runs are looked up")
    json: bool = arg(False, "print run.json instead of the tables")


@dataclass(frozen=True, kw_only=True)
class ReadingsArguments:
    """The arguments of perpo-eval readings."""

    run: str = arg(help="folder of a run with boxes, a folder of runs, or the id or name of a run in --results")
    results: Path = arg(Path("results"), "folder in which ids and names of runs are looked up")


@dataclass(frozen=True, kw_only=True)
class ExportTableArguments(SampleExports, StoredRunFlags):
    """The arguments of perpo-eval export."""

    format: Literal["text", "markdown", "csv", "latex", "json"] = arg("text", "format of the leaderboard")
    card: Path | None = arg(
        None,
        "write the results of the newest of these runs into this model card (README.md); no leaderboard is printed",
    )


def list_main(argv: list[str]) -> None:
    """Print a line for each run."""
    args = parse_arguments(ListArguments, argv, prog="perpo-eval list", description="List stored runs.")
    from perpo.records.approval import standing_of
    from perpo.results.text import Text

    runs = _chosen(args)
    rows = []
    for run in runs:
        record = run.record
        state = record.origin if record.status == "complete" else record.status
        standing = standing_of(run).state
        state += "" if standing == "not approved" else ", approved" if standing == "approved" else ", approval void"
        rows.append([record.name, str(record.suite.get("name")), f"{record.when:%Y-%m-%d %H:%M}", state, record.run_id])
    Text(f"{len(runs)} runs", ["name", "suite", "when (UTC)", "source", "run"], rows, []).show()


def show_main(argv: list[str]) -> None:
    """Print one run's tables."""
    args = parse_arguments(ShowArguments, argv, prog="perpo-eval show", description="Show the scores of a stored run.")
    from perpo.records.run_json import to_json
    from perpo.records.store import resolve_run
    from perpo.results.run_tables import run_texts

    run = resolve_run(args.run, args.results)
    if args.json:
        print(to_json(run.record), end="")
        return
    texts = run_texts(run.record)
    if not texts:  # reported numbers have no groups
        from perpo.results.leaderboard import board as leaderboard
        from perpo.results.leaderboard import files

        texts = [files.text(board) for board in leaderboard.boards([run])]
    for text in texts:
        text.show()
    from perpo.records.approval import standing_of

    if (standing := standing_of(run)).state != "not approved":
        print(f"approval: {standing.said}", file=sys.stderr)
    print(f"run record: {run.path}", file=sys.stderr)


def readings_main(argv: list[str]) -> None:
    """Print what each way to read a run's boxes gives."""
    description = "Read a run's answers about boxes in every scale, order and frame, and show what each gives."
    args = parse_arguments(ReadingsArguments, argv, prog="perpo-eval readings", description=description)
    from perpo.models.families import FAMILIES
    from perpo.records.store import resolve_run
    from perpo.results.box_readings import readings_table

    usual = FAMILIES["qwen2_5_vl"]
    assert usual.box_format.resize is not None
    readings_table(resolve_run(args.run, args.results), usual.box_format.resize, usual.model_type).show()


def export_main(argv: list[str]) -> None:
    """Print leaderboards of stored runs."""
    args = parse_arguments(
        ExportTableArguments,
        argv,
        prog="perpo-eval export",
        description="Print a leaderboard of stored runs, or write their results or samples for other programs.",
    )
    if exports_samples(args):
        export_samples(args, args.results[0])
        return
    from perpo.results.leaderboard import board as leaderboard
    from perpo.results.leaderboard import files

    runs = _chosen(args)
    boards = leaderboard.boards(runs)
    if args.card is not None:
        from perpo.results.model_index import update_card

        count = update_card(args.card, runs[-1])
        print(f"{args.card}: {count} results of {runs[-1].record.run_id}", file=sys.stderr)
        return
    if args.format == "text":
        for board in boards:
            files.text(board).show()
    elif args.format in ("csv", "json") and len(boards) > 1:
        raise PerpoError(
            f"these runs make {len(boards)} tables: {', '.join(board.title for board in boards)}",
            "choose the runs of one table with --suite or --model",
        )
    else:
        print("\n".join(files.render(board, args.format) for board in boards), end="")


def _chosen(args: StoredRunFlags) -> list[Run]:
    """The runs that are meant, the oldest first; what cannot be read is named on stderr."""
    from perpo.records.store import find_runs, oldest_first

    since = _day(args.since)
    runs = []
    for root in args.results:
        readable, unreadable = find_runs(root)
        runs += readable
        for each in unreadable:
            print(f"note: {each.path} is left out: {each.reason}", file=sys.stderr)
    return oldest_first(run for run in runs if _is_meant(run, args, since))


def _is_meant(run: Run, args: StoredRunFlags, since: date) -> bool:
    record = run.record
    if args.model is not None and not any(
        args.model.lower() in text.lower() for text in (record.name, record.model.id)
    ):
        return False
    return (
        args.suite in (None, record.suite.get("name"))
        and args.source in (None, record.source)
        and record.when.date() >= since
    )


def _day(text: str | None) -> date:
    if text is None:
        return date.min
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise PerpoError(f"--since {text} is not a day", "such as 2026-11-23") from error
