"""The project's own engine: one prefill for all questions about a picture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from perpo.data.images import PICTURES_VERSION
from perpo.models.checkpoints import files_digest, public_name, resolve_model
from perpo.models.families import Family, with_declared
from perpo.records.run_record import ModelInfo
from perpo_eval.engines.base import family_from, processor_files
from perpo_eval.engines.responses import Response
from perpo_eval.wanted import EngineWanted, Reading

if TYPE_CHECKING:
    from lmms_eval.api.instance import Instance


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


def own_engine(wanted: EngineWanted, reading: Reading) -> OwnEngine:
    """Load our model class.

    Raises:
        PerpoError: It cannot be loaded.
    """
    from perpo.models.checkpoints import local_directory
    from perpo.models.loading import chosen_dtype
    from perpo_eval.engines.lmms_model import PerpoModel

    name = wanted.checkpoint
    device = wanted.device or _own_gpu()
    dtype = chosen_dtype(wanted.dtype, device)
    model = PerpoModel(name, wanted.adapter, wanted.questions_at_once, dtype, device)
    loaded = model.loaded
    directory = local_directory(resolve_model(name))
    image_processor = getattr(loaded.processor, "image_processor", None)
    info = ModelInfo(
        id=public_name(name),
        family=loaded.family.model_type,
        engine="perpo",
        revision=directory.name if directory.parent.name == "snapshots" else None,
        weights_sha256=loaded.weights_sha256,
        adapter=None if wanted.adapter is None else public_name(wanted.adapter),
        adapter_sha256=loaded.adapter_sha256,
        processor=type(image_processor or loaded.processor).__name__,
        processor_sha256=files_digest(processor_files(directory)),
        dtype=dtype,
        attention=loaded.model.config._attn_implementation,
    )
    identity = {
        "engine": "perpo",
        "weights": info.weights_sha256,
        "adapter": info.adapter_sha256,
        # How strongly its weights act.
        "adapter_config": wanted.adapter and files_digest([Path(wanted.adapter, "adapter_config.json")]),
        "processor": info.processor_sha256,
        "dtype": dtype,
        "pictures": PICTURES_VERSION,
        "texts": "marks kept",  # which of an answer's tokens its text holds: see perpo.models.control_tokens
    }
    family: Family | None
    if loaded.family.boxes is None:  # its answers are read as the user says
        family = family_from(reading, {"model_type": loaded.family.model_type})
    else:
        family = with_declared(loaded.family, **reading.declared)
    return OwnEngine(model, info, family, identity)


def _own_gpu() -> str | None:
    """Of several processes each takes a GPU of its own, as torchrun and accelerate launch number them."""
    import torch

    local = os.environ.get("LOCAL_RANK")
    return f"cuda:{local}" if local is not None and torch.cuda.is_available() else None
