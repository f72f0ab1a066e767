"""Questions to sample answers to, from the rows of training files that `perpo-data refer` wrote."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.boxes import ImageSize, box_problem, format_box
from perpo.common.arguments import next_command
from perpo.common.files import atomic_write_bytes
from perpo.data import Question, write_jsonl
from perpo.data.images import as_stored, image_size
from perpo.data.rows import open_parquet, parquet_batches
from perpo.data.truths import format_fields
from perpo.errors import PerpoError
from perpo.models.checkpoints import family_at, resolve_model
from perpo.models.families import Family, family_of
from perpo.prepare.parquet import check_image_files, check_outputs, say, shows_stored
from perpo.sample.arguments import SampleArguments

if TYPE_CHECKING:
    from perpo.prepare.arguments import QuestionsArguments

_COLUMNS = ("question", "answer", "bbox", "file_name", "image_id")


def build(args: QuestionsArguments) -> list[Any]:
    """Write a question for each expression, asked and answered as the family does; a row's own question stays as it is.

    Each says how its answer writes the box. Left out, and counted, are empty expressions and boxes that the family's
    scale cannot write.

    Raises:
        PerpoError: Rows or images are missing, or nothing is left.
    """
    family = _family(args)
    check_outputs([args.output], args.overwrite)
    rows = [row for path in args.rows for row in _rows(path)]
    check_image_files((args.images / row["file_name"] for row in rows), "give the folder of the images as --images")
    left_out: Counter[str] = Counter()
    questions = list(_questions(rows, _Pictures(args), family, left_out))
    for what, count in left_out.items():
        say(f"{count} left out: {what}")
    if not questions:
        raise PerpoError("no question is left", "check that these are the right rows")
    write_jsonl(args.output, questions)
    images = len({question.image_path for question in questions})
    print(f"{args.output}: {len(questions)} questions about {images} images")
    sample = SampleArguments(
        output=str(args.output.with_name(f"{args.output.stem}-candidates.jsonl")),
        model=args.model or family.example,
        questions=str(args.output),
        image_root=str(args.images),
    )
    print(f"perpo-data: sample with {next_command('perpo-sample', sample)}", file=sys.stderr)
    return []


def _family(args: QuestionsArguments) -> Family:
    if (args.family is None) == (args.model is None):
        raise PerpoError(
            "expected either --family or --model", "--model uses the bounds of resizing of that checkpoint"
        )
    return family_of(args.family) if args.family is not None else family_at(resolve_model(str(args.model)))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise PerpoError(f"there are no rows at {path}", "perpo-data refer writes <data set>_train.parquet")
    file = open_parquet(path)
    missing = sorted(set(_COLUMNS) - set(file.schema_arrow.names))
    if missing:
        raise PerpoError(f"{path} has no column {missing[0]}", "give a file that perpo-data refer wrote")
    stored = shows_stored(path)
    columns = [name for name in (*_COLUMNS, "image") if name in file.schema_arrow.names]
    for batch in parquet_batches(file, columns):
        for row in batch.to_pylist():
            yield row | {"stored": stored, "image": None, "size": _held_size(row.get("image"))}


def _held_size(image: Any) -> ImageSize | None:
    """The size of the picture that a row holds itself, which is the one that its box was drawn on; None without."""
    data = image.get("bytes") if isinstance(image, dict) else None
    try:
        return image_size(data) if isinstance(data, bytes) else None
    except OSError:
        return None


class _Pictures:
    """The pictures that rows name: where they lie, and their sizes.

    Those that a row speaks of as they are stored, but that everybody turns upright, get a copy that is not turned,
    in a folder beside the output.
    """

    def __init__(self, args: QuestionsArguments) -> None:
        self._images = args.images
        self._copies = args.output.parent / f"{args.output.stem}-images"
        self._known: dict[tuple[str, bool, ImageSize | None], tuple[str, ImageSize]] = {}

    def of(self, row: dict[str, Any]) -> tuple[str, ImageSize]:
        """Return the path from --images (or absolute) and the size of a row's picture."""
        key = name, stored, held = row["file_name"], row["stored"], row["size"]
        if key not in self._known:
            file = self._images / name
            # A row of one's own may speak of stored pixels, too: the picture that it holds is then not turned.
            stored = stored or (held != image_size(file) and held == image_size(file, stored=True))
            if stored and (copy := as_stored(file)) is not None:
                file = (self._copies / Path(name).name).absolute()  # its name tells COCO's number
                atomic_write_bytes(file, copy)
                name = str(file)
            self._known[key] = name, image_size(file)
        return self._known[key]


def _questions(
    rows: list[dict[str, Any]], pictures: _Pictures, family: Family, left_out: Counter[str]
) -> Iterator[Question]:
    for row in rows:
        path, size = pictures.of(row)
        name = row["file_name"]
        x, y, width, height = row["bbox"]
        answer = format_box([x, y, x + width, y + height], family.box_format, size)
        if box_problem(answer, family.box_format, size):
            left_out["boxes that become empty when written as the family writes them"] += len(row["answer"] or [""])
            continue
        for asked in _asked(row, family):
            if not asked.strip():
                left_out["empty expressions"] += 1
                continue
            yield Question(
                image_path=path,
                question=asked,
                answer=answer,
                image_id=name if row["image_id"] is None else row["image_id"],
                **format_fields(family.box_format),
            )


def _asked(row: dict[str, Any], family: Family) -> list[str]:
    """What a row asks; empty where it has an empty expression, or neither expressions nor a question."""
    if row["answer"] is None:
        return [(row["question"] or "").strip()]
    return [text.strip() and family.grounding_prompt.replace("{expression}", text) for text in row["answer"]]
