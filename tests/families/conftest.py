"""A random checkpoint of every architecture, as small as it gets, with its real processor."""

from __future__ import annotations

import copy
import gc
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    Gemma2Config,
    GemmaConfig,
    Glm4vConfig,
    Glm4vImageProcessor,
    Glm4vProcessor,
    Glm4vVideoProcessor,
    Glm46VConfig,
    Glm46VImageProcessor,
    Glm46VProcessor,
    Glm46VVideoProcessor,
    GotOcr2ImageProcessor,
    Idefics3Config,
    Idefics3ImageProcessor,
    Idefics3Processor,
    InternVLConfig,
    InternVLProcessor,
    InternVLVideoProcessor,
    Lfm2Config,
    Lfm2VlConfig,
    Lfm2VlImageProcessor,
    Lfm2VlProcessor,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    LlavaOnevisionConfig,
    LlavaOnevisionImageProcessor,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    PaliGemmaConfig,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2Config,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    Qwen3_5Config,
    Qwen3VLConfig,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    Siglip2VisionConfig,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMImageProcessor,
    SmolVLMProcessor,
    SmolVLMVideoProcessor,
)

from perpo.models.loaded import LoadedModel
from perpo.models.loading import load_model
from perpo.tiny.model import ModelShape, new_model, new_processor, new_tokenizer

TILE, PATCH, WIDTH = 32, 8, 32
PATCHES = (TILE // PATCH) ** 2
CONTEXT = 512
GRID = [[TILE, 2 * TILE], [2 * TILE, TILE], [2 * TILE, 2 * TILE]]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VICUNA = (
    "{% for m in messages %}USER: {% for part in m['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
IDEFICS = (
    "<|im_start|>{% for m in messages %}{{ m['role'] | capitalize }}:{% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
CORPUS = ["USER: ASSISTANT: where is the red cup? detect find it left"] * 2
_TOKENIZERS: dict[str, Any] = {}


def tokenizer(*special: str, eos: str = "</s>", named: dict[str, str] | None = None) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer with further special tokens; `named` become attributes such as `start_image_token`."""
    if not _TOKENIZERS:
        _TOKENIZERS["base"] = new_tokenizer(CORPUS)
    return PreTrainedTokenizerFast(
        tokenizer_object=copy.deepcopy(_TOKENIZERS["base"]._tokenizer),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token=eos,
        pad_token="<pad>",
        additional_special_tokens=["<image>", *special],
        **({"extra_special_tokens": named} if named else {}),
    )


def text(config: type = LlamaConfig, **settings: Any) -> Any:
    """A language model's config; `vocab_size` is set when the processor is known."""
    sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": CONTEXT}
    return config(**sizes | heads | {"pad_token_id": 3, "bos_token_id": 1, "eos_token_id": 2} | settings)


def vision(config: type, **settings: Any) -> Any:
    sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
    return config(**sizes | {"image_size": TILE, "patch_size": PATCH} | settings)


def llava_next() -> tuple[Any, Any]:
    """CLIP and Llama, as LLaVA-1.6 with Vicuna."""
    images = LlavaNextImageProcessor(
        size={"shortest_edge": TILE}, crop_size={"height": TILE, "width": TILE}, image_grid_pinpoints=GRID
    )
    processor = LlavaNextProcessor(
        images, tokenizer(), PATCH, "default", chat_template=VICUNA, num_additional_image_tokens=1
    )
    config = LlavaNextConfig(
        vision_config=vision(CLIPVisionConfig),
        text_config=text(),
        vision_feature_layer=-1,
        image_grid_pinpoints=GRID,
        image_seq_length=PATCHES,
    )
    return config, processor


def llava_next_ocr() -> tuple[Any, Any]:
    """SigLIP and Qwen2, as the paper's OCR models."""
    images = LlavaNextImageProcessor(
        size={"shortest_edge": TILE}, crop_size={"height": TILE, "width": TILE}, image_grid_pinpoints=GRID
    )
    template = CHATML.replace("IMAGE", "<image>\n")
    processor = LlavaNextProcessor(
        images, tokenizer("<|im_start|>", "<|im_end|>", eos="<|im_end|>"), PATCH, "full", chat_template=template
    )
    config = LlavaNextConfig(
        vision_config=vision(SiglipVisionConfig),
        text_config=text(Qwen2Config),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_grid_pinpoints=GRID,
    )
    return config, processor


def llava_onevision() -> tuple[Any, Any]:
    """SigLIP and Qwen2."""
    images = LlavaOnevisionImageProcessor(size={"height": TILE, "width": TILE}, image_grid_pinpoints=GRID)
    words = tokenizer("<video>", "<|im_start|>", "<|im_end|>", eos="<|im_end|>")
    template = CHATML.replace("IMAGE", "<image>\n")
    processor = LlavaOnevisionProcessor(
        images, words, LlavaOnevisionVideoProcessor(), PATCHES, "full", template, vision_aspect_ratio="anyres_max_9"
    )
    config = LlavaOnevisionConfig(
        vision_config=vision(SiglipVisionConfig, vision_use_head=False),
        text_config=text(Qwen2Config),
        video_token_index=words.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=GRID,
    )
    return config, processor


def qwen(processor: type, videos: type, factor: int) -> Any:
    words = tokenizer(
        *["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"],
        *["<|object_ref_start|>", "<|object_ref_end|>", "<|box_start|>", "<|box_end|>", "<|endoftext|>"],
        eos="<|im_end|>",
    )
    pixels = {"shortest_edge": (2 * factor) ** 2, "longest_edge": 12 * factor**2}
    images = Qwen2VLImageProcessor(size=pixels, patch_size=factor // 2)
    template = CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    return processor(images, words, videos(), chat_template=template)


def qwen_ids(processor: Any) -> dict[str, int]:
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad", "vision_start_token_id": "vision_start"}
    names |= {"vision_end_token_id": "vision_end"}
    return {key: processor.tokenizer.convert_tokens_to_ids(f"<|{name}|>") for key, name in names.items()}


def qwen2_5_vl() -> tuple[Any, Any]:
    processor = qwen(Qwen2_5_VLProcessor, Qwen2VLVideoProcessor, 28)
    eyes = {"depth": 2, "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_heads": 2, "out_hidden_size": WIDTH}
    words = vars(text()) | {"rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}}
    config = Qwen2_5_VLConfig(
        text_config=plain(words), vision_config=eyes | {"fullatt_block_indexes": [1]}, **qwen_ids(processor)
    )
    return config, processor


def qwen3_vl() -> tuple[Any, Any]:
    processor = qwen(Qwen3VLProcessor, Qwen3VLVideoProcessor, 32)
    eyes = {"depth": 2, "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_heads": 2, "out_hidden_size": WIDTH}
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4, "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config=plain(vars(text())) | {"rope_parameters": rope, "head_dim": WIDTH // 2},
        vision_config=eyes | {"deepstack_visual_indexes": [0], "num_position_embeddings": 16},
        **qwen_ids(processor),
    )
    return config, processor


def qwen3_5() -> tuple[Any, Any]:
    """A gated delta net and an attention; rotary positions on a part of each head."""
    processor = qwen(Qwen3VLProcessor, Qwen3VLVideoProcessor, 32)
    eyes = {"depth": 2, "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_heads": 2, "out_hidden_size": WIDTH}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4, "mrope_interleaved": True}
    states = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2}
    states |= {"linear_num_value_heads": 4, "layer_types": ["linear_attention", "full_attention"]}
    config = Qwen3_5Config(
        text_config=plain(vars(text(num_hidden_layers=2)))
        | {"rope_parameters": rope | {"partial_rotary_factor": 0.5}, "head_dim": WIDTH // 2}
        | states,
        vision_config=eyes | {"num_position_embeddings": 16},
        **qwen_ids(processor),
    )
    return config, processor


def glm4v() -> tuple[Any, Any]:
    """GLM-4.1V: GLM-4, which places images in three dimensions."""
    return _glm(Glm4vConfig, Glm4vImageProcessor, Glm4vProcessor, Glm4vVideoProcessor)


def glm46v() -> tuple[Any, Any]:
    """GLM-4.6V-Flash: another processor, and other positions of videos."""
    return _glm(Glm46VConfig, Glm46VImageProcessor, Glm46VProcessor, Glm46VVideoProcessor)


def _glm(config: type, images: type, processor: type, videos: type) -> tuple[Any, Any]:
    words = tokenizer(
        *["[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|image|>", "<|video|>", "<|endoftext|>"],
        *["<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"],
        *["<|begin_of_box|>", "<|end_of_box|>"],
        eos="<|endoftext|>",
    )
    template = CHATML.replace("IMAGE", "<|begin_of_image|><|image|><|end_of_image|>").replace("<|im_end|>\n", "")
    template = "[gMASK]<sop>" + template.replace("<|im_start|>assistant", "<|assistant|>")
    template = template.replace("<|im_start|>{{ m['role'] }}", "<|user|>")
    pixels = {"shortest_edge": 56**2, "longest_edge": 12 * 28**2}
    made = processor(images(size=pixels), words, videos(), chat_template=template)
    ids = {
        f"{kind}_{end}_token_id": words.convert_tokens_to_ids(f"<|{mark}_of_{kind}|>")
        for kind in ("image", "video")
        for end, mark in (("start", "begin"), ("end", "end"))
    }
    eyes = {"depth": 2, "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_heads": 2, "out_hidden_size": WIDTH}
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    text_config = plain(vars(text())) | {"rope_parameters": rope}
    ids |= {"video_token_id": words.convert_tokens_to_ids("<|video|>")}
    return config(text_config=text_config, vision_config=eyes | {"image_size": 4 * 14}, **ids), made


def lfm2_vl() -> tuple[Any, Any]:
    """SigLIP 2 and LFM2: a short convolution and an attention."""
    marks = ["<|image_start|>", "<|image_end|>", "<|img_thumbnail|>", "<|im_start|>", "<|im_end|>"]
    tiles = [f"<|img_row_{row}_col_{column}|>" for row in (1, 2, 3) for column in (1, 2, 3)]
    sizes = {"tile_size": TILE, "encoder_patch_size": PATCH, "min_image_tokens": 1, "max_image_tokens": 64}
    images = Lfm2VlImageProcessor(**sizes, max_tiles=3, max_pixels_tolerance=0.2)
    template = CHATML.replace("IMAGE", "<image>")
    processor = Lfm2VlProcessor(images, tokenizer(*marks, *tiles, eos="<|im_end|>"), chat_template=template)
    layers = {"num_hidden_layers": 2, "layer_types": ["conv", "full_attention"], "conv_L_cache": 3}
    config = Lfm2VlConfig(
        vision_config=vision(Siglip2VisionConfig, num_patches=PATCHES, vision_use_head=False),
        text_config=text(Lfm2Config, **layers),
        projector_hidden_size=WIDTH,
        image_token_id=processor.image_token_id,
    )
    return config, processor


def plain(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a config that another kind of config takes."""
    kept = ("size", "layers", "heads", "embeddings", "token_id", "rope_parameters")
    return {name: value for name, value in settings.items() if name.endswith(kept) and not name.startswith("_")}


def internvl() -> tuple[Any, Any]:
    """InternViT and Qwen2."""
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    marks = ("<|im_start|>", "<ref>", "</ref>", "<box>", "</box>")
    named |= {f"mark_{number}_token": mark for number, mark in enumerate(marks)}
    words = tokenizer(eos="<|im_end|>", named=named)
    images = GotOcr2ImageProcessor(
        size={"height": TILE, "width": TILE}, crop_to_patches=True, min_patches=1, max_patches=4
    )
    template = CHATML.replace("IMAGE", "<IMG_CONTEXT>\n")
    processor = InternVLProcessor(images, words, InternVLVideoProcessor(), PATCHES // 4, template)
    eyes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = InternVLConfig(
        vision_config=eyes
        | {"image_size": [TILE, TILE], "patch_size": [PATCH, PATCH], "model_type": "internvl_vision"},
        text_config=text(Qwen2Config),
        image_token_id=processor.image_token_id,
        image_seq_length=PATCHES // 4,
    )
    return config, processor


def idefics3() -> tuple[Any, Any]:
    """SigLIP's encoder and Llama 3."""
    images = Idefics3ImageProcessor(size={"longest_edge": 2 * TILE}, max_image_size={"longest_edge": TILE})
    processor = Idefics3Processor(images, idefics_tokenizer(), image_seq_len=PATCHES // 4, chat_template=IDEFICS)
    eyes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Idefics3Config(
        vision_config=eyes | {"image_size": TILE, "patch_size": PATCH},
        text_config=text(),
        image_token_id=processor.image_token_id,
        pad_token_id=3,
    )
    return config, processor


def smolvlm() -> tuple[Any, Any]:
    """SigLIP's encoder and SmolLM2, which is a Llama."""
    images = SmolVLMImageProcessor(size={"longest_edge": 2 * TILE}, max_image_size={"longest_edge": TILE})
    processor = SmolVLMProcessor(
        images,
        idefics_tokenizer(),
        SmolVLMVideoProcessor(),
        image_seq_len=PATCHES // 4,
        chat_template=IDEFICS,
    )
    eyes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = SmolVLMConfig(
        vision_config=eyes | {"image_size": TILE, "patch_size": PATCH},
        text_config=text(),
        image_token_id=processor.image_token_id,
        pad_token_id=3,
    )
    return config, processor


def idefics_tokenizer() -> PreTrainedTokenizerFast:
    tiles = [f"<row_{row + 1}_col_{column + 1}>" for row in range(6) for column in range(6)]
    special = ["<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<global-img>", "<video>"]
    return tokenizer(*special, *tiles)


def paligemma() -> tuple[Any, Any]:
    """SigLIP and Gemma."""
    return _paligemma(text(GemmaConfig, head_dim=WIDTH // 2))


def paligemma2() -> tuple[Any, Any]:
    """SigLIP and Gemma 2: capped scores, every other layer with a window."""
    return _paligemma(text(Gemma2Config, head_dim=WIDTH // 2, num_hidden_layers=2, sliding_window=64))


def _paligemma(language: Any) -> tuple[Any, Any]:
    images = SiglipImageProcessor(size={"height": TILE, "width": TILE})
    images.image_seq_length = PATCHES
    processor = PaliGemmaProcessor(images, tokenizer())
    config = PaliGemmaConfig(
        vision_config=vision(SiglipVisionConfig, vision_use_head=False, projection_dim=WIDTH),
        text_config=language,
        projection_dim=WIDTH,
        hidden_size=WIDTH,
    )
    return config, processor


BUILDERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    build.__name__: build
    for build in (
        *(llava_next, llava_next_ocr, llava_onevision, qwen2_5_vl, qwen3_vl, qwen3_5, glm4v, glm46v, lfm2_vl),
        *(internvl, idefics3, smolvlm, paligemma, paligemma2),
    )
}
NAMES = ["llava", *BUILDERS]


def build(name: str, folder: Path) -> Path:
    """Write the checkpoint of that name."""
    torch.manual_seed(0)
    if name == "llava":
        shape = ModelShape(TILE, PATCH, WIDTH, 1, -1, WIDTH, 1, CONTEXT)
        processor = new_processor(shape, CORPUS)
        model = new_model(shape, processor)
    else:
        config, processor = BUILDERS[name]()
        config.get_text_config().vocab_size = len(processor.tokenizer)
        if hasattr(config, "image_token_index"):
            config.image_token_index = processor.image_token_id
        config.image_token_id = processor.image_token_id
        model = AutoModelForImageTextToText.from_config(config)
        model.generation_config.eos_token_id = processor.tokenizer.eos_token_id
        model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    with torch.no_grad():  # so that what is said depends on all that was read
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.2)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def _session():
    """No collection of garbage over all that was imported; and a word for numbers, which SmolVLM wants for videos."""
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("num2words") is None:
            patch.setattr("transformers.models.smolvlm.processing_smolvlm.num2words", str)
        yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> Callable[[str], Path]:
    """The checkpoint of a name, built when it is first asked for."""
    built: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in built:
            built[name] = build(name, tmp_path_factory.mktemp(name))
        return built[name]

    return get


@pytest.fixture(scope="session", params=NAMES)
def name(request) -> str:
    """Every architecture in turn."""
    return request.param


@pytest.fixture(scope="session")
def checkpoint(name, checkpoints) -> Path:
    return checkpoints(name)


@pytest.fixture
def loaded(checkpoint) -> LoadedModel:
    return load_model(str(checkpoint), device="cpu")


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    """Noise of (width, height)."""
    shape = (size[1], size[0], 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8))


SIZES = [(40, 30), (60, 90), (120, 40), (64, 64)]


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Pictures that become unequal numbers of tiles."""
    return [picture(seed, size) for seed, size in enumerate(SIZES)]


@pytest.fixture(scope="session")
def questions() -> list[str]:
    """One for each picture."""
    return ["where is the red cup?", "find it", "detect the cup left of it", "where?"]
