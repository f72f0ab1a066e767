"""perpo.models.families: the table and its errors."""

from __future__ import annotations

import re

import numpy as np
import pytest

from perpo.boxes import parse_box
from perpo.errors import PerpoError
from perpo.models.families import FAMILIES, family_of


def test_llava_as_documented() -> None:
    family = family_of("llava")
    assert (family.box_format.scale, family.box_format.frame) == ("0-1", "padded")
    asked = family.grounding_prompt.format(expression="the cup")
    assert asked == "Please provide the bounding box coordinate of the region this sentence describes: the cup"


def test_prompts_and_boxes_as_documented() -> None:
    """What the families' own documentation shows, read in the form and frame of the table."""
    image = (1000, 500)  # Qwen2.5-VL sees 1008 x 504 of it
    for model_type, asked, said in [
        ("llava_next", "describes: the cup", "[0.10, 0.20, 0.50, 0.60]"),
        ("llava_onevision", "describes: the cup", "[0.10, 0.20, 0.50, 0.60]"),
        ("qwen2_5_vl", "Locate the cup, output", '[{"bbox_2d": [100.8, 100.8, 504, 302.4], "label": "cup"}]'),
        ("qwen3_vl", "Locate the cup, output", '{"bbox_2d": [100, 200, 500, 600]}'),
        ("qwen3_5", "Locate the cup, output", '{"bbox_2d": [100, 200, 500, 600]}'),
        ("glm4v", "locate the cup in", "It is <|begin_of_box|>[[100, 200, 500, 600]]<|end_of_box|>"),
        (
            "glm46v",
            "locate the cup in",
            "<think>[1, 2, 3, 4]?</think><|begin_of_box|>(100,200,500,600)<|end_of_box|>",
        ),
        ("lfm2_vl", 'region of "the cup" in', '[{"label": "cup", "bbox": [0.1, 0.2, 0.5, 0.6]}]'),
        ("internvl", "<ref>the cup</ref>", "<ref>the cup</ref><box>[[100, 200, 500, 600]]</box>"),
        ("idefics3", "describes: the cup", "[0.10, 0.20, 0.50, 0.60]"),
        ("smolvlm", "describes: the cup", "[0.10, 0.20, 0.50, 0.60]"),
        ("paligemma", "detect the cup", "<loc0205><loc0102><loc0614><loc0512> the cup"),
    ]:
        family = family_of(model_type)
        assert asked in family.grounding_prompt.replace("{expression}", "the cup")
        box = parse_box(said, family.box_format, image)
        assert box is not None
        np.testing.assert_allclose(box, [100, 100, 500, 300], atol=0.6)


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
        "model.visual.blocks.0.mlp.gate_proj",
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
