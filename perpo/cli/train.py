"""perpo-train: train a model on preference records or on answers given."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

from perpo.common.arguments import parse_arguments
from perpo.common.program import quiet_libraries, run_program
from perpo.train.arguments import TrainArguments
from perpo.train.authors.flags import translate

_DESCRIPTION = (
    "Train a vision-language model with LoRA. perpo, lipo, dpo and rft learn from candidates and their "
    "rewards, sft from given answers. lipo is perpo at gamma 0, so all pairs weigh the same; it is not "
    "LiPO-lambda. dpo compares the best candidate of a record with the worst; rft learns from the best. "
    "The projector is trained too. `perpo-train merge --help` tells how to merge an adapter into its base, "
    "`perpo-train export --help` how to write it for LLaVA's own code. "
    "The flags of the authors' command are also accepted; docs/training.md lists them."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Return entry point; returns the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    go_on = "run the same command with --resume_from_checkpoint last to continue from the last checkpoint"
    return run_program(
        _main, words, interrupted="run the same command again" if words[:1] in (["merge"], ["export"]) else go_on
    )


def _main(argv: list[str]) -> None:
    if argv[:1] == ["merge"]:
        _merge(argv[1:])
        return
    if argv[:1] == ["export"]:
        _export(argv[1:])
        return
    seed = translate(argv)
    first = os.environ.get("RANK", "0") == "0"  # torchrun starts several processes, and one of them reports
    for note in seed.notes if first else []:
        print(f"perpo-train: {note}", file=sys.stderr)
    args = parse_arguments(TrainArguments, seed.words, prog="perpo-train", description=_DESCRIPTION)
    quiet_libraries()
    if args.estimate is not None:
        from perpo.cli.estimates import training_estimate

        training_estimate(args, args.estimate).show()
        return
    with redirect_stdout(sys.stderr):  # transformers prints to it if WANDB_MODE is offline
        from perpo.train.authors.checks import check_seed_flags

        check_seed_flags(args, seed.checks)
        from perpo.train.distributed import leave
        from perpo.train.run import train
    from perpo.records.training_record import read_record

    output = train(args)
    leave()
    if not first:
        return
    print(_summary(read_record(output) or {}), file=sys.stderr)
    print(output)


def _merge(argv: list[str]) -> None:
    from perpo.train.outputs import merge as merging

    args = parse_arguments(merging.MergeArguments, argv, prog="perpo-train merge", description=merging.DESCRIPTION)
    quiet_libraries()
    print(merging.merge(args))


def _export(argv: list[str]) -> None:
    from perpo.train.outputs import export as exporting

    args = parse_arguments(
        exporting.ExportArguments, argv, prog="perpo-train export", description=exporting.DESCRIPTION
    )
    quiet_libraries()
    print(exporting.export(args))


def _summary(record: dict[str, Any]) -> str:
    counts = dict(record["data"]["counts"])
    used = f"{counts.pop('lists')} of {counts.pop('records')} records, {counts.pop('candidates')} answers"
    left_out = "".join(f", {name.replace('_', ' ')}: {count}" for name, count in counts.items())
    logged = record["last_log"] or {}
    values = "".join(f", {name} {logged[name]:.4g}" for name in ("loss", "pair_accuracy", "kl") if name in logged)
    best = (record["validation"] or {}).get("best")
    if best is not None:
        values += f", best held-out reward {best['reward']:.4g} at step {best['step']}"
    return f"{used}{left_out}; {record['steps']} steps in {record['duration_s']:.1f} s{values}"


if __name__ == "__main__":
    sys.exit(main())
