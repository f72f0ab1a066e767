"""perpo-run: a whole experiment from one recipe; perpo-demo: the shipped tiny one."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from perpo.common.arguments import arg, find_program, next_command, parse_arguments
from perpo.common.files import atomic_write_text
from perpo.common.numbers import Count, Seed32
from perpo.common.processes import cores
from perpo.common.program import quiet_libraries, run_program
from perpo.sample.arguments import SampleArguments
from perpo_eval.arguments import EvalArguments

if TYPE_CHECKING:
    from perpo_eval.recipes.stage import Stage

_DEMO_EXPERIMENTS = {"grounding": ["base", "sft-loose", "dpo", "perpo"], "ocr": []}
"""Of each task's recipe, what the demo runs; all of it where none is named."""


_MOST_JOBS = 4
"""By default the demo's processes are no more: each needs memory for libraries and a model."""


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """The arguments of perpo-run besides the recipe."""

    recipe: str = arg(help="YAML file, or the name of a shipped recipe; may be the first word, without --recipe")
    output_dir: str | None = arg(None, "output folder of all stages (default: runs/<recipe>-seed<seed>)")
    seed: Seed32 | None = arg(None, "seed, from 0 to 2^32 - 1 (default: the seed of the recipe)")
    only: list[str] = arg([], "experiments to run now (default: all); the leaderboard shows all finished ones")
    jobs: Count = arg(
        1,
        "how many experiments run side by side, each in a process with its share of the cores, or with a GPU of its "
        "own. Numbers are those of one job with as many threads (OMP_NUM_THREADS)",
    )
    json: bool = arg(False, "print the leaderboard as JSON instead of the table")
    estimate: str | None = arg(
        None,
        "name of a GPU, such as H100: print what each stage costs (tokens, FLOPs, hours, memory, disk), told from the "
        "model's small files and the data alone, and run nothing",
    )
    dry_run: bool = arg(False, "print the stages and which are done, and check everything, but run nothing")


@dataclass(frozen=True, kw_only=True)
class DemoArguments:
    """The arguments of perpo-demo."""

    task: Literal["grounding", "ocr"] = arg(
        "grounding", "grounding, or ocr (dense pages; about nine minutes on 2 cores)"
    )
    quick: bool = arg(False, "a smaller version of one to three minutes, with fewer questions, rounds and test rows")
    output_dir: str | None = arg(None, "output folder of all stages (default: runs/<recipe>-seed<seed>)")
    seed: Seed32 | None = arg(None, "seed, from 0 to 2^32 - 1 (default: the seed of the recipe)")
    jobs: Count | None = arg(
        None,
        "how many experiments run side by side, each with one thread, so that their number changes no result (default: "
        f"one a core, or one a GPU, {_MOST_JOBS} at most)",
    )
    json: bool = arg(False, "print the leaderboard as JSON instead of the table")


def main(argv: list[str] | None = None) -> int:
    """Run perpo-run."""
    return run_program(_main, argv)


def demo_main(argv: list[str] | None = None) -> int:
    """Run perpo-demo."""
    return run_program(_demo, argv)


def _main(argv: list[str]) -> None:
    words = ["--recipe", *argv] if argv and not argv[0].startswith("-") else argv
    _run(
        parse_arguments(
            RunArguments,
            words,
            prog="perpo-run",
            description="Run a whole experiment from one recipe: sample, train, evaluate, leaderboard. Run it again to "
            "continue: finished stages are skipped.",
        )
    )


def _demo(argv: list[str]) -> None:
    args = parse_arguments(
        DemoArguments,
        argv,
        prog="perpo-demo",
        description="Run the method on the embedded tiny world in minutes: perpo-run with the shipped recipe.",
    )
    from perpo_eval.recipes.jobs import gpus

    recipe = ("tiny" if args.task == "grounding" else "tiny-ocr") + ("-quick" if args.quick else "")
    only = _DEMO_EXPERIMENTS[args.task]
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the last bits of sums depend on how many threads share them
    jobs = args.jobs or min(len(gpus()) or cores(), _MOST_JOBS)
    _run(RunArguments(recipe=recipe, output_dir=args.output_dir, seed=args.seed, only=only, jobs=jobs, json=args.json))


def _run(args: RunArguments) -> None:
    began = time.monotonic()
    from perpo_eval.recipes.experiment import ExperimentRun
    from perpo_eval.recipes.jobs import check_jobs
    from perpo_eval.recipes.reading import find_recipe, read_recipe
    from perpo_eval.recipes.recipe import choose

    if args.jobs > 1:
        check_jobs(args.jobs)
    recipe = read_recipe(find_recipe(args.recipe), seed=args.seed)
    names = choose(recipe, args.only)
    output = Path(args.output_dir or f"runs/{recipe.name}-seed{recipe.seed}")
    run = ExperimentRun(recipe, output)
    if args.dry_run:
        for name in names:
            print(f"{name}: {', '.join(_title(stage, name) for stage in run.plan(name))}")
        run.check(names)
        return
    quiet_libraries()
    if args.estimate is not None:
        from perpo_eval.recipes.estimating import RecipeEstimate

        RecipeEstimate(run, args.estimate).table(names).show()
        return
    outcome = run.run(names, args.jobs)
    table = outcome.leaderboard.text()
    if args.json:
        print(json.dumps(outcome.leaderboard.as_json()))
    else:
        table.show()
        if recipe.note:
            print(recipe.note)
    atomic_write_text(output / "leaderboard.md", f"{table.markdown()}\n{recipe.note}\n")
    atomic_write_text(output / "leaderboard.json", json.dumps(outcome.leaderboard.as_json(), indent=1) + "\n")
    again = RunArguments(recipe=args.recipe, seed=recipe.seed, output_dir=str(output))
    print(f"all of it took {time.monotonic() - began:.0f} s", file=sys.stderr)
    _say_what_next(
        again, recipe.model, output, [name for name in recipe.experiments if run.plan(name)[-1].done() is None]
    )


def _title(stage: Stage, experiment: str) -> str:
    return stage.name.removeprefix(f"{experiment}/") + (" (done)" if stage.done() else "")


def _say_what_next(again: RunArguments, model: str, output: Path, rest: list[str]) -> None:
    pages = model == "tiny-ocr"
    own = EvalArguments(model=model, suite="ocr" if pages else "grounding", limit=20)
    dashboard = shlex.join([find_program("perpo-dashboard"), "--results", str(output)])
    candidates = SampleArguments(output="candidates.jsonl", num_candidates=12, limit=50)
    if pages:
        candidates = replace(candidates, model=model, questions="tiny-pages", reward="edit", max_new_tokens=240)
    lines = [
        f"The run records are in {output / 'results'}, the leaderboard in {output / 'leaderboard.md'}. Try next:",
        f"  {next_command('perpo-run', replace(again, only=rest))}   # the recipe's other experiments"
        if rest
        else f"  {next_command('perpo-run', replace(again, json=True))}   # the same numbers for a machine",
        f"  {next_command('perpo-eval', own)}   # or your model: --model, --adapter",
        f"  {next_command('perpo-sample', candidates)}",
        f"  {dashboard}   # look at all of it in a browser",
    ]
    print("\n".join(lines), file=sys.stderr)
