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
        memory: Bytes that tensors take at once on one GPU that shares nothing (see `perpo.models.memory`).
        disk: Bytes written.
    """

    tokens: float
    flops: float
    seconds: float | None
    memory: float
    disk: float


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The way in which something is trained, as far as its cost depends on it.

    Attributes:
        epochs: How often each list is learnt.
        whole: Whether all weights of the language model train, in float32, and not LoRA.
        reference: Whether a second pass tells the reference's log-probabilities.
        r: Rank of LoRA.
        again: Whether gradient checkpointing reads each layer a second time.
        kept: How many checkpoints with their optimizer's state lie on the disk at once.
        batch: Lists of a forward pass.
        most: The most tokens of a pass, or None.
        size: Bytes of a number that is computed with: 2 or 4.
        projector: Whether the projector trains.
        projector_lora: Whether it does by LoRA.
        language: Whether the language model does.
        bits: 4 where the base is quantised.
        double_quant: Whether its scales are, too.
        other: Bytes of a second adapter, which is the reference.
    """

    epochs: float = 1.0
    whole: bool = False
    reference: bool = True
    r: int = 128
    again: bool = False
    kept: int = 0
    batch: int = 1
    most: int | None = None
    size: int = 2
    projector: bool = True
    projector_lora: bool = False
    language: bool = True
    bits: int = 16
    double_quant: bool = True
    other: int = 0


def assumed(gpu: Gpu | None) -> list[str]:
    """Return what an estimate takes for granted, a sentence each."""
    told = [
        "Candidates are as long as true answers, and in a batch as long as the longest of those that were measured.",
        "FLOPs leave out norms, activations, resizing of pictures and the optimizer.",
        "Memory is the most that tensors take at once in one process that shares nothing with others. It leaves out "
        "what the libraries and an allocator keep besides (docs/capacity.md).",
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
