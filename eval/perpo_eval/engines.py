"""What answers: our own model class, or any model that lmms-eval knows."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from perpo.checkpoints import adapter_digest, files_digest, public_name, resolve_model, weights_digest
from perpo.errors import PerpoError
from perpo.families import FAMILIES, Family, family_of
from perpo.nearest import did_you_mean
from perpo.records import ModelInfo
from perpo_eval.responses import Response

if TYPE_CHECKING:
    from lmms_eval.api.instance import Instance
    from lmms_eval.api.model import lmms

    from perpo_eval.cli import EvalArguments


class Engine(Protocol):
    """A model that is ready to answer.

    Attributes:
        model: As lmms-eval has it.
        info: Which weights answer.
        family: What is known of its family; None where that is not known.
        identity: All that its answers depend on beside question, image and token limit.
    """

    model: lmms
    info: ModelInfo
    family: Family | None
    identity: dict[str, Any]

    def stream(self, requests: Sequence[Instance]) -> Iterator[list[tuple[Instance, Response]]]:
        """Answer requests, part by part, as each part is done."""
        ...


@dataclass
class OwnEngine:
    """Our model class; see `Engine`."""

    model: Any
    info: ModelInfo
    family: Family | None
    identity: dict[str, Any]

    def stream(self, requests: Sequence[Instance]) -> Iterator[list[tuple[Instance, Response]]]:
        """Answer requests batch by batch."""
        return self.model.stream(requests)


@dataclass
class LmmsEngine:
    """A model of lmms-eval's; see `Engine`. It is handed a few batches at a time, so that little is lost."""

    model: Any
    info: ModelInfo
    family: Family | None
    identity: dict[str, Any]
    batch_size: int

    def stream(self, requests: Sequence[Instance]) -> Iterator[list[tuple[Instance, Response]]]:
        """Answer requests in parts of a few batches.

        Raises:
            PerpoError: The model gave another number of answers than it was asked for.
        """
        from lmms_eval.api.instance import unwrap_generation_output

        size = 4 * self.batch_size
        for start in range(0, len(requests), size):
            part = list(requests[start : start + size])
            with contextlib.redirect_stdout(sys.stderr):
                said = self.model.generate_until(part)
            if len(said) != len(part):
                raise PerpoError(
                    f"{self.info.engine} gave {len(said)} answers to {len(part)} questions",
                    "use another engine",
                    exit_code=3,
                )
            texts = [unwrap_generation_output(answer) for answer in said]
            yield [
                (request, Response(str(text), tokens_out=counts.output_tokens if counts else None))
                for request, (text, counts) in zip(part, texts, strict=True)
            ]


def check_engine(args: EvalArguments) -> None:
    """Refuse what no engine could run, before anything is loaded.

    Raises:
        PerpoError: An unknown engine, or arguments that it has no use for.
    """
    if args.engine == "perpo":
        if args.model_args:
            raise PerpoError("--model_args is for --engine lmms:<model>", "give --dtype, --device and --batch_size")
        resolve_model(args.model)
        if args.adapter is not None:
            adapter_digest(args.adapter)
        return
    name = _lmms_name(args.engine)
    from lmms_eval.models import AVAILABLE_SIMPLE_MODELS, MODEL_REGISTRY_V2

    try:
        MODEL_REGISTRY_V2.get_manifest(name)
    except Exception:  # what it raises for an unknown name has changed between versions
        raise PerpoError(f"lmms-eval knows no model '{name}'", did_you_mean(name, AVAILABLE_SIMPLE_MODELS)) from None
    if args.adapter is not None:
        raise PerpoError("--adapter is for --engine perpo", "give an lmms-eval model the adapter in --model_args")
    if args.temperature > 0:
        raise PerpoError("--temperature is for --engine perpo", "an lmms-eval model draws as its tasks say")
    if args.dtype != "float32" or args.device is not None:
        raise PerpoError("--dtype and --device are for --engine perpo", "give them in --model_args")


def load_engine(args: EvalArguments) -> Engine:
    """Load what answers.

    Raises:
        PerpoError: The model cannot be loaded.
    """
    return _own(args) if args.engine == "perpo" else _of_lmms_eval(args)


def family_from(args: EvalArguments, directory: Path | None) -> Family | None:
    """The family that the user names, or that a checkpoint's config.json says; None if neither does."""
    if args.family is not None:
        return family_of(args.family)
    if directory is None:
        return None
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return FAMILIES.get(config.get("model_type", ""))


def _own(args: EvalArguments) -> OwnEngine:
    from perpo.checkpoints import local_directory
    from perpo_eval.lmms_model import PerpoModel

    model = PerpoModel(args.model, args.adapter, args.batch_size, args.dtype, args.device or _own_gpu())
    loaded = model.loaded
    directory = local_directory(resolve_model(args.model))
    image_processor = getattr(loaded.processor, "image_processor", None)
    info = ModelInfo(
        id=public_name(args.model),
        family=loaded.family.model_type,
        engine="perpo",
        revision=directory.name if directory.parent.name == "snapshots" else None,
        weights_sha256=loaded.weights_sha256,
        adapter=None if args.adapter is None else public_name(args.adapter),
        adapter_sha256=loaded.adapter_sha256,
        processor=type(image_processor or loaded.processor).__name__,
        processor_sha256=files_digest(_processor_files(directory)),
        dtype=args.dtype,
        attention=loaded.model.config._attn_implementation,
    )
    identity = {
        "engine": "perpo",
        "weights": info.weights_sha256,
        "adapter": info.adapter_sha256,
        # How strongly its weights act.
        "adapter_config": args.adapter and files_digest([Path(args.adapter, "adapter_config.json")]),
        "processor": info.processor_sha256,
        "dtype": args.dtype,
    }
    return OwnEngine(model, info, loaded.family, identity)


def _own_gpu() -> str | None:
    """Of several processes each takes a GPU of its own, as torchrun and accelerate launch number them."""
    import torch

    local = os.environ.get("LOCAL_RANK")
    return f"cuda:{local}" if local is not None and torch.cuda.is_available() else None


def _processor_files(directory: Path) -> list[Path]:
    """Everything that changes what the model reads or how it ends, and is not weights."""
    endings = (".json", ".jinja", ".txt", ".model")
    return sorted(path for path in directory.iterdir() if path.suffix in endings and "index" not in path.name)


def _of_lmms_eval(args: EvalArguments) -> LmmsEngine:
    from lmms_eval.models import get_model

    name = _lmms_name(args.engine)
    given = dict(part.partition("=")[::2] for part in args.model_args.split(",") if part)
    pretrained = given.setdefault("pretrained", resolve_model(args.model))
    text = ",".join(f"{key}={value}" for key, value in given.items())
    with contextlib.redirect_stdout(sys.stderr):
        try:
            kind = get_model(name)
        except ImportError as error:
            raise PerpoError(f"lmms-eval's {name} cannot be imported: {error}", "install what it needs") from error
        model = kind.create_from_arg_string(text, {"batch_size": args.batch_size})
    directory = Path(pretrained) if Path(pretrained, "config.json").is_file() else None
    family = family_from(args, directory)
    weights = None if directory is None else weights_digest(directory)
    shown = args.model if resolve_model(args.model) == pretrained else pretrained
    info = ModelInfo(
        id=public_name(shown),
        family=None if family is None else family.model_type,
        engine=args.engine,
        revision=None,
        weights_sha256=weights,
        adapter=None,
        adapter_sha256=None,
        processor=None,
        processor_sha256=None if directory is None else files_digest(_processor_files(directory)),
        dtype=None,
        attention=None,
    )
    identity = {"engine": args.engine, "arguments": text, "weights": weights, "processor": info.processor_sha256}
    return LmmsEngine(model, info, family, identity, args.batch_size)


def _lmms_name(engine: str) -> str:
    kind, _, name = engine.partition(":")
    if kind != "lmms" or not name:
        raise PerpoError(f"--engine is {engine}; expected perpo or lmms:<model>", "such as lmms:llava_hf")
    return name
