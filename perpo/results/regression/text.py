"""A regression report as people and machines read it: terminal, Markdown, HTML, JUnit, JSON. No torch.

What a model wrote is never trusted: it is escaped in each format.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence

from perpo.boxes import stored_box
from perpo.results.regression import extras
from perpo.results.regression.entries import Entry
from perpo.results.regression.flips import Flip
from perpo.results.regression.report import Report
from perpo.results.regression.rows import ALPHA, FAILURES, ReportRow, directed
from perpo.results.text import FRACTION, TINY_NOTE, Text, is_tiny, judge_note, literal, number, with_unit

COMMENT_LIMIT = 65_000
"""Bytes of Markdown: a comment on a pull request takes 65,536 characters, a step summary 1 MiB."""

MARKS = {"regressed": "▼", "changed": "◆", "improved": "▲", "unchanged": "=", "identical": "≡", "inconclusive": "?"}
HEADER = ["task", "metric", "baseline", "candidate", "gain", "95% interval", "p (adjusted)", "threshold", "verdict"]
_OTHERS = (
    "They fail nothing. Unreadable and cut answers (truncated) stand here where no sample differs in them, and gate "
    "elsewhere if --metrics is not primary. "
    "Their p-values are adjusted over all rows, as if all gated; ratios are linearised. --threshold NAME=POINTS makes "
    "a metric gate (NAME as in the first column, or BENCHMARK.METRIC), and so does --metrics all."
)
CONTROL = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML 1.0 cannot hold


def headline(report: Report) -> str:
    """Return the verdict and what it rests on, one line."""
    names = " against ".join(short(entry.name) for entry in (report.candidate_entry, report.baseline_entry))
    rows = [row for row in report.rows if row.verdict == report.verdict and row.waiver is None]
    detail = f" ({_gains(rows)} points)" if rows and report.verdict in (*FAILURES, "improved") else ""
    waived = f"; losses that are waived: {_gains(report.waived)} points" if report.waived else ""
    return f"{report.verdict}: {names}{detail}{waived}{extras.headline_part(report.extras)}"


def _gains(rows: Sequence[ReportRow]) -> str:
    told = ", ".join(f"{row.name} {_points(row, row.gain, signed=True)}" for row in rows[:8] if row.gain is not None)
    return told + (f" and {len(rows) - 8} more" if len(rows) > 8 else "")


def gain(row: ReportRow) -> str:
    """Return a row's gain in its metric's unit, with its sign; "undefined" where there is none."""
    return _points(row, row.gain, signed=True) or "undefined"


def short(name: str) -> str:
    """Return a name on one line, and no longer than that line can be."""
    name = " ".join(name.split())
    return name if len(name) <= 80 else f"{name[:79]}…"


def table(report: Report) -> Text:
    """Return the rows that gate, each in its metric's unit: points of 100 where nothing else is said."""
    return Text(headline(report), HEADER, _cells(report.rows), _notes(report))


def for_terminal(told: Text) -> Text:
    """Return a table of rows with the verdict and the gain right behind the name: narrow terminals show few columns."""
    first = ["task", "verdict", "gain"]
    order = [HEADER.index(name) for name in [*first, *(name for name in HEADER if name not in first)]]
    header, *rows = ([cells[place] for place in order] for cells in (told.header, *told.rows))
    return dataclasses.replace(told, header=header, rows=rows)


def others_table(report: Report, *, telling: bool = False) -> Text:
    """Return the rows that are only told; with `telling`, those of them that got better, worse or other."""
    rows = [row for row in report.others if not telling or row.verdict in (*FAILURES, "improved")]
    return Text("Other metrics, only told", HEADER, _cells(rows), [_OTHERS])


def _cells(rows: Sequence[ReportRow]) -> list[list[str]]:
    cells = []
    for row in rows:
        verdict = f"{MARKS[row.verdict]} {row.verdict}" + (" (waived)" if row.waiver else "")
        if row.verdict == "inconclusive" and row.mde is not None:
            verdict += f", would see {_points(row, row.mde)}"
        values = [_points(row, row.baseline), _points(row, row.candidate), _points(row, row.gain, signed=True)]
        values.append(_interval(row))
        p = "" if row.p_adjusted is None else f"{row.p_adjusted:.3f}" if row.p_adjusted >= 0.001 else "<0.001"
        name = with_unit(row.metric.title, row.metric.unit)
        cells.append([short(row.name), name, *values, p, _points(row, row.threshold), verdict])
    return cells


def _notes(report: Report) -> list[str]:
    unless = "" if all(row.metric.unit == FRACTION for row in report.rows) else " if nothing else is said"
    notes = [
        f"Gain: candidate minus baseline in the better direction, in points of 100{unless}, paired over "
        f"{report.samples:,} samples and clustered by image. Regressed: p below {ALPHA} and a loss of at least the "
        "threshold; identical: every response is the same; unchanged: an interval that allows for what so few images "
        "cannot show lies within the threshold; otherwise inconclusive, with the effect that would have been seen with "
        "a power of 80%.",
        *_changes(report),
        *report.notes,
        *extras.notes(report.extras),
        *judge_note([report.candidate.record]),
    ]
    for row in report.rows:
        if row.waiver:
            waiver = row.waiver
            upto = f"until {waiver.expires}, up to {waiver.max_loss:g} points"
            notes.append(f"Waived {upto}: {row.name} ({waiver.reason}).")
    if any(row.difference.method == "cluster-exact" and not row.difference.value for row in report.rows):
        notes.append(
            "Where no sample's score differs there is no spread to test by: the interval is what so few images leave "
            "open."
        )
    return [*notes, TINY_NOTE] if is_tiny(report.candidate.record) else notes


def _changes(report: Report) -> list[str]:
    """What is to be said only where rows ask for it: metrics without a direction, several runs, guards."""
    notes = []
    if any(row.metric.higher_is_better is None for row in report.rows):
        notes.append("Changed: as regressed or improved, of a metric of which neither more nor less is better.")
    if any(row.role == "guards" for row in report.rows):
        notes.append(
            "Rows of unreadable answers, of cut answers (truncated) and of kinds of samples guard: they fail the gate "
            "where they regressed, and count for nothing else. Those in which no sample differs are not tested."
        )
    entries = [entry for entry in (report.baseline_entry, report.candidate_entry) if len(entry.runs) > 1]
    if entries:
        counts = " and ".join(f"{len(entry.runs)} runs of {short(entry.name)}" for entry in entries)
        notes.append(
            f"Values are means over {counts}; images and runs are crossed random effects, so that intervals hold what "
            "another seed would change. Samples that lost most are told by their mean loss, with the answers of the "
            "first runs."
        )
    return notes


def markdown(report: Report, limit: int = COMMENT_LIMIT) -> str:
    """Return the verdict, the table and the worst flips, cut to `limit` bytes and saying so."""
    text = _head_markdown(report, limit)
    shown: list[str] = []
    for flip in report.flips:
        part = _flip_markdown(flip)
        if len((text + "".join(shown) + part).encode()) > limit - 300:
            break
        shown.append(part)
    if report.flips:
        left = len(report.flips) - len(shown)
        cut = f"\n{left} more are left out: this text may have {limit:,} bytes.\n" if left else ""
        title = f"The {len(report.flips)} samples that lost most"
        text += f"\n<details><summary>{title}</summary>\n\n" + "".join(shown) + cut + "\n</details>\n"
    return text + _others_markdown(report, limit, len(text.encode()))


def _others_markdown(report: Report, limit: int, used: int) -> str:
    """The rows that are only told, folded; where there is no room for all of them, those that tell something."""
    for telling in (False, True):
        told = others_table(report, telling=telling)
        if not report.others:
            return ""
        rows, left = [[literal(cell) for cell in row] for row in told.rows], len(report.others) - len(told.rows)
        cut = f"{left} more are left out: this text may have {limit:,} bytes"
        title = f"{len(rows)} other metrics, only told" + (f"; {cut}" if left else "")
        folded = dataclasses.replace(told, title=title, rows=rows).markdown()
        text = f"\n<details><summary>{title}</summary>\n\n{folded}\n</details>\n"
        if used + len(text.encode()) <= limit:
            return text
    said = f"\n{len(report.others)} rows more are left out: this text may have {limit:,} bytes.\n"
    return said if used + len(said.encode()) <= limit else ""


def _head_markdown(report: Report, limit: int) -> str:
    """Verdict, table, notes and runs; of a table that is too long the worst rows."""
    told = table(report)
    severity = [*FAILURES, "inconclusive", "improved", "unchanged", "identical"]
    order = sorted(range(len(report.rows)), key=lambda n: severity.index(report.rows[n].verdict))
    count = len(order)
    while True:
        kept = [told.rows[n] for n in sorted(order[:count])]
        left = f"{len(order) - count} more rows are left out: this text may have {limit:,} bytes."
        rows = [[literal(cell) for cell in row] for row in kept]
        notes = [literal(note[:2000]) for note in [*told.notes[:40], *([left] if count < len(order) else [])]]
        title = f"{MARKS[report.verdict]} {literal(told.title)}"
        text = dataclasses.replace(told, title=title, rows=rows, notes=notes).markdown() + "\n" + runs_markdown(report)
        text += extras_markdown(report, limit // 3)
        if len(text.encode()) <= limit - 300 or count <= 1:
            return text
        count = count * 3 // 4


def extras_markdown(report: Report, limit: int) -> str:
    """Return what is told beside the rows: its tables, and the pinned cases that fail, cut to `limit` bytes."""
    text = "".join(_cut_markdown(told, limit // 3) for told in extras.tables(report.extras))
    parts = [_flip_markdown(case.sample) for case in report.extras.fails]
    count = len(parts)
    while parts and len((text + "".join(parts)).encode()) > limit:
        parts.pop()
    left = f"{count - len(parts)} more pinned cases that failed are left out.\n" if len(parts) < count else ""
    return text + "\n" * bool(count) + "".join(parts) + left


def _cut_markdown(told: Text, limit: int) -> str:
    """A table whose first rows stand, as many as fit."""
    count = len(told.rows)
    while True:
        rows = [[literal(cell[:400]) for cell in row] for row in told.rows[:count]]
        left = [f"{len(told.rows) - count} more rows are left out."] if count < len(told.rows) else []
        notes = [literal(note) for note in told.notes] + left
        text = "\n" + dataclasses.replace(told, title=literal(told.title), rows=rows, notes=notes).markdown()
        if len(text.encode()) <= limit or count <= 1:
            return text
        count = count * 3 // 4


def runs_markdown(report: Report) -> str:
    return runs_list("baseline", report.baseline_entry) + runs_list("candidate", report.candidate_entry)


def runs_list(label: str, entry: Entry) -> str:
    """Return an entry's runs as lines of Markdown."""
    lines = []
    for run in entry.runs:
        record = run.record
        adapter = f", adapter `{(record.model.adapter_sha256 or '')[:12]}`" if record.model.adapter_sha256 else ""
        imported = ", imported from " + literal(record.imported["files"][0]["name"]) if record.imported else ""
        weights = f"`{(record.model.weights_sha256 or 'unknown')[:12]}`"
        lines.append(f"- {label}: `{record.run_id}`, {record.created_utc}, weights {weights}{adapter}{imported}")
    return "\n".join(lines) + "\n"


def _flip_markdown(flip: Flip) -> str:
    parts = {"question": flip.question, "truth": truth_of(flip), "baseline": flip.baseline, "candidate": flip.candidate}
    lines = [f"- {name}: {_code(text)}" for name, text in parts.items()]
    return f"**{flip.task}** `{flip.sample_key[:12]}`\n" + "\n".join(lines) + "\n\n"


def truth_of(flip: Flip) -> str:
    """Return the truth as one reads it: a box in whole pixels, a text without JSON's quotes, of more the reference
    answer.
    """
    if (box := stored_box(flip.target)) is not None:
        return "[" + ", ".join(f"{end:.0f}" for end in box) + "] pixels"
    try:
        truth = json.loads(flip.target)
    except ValueError:  # as it stands in the record
        return flip.target
    return str(truth["reference"] if isinstance(truth, dict) and "reference" in truth else truth)


def _code(text: str, longest: int = 400) -> str:
    """Text as a code span, which no Markdown in it can leave."""
    text = " ".join(text.split())
    text = text if len(text) <= longest else f"{text[:longest]} … ({len(text):,} characters)"
    fence = "`" * (max((len(run) for run in re.findall("`+", text)), default=0) + 1)
    return f"{fence} {text} {fence}"


def sentence(row: ReportRow) -> str:
    return (
        f"{row.verdict}: {row.name} {row.metric.title} {_points(row, row.baseline)} -> "
        f"{_points(row, row.candidate)}, gain {gain(row)} {_interval(row)}, threshold {_points(row, row.threshold)}"
    )


def _points(row: ReportRow, value: float | None, *, signed: bool = False) -> str:
    return "" if value is None else number(value, row.metric.unit, signed=signed)


def _interval(row: ReportRow) -> str:
    ends = directed(row, row.difference.interval)
    return "" if ends is None else f"[{_points(row, ends[0], signed=True)}, {_points(row, ends[1], signed=True)}]"
