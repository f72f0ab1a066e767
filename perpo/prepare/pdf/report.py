"""The report of a folder of PDF files: what became of each document and page, as JSON and as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from perpo.prepare.pdf.choosing import ReadDocument
from perpo.prepare.pdf.reasons import REASONS

_WIDTH = 80
_NAMED = 20
_PARTS = (("training", "train"), ("evaluation", "eval"))


def report_of(documents: Sequence[ReadDocument], settings: dict[str, Any]) -> dict[str, Any]:
    """Return the report as JSON: counts, and every document with each page that was left out.

    Nothing in it depends on the number of workers, the time or the machine.
    """
    return {
        "settings": settings,
        "counts": _counts(documents),
        "left_out": {
            "documents": _ordered(document.reason for document in documents if document.reason),
            "pages": _ordered(reason for document in documents for _, reason, _ in document.left_out),
        },
        "reasons": REASONS,
        "documents": [_document(document) for document in documents],
    }


def _counts(documents: Iterable[ReadDocument]) -> dict[str, int]:
    counts = Counter(
        documents=0, pages=0, train_documents=0, train_pages=0, eval_documents=0, eval_pages=0, lossy_pages=0
    )
    for document in documents:
        counts["documents"] += 1
        counts["pages"] += len(document.pages) + len(document.left_out)
        counts["lossy_pages"] += sum(page.lost > 0 for page in document.pages)
        if document.pages:
            part = "eval" if document.evaluation else "train"
            counts[f"{part}_documents"] += 1
            counts[f"{part}_pages"] += len(document.pages)
    return dict(counts)


def _ordered(reasons: Iterable[str]) -> dict[str, int]:
    counts = Counter(reasons)
    return {reason: counts[reason] for reason in REASONS if counts[reason]}


def _document(document: ReadDocument) -> dict[str, Any]:
    said: dict[str, Any] = {"file": document.name, "sha256": document.sha256}
    if document.reason:
        return said | {"reason": document.reason, "detail": document.detail}
    left_out = [
        {"page": page, "reason": reason, **({"detail": detail} if detail else {})}
        for page, reason, detail in document.left_out
    ]
    split = ("eval" if document.evaluation else "train") if document.pages else None
    pages = [page.number for page in document.pages]
    lost = {str(page.number): page.lost for page in document.pages if page.lost}
    return said | {"split": split, "pages": pages, "lost_letters": lost, "left_out": left_out}


def report_table(report: dict[str, Any]) -> str:
    """Return the report in lines of at most 80 characters: counts, reasons, and the first documents left out."""
    counts, left_out = report["counts"], report["left_out"]
    rows = [("", "documents", "pages"), ("found", counts["documents"], counts["pages"])]
    rows += [(f"for {name}", counts[f"{part}_documents"], counts[f"{part}_pages"]) for name, part in _PARTS]
    rows += [("left out", sum(left_out["documents"].values()), sum(left_out["pages"].values()))]
    for reason, sentence in REASONS.items():
        cells = [left_out[kind].get(reason, "") for kind in ("documents", "pages")]
        if any(cells):
            rows.append((f"  {reason}", *cells, sentence))
    lines = [_line(*row) for row in rows]
    if counts["lossy_pages"]:
        lines += [
            "",
            f"{counts['lossy_pages']} pages stay without a few letters that are not seen; the report names them",
        ]
    named = [one for one in report["documents"] if "reason" in one]
    if named:
        lines += ["", "documents that were left out:"]
        lines += [_cut(f"  {one['file']}: {one['reason']} {one['detail']}".rstrip()) for one in named[:_NAMED]]
    if len(named) > _NAMED:
        lines.append(f"  and {len(named) - _NAMED} more, in the report")
    return "\n".join(lines)


def _line(name: str, documents: object, pages: object, sentence: str = "") -> str:
    return _cut(f"{name:<18} {documents!s:>9} {pages!s:>7}  {sentence}".rstrip())


def _cut(line: str) -> str:
    printable = "".join(one if one.isprintable() else "?" for one in line)
    return printable if len(printable) <= _WIDTH else f"{printable[: _WIDTH - 3]}..."
