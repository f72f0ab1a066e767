"""A report as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

from perpo.benchmarks.table import answer_kind
from perpo.boxes import stored_box
from perpo.data.embedded import find_image
from perpo.data.images import open_image
from perpo.results.colours import BASELINE, CANDIDATE, TRUTH
from perpo.results.regression import extras, many
from perpo.results.regression.flips import Flip
from perpo.results.regression.report import Report
from perpo.results.regression.text import CONTROL, MARKS, headline, others_table, runs_markdown, table, truth_of
from perpo.results.text import Text

_THUMBNAIL = 320  # pixels
_COLOURS = {"truth": TRUTH, "baseline": BASELINE, "candidate": CANDIDATE}


def page(reports: Report | Sequence[Report], images: Sequence[Path] = (), beside: Sequence[str] = ()) -> str:
    """Return one HTML page that needs nothing else.

    Args:
        reports: The report, or one of each candidate.
        images: Folders to look for the pictures in.
        beside: Names of files in the page's folder that it links to.
    """
    reports = [reports] if isinstance(reports, Report) else reports
    links = ", ".join(f'<a href="{_text(name)}">{_text(name)}</a>' for name in beside)
    more = f"<p class=note>Beside this page: {links}</p>" if links else ""
    title, overview = many.headline(reports), ""
    if len(reports) > 1:
        told = many.overview(reports)
        overview = f"<h1>{_text(told.title)}</h1>{_table(told, [report.verdict for report in reports])}"
        overview += "".join(f"<p class=note>{_text(note)}</p>" for note in told.notes)
    sections = "".join(_section(report, images, more if len(reports) == 1 else "") for report in reports)
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{_text(title)}</title>"
        "<meta name=viewport content='width=device-width'>"
        f"<style>{_STYLE}</style></head><body>{overview}{sections}</body></html>\n"
    )


def _section(report: Report, images: Sequence[Path], more: str) -> str:
    """A candidate's verdict, rows, notes and the samples that it lost."""
    told, others = table(report), others_table(report)
    notes = "".join(f"<p class=note>{_text(note)}</p>" for note in told.notes)
    runs = runs_markdown(report).replace("`", "").strip().splitlines()
    listed = "".join(f"<li>{_text(line.removeprefix('- '))}</li>" for line in runs)
    flips = "".join(_flip_html(flip, images) for flip in report.flips)
    section = f"<h2>Samples that lost most</h2>{_LEGEND}<div class=flips>{flips}</div>" if flips else ""
    if others.rows:
        folded = _table(others, [row.verdict for row in report.others])
        said = "".join(f"<p class=note>{_text(note)}</p>" for note in others.notes)
        section += f"<details><summary>{len(others.rows)} other metrics, only told</summary>{folded}{said}"
        section += "</details>"
    return (
        f"<h1 class={report.verdict}>{MARKS[report.verdict]} {_text(headline(report))}</h1><ul>{listed}</ul>"
        f"{_table(told, [row.verdict for row in report.rows])}{notes}{more}{_extras(report, images)}{section}"
    )


def _table(told: Text, verdicts: Sequence[str]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in told.header)
    body = "".join(
        f'<tr class="{verdict}">' + "".join(f"<td>{_text(cell)}</td>" for cell in cells) + "</tr>"
        for verdict, cells in zip(verdicts, told.rows, strict=True)
    )
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _extras(report: Report, images: Sequence[Path]) -> str:
    """What is told beside the rows: its tables, and the pinned cases that fail as samples."""
    parts = []
    for told in extras.tables(report.extras):
        notes = "".join(f"<p class=note>{_text(note)}</p>" for note in told.notes)
        parts.append(f"<h2>{_text(told.title)}</h2>{_table(told, [''] * len(told.rows))}{notes}")
    failed = "".join(_flip_html(case.sample, images) for case in report.extras.fails)
    return "".join(parts) + (f"{_LEGEND}<div class=flips>{failed}</div>" if failed else "")


def _flip_html(flip: Flip, images: Sequence[Path]) -> str:
    texts = {"truth": truth_of(flip), "baseline": flip.baseline, "candidate": flip.candidate}
    said = "".join(
        f'<dt><span style="color:{_COLOURS[name]}">■</span> {name}</dt><dd>{_text(text[:2000])}</dd>'
        for name, text in texts.items()
    )
    picture = _picture(flip, images)
    key = f"<code>{_text(flip.sample_key[:12])}</code>"
    words = f"<h3>{_text(flip.task)} {key}</h3><p>{_text(flip.question)}</p><dl>{said}</dl>"
    return f"<article>{picture}<div>{words}</div></article>"


def _picture(flip: Flip, images: Sequence[Path]) -> str:
    """The thumbnail with the boxes over it; without the image, the boxes in an empty frame of its size."""
    width, height = flip.image.get("width"), flip.image.get("height")
    if not width or not height:
        return ""
    file = next(filter(None, (find_image(flip.image, folder) for folder in images or (None,))), None)
    small = _thumbnail(file, (width, height)) if file else None
    inside = f'<image href="{small}" width="{width}" height="{height}"/>' if small else ""
    if answer_kind(flip.benchmark) == "box":
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
    return html.escape(CONTROL.sub("?", text))


_LEGEND = "<p class=note>" + " ".join(f'<span style="color:{c}">■</span> {n}' for n, c in _COLOURS.items()) + "</p>"
_STYLE = """
:root{color-scheme:light dark;--line:#8884}
body{font:15px/1.45 system-ui,sans-serif;max-width:1080px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h1.regressed,h1.changed{color:#d55e00}h1.improved{color:#009e73}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.3rem .7rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child,th:last-child,td:last-child{text-align:left}
tr.regressed td:last-child,tr.changed td:last-child{color:#d55e00;font-weight:600}
tr.improved td:last-child{color:#009e73;font-weight:600}
.note,ul{opacity:.8;font-size:.87rem}.flips{display:grid;gap:1rem;grid-template-columns:repeat(auto-fill,minmax(330px,1fr))}
details{margin-top:1rem}
article{border:1px solid var(--line);border-radius:8px;padding:.8rem}svg{max-width:100%;height:auto;background:#8882}
h3{margin:.4rem 0}dl{margin:0}dt{font-size:.8rem;opacity:.8}
dd{margin:0 0 .4rem;white-space:pre-wrap;overflow-wrap:anywhere;font-family:monospace;max-height:12rem;overflow-y:auto}
"""
