"""lmms-eval's models as engines."""

from __future__ import annotations

import contextlib
import inspect
import json
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from perpo.common.redact import is_secret, known_secrets, without_secrets
from perpo.data.images import PICTURES_VERSION
from perpo.engines.bodies import limit_bodies
from perpo.errors import PerpoError
from perpo.models.checkpoints import files_digest, processor_files, public_name, resolve_model
from perpo.models.families import Family
from perpo.models.original import with_hugging_face_type
from perpo.records.run_record import ModelInfo
from perpo_eval.engines.base import family_from
from perpo_eval.engines.failures import read_answer
from perpo_eval.engines.responses import Response
from perpo_eval.wanted import EngineWanted, Reading

if TYPE_CHECKING:
    from lmms_eval.api.instance import Instance

_GONE_AFTER = 3
"""Parts in a row without an answer: a model that is gone is not asked thousands of questions."""

_NAMES = ("pretrained", "model", "model_version")
"""What models of lmms-eval's call the argument that names the weights."""


@dataclass
class LmmsEngine:
    """A model of lmms-eval's; see `EvalEngine`. It is handed a few batches at a time, so that little is lost."""

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
                    "answers so far are kept: check the model, then run the same command again",
                    exit_code=3,
                )


def lmms_engine(wanted: EngineWanted, reading: Reading) -> LmmsEngine:
    """Load a model of lmms-eval's.

    Raises:
        PerpoError: It cannot be loaded.
    """
    name, given = lmms_name(wanted.engine), wanted.given_to_model
    if wanted.model is not None:
        given["pretrained"] = resolve_model(wanted.model)
    text = ",".join(f"{key}={value}" for key, value in given.items())
    batch_size = wanted.questions_at_once
    with contextlib.redirect_stdout(sys.stderr):
        kind = _model_class(name)
        model = kind.create_from_arg_string(text, {"batch_size": batch_size})
    limit_bodies(getattr(model, "client", None))
    named = _named(kind, given) or name
    directory, revision = _place(named)
    config = None if directory is None else json.loads((directory / "config.json").read_text(encoding="utf-8"))
    weights = [] if directory is None else sorted(directory.glob("*.safetensors"))
    # Original LLaVA checkpoints may say "llava" whatever they are; their boxes differ.
    family = family_from(reading, None if config is None else with_hugging_face_type(config))
    if family is not None and family.box_format.counts_input:
        raise PerpoError(
            f"boxes of {family.model_type} count pixels of the resized picture, but {wanted.engine} resizes "
            "pictures in its own way",
            "use --engine perpo. If the model scales its boxes back, give --box_frame original",
        )
    info = ModelInfo(
        id=public_name(wanted.model or named),
        family=None if family is None else family.model_type or None,
        engine=wanted.engine,
        revision=revision,
        weights_sha256=files_digest(weights) if weights else None,
        adapter=None,
        adapter_sha256=None,
        processor=None,
        processor_sha256=None if directory is None else files_digest(processor_files(directory)),
        dtype=None,
        attention=None,
    )
    # Of a folder (also an adapter's) every file counts. A key may change while a run goes on: answers do not.
    parts = {key: _content(value) for key, value in given.items() if not is_secret(key)}
    identity: dict[str, Any] = {
        "engine": wanted.engine,
        "arguments": without_secrets(text),
        "content": parts,
        "revision": revision,
        "pictures": PICTURES_VERSION,
        **wanted.besides,
    }
    if revision is None and directory is None:
        identity["served"] = _server(model, named)
    else:
        identity["batch_size"] = batch_size
    return LmmsEngine(model, info, family, identity, batch_size, known_secrets(given))


def _model_class(name: str) -> Any:
    from lmms_eval.models import get_model

    try:
        return get_model(name)
    except ImportError as error:
        raise PerpoError(
            f"lmms-eval's {name} cannot be imported: {error}", "install the packages that it needs"
        ) from error


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


def _place(named: str) -> tuple[Path | None, str | None]:
    """The folder of a model, and its commit if it came from the hub; (None, None) where there is no config.json."""
    if Path(named, "config.json").is_file():
        return Path(named), None
    from huggingface_hub import try_to_load_from_cache

    try:
        cached_file = try_to_load_from_cache(named, "config.json")
    except ValueError:  # no name that the hub could have
        return None, None
    return (Path(cached_file).parent, Path(cached_file).parent.name) if isinstance(cached_file, str) else (None, None)


def _content(value: str) -> str | None:
    path = Path(value)
    if path.is_file():
        return files_digest([path])
    return files_digest(sorted(file for file in path.rglob("*") if file.is_file())) if path.is_dir() else None


def lmms_name(engine: str) -> str:
    """Return which of lmms-eval's models --engine names."""
    kind, _, name = engine.partition(":")
    if kind != "lmms" or not name:
        raise PerpoError(f"--engine is {engine}; expected perpo or lmms:<model>", "such as lmms:llava_hf")
    return name
