"""A processor of transformers that makes of a question and a picture what LLaVA's own code makes of them.

Its directories hold no processor and no chat template: the conversation is written here as that code writes it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    LlamaTokenizer,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaOnevisionImageProcessorPil,
    LlavaOnevisionProcessor,
    LlavaOnevisionVideoProcessor,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    SiglipImageProcessorPil,
)
from transformers.convert_slow_tokenizer import generate_merges

from perpo.errors import PerpoError
from perpo.models.original import hugging_face_config, read_original

IMAGE = "<image>"
_IMAGE_FIRST = (
    "{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
)
TEMPLATES = {
    "llama": (
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. {% for m in messages %}{% if m['role'] == 'user' %}"
        f"USER: {_IMAGE_FIRST} {{% else %}}ASSISTANT: {_IMAGE_FIRST}</s>{{% endif %}}{{% endfor %}}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    ),
    "mistral": (
        "{% for m in messages %}{% if m['role'] == 'user' %}"
        f"[INST] {_IMAGE_FIRST} [/INST]{{% else %}} {_IMAGE_FIRST}</s>{{% endif %}}{{% endfor %}}"
    ),
    "qwen2": (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% for m in messages %}"
        f"<|im_start|>{{{{ m['role'] }}}}\n{_IMAGE_FIRST}<|im_end|>\n{{% endfor %}}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
}
"""The conversations v1, mistral_instruct and qwen_1_5 of LLaVA's code, by the kind of the language model."""

_INSTALL = "pip install sentencepiece, or perpo[original]"
_PROBES = (
    "USER: ",
    "\nWhere is the 2nd  dog?\n\tÄ 狗 🐕 ASSISTANT:",
    "[0.10, 0.25, 0.333, 1.00]",
    "[INST] it's [/INST]",
)
_OTHER_TURNS = ("<|im_start|>", "<|start_header_id|>", "<|eot_id|>")
_MEANS = {"clip_vision_model": ([0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711])}
_HALF = ([0.5, 0.5, 0.5], [0.5, 0.5, 0.5])


def read_processor(directory: str | Path) -> Any:
    """Return the processor of an original checkpoint.

    A chat_template.jinja in the directory that writes `<image>` goes before the conversation of its language model's
    kind.

    Raises:
        PerpoError: Its tokenizer cannot be read, or its conversation is not known.
    """
    original = read_original(directory)
    config = hugging_face_config(directory)
    kind, vision = config["text_config"]["model_type"], config["vision_config"]
    tokenizer = _tokenizer(Path(directory), kind, config["text_config"]["vocab_size"])
    template = _own_template(Path(directory)) or TEMPLATES[kind]
    names = f"{original.get('_name_or_path', '')} {Path(directory).name}".lower()
    other = f"its tokenizer has {turn}" if (turn := _other_turns(tokenizer)) else None
    if kind == "llama" and "llama-2" in names:
        other = "it is of Llama 2 by its name"
    if template == TEMPLATES[kind] and kind != "qwen2" and other:
        raise PerpoError(
            f"the conversation of {directory} is not known: {other}",
            "put a chat_template.jinja into the folder that writes its turns, and <image> for the picture",
        )
    tokenizer.chat_template = None  # Qwen2's own, which knows no pictures
    clip = vision["model_type"] == "clip_vision_model"
    features = (vision["image_size"] // vision["patch_size"]) ** 2
    pictures = _pictures(config)
    strategy = config["vision_feature_select_strategy"]
    if config["model_type"] == "llava_onevision":
        return LlavaOnevisionProcessor(
            pictures,
            tokenizer,
            LlavaOnevisionVideoProcessor(),
            num_image_tokens=features + clip,
            vision_feature_select_strategy=strategy,
            chat_template=template,
            vision_aspect_ratio=config["vision_aspect_ratio"],
        )
    processor = LlavaProcessor if config["model_type"] == "llava" else LlavaNextProcessor
    return processor(
        pictures,
        tokenizer,
        patch_size=vision["patch_size"],
        vision_feature_select_strategy=strategy,
        chat_template=template,
        num_additional_image_tokens=int(clip),
    )


def _own_template(directory: Path) -> str | None:
    path = directory / "chat_template.jinja"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    return text if IMAGE in text else None


def _other_turns(tokenizer: Any) -> str | None:
    words = tokenizer.get_vocab()
    return next((turn for turn in _OTHER_TURNS if turn in words), None)


def _pictures(config: dict[str, Any]) -> Any:
    """The image processor: bicubic, and by PIL, as in LLaVA's code."""
    vision = config["vision_config"]
    side = vision["image_size"]
    mean, std = _MEANS.get(vision["model_type"], _HALF)
    square = {"height": side, "width": side}
    colours: dict[str, Any] = {"image_mean": mean, "image_std": std, "resample": 3}
    if config["model_type"] == "llava_onevision":
        grids = config["image_grid_pinpoints"]
        return LlavaOnevisionImageProcessorPil(size=square, image_grid_pinpoints=grids, **colours)
    if config["model_type"] == "llava_next":
        return LlavaNextImageProcessorPil(
            size={"shortest_edge": side},
            crop_size=square,
            image_grid_pinpoints=config["image_grid_pinpoints"],
            **colours,
        )
    if vision["model_type"] == "siglip_vision_model":
        return SiglipImageProcessorPil(size=square, **colours)
    return CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=square, **colours)


def _tokenizer(directory: Path, kind: str, rows: int) -> Any:
    """The tokenizer with a token for the picture, that reads what stands on either side of it each on its own."""
    settings = directory / "tokenizer_config.json"
    said = json.loads(settings.read_text()) if settings.is_file() else {}
    if kind != "qwen2" and (directory / "tokenizer.model").is_file():
        tokenizer: Any = _sentencepiece(directory, said)
    elif (directory / "tokenizer.json").is_file():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(directory)
    elif kind == "qwen2" and (directory / "vocab.json").is_file():
        tokenizer = Qwen2Tokenizer.from_pretrained(directory)
    else:
        raise PerpoError(f"{directory} has no tokenizer", "check that the download is complete")
    if len(tokenizer) > rows:
        raise PerpoError(
            f"the tokenizer of {directory} has {len(tokenizer)} tokens, and the model's vocabulary {rows}",
            "check that the tokenizer belongs to these weights",
        )
    if kind == "qwen2" and "<|im_end|>" in tokenizer.get_vocab():
        tokenizer.eos_token = "<|im_end|>"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    if IMAGE not in tokenizer.get_added_vocab():
        tokenizer.add_special_tokens(
            {"additional_special_tokens": [AddedToken(IMAGE, special=True, normalized=False)]},
        )
    if said.get("add_bos_token", kind != "qwen2") and tokenizer.bos_token is not None:
        tokenizer.add_bos_token = True
    _check_pieces(directory, tokenizer, kind)
    return tokenizer


def _sentencepiece(directory: Path, said: dict[str, Any]) -> Any:
    """The fast tokenizer of a tokenizer.model that gives SentencePiece's own ids."""
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError as error:
        raise PerpoError(f"{directory} has a tokenizer.model, and SentencePiece is missing", _INSTALL) from error
    words = SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))
    rows = {words.id_to_piece(number): number for number in range(words.vocab_size())}
    special = {f"{name}_token": words.id_to_piece(getattr(words, f"{name}_id")()) for name in ("unk", "bos", "eos")}
    tokenizer = LlamaTokenizer(
        vocab=rows, merges=generate_merges(rows, None), legacy=True, add_bos_token=True, **special
    )
    for number, token in _added(directory, said):
        if number >= len(rows):
            tokenizer.add_tokens(AddedToken(token, normalized=False), special_tokens=True)
        if tokenizer.convert_tokens_to_ids(token) != number:
            raise PerpoError(
                f"the token {token} of {directory} is not number {number}", "check its tokenizer_config.json"
            )
    for text in _PROBES:
        if tokenizer(text, add_special_tokens=False).input_ids != words.encode(text):
            raise PerpoError(
                f"the tokenizer.model of {directory} is read otherwise than SentencePiece reads it, such as {text!r}",
                "use its Hugging Face conversion",
            )
    return tokenizer


def _added(directory: Path, said: dict[str, Any]) -> list[tuple[int, str]]:
    """The tokens that were put to those of tokenizer.model, by number."""
    tokens = {int(number): each["content"] for number, each in said.get("added_tokens_decoder", {}).items()}
    if (path := directory / "added_tokens.json").is_file():
        tokens |= {number: token for token, number in json.loads(path.read_text()).items()}
    return sorted(tokens.items())


def _check_pieces(directory: Path, tokenizer: Any, kind: str) -> None:
    """Make it read the words before a picture, and those behind it, as LLaVA's code does: each for themselves."""
    before, after = "USER: ", "\nWhere is it?"
    read = lambda text: tokenizer(text, add_special_tokens=False).input_ids  # noqa: E731
    image = [tokenizer.convert_tokens_to_ids(IMAGE)]
    backend = tokenizer.backend_tokenizer
    metaspace = backend.pre_tokenizer
    if read(before + IMAGE + after) != read(before) + image + read(after) and isinstance(
        metaspace, pre_tokenizers.Metaspace
    ):
        metaspace.prepend_scheme = "always"
        backend.pre_tokenizer = metaspace
    together = read(before + IMAGE + after)
    if together != read(before) + image + read(after):
        raise PerpoError(
            f"the tokenizer of {directory} reads words beside a picture otherwise than alone, which LLaVA's code does "
            "not do",
            "give the tokenizer.model of the original checkpoint",
        )
    if kind != "qwen2" and tokenizer("a").input_ids[:1] != [tokenizer.bos_token_id]:
        raise PerpoError(
            f"the tokenizer of {directory} does not begin a text with its start token, as LLaVA's code has it",
            "check that its tokenizer_config.json belongs to it",
        )
