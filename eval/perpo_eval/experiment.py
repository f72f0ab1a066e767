"""Run a recipe: draw or read data, sample, train, evaluate, leaderboard; what is done is not done again.

Each stage has a folder and leaves `stage.json` in it when it is done. A run that was cut off
continues: finished stages are skipped, the sampler continues from its journal, training from its
newest checkpoint.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perpo.cli.arguments import arguments_from_mapping
from perpo.cli.sample import SampleArguments
from perpo.data import Question, check_images, read_preferences, read_questions, write_jsonl
from perpo.errors import PerpoError
from perpo.files import atomic_write_text, check_writable
from perpo.nearest import did_you_mean
from perpo.tables import Leaderboard
from perpo.train_arguments import TrainArguments
from perpo_eval.cli import EvalArguments
from perpo_eval.recipe import DataSource, Experiment, Recipe

_STAGE_FILE = "stage.json"


def sample_arguments(
    recipe: Recipe, experiment: Experiment, data: Path, image_root: Path, output: Path, adapter: Path | None, part: int
) -> SampleArguments:
    """Arguments of the sampling stage of round `part`."""
    values = recipe.sample | experiment.sample
    values |= {"model": recipe.model, "adapter": adapter and str(adapter), "seed": recipe.seed * 1000 + part}
    values |= {"questions": str(data), "image_root": str(image_root), "output": str(output)}
    return arguments_from_mapping(SampleArguments, values, f"recipe {recipe.name}: sample")


def train_arguments(
    recipe: Recipe, experiment: Experiment, data: Path, image_root: Path, output: Path, adapter: Path | None, part: int
) -> TrainArguments:
    """Arguments of the training stage of round `part`."""
    values = recipe.train | (experiment.train or {})
    values |= {"model": recipe.model, "adapter": adapter and str(adapter), "seed": recipe.seed}
    values |= {"data": str(data), "image_root": str(image_root), "output_dir": str(output)}
    values |= {"schedule_part": f"{part}/{max(experiment.rounds, 1)}", "resume_from_checkpoint": "last"}
    # What only some methods take may stand in the recipe's common part.
    for name in set(recipe.train) - set(experiment.train or {}):
        if name in _METHOD_ONLY and values.get("method") not in (None, *_METHOD_ONLY[name]):
            del values[name]
    return arguments_from_mapping(TrainArguments, values, f"recipe {recipe.name}: train")


_RANKING = ("dpo", "lipo", "perpo")
_METHOD_ONLY = {"beta": _RANKING, "gamma": ("perpo",), "reference": _RANKING, "num_candidates": (*_RANKING, "rft")}


def evaluate_arguments(recipe: Recipe, name: str, output: Path, adapter: Path | None) -> EvalArguments:
    """Arguments of the evaluation of the experiment called `name`."""
    values = recipe.evaluate | {"model": recipe.model, "adapter": adapter and str(adapter)}
    return arguments_from_mapping(
        EvalArguments, values | {"name": name, "output": str(output)}, f"recipe {recipe.name}: evaluate"
    )


@dataclass(frozen=True)
class Outcome:
    """What a run of a recipe leaves.

    Attributes:
        leaderboard: The compared runs.
        records: Folder of each experiment's run record, by its name.
        seconds: Wall seconds of all stages, by experiment and stage; one that was cut off counts from
            when it went on.
    """

    leaderboard: Leaderboard
    records: dict[str, Path]
    seconds: dict[str, dict[str, float]]


class ExperimentRun:
    """One recipe in one output folder."""

    def __init__(self, recipe: Recipe, output: Path) -> None:
        """Claim the folder, after a look at everything that the recipe names if it is new.

        Raises:
            PerpoError: The folder cannot be written or holds the work of another recipe, seed or setting; or
                the model or the data cannot be used.
        """
        check_writable(output)
        self.recipe, self.output = recipe, output
        self.seconds: dict[str, dict[str, float]] = {}
        mark = output / "recipe.json"
        content = json.dumps({"name": recipe.name, "seed": recipe.seed, "sha256": recipe.sha256()}) + "\n"
        if mark.is_file() and mark.read_text(encoding="utf-8") != content:
            raise PerpoError(
                f"{output} holds the work of another recipe, or of this one with another seed or setting",
                "give another --output_dir, or delete that folder to start over",
            )
        if not mark.is_file():
            self._check_inputs()
        atomic_write_text(mark, content)

    def run(self, names: Sequence[str]) -> Outcome:
        """Run the experiments called `names` and compare them with all others that are done here."""
        from perpo.store import read_run
        from perpo.tables import leaderboard

        if self.recipe.base not in names and self._done(f"{self.recipe.base}/evaluate") is None:
            raise PerpoError(f"'{self.recipe.base}', which all are compared with, has not been run", "add it to --only")
        for name in names:
            self._run_one(name)
        records = {
            name: Path(done["record"]) for name in self.recipe.experiments if (done := self._done(f"{name}/evaluate"))
        }
        runs = {name: read_run(self.output / path) for name, path in records.items()}
        against = self.recipe.against if self.recipe.against in runs else None
        times = {name: self._times(name) for name in runs}
        board = leaderboard(runs, self.recipe.base, against=against, seconds=times)
        return Outcome(board, {name: self.output / path for name, path in records.items()}, times)

    def _check_inputs(self) -> None:
        """Refuse what would stop the run in its middle: the model, the tasks, the data, their images."""
        from perpo_eval.runner import check

        check(evaluate_arguments(self.recipe, self.recipe.base, self.output / "results", None))
        for name, experiment in self.recipe.experiments.items():
            if experiment.data is None:
                continue
            source, needed = self.recipe.data[experiment.data], max(experiment.rounds, 1)
            if source.tiny is not None:
                least, found = "images", source.tiny.images
            else:
                least, found = "questions", _check_file(self.recipe, experiment, source)
            if found < needed:
                raise PerpoError(
                    f"recipe {self.recipe.name}: {name} needs {needed} {least} at least, and '{experiment.data}' has "
                    f"{found}",
                    "give it more data, or fewer rounds",
                )

    def _run_one(self, name: str) -> None:
        experiment = self.recipe.experiments[name]
        adapter: Path | None = None
        if experiment.train is not None and experiment.data is not None:
            data, image_root = self._data(experiment.data)
            for part in range(1, max(experiment.rounds, 1) + 1):
                adapter = self._train_part(name, experiment, data, image_root, adapter, part)
        self._stage(name, "evaluate", f"{name}/evaluate", lambda _: self._evaluate(name, adapter))

    def _train_part(
        self, name: str, experiment: Experiment, data: Path, image_root: Path, adapter: Path | None, part: int
    ) -> Path:
        """Round `part` (or, without rounds, the only one): returns the adapter it ends with."""
        title = f"{name}/round-{part}" if experiment.rounds else f"{name}/train"
        if experiment.rounds:
            sampled = self.output / f"{title}/sample"

            def sample(folder: Path) -> dict[str, Any]:
                from perpo.sampling import run_sampling

                questions = read_questions(data)
                write_jsonl(folder / "questions.jsonl", _part(questions, part, experiment.rounds))
                where = folder / "questions.jsonl", image_root, folder / "preferences.jsonl"
                result = run_sampling(sample_arguments(self.recipe, experiment, *where, adapter, part))
                atomic_write_text(folder / "summary.txt", f"{result.summary}\n")
                return {}

            self._stage(name, "sample", f"{title}/sample", sample)
            data = sampled / "preferences.jsonl"

        def train(folder: Path) -> dict[str, Any]:
            from perpo.trainer import train

            train(train_arguments(self.recipe, experiment, data, image_root, folder, adapter, part))
            return {}

        folder = f"{title}/adapter" if experiment.rounds else title
        self._stage(name, "train", folder, train)
        return self.output / folder

    def _data(self, name: str) -> tuple[Path, Path]:
        """The file of a data set, and the folder that its image paths start from."""
        source: DataSource = self.recipe.data[name]
        if source.file is not None:
            return source.file, source.image_root or source.file.parent
        assert source.tiny is not None  # a source is one of the two
        tiny = asdict(source.tiny)
        folder = self.output / "data" / name

        def draw(_: Path) -> dict[str, Any]:
            from perpo.tiny.world import write_questions

            write_questions(folder, seed=self.recipe.seed, **tiny)
            return {}

        self._stage("data", name, f"data/{name}", draw)
        return folder / "questions.jsonl", folder

    def _evaluate(self, name: str, adapter: Path | None) -> dict[str, Any]:
        from perpo_eval.runner import evaluate

        record = evaluate(evaluate_arguments(self.recipe, name, self.output / "results", adapter))
        return {"record": str(record.relative_to(self.output))}

    def _stage(self, experiment: str, stage: str, folder: str, work: Callable[[Path], dict[str, Any]]) -> None:
        """Do `work` in a folder unless it is done; leave its seconds and what it returns in stage.json."""
        done = self._done(folder)
        if done is None:
            _say(f"{experiment}: {folder.removeprefix(experiment + '/')} ...")
            began = time.monotonic()
            (self.output / folder).mkdir(parents=True, exist_ok=True)
            result = work(self.output / folder)
            done = {"experiment": experiment, "stage": stage, "seconds": round(time.monotonic() - began, 2)} | result
            atomic_write_text(self.output / folder / _STAGE_FILE, json.dumps(done) + "\n")
            _say(f"{experiment}: {folder.removeprefix(experiment + '/')} took {done['seconds']:.1f} s")

    def _done(self, folder: str) -> dict[str, Any] | None:
        file = self.output / folder / _STAGE_FILE
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def _times(self, experiment: str) -> dict[str, float]:
        """Seconds of an experiment's stages, rounds added up."""
        total: dict[str, float] = {}
        for file in sorted((self.output / experiment).rglob(_STAGE_FILE)):
            done = json.loads(file.read_text(encoding="utf-8"))
            total[done["stage"]] = total.get(done["stage"], 0.0) + done["seconds"]
        return {stage: total[stage] for stage in ("sample", "train", "evaluate") if stage in total}


def _check_file(recipe: Recipe, experiment: Experiment, source: DataSource) -> int:
    """Read a data file and decode its images; returns how many records it has."""
    assert source.file is not None
    method = (recipe.train | (experiment.train or {})).get("method", "perpo")
    read = read_questions if experiment.rounds or method == "sft" else read_preferences
    records: Sequence[Question] = read(source.file)
    check_images(records, source.image_root or source.file.parent)
    return len(records)


def choose(recipe: Recipe, only: Sequence[str]) -> list[str]:
    """The experiments to run, in the recipe's order.

    Raises:
        PerpoError: One of `only` is none of the recipe's.
    """
    for name in only:
        if name not in recipe.experiments:
            raise PerpoError(
                f"the recipe {recipe.name} has no experiment '{name}'", did_you_mean(name, recipe.experiments)
            )
    return [name for name in recipe.experiments if name in only or not only]


def _part(questions: list[Question], part: int, parts: int) -> list[Question]:
    """Part `part` (from 1) of `parts` consecutive, nearly equal parts."""
    return questions[len(questions) * (part - 1) // parts : len(questions) * part // parts]


def _say(text: str) -> None:
    print(f"perpo-run: {text}", file=sys.stderr, flush=True)
