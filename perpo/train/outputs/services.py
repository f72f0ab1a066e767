"""W&B and the hub: asked only where the arguments say so, and checked before anything expensive. Needs no torch."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from perpo.errors import PerpoError
from perpo.models.hub import first_line
from perpo.records.training_record import TRAINING_FILE, public_record
from perpo.train.arguments import TrainArguments

_NOT_UPLOADED = {TRAINING_FILE, "probe.parquet"}  # the first goes without its paths; the second holds training data


def check_services(args: TrainArguments) -> None:
    """See that W&B and the hub can be used, if they are to be; the hub's repository is made if need be.

    Raises:
        PerpoError: One of them cannot be used.
    """
    if args.report_to == "wandb":
        _check_wandb()
    if args.push_to_hub:
        _check_hub(str(args.hub_model_id))


def start_wandb(args: TrainArguments, stack: ExitStack) -> None:
    """Begin a W&B run in the output directory; transformers' callback logs to it, and the stack ends it."""
    import wandb

    wandb.init(
        project=os.environ.get("WANDB_PROJECT", "perpo"),
        name=args.run_name or Path(args.output_dir).name,
        dir=args.output_dir,
        settings=wandb.Settings(console="off", silent=True),
    )
    stack.callback(wandb.finish)


def push(args: TrainArguments, record: Mapping[str, Any]) -> None:
    """Upload the files of a finished run (neither checkpoints nor training data) in one commit.

    Raises:
        PerpoError: The hub did not take them.
    """
    from huggingface_hub import CommitOperationAdd

    output = Path(args.output_dir)
    files = [path for path in sorted(output.iterdir()) if path.is_file() and not path.name.startswith(".")]
    operations = [
        CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path)
        for path in files
        if path.name not in _NOT_UPLOADED
    ]
    text = json.dumps(public_record(record), indent=2) + "\n"
    operations.append(CommitOperationAdd(path_in_repo=TRAINING_FILE, path_or_fileobj=text.encode()))
    try:
        _hub().create_commit(str(args.hub_model_id), operations, commit_message="Upload a perpo-train run")
    except Exception as error:  # the library raises many kinds
        raise PerpoError(
            f"the training in {output} is complete, but the upload to the hub failed: {first_line(error)}",
            "run the same command with --resume_from_checkpoint last to upload it again",
            exit_code=3,
        ) from error


def _check_wandb() -> None:
    if importlib.util.find_spec("wandb") is None:
        raise PerpoError("--report_to wandb needs wandb, which is not installed", "pip install 'perpo[wandb]'")
    if os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled"):
        return
    import wandb

    if not wandb.api.api_key:
        raise PerpoError(
            "--report_to wandb needs a key of W&B, and none was found",
            "set WANDB_API_KEY, or WANDB_MODE=offline",
        )


def _check_hub(repository: str) -> None:
    if not os.environ.get("HF_TOKEN"):
        raise PerpoError(
            "--push_to_hub needs a token of the hub in HF_TOKEN",
            "make a token that may write, and export it as HF_TOKEN",
        )
    try:
        _hub().create_repo(repository, private=True, exist_ok=True)
    except Exception as error:  # the library raises many kinds
        raise PerpoError(
            f"nothing can be uploaded to {repository}: {first_line(error)}",
            "check --hub_model_id, the network, and that the token may write",
        ) from error


def _hub() -> Any:
    from huggingface_hub import HfApi

    return HfApi(token=os.environ["HF_TOKEN"])
