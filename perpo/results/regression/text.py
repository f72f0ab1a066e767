"""A regression report as people and machines read it: terminal, Markdown, HTML, JUnit, JSON. No torch.

What a model wrote is never trusted: it is escaped in each format.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import Any

from perpo.boxes import stored_box
from perpo.results.regression import extras
from perpo.results.regression.flips import Flip
from perpo.results.regression.report import ALPHA, Report, ReportRow
from perpo.results.text import FRACTION, TINY_NOTE, Text, is_tiny, judge_note, literal, number, with_unit
from perpo.stats import Difference

COMMENT_LIMIT = 65_000
"""Bytes of Markdown: a comment on a pull request takes 65,536 characters, a step summary 1 MiB."""

MARKS = {"regressed": "▼", "improved": "▲", "unchanged": "=", "identical": "≡", "inconclusive": "?"}
CONTROL = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML 1.0 cannot hold


def headline(report: Report) -> str:
    """Return the verdict and what it rests on, one line."""
    names = " against ".join(short(run.record.name) for run in (report.candidate, report.baseline))
    rows = [row for row in report.rows if row.verdict == report.verdict and row.waiver is None]
    told = ", ".join(f"{row.task} {_points(row, row.gain, signed=True)}" for row in rows[:8] if row.gain is not None)
    more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
    detail = f" ({told}{more} points)" if told and report.verdict in ("regressed", "improved") else ""
    waived = ", ".join(f"{row.task} {_points(row, row.gain, signed=True)}" for row in report.waived[:8])
    waived += f" and {len(report.waived) - 8} more" if len(report.waived) > 8 else ""
    return (
        f"{report.verdict}: {names}{detail}"
        + (f"; losses that are waived: {waived} points" if waived else "")
        + extras.headline_part(report.extras)
    )


def short(name: str) -> str:
    """Return a name on one line, and no longer than that line can be."""
    name = " ".join(name.split())
    return name if len(name) <= 80 else f"{name[:79]}…"


def table(report: Report) -> Text:
    """Return the rows, each in its metric's unit: points of 100 where nothing else is said."""
    header = ["task", "metric", "baseline", "candidate", "gain", "95% interval", "p (Holm)", "threshold", "verdict"]
    rows = []
    for row in report.rows:
        verdict = f"{MARKS[row.verdict]} {row.verdict}" + (" (waived)" if row.waiver else "")
        if row.verdict == "inconclusive" and row.mde is not None:
            verdict += f", would see {_points(row, row.mde)}"
        values = [_points(row, row.baseline), _points(row, row.candidate), _points(row, row.gain, signed=True)]
        values.append(_interval(row))
        p = "" if row.p_adjusted is None else f"{row.p_adjusted:.3f}" if row.p_adjusted >= 0.001 else "<0.001"
        name = with_unit(row.metric.title, row.metric.unit)
        rows.append([short(row.task), name, *values, p, _points(row, row.threshold), verdict])
    return Text(headline(report), header, rows, _notes(report))


def _notes(report: Report) -> list[str]:
    unless = "" if all(row.metric.unit == FRACTION for row in report.rows) else " if nothing else is said"
    notes = [
        f"Gain: candidate minus baseline in the better direction, in points of 100{unless}, paired over "
        f"{report.samples:,} samples and clustered by image. Regressed: p below {ALPHA} and a loss of at least the "
        "threshold; identical: every response is the same; unchanged: an interval that allows for what so few images "
        "cannot show lies within the threshold; otherwise inconclusive, with the effect that would have been seen with "
        "a power of 80%.",
        *report.notes,
        *extras.notes(report.extras),
        *judge_note([report.candidate.record]),
    ]
    for row in report.rows:
        if row.waiver:
            waiver = row.waiver
            upto = f"until {waiver.expires}, up to {waiver.max_loss:g} points"
            notes.append(f"Waived {upto}: {row.task} ({waiver.reason}).")
    if any(row.difference.method == "cluster-exact" and not row.difference.value for row in report.rows):
        notes.append(
            "Where no sample's score differs there is no spread to test by: the interval is what so few images leave "
            "open."
        )
    return [*notes, TINY_NOTE] if is_tiny(report.candidate.record) else notes


def markdown(report: Report, limit: int = COMMENT_LIMIT) -> str:
    """Return the verdict, the table and the worst flips, cut to `limit` bytes and saying so."""
    text = _head_markdown(report, limit)
    shown: list[str] = []
    for flip in report.flips:
        part = _flip_markdown(flip)
        if len((text + "".join(shown) + part).encode()) > limit - 300:
            break
        shown.append(part)
    if not report.flips:
        return text
    left = len(report.flips) - len(shown)
    cut = f"\n{left} more are left out: this text may have {limit:,} bytes.\n" if left else ""
    title = f"The {len(report.flips)} samples that lost most"
    return text + f"\n<details><summary>{title}</summary>\n\n" + "".join(shown) + cut + "\n</details>\n"


def _head_markdown(report: Report, limit: int) -> str:
    """Verdict, table, notes and runs; of a table that is too long the worst rows."""
    told = table(report)
    severity = {"regressed": 0, "inconclusive": 1, "improved": 2, "unchanged": 3, "identical": 4}
    order = sorted(range(len(report.rows)), key=lambda n: severity[report.rows[n].verdict])
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
    lines = []
    for label, run in (("baseline", report.baseline), ("candidate", report.candidate)):
        record = run.record
        adapter = f", adapter `{(record.model.adapter_sha256 or '')[:12]}`" if record.model.adapter_sha256 else ""
        weights = f"`{(record.model.weights_sha256 or 'unknown')[:12]}`"
        lines.append(f"- {label}: `{record.run_id}`, {record.created_utc}, weights {weights}{adapter}")
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
    gain = _points(row, row.gain, signed=True) or "undefined"
    return (
        f"{row.verdict}: {row.task} {row.metric.title} {_points(row, row.baseline)} -> "
        f"{_points(row, row.candidate)}, gain {gain} {_interval(row)}, threshold {_points(row, row.threshold)}"
    )


def as_json(report: Report) -> dict[str, Any]:
    """Return everything with full precision, in the metrics' units."""
    rows = []
    for row in report.rows:
        data = dataclasses.asdict(row)
        data |= {
            "metric": row.metric.name,
            "unit": row.metric.unit,
            "higher_is_better": row.metric.higher_is_better,
            "gain": row.gain,
        }
        data["waiver"] = row.waiver and {
            "reason": row.waiver.reason,
            "expires": row.waiver.expires.isoformat(),
            "max_loss": row.waiver.max_loss,
        }
        rows.append(data)
    runs = {name: run.record.run_id for name, run in (("baseline", report.baseline), ("candidate", report.candidate))}
    flips = [dataclasses.asdict(flip) for flip in report.flips]
    about = {"verdict": report.verdict, **runs, "judge": report.candidate.record.judge}
    return (
        about
        | {"samples": report.samples, "notes": report.notes}
        | {
            "rows": rows,
            "flips": flips,
            **extras.as_json(report.extras),
        }
    )


def _points(row: ReportRow, value: float | None, *, signed: bool = False) -> str:
    return "" if value is None else number(value, row.metric.unit, signed=signed)


def _interval(row: ReportRow) -> str:
    ends = _gained(row.difference, row.metric.higher_is_better)
    return "" if ends is None else f"[{_points(row, ends[0], signed=True)}, {_points(row, ends[1], signed=True)}]"


def _gained(difference: Difference, higher: bool | None) -> tuple[float, float] | None:
    if difference.interval is None:
        return None
    low, high = difference.interval
    return (low, high) if higher else (-high, -low)
