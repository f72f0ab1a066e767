"""The arguments of perpo-eval import."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from perpo.boxes import Frame, Order, Scale
from perpo.common.arguments import arg, command_line
from perpo.common.numbers import Count
from perpo.errors import PerpoError
from perpo_eval.imports.layouts import FIELDS, LAYOUTS, named_columns
from perpo_eval.wanted import Reading, RowsWanted, RunWanted, Suite


@dataclass(frozen=True, kw_only=True)
class ImportArguments:
    """The arguments of perpo-eval import; the files may stand first without their name."""

    files: list[Path] = arg([], "prediction files: JSON, JSON lines, CSV, TSV, Parquet or xlsx")
    name: str = arg(help="what tables call the model that answered")
    layout: str | None = arg(None, f"how the files are written (default: by their columns): {', '.join(LAYOUTS)}")
    columns: list[str] = arg([], f"columns of any other file, as answer=COLUMN id=COLUMN: {', '.join(FIELDS)}")
    match: Literal["sample_key", "id", "number", "image", "question", "truth", "position"] | None = arg(
        None, "what samples are found by (default: the surest that the file has; by position only where asked)"
    )
    question_file: Path | None = arg(
        None,
        "the questions that were asked (question_id, image, text), where files have only their numbers or order",
    )
    suite: Suite | None = arg(None, "the benchmark (default: that of --tasks)")
    data: str = arg("tiny", "as of perpo-eval: tiny, hub, or a folder")
    tasks: list[str] = arg([], "its tasks (default: all of the suite that the data serve)")
    limit: Count | None = arg(None, "only the first so many samples of each task")
    partial: bool = arg(False, "samples may lack a prediction, and predictions a sample: both are counted")
    truths: str | None = arg(
        None, "instead of a benchmark: the files hold the truths, of data called boxes_NAME, yesno_NAME or pages_NAME"
    )
    truth_scale: Scale | None = arg(None, "for --truths boxes_NAME, needed there: what numbers of true boxes count")
    truth_order: Order | None = arg(None, "for --truths boxes_NAME, needed there: which number is which")
    image_root: Path | None = arg(None, "for --truths: where the pictures lie, if they are at hand")
    box_scale: Scale | None = arg(None, "what numbers of the answers' boxes count; needed for boxes")
    box_order: Order | None = arg(None, "which number is which (default: xyxy)")
    box_frame: Frame | None = arg(None, "the picture that boxes refer to (default: original)")
    family: str | None = arg(None, "instead of --box_scale: a family that writes boxes in the same way")
    output: str = arg("results", "results folder; the run lies in <output>/<name>/<run_id>")
    json: bool = arg(False, "print run.json's content on stdout instead of the table")

    @property
    def named(self) -> dict[str, str]:
        """Return the file's columns by what they hold."""
        return named_columns(self.columns)

    @property
    def reading(self) -> Reading:
        """Return how the model writes boxes."""
        return Reading(
            family=self.family, scale=self.box_scale, order=self.box_order, frame=self.box_frame, prompt_style="paper"
        )

    @property
    def run_wanted(self) -> RunWanted:
        """Return the run that is to be stored."""
        command = shlex.join(shlex.split(command_line("perpo-eval", self, "import")))
        return RunWanted(name=self.name, output=self.output, command=command)

    def rows_wanted(self, suite: str) -> RowsWanted:
        """Return which questions were asked."""
        return RowsWanted(suite=suite, data=self.data, tasks=tuple(self.tasks), limit=self.limit)

    def check(self) -> None:
        """Refuse what has no use.

        Raises:
            PerpoError: No files, or flags that do not go together.
        """
        if not self.files:
            raise PerpoError("no file to import", "perpo-eval import FILE ... --name NAME")
        if not self.name.strip():
            raise PerpoError("--name is empty", "say what tables are to call the model")
        theirs: tuple[str, ...] = ("truth_scale", "truth_order", "image_root")
        where = "--truths"
        if self.truths is not None:
            theirs, where = (
                ("suite", "tasks", "limit", "match", "partial", "question_file"),
                "a benchmark, not for --truths",
            )
            theirs += () if self.data == "tiny" else ("data",)
        if unused := [name for name in theirs if getattr(self, name)]:
            raise PerpoError(f"--{unused[0]} is for {where}", f"leave --{unused[0]} out")
        if self.truths is None and self.suite is None and not self.tasks:
            raise PerpoError(
                "of which benchmark these are the answers is not said",
                "--suite or --tasks, with --data; or --truths boxes_NAME where the files hold the truths",
            )
