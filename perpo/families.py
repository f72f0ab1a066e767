"""What is known of a model family: its prompt, how it writes boxes, where its parts are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from perpo.boxes import BoxFormat, Frame
from perpo.errors import PerpoError
from perpo.nearest import did_you_mean
from perpo.prompts import GROUNDING

Prefix = Literal["causal", "mrope", "both_ways"]


@dataclass(frozen=True)
class Family:
    """One row of the table of families.

    Attributes:
        model_type: `model_type` of the checkpoint's config.json.
        box_format: How its answers write boxes.
        other_frames: Frames that its checkpoints may have been taught instead; accuracy is reported in these too.
        pads_images: Whether its images are padded to a square before its processor sees them.
        grounding_prompt: The question that asks for a box, with `{expression}` in it.
        answer_separator: What stands between the rendered prompt and the answer.
        projector: Name of the module that turns image features into tokens.
        vision_tower: Name of the image encoder's module.
        lora_targets: Regular expression of the language model's linear layers (matched against
            whole module names, as PEFT does).
        prefix: How a prefix is read: `causal` tokens see those before them and positions count tokens;
            `mrope` the same, but images are placed in three dimensions, by the model's `get_rope_index`;
            `both_ways` tokens of the prefix see the whole prefix, and positions count from 1.
    """

    model_type: str
    box_format: BoxFormat
    other_frames: tuple[Frame, ...]
    pads_images: bool
    grounding_prompt: str
    answer_separator: str
    projector: str
    vision_tower: str
    lora_targets: str
    prefix: Prefix = "causal"


FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in [
        # LLaVA-1.5 was taught on padded squares, and its boxes refer to them; left to itself its
        # Hugging Face processor would cut out the picture's centre.
        Family(
            model_type="llava",
            box_format=BoxFormat(scale="0-1", frame="padded"),
            other_frames=("original", "cropped"),
            pads_images=True,
            grounding_prompt=GROUNDING,
            answer_separator=" ",
            projector="multi_modal_projector",
            vision_tower="vision_tower",
            lora_targets=r".*language_model\..*\.(q|k|v|o|gate|up|down)_proj",
        ),
    ]
}


def family_of(model_type: str) -> Family:
    """The family of a checkpoint.

    Args:
        model_type: `model_type` of its config.json.

    Raises:
        PerpoError: Nothing is known of this family.
    """
    if model_type not in FAMILIES:
        raise PerpoError(f"the model type '{model_type}' is not supported", did_you_mean(model_type, FAMILIES))
    return FAMILIES[model_type]
