"""The cost of a recipe, stage by stage, told before anything runs."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.cli.estimates import cost_table, training_plan
from perpo.data import read_questions
from perpo.data.images import image_size
from perpo.methods import METHODS
from perpo.models.checkpoints import grounding_prompt
from perpo.models.costs import WorkCost, gpu_of
from perpo.prepare.pdf.build import documents_of
from perpo.results.text import Text
from perpo_eval.recipes.arguments import (
    evaluate_arguments,
    method_of,
    pdf_arguments,
    sample_arguments,
    teaching_arguments,
    train_arguments,
)
from perpo_eval.recipes.recipe import DataFile, Experiment, PagesPart, PdfPages, SampledData

if TYPE_CHECKING:
    from perpo.models.estimate import AskedSize, Estimator, Load
    from perpo_eval.recipes.experiment import ExperimentRun

_DOCUMENTS = 200
"""So many PDF files are looked into; the number of pages of the others is told from theirs."""

_PICTURE = 150e3
"""Bytes of a page's picture, as docs/pages.md has them."""


@dataclass(frozen=True)
class _Pages:
    """Some questions of the data, how many there are for training and evaluation, and what was assumed."""

    asked: Sequence[AskedSize]
    training: int
    evaluation: int
    notes: tuple[str, ...] = ()


class RecipeEstimate:
    """The estimate of a run's experiments."""

    def __init__(self, run: ExperimentRun, gpu: str) -> None:
        """Build the model without its weights, and look at the data.

        Raises:
            PerpoError: No such GPU or model, or data that cannot be read.
        """
        from perpo.models.estimate import Estimator

        self.run, self.gpu = run, gpu_of(gpu)
        self.model: Estimator = Estimator(run.source.model, self.gpu)
        self._pages: dict[str, _Pages] = {}
        self._notes: list[str] = []

    def table(self, names: Sequence[str]) -> Text:
        """Return a row a stage, and what was assumed below."""
        rows: dict[str, tuple[float, WorkCost]] = {}
        for name in names:
            rows |= self._of(name)
        return cost_table(f"Estimate of {self.run.source.name}", self.model, rows, list(dict.fromkeys(self._notes)))

    def _of(self, name: str) -> dict[str, tuple[float, WorkCost]]:
        """Questions and costs of an experiment's stages, by the stage's name; data's are shared."""
        rows: dict[str, tuple[float, WorkCost]] = {}
        run = self.run
        recipe, experiment = run.source, run.source.experiments[name]
        x = Path("x")
        for data, source in recipe.data.items():
            if isinstance(source, PdfPages):
                pages = self._look(data)
                count = pages.training + pages.evaluation
                rows[f"data/{data}"] = count, WorkCost(0.0, 0.0, 0.0, 0.0, _PICTURE * count)
                self._notes.append("A page's picture takes 0.15 MB. Pages are read on the CPU (docs/pages.md: Speed).")
        if recipe.teach is not None:
            arguments = teaching_arguments(recipe, recipe.teach, x, x, x)
            load = self._load(recipe.teach.data)
            rows["taught"] = load.questions, self.model.training(load, 1, training_plan(arguments))
        if experiment.train is not None and experiment.data is not None:
            source = recipe.data[experiment.data]
            arguments = train_arguments(recipe, experiment, x, x, x, None, 1)
            if isinstance(source, SampledData):
                load, candidates = self._sampling(rows, f"data/{experiment.data}", source.questions, Experiment())
            elif experiment.rounds:
                load, candidates = self._sampling(rows, f"{name}/rounds/sample", experiment.data, experiment)
            else:
                load, candidates = self._load(experiment.data), 1
            lists = 1 if not METHODS[method_of(recipe, experiment)].ranks else candidates
            rows[f"{name}/train"] = load.questions, self.model.training(load, lists, training_plan(arguments))
        rows[f"{name}/evaluate"] = self._evaluating()
        return rows

    def _sampling(
        self, rows: dict[str, tuple[float, WorkCost]], stage: str, data: str, experiment: Experiment
    ) -> tuple[Load, int]:
        x = Path("x")
        arguments = sample_arguments(self.run.source, experiment, x, x, x, None, 1)
        load = self._load(data).cut(arguments.max_new_tokens)
        rows[stage] = (
            load.questions,
            self.model.sampling(load, arguments.num_candidates, arguments.batch_size),
        )
        self._notes.append(
            "All sampled questions are taken to be kept: how many fall out is known when they are rewarded."
        )
        return load, arguments.num_candidates

    def _evaluating(self) -> tuple[float, WorkCost]:
        recipe = self.run.source
        made = recipe.evaluate.get("data")
        arguments = evaluate_arguments(recipe, recipe.base, Path("x"), None)
        if made in recipe.data:
            pages = self._look(str(made))
            count = min(pages.evaluation, arguments.limit or pages.evaluation)
            load = self.model.load(pages.asked, count)
        else:
            load = self._evaluated_rows(arguments)
        if isinstance(arguments.max_new_tokens, int):
            load = load.cut(arguments.max_new_tokens)
        return load.questions, self.model.evaluating(load, arguments.batch_size or 1)

    def _evaluated_rows(self, arguments: Any) -> Load:
        """The rows of the tasks, from their files; the texts of answers that are no pages are short."""
        import pyarrow.parquet as pq

        from perpo.models.estimate import AskedSize
        from perpo_eval.rows.suites import select_tasks, task_file

        asked, count = [], 0
        for spec in select_tasks(arguments.suite, arguments.data, arguments.tasks):
            file = task_file(arguments.data, spec.name)
            if not file.is_file():
                self._notes.append(f"{spec.name} is not in a file here and is left out.")
                continue
            table = pq.ParquetFile(file)
            rows = min(table.metadata.num_rows, arguments.limit or table.metadata.num_rows)
            count += rows
            for row in next(table.iter_batches(batch_size=16)).to_pylist():
                size = image_size(row["image"]["bytes"])
                asked.append(AskedSize(str(row.get("question") or ""), size, str(row.get("answer") or "")))
        return self.model.load(asked, count) if asked else self.model.load([AskedSize("", (336, 336), "")], 0)

    def _load(self, data: str) -> Load:
        """The load of the questions of some data."""
        source = self.run.source.data[data]
        if isinstance(source, PagesPart):
            pages = self._look(source.of)
            if source.start + source.count > pages.training:
                self._notes.append(
                    f"Warning: {data} takes pages up to number {source.start + source.count:,}, and {source.of} has "
                    f"about {pages.training:,} for training."
                )
            return self.model.load(pages.asked, source.count)
        pages = self._look(data)
        return self.model.load(pages.asked, pages.training)

    def _look(self, data: str) -> _Pages:
        if data not in self._pages:
            source = self.run.source.data[data]
            look = _look_at_pdfs(source) if isinstance(source, PdfPages) else self._look_at_questions(data, source)
            self._pages[data] = look
            self._notes += look.notes
        return self._pages[data]

    def _look_at_questions(self, data: str, source: Any) -> _Pages:
        from perpo.errors import PerpoError
        from perpo.models.estimate import AskedSize

        if not isinstance(source, DataFile):
            raise PerpoError(f"'{data}' is drawn when the recipe runs, so its cost is not estimated", "run it")
        questions = read_questions(source.file, grounding_prompt=grounding_prompt(self.run.source.model, weights=False))
        some = questions[:: max(1, len(questions) // 64)]
        asked = [AskedSize(q.question, image_size(source.image_root / q.image_path), q.answer) for q in some]
        return _Pages(asked, len(questions), 0)


def _look_at_pdfs(source: PdfPages) -> _Pages:
    """Look into some PDF files: how many pages they have, how large, and how much text."""
    from perpo.benchmarks.prompts import PAGE
    from perpo.models.estimate import AskedSize
    from perpo.prepare.pdf.rendering import glance

    settings = pdf_arguments(source.folder, source.settings, Path("x"), "pages").page_settings()
    paths = documents_of(source.folder)
    some = random.Random(0).sample(paths, min(len(paths), _DOCUMENTS))
    glances = [glance(path, settings.longest_side, settings.dpi) for path in some]
    pages = sum(count for count, _ in glances) * len(paths) / len(some)
    share = pdf_arguments(source.folder, source.settings, Path("x"), "pages").eval_share
    question = source.settings.get("question") or PAGE.usual
    held = list(itertools.chain.from_iterable(seen for _, seen in glances))
    asked = [AskedSize(question, size, text) for size, text in held if len(text) >= settings.limits.min_characters]
    notes = (
        f"{source.folder.name}: {len(some):,} of {len(paths):,} PDF files were looked into. They have about "
        f"{pages:,.0f} pages, of which none is taken to be left out.",
    )
    return _Pages(asked or [AskedSize(question, (1083, 1400), "")], int(pages * (1 - share)), int(pages * share), notes)
