"""Preference records and questions: read, validate, write.

A preference record is one question about one image with N sampled answers and their rewards. What
is wrong with a file is said before anything expensive starts, with the number of the record.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from perpo.benchmarks.prompts import Asking, asking_of
from perpo.common.files import atomic_write_text, cache_folder, check_path
from perpo.data.embedded import image_in_text, unpack_image
from perpo.data.fields import Fields, is_logp, is_reward
from perpo.data.placeholders import check_no_mark, without_image
from perpo.data.rows import FILE_SUFFIXES, Row, read_dataset, read_rows
from perpo.errors import PerpoError, placed

_MOST_CHARACTERS = 1000  # of a name; what is longer is none, and no file, table or page takes it

_R = TypeVar("_R", bound="Question")


@dataclass(kw_only=True)
class Question:
    """One question about one image.

    Attributes:
        image_path: The image, relative to the image root, or absolute.
        question: The text, without the mark of its picture.
        answer: The truth.
        image_id: What identifies the image; its path where the data don't say.
        box_scale: What the numbers of boxes count, where they say so: in the truth, and in the answers of a
            preference record; see `perpo.boxes.formats`.
        box_order: Which number is which, where they say so.
        box_frame: The picture that boxes refer to, where they say so.
        box_resize: Of pixels of a resized picture, its `perpo.boxes.Resize` as an object.
    """

    image_path: str
    question: str
    answer: str
    image_id: str | int
    box_scale: str | None = None
    box_order: str | None = None
    box_frame: str | None = None
    box_resize: dict[str, int] | None = None


@dataclass(kw_only=True)
class PreferenceRecord(Question):
    """A question with sampled answers, in no particular order.

    Attributes:
        answers_gen: N answers.
        rewards: N numbers in [0, 1], higher is better.
        reward_name: What was measured, such as `iou`.
        truncated: Per answer, whether it was cut, at the token limit or where it looped; None if not known.
        looped: Per answer, whether it ends in a loop (`perpo.texts.repetition`); None if not known.
        reference_logps: Per answer, the log-probability (nats, at temperature 1, the end token
            included) under the model that sampled it; None where it isn't known.
        sampling: How the answers were made (engine, temperature, seed, model, ...).
    """

    answers_gen: list[str]
    rewards: list[float]
    reward_name: str
    truncated: list[bool] | None = None
    reference_logps: list[float | None] | None = None
    sampling: dict[str, Any] | None = None
    looped: list[bool] | None = None


def read_preferences(path: str | Path, *, unpack_to: str | Path | None = None) -> list[PreferenceRecord]:
    """Read preference records from JSON, CSV, Parquet, or a Hugging Face data set.

    Rewards are in `rewards` (with `reward_name`) or in `iou_scores`; a pair of a chosen and a rejected answer has
    the rewards 1 and 0. Other layouts are those of `perpo.data.row_formats`. The mark of the picture in a question is
    taken out. Other fields are ignored.

    Args:
        path: As for `read_questions`.
        unpack_to: As for `read_questions`.

    Raises:
        PerpoError: No such file, not to be read, no records, or a bad record (said with its number).
    """
    folder = _unpacked(unpack_to)
    return _records(_rows(path), path, lambda fields: _preference(fields, folder))


def read_questions(
    path: str | Path, *, unpack_to: str | Path | None = None, grounding_prompt: str | None = None
) -> list[Question]:
    """Read questions from JSON, CSV, Parquet, or a Hugging Face data set.

    Fields: `image_path` (or `image`), `question` (asked as it is) or, without one, `expression` (asked for with the
    family's prompt), `answer`, `image_id` if any; or another layout of `perpo.data.row_formats`. A file of preference
    records will do. Rows that `perpo-data` wrote ask what `perpo-eval` asks (`perpo.benchmarks.prompts.asking_of`).

    Args:
        path: A file, a data set's folder, or its hub id, optionally followed by `:split`.
        unpack_to: Folder for images that the data hold themselves, named by their contents; by default the cache's.
        grounding_prompt: The question that asks for a box, with `{expression}` in it; None where it is not known.

    Raises:
        PerpoError: As `read_preferences`.
    """
    folder = _unpacked(unpack_to)
    asking = asking_of(Path(path).stem) if str(path).endswith(".parquet") else None
    return _records(_rows(path), path, lambda fields: Question(**_question(fields, folder, asking, grounding_prompt)))


def to_json(record: Question) -> dict[str, Any]:
    """Return a record (or question) as the object that is written; fields that are None are left out."""
    return {name: value for name, value in dataclasses.asdict(record).items() if value is not None}


def write_jsonl(path: str | Path, records: Iterable[Question]) -> None:
    """Write records, one JSON object per line; a crash leaves the old file or the whole new one."""
    lines = (json.dumps(to_json(record), ensure_ascii=False, allow_nan=False) + "\n" for record in records)
    atomic_write_text(path, "".join(lines))


def check_identity(value: Any, name: str, hint: str) -> None:
    """Refuse what can be no identity of a row or an image: files, tables and journals hold numbers and short names.

    Raises:
        PerpoError: It is neither, is too long, or holds a NUL character.
    """
    kind = isinstance(value, str | int) and not isinstance(value, bool)
    if not kind or len(str(value)) > _MOST_CHARACTERS or "\0" in str(value):
        expected = f"a number or a name of at most {_MOST_CHARACTERS} characters"
        raise PerpoError(f"expected {expected} as `{name}`, found {value!r:.40}", hint)


def _records(rows: Iterator[Row], path: str | Path, make: Callable[[Fields], _R]) -> list[_R]:
    records = [make(Fields(row, f"{path}, record {number}")) for number, row in enumerate(rows, start=1)]
    if not records:
        raise PerpoError(f"{path} holds no records", "check that this is the right file")
    return records


def _rows(path: str | Path) -> Iterator[Row]:
    """The rows of a file, or else of a data set."""
    name = str(path)
    named_like_file = name.endswith(FILE_SUFFIXES) or name.startswith((".", "/"))
    is_data_set = Path(name.partition(":")[0]).is_dir()
    is_file = Path(name).is_file() or (named_like_file and not is_data_set)
    return read_rows(name) if is_file else read_dataset(name)


def _unpacked(folder: str | Path | None) -> Path:
    return Path(folder) if folder is not None else cache_folder() / "images"


def _question(
    fields: Fields, unpack_to: Path, asking: Asking | None = None, grounding_prompt: str | None = None
) -> dict[str, Any]:
    image_path = _image_path(fields, unpack_to)
    question, answer = _asked(fields, asking, grounding_prompt), _truth(fields)
    with placed(fields.place):
        check_path(image_path)
        check_no_mark(answer)
    return {
        "image_path": image_path,
        "question": question,
        "answer": answer,
        "image_id": _image_id(fields, image_path),
        **_box_fields(fields),
    }


def _asked(fields: Fields, asking: Asking | None, grounding_prompt: str | None) -> str:
    """The user's turn: a row's question, or where it has none the question for what its expression names."""
    row = fields.row
    if row.get("question") is None and row.get("expression") is not None:
        expression = fields.text("expression").strip()
        if grounding_prompt is None or not expression:
            problem = "is empty" if not expression else "is given, but it is not known how to ask this model for it"
            raise fields.error(f"its `expression` {problem}", "give the whole question as `question`")
        with placed(fields.place):
            return grounding_prompt.replace("{expression}", without_image(expression))
    written = fields.text("question")
    with placed(fields.place):
        question = without_image(written)
    if asking is not None and "answers_gen" not in row:  # the question of a record is what was asked
        question = asking(question.strip())
    if not question.strip():
        raise fields.error("its `question` is empty", "write the question about the picture, or remove the record")
    return question


def _truth(fields: Fields) -> str:
    if isinstance(fields.row.get("bbox"), list) and not isinstance(fields.row.get("answer"), str):
        raise fields.error(
            "it is a row of boxes for perpo-eval, without a question",
            "make questions from it with perpo-data questions",
        )
    if isinstance(fields.row.get("answer"), list | dict):  # a box as numbers
        fields.row = fields.row | {"answer": json.dumps(fields.row["answer"])}
    truth = fields.text("answer")
    if not truth.strip():
        raise fields.error("its `answer`, the true answer, is empty", "write the true answer, or remove the record")
    return truth


def _box_fields(fields: Fields) -> dict[str, Any]:
    """What a row says of how its boxes are written; `perpo.data.truths` says whether it is a format."""
    said = {name: fields.row.get(name) for name in ("box_scale", "box_order", "box_frame", "box_resize")}
    for name, value in said.items():
        kind, words = (dict, "an object") if name == "box_resize" else (str, "text")
        if value is not None and not isinstance(value, kind):
            raise fields.error(f"expected {words} as `{name}`, found {value!r:.40}", "correct or remove the record")
    return said


def _image_id(fields: Fields, image_path: str) -> str | int:
    """What the row says, a whole number of pandas' (such as 7.0) among it; else the path."""
    name = fields.row.get("image_id")
    if isinstance(name, float) and name.is_integer():
        name = int(name)
    if name is None or (isinstance(name, float) and math.isnan(name)):
        return image_path
    with placed(fields.place):
        check_identity(name, "image_id", "leave it out to use the path of the image instead")
    return name


def _image_path(fields: Fields, unpack_to: Path) -> str:
    image = fields.row.get("image")
    if fields.row.get("image_path") is not None or image is None:
        image = fields.text("image_path")
    data, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (None, image)
    try:
        if data is None and isinstance(path, str) and (data := image_in_text(path)) is None:
            return path
        if not isinstance(data, bytes):
            raise fields.error(f"expected a path or an image as `image`, found {image!r:.40}", "give `image_path`")
        return str(unpack_image(data, unpack_to))
    except (OSError, ValueError) as error:
        raise fields.error(f"its image cannot be read: {error}", "correct or remove the record") from error


def _preference(fields: Fields, unpack_to: Path) -> PreferenceRecord:
    row = fields.row
    answers = row.get("answers_gen")
    if not isinstance(answers, list) or not answers:
        raise fields.error("it has no sampled answers (`answers_gen`)", "sample them with perpo-sample")
    count = len(answers)
    fields.per_answer("answers_gen", count, lambda value: isinstance(value, str), "a text")
    name = "iou_scores" if row.get("rewards") is None and row.get("iou_scores") is not None else "rewards"
    rewards = fields.per_answer(name, count, is_reward, "a number from 0 to 1")
    truncated, looped = (_per_answer_flags(fields, name, count) for name in ("truncated", "looped"))
    logps = None
    if row.get("reference_logps") is not None:
        logps = fields.per_answer("reference_logps", count, is_logp, "a finite number or null")
    sampling = row.get("sampling")
    if not isinstance(sampling, dict | None):
        raise fields.error(f"expected an object as `sampling`, found {sampling!r:.40}", "correct or remove the record")
    if sampling is None:  # what perpo-sample wrote is what a model said
        for answer in answers:
            with placed(fields.place):
                check_no_mark(answer)
    return PreferenceRecord(
        **_question(fields, unpack_to),
        answers_gen=answers,
        rewards=[float(reward) for reward in rewards],
        reward_name="iou" if name == "iou_scores" else str(row.get("reward_name") or "reward"),
        truncated=truncated,
        reference_logps=logps,
        sampling=sampling,
        looped=looped,
    )


def _per_answer_flags(fields: Fields, name: str, count: int) -> list[bool] | None:
    if fields.row.get(name) is None:
        return None
    return fields.per_answer(name, count, lambda value: isinstance(value, bool), "true or false")
