"""Full pages of OCRBench v2, from the hub or from a folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.data.placeholders import without_image
from perpo.data.rows import Row, read_rows
from perpo.errors import PerpoError, placed
from perpo.prepare.hub.rows import hub_rows
from perpo.prepare.pages.rows import OcrPage, page_rows, told_counts
from perpo.prepare.parquet import RowFile, Written, check_image_files, check_outputs, say, write_rows
from perpo.prepare.published_counts import FoxLanguage

if TYPE_CHECKING:
    from perpo.prepare.arguments import OcrbenchArguments

REPOSITORY = "ling99/OCRBench_v2"
_TYPES: dict[FoxLanguage, str] = {"en": "full-page OCR en", "cn": "full-page OCR cn"}
_LABELS: dict[FoxLanguage, str] = {"en": "en", "cn": "zh"}
_FIELDS = ("type", "id", "question", "answers")


def build_ocrbench(args: OcrbenchArguments) -> list[Written]:
    """Write ocrbench_v2_en.parquet and ocrbench_v2_cn.parquet.

    Raises:
        PerpoError: The hub can't be reached (exit code 3), or rows are not as the benchmark's.
    """
    languages = list(dict.fromkeys(args.languages)) or list(_TYPES)
    outputs = {language: args.output / f"ocrbench_v2_{language}.parquet" for language in languages}
    check_outputs(list(outputs.values()), args.overwrite)
    more: dict[str, Any] = {}
    if args.data == "hub":
        say(f"fetching {REPOSITORY} ...")
        data, more["revision"] = hub_rows(REPOSITORY, None, "test", args.revision)
        rows: Iterable[Row] = _hub_pages(data)
    else:
        rows = _folder_rows(Path(args.data))
    pages = _pages(rows, languages, args.data)
    check_image_files(
        (page.image for each in pages.values() for page in each if page.content is None), "fetch them again"
    )
    written = []
    for language, of_language in pages.items():
        file = RowFile(
            path=outputs[language],
            kind="pages",
            source=f"hub:{REPOSITORY}" if args.data == "hub" else "folder:OCRBench_v2",
            split=language,
            command=args.command(),
            counts=told_counts(of_language),
            # These pictures are no photographs of COCO, and are seen upright.
            more={"orientation": "upright", **more},
        )
        written.append(write_rows(file, page_rows(of_language, _LABELS[language])))
    return written


def _hub_pages(data: Any) -> Iterator[Row]:
    """The rows of full pages, with images as they are stored. All others are left out before images are read."""
    from datasets import Image

    places = [number for number, what in enumerate(data["type"]) if what in _TYPES.values()]
    yield from data.select(places).cast_column("image", Image(decode=False))


def _folder_rows(folder: Path) -> Iterator[Row]:
    """The rows of the hub's Parquet files, or of OCRBench_v2.json with its images."""
    listed = folder / "OCRBench_v2.json"
    files = [listed] if listed.is_file() else sorted(folder.rglob("*.parquet"))
    if not files:
        raise PerpoError(
            f"{folder} holds neither OCRBench_v2.json nor Parquet files",
            f"give the folder of {REPOSITORY} as the hub or its authors' archive has it, or --data hub",
        )
    for file in files:
        for row in read_rows(file):
            if isinstance(row, dict) and isinstance(row.get("image_path"), str):
                row = {**row, "image": {"bytes": None, "path": str(folder / row["image_path"])}}
            yield row


def _pages(rows: Iterable[Row], languages: Sequence[FoxLanguage], where: str) -> dict[FoxLanguage, list[OcrPage]]:
    pages: dict[FoxLanguage, list[OcrPage]] = {language: [] for language in languages}
    wanted = {_TYPES[language]: language for language in languages}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or "type" not in row:
            raise PerpoError(f"{where}, row {number}: expected a row of OCRBench v2", "check --data")
        if row["type"] in wanted:
            pages[wanted[row["type"]]].append(_page(row, f"{where}, row {number}"))
    if absent := [_TYPES[language] for language, of_language in pages.items() if not of_language]:
        raise PerpoError(f"{where} holds no rows of type {' or '.join(absent)}", "check --data and --languages")
    return pages


def _page(row: Row, where: str) -> OcrPage:
    answers, image = row.get("answers"), row.get("image")
    # The official script reads the first answer alone.
    if any(name not in row for name in _FIELDS) or not isinstance(answers, list | tuple) or not answers:
        raise PerpoError(f"{where}: expected {', '.join(_FIELDS)} and image, found {row!r:.80}", "fetch it again")
    if not isinstance(answers[0], str) or not answers[0].strip() or not isinstance(row["question"], str):
        raise PerpoError(
            f"{where}: expected two texts, found {row['question']!r:.40}, {answers!r:.40}", "fetch it again"
        )
    if not isinstance(image, dict) or not (image.get("bytes") or image.get("path")):
        raise PerpoError(f"{where} holds no image", "fetch it again")
    name = Path(image.get("path") or f"{row['id']}.jpg")
    with placed(where):
        question = without_image(row["question"])
    return OcrPage(name, question, answers[0], content=image.get("bytes"), name=str(row["id"]))
