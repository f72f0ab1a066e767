"""One baseline against one candidate or several: their reports as one text each. No torch.

With one candidate every text is that of its report.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from perpo.results.regression import extras, report_json, text
from perpo.results.regression.report import Report
from perpo.results.regression.rows import FAILURES
from perpo.results.text import Text, literal

_WORST = (*FAILURES, "inconclusive", "unchanged", "identical", "improved")
_TOGETHER = "The p-values of all candidates are adjusted together."


def worst(reports: Sequence[Report]) -> Report:
    """Return the report of the candidate that came off worst, the first of equals."""
    return min(reports, key=lambda report: _WORST.index(report.verdict))


def headline(reports: Sequence[Report]) -> str:
    """Return the worst verdict and what it rests on, one line."""
    told = text.headline(worst(reports))
    return told if len(reports) == 1 else f"{told} (the worst of {len(reports)} candidates)"


def overview(reports: Sequence[Report]) -> Text:
    """Return a table of the candidates: each with its verdict and the rows that fail."""
    rows = []
    for report in reports:
        failing = [f"{row.name} {text.gain(row)}" for row in report.rows if row.fails]
        failing += [f"pinned case {extras.pinned_name(case)}" for case in report.extras.fails]
        more = f" and {len(failing) - 5} more" if len(failing) > 5 else ""
        verdict = f"{text.MARKS[report.verdict]} {report.verdict}"
        rows.append([text.short(report.candidate_entry.name), verdict, ", ".join(failing[:5]) + more])
    title = f"{len(reports)} candidates against {text.short(reports[0].baseline_entry.name)}"
    return Text(title, ["candidate", "verdict", "what fails"], rows, [_TOGETHER])


def show(reports: Sequence[Report]) -> None:
    """Print the tables of every candidate, and what of the other metrics got better, worse or other."""
    for report in reports:
        text.for_terminal(text.table(report)).show()
        for told in extras.tables(report.extras):
            print()
            told.show()
        if (told := text.others_table(report, telling=True)).rows:
            print()
            text.for_terminal(told).show()
    if len(reports) > 1:
        print()
        overview(reports).show()


def markdown(reports: Sequence[Report], limit: int = text.COMMENT_LIMIT) -> str:
    """Return one text of at most `limit` bytes: the candidates' verdicts, then the report of each."""
    if len(reports) == 1:
        return text.markdown(reports[0], limit)
    told = overview(reports)
    rows = [[literal(cell) for cell in row] for row in told.rows]
    head = Text(literal(told.title), told.header, rows, told.notes).markdown()
    room = (limit - len(head.encode())) // len(reports) - 10
    return head + "".join(f"\n---\n\n{text.markdown(report, room)}" for report in reports)


def as_json(reports: Sequence[Report]) -> dict[str, Any]:
    """Return everything with full precision; of several candidates the report of each in a list."""
    if len(reports) == 1:
        return report_json.as_json(reports[0])
    return {
        "schema": report_json.JSON_SCHEMA,
        "verdict": worst(reports).verdict,
        "baseline": reports[0].baseline.record.run_id,
        "candidates": [report_json.as_json(report) for report in reports],
    }
