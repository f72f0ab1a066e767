"""perpo-data pdf: a folder of PDF files becomes questions for training and rows for evaluation."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.benchmarks.ocr import told_columns
from perpo.benchmarks.prompts import PAGE
from perpo.common.arguments import next_command
from perpo.common.files import atomic_write_text, make_folder
from perpo.common.journal import Journal
from perpo.common.progress import progress
from perpo.data import Question, write_jsonl
from perpo.errors import PerpoError
from perpo.prepare.pages.rows import OcrPage, page_rows, told_counts
from perpo.prepare.parquet import RowFile, Written, check_outputs, say, write_rows
from perpo.prepare.pdf.choosing import ReadDocument, choose_pages, split_documents
from perpo.prepare.pdf.rendering import renderer
from perpo.prepare.pdf.report import report_of, report_table
from perpo.prepare.pdf.text import NORMALISATION
from perpo.sample.arguments import SampleArguments

if TYPE_CHECKING:
    from perpo.prepare.arguments import PdfArguments
    from perpo.prepare.pdf.document import PageSettings

JOURNAL = ".pdf-journal.jsonl"
_VERSION = 3  # of what pages become: raised whenever one becomes something else
_DIGITS = 16  # of a document's digest, in the names of its pictures
_PICTURE = re.compile(rf"[0-9a-f]{{{_DIGITS}}}-\d{{4,}}\.(png|jpg)")


def build(args: PdfArguments) -> list[Written]:
    """Write questions.jsonl with images/, pages_<name>.parquet and report.json.

    Raises:
        PerpoError: There are no documents, files exist, or no page is left.
    """
    args.check()
    renderer()
    output = args.output
    rows, questions, report = output / f"pages_{args.name}.parquet", output / "questions.jsonl", output / "report.json"
    # Unfinished work of this command wrote what is there.
    check_outputs([rows, questions, report], args.overwrite or (output / JOURNAL).exists())
    paths = documents_of(args.pdf)
    make_folder(output / "images")
    settings = args.page_settings()
    told = _told(args, settings)
    with Journal(output / JOURNAL, _key(told, args.name)) as journal:
        documents = _read_all(paths, journal, args, settings)
        split_documents(documents, args.eval_share, args.seed)
        said = report_of(documents, told)
        print(report_table(said))
        print()
        any_left = any(document.pages for document in documents)
        written = _write(documents, args, rows, questions) if any_left else []
        atomic_write_text(report, json.dumps(said, indent=1, ensure_ascii=False) + "\n")
        _clean(documents, output / "images")
        journal.path.unlink()
    if not any_left:
        raise PerpoError(f"no page of {len(paths)} documents is left", f"{report} says why of each")
    return written


def _told(args: PdfArguments, settings: PageSettings) -> dict[str, Any]:
    from pypdfium2 import PDFIUM_INFO, PYPDFIUM_INFO

    renderer = {"pypdfium2": PYPDFIUM_INFO.version, "pdfium": str(PDFIUM_INFO.build)}
    split = {"eval_share": args.eval_share, "seed": args.seed}
    return {**dataclasses.asdict(settings), "normalisation": NORMALISATION, **split, **renderer}


def _key(told: dict[str, Any], name: str) -> str:
    # How documents are shared out is decided when all are read, and may change between two calls.
    pages = {name: value for name, value in told.items() if name not in ("eval_share", "seed")}
    return hashlib.sha256(json.dumps([_VERSION, name, pages], sort_keys=True).encode()).hexdigest()


def documents_of(folder: Path) -> list[Path]:
    """Return the PDF files of a folder and of those within it.

    Raises:
        PerpoError: No folder, or none in it.
    """
    if not folder.is_dir():
        raise PerpoError(f"expected a folder of PDF files at {folder}, found no folder", "check --pdf")
    paths = [path for path in folder.rglob("*") if path.suffix.lower() == ".pdf" and path.is_file()]
    if not paths:
        raise PerpoError(f"{folder} holds no PDF files", "their names end in .pdf; folders in it are looked into")
    return sorted(paths, key=lambda path: path.relative_to(folder).as_posix())


def _read_all(
    paths: Sequence[Path], journal: Journal, args: PdfArguments, settings: PageSettings
) -> list[ReadDocument]:
    """Read what the journal does not have yet; each content once."""
    from perpo.prepare.pdf.workers import DocumentTask, WorkerSettings, read_documents

    images = args.output / "images"
    names = [path.relative_to(args.pdf).as_posix() for path in paths]
    digests = [_digest(path) for path in paths]
    known = {sha: row for sha, row in journal.done().items() if _is_whole(row, images)}
    tasks = {
        sha: DocumentTask(path, sha[:_DIGITS])
        for path, sha in zip(reversed(paths), reversed(digests), strict=True)
        if sha and sha not in known
    }
    if known:
        say(f"{len(known)} documents were read before")
    by_stem = {task.stem: sha for sha, task in tasks.items()}
    with progress(len(known) + len(tasks), "documents", initial=len(known)) as advance:
        # The first paths' files first: with many workers the longest job should not come last by chance alone.
        work = WorkerSettings(images, settings, args.page_seconds)
        for task, told in read_documents(list(tasks.values())[::-1], work, args.number_of_workers()):
            sha = by_stem[task.stem]
            known[sha] = {"id": sha, **told}
            journal.append([known[sha]])
            advance(1)
    return choose_pages(_once(names, digests, known))


def _once(names: Sequence[str], digests: Sequence[str], known: dict[str, dict[str, Any]]) -> list[Any]:
    """The documents with what was found; those that can't be read or come again are left out."""
    seen: dict[str, str] = {}
    pages = []
    for name, sha in zip(names, digests, strict=True):
        if not sha:
            pages.append((name, "", {"reason": "not_readable"}))
        elif sha in seen:
            pages.append((name, sha, {"reason": "same_file", "detail": seen[sha]}))
        else:
            seen[sha] = name
            pages.append((name, sha, known[sha]))
    return pages


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _is_whole(row: dict[str, Any], images: Path) -> bool:
    """Say whether the pictures of a document are all there, as a crash of the machine may have lost some."""
    pages = [page for page in row.get("pages", ()) if "image" in page]
    try:
        return all((images / page["image"]).stat().st_size == page["bytes"] for page in pages)
    except OSError:
        return False


def _write(documents: Sequence[ReadDocument], args: PdfArguments, rows: Path, questions: Path) -> list[Written]:
    train, held_out = (
        [page for document in documents if document.evaluation is part for page in document.pages]
        for part in (False, True)
    )
    asked = [
        Question(image_path=f"images/{page.image}", question=PAGE(args.question), answer=page.text, image_id=page.image)
        for page in train
    ]
    images = args.output / "images"
    written = []
    if held_out:
        pages = [
            OcrPage(images / page.image, args.question, page.text, layout=told_columns(page.columns))
            for page in held_out
        ]
        file = RowFile(
            path=rows,
            kind="pages",
            source="pdf",
            split=args.name,
            command=args.command(),
            counts=told_counts(pages),
        )
        written = [write_rows(file, page_rows(pages, args.language))]
    else:
        rows.unlink(missing_ok=True)
        if args.eval_share:
            say(f"no document fell to evaluation: give another --seed, or a larger --eval_share than {args.eval_share}")
    write_jsonl(questions, asked)
    if not asked:
        if args.eval_share < 1:
            say(f"no document fell to training: give another --seed, or a smaller --eval_share than {args.eval_share}")
        return written
    print(f"{questions}: {len(asked)} questions about {len(asked)} images")
    sample = SampleArguments(
        output=str(args.output / "candidates.jsonl"),
        model="tiny",
        questions=str(questions),
        image_root=str(args.output),
        reward="edit",
    )
    say(f"sample with {next_command('perpo-sample', sample)}   # or another --model")
    return written


def _clean(documents: Sequence[ReadDocument], images: Path) -> None:
    """Delete the pictures that no question is about; those of evaluation are in their rows."""
    used = {page.image for document in documents if not document.evaluation for page in document.pages}
    for path in images.iterdir():
        if path.name not in used and _PICTURE.fullmatch(path.name):
            path.unlink()
