"""A comparison of two runs as files that need no server. No Streamlit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from perpo.common.files import atomic_write_text
from perpo.errors import PerpoError
from perpo.results.leaderboard import board as leaderboard
from perpo.results.leaderboard import files as leaderboard_files
from perpo.results.regression import page, report_json
from perpo.results.regression import text as report_files
from perpo.results.regression.report import Report

PAGE = "index.html"


def write(report: Report, folder: Path, roots: Sequence[Path]) -> Path:
    """Write a page, and beside it the same in forms for a text, a program and a spreadsheet.

    Args:
        report: The comparison.
        folder: Where they go; it is made if need be, and files of these names are replaced.
        roots: Folders that pictures may be read from; they are put into the page.

    Returns:
        The page.

    Raises:
        PerpoError: The folder cannot be written to.
    """
    boards = leaderboard.boards([report.baseline, report.candidate])
    files = {
        "report.md": report_files.markdown(report),
        "report.json": json.dumps(report_json.as_json(report), indent=1, ensure_ascii=False) + "\n",
        "leaderboard.md": "\n".join(leaderboard_files.render(board, "markdown") for board in boards),
    }
    for number, board in enumerate(boards, 1):
        files[f"leaderboard-{number}.csv" if len(boards) > 1 else "leaderboard.csv"] = leaderboard_files.render(
            board, "csv"
        )
    try:
        for name, text in files.items():
            atomic_write_text(folder / name, text)
        atomic_write_text(folder / PAGE, page.page(report, roots, beside=list(files)))  # last: it names them
    except OSError as error:
        raise PerpoError(
            f"{folder} cannot be written to: {error.strerror}", "give another --out", exit_code=3
        ) from error
    return folder / PAGE
