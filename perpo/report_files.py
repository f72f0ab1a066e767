"""A regression report as people and machines read it: terminal, Markdown, HTML, JUnit, JSON. No torch.

What a model wrote is never trusted: it is escaped in each format.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from perpo.boxes import stored_box
from perpo.data.images import find_image, open_image
from perpo.flips import Flip
from perpo.report import ALPHA, Report, Row
from perpo.results.colours import BASELINE, CANDIDATE, TRUTH
from perpo.results.text import FRACTION, TINY_NOTE, Text, is_tiny, judge_note, literal, number, with_unit
from perpo.stats import Difference

COMMENT_LIMIT = 65_000
"""Bytes of Markdown: a comment on a pull request takes 65,536 characters, a step summary 1 MiB."""

_MARKS = {"regressed": "▼", "improved": "▲", "unchanged": "=", "identical": "≡", "inconclusive": "?"}
_THUMBNAIL = 320  # pixels
_COLOURS = {"truth": TRUTH, "baseline": BASELINE, "candidate": CANDIDATE}
_CONTROL = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML 1.0 cannot hold


def headline(report: Report) -> str:
    """The verdict and what it rests on, one line."""
    names = " against ".join(short(run.record.name) for run in (report.candidate, report.baseline))
    rows = [row for row in report.rows if row.verdict == report.verdict and row.waiver is None]
    told = ", ".join(f"{row.task} {_points(row, row.gain, signed=True)}" for row in rows[:8] if row.gain is not None)
    more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
    detail = f" ({told}{more} points)" if told and report.verdict in ("regressed", "improved") else ""
    waived = ", ".join(f"{row.task} {_points(row, row.gain, signed=True)}" for row in report.waived[:8])
    waived += f" and {len(report.waived) - 8} more" if len(report.waived) > 8 else ""
    return f"{report.verdict}: {names}{detail}" + (f"; losses that are waived: {waived} points" if waived else "")


def short(name: str) -> str:
    """A name on one line, and no longer than that line can be."""
    name = " ".join(name.split())
    return name if len(name) <= 80 else f"{name[:79]}…"


def table(report: Report) -> Text:
    """The rows, each in its metric's unit: points of 100 where nothing else is said."""
    header = ["task", "metric", "baseline", "candidate", "gain", "95% interval", "p (Holm)", "threshold", "verdict"]
    rows = []
    for row in report.rows:
        verdict = f"{_MARKS[row.verdict]} {row.verdict}" + (" (waived)" if row.waiver else "")
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
    """The verdict, the table and the worst flips, cut to `limit` bytes and saying so."""
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
        title = f"{_MARKS[report.verdict]} {literal(told.title)}"
        text = dataclasses.replace(told, title=title, rows=rows, notes=notes).markdown() + "\n" + _runs_markdown(report)
        if len(text.encode()) <= limit - 300 or count <= 1:
            return text
        count = count * 3 // 4


def _runs_markdown(report: Report) -> str:
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
    """The truth as one reads it: a box in whole pixels, a text without JSON's quotes, of more the reference answer."""
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


def junit(report: Report) -> str:
    """JUnit's XML: one case per task and metric; a regression is a failure, an inconclusive one is skipped."""
    failed = sum(row.verdict == "regressed" and row.waiver is None for row in report.rows)
    unsure = sum(row.verdict == "inconclusive" or row.waiver is not None for row in report.rows)
    counts = {"tests": str(len(report.rows)), "failures": str(failed), "errors": "0", "skipped": str(unsure)}
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {"name": "perpo-report", **counts})
    for row in report.rows:
        case = ElementTree.SubElement(suite, "testcase", {"classname": row.benchmark, "name": _case(row), "time": "0"})
        said = _CONTROL.sub("?", _sentence(row))
        if row.waiver is not None:
            ElementTree.SubElement(case, "skipped", {"message": _CONTROL.sub("?", f"waived: {row.waiver.reason}")})
        elif row.verdict == "regressed":
            ElementTree.SubElement(case, "failure", {"message": said, "type": "regressed"}).text = said
        elif row.verdict == "inconclusive":
            ElementTree.SubElement(case, "skipped", {"message": said})
        ElementTree.SubElement(case, "system-out").text = said
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(row: Row) -> str:
    return f"{row.task} {row.metric.name}"


def _sentence(row: Row) -> str:
    gain = _points(row, row.gain, signed=True) or "undefined"
    return (
        f"{row.verdict}: {row.task} {row.metric.title} {_points(row, row.baseline)} -> "
        f"{_points(row, row.candidate)}, gain {gain} {_interval(row)}, threshold {_points(row, row.threshold)}"
    )


def as_json(report: Report) -> dict[str, Any]:
    """Everything with full precision, in the metrics' units."""
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
        }
    )


def page(report: Report, images: Sequence[Path] = (), beside: Sequence[str] = ()) -> str:
    """One HTML page that needs nothing else.

    Args:
        report: The report.
        images: Folders to look for the pictures in.
        beside: Names of files in the page's folder that it links to.
    """
    told = table(report)
    head = "".join(f"<th>{_text(name)}</th>" for name in told.header)
    body = "".join(
        f'<tr class="{row.verdict}">' + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>"
        for row, cells in zip(report.rows, told.rows, strict=True)
    )
    notes = "".join(f"<p class=note>{_text(note)}</p>" for note in told.notes)
    runs = _runs_markdown(report).replace("`", "").strip().splitlines()
    listed = "".join(f"<li>{_text(line.removeprefix('- '))}</li>" for line in runs)
    flips = "".join(_flip_html(flip, images) for flip in report.flips)
    links = ", ".join(f'<a href="{_text(name)}">{_text(name)}</a>' for name in beside)
    more = f"<p class=note>Beside this page: {links}</p>" if links else ""
    section = f"<h2>Samples that lost most</h2>{_LEGEND}<div class=flips>{flips}</div>" if flips else ""
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{_text(headline(report))}</title>"
        "<meta name=viewport content='width=device-width'>"
        f"<style>{_STYLE}</style></head><body><h1 class={report.verdict}>"
        f"{_MARKS[report.verdict]} {_text(headline(report))}</h1><ul>{listed}</ul><div class=scroll><table><thead><tr>"
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>{notes}{more}{section}</body></html>\n"
    )


def _flip_html(flip: Flip, images: Sequence[Path]) -> str:
    texts = {"truth": truth_of(flip), "baseline": flip.baseline, "candidate": flip.candidate}
    said = "".join(
        f'<dt><span style="color:{_COLOURS[name]}">■</span> {name}</dt><dd>{_text(text[:2000])}</dd>'
        for name, text in texts.items()
    )
    picture = _picture(flip, images)
    words = f"<h3>{_text(flip.task)}</h3><p>{_text(flip.question)}</p><dl>{said}</dl>"
    return f"<article>{picture}<div>{words}</div></article>"


def _picture(flip: Flip, images: Sequence[Path]) -> str:
    """The thumbnail with the boxes over it; without the image, the boxes in an empty frame of its size."""
    width, height = flip.image.get("width"), flip.image.get("height")
    if not width or not height:
        return ""
    file = next(filter(None, (find_image(flip.image, folder) for folder in images or (None,))), None)
    small = _thumbnail(file, (width, height)) if file else None
    inside = f'<image href="{small}" width="{width}" height="{height}"/>' if small else ""
    if flip.benchmark == "grounding":
        boxes = {"truth": flip.target, "baseline": flip.baseline_prediction, "candidate": flip.candidate_prediction}
        inside += "".join(_box(text, _COLOURS[name], width) for name, text in boxes.items())
    scale = _THUMBNAIL / max(width, height)
    size = f'width="{width * scale:.0f}" height="{height * scale:.0f}"'
    return f'<svg viewBox="0 0 {width} {height}" {size} role=img aria-label="{_text(flip.task)}">{inside}</svg>'


def _box(text: str | None, colour: str, width: float) -> str:
    box = stored_box(text)
    if box is None:
        return ""
    x1, y1, x2, y2 = box
    place = f'x="{x1:.2f}" y="{y1:.2f}" width="{max(x2 - x1, 0):.2f}" height="{max(y2 - y1, 0):.2f}"'
    return f'<rect {place} fill="none" stroke="{colour}" stroke-width="{width / 120:.2f}"/>'


def _thumbnail(file: Path, size: tuple[int, int]) -> str | None:
    """The picture as an address that holds it; None where it cannot be read, or is not of the size that a run saw."""
    try:
        small = open_image(file)
    except Exception:  # damaged files raise many kinds, SyntaxError among them
        return None
    if small.size != size:  # older runs saw pictures as they are stored
        return None
    if max(small.size) > 2 * _THUMBNAIL:
        small.thumbnail((2 * _THUMBNAIL, 2 * _THUMBNAIL))
    data = io.BytesIO()
    small.save(data, "PNG" if max(small.size) <= 128 else "JPEG", quality=85)
    kind = "png" if max(small.size) <= 128 else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def _text(text: str) -> str:
    return html.escape(_CONTROL.sub("?", text))


def _points(row: Row, value: float | None, *, signed: bool = False) -> str:
    return "" if value is None else number(value, row.metric.unit, signed=signed)


def _interval(row: Row) -> str:
    ends = _gained(row.difference, row.metric.higher_is_better)
    return "" if ends is None else f"[{_points(row, ends[0], signed=True)}, {_points(row, ends[1], signed=True)}]"


def _gained(difference: Difference, higher: bool | None) -> tuple[float, float] | None:
    if difference.interval is None:
        return None
    low, high = difference.interval
    return (low, high) if higher else (-high, -low)


_LEGEND = "<p class=note>" + " ".join(f'<span style="color:{c}">■</span> {n}' for n, c in _COLOURS.items()) + "</p>"
_STYLE = """
:root{color-scheme:light dark;--line:#8884}
body{font:15px/1.45 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h1.regressed{color:#d55e00}h1.improved{color:#009e73}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .7rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child,th:last-child,td:last-child{text-align:left}
tr.regressed td:last-child{color:#d55e00;font-weight:600}tr.improved td:last-child{color:#009e73;font-weight:600}
.note,ul{opacity:.8;font-size:.87rem}.flips{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(330px,1fr))}
article{border:1px solid var(--line);border-radius:8px;padding:.8rem}svg{max-width:100%;height:auto;background:#8882}
h3{margin:.4rem 0}dl{margin:0}dt{font-size:.8rem;opacity:.8}
dd{margin:0 0 .4rem;white-space:pre-wrap;overflow-wrap:anywhere;font-family:monospace;max-height:12rem;overflow-y:auto}
"""
