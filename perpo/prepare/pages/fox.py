"""Pages of the benchmark Fox."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.data import data_sha256
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
from perpo.prepare.published_counts import FOX_PAGES, compare

if TYPE_CHECKING:
    from perpo.prepare.arguments import FoxArguments

_LABELS = {"en": "en", "cn": "zh"}


def build_fox(args: FoxArguments) -> list[Written]:
    """Write fox_ocr_en.parquet and fox_ocr_cn.parquet.

    Raises:
        PerpoError: Files are missing or damaged, or the counts are not the known ones.
    """
    languages = list(dict.fromkeys(args.languages)) or list(FOX_PAGES)
    outputs = {language: args.output / f"fox_ocr_{language}.parquet" for language in languages}
    check_outputs(list(outputs.values()), args.overwrite)
    pages = {language: read_fox(args.root, language) for language in languages}
    verdicts = {
        language: compare(
            f"Fox {language}", {"pages": len(language_pages)}, {"pages": FOX_PAGES[language]}, args.allow_other_counts
        )
        for language, language_pages in pages.items()
    }
    check_image_files(
        (page.image for language_pages in pages.values() for page in language_pages),
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
            more={"source_sha256": data_sha256(_fox_file(args.root, language))},
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


def _fox_file(root: Path, language: str) -> Path:
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
