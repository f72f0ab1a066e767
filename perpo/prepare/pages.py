"""Pages of text: Fox's benchmark, and any folder of page images with their texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.data import data_sha256
from perpo.data.images import listing
from perpo.data.placeholders import without_image
from perpo.data.rows import Row, read_rows
from perpo.errors import PerpoError, placed
from perpo.prepare.known import FOX_PAGES, compare
from perpo.prepare.parquet import (
    RowFile,
    Written,
    check_image_files,
    check_outputs,
    image_cell,
    write_rows,
)

if TYPE_CHECKING:
    from perpo.prepare.arguments import FoxArguments, PagesArguments

_LABELS = {"en": "en", "cn": "zh"}
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


@dataclass(frozen=True)
class Page:
    """A page's image, what is asked about it ("" for the evaluation's own prompt), and its text."""

    image: Path
    question: str
    text: str


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
            f"Fox {language}", {"pages": len(found)}, {"pages": FOX_PAGES[language]}, args.allow_other_counts
        )
        for language, found in pages.items()
    }
    check_image_files(
        (page.image for found in pages.values() for page in found), "the archive holds them beside the JSON files"
    )
    written = []
    for language, found in pages.items():
        file = RowFile(
            path=outputs[language],
            kind="pages",
            source="fox:page_ocr",
            split=language,
            command=args.command(),
            counts=_counts(found),
            verdict=verdicts[language],
            more={"source_sha256": data_sha256(_fox_file(args.root, language))},
        )
        written.append(write_rows(file, _rows(found, _LABELS[language])))
    return written


def read_fox(root: Path, language: str) -> list[Page]:
    """Fox's pages of a language ("en" or "cn").

    Raises:
        PerpoError: The file is missing, or an entry is not one image, a human turn and an answer.
    """
    path = _fox_file(root, language)
    if not path.is_file():
        raise PerpoError(
            f"expected {path}, found no such file", "give as --root the folder focus_benchmark_test, or --languages"
        )
    folder = root / f"{language}_pdf_png"
    pages = [_fox_page(row, folder, f"{path}, page {number}") for number, row in enumerate(read_rows(path), start=1)]
    if not pages:
        raise PerpoError(f"{path} holds no pages", "is it the right file?")
    return pages


def build_folder(args: PagesArguments) -> list[Written]:
    """Write pages_<name>.parquet from a folder.

    Raises:
        PerpoError: An image without a text or a text without an image, or files that can't be read.
    """
    args.check()
    output = args.output / f"pages_{args.name}.parquet"
    check_outputs([output], args.overwrite)
    pages = read_folder(args.folder)
    check_image_files((page.image for page in pages), "mend them, or take them and their texts out of the folder")
    file = RowFile(
        path=output,
        kind="pages",
        source="folder",
        split=args.name,
        command=args.command(),
        counts=_counts(pages),
    )
    return [write_rows(file, _rows(pages, args.language))]


def read_folder(folder: Path) -> list[Page]:
    """Images and texts of the same stem, by name; folders in it are not looked into.

    Raises:
        PerpoError: No folder, no pages, an image or text without the other, or two images for one text.
    """
    if not folder.is_dir():
        raise PerpoError(f"expected a folder of pages at {folder}, found none", "check --folder")
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    images = [path for path in files if path.suffix.lower() in _SUFFIXES]
    texts = {path.stem: path for path in files if path.suffix.lower() == ".txt"}
    by_stem = {path.stem: path for path in images}
    if len(by_stem) < len(images):
        twice = sorted(path.name for path in images if by_stem[path.stem] != path)
        raise PerpoError(f"{folder} has several images of one name: {', '.join(twice[:10])}", "keep one of each")
    no_text = [path.name for path in images if path.stem not in texts]
    no_image = [path.name for stem, path in texts.items() if stem not in by_stem]
    if no_text or no_image:
        found = f"{len(no_text)} images without a text and {len(no_image)} texts without an image"
        raise PerpoError(
            f"{folder} has {found}:\n  {listing(no_text + no_image)}", "each page is NAME.png and NAME.txt"
        )
    if not images:
        raise PerpoError(f"{folder} holds no pages", "each page is an image and a .txt file of the same name")
    pages = [Page(path, "", _text(texts[path.stem])) for path in images]
    if empty := [page.image.name for page in pages if not page.text.strip()]:
        raise PerpoError(
            f"{len(empty)} of {len(pages)} pages have an empty text, which can't be scored:\n  {listing(empty)}",
            "take them out of the folder",
        )
    return pages


def _fox_file(root: Path, language: str) -> Path:
    return root / f"{language}_page_ocr.json"


def _fox_page(row: Any, folder: Path, where: str) -> Page:
    turns = row.get("conversations") if isinstance(row, dict) else None
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        turns = []
    if [turn.get("from") for turn in turns] != ["human", "gpt"]:
        raise PerpoError(f"{where}: expected a human turn and an answer, found {row!r:.60}", "fetch the file again")
    name, said = row.get("image"), [turn.get("value") for turn in turns]
    if not isinstance(name, str) or not all(isinstance(text, str) for text in said):
        raise PerpoError(f"{where}: expected an image's name and two texts, found {row!r:.60}", "fetch the file again")
    with placed(where):
        return Page(folder / name, without_image(said[0]), said[1])


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PerpoError(f"{path} can't be read as UTF-8 text: {error}", "convert it to UTF-8") from error


def _counts(pages: Sequence[Page]) -> dict[str, int]:
    return {"rows": len(pages), "images": len({page.image for page in pages})}


def _rows(pages: Sequence[Page], language: str) -> Iterator[Row]:
    for number, page in enumerate(pages):
        yield {
            "question_id": str(number),
            "image": image_cell(page.image),
            "question": page.question,
            "answer": page.text,
            "language": language,
            "file_name": page.image.name,
        }
