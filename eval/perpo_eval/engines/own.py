"""Perpo's own engines (`perpo.engines.choice`) for perpo-eval, with what run records say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from perpo.common.processes import Processes
from perpo.data.images import PICTURES_VERSION
from perpo.engines.choice import load_engine
from perpo.models.checkpoints import public_name, resolve_model, settings_digests
from perpo.models.families import Family, with_declared
from perpo.records.run_record import ModelInfo
from perpo_eval.engines.base import family_from
from perpo_eval.engines.responses import Response
from perpo_eval.wanted import EngineWanted, Reading

if TYPE_CHECKING:
    from lmms_eval.api.instance import Instance


@dataclass
class OwnEngine:
    """Our model class around one of perpo's engines; see `EvalEngine`."""

    model: Any
    info: ModelInfo
    family: Family | None
    identity: dict[str, Any]

    @property
    def by_batch(self) -> bool:
        """See `EvalEngine`."""
        return self.model.engine.info.by_batch

    def stream(
        self, requests: Sequence[Instance], known: Mapping[int, Response] = MappingProxyType({})
    ) -> Iterator[list[tuple[Instance, Response]]]:
        """Answer requests batch by batch."""
        if self.by_batch:
            return self.model.stream(requests, known)
        return self.model.stream([request for request in requests if id(request) not in known])


def own_engine(wanted: EngineWanted, reading: Reading) -> OwnEngine:
    """Load our model class.

    Raises:
        PerpoError: It cannot be loaded.
    """
    from perpo.models.checkpoints import local_directory
    from perpo_eval.engines.lmms_model import PerpoModel

    name = wanted.checkpoint
    device = Processes().device(wanted.device) if wanted.engine == "perpo" else None
    engine = load_engine(
        name, wanted.adapter, dtype=wanted.dtype, device=device, servers=wanted.servers, vllm=wanted.vllm
    )
    model = PerpoModel(engine=engine, batch_size=wanted.questions_at_once)
    answers = engine.info
    directory = local_directory(resolve_model(name), weights=wanted.servers is None)
    settings = settings_digests(directory, wanted.adapter)
    info = ModelInfo(
        id=public_name(name),
        family=None if answers.family is None else answers.family.model_type,
        engine=wanted.engine,
        revision=directory.name if directory.parent.name == "snapshots" else None,
        weights_sha256=answers.weights_sha256,
        adapter=None if wanted.adapter is None else public_name(wanted.adapter),
        adapter_sha256=answers.adapter_sha256,
        processor=answers.processor,
        processor_sha256=settings["processor"],
        dtype=answers.dtype,
        attention=answers.attention,
        served=None if answers.served is None else dict(answers.served),
    )
    identity = {
        "engine": info.engine,
        "weights": info.weights_sha256,
        "adapter": info.adapter_sha256,
        **settings,
        "dtype": info.dtype,
        "pictures": PICTURES_VERSION,
        **({} if answers.served is None else {"served": dict(answers.served)}),
        "texts": "marks kept",  # which of an answer's tokens its text holds: see perpo.models.control_tokens
        **wanted.besides,
    }
    family = answers.family
    if family is None or family.boxes is None:  # its answers are read as the user says
        family = family_from(reading, {} if family is None else {"model_type": family.model_type})
    else:
        family = with_declared(family, **reading.declared)
    return OwnEngine(model, info, family, identity)
