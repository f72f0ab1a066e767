"""Costs of work with a model, and GPUs by name with what their data sheets say. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError

COMPUTE_SHARE = 0.35
"""Share of a GPU's highest rate that reading and training are assumed to reach."""

BANDWIDTH_SHARE = 0.5
"""Share of a GPU's memory bandwidth that writing answers, token by token, is assumed to reach."""


@dataclass(frozen=True)
class Gpu:
    """A GPU, by its data sheet.

    Attributes:
        name: As in `GPUS`.
        flops: Operations a second in bfloat16, dense.
        bandwidth: Bytes a second of its memory.
        memory: Bytes.
    """

    name: str
    flops: float
    bandwidth: float
    memory: float


_ROWS = (
    Gpu("H200", 989e12, 4.8e12, 141e9),
    Gpu("H100", 989e12, 3.35e12, 80e9),
    Gpu("A100-80GB", 312e12, 2.04e12, 80e9),
    Gpu("A100-40GB", 312e12, 1.56e12, 40e9),
    Gpu("L40S", 362e12, 0.86e12, 48e9),
    Gpu("RTX-4090", 165e12, 1.01e12, 24e9),
    Gpu("L4", 121e12, 0.30e12, 24e9),
)
GPUS = {gpu.name: gpu for gpu in _ROWS}
"""By name; NVIDIA's data sheets of the SXM versions where there are several, without sparsity."""


def gpu_of(name: str) -> Gpu:
    """Return the GPU of a name, whatever its capitals.

    Raises:
        PerpoError: None has it.
    """
    by_name = {known.lower(): gpu for known, gpu in GPUS.items()}
    if name.lower() not in by_name:
        raise PerpoError(f"no GPU is known by the name {name}", did_you_mean(name, GPUS))
    return by_name[name.lower()]


@dataclass(frozen=True)
class WorkCost:
    """The cost of a piece of work.

    Attributes:
        tokens: Read and written, in the language model.
        flops: Of all passes.
        seconds: On one GPU; None where none is named.
        memory: Bytes at least: weights, optimizer, and what is kept of a batch in sampling; no activations.
        disk: Bytes written.
    """

    tokens: float
    flops: float
    seconds: float | None
    memory: float
    disk: float


def assumed(gpu: Gpu | None) -> list[str]:
    """Return what an estimate takes for granted, a sentence each."""
    told = [
        "Candidates are as long as true answers, and in a batch as long as the longest of those that were measured.",
        "FLOPs leave out norms, activations, resizing of pictures and the optimizer.",
        "Memory leaves out activations, which depend on batches and gradient checkpointing.",
    ]
    if gpu is None:
        return told
    return [
        *told,
        f"Hours are for one {gpu.name}: {gpu.flops / 1e12:,.0f} TFLOP/s in bfloat16 without sparsity and "
        f"{gpu.bandwidth / 1e12:.2f} TB/s by its data sheet, of which {COMPUTE_SHARE:.0%} and {BANDWIDTH_SHARE:.0%} "
        "are reached. These shares are assumed and were measured on no GPU.",
    ]


def total(costs: Iterable[WorkCost]) -> WorkCost:
    """Return the sum of costs; of their memory the largest."""
    each = list(costs)
    seconds = [cost.seconds for cost in each]
    return WorkCost(
        sum(cost.tokens for cost in each),
        sum(cost.flops for cost in each),
        None if None in seconds else float(sum(value for value in seconds if value is not None)),
        max((cost.memory for cost in each), default=0.0),
        sum(cost.disk for cost in each),
    )
