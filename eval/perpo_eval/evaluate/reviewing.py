"""The accuracy on labels that a review found right, and on those that it found wrong. No model, no torch."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perpo.benchmarks.grounding import RIGHT_LABELS, WRONG_LABELS
from perpo_eval.rows.label_review import LabelReview, plain

if TYPE_CHECKING:
    import pyarrow as pa

NOTE_START = "labels reviewed: "
"""How the note of a task with reviewed labels begins."""


@dataclass(frozen=True)
class Reviewed:
    """A task's rows with the two scores, and what the record says of the review."""

    table: pa.Table
    about: dict[str, Any]

    @property
    def note(self) -> str:
        """Return what a reader of the numbers must know."""
        counts = f"{self.about['wrong']:,} wrong and {self.about['right']:,} right"
        return f"{NOTE_START}{counts}, {self.about['unmatched']:,} without a verdict ({self.about['sha256']:.8})"


def reviewed(task: str, table: pa.Table, review: LabelReview, expressions: Sequence[str | None]) -> Reviewed:
    """Return a task's rows with the scores of the review, and say how its labels came out.

    Args:
        task: Its name.
        table: Its rows.
        review: What is known of its labels.
        expressions: What each row asks for; None where that is not known.
    """
    verdicts = [
        None if expression is None else review.verdict(image["path"], json.loads(target), expression)
        for image, target, expression in zip(*_columns(table, "image", "target"), expressions, strict=True)
    ]
    counts = Counter(verdicts)
    about: dict[str, Any] = {"source": review.source, "sha256": review.sha256}
    about |= {"right": counts[True], "wrong": counts[False], "unmatched": counts[None]}
    result = Reviewed(with_verdicts(table, verdicts), about)
    print(f"{task}: {result.note}", file=sys.stderr)
    if not counts[True] + counts[False]:
        print(f"warning: {task}: none of its expressions is in the review", file=sys.stderr)
    return result


def with_verdicts(table: pa.Table, verdicts: Sequence[bool | None]) -> pa.Table:
    """Return rows with Acc@0.5 once more under two names: where the label is right, and where it is wrong."""
    import pyarrow as pa

    held = table["scores"].combine_chunks()
    columns = {field.name: held.field(place) for place, field in enumerate(held.type)}
    acc = columns["acc@0.5"].to_pylist()
    for name, wanted in ((RIGHT_LABELS, True), (WRONG_LABELS, False)):
        values = [value if verdict is wanted else None for value, verdict in zip(acc, verdicts, strict=True)]
        columns[name] = pa.array(values, pa.float64())
    scores = pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
    return table.set_column(table.schema.get_field_index("scores"), "scores", scores)


def stored_verdicts(table: pa.Table) -> list[bool | None] | None:
    """Return what an earlier review said of a stored run's rows; None where there was none."""
    import pyarrow.compute as pc

    if table.schema.field("scores").type.get_field_index(RIGHT_LABELS) < 0:
        return None
    told = (pc.struct_field(table["scores"], name).to_pylist() for name in (RIGHT_LABELS, WRONG_LABELS))
    return [None if right is None and wrong is None else right is not None for right, wrong in zip(*told, strict=True)]


def expressions_of(table: pa.Table, prompt: str | None, review: LabelReview) -> list[str | None]:
    """Return what each row of a stored run asked for.

    Args:
        table: The rows.
        prompt: What was asked, with `{query}` in it; None where the record does not say. Then it is what, around the
            expressions of the review, is the same in most questions.
        review: What is known of the labels.
    """
    around = _around(table, review) if prompt is None else tuple(prompt.split("{query}"))
    if around is None or len(around) != 2:
        return [None] * table.num_rows
    before, after = around
    return [
        question[len(before) : len(question) - len(after)]
        if question.startswith(before) and question.endswith(after) and len(question) >= len(before) + len(after)
        else None
        for question in table["question"].to_pylist()
    ]


def _around(table: pa.Table, review: LabelReview) -> tuple[str, ...] | None:
    """What stands before and behind the expression in most questions; None where that is not one thing."""
    seen: Counter[tuple[str, ...]] = Counter()
    for image, target, question in zip(*_columns(table, "image", "target", "question"), strict=True):
        for expression in {label.expression for label in review.about(image["path"], json.loads(target))}:
            place = question.casefold().find(expression)
            if place >= 0 and plain(question[place : place + len(expression)]) == expression:
                seen[question[:place], question[place + len(expression) :]] += 1
    first = seen.most_common(2)
    if not first or (len(first) == 2 and first[0][1] == first[1][1]):
        return None
    return first[0][0]


def _columns(table: pa.Table, *names: str) -> list[list[Any]]:
    return [table[name].to_pylist() for name in names]


def with_note(note: str | None, more: str) -> str:
    """Return a task's note with that of a review, in place of an earlier one."""
    kept = [part for part in (note or "").split("; ") if part and not part.startswith(NOTE_START)]
    return "; ".join([*kept, more])
