"""Preference records and questions: read, validate, write.

A preference record is one question about one image with N sampled answers and their rewards. What
is wrong with a file is said before anything expensive starts, with the number of the record.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from perpo.errors import PerpoError
from perpo.files import atomic_write_text
from perpo.images import image_problems, unpack_image
from perpo.prompts import Asking, asking_of
from perpo.rows import FILE_SUFFIXES, Row, read_dataset, read_rows

_SHOWN = 10
_IMAGE_TOKEN = re.compile(r"^\s*<image>\s*")

_R = TypeVar("_R", bound="Question")


@dataclass(kw_only=True)
class Question:
    """One question about one image.

    Attributes:
        image_path: The image, relative to the image root, or absolute.
        question: The text, without `<image>`.
        answer: The truth.
        image_id: What identifies the image; its path where the data don't say.
        box_scale: What the numbers of boxes count, where they say so: in the truth, and in the answers of a
            preference record; see `perpo.box_formats`.
        box_order: Which number is which, where they say so.
        box_frame: The picture that boxes refer to, where they say so.
        box_resize: Of pixels of a resized picture, its `perpo.box_formats.Resize` as an object.
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
        truncated: Per answer, whether it was cut at the token limit; None if not known.
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


def read_preferences(path: str | Path) -> list[PreferenceRecord]:
    """Read preference records from a JSON list, JSON lines or Parquet.

    Rewards are in `rewards` (with `reward_name`) or in `iou_scores`. A leading `<image>` of a
    question is dropped. Other fields are ignored.

    Raises:
        PerpoError: No such file, not JSON, no records, or a bad record (said with its number).
    """
    return _records(read_rows(path), path, _preference)


def read_questions(
    path: str | Path, *, unpack_to: str | Path | None = None, grounding_prompt: str | None = None
) -> list[Question]:
    """Read questions from a JSON list, JSON lines, Parquet, or a Hugging Face data set.

    Fields: `image_path` (or `image`), `question` (asked as it is) or, without one, `expression` (asked for with the
    family's prompt), `answer`, `image_id` if any. A file of preference records will do. Rows that `perpo-data` wrote
    ask what `perpo-eval` asks (`perpo.prompts.asking_of`).

    Args:
        path: A file, a data set's folder, or its hub id, optionally followed by `:split`.
        grounding_prompt: The question that asks for a box, with `{expression}` in it; None where it is not known.
        unpack_to: Folder for images that the data hold themselves, named by their contents.

    Raises:
        PerpoError: As `read_preferences`; also if images are to be unpacked and there is no
            `unpack_to`.
    """
    name = str(path)
    named_like_file = name.endswith(FILE_SUFFIXES) or name.startswith((".", "/"))
    is_folder = Path(name.partition(":")[0]).is_dir()
    is_file = Path(name).is_file() or (named_like_file and not is_folder)
    rows = read_rows(name) if is_file else read_dataset(name)
    folder = Path(unpack_to) if unpack_to is not None else None
    asking = asking_of(Path(name).stem) if name.endswith(".parquet") else None
    return _records(rows, path, lambda fields: Question(**_question(fields, folder, asking, grounding_prompt)))


def image_root_of(data: str | Path) -> Path:
    """The folder that image paths start from by default: that of the data file, or else the current one."""
    return Path(data).parent if Path(data).is_file() else Path()


def strip_image_token(question: str) -> str:
    """A question without the `<image>` and newline that some data put before it."""
    return _IMAGE_TOKEN.sub("", question)


def to_json(record: Question) -> dict[str, Any]:
    """A record (or question) as the object that is written; fields that are None are left out."""
    return {name: value for name, value in dataclasses.asdict(record).items() if value is not None}


def write_jsonl(path: str | Path, records: Iterable[Question]) -> None:
    """Write records, one JSON object per line; a crash leaves the old file or the whole new one."""
    lines = (json.dumps(to_json(record), ensure_ascii=False, allow_nan=False) + "\n" for record in records)
    atomic_write_text(path, "".join(lines))


def check_images(records: Iterable[Question], image_root: str | Path) -> None:
    """Decode every image once, in threads.

    Raises:
        PerpoError: Some are missing, damaged or truncated; all are counted and ten are named.
    """
    paths = list(dict.fromkeys(record.image_path for record in records))
    problems = image_problems([Path(image_root, path) for path in paths])
    bad = [f"{path}: {problem}" for path, problem in zip(paths, problems, strict=True) if problem]
    if bad:
        more = [f"and {len(bad) - _SHOWN} more"] if len(bad) > _SHOWN else []
        listing = "\n  ".join([*bad[:_SHOWN], *more])
        raise PerpoError(
            f"{len(bad)} of {len(paths)} images can't be used:\n  {listing}",
            f"paths are relative to the image root '{image_root}'",
        )


def data_sha256(path: str | Path) -> str:
    """SHA-256 (hex) of a file, or of a folder's file names and contents.

    Raises:
        PerpoError: There is neither.
    """
    path = Path(path)
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    if not path.is_dir():
        raise PerpoError(f"there is no data at {path}", "check the path")
    digest = hashlib.sha256()
    for part in sorted(part for part in path.rglob("*") if part.is_file()):
        digest.update(f"{part.relative_to(path).as_posix()}\0{data_sha256(part)}\n".encode())
    return digest.hexdigest()


class _Fields:
    """One row of a file, whose fields are checked as they are taken."""

    def __init__(self, row: Any, place: str) -> None:
        self.place = place
        if not isinstance(row, dict):
            raise self.error(f"expected an object with fields, found {row!r:.40}", "each record is a JSON object")
        self.row: Row = row

    def error(self, problem: str, hint: str) -> PerpoError:
        return PerpoError(f"{self.place}: {problem}", hint)

    def text(self, name: str) -> str:
        value = self.row.get(name)
        if not isinstance(value, str):
            raise self.error(f"expected text as `{name}`, found {value!r:.40}", f"each record needs `{name}`")
        return value

    def per_answer(self, name: str, count: int, is_good: Callable[[Any], bool], expected: str) -> list[Any]:
        """A list with one good value for each of `count` answers."""
        values = self.row.get(name)
        if not isinstance(values, list):
            raise self.error(f"expected a list as `{name}`, found {values!r:.40}", f"give {expected} for each answer")
        if len(values) != count:
            raise self.error(f"{count} answers but {len(values)} `{name}`", f"give {expected} for each answer")
        for value in values:
            if not is_good(value):
                raise self.error(f"expected {expected} in `{name}`, found {value!r:.40}", "mend or drop the record")
        return values


def _records(rows: Iterator[Row], path: str | Path, make: Callable[[_Fields], _R]) -> list[_R]:
    records = [make(_Fields(row, f"{path}, record {number}")) for number, row in enumerate(rows, start=1)]
    if not records:
        raise PerpoError(f"{path} holds no records", "is it the right file?")
    return records


def _question(
    fields: _Fields, unpack_to: Path | None, asking: Asking | None = None, grounding_prompt: str | None = None
) -> dict[str, Any]:
    image_path = _image_path(fields, unpack_to)
    image_id = fields.row.get("image_id")
    return {
        "image_path": image_path,
        "question": _asked(fields, asking, grounding_prompt),
        "answer": _truth(fields),
        "image_id": image_id if isinstance(image_id, str | int) else image_path,
        **_box_fields(fields),
    }


def _asked(fields: _Fields, asking: Asking | None, grounding_prompt: str | None) -> str:
    """The user's turn: a row's question, or where it has none the question for what its expression names."""
    row = fields.row
    if row.get("question") is None and row.get("expression") is not None:
        expression = fields.text("expression").strip()
        if grounding_prompt is None or not expression:
            problem = "is empty" if not expression else "is given, and how the model is asked for one is not known"
            raise fields.error(f"its `expression` {problem}", "give the whole question as `question`")
        return grounding_prompt.replace("{expression}", expression)
    question = strip_image_token(fields.text("question"))
    if asking is not None and "answers_gen" not in row:  # the question of a record is what was asked
        question = asking(question.strip())
    if not question.strip():
        raise fields.error("its `question` is empty", "write what is asked of the picture, or drop the record")
    return question


def _truth(fields: _Fields) -> str:
    if isinstance(fields.row.get("bbox"), list) and not isinstance(fields.row.get("answer"), str):
        raise fields.error("it is a row of boxes for perpo-eval", "make questions of them with perpo-data questions")
    truth = fields.text("answer")
    if not truth.strip():
        raise fields.error("its `answer` is empty, and no truth", "write the truth, or drop the record")
    return truth


def _box_fields(fields: _Fields) -> dict[str, Any]:
    """What a row says of how its boxes are written; `perpo.truths` says whether it is a format."""
    said = {name: fields.row.get(name) for name in ("box_scale", "box_order", "box_frame", "box_resize")}
    for name, value in said.items():
        kind, words = (dict, "an object") if name == "box_resize" else (str, "text")
        if value is not None and not isinstance(value, kind):
            raise fields.error(f"expected {words} as `{name}`, found {value!r:.40}", "mend or drop the record")
    return said


def _image_path(fields: _Fields, unpack_to: Path | None) -> str:
    image = fields.row.get("image")
    if fields.row.get("image_path") is not None or image is None:
        return fields.text("image_path")
    if isinstance(image, str):
        return image
    data, path = (image.get("bytes"), image.get("path")) if isinstance(image, dict) else (None, None)
    if data is None and isinstance(path, str):
        return path
    if not isinstance(data, bytes):
        raise fields.error(f"expected a path or an image as `image`, found {image!r:.40}", "give `image_path`")
    if unpack_to is None:
        raise fields.error("the image is in the data itself", "write the images to files and give `image_path`")
    try:
        return str(unpack_image(data, unpack_to))
    except OSError as error:
        raise fields.error(f"its image can't be read: {error}", "mend or drop the record") from error


def _preference(fields: _Fields) -> PreferenceRecord:
    row = fields.row
    answers = row.get("answers_gen")
    if not isinstance(answers, list) or not answers:
        raise fields.error("it has no sampled answers (`answers_gen`)", "sample them with perpo-sample")
    count = len(answers)
    fields.per_answer("answers_gen", count, lambda value: isinstance(value, str), "a text")
    name = "iou_scores" if row.get("rewards") is None and row.get("iou_scores") is not None else "rewards"
    rewards = fields.per_answer(name, count, _is_reward, "a number from 0 to 1")
    truncated = logps = None
    if row.get("truncated") is not None:
        truncated = fields.per_answer("truncated", count, lambda value: isinstance(value, bool), "true or false")
    if row.get("reference_logps") is not None:
        logps = fields.per_answer("reference_logps", count, _is_logp, "a finite number or null")
    sampling = row.get("sampling")
    if not isinstance(sampling, dict | None):
        raise fields.error(f"expected an object as `sampling`, found {sampling!r:.40}", "mend or drop the record")
    return PreferenceRecord(
        **_question(fields, None),
        answers_gen=answers,
        rewards=[float(reward) for reward in rewards],
        reward_name="iou" if name == "iou_scores" else str(row.get("reward_name") or "reward"),
        truncated=truncated,
        reference_logps=logps,
        sampling=sampling,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_reward(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_logp(value: Any) -> bool:
    return value is None or _is_number(value)
