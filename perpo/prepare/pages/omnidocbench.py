"""Pages of OmniDocBench with their blocks of text, from the hub or from a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.data.rows import read_rows
from perpo.errors import PerpoError
from perpo.prepare.hub.rows import hub_folder
from perpo.prepare.pages.rows import OcrPage, page_rows, told_counts
from perpo.prepare.parquet import RowFile, Written, check_image_files, check_outputs, say, write_rows
from perpo.prepare.published_counts import OMNIDOCBENCH_PAGES

if TYPE_CHECKING:
    from perpo.prepare.arguments import OmnidocbenchArguments

REPOSITORY = "opendatalab/OmniDocBench"
_FILE = "OmniDocBench.json"
_TEXTS = frozenset(
    (
        *("text_block", "title", "code_txt", "code_txt_caption", "reference", "equation_caption", "figure_caption"),
        *("figure_footnote", "table_caption", "table_footnote", "code_algorithm", "code_algorithm_caption", "header"),
        *("footer", "page_footnote", "page_number"),
    )
)
_LANGUAGES = {"english": "en", "simplified_chinese": "zh"}


def build_omnidocbench(args: OmnidocbenchArguments) -> list[Written]:
    """Write omnidocbench_pages.parquet.

    Raises:
        PerpoError: The hub can't be reached (exit code 3), pages are not as the benchmark's, or their number is none
            of its versions'.
    """
    output = args.output / "omnidocbench_pages.parquet"
    check_outputs([output], args.overwrite)
    folder, more = Path(args.data), {}
    if args.data == "hub":
        say(f"fetching {REPOSITORY} ...")
        folder, more["revision"] = hub_folder(REPOSITORY, [_FILE, "images/*"], args.revision)
    pages, without = read_omnidocbench(folder)
    verdict = _version(len(pages) + without, args.allow_other_counts)
    check_image_files((page.image for page, _ in pages), "fetch the folder images too")
    if without:
        say(f"{without} pages have no text, which the official script does not count either, and are left out")
    file = RowFile(
        path=output,
        kind="pages",
        source=f"hub:{REPOSITORY}" if more else "folder:OmniDocBench",
        split="pages",
        command=args.command(),
        counts=told_counts([page for page, _ in pages]),
        verdict=verdict,
        more={"orientation": "upright", **more},
    )
    rows = page_rows((page for page, _ in pages), "")
    languages = (_LANGUAGES.get(language, "") for _, language in pages)
    return [write_rows(file, (row | {"language": one} for row, one in zip(rows, languages, strict=True)))]


def read_omnidocbench(folder: Path) -> tuple[list[tuple[OcrPage, str]], int]:
    """Return the pages that have text, each with its language, and how many have none.

    Raises:
        PerpoError: The file is missing, or a page is not as the benchmark's.
    """
    path = folder / _FILE
    if not path.is_file():
        raise PerpoError(
            f"expected {path}, found no such file", f"give the folder of {REPOSITORY} as --data, or --data hub"
        )
    pages, without = [], 0
    for number, row in enumerate(read_rows(path), start=1):
        where = f"{path}, page {number}"
        try:
            about = row["page_info"]
            name, language = str(about["image_path"]), str(about["page_attribute"]["language"])
            blocks = blocks_of_page(row)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PerpoError(
                f"{where} is not as the benchmark's: {type(error).__name__}: {error}", "fetch the file again"
            ) from error
        if not any(block["text"].strip() for block in blocks):
            without += 1
            continue
        truth = json.dumps({"language": language, "blocks": blocks}, ensure_ascii=False)
        page = OcrPage(folder / "images" / Path(name).name, "", truth, name=Path(name).stem)
        pages.append((page, language))
    if not pages:
        raise PerpoError(f"{path} holds no pages", "check that this is the right file")
    return pages, without


def blocks_of_page(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the blocks of text of a page in the order of reading: `category`, `text`, and `order` (or None).

    Blocks that the annotators said belong together ("truncated", as at the end of a column) are one, with the place
    and kind of the first. Blocks to be ignored are left out, and with them what belongs to them.
    """
    by_id = {block["anno_id"]: block for block in row["layout_dets"]}
    groups: list[set[Any]] = []
    for relation in (row.get("extra") or {}).get("relation") or []:
        if relation["relation_type"] == "truncated":
            joined = {relation["source_anno_id"], relation["target_anno_id"]}
            joined |= {anno for group in groups if group & joined for anno in group}
            groups = [group for group in groups if not group & joined] + [joined]
    parts = [[by_id[anno] for anno in group if anno in by_id] for group in groups]
    grouped = {anno for group in groups for anno in group}
    parts += [[block] for anno, block in by_id.items() if anno not in grouped]
    blocks = [_joined(part) for part in parts if part and not any(block.get("ignore") for block in part)]
    return sorted((block for block in blocks if block["category"] in _TEXTS), key=lambda block: block["order"] or 0)


def _joined(blocks: list[Mapping[str, Any]]) -> dict[str, Any]:
    ordered = sorted(blocks, key=lambda block: block.get("order") or 0)
    first, texts = ordered[0], [block.get("text") or "" for block in ordered]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"the text of block {first['anno_id']} is none")
    order = first.get("order")
    return {"category": str(first["category_type"]), "text": "".join(texts), "order": int(order) if order else None}


def _version(pages: int, allow_other: bool) -> str:
    if pages in OMNIDOCBENCH_PAGES:
        return f"as known of version {OMNIDOCBENCH_PAGES[pages]}"
    known = ", ".join(f"{count} ({version})" for count, version in OMNIDOCBENCH_PAGES.items())
    if not allow_other:
        raise PerpoError(
            f"OmniDocBench: expected a version's number of pages, {known}, found {pages}",
            "fetch the files again; if another number of pages is intended, give --allow_other_counts",
        )
    return f"{pages} pages; known are {known}"
