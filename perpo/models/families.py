"""Model families: the prompt, how boxes are written, where the parts are, how a prefix is read.

`python -m perpo.models.families_table` prints the table of docs/families.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from perpo.benchmarks.prompts import GROUNDING
from perpo.boxes import BoxFormat, Frame, ImageSize, Order, Resize, Scale, declared
from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError

Prefix = Literal["causal", "mrope", "both_ways"]


@dataclass(frozen=True)
class Family:
    """One row of the table of families.

    Attributes:
        model_type: `model_type` of the checkpoint's config.json.
        example: A checkpoint on the hub; empty for a type that is not in the table.
        vision_tower: Name of the image encoder's module.
        projector: Pattern of the names of the modules that turn image features into tokens; None where not known.
        boxes: How its answers write boxes; None where not known.
        other_frames: Frames that its checkpoints may have been taught instead; accuracy is reported in these too.
        pads_images: Whether its images are padded to a square before its processor sees them.
        most_aspect: The longest image that its processor takes, as its longer side over its shorter one; None for any.
        grounding_prompt: The question that asks for a box, with `{expression}` in it.
        prompt: What the model reads, with `{image}`, `{bos}` and `{question}` in it, where there is no chat
            template; the processor itself adds `{bos}` and the line break at the end.
        answer_separator: What stands between the rendered prompt and the answer, unless the prompt ends in
            white space.
        end_token: What ends an answer; None for the tokenizer's end token.
        prefix: How a prefix is read: `causal` tokens see those before them and positions count tokens;
            `mrope` the same, but images are placed in three dimensions, by the model's `get_rope_index`;
            `both_ways` tokens of the prefix see the whole prefix, and positions count from 1.
        recurrent: Whether some of its layers carry a state in place of keys and values, which no mask keeps apart: its
            candidates are rows of their own, which begin at a copy of what the prefix left.
        language_model: Name of the language model's module.
        linear_layers: Pattern of the last part of its linear layers' names.
    """

    model_type: str
    example: str
    vision_tower: str
    projector: str | None
    boxes: BoxFormat | None
    other_frames: tuple[Frame, ...] = ()
    pads_images: bool = False
    most_aspect: float | None = None
    grounding_prompt: str = GROUNDING
    prompt: str | None = None
    answer_separator: str = " "
    end_token: str | None = None
    prefix: Prefix = "causal"
    recurrent: bool = False
    language_model: str = "language_model"
    linear_layers: str = "(q|k|v|o|gate|up|down)_proj"

    @property
    def box_format(self) -> BoxFormat:
        """Return how its answers write boxes.

        Raises:
            PerpoError: That is not known.
        """
        if self.boxes is None:
            raise PerpoError(
                f"it is not known how the model type '{self.model_type}' writes boxes",
                f"known are {', '.join(FAMILIES)}; tasks without boxes work with any model",
            )
        return self.boxes

    def refuses(self, image_size: ImageSize) -> str | None:
        """Return what its processor has against a picture of (width, height) pixels; None where it takes it."""
        width, height = image_size
        if self.most_aspect is None or max(image_size) <= self.most_aspect * min(image_size):
            return None
        return (
            f"{width} x {height} pixels: for {self.model_type}, the longer side may be at most "
            f"{self.most_aspect:g} times the shorter one; crop or pad the picture"
        )

    @property
    def lora_targets(self) -> str:
        """Pattern of the language model's linear layers, for whole module names, as PEFT matches it."""
        return rf"(.*\.)?{self.language_model}\..*\.{self.linear_layers}"


_JSON_GROUNDING = "Locate {expression}, output its bbox coordinates using JSON format."
_LLAVA: dict[str, Any] = {"vision_tower": "vision_tower", "projector": "multi_modal_projector"}
_GLM: dict[str, Any] = {
    "vision_tower": "visual",
    "projector": r"visual\.merger",
    # zai-org/GLM-V's README: shares of the picture's own width and height, times 1000, in <|begin_of_box|>.
    "boxes": BoxFormat("0-1000"),
    "most_aspect": 200,
    "grounding_prompt": "Help me to locate {expression} in the image and give me its bounding boxes.",
    "prefix": "mrope",
    "linear_layers": "(q|k|v|o|gate_up|down)_proj",
}
_IDEFICS: dict[str, Any] = {
    "vision_tower": "vision_model",
    "projector": "connector",
    "boxes": BoxFormat("0-1"),
    "end_token": "<end_of_utterance>",
    "language_model": "text_model",
}

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in [
        # LLaVA-1.5 was taught on padded squares, and its boxes refer to them; left to itself its
        # Hugging Face processor would cut out the picture's centre.
        Family(
            "llava",
            "llava-hf/llava-1.5-7b-hf",
            **_LLAVA,
            boxes=BoxFormat("0-1", frame="padded"),
            other_frames=("original", "cropped"),
            pads_images=True,
        ),
        # Of these two nobody has said which frame they were taught.
        Family(
            "llava_next",
            "llava-hf/llava-v1.6-vicuna-7b-hf",
            **_LLAVA,
            boxes=BoxFormat("0-1"),
            other_frames=("padded",),
        ),
        Family(
            "llava_onevision",
            "llava-hf/llava-onevision-qwen2-7b-ov-hf",
            **_LLAVA,
            boxes=BoxFormat("0-1"),
            other_frames=("padded",),
        ),
        # Its boxes count pixels of the picture that its processor makes; the bounds are those of the hub's checkpoints.
        Family(
            "qwen2_5_vl",
            "Qwen/Qwen2.5-VL-7B-Instruct",
            vision_tower="visual",
            projector=r"visual\.merger",
            boxes=BoxFormat("pixels", frame="resized", resize=Resize(28, 56 * 56, 28 * 28 * 16384)),
            other_frames=("original",),
            most_aspect=200,
            grounding_prompt=_JSON_GROUNDING,
            prefix="mrope",
        ),
        Family(
            "qwen3_vl",
            "Qwen/Qwen3-VL-8B-Instruct",
            vision_tower="visual",
            projector=r"visual\.(merger|deepstack_merger_list\.\d+)",
            boxes=BoxFormat("0-1000"),
            most_aspect=200,
            grounding_prompt=_JSON_GROUNDING,
            prefix="mrope",
        ),
        # Qwen3.6 and Qwen3.8 have the same architecture. Its authors go on from Qwen3-VL's boxes: QwenLM/Qwen3-VL's
        # README, and QwenLM/Qwen3.8-Flash-Next#4 for all that came later.
        Family(
            "qwen3_5",
            "Qwen/Qwen3.5-9B",
            vision_tower="visual",
            projector=r"visual\.merger",
            boxes=BoxFormat("0-1000"),
            most_aspect=200,
            grounding_prompt=_JSON_GROUNDING,
            prefix="mrope",
            recurrent=True,
            linear_layers="((q|k|v|o|gate|up|down|out)_proj|in_proj_(qkv|z|b|a))",
        ),
        Family(
            "internvl",
            "OpenGVLab/InternVL3-8B-hf",
            **_LLAVA,
            boxes=BoxFormat("0-1000"),
            grounding_prompt=GROUNDING.replace("{expression}", "<ref>{expression}</ref>"),
        ),
        Family("glm4v", "zai-org/GLM-4.1V-9B-Thinking", **_GLM),
        Family("glm46v", "zai-org/GLM-4.6V-Flash", **_GLM),
        # Liquid AI's own recipe for grounding asks so: cookbook/visual-grounding of Liquid4All/leap-finetune. Its
        # processor fails where a picture becomes a line of more than 256 tokens.
        Family(
            "lfm2_vl",
            "LiquidAI/LFM2.5-VL-1.6B",
            **_LLAVA,
            boxes=BoxFormat("0-1"),
            most_aspect=256,
            grounding_prompt='Provide the location as JSON: [{"label": "name", "bbox": [x1, y1, x2, y2]}]. Bounding '
            'box coordinates are normalized between 0 and 1.\n\nIdentify the region of "{expression}" in the image.',
            recurrent=True,
            linear_layers="((q|k|v|in|out)_proj|w[123])",
        ),
        # Nothing is documented of how these two write boxes: they have to be taught LLaVA's form.
        Family("idefics3", "HuggingFaceM4/Idefics3-8B-Llama3", **_IDEFICS),
        Family("smolvlm", "HuggingFaceTB/SmolVLM2-2.2B-Instruct", **_IDEFICS),
        Family(
            "paligemma",
            "google/paligemma2-3b-mix-448",
            **_LLAVA,
            boxes=BoxFormat("bins", "yxyx", "resized"),
            grounding_prompt="detect {expression}",
            prompt="{image}{bos}{question}\n",
            prefix="both_ways",
        ),
    ]
}


def with_bounds(family: Family, image_processor: Mapping[str, Any]) -> Family:
    """Return the family with the bounds that a checkpoint's own image processor resizes pictures to.

    Args:
        family: A family; one whose boxes do not depend on that size is returned as it is.
        image_processor: The settings of the checkpoint's image processor; empty for those of the table.
    """
    if family.boxes is None or family.boxes.resize is None or not image_processor:
        return family
    usual, size = family.boxes.resize, image_processor.get("size") or {}
    patch, merge = image_processor.get("patch_size"), image_processor.get("merge_size")
    resize = Resize(
        patch * merge if patch and merge else usual.factor,
        image_processor.get("min_pixels") or size.get("shortest_edge") or usual.min_pixels,
        image_processor.get("max_pixels") or size.get("longest_edge") or usual.max_pixels,
    )
    return replace(family, boxes=replace(family.boxes, resize=resize))


def unlisted(model_type: str) -> Family:
    """Return a row for a model type that is not in the table, of which no part is known."""
    return Family(model_type, "", vision_tower="", projector=None, boxes=None)


def with_declared(
    family: Family, *, scale: Scale | None = None, order: Order | None = None, frame: Frame | None = None
) -> Family:
    """Return the family with its boxes as the user declares them; a frame that it had is among the others then.

    Args:
        family: A family.
        scale: As for `perpo.boxes.declared`; so are the others.
        order: As there.
        frame: As there.

    Raises:
        PerpoError: As there.
    """
    boxes = declared(family.boxes, scale=scale, order=order, frame=frame)
    if boxes is None or boxes == family.boxes:
        return family
    before = () if family.boxes is None else (family.boxes.frame,)
    others = [name for name in dict.fromkeys((*before, *family.other_frames)) if name != boxes.frame]
    if boxes.scale == "pixels" and boxes.resize is None:
        others = [name for name in others if name != "resized"]  # its size is not known
    return replace(family, boxes=boxes, other_frames=tuple(others))


def family_of(model_type: str) -> Family:
    """Return the row of a model type.

    Args:
        model_type: `model_type` of a checkpoint's config.json.

    Raises:
        PerpoError: Nothing is known of this family.
    """
    if model_type not in FAMILIES:
        raise PerpoError(
            f"the model type '{model_type}' is not in the table of families", did_you_mean(model_type, FAMILIES)
        )
    return FAMILIES[model_type]
