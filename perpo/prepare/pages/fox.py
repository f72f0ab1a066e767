"""Pages of the benchmark Fox."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.data import data_sha256
from perpo.data.embedded import image_in_text
from perpo.data.images import image_format
from perpo.data.placeholders import without_image
from perpo.data.rows import read_rows
from perpo.errors import PerpoError, placed
from perpo.prepare.pages.rows import OcrPage, page_rows, told_counts
from perpo.prepare.parquet import (
    RowFile,
    Written,
    check_image_files,
    check_outputs,
    write_rows,
)
from perpo.prepare.published_counts import FOX_PAGES, FoxLanguage, compare

if TYPE_CHECKING:
    from perpo.prepare.arguments import FoxArguments

_LONGEST_INDEX = 64
_LABELS = {"en": "en", "cn": "zh"}


def build_fox(args: FoxArguments) -> list[Written]:
    """Write fox_ocr_en.parquet and fox_ocr_cn.parquet.

    Raises:
        PerpoError: Files are missing or damaged, or the counts are not the known ones.
    """
    languages = list(dict.fromkeys(args.languages)) or list(FOX_PAGES)
    outputs = {language: args.output / f"fox_ocr_{language}.parquet" for language in languages}
    check_outputs(list(outputs.values()), args.overwrite)
    if args.tsv is not None:
        pages = read_fox_tsv(args.tsv, languages)
    else:
        assert args.root is not None
        pages = {language: read_fox(args.root, language) for language in languages}
    verdicts = {
        language: compare(
            f"Fox {language}", {"pages": len(language_pages)}, {"pages": FOX_PAGES[language]}, args.allow_other_counts
        )
        for language, language_pages in pages.items()
    }
    check_image_files(
        (page.image for language_pages in pages.values() for page in language_pages if page.content is None),
        "the archive of Fox holds them beside the JSON files",
    )
    written = []
    for language, language_pages in pages.items():
        file = RowFile(
            path=outputs[language],
            kind="pages",
            source="fox:page_ocr",
            split=language,
            command=args.command(),
            counts=told_counts(language_pages),
            verdict=verdicts[language],
            more={"source_sha256": data_sha256(args.tsv or _fox_file(args.root, language))},
        )
        written.append(write_rows(file, page_rows(language_pages, _LABELS[language])))
    return written


def read_fox(root: Path, language: str) -> list[OcrPage]:
    """Read Fox's pages of a language ("en" or "cn").

    Raises:
        PerpoError: The file is missing, or an entry is not one image, a human turn and an answer.
    """
    path = _fox_file(root, language)
    if not path.is_file():
        raise PerpoError(
            f"expected {path}, found no such file",
            "give the folder focus_benchmark_test as --root, or only the languages that it has as --languages",
        )
    folder = root / f"{language}_pdf_png"
    pages = [_fox_page(row, folder, f"{path}, page {number}") for number, row in enumerate(read_rows(path), start=1)]
    if not pages:
        raise PerpoError(f"{path} holds no pages", "check that this is the right file")
    return pages


def read_fox_tsv(path: Path, languages: Sequence[FoxLanguage]) -> dict[FoxLanguage, list[OcrPage]]:
    """Read Fox's pages of some languages from the hub's file for VLMEvalKit, which holds its other tasks too.

    Raises:
        PerpoError: The file is none, lacks a column, or has no pages of a language, or an image is none.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:  # pandas' errors of a file's form are ValueErrors
        raise PerpoError(f"{path} cannot be read as a table: {error}", "fetch it again") from error
    if missing := sorted({"index", "image", "question", "answer", "sub_task"} - set(table.columns)):
        raise PerpoError(f"{path} lacks {', '.join(missing)}", "check that this is Fox's TSV")
    images = dict(zip(table["index"], table["image"], strict=True))
    pages: dict[FoxLanguage, list[OcrPage]] = {language: [] for language in languages}
    for number, row in enumerate(table.to_dict("records"), start=1):
        language = _language_of(row["sub_task"])
        if language in pages:
            # Rows about one image may name the row that holds it.
            text = images.get(row["image"], "") if len(row["image"]) <= _LONGEST_INDEX else row["image"]
            with placed(f"{path}, row {number}"):
                content, question = _decoded(text), without_image(row["question"])
            name = Path(f"{language}_{row['index']}.png")
            pages[language].append(OcrPage(name, question, row["answer"], content=content))
    if absent := [language for language, of_language in pages.items() if not of_language]:
        known = ", ".join(sorted(set(table["sub_task"])))
        raise PerpoError(f"{path} has no page_ocr of {' or '.join(absent)}, only {known:.300}", "check --languages")
    return pages


def _language_of(sub_task: str) -> FoxLanguage | None:
    """The language of a task that is one of whole pages' text, such as en_page_ocr; None of any other."""
    words = re.split("[^a-z]+", sub_task.lower())
    if "page" not in words or "ocr" not in words or len(words) != 3:
        return None
    return "en" if "en" in words else "cn" if "cn" in words else None


def _decoded(text: str) -> bytes:
    try:
        content = image_in_text(text)
        if content is not None:
            image_format(content)
    except (ValueError, OSError) as error:
        raise PerpoError(f"its image cannot be read: {error}", "fetch the file again") from error
    if content is None:
        raise PerpoError("its image is no base64", "fetch the file again")
    return content


def _fox_file(root: Path | None, language: str) -> Path:
    assert root is not None
    return root / f"{language}_page_ocr.json"


def _fox_page(row: Any, folder: Path, where: str) -> OcrPage:
    turns = row.get("conversations") if isinstance(row, dict) else None
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        turns = []
    if [turn.get("from") for turn in turns] != ["human", "gpt"]:
        raise PerpoError(f"{where}: expected a human turn and an answer, found {row!r:.60}", "fetch the file again")
    name, said = row.get("image"), [turn.get("value") for turn in turns]
    if not isinstance(name, str) or not all(isinstance(text, str) for text in said):
        raise PerpoError(f"{where}: expected an image's name and two texts, found {row!r:.60}", "fetch the file again")
    with placed(where):
        return OcrPage(folder / name, without_image(said[0]), said[1])
