"""Run a recipe: draw or read data, sample, train, evaluate, leaderboard; what is done is not done again.

A run that was cut off continues: finished stages are skipped, the sampler continues from its journal,
training from its newest checkpoint. A stage that was made of something else than would be used now,
such as other weights, data or arguments, is refused before anything runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from perpo.common.files import atomic_write_text, check_writable
from perpo.common.locks import in_turn, only_process
from perpo.data import Question, check_images, data_sha256, read_preferences, read_questions, write_jsonl
from perpo.errors import PerpoError
from perpo.methods import METHODS
from perpo.models.checkpoints import adapter_digest, grounding_prompt, refused_pictures, resolve_model
from perpo.models.keeping import keeping_base
from perpo.prepare.pdf.build import documents_of
from perpo_eval.evaluate import run as runner
from perpo_eval.evaluate.versions import suite_sha256
from perpo_eval.recipes.arguments import (
    evaluate_arguments,
    method_of,
    sample_arguments,
    stage_key,
    train_arguments,
)
from perpo_eval.recipes.comparing import Outcome, compared
from perpo_eval.recipes.jobs import side_by_side
from perpo_eval.recipes.pages import TAUGHT, reading_pdfs, taking_part, teaching
from perpo_eval.recipes.recipe import (
    DataFile,
    Experiment,
    PagesPart,
    PdfPages,
    Recipe,
    SampledData,
    TinyPages,
    TinyQuestions,
)
from perpo_eval.recipes.stage import Stage, first_to_do, once
from perpo_eval.rows.suites import TaskSpec, data_version, select_tasks
from perpo_eval.rows.tiny_data import tiny_version


class ExperimentRun:
    """One recipe in one output folder."""

    def __init__(self, recipe: Recipe, output: Path) -> None:
        """Nothing is read or written yet."""
        self.source = recipe
        self.output = output
        self._mark = output / "recipe.json"
        made = recipe.data.get(str(recipe.evaluate.get("data")))
        rows = {"data": str(output / "data" / recipe.evaluate["data"])} if isinstance(made, PdfPages) else {}
        model = str(output / TAUGHT) if recipe.teach else recipe.model
        self.recipe = replace(recipe, evaluate=recipe.evaluate | rows, model=model)
        """The recipe with what the run makes in place of its names: the model that was taught, the pages."""

    def plan(self, name: str) -> list[Stage]:
        """Return the stages of an experiment, in their order."""
        experiment = self.recipe.experiments[name]
        stages = self._shared()
        adapter: Path | None = None
        if experiment.train is not None and experiment.data is not None:
            source = self._data(experiment.data, stages)
            for part in range(1, max(experiment.rounds, 1) + 1):
                data, folder = source, f"{name}/train"
                if experiment.rounds:
                    sampled = f"{name}/round-{part}/sample"
                    stages.append(self._sampling("sample", sampled, experiment, source, adapter, part))
                    data = DataFile(stages[-1].folder / "preferences.jsonl", source.image_root)
                    folder = f"{name}/round-{part}/adapter"
                stages.append(self._training(name, folder, data, adapter, part))
                adapter = stages[-1].folder
        return [*once(stages), self._evaluation(name, adapter)]

    def _shared(self) -> list[Stage]:
        """What all experiments need: the pages they are evaluated on, and the model they start from."""
        stages: list[Stage] = []
        if isinstance(self.source.data.get(str(self.source.evaluate.get("data"))), PdfPages):
            self._data(self.source.evaluate["data"], stages)
        if self.source.teach is not None:
            data = self._data(self.source.teach.data, stages)
            stages.append(teaching(self.source, self.output, data))
        return stages

    def _data(self, name: str, stages: list[Stage]) -> DataFile:
        """The file of that data; the stages that make it, if any, are added."""
        source = self.recipe.data[name]
        if isinstance(source, DataFile):
            return source
        folder = f"data/{name}"
        if isinstance(source, PdfPages):
            stages.append(reading_pdfs(self.output, folder, source))
            return DataFile(stages[-1].folder / "questions.jsonl", stages[-1].folder)
        if isinstance(source, PagesPart):
            pages = self._data(source.of, stages)
            stages.append(taking_part(self.output, folder, source, pages))
            return DataFile(stages[-1].folder / "questions.jsonl", pages.image_root)
        if isinstance(source, TinyQuestions | TinyPages):
            stages.append(self._drawing(folder, source))
            return DataFile(stages[-1].folder / "questions.jsonl", stages[-1].folder)
        asked = self._data(source.questions, stages)
        stages.append(self._sampling("data", folder, Experiment(rounds=1), asked, None, 1))
        return DataFile(stages[-1].folder / "preferences.jsonl", asked.image_root)

    def check(self, names: Sequence[str]) -> None:
        """Refuse what would stop a run of the experiments called `names` in its middle; writes nothing.

        Raises:
            PerpoError: The folder cannot be written, or holds the work of another seed, or stages made of
                something else; the model, the tasks, the data or their images cannot be used; or the base
                is neither among `names` nor done.
        """
        check_writable(self.output)
        self._check_evaluation()
        if self._mark.is_file():
            before = json.loads(self._mark.read_text(encoding="utf-8"))
            if before["seed"] != self.recipe.seed:
                raise PerpoError(
                    f"{self.output} holds the work of {before['name']} with another seed, {before['seed']}",
                    "give another --output_dir, or delete that folder to start over",
                )
        for name in names:
            first = first_to_do(self.plan(name))
            if first is not None and first.kind != "evaluate" and self.recipe.experiments[name].data is not None:
                self._check_data(name)
        if self.recipe.base not in names and first_to_do(self.plan(self.recipe.base)) is not None:
            raise PerpoError(
                f"'{self.recipe.base}' has not been run, but all others are compared with it", "add it to --only"
            )

    def _check_evaluation(self) -> None:
        """Check it with the model and the rows that are there; those that the run makes may come later."""
        arguments = evaluate_arguments(self.recipe, self.recipe.base, self.output / "results", None)
        if any(stage.done() is None for stage in self._shared()):
            arguments = replace(arguments, model=self.source.model)
            resolve_model(self.source.model)
            if self.recipe.evaluate.get("data") != self.source.evaluate.get("data"):
                return
        runner.check(arguments)
        self._check_compared(select_tasks(arguments.suite, arguments.data, arguments.tasks))

    def _check_compared(self, tasks: Sequence[TaskSpec]) -> None:
        """Refuse tasks without one average of what is compared, which the end of the run would."""
        groups = {task.group for task in tasks if task.benchmark == self.recipe.benchmark}
        if len(groups) != 1:
            raise PerpoError(
                f"a leaderboard compares one average, but its evaluation has {len(groups)} of {self.recipe.benchmark}",
                "name the tasks under evaluate, or another benchmark under compare",
            )

    def run(self, names: Sequence[str], jobs: int = 1) -> Outcome:
        """Run the experiments called `names` and compare them with all others that are done here.

        Args:
            names: The experiments.
            jobs: How many processes share them; 1 for this one alone.

        Raises:
            PerpoError: See `check`; or what a stage raises.
        """
        self.check(names)
        with only_process(self.output, "perpo-run"):
            atomic_write_text(self._mark, json.dumps({"name": self.recipe.name, "seed": self.recipe.seed}) + "\n")
            if jobs > 1:
                side_by_side(self, sorted(names, key=self._length, reverse=True), jobs)
            else:
                with keeping_base():
                    for name in names:
                        self.do(name)
            return compared(self, names)

    def do(self, name: str) -> None:
        """Do what is left of an experiment."""
        for stage in self.plan(name):
            stage.do()

    def prepare(self, names: Sequence[str]) -> None:
        """Do what is left of what experiments share: their data, and the model that they start from."""
        for stage in once([stage for name in names for stage in self.plan(name) if stage.kind == "data"]):
            stage.do()

    def _length(self, name: str) -> tuple[int, bool]:
        """What tells the longer of two experiments, which had better begin first."""
        experiment = self.recipe.experiments[name]
        return experiment.rounds, experiment.train is not None

    def _check_data(self, name: str) -> None:
        experiment = self.recipe.experiments[name]
        source, needed = self.recipe.data[str(experiment.data)], max(experiment.rounds, 1)
        asks = experiment.rounds or not METHODS[method_of(self.recipe, experiment)].samples
        if isinstance(source, SampledData):
            source, asks = self.recipe.data[source.questions], True
        if isinstance(source, PdfPages | PagesPart):
            papers = self.recipe.data[source.of] if isinstance(source, PagesPart) else source
            assert isinstance(papers, PdfPages)
            documents_of(papers.folder)  # how many pages they have is known when they are read
            return
        if isinstance(source, TinyQuestions):
            least, count = "images", source.images
        elif isinstance(source, TinyPages):
            least, count = "pages", source.pages
        else:
            assert isinstance(source, DataFile)  # nothing is sampled for what is itself sampled
            records: Sequence[Question] = self._questions(source) if asks else read_preferences(source.file)
            check_images(records, source.image_root, refused_pictures(self.source.model))
            least, count = "questions", len(records)
        if count < needed:
            raise PerpoError(
                f"recipe {self.recipe.name}: {name} needs {needed} {least} at least, and '{experiment.data}' has "
                f"{count}",
                "add data, or use fewer rounds",
            )

    def _questions(self, source: DataFile) -> list[Question]:
        return read_questions(source.file, grounding_prompt=grounding_prompt(self.source.model))

    def _drawing(self, folder: str, tiny: TinyQuestions | TinyPages) -> Stage:
        values = asdict(tiny) | {"seed": self.recipe.seed}
        drawn = ["tinydense"] if isinstance(tiny, TinyPages) else []

        def work() -> dict[str, Any]:
            from perpo.tiny.world import write_questions
            from perpo.tiny.world.dense_rows import write_page_questions

            (write_page_questions if drawn else write_questions)(self.output / folder, **values)
            return {}

        return Stage("data", self.output, folder, lambda: values | {"world": tiny_version(drawn)}, work)

    def _sampling(
        self, kind: str, folder: str, experiment: Experiment, source: DataFile, adapter: Path | None, part: int
    ) -> Stage:
        asked, output = self.output / folder / "questions.jsonl", self.output / folder / "preferences.jsonl"
        arguments = sample_arguments(self.recipe, experiment, asked, source.image_root, output, adapter, part)

        def key() -> dict[str, Any]:
            return stage_key(arguments, data_sha256(source.file)) | {"part": f"{part}/{experiment.rounds}"}

        def work() -> dict[str, Any]:
            from perpo.sample.run import run_sampling

            write_jsonl(asked, _part(self._questions(source), part, experiment.rounds))
            if (result := run_sampling(arguments)) is not None:  # of several processes the first one writes
                atomic_write_text(output.with_name("summary.txt"), f"{result.summary}\n")
            return {}

        return Stage(kind, self.output, folder, key, work)

    def _training(self, name: str, folder: str, data: DataFile, adapter: Path | None, part: int) -> Stage:
        experiment, output = self.recipe.experiments[name], self.output / folder
        arguments = train_arguments(self.recipe, experiment, data.file, data.image_root, output, adapter, part)

        def work() -> dict[str, Any]:
            from perpo.train.run import train

            train(arguments)
            return {}

        return Stage("train", self.output, folder, lambda: stage_key(arguments, data_sha256(data.file)), work)

    def _evaluation(self, name: str, adapter: Path | None) -> Stage:
        arguments = evaluate_arguments(self.recipe, name, self.output / "results", adapter)

        def key() -> dict[str, Any]:
            rows = data_version(arguments.data, select_tasks(arguments.suite, arguments.data, arguments.tasks))
            return stage_key(arguments, rows) | {"suite_sha256": suite_sha256()}

        def work() -> dict[str, Any]:
            digest = "base" if arguments.adapter is None else adapter_digest(arguments.adapter)[:24]
            # Equal weights have one journal of answers, whatever the experiments are called.
            with in_turn(self.output / f".evaluate-{digest}.lock", "another evaluation of the same weights"):
                record = runner.evaluate(arguments)
            assert record is not None  # None is for the later ones of several processes
            return {"record": str(record.relative_to(self.output))}

        return Stage("evaluate", self.output, f"{name}/evaluate", key, work)


def _part(questions: list[Question], part: int, parts: int) -> list[Question]:
    """Part `part` (from 1) of `parts` consecutive, nearly equal parts."""
    return questions[len(questions) * (part - 1) // parts : len(questions) * part // parts]
