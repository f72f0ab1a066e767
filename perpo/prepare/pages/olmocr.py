"""Pages of olmOCR-Bench with their unit tests, without mathematics; from the hub or from a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.benchmarks.olmocr_no_math import FILES, MATH_FILES
from perpo.data.rows import read_rows
from perpo.errors import PerpoError
from perpo.prepare.hub.rows import hub_folder
from perpo.prepare.pages.rows import OcrPage, page_rows, told_counts
from perpo.prepare.parquet import RowFile, Written, check_outputs, say, write_rows
from perpo.prepare.pdf.rendering import page_count, page_png
from perpo.texts.unit_tests import problem

if TYPE_CHECKING:
    from perpo.prepare.arguments import OlmocrArguments

REPOSITORY = "allenai/olmOCR-bench"
_BASELINE = "baseline"
_ABOUT = ("pdf", "page", "id", "url", "checked")

Tests = dict[str, dict[tuple[str, int], list[dict[str, Any]]]]
"""By file, and by PDF and page."""


def build_olmocr(args: OlmocrArguments) -> list[Written]:
    """Write olmocr_<file>.parquet for each file of tests.

    Raises:
        PerpoError: The hub can't be reached (exit code 3), or tests or PDFs can't be used.
    """
    folder, commit = Path(args.data), None
    if args.data == "hub":
        say(f"fetching {REPOSITORY} ...")
        folder, commit = hub_folder(REPOSITORY, ["bench_data/*.jsonl", "bench_data/pdfs/*"], args.revision)
    if (folder / "bench_data").is_dir():
        folder /= "bench_data"
    tests = read_tests_of(folder)
    outputs = {name: args.output / f"olmocr_{name}.parquet" for name in tests}
    check_outputs(list(outputs.values()), args.overwrite)
    written = []
    for name, by_page in tests.items():
        pages = [
            OcrPage(folder / "pdfs" / pdf, "", json.dumps(held, ensure_ascii=False), name=f"{pdf}#{page}")
            for (pdf, page), held in by_page.items()
        ]
        file = RowFile(
            path=outputs[name],
            kind="pages",
            source=f"hub:{REPOSITORY}" if commit else "folder:olmOCR-bench",
            split=name,
            command=args.command(),
            counts={**told_counts(pages), "images": len(pages), "tests": sum(map(len, by_page.values()))},
            more={"orientation": "upright", "longest_side": args.longest_side}
            | ({"revision": commit} if commit else {}),
        )
        written.append(write_rows(file, page_rows(_rendered(pages, args.longest_side), "")))
    return written


def read_tests_of(folder: Path) -> Tests:
    """Read the tests of a folder `bench_data`: those of its files, and one of type baseline for each PDF without.

    Raises:
        PerpoError: No such files, a test that can't be run, or one whose PDF is not there.
    """
    files = {path.stem: path for path in sorted(folder.glob("*.jsonl"))}
    pdfs = sorted(path.relative_to(folder / "pdfs").as_posix() for path in (folder / "pdfs").rglob("*.pdf"))
    if not pdfs or not set(files) & set(FILES):
        raise PerpoError(
            f"{folder} holds no files of tests, or no PDFs in pdfs", f"give the folder bench_data of {REPOSITORY}"
        )
    tests: Tests = {}
    sound: set[str] = set()
    left_out = 0
    for name, path in files.items():
        if name not in (*FILES, *MATH_FILES):
            say(f"{path.name} is no file of the benchmark and is left out")
            continue
        for number, row in enumerate(read_rows(path), start=1):
            test = _checked(row, f"{path}, test {number}", pdfs)
            sound |= {test["pdf"]} if test["type"] == "baseline" else set()
            if test["type"] == "math":
                left_out += 1
            elif name in FILES:
                tests.setdefault(name, {}).setdefault((test["pdf"], test["page"]), []).append(_stored(test))
    rest = {(pdf, 1): [{"type": "baseline", "id": f"{pdf}_baseline"}] for pdf in pdfs if pdf not in sound}
    if rest:
        tests.setdefault(_BASELINE, {}).update(rest)
    say(f"{left_out} tests of mathematics are left out; {len(rest)} PDFs have the test that the official program adds")
    return {name: tests[name] for name in FILES if name in tests}


def _checked(row: Any, where: str, pdfs: list[str]) -> dict[str, Any]:
    if not isinstance(row, dict) or not isinstance(row.get("pdf"), str) or not isinstance(row.get("page"), int):
        raise PerpoError(f"{where}: expected a test with pdf and page, found {row!r:.80}", "fetch the file again")
    said = "" if row.get("type") == "math" else problem(row)
    if said:
        raise PerpoError(f"{where}: {said}", "fetch the file again")
    if row["pdf"] not in pdfs:
        raise PerpoError(f"{where}: pdfs/{row['pdf']} is not there", "fetch the PDFs too")
    return row


def _stored(test: Mapping[str, Any]) -> dict[str, Any]:
    """A test without what says where it is from, its name aside; fields that say nothing are left out."""
    kept = {name: value for name, value in test.items() if name not in _ABOUT or name == "id"}
    # A field that is null is not one that is missing: without `case_sensitive` capitals count, with null they do not.
    return {name: value for name, value in kept.items() if value is not None or name == "case_sensitive"}


def _rendered(pages: list[OcrPage], longest_side: int) -> Iterator[OcrPage]:
    for page in pages:
        number = int(page.name.rpartition("#")[2])
        if not 1 <= number <= page_count(page.image):
            raise PerpoError(f"{page.image} has no page {number}", "fetch the PDFs again")
        content = page_png(page.image, number, longest_side)
        yield replace(page, image=Path(f"{page.name.replace('/', '_')}.png"), content=content)
