"""POPE's lists of yes/no questions about COCO's val2014 images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.benchmarks.pope import POPE_SPLITS
from perpo.common.hints import did_you_mean
from perpo.data import check_identity, data_sha256
from perpo.data.rows import Row, read_rows
from perpo.errors import PerpoError, placed
from perpo.prepare.parquet import RowFile, Written, check_image_files, check_outputs, image_cell, say, write_rows
from perpo.prepare.published_counts import POPE_IMAGES, POPE_ROWS, compare

if TYPE_CHECKING:
    from perpo.prepare.arguments import PopeArguments

_FIELDS = ("image", "text", "label")


def build(args: PopeArguments) -> list[Written]:
    """Write coco_pope_<split>.parquet for each list.

    Raises:
        PerpoError: A list or an image is missing or damaged, or the counts are not the known ones.
    """
    lists = find_lists(args.questions)
    outputs = {split: args.output / f"coco_pope_{split}.parquet" for split in lists}
    check_outputs(list(outputs.values()), args.overwrite)
    questions = {split: read_list(path) for split, path in lists.items()}
    verdicts = {split: pope_verdict(split, rows, args.allow_other_counts) for split, rows in questions.items()}
    check_image_files(
        (args.images / row["image"] for rows in questions.values() for row in rows),
        f"--images is {args.images}; it should be the folder of COCO's val2014 images",
    )
    written = []
    for split, rows in questions.items():
        file = RowFile(
            path=outputs[split],
            kind="yesno",
            source="pope:coco",
            split=split,
            command=args.command(),
            counts={"rows": len(rows), "images": len({row["image"] for row in rows})},
            verdict=verdicts[split],
            more={"source_sha256": data_sha256(lists[split])},
        )
        written.append(write_rows(file, (_row(args.images, split, *item) for item in enumerate(rows))))
    return written


def find_lists(paths: Sequence[Path]) -> dict[str, Path]:
    """Return POPE's files by split.

    Args:
        paths: The files, or the folder that holds them.

    Raises:
        PerpoError: There are none, a name is not one of POPE's, or one comes twice.
    """
    names = {f"coco_pope_{split}.json": split for split in POPE_SPLITS}
    lists: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise PerpoError(f"expected POPE's lists at {path}, found nothing there", "check --questions")
        files = [path / name for name in names if (path / name).is_file()] if path.is_dir() else [path]
        if not files:
            raise PerpoError(f"{path} holds none of {', '.join(names)}", "they are in output/coco of POPE's repository")
        for file in files:
            if file.name not in names:
                raise PerpoError(
                    f"the file name of {file} is not that of one of POPE's lists", did_you_mean(file.name, names)
                )
            if lists.setdefault(names[file.name], file) != file:
                raise PerpoError(f"{file.name} is given twice: {lists[names[file.name]]} and {file}", "give it once")
    if not lists:
        raise PerpoError("--questions is empty", "give POPE's lists, or their folder")
    return lists


def read_list(path: Path) -> list[Row]:
    """Return the questions of a list: question_id, image, text, label.

    Raises:
        PerpoError: A field is missing, a label is neither yes nor no, or a question's number comes twice.
    """
    rows = []
    seen: set[str] = set()
    for number, row in enumerate(read_rows(path), start=1):
        where = f"{path}, question {number}"
        fields = row if isinstance(row, dict) else {}
        if bad := [name for name in _FIELDS if not isinstance(fields.get(name), str)]:
            raise PerpoError(
                f"{where}: expected text as `{bad[0]}`, found {fields.get(bad[0])!r:.40}", "fetch it again"
            )
        if fields["label"] not in ("yes", "no"):
            raise PerpoError(f"{where}: expected yes or no as its label, found {fields['label']!r:.40}", "mend it")
        identity = fields.get("question_id")
        with placed(where):
            check_identity(identity, "question_id", "mend it")
        if str(identity) in seen:
            raise PerpoError(
                f"{where}: expected a question_id that no other question has, found {identity!r:.40}", "correct it"
            )
        seen.add(str(identity))
        rows.append(fields)
    if not rows:
        raise PerpoError(f"{path} holds no questions", "check that this is the right file")
    return rows


def pope_verdict(split: str, rows: Sequence[Row], allow_other: bool) -> str:
    """Return how a list's counts compare with the known ones: 3,000 questions about 500 images, or random's older
    2,910.

    Raises:
        PerpoError: They are other ones, and that is not accepted.
    """
    known = POPE_ROWS[split]
    counts = {"questions": len(rows), "images": len({row["image"] for row in rows})}
    length = len(rows) if len(rows) in known else known[0]
    verdict = compare(f"POPE {split}", counts, {"questions": length, "images": POPE_IMAGES}, allow_other)
    if length != known[0]:
        say(
            f"POPE {split} is the older list of {length} questions, not today's list of {known[0]} questions: "
            "their scores differ"
        )
        verdict += f" (the older list of {length})"
    return verdict


def _row(images: Path, split: str, position: int, row: Row) -> dict[str, Any]:
    path = images / row["image"]
    return {
        "id": str(position),
        "question_id": str(row["question_id"]),
        "question": row["text"],
        "answer": row["label"],
        "image_source": path.stem,
        "image": image_cell(path),
        "category": split,
    }
