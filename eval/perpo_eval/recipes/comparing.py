"""The end of a recipe's run: its experiments' records compared with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from perpo.errors import PerpoError
from perpo.records.store import read_run
from perpo.results.experiment_table import Leaderboard, leaderboard
from perpo_eval.recipes.recipe import Recipe
from perpo_eval.recipes.stage import Stage, first_to_do, say, seconds_of


class Planned(Protocol):
    """A recipe in its output folder, and the stages of its experiments."""

    recipe: Recipe
    output: Path

    def plan(self, name: str) -> list[Stage]:
        """Return the stages of an experiment, in their order; the last one says where the record is."""


@dataclass(frozen=True)
class Outcome:
    """The result of a run of a recipe.

    Attributes:
        leaderboard: The compared runs.
        records: Folder of each experiment's run record, by its name.
    """

    leaderboard: Leaderboard
    records: dict[str, Path]


def compared(run: Planned, names: Sequence[str]) -> Outcome:
    """Compare the experiments called `names`, which are done, with all others that are done in the same folder."""
    recipe = run.recipe
    records, seconds = {}, {}
    for name in recipe.experiments:
        if name in names or _stands(run, name):
            done = [stage.done() or {} for stage in run.plan(name)]
            records[name] = run.output / done[-1]["record"]
            seconds[name] = seconds_of(done)
    against = recipe.against
    if against is not None and against not in records:
        say(f"'{against}' has not been run, so no experiment is compared with it")
        against = None
    runs = {name: read_run(path) for name, path in records.items()}
    board = leaderboard(runs, recipe.base, against=against, seconds=seconds, benchmark=recipe.benchmark)
    return Outcome(board, records)


def _stands(run: Planned, name: str) -> bool:
    """Whether an experiment is done, and would be made of the same now."""
    try:
        return first_to_do(run.plan(name)) is None
    except PerpoError as error:
        say(f"'{name}' is left out of the leaderboard: {error}")
        return False
