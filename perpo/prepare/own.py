"""Rows of one's own: JSON lines with an image, a question and an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from perpo.boxes import parse_boxes
from perpo.data import data_sha256, strip_image_token
from perpo.errors import PerpoError
from perpo.prepare.overlap import coco_number
from perpo.prepare.parquet import RowFile, Written, check_image_files, check_outputs, image_cell, write_rows
from perpo.rows import Row, read_rows

if TYPE_CHECKING:
    from perpo.prepare.arguments import BoxCorners, BoxScale, JsonlArguments

_FILE_PREFIX = {"pages": "pages", "yesno": "yesno", "grounding": "boxes"}
_OUTSIDE = 0.01  # how far a box may lie outside of its image, as a share of its side


def build(args: JsonlArguments) -> list[Written]:
    """Write pages_<name>.parquet, yesno_<name>.parquet or boxes_<name>.parquet.

    Raises:
        PerpoError: A field is missing, an answer is not of its kind, or an image can't be read.
    """
    args.check()
    output = args.output / f"{_FILE_PREFIX[args.kind]}_{args.name}.parquet"
    check_outputs([output], args.overwrite)
    items = read_items(args)
    check_image_files((item["image"] for item in items), "give the folder that the paths start from as --image_root")
    if args.kind == "grounding":
        _add_boxes(items, args)
    counts = {"rows": len(items), "images": len({item["image"] for item in items})}
    if args.kind == "grounding":
        named = sum(bool(item["expression"]) for item in items)
        counts |= {"questions": len(items) - named, "expressions": named}
    file = RowFile(
        path=output,
        kind=args.kind,
        source="jsonl",
        split=args.name,
        command=args.command(),
        counts=counts,
        more={"source_sha256": data_sha256(args.file)},
    )
    return [write_rows(file, _rows(items, args))]


def read_items(args: JsonlArguments) -> list[dict[str, Any]]:
    """The file's rows, checked: question_id, image (a path), question, expression (of boxes; one of the two is
    empty), answer (of boxes: their text), where.

    A row's own `question_id` (or `id`) is kept; where there is none it is the row's position.

    Raises:
        PerpoError: A row without what its kind needs, or two with one number.
    """
    root = args.image_root if args.image_root is not None else args.file.parent
    items: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for number, row in enumerate(read_rows(args.file), start=1):
        where = f"{args.file}, row {number}"
        if not isinstance(row, dict):
            raise PerpoError(f"{where}: expected an object with fields, found {row!r:.40}", "one object per line")
        item = _item(row, args, root, where) | {"where": where}
        identity = row.get("question_id", row.get("id"))
        item["question_id"] = str(number - 1 if identity is None else identity)
        first = seen.setdefault(item["question_id"], number)
        if first != number:
            raise PerpoError(f"{where} has the question_id '{item['question_id']}' of row {first}", "give each its own")
        items.append(item)
    if not items:
        raise PerpoError(f"{args.file} holds no rows", "is it the right file?")
    return items


def _item(row: Row, args: JsonlArguments, root: Path, where: str) -> dict[str, Any]:
    question, expression = row.get(args.question_field), ""
    if question is None and args.kind == "pages" and args.question_field == "question":
        question = ""  # the evaluation's own prompt is asked
    if args.kind == "grounding":
        question, expression = _asked(row, args, where)
    names = (args.image_field, args.question_field, args.answer_field)
    answer = row.get(args.answer_field)
    if args.kind == "grounding" and isinstance(answer, list):
        answer = json.dumps(answer)
    texts = (row.get(args.image_field), question, answer)
    for name, text in zip(names, texts, strict=True):
        if not isinstance(text, str):
            raise PerpoError(f"{where}: expected text as `{name}`, found {text!r:.40}", f"the row has {', '.join(row)}")
    image, question, answer = map(str, texts)
    if not answer.strip():
        raise PerpoError(f"{where}: `{args.answer_field}` is empty, which can't be scored", "drop the row")
    if args.kind == "yesno":
        answer = answer.strip().lower()
        if answer not in ("yes", "no"):
            raise PerpoError(f"{where}: expected yes or no as `{args.answer_field}`, found {answer!r:.40}", "mend it")
    question = strip_image_token(question)
    if args.kind == "yesno" and not question.strip():
        raise PerpoError(f"{where}: `{args.question_field}` is empty, which asks nothing", "drop the row")
    return {"image": root / image, "question": question, "expression": expression, "answer": answer}


def _asked(row: Row, args: JsonlArguments, where: str) -> tuple[str, str]:
    """A row's question and its expression, of which one is empty.

    Raises:
        PerpoError: Both are, or neither is, or one is no text.
    """
    names = args.question_field, args.expression_field
    for name in names:
        if not isinstance(row.get(name), str | None):
            raise PerpoError(f"{where}: expected text as `{name}`, found {row[name]!r:.40}", "mend or drop the row")
    question, expression = (strip_image_token(row.get(name) or "").strip() for name in names)
    if bool(question) == bool(expression):
        found = "both" if question else "neither"
        raise PerpoError(
            f"{where} has {found} of a question (`{names[0]}`, asked as it is) and an expression (`{names[1]}`, which "
            "the model family's prompt asks for)",
            "give one of them",
        )
    return question, expression


def _add_boxes(items: list[dict[str, Any]], args: JsonlArguments) -> None:
    """Read the answers as boxes: `bbox` is x, y, width, height in pixels of the image."""
    sizes: dict[Path, tuple[int, int]] = {}
    for item in items:
        path: Path = item["image"]
        if path not in sizes:
            with Image.open(path) as image:
                sizes[path] = image.size
        try:
            item["bbox"] = read_box(item["answer"], args.box_scale or "pixels", args.box_format or "xyxy", sizes[path])
        except ValueError as error:
            width, height = sizes[path]
            raise PerpoError(
                f"{item['where']}: `{args.answer_field}` is {item['answer']!r:.60}, which {error} (the image has "
                f"{width} x {height} pixels)",
                "mend it, or say with --box_scale and --box_format how boxes are written",
            ) from error


def read_box(text: str, scale: BoxScale, corners: BoxCorners, size: tuple[int, int]) -> list[float]:
    """A true box from its text.

    Args:
        text: Holds four numbers.
        scale: What they count: pixels, or shares, thousandths or 999ths of the image's sides.
        corners: Two corners (xyxy), or the upper left one with width and height (xywh).
        size: The image's width and height in pixels.

    Returns:
        x, y, width, height in pixels of the image.

    Raises:
        ValueError: It is not one box, is smaller than a pixel both ways, is empty, or lies outside of the image by
            more than 1% of a side.
    """
    # Of the whole image, width and height scale as corners do.
    found = parse_boxes(text, scale=scale, image_size=size)
    if len(found) != 1:
        raise ValueError(f"holds {len(found)} boxes instead of one" if found else "holds no box")
    x, y, right, bottom = map(float, found[0])
    width, height = (right, bottom) if corners == "xywh" else (right - x, bottom - y)
    if width <= 0 or height <= 0:
        raise ValueError("is an empty or inverted box")
    if width < 1 and height < 1:
        raise ValueError("is a box smaller than a pixel")
    for low, length, side in ((x, width, size[0]), (y, height, size[1])):
        if low < -_OUTSIDE * side or low + length > (1 + _OUTSIDE) * side:
            raise ValueError("lies outside of the image")
    return [x, y, width, height]


def _rows(items: list[dict[str, Any]], args: JsonlArguments) -> Iterator[Row]:
    for position, item in enumerate(items):
        path: Path = item["image"]
        row = {name: item[name] for name in ("question_id", "question", "answer")} | {"image": image_cell(path)}
        if args.kind == "grounding":
            yield row | _grounding(item)
            continue
        if args.kind == "pages":
            yield row | {"language": args.language, "file_name": path.name}
        else:
            yield row | {"id": str(position), "image_source": path.stem, "category": args.name}


def _grounding(item: dict[str, Any]) -> Row:
    """The columns of RefCOCO's rows, and null for what only COCO's annotations say.

    An expression is in `answer`, and the evaluation's own prompt asks for it; a row without one asks its question.
    """
    name = item["image"].name
    return {
        "question": item["question"],
        "answer": [item["expression"]] if item["expression"] else None,
        "bbox": item["bbox"],
        "iscrowd": None,
        "file_name": name,
        "image_id": coco_number(name),
        "ref_id": None,
        "category_id": None,
    }
