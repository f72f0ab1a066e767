"""Rows of one's own: JSON lines with an image, a question and an answer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.benchmarks.table import INFO
from perpo.boxes import ImageSize, parse_boxes
from perpo.common.files import cache_folder, check_path
from perpo.data import check_identity, data_sha256
from perpo.data.embedded import image_in_text, unpack_image
from perpo.data.images import image_size, short_name
from perpo.data.placeholders import without_image
from perpo.data.row_formats import plain_row, with_picture
from perpo.data.rows import Row, read_rows
from perpo.errors import PerpoError, placed
from perpo.prepare.overlap.images import coco_number
from perpo.prepare.parquet import RowFile, Written, check_image_files, check_outputs, image_cell, write_rows

if TYPE_CHECKING:
    from perpo.boxes import Order, Scale
    from perpo.prepare.arguments import JsonlArguments

_FILES_BEGIN = {info.rows: info.own_files for info in INFO.values() if info.rows}
_OUTSIDE = 0.01  # how far a box may lie outside of its image, as a share of its side


def build(args: JsonlArguments) -> list[Written]:
    """Write pages_<name>.parquet, yesno_<name>.parquet or boxes_<name>.parquet.

    Raises:
        PerpoError: A field is missing, an answer is not of its kind, or an image can't be read.
    """
    args.check()
    output = args.output / f"{_FILES_BEGIN[args.kind]}{args.name}.parquet"
    check_outputs([output], args.overwrite)
    items = read_items(args)
    check_image_files((item["image"] for item in items), "give as --image_root the folder that image paths start from")
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
    """Return the file's rows, checked: question_id, image (a path), question, expression (of boxes; one of the two is
    empty), answer (of boxes: their text), where.

    A row's own `question_id` (or `id`) is kept; where there is none it is the row's position.

    Raises:
        PerpoError: A row without what its kind needs, or two with one number.
    """
    root = args.image_root if args.image_root is not None else args.file.parent
    # What other programs write is looked into only where nobody has said which fields to take.
    named_as_usual = (args.image_field, args.question_field, args.answer_field) == ("image", "question", "answer")
    items: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for number, row in enumerate(read_rows(args.file), start=1):
        where = f"{args.file}, row {number}"
        if not isinstance(row, dict):
            raise PerpoError(f"{where}: expected an object with named fields, found {row!r:.40}", "one object per line")
        with placed(where):
            row = plain_row(row) if named_as_usual else with_picture(row)
        item = _item(row, args, root, where) | {"where": where}
        identity = row.get("question_id", row.get("id"))
        with placed(where):
            check_identity(
                number - 1 if identity is None else identity, "question_id", "leave it out; the rows are then numbered"
            )
        item["question_id"] = str(number - 1 if identity is None else identity)
        first = seen.setdefault(item["question_id"], number)
        if first != number:
            raise PerpoError(
                f"{where} has the question_id '{item['question_id']}', like row {first}", "give each row its own"
            )
        items.append(item)
    if not items:
        raise PerpoError(f"{args.file} holds no rows", "check that this is the right file")
    return items


def _item(row: Row, args: JsonlArguments, root: Path, where: str) -> dict[str, Any]:
    question, expression = row.get(args.question_field), ""
    if question is None and args.kind == "pages" and args.question_field == "question":
        question = ""  # the evaluation's own prompt is asked
    if args.kind == "grounding":
        question, expression = _asked(row, args, where)
    names = (args.image_field, args.question_field, args.answer_field)
    answer = row.get(args.answer_field)
    if args.kind == "grounding" and isinstance(answer, list | dict):
        answer = json.dumps(answer)
    texts = (_image_path(row.get(args.image_field), where), question, answer)
    for name, text in zip(names, texts, strict=True):
        if not isinstance(text, str):
            raise PerpoError(f"{where}: expected text as `{name}`, found {text!r:.40}", f"the row has {', '.join(row)}")
        if "\0" in text:
            raise PerpoError(f"{where}: `{name}` holds a NUL character: {text!r:.60}", "correct or remove the row")
    image, question, answer = map(str, texts)
    if not answer.strip():
        raise PerpoError(f"{where}: `{args.answer_field}` is empty, so the row cannot be scored", "drop the row")
    if args.kind == "yesno":
        answer = answer.strip().lower()
        if answer not in ("yes", "no"):
            raise PerpoError(f"{where}: expected yes or no as `{args.answer_field}`, found {answer!r:.40}", "mend it")
    with placed(where):
        check_path(image)
        question = without_image(question)
    if args.kind == "yesno" and not question.strip():
        raise PerpoError(f"{where}: `{args.question_field}` is empty, so the row asks nothing", "drop the row")
    said = {"question": question, "expression": expression, "answer": answer}
    return {"image": root / image, **said, "declared": _declared_size(row)}


def _asked(row: Row, args: JsonlArguments, where: str) -> tuple[str, str]:
    """A row's question and its expression, of which one is empty.

    Raises:
        PerpoError: Both are, or neither is, or one is no text.
    """
    names = args.question_field, args.expression_field
    for name in names:
        if not isinstance(row.get(name), str | None):
            raise PerpoError(
                f"{where}: expected text as `{name}`, found {row[name]!r:.40}", "correct or remove the row"
            )
    with placed(where):
        question, expression = (without_image(row.get(name) or "").strip() for name in names)
    if bool(question) == bool(expression):
        number = "both" if question else "neither"
        raise PerpoError(
            f"{where} has {number} of two fields: a question (`{names[0]}`, asked as it is) and an expression "
            f"(`{names[1]}`, for the prompt of the model's family)",
            "give exactly one of them",
        )
    return question, expression


def _declared_size(row: Row) -> ImageSize | None:
    """The picture's size as the row gives it in `width` and `height`, as texts in CSV; or None."""
    width, height = (_side(row.get(name)) for name in ("width", "height"))
    return None if width is None or height is None else (width, height)


def _side(value: Any) -> int | None:
    """A positive whole number, also as a text or as pandas writes it (300.0); None for all else."""
    try:
        number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else 0.0
        return int(number) if number > 0 and number.is_integer() else None
    except (ValueError, OverflowError):
        return None


def _image_path(image: Any, where: str) -> Any:
    """The path of a row's picture; what is in the row itself, as bytes, base64 or a data URI, is put into the cache."""
    data = image.get("bytes") if isinstance(image, dict) else None
    try:
        if isinstance(image, str):
            data = image_in_text(image)
        return str(unpack_image(data, cache_folder() / "images")) if isinstance(data, bytes) else image
    except (OSError, ValueError) as error:
        raise PerpoError(f"{where}: its image cannot be read: {error}", "correct or remove the row") from error


def _add_boxes(items: list[dict[str, Any]], args: JsonlArguments) -> None:
    """Read the answers as boxes: `bbox` is x, y, width, height in pixels of the image; and whether it is `stored`."""
    sizes: dict[Path, tuple[ImageSize, ImageSize]] = {}
    for item in items:
        path: Path = item["image"]
        if path not in sizes:
            sizes[path] = image_size(path), image_size(path, stored=True)
        item["stored"] = _speaks_of_stored(item, *sizes[path])
        size = sizes[path][item["stored"]]
        try:
            item["bbox"] = read_box(item["answer"], args.box_scale or "pixels", args.box_order or "xyxy", size)
        except ValueError as error:
            width, height = size
            raise PerpoError(
                f"{item['where']}: `{args.answer_field}` is {item['answer']!r:.60}, which {error} (the image has "
                f"{width} x {height} pixels)",
                "correct it, or give --box_scale and --box_order as boxes are written in this file",
            ) from error


def _speaks_of_stored(item: dict[str, Any], upright: ImageSize, stored: ImageSize) -> bool:
    """Whether a row's box refers to the stored pixels: its own `width` and `height` are theirs, not the upright ones.

    Raises:
        PerpoError: The row gives a size that is neither.
    """
    declared = item["declared"]
    if declared is None or declared == upright:
        return False
    if declared == stored:
        return True
    name = short_name(str(item["image"]))
    raise PerpoError(
        f"{item['where']}: `width` and `height` are {declared[0]} x {declared[1]}, but {name} has {upright[0]} "
        f"x {upright[1]} pixels",
        "give the picture on which the box was drawn. If these fields are not a picture's size, rename them",
    )


def read_box(text: str, scale: Scale, order: Order, size: ImageSize) -> list[float]:
    """Return a true box from its text.

    Args:
        text: Holds four numbers.
        scale: What they count; see `perpo.boxes.BoxFormat`.
        order: Which number is which.
        size: The image's width and height in pixels.

    Returns:
        x, y, width, height in pixels of the image.

    Raises:
        ValueError: It is not one box, is smaller than a pixel both ways, is empty, or lies outside of the image by
            more than 1% of a side.
    """
    boxes = parse_boxes(text, scale=scale, order=order, image_size=size)
    if len(boxes) != 1:
        raise ValueError(f"holds {len(boxes)} boxes instead of one" if boxes else "holds no box")
    x, y, right, bottom = map(float, boxes[0])
    width, height = right - x, bottom - y
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
        row = {name: item[name] for name in ("question_id", "question", "answer")}
        row["image"] = image_cell(path, stored=item.get("stored", False))
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
