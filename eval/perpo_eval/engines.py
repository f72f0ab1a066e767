"""What answers: our own model class, or any model that lmms-eval knows."""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from perpo.common.hints import did_you_mean
from perpo.common.redact import is_secret, known_secrets, without_secrets
from perpo.data.images import PICTURES_VERSION
from perpo.engines.bodies import limit_bodies
from perpo.errors import PerpoError
from perpo.models.checkpoints import (
    adapter_digest,
    files_digest,
    model_config,
    public_name,
    resolve_model,
    weights_digest,
)
from perpo.models.families import FAMILIES, Family, family_of, unlisted, with_declared
from perpo.records.run_record import ModelInfo
from perpo_eval.arguments import MOST_ERRORS
from perpo_eval.failures import read_answer
from perpo_eval.responses import Response

if TYPE_CHECKING:
    from lmms_eval.api.instance import Instance
    from lmms_eval.api.model import lmms

    from perpo_eval.arguments import EvalArguments


BATCH_SIZE = 16
"""Of our model class; models of lmms-eval's get 1, since some take no more."""

_GONE_AFTER = 3
"""Parts in a row without an answer: a model that is gone is not asked thousands of questions."""
_NAMES = ("pretrained", "model", "model_version")
"""What models of lmms-eval's call the argument that names the weights."""


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

    @property
    def by_batch(self) -> bool:
        """Whether an answer depends on what else is in its batch, and batches are made anew alike."""
        ...

    def stream(
        self, requests: Sequence[Instance], known: Mapping[int, Response] = MappingProxyType({})
    ) -> Iterator[list[tuple[Instance, Response]]]:
        """Answer requests, part by part, as each part is done.

        Args:
            requests: All that belong together.
            known: Answers that there are already, by the requests' `id()`: those are not asked for, but where the
                rest of their batch is.
        """
        ...


@dataclass
class OwnEngine:
    """Our model class; see `Engine`."""

    model: Any
    info: ModelInfo
    family: Family | None
    identity: dict[str, Any]

    @property
    def by_batch(self) -> bool:
        """See `Engine`."""
        return self.info.dtype != "float32"

    def stream(
        self, requests: Sequence[Instance], known: Mapping[int, Response] = MappingProxyType({})
    ) -> Iterator[list[tuple[Instance, Response]]]:
        """Answer requests batch by batch."""
        if self.by_batch:
            return self.model.stream(requests, known)
        return self.model.stream([request for request in requests if id(request) not in known])


@dataclass
class LmmsEngine:
    """A model of lmms-eval's; see `Engine`. It is handed a few batches at a time, so that little is lost."""

    model: Any
    info: ModelInfo
    family: Family | None
    identity: dict[str, Any]
    batch_size: int
    secrets: set[str] = field(default_factory=set, repr=False)
    by_batch = False

    def stream(
        self, requests: Sequence[Instance], known: Mapping[int, Response] = MappingProxyType({})
    ) -> Iterator[list[tuple[Instance, Response]]]:
        """Answer requests in parts of a few batches; what failed is an error, never an answer.

        Raises:
            PerpoError: The model gave another number of answers than it was asked for, or none to three parts in a
                row.
        """
        # What asks a server has calls open at the same time, which one part should keep busy.
        size = max(4 * self.batch_size, *(getattr(self.model, name, 0) for name in ("num_concurrent", "num_cpus")))
        in_vain = 0
        requests = [request for request in requests if id(request) not in known]
        for start in range(0, len(requests), size):
            part = list(requests[start : start + size])
            with contextlib.redirect_stdout(sys.stderr):
                said = self.model.generate_until(part)
            given = sum(answer is not None for answer in said)
            if len(said) != len(part) or given != len(part):  # None stands for one that is lost
                raise PerpoError(
                    f"{self.info.engine} gave {given} answers to {len(part)} questions",
                    "use another engine",
                    exit_code=3,
                )
            answers = [read_answer(answer, self.secrets) for answer in said]
            yield list(zip(part, answers, strict=True))
            in_vain = in_vain + 1 if all(answer.error is not None for answer in answers) else 0
            if in_vain == _GONE_AFTER:
                raise PerpoError(
                    f"{self.info.engine} gives no answers: {answers[-1].error}",
                    "answers so far are kept: see to the model, then run the same command again",
                    exit_code=3,
                )


def check_engine(args: EvalArguments) -> None:
    """Refuse what no engine could run, before anything is loaded.

    Raises:
        PerpoError: An unknown engine, or arguments that it has no use for.
    """
    if args.engine == "perpo":
        if args.model_args:
            raise PerpoError("--model_args is for --engine lmms:<model>", "give --dtype, --device and --batch_size")
        model_type = model_config(resolve_model(args.model or "tiny")).get("model_type", "")
        if args.family is not None and model_type in FAMILIES:
            raise PerpoError("--family is for --engine lmms:<model> and --responses", "a checkpoint says its own")
        if args.max_error_share != MOST_ERRORS:
            raise PerpoError(
                "--max_error_share is for --engine lmms:<model>", "a failure of perpo's engine ends the run"
            )
        if args.adapter is not None:
            adapter_digest(args.adapter)
        return
    name = _lmms_name(args.engine)
    from lmms_eval.models import AVAILABLE_SIMPLE_MODELS, MODEL_REGISTRY_V2

    try:
        MODEL_REGISTRY_V2.get_manifest(name)
    except Exception:  # what it raises for an unknown name has changed between versions
        raise PerpoError(f"lmms-eval knows no model '{name}'", did_you_mean(name, AVAILABLE_SIMPLE_MODELS)) from None
    twice = args.model is not None and "pretrained" in _given(args)
    for flags, given, instead in (
        ("--adapter is", args.adapter is not None, "merge it into its base: perpo-train merge"),
        ("--temperature is", args.temperature > 0, "an lmms-eval model draws as its tasks say"),
        ("--dtype and --device are", args.dtype is not None or args.device is not None, "give them in --model_args"),
        ("--model beside pretrained= is", twice, "give one of the two"),
    ):
        if given:
            raise PerpoError(f"{flags} for --engine perpo", instead)
    for key, value in _given(args).items():
        if Path(value, "adapter_config.json").is_file():
            raise PerpoError(
                f"--model_args {key}={value} is an adapter, and nothing would tell whether {name} loads all of it",
                "merge it into its base (perpo-train merge), and give that as --model",
            )


def load_engine(args: EvalArguments) -> Engine:
    """Load what answers.

    Raises:
        PerpoError: The model cannot be loaded.
    """
    return _own(args) if args.engine == "perpo" else _of_lmms_eval(args)


def family_from(args: EvalArguments, config: Mapping[str, Any] | None) -> Family | None:
    """The family that the user names, or that a checkpoint's config.json says, with its boxes as the user declares.

    Where neither says it, a declared scale makes one of which nothing else is known. None without that.
    """
    model_type = (config or {}).get("model_type", "")
    if args.family is not None:
        family = family_of(args.family)
    elif args.box_scale is None and model_type not in FAMILIES:
        return None
    else:
        family = FAMILIES.get(model_type) or unlisted(model_type)
    return with_declared(family, scale=args.box_scale, order=args.box_order, frame=args.box_frame)


def _own(args: EvalArguments) -> OwnEngine:
    from perpo.models.checkpoints import local_directory
    from perpo.models.loading import chosen_dtype
    from perpo_eval.lmms_model import PerpoModel

    name = args.model or "tiny"
    device = args.device or _own_gpu()
    dtype = chosen_dtype(args.dtype, device)
    model = PerpoModel(name, args.adapter, args.batch_size or BATCH_SIZE, dtype, device)
    loaded = model.loaded
    directory = local_directory(resolve_model(name))
    image_processor = getattr(loaded.processor, "image_processor", None)
    info = ModelInfo(
        id=public_name(name),
        family=loaded.family.model_type,
        engine="perpo",
        revision=directory.name if directory.parent.name == "snapshots" else None,
        weights_sha256=loaded.weights_sha256,
        adapter=None if args.adapter is None else public_name(args.adapter),
        adapter_sha256=loaded.adapter_sha256,
        processor=type(image_processor or loaded.processor).__name__,
        processor_sha256=files_digest(_processor_files(directory)),
        dtype=dtype,
        attention=loaded.model.config._attn_implementation,
    )
    identity = {
        "engine": "perpo",
        "weights": info.weights_sha256,
        "adapter": info.adapter_sha256,
        # How strongly its weights act.
        "adapter_config": args.adapter and files_digest([Path(args.adapter, "adapter_config.json")]),
        "processor": info.processor_sha256,
        "dtype": dtype,
        "pictures": PICTURES_VERSION,
        "texts": "marks kept",  # which of an answer's tokens its text holds: see perpo.models.control_tokens
    }
    family: Family | None
    if loaded.family.boxes is None:  # its answers are read as the user says
        family = family_from(args, {"model_type": loaded.family.model_type})
    else:
        family = with_declared(loaded.family, scale=args.box_scale, order=args.box_order, frame=args.box_frame)
    return OwnEngine(model, info, family, identity)


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

    name, given = _lmms_name(args.engine), _given(args)
    if args.model is not None:
        given["pretrained"] = resolve_model(args.model)
    text = ",".join(f"{key}={value}" for key, value in given.items())
    batch_size = args.batch_size or 1
    with contextlib.redirect_stdout(sys.stderr):
        try:
            kind = get_model(name)
        except ImportError as error:
            raise PerpoError(f"lmms-eval's {name} cannot be imported: {error}", "install what it needs") from error
        model = kind.create_from_arg_string(text, {"batch_size": batch_size})
    limit_bodies(getattr(model, "client", None))
    named = _named(kind, given) or name
    directory, revision = _place(named)
    config = None if directory is None else json.loads((directory / "config.json").read_text(encoding="utf-8"))
    safe = directory is not None and any(directory.glob("*.safetensors"))
    family = family_from(args, config)
    if family is not None and family.box_format.counts_input:
        raise PerpoError(
            f"boxes of {family.model_type} count pixels of the picture that {args.engine} resizes in its own way",
            "use --engine perpo, or declare what they are: --box_frame original if they are scaled back",
        )
    info = ModelInfo(
        id=public_name(args.model or named),
        family=None if family is None else family.model_type or None,
        engine=args.engine,
        revision=revision,
        weights_sha256=weights_digest(directory) if directory is not None and safe else None,
        adapter=None,
        adapter_sha256=None,
        processor=None,
        processor_sha256=None if directory is None else files_digest(_processor_files(directory)),
        dtype=None,
        attention=None,
    )
    # Of a folder (also an adapter's) every file counts. A key may change while a run goes on: answers do not.
    parts = {key: _content(value) for key, value in given.items() if not is_secret(key)}
    identity: dict[str, Any] = {
        "engine": args.engine,
        "arguments": without_secrets(text),
        "content": parts,
        "revision": revision,
        "pictures": PICTURES_VERSION,
    }
    if revision is None and directory is None:
        identity["served"] = _server(model, named)
    else:
        identity["batch_size"] = batch_size
    return LmmsEngine(model, info, family, identity, batch_size, known_secrets(given))


def _named(kind: Any, given: Mapping[str, str]) -> str | None:
    """The weights that a model of lmms-eval's takes, by name: as they are given, else those it takes by default."""
    parameters = inspect.signature(kind.__init__).parameters
    known = [parameters[name].default for name in _NAMES if name in parameters]
    defaults = [value for value in known if isinstance(value, str) and value]
    return next((given[name] for name in _NAMES if given.get(name)), next(iter(defaults), None))


def _server(model: Any, named: str) -> dict[str, str]:
    """Where the answers of weights that are not on this machine come from, and under which name.

    What is neither here nor behind an address is never known to be the same.
    """
    address = getattr(getattr(model, "client", None), "base_url", None) or getattr(model, "base_url", None)
    where = {"run": secrets.token_hex(16)} if address is None else {"address": without_secrets(str(address))}
    return {"name": named} | where


def _given(args: EvalArguments) -> dict[str, str]:
    return dict(part.partition("=")[::2] for part in args.model_args.split(",") if part)


def _place(named: str) -> tuple[Path | None, str | None]:
    """The folder of a model, and its commit if it came from the hub; (None, None) where there is no config.json."""
    if Path(named, "config.json").is_file():
        return Path(named), None
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(named, "config.json")
    except ValueError:  # no name that the hub could have
        return None, None
    return (Path(found).parent, Path(found).parent.name) if isinstance(found, str) else (None, None)


def _content(value: str) -> str | None:
    path = Path(value)
    if path.is_file():
        return files_digest([path])
    return files_digest(sorted(file for file in path.rglob("*") if file.is_file())) if path.is_dir() else None


def _lmms_name(engine: str) -> str:
    kind, _, name = engine.partition(":")
    if kind != "lmms" or not name:
        raise PerpoError(f"--engine is {engine}; expected perpo or lmms:<model>", "such as lmms:llava_hf")
    return name
