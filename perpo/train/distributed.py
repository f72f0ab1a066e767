"""Several processes that train one model: DDP, or DeepSpeed's ZeRO. Every function here is called by all of them."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.utils.data import Sampler

from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError

_CONFIGS = Path(__file__).parent / "deepspeed_configs"


def deepspeed_config(name: str) -> dict[str, Any]:
    """Return DeepSpeed's settings from a JSON file, or those of a shipped configuration; a new copy each time.

    Args:
        name: A path, or one of the files' names in perpo/train/deepspeed_configs, without its ending.

    Raises:
        PerpoError: There is no such file or it is no JSON object; it names an optimizer or a schedule,
            which are perpo's; or DeepSpeed is not installed.
    """
    shipped = sorted(path.stem for path in _CONFIGS.glob("*.json"))
    path = _CONFIGS / f"{name}.json" if name in shipped else Path(name)
    if not path.is_file():
        hint = did_you_mean(name, shipped) if "/" not in name else f"shipped are {', '.join(shipped)}"
        raise PerpoError(f"there is no DeepSpeed configuration {name}", hint)
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise PerpoError(f"{path} is not JSON: {error}", "see perpo/train/deepspeed_configs for examples") from error
    if not isinstance(config, dict):
        raise PerpoError(f"{path} does not hold a JSON object", "see perpo/train/deepspeed_configs for examples")
    for part in ("optimizer", "scheduler"):
        if part in config:
            raise PerpoError(
                f"the DeepSpeed configuration {path} has its own {part}, and perpo-train has another",
                f"remove {part} from the file; set it with flags of perpo-train, such as --learning_rate",
            )
    if find_spec("deepspeed") is None:
        raise PerpoError("--deepspeed needs DeepSpeed, which is not installed", "pip install 'perpo[deepspeed]'")
    return config


@contextmanager
def processes(uses_deepspeed: bool) -> Iterator[None]:
    """Within it this process and those that a launcher started beside it know each other.

    Without a launcher DeepSpeed, which cannot do without others, is given this one process alone.
    """
    if not uses_deepspeed:
        yield
        return
    alone = "RANK" not in os.environ
    cuda = torch.cuda.is_available()
    own = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"} if alone else {}
    if alone:
        own["MASTER_PORT"] = str(_free_port())
    if not cuda:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.update(own)
    import deepspeed

    try:
        if not distributed.is_initialized():
            deepspeed.init_distributed(dist_backend="nccl" if cuda else "gloo", verbose=False)
        yield
    finally:
        os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)  # which TrainingArguments sets for good
        for name in own:
            del os.environ[name]


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def leave() -> None:
    """Part from the other processes at the end; one that just exits may tear the others' connections."""
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def world_size() -> int:
    """Return how many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def summed(values: Tensor) -> Tensor:
    """Return the sum of all processes' values (any shape, the same everywhere)."""
    if world_size() > 1:
        values = values.clone()
        distributed.all_reduce(values)
    return values


def nanmeans(metrics: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Return means of each metric over all processes' lists; NaN does not count, and what is nothing else is left out.

    Args:
        metrics: For each batch the metrics of its lists, (B,) each.
    """
    names = list(metrics[0])
    columns = [torch.cat([each[name] for each in metrics]).double() for name in names]
    sums = torch.stack([torch.stack([column.nansum(), (~column.isnan()).sum()]) for column in columns])
    totals = summed(sums).tolist()
    return {name: total / count for name, (total, count) in zip(names, totals, strict=True) if count}


class Filled(Sampler[int]):
    """An order, filled up so that all processes get whole batches; the same in each of them.

    Places from the dataset's length on are what fills up: `ListDataset` has a list there that counts nothing.

    Args:
        order: The order; its `set_epoch` is called.
        multiple: How many lists the processes' batches hold together.
    """

    def __init__(self, order: Any, multiple: int) -> None:
        self.order = order
        self.multiple = multiple

    def __iter__(self) -> Iterator[int]:
        yield from self.order
        yield from range(len(self.order), len(self))

    def __len__(self) -> int:
        return -(-len(self.order) // self.multiple) * self.multiple

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate before each epoch."""
        self.order.set_epoch(epoch)


def full_weights(parameters: Iterable[tuple[str, nn.Parameter]]) -> dict[str, Tensor]:
    """Return parameters that DeepSpeed has parted, whole, on the CPU; trained ones in float32, as its optimizer keeps
    them.

    Args:
        parameters: Names and parameters, in the same order everywhere.

    Returns:
        By name; empty but in the first process.
    """
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param

    weights = {}
    for name, parameter in parameters:
        weight = safe_get_full_fp32_param(parameter) if parameter.requires_grad else None
        with deepspeed.zero.GatheredParameters(parameter, enabled=weight is None and hasattr(parameter, "ds_id")):
            if distributed.get_rank() == 0:
                weights[name] = (parameter if weight is None else weight).detach().cpu().clone()
    return weights
