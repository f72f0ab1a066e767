"""The lines of a page beside those of an answer, as HTML. No Streamlit."""

from __future__ import annotations

import html
from collections.abc import Iterator

from perpo.texts.line_errors import ERRORS, LineErrors, LineKind, LinePair
from perpo_dashboard.samples import word_diff

_SAID: dict[LineKind, str] = {
    "dropped": "dropped", "added": "added", "changed": "changed", "moved": "in another place", "repeated": "said again",
}  # fmt: skip


def told(errors: LineErrors) -> str:
    """Return how many lines are wrong in which way, as a sentence without its end."""
    counts = errors.counts()
    wrong = [f"{counts[kind]:,} {_SAID[kind]}" for kind in ERRORS if counts[kind]]
    same = f"{counts['same']:,} the same"
    return f"Lines: {', '.join([*wrong, same])}"


def as_html(errors: LineErrors, truth: str, answer: str) -> str:
    """Return a table of the lines, in which every piece of text is escaped.

    Args:
        errors: What `perpo.texts.line_errors` gave.
        truth: Colour of what is only in the truth, such as "#009e73".
        answer: Colour of what is only in the answer.
    """
    rows = "".join(_row(pair, {"truth": truth, "answer": answer}) for pair in errors.pairs)
    head = "<tr><th></th><th>page</th><th>answer</th></tr>"
    style = "table-layout:fixed;width:100%;border-collapse:collapse;overflow-wrap:anywhere;text-align:start"
    return (
        f'<table style="{style}"><colgroup><col style="width:6.5em"><col><col></colgroup>'
        f"<thead>{head}</thead><tbody>{rows}</tbody></table>"
    )


def _row(pair: LinePair, colours: dict[str, str]) -> str:
    cells = "".join(_cells(pair, colours))
    return f'<tr style="vertical-align:top"><td style="opacity:.7">{_SAID.get(pair.kind, "")}</td>{cells}</tr>'


def _cells(pair: LinePair, colours: dict[str, str]) -> Iterator[str]:
    if pair.kind == "changed" and pair.truth is not None and pair.answer is not None:
        marked = word_diff.differences(pair.truth, pair.answer)
        for side in ("truth", "answer"):
            parts = [part for part in marked.parts if part.kind in ("both", side)]
            yield f'<td dir="auto">{word_diff.marked(parts, colours)}</td>'
        return
    for side, line in (("truth", pair.truth), ("answer", pair.answer)):
        wash = "" if pair.kind == "same" or line is None else f"background:{colours[side]}33"
        yield f'<td dir="auto" style="{wash}">{html.escape(line or "")}</td>'
