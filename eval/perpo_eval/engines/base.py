"""The interface of perpo-eval's engines, and the family by which a model's answers are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from perpo.models.checkpoints import model_config, resolve_model
from perpo.models.families import FAMILIES, Family, family_of, unlisted, with_declared
from perpo.records.run_record import ModelInfo
from perpo_eval.engines.responses import Response
from perpo_eval.wanted import EngineWanted, Reading

if TYPE_CHECKING:
    from lmms_eval.api.instance import Instance
    from lmms_eval.api.model import lmms


class EvalEngine(Protocol):
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
        """Return whether an answer depends on what else is in its batch, and batches are made anew alike."""
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


def config_of(wanted: EngineWanted) -> Mapping[str, Any] | None:
    """Return config.json of the checkpoint that our model class loads; None where another engine finds its own.

    Raises:
        PerpoError: There is no such checkpoint.
    """
    return model_config(resolve_model(wanted.checkpoint)) if wanted.own else None


def family_from(reading: Reading, config: Mapping[str, Any] | None) -> Family | None:
    """Return the family that the user names, or that a checkpoint's config.json says, with its boxes as the user
    declares.

    Where neither says it, a declared scale makes one of which nothing else is known. None without that.
    """
    model_type = (config or {}).get("model_type", "")
    if reading.family is not None:
        family = family_of(reading.family)
    elif reading.scale is None and model_type not in FAMILIES:
        return None
    else:
        family = FAMILIES.get(model_type) or unlisted(model_type)
    return with_declared(family, **reading.declared)
