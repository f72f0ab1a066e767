"""Costs of a sampling or a training, told from the data and the model's small files before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from perpo.data import image_root_of, read_preferences, read_questions
from perpo.data.images import image_size
from perpo.errors import PerpoError
from perpo.methods import METHODS
from perpo.models.checkpoints import grounding_prompt
from perpo.models.costs import TrainingPlan, WorkCost, assumed, gpu_of, total
from perpo.records.training_record import ADAPTER_WEIGHTS
from perpo.results.text import Text

if TYPE_CHECKING:
    from perpo.models.estimate import Estimator
    from perpo.sample.arguments import SampleArguments
    from perpo.train.arguments import TrainArguments

_SOME = 64
"""So many questions or records are measured, evenly spaced."""


def cost_table(
    title: str, model: Estimator, rows: Mapping[str, tuple[float, WorkCost]], notes: Sequence[str] = ()
) -> Text:
    """Return costs as a table, with what was assumed below.

    Args:
        title: Of the table.
        model: Whose costs they are; it names the GPU.
        rows: Number of questions and cost of each piece of work, by its name.
        notes: What else is to be said.
    """
    body = [[name, f"{count:,.0f}", *_cells(cost)] for name, (count, cost) in rows.items()]
    whole = total(cost for _, cost in rows.values())
    if len(rows) > 1:
        body.append(["all", "", *_cells(whole)])
    sizes = ", ".join(f"{part} {_billions(count)}" for part, count in model.parameters.items() if count)
    told = [f"{model.name}: {_billions(model.total)} billion parameters ({sizes}).", *notes, *assumed(model.gpu)]
    if model.gpu is not None and whole.memory > model.gpu.memory:
        told.append(
            f"Warning: {whole.memory / 1e9:,.0f} GB at least do not fit into the {model.gpu.memory / 1e9:.0f} GB of "
            "one such GPU: share the work out (docs/scale.md), or give smaller batches."
        )
    hours = "hours" if model.gpu is None else f"hours, {model.gpu.name}"
    header = ["stage", "questions", "tokens", "FLOPs", hours, "memory GB", "disk GB"]
    return Text(title, header, body, told, (2,))


def sampling_estimate(args: SampleArguments, gpu: str) -> Text:
    """Return what a call of perpo-sample costs.

    Raises:
        PerpoError: No such GPU or model, or questions or images that cannot be read.
    """
    from perpo.models.estimate import AskedSize, Estimator

    if args.questions in ("tiny", "tiny-pages"):
        raise PerpoError("the tiny questions are drawn when they are sampled", "give a file with --questions")
    model = Estimator(args.model, gpu_of(gpu))
    questions = read_questions(args.questions, grounding_prompt=grounding_prompt(args.model, weights=False))[
        : args.limit
    ]
    root = Path(args.image_root or image_root_of(args.questions))
    some = questions[:: max(1, len(questions) // _SOME)]
    asked = [AskedSize(each.question, image_size(root / each.image_path), each.answer) for each in some]
    load = model.load(asked, len(questions)).cut(args.max_new_tokens)
    cost = model.sampling(
        load,
        args.num_candidates,
        args.batch_size,
        size=number_size(args.dtype),
        nucleus=args.top_p < 1,
        adapter=adapter_size(args.adapter),
    )
    return cost_table(f"Estimate of sampling {args.questions}", model, {"sample": (len(questions), cost)})


def training_estimate(args: TrainArguments, gpu: str) -> Text:
    """Return what a call of perpo-train costs; of records that are all used.

    Raises:
        PerpoError: No such GPU or model, or records or images that cannot be read.
    """
    from perpo.models.estimate import AskedSize, Estimator

    model = Estimator(args.model, gpu_of(gpu))
    method = METHODS[args.method]
    records = read_preferences(args.data)
    root = Path(args.image_root or image_root_of(args.data))
    some = records[:: max(1, len(records) // _SOME)]
    asked = []
    for number, record in enumerate(some):
        said = record.answers_gen or [record.answer]
        asked.append(
            AskedSize(record.question, image_size(root / record.image_path), str(said[number % len(said)] or ""))
        )
    candidates = sum(len(record.answers_gen or [1]) for record in records) / len(records) if method.ranks else 1
    cost = model.training(model.load(asked, len(records)), round(candidates), training_plan(args))
    notes = ["All records are taken to be used: how many are left out is known when they are read for training."]
    return cost_table(f"Estimate of training on {args.data}", model, {"train": (len(records), cost)}, notes)


def training_plan(args: TrainArguments) -> TrainingPlan:
    """Return what a training's cost depends on, by its arguments; in bfloat16 if they do not say, as on a GPU."""
    method = METHODS[args.method]
    second = method.ranks and args.reference != "recorded"
    return TrainingPlan(
        epochs=args.num_train_epochs,
        whole=not args.lora_enable,
        reference=second,
        r=args.lora_r,
        again=args.gradient_checkpointing,
        kept=2 if args.save_steps else 0,
        batch=args.per_device_train_batch_size,
        most=args.max_tokens_per_pass,
        size=4 if args.bf16 is False else 2,
        projector=args.mm_projector_lr > 0,
        projector_lora=args.projector_lora,
        language=not args.projector_only,
        bits=args.bits,
        double_quant=args.double_quant,
        other=adapter_size(args.adapter) if second else 0,
    )


def number_size(dtype: str | None) -> int:
    """Return the bytes of a number of a type; of bfloat16, if none is named, as on a GPU."""
    return 4 if dtype == "float32" else 2


def adapter_size(adapter: str | None) -> int:
    """Return the bytes of an adapter's weights, which are kept in float32 as they are written; 0 without one."""
    file = None if adapter is None else Path(adapter, ADAPTER_WEIGHTS)
    return file.stat().st_size if file is not None and file.is_file() else 0


def _billions(count: int) -> str:
    return f"{count / 1e9:.3g}"


def _cells(cost: WorkCost) -> list[str]:
    hours = "" if cost.seconds is None else f"{cost.seconds / 3600:,.3g}"
    memory = cost.memory / 1e9
    held = f"{memory:,.1f}" if memory >= 10 else f"{memory:.3g}"
    return [f"{cost.tokens:.3g}", f"{cost.flops:.3g}", hours, held, f"{cost.disk / 1e9:,.2f}"]
