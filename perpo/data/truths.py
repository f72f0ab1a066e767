"""Find out how a file's truths write boxes: by the row, else by the user, else by the model. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from perpo.boxes import PARTS, BoxFormat, Resize
from perpo.errors import PerpoError

if TYPE_CHECKING:
    from perpo.data.preferences import Question


def format_fields(boxes: BoxFormat | None) -> dict[str, Any]:
    """Return the fields of a `perpo.data.Question` whose boxes are written in this format; all None of none."""
    if boxes is None:
        return dict.fromkeys(("box_scale", "box_order", "box_frame", "box_resize"))
    resize = asdict(boxes.resize) if boxes.resize is not None and boxes.counts_input else None
    return {f"box_{part}": getattr(boxes, part) for part in PARTS} | {"box_resize": resize}


def row_format(row: Mapping[str, Any], usual: BoxFormat) -> BoxFormat:
    """Return how a row's truth writes its box.

    Args:
        row: The fields of a question; what it does not say, or says with None, is as usual.
        usual: How truths of its file do that say nothing.

    Raises:
        PerpoError: What it says is no format.
    """
    said = {part: row.get(f"box_{part}") for part in PARTS}
    resize = row.get("box_resize")
    if resize is not None:
        said["resize"] = _resize(resize)
    return replace(usual, **{part: value for part, value in said.items() if value is not None})


def says_format(row: Mapping[str, Any]) -> bool:
    """Return whether a row's truth is a box: it says what its numbers count."""
    return row.get("box_scale") is not None


def check_formats(
    questions: Iterable[Question], usual: BoxFormat, given: Mapping[str, str | None], table: Resize | None
) -> None:
    """Refuse truths whose boxes would be read in another way than they were written.

    Args:
        questions: The questions.
        usual: How truths write boxes whose row says nothing.
        given: What the user declares of truths, by part: scale, order, frame; None is nothing.
        table: The bounds of resizing that checkpoints of the model's family usually have.

    Raises:
        PerpoError: A row contradicts the user, or counts pixels of a resized picture without its bounds, and the
            model has others than its family.
    """
    unusual = usual.resize != table and not any(given.values())
    for number, question in enumerate(questions, start=1):
        row = vars(question)
        for part, value in given.items():
            said = row.get(f"box_{part}")
            if value is not None and said is not None and said != value:
                raise PerpoError(
                    f"question {number} says that the {part} of its box is {said}, but the flag says {value}",
                    "leave the flag out, or correct the question",
                )
        if unusual and row.get("box_resize") is None and row_format(row, usual).counts_input:
            raise PerpoError(
                f"question {number} does not say for which bounds of resizing its box was written. This model's bounds "
                f"({_words(usual.resize)}) are not the usual ones of its family ({_words(table)})",
                "write the questions again with perpo-data questions --model, or give the frame of the true boxes: "
                "resized (if this model's bounds hold) or original",
            )


def check_bounds(records: Iterable[Question], resize: Resize | None) -> None:
    """Refuse to learn boxes in pixels of pictures that the model resizes to other sizes.

    Args:
        records: What is learnt from.
        resize: How the model's own processor resizes pictures; None where no box depends on it.

    Raises:
        PerpoError: A record says other bounds.
    """
    for number, record in enumerate(records, start=1):
        if record.box_resize is not None and record.box_resize != (resize and asdict(resize)):
            raise PerpoError(
                f"record {number} counts pixels of pictures with {_words(_resize(record.box_resize))}, but this model "
                f"resizes pictures to {_words(resize)}",
                "write the data again for this model: perpo-data questions --model, then perpo-sample",
            )


def other_format(records: Sequence[Question], boxes: BoxFormat | None) -> str | None:
    """Return what is to be known of records that say that their boxes are written in another way than the model's
    family does.

    Args:
        records: What is learnt from.
        boxes: How the model's family writes boxes; None where that is not known.
    """
    rows = [vars(record) for record in records if says_format(vars(record))]
    other = [row for row in rows if boxes is not None and _parts(row_format(row, boxes)) != _parts(boxes)]
    if boxes is None or not other:
        return None
    return (
        f"{len(other)} of {len(records)} records write boxes as {_parts(row_format(other[0], boxes))}, but the "
        f"model's family writes {_parts(boxes)}. The model will learn the way of the records, so give it "
        "wherever its answers are read (--box_scale, --box_order, --box_frame)"
    )


def _parts(boxes: BoxFormat) -> str:
    return ", ".join(f"{part} {getattr(boxes, part)}" for part in PARTS)


def _resize(said: Any) -> Resize:
    names = ("factor", "min_pixels", "max_pixels")
    if not isinstance(said, Mapping) or not all(type(said.get(name)) is int and said[name] > 0 for name in names):
        raise PerpoError(
            f"expected {', '.join(names)} as `box_resize`, found {said!r:.60}",
            "write the data again with perpo-data questions",
        )
    return Resize(**{name: said[name] for name in names})


def _words(resize: Resize | None) -> str:
    return "none" if resize is None else f"{resize.min_pixels} to {resize.max_pixels} pixels"
