"""Rows of one's own: JSON lines with an image, a question and an answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.data import data_sha256, strip_image_token
from perpo.errors import PerpoError
from perpo.prepare.parquet import RowFile, Written, check_image_files, check_outputs, image_cell, write_rows
from perpo.rows import Row, read_rows

if TYPE_CHECKING:
    from perpo.prepare.arguments import JsonlArguments


def build(args: JsonlArguments) -> list[Written]:
    """Write pages_<name>.parquet or yesno_<name>.parquet.

    Raises:
        PerpoError: A field is missing, an answer is not of its kind, or an image can't be read.
    """
    args.check()
    output = args.output / f"{args.kind}_{args.name}.parquet"
    check_outputs([output], args.overwrite)
    items = read_items(args)
    check_image_files((item["image"] for item in items), "give the folder that the paths start from as --image_root")
    file = RowFile(
        path=output,
        kind=args.kind,
        source="jsonl",
        split=args.name,
        command=args.command(),
        counts={"rows": len(items), "images": len({item["image"] for item in items})},
        more={"source_sha256": data_sha256(args.file)},
    )
    return [write_rows(file, _rows(items, args))]


def read_items(args: JsonlArguments) -> list[dict[str, Any]]:
    """The file's rows, checked: question_id, image (a path), question, answer.

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
        item = _item(row, args, root, where)
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
    question = row.get(args.question_field)
    if question is None and args.kind == "pages" and args.question_field == "question":
        question = ""  # the evaluation's own prompt is asked
    names = (args.image_field, args.question_field, args.answer_field)
    texts = (row.get(args.image_field), question, row.get(args.answer_field))
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
    return {"image": root / image, "question": strip_image_token(question), "answer": answer}


def _rows(items: list[dict[str, Any]], args: JsonlArguments) -> Iterator[Row]:
    for position, item in enumerate(items):
        path: Path = item["image"]
        row = {name: item[name] for name in ("question_id", "question", "answer")} | {"image": image_cell(path)}
        if args.kind == "pages":
            yield row | {"language": args.language, "file_name": path.name}
        else:
            yield row | {"id": str(position), "image_source": path.stem, "category": args.name}
