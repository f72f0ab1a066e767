"""The layouts of prediction files that are known, one row each, and what of their rows is what.

A layout is recognised by its columns. No column is guessed: of any other file the user names them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError

FIELDS: dict[str, str] = {
    "answer": "what the model said",
    "sample_key": "perpo's own name of the sample",
    "id": "the data set's name of the sample",
    "number": "the sample's place in its task, from 0",
    "image": "the picture's path, name or sha256",
    "question": "what was asked",
    "truth": "the true answer",
    "split": "the task, or its split",
    "width": "of the picture, in pixels",
    "height": "of the picture, in pixels",
    "tokens": "generated tokens",
    "latency_ms": "milliseconds",
    "finish": "stop or length",
}
"""What a column can hold, by the name that --columns takes."""


@dataclass(frozen=True)
class Layout:
    """A way in which somebody writes predictions.

    Attributes:
        name: What --layout calls it.
        title: Whose files these are.
        needs: The columns that make it, by what they hold.
        may: Further columns that are read where they are there, by what they hold.
        marks: Columns that it has and that are not read.
        others: Whether a file may have columns besides; where not, its columns are exactly these.
        answer: Takes the answer out of a row; None takes the column.
        also: Takes out what stands deeper within a row, by what it is.
        hint: What to do where its rows do not say which samples they are.
        model: The column that names the model.
    """

    name: str
    title: str
    needs: Mapping[str, str]
    may: Mapping[str, str] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    others: bool = True
    answer: Callable[[Mapping[str, Any]], Any] | None = None
    also: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    hint: str = ""
    model: str = ""

    def fits(self, columns: Iterable[str]) -> bool:
        """Return whether a file with these columns is of this layout."""
        have = set(columns)
        must = {*self.needs.values(), *self.marks}
        return must <= have and (self.others or have <= {*must, *self.may.values()})


def _of_lmms(row: Mapping[str, Any]) -> Any:
    """Return the raw response where it is kept beside the filtered one: thoughts are cut here, not there."""
    value = row.get("resps", row.get("filtered_resps"))
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, list):
        texts = {text for text in value if isinstance(text, str)}
        if len(texts) == 1 and all(isinstance(text, str) for text in value):
            return texts.pop()
        raise PerpoError(f"it has {len(value)} answers in resps", "keep one for each sample")
    return value


def _in_lmms(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what lmms-eval's row says within its document, which older ones keep, and within its metrics."""
    held = row.get("doc")
    doc: Mapping[str, Any] = held if isinstance(held, Mapping) else {}
    within = [doc, *(value for value in row.values() if isinstance(value, Mapping) and "question_id" in value)]
    names = {"id": ("question_id",), "image": ("image_source", "file_name"), "split": ("category",)}
    said = {
        ours: next((each[name] for each in within for name in theirs if name in each), None)
        for ours, theirs in names.items()
    }
    asked = row.get("input", doc.get("question"))
    return said | {"question": asked if isinstance(asked, str) else None}


def _of_rec_eval(row: Mapping[str, Any]) -> Any:
    said = row["prediction"]
    if isinstance(said, Mapping) and isinstance(said.get("text"), str) and "box" not in said:
        return said["text"]
    return said


LAYOUTS: dict[str, Layout] = {
    layout.name: layout
    for layout in [
        Layout(
            "perpo", "perpo's responses", {"sample_key": "sample_key", "answer": "response"}, {"question": "question"}
        ),
        Layout(
            "lmms-eval",
            "lmms-eval's samples",
            {"number": "doc_id", "answer": "filtered_resps", "truth": "target"},
            {"tokens": "token_counts"},
            answer=_of_lmms,
            also=_in_lmms,
        ),
        Layout(
            "vlmevalkit",
            "VLMEvalKit's predictions",
            {"id": "index", "question": "question", "truth": "answer", "answer": "prediction"},
            {"split": "category", "image": "image_path"},
            hint="--match position where the rows are in the data set's order",
        ),
        Layout(
            "llava",
            "LLaVA's answers",
            {"id": "question_id", "answer": "text"},
            {"question": "prompt"},
            marks=("answer_id", "model_id"),
            hint="--question_file FILE: the questions that were asked, whose numbers these are, with their pictures",
            model="model_id",
        ),
        Layout(
            "pope",
            "POPE's answers",
            {"question": "question", "answer": "answer"},
            others=False,
            hint="POPE's answers are in the order of its questions: --match position, or --question_file FILE",
        ),
        Layout(
            "mmhal",
            "MMHal-Bench's answers",
            {"image": "image_src", "question": "question", "truth": "gt_answer", "answer": "model_answer"},
        ),
        Layout(
            "fox",
            "Fox's answers",
            {"truth": "label", "answer": "answer"},
            {"image": "image", "question": "question"},
            others=False,
        ),
        Layout(
            "vlm-r1",
            "VLM-R1's results",
            {"question": "question", "truth": "ground_truth", "answer": "model_output"},
            {"image": "image"},
        ),
        Layout(
            "rec-eval",
            "REC-Eval's predictions",
            {"question": "text", "truth": "gt_bbox", "answer": "prediction"},
            answer=_of_rec_eval,
        ),
    ]
}
"""By name."""

_REVIEWS = ({"answer1_id", "answer2_id", "question_id"}, {"review_id", "question_id"})


def layout_of(columns: Sequence[str], name: str | None, named: Mapping[str, str]) -> Layout:
    """Return the layout of a file.

    Args:
        columns: The file's columns.
        name: What --layout says; None to recognise it.
        named: What --columns says: the file's columns by what they hold; "" for one that is not to be read.

    Raises:
        PerpoError: It is none that is known, or lacks a column of the one that was named.
    """
    if name is not None and name not in LAYOUTS:
        raise PerpoError(f"there is no layout '{name}'", did_you_mean(name, LAYOUTS))
    seen = f"the file has {', '.join(columns)[:200] or 'no columns'}"
    if name is None and named:
        layout = Layout("plain", "columns named by flags", dict(named))
    elif name is None:
        if any(marks <= set(columns) for marks in _REVIEWS):
            raise PerpoError(
                f"these are a judge's reviews, not a model's answers: {seen}",
                "import the answers; perpo-eval judge lets a judge score them",
            )
        fitting = [layout for layout in LAYOUTS.values() if layout.fits(columns)]
        if len(fitting) != 1:
            known = " or ".join(layout.name for layout in fitting)
            raise PerpoError(
                f"the layout is {f'{known}: not one alone' if known else 'not a known one'}: {seen}",
                "say what its columns hold: --columns answer=COLUMN id=COLUMN image=COLUMN question=COLUMN "
                f"truth=COLUMN (also: {', '.join(list(FIELDS)[7:])}); or --layout {', '.join(LAYOUTS)}",
            )
        layout = fitting[0]
    else:
        layout = _renamed(LAYOUTS[name], named)
    lacking = [f"{theirs} ({ours})" for ours, theirs in layout.needs.items() if theirs and theirs not in columns]
    lacking += [mark for mark in layout.marks if mark not in columns and name is None]
    if lacking:
        raise PerpoError(f"{layout.title}: there is no column {', '.join(lacking)}", seen)
    if not layout.needs.get("answer"):
        raise PerpoError("no column holds the answers", f"--columns answer=COLUMN; {seen}")
    return layout


def _renamed(layout: Layout, named: Mapping[str, str]) -> Layout:
    needs = {ours: theirs for ours, theirs in layout.needs.items() if ours not in named}
    may = {ours: theirs for ours, theirs in layout.may.items() if ours not in named}
    taken = {ours: theirs for ours, theirs in named.items() if theirs}
    own = None if "answer" in named else layout.answer
    return replace(layout, needs=needs | taken, may=may, others=True, answer=own)


def named_columns(words: Sequence[str]) -> dict[str, str]:
    """Return what --columns says: the file's columns by what they hold.

    Raises:
        PerpoError: A word that is no `name=column`, or a name that is none.
    """
    named = {}
    for word in words:
        ours, sign, theirs = word.partition("=")
        if not sign:
            raise PerpoError(f"--columns {word} names no column", "write answer=COLUMN")
        if ours not in FIELDS:
            raise PerpoError(f"--columns {word}: nothing is called {ours}", did_you_mean(ours, FIELDS))
        named[ours] = theirs
    return named
