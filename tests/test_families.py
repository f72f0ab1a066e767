"""perpo.families: the table and its errors."""

from __future__ import annotations

import re

import pytest

from perpo.errors import PerpoError
from perpo.families import FAMILIES, family_of


def test_llava_as_documented() -> None:
    family = family_of("llava")
    assert (family.box_format.scale, family.box_format.frame) == ("0-1", "padded")
    asked = family.grounding_prompt.format(expression="the cup")
    assert asked == "Please provide the bounding box coordinate of the region this sentence describes: the cup"


def test_lora_is_for_the_language_model_alone() -> None:
    targets = family_of("llava").lora_targets
    layer = "model.language_model.layers.0"
    for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"):
        assert re.fullmatch(targets, f"{layer}.{name}")
    for name in ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"):
        assert re.fullmatch(targets, f"{layer}.{name}")
    for name in (
        "model.vision_tower.vision_model.encoder.layers.0.self_attn.q_proj",
        "model.multi_modal_projector.linear_1",
        f"{layer}.input_layernorm",
        "lm_head",
    ):
        assert not re.fullmatch(targets, name)


def test_each_row_is_under_its_own_name() -> None:
    assert all(name == family.model_type for name, family in FAMILIES.items())


def test_an_unknown_family_is_an_error_with_a_hint() -> None:
    with pytest.raises(PerpoError, match="'lava'") as caught:
        family_of("lava")
    assert caught.value.hint == "did you mean 'llava'?"
