"""perpo-sample: sample candidates for questions, reward them, write preference records."""

from __future__ import annotations

import json
import sys
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.common.arguments import next_command, parse_arguments
from perpo.common.processes import Processes, launch
from perpo.common.program import quiet_libraries, run_program
from perpo.models.checkpoints import model_config, resolve_model
from perpo.models.families import FAMILIES
from perpo.records.training_record import read_record
from perpo.sample.arguments import SampleArguments
from perpo.train.arguments import TrainArguments

if TYPE_CHECKING:
    from perpo.sample.run import SamplingRun

DESCRIPTION = (
    "Sample N candidates for each question, reward them, and write preference records. The image and the "
    "prompt are computed once per question. If it was stopped, run the same command again to continue."
)


def _main(argv: list[str]) -> int:
    args = parse_arguments(SampleArguments, argv, prog="perpo-sample", description=DESCRIPTION)
    if args.estimate is not None:
        quiet_libraries()
        from perpo.cli.estimates import sampling_estimate

        sampling_estimate(args, args.estimate).show()
        return 0
    if args.processes > 1 and Processes().size == 1:
        return launch("perpo.cli.sample", argv, args.processes)
    quiet_libraries()
    from perpo.sample.run import run_sampling

    result = run_sampling(args)
    if result is None:  # not the first of several processes
        return 0
    print(result.summary)
    if result.warning is not None:
        print(f"warning: {result.warning}", file=sys.stderr)
    print(f"{result.output} written; {_next_step(args, result)}", file=sys.stderr)
    return 0


def _next_step(args: SampleArguments, result: SamplingRun) -> str:
    if not result.ranks:
        return "in no question do two finished answers have different rewards, so there is nothing to rank"
    stem = result.output.with_suffix("")
    folders = (stem.with_name(f"{stem.name}-adapter{number}") for number in chain([""], (f"-{n}" for n in count(2))))
    train = TrainArguments(
        data=str(result.output),
        image_root=str(result.image_root),
        output_dir=str(next(folder for folder in folders if not folder.exists())),
        model=args.model,
        adapter=args.adapter,
        bf16=None if args.dtype is None else args.dtype == "bfloat16",
        **_start(args),
    )
    return f"to train on it: {next_command('perpo-train', train)}"


def _start(args: SampleArguments) -> dict[str, Any]:
    """What training must be told of the model, and of an adapter that it continues from."""
    config = {} if args.adapter is None else json.loads(Path(args.adapter, "adapter_config.json").read_text())
    told = {f"lora_{name}": config[key] for name, key in (("r", "r"), ("alpha", "lora_alpha")) if key in config}
    known = model_config(resolve_model(args.model)).get("model_type") in FAMILIES
    made = {} if args.adapter is None else (read_record(args.adapter) or {}).get("arguments", {})
    if made.get("projector_lora"):
        told["projector_lora"] = True
    elif not known or (config and not config.get("modules_to_save")):
        told["mm_projector_lr"] = 0.0  # there is none that could be trained
    return told


def main(argv: list[str] | None = None) -> int:
    """Return entry point of the program; returns its exit code."""
    return run_program(_main, argv)


if __name__ == "__main__":
    sys.exit(main())
