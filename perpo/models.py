"""Load a vision-language model with its processor and adapter, choose what trains, save it again.

Everything that reads a model goes through `load_model`, so that sampling, training and evaluation
see the same weights, the same prompt and the same answer tokens.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from perpo.adapters import put_adapter, say_once
from perpo.checkpoints import first_line, local_directory, public_name, resolve_model, weights_digest
from perpo.common.hints import did_you_mean
from perpo.control_tokens import control_tokens, decoded, pattern_of
from perpo.data.images import pad_to_square, short_name
from perpo.data.placeholders import without_image
from perpo.errors import PerpoError
from perpo.families import FAMILIES, Family, with_bounds
from perpo.quantization import prepare
from perpo.records.training_record import adapter_of
from perpo.unlisted import check_unlisted, unlisted_family

DType = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class LoadedModel:
    """A model that is ready to run.

    Attributes:
        model: The Hugging Face model, or the PeftModel around it; in eval mode, on its device.
        processor: Its processor; the tokenizer pads on the left.
        family: What is known of the model's family (prompt, box format, module names).
        name: The model as the user named it.
        weights_sha256: SHA-256 of the base's weights (see `perpo.checkpoints.weights_digest`).
        adapter_sha256: SHA-256 of the adapter's safetensors file, or None without an adapter.
    """

    model: Any
    processor: Any
    family: Family
    name: str
    weights_sha256: str
    adapter_sha256: str | None = None

    @property
    def tokenizer(self) -> Any:
        """The processor's tokenizer."""
        return self.processor.tokenizer

    @property
    def context_length(self) -> int:
        """The longest sequence that the language model takes, image tokens included."""
        return int(self.model.config.get_text_config().max_position_embeddings)

    @property
    def end_ids(self) -> set[int]:
        """The tokens that end an answer, as `generate` has them."""
        ends = self.model.generation_config.eos_token_id
        return {self.end_id, *(ends if isinstance(ends, list) else [] if ends is None else [ends])}

    @property
    def end_id(self) -> int:
        """The token that is written at the end of an answer."""
        token = self.family.end_token
        return self.tokenizer.eos_token_id if token is None else self.tokenizer.convert_tokens_to_ids(token)

    @cached_property
    def control_tokens(self) -> dict[int, str]:
        """The tokens that are no part of what is asked or answered, by their ids; see `perpo.control_tokens`."""
        return control_tokens(self.tokenizer, _rendered(self, ""), () if self.model is None else self.end_ids)

    @cached_property
    def _marks(self) -> set[int]:
        return set(self.tokenizer.added_tokens_decoder) - set(self.control_tokens)

    @cached_property
    def _control_pattern(self) -> re.Pattern[str]:
        return pattern_of(self.control_tokens.values())

    def answer_text(self, ids: Sequence[int]) -> str:
        """The text of generated tokens: end, pad, turns and pictures left out, all other special tokens kept.

        So the marks that a model puts around names and boxes stay, and the text gives its tokens back.
        """
        said = [number for number in ids if number not in self.control_tokens]
        return decoded(self.tokenizer, said, self._marks)

    def without_control_tokens(self, text: str) -> str:
        """A text without what spells a control token, which an answer can hold letter by letter."""
        return self._control_pattern.sub("", text)

    def check_plain(self, text: str, what: str) -> None:
        """Refuse a text that spells a control token, which the tokenizer would make of it.

        Args:
            text: A question or an answer.
            what: What it is, for the message.

        Raises:
            PerpoError: It does.
        """
        found = self._control_pattern.search(text)
        if found is not None:
            raise PerpoError(
                f"{what} holds {found[0]}, which steers {self.name} and is no text: {text!r:.80}",
                "take it out: what begins and ends a turn, and the picture, are put in where the model wants them",
            )

    def image_tokens(self, size: tuple[int, int]) -> int:
        """How many tokens an image of (width, height) becomes, asked of the processor with a blank one."""
        prompt = render_prompt(self, "")
        with_image = self.encode([prompt], [Image.new("RGB", size)]).input_ids.shape[1]
        return with_image - len(self.token_ids([prompt])[0]) + 1

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of rendered prompts; a first token that the chat template wrote does not come twice."""
        return self.tokenizer(list(texts), add_special_tokens=self._adds_special_tokens(texts[0])).input_ids

    def encode(self, prompts: Sequence[str], images: Sequence[Image.Image]) -> Any:
        """What the model takes for prompts with an image each, padded on the left (tensors, on the CPU).

        Images become RGB and, where the family wants it, squares padded with the processor's mean colour.
        """
        pictures = [image.convert("RGB") for image in images]
        if self.family.pads_images:
            red, green, blue = (int(share * 255) for share in self.processor.image_processor.image_mean)
            pictures = [pad_to_square(picture, (red, green, blue)) for picture in pictures]
        texts = list(prompts)
        if self.family.prompt is not None:  # the processor writes these two itself
            texts = [text.replace(self.tokenizer.bos_token, "", 1).removesuffix("\n") for text in texts]
        try:
            inputs = self._processed(pictures, texts, prompts[0])
        except (ValueError, ZeroDivisionError) as error:
            for image, picture, text in zip(images, pictures, texts, strict=True):
                self._check_taken(image, picture, text, prompts[0])
            raise PerpoError(f"the processor of {self.name} refuses its input: {error}", "see its prompts") from error
        inputs.pop("labels", None)  # PaliGemma's processor gives them, for a loss of its own
        return inputs

    def without_model(self) -> LoadedModel:
        """What `encode` and the tokenizer need, small enough to be handed to other processes."""
        return replace(self, model=None)

    def _processed(self, pictures: Sequence[Image.Image], texts: Sequence[str], prompt: str) -> Any:
        return self.processor(
            images=[[picture] for picture in pictures],
            text=list(texts),
            padding=True,
            return_tensors="pt",
            add_special_tokens=self._adds_special_tokens(prompt),
        )

    def _check_taken(self, image: Image.Image, picture: Image.Image, text: str, prompt: str) -> None:
        """Raise a PerpoError that names the image if the processor refuses it alone too."""
        try:
            self._processed([picture], [text], prompt)
        except (ValueError, ZeroDivisionError) as error:
            raise PerpoError(
                f"the picture {short_name(getattr(image, 'filename', ''))} of {image.width} x {image.height} pixels is "
                f"refused by the processor of {self.name}: {error}",
                "cut or pad it, or leave it out",
            ) from error

    def _adds_special_tokens(self, prompt: str) -> bool:
        return self.family.prompt is None and not prompt.startswith(self.tokenizer.bos_token or "\0")


def load_model(
    name: str,
    adapter: str | None = None,
    *,
    dtype: DType = "float32",
    device: str | None = None,
    trainable_adapter: bool = False,
    quantization: Any = None,
) -> LoadedModel:
    """Load a model, its processor and, where given, an adapter.

    No code of the checkpoint is run, and only safetensors files are read.

    Args:
        name: "tiny", a directory in the Hugging Face layout, or a hub id.
        adapter: Directory that `perpo-train` (or PEFT) wrote.
        dtype: Type of the base's weights.
        device: Device such as "cpu" or "cuda:0"; by default CUDA where there is one, else the CPU.
        trainable_adapter: Whether the adapter's weights will be trained on.
        quantization: How the base is quantised (see `perpo.quantization`), for training with LoRA; or None.

    Raises:
        PerpoError: The model or the adapter cannot be found, read, or is of an unknown family; or there
            is no such device.
    """
    directory = local_directory(resolve_model(name))
    place = _device(device)
    config = json.loads((directory / "config.json").read_text())
    model_type = config.get("model_type", "")
    known = FAMILIES.get(model_type)
    if model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise PerpoError(f"the model type '{model_type}' is not supported", did_you_mean(model_type, FAMILIES))
    weights_sha256 = weights_digest(directory)
    adapter_sha256 = None if adapter is None else adapter_of(weights_sha256, adapter)
    try:
        processor = AutoProcessor.from_pretrained(directory, trust_remote_code=False)
        model = _base_model(directory, name, dtype, place, quantization)
    except PerpoError:
        raise
    except Exception as error:  # the libraries raise many kinds for damaged files
        raise PerpoError(f"{name} cannot be loaded: {first_line(error)}", "is the download complete?") from error
    images = getattr(processor, "image_processor", None)
    family = with_bounds(known, images.to_dict() if images else {}) if known else unlisted_family(model)
    if family.prompt is None and not getattr(processor, "chat_template", None):
        raise PerpoError(f"{name} has no chat template", "add the chat_template.jinja of its hub page")
    processor.tokenizer.padding_side = "left"
    if quantization is None:
        model.to(place)
    else:
        prepare(model)
    model.eval()
    if known is None:
        check_unlisted(model, family, lambda: _samples(LoadedModel(model, processor, family, name, weights_sha256)))
    if adapter is not None:
        model = in_full_precision(put_adapter(model, adapter, trainable=trainable_adapter)).eval()
    return LoadedModel(model, processor, family, name, weights_sha256, adapter_sha256)


def _samples(loaded: LoadedModel) -> list[Any]:
    """What the processor makes of a prompt with small images of two shapes."""
    prompt = render_prompt(loaded, "What is in this image?")
    each = [loaded.encode([prompt], [Image.new("RGB", size)]) for size in ((64, 48), (50, 90))]
    return [inputs.to(loaded.model.dtype) for inputs in each]


def default_dtype(device: torch.device) -> DType:
    """The type that weights are loaded in where none is asked for: bfloat16 on CUDA, float32 elsewhere."""
    return "bfloat16" if device.type == "cuda" else "float32"


def chosen_dtype(dtype: DType | None, device: str | None) -> DType:
    """The type that was asked for, else the default of the device, which is said where it is no float32."""
    if dtype is not None:
        return dtype
    try:
        found = default_dtype(_device(None) if device is None else torch.device(device))
    except RuntimeError:  # a name that no device has: `load_model` says so
        return "float32"
    if found != "float32":
        print(f"note: computing in {found}, the default on a GPU", file=sys.stderr)
    return found


def _device(name: str | None) -> torch.device:
    """The device of that name, or by default CUDA where there is one, else the CPU."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # no such kind, not compiled in, no such number
        raise PerpoError(f"the device {name} cannot be used: {first_line(error)}", "such as cpu or cuda:0") from error


def _base_model(directory: Path, name: str, dtype: DType, place: torch.device, quantization: Any) -> Any:
    quantized = {} if quantization is None else {"quantization_config": quantization, "device_map": {"": place}}
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        directory,
        dtype=getattr(torch, dtype),
        attn_implementation=_attention(directory),
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        **quantized,
    )
    model, report = loaded
    check_loaded(name, report)
    # PEFT writes it into adapters, which should name no directory of the machine that they were trained on.
    model.name_or_path = model.config.name_or_path = public_name(name)
    return model


def check_loaded(name: str, report: Mapping[str, Any]) -> None:
    """Look at what transformers says of the weights that it loaded; what the model has no use for is warned of.

    Args:
        name: The model's, for messages.
        report: The loading info.

    Raises:
        PerpoError: The model lacks weights, which are random then.
    """
    absent = sorted([*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])])
    if absent:
        raise PerpoError(
            f"{name} lacks {len(absent)} weights that its config.json asks for, such as {absent[0]}",
            "is the download complete, and does config.json belong to these weights?",
        )
    if unused := sorted(report["unexpected_keys"]):
        say_once(f"warning: {name} has {len(unused)} weights that its config.json has no use for, such as {unused[0]}")


def _attention(directory: Path) -> dict[str, str]:
    """SDPA, which takes the 4-D masks of shared prefixes (FlashAttention 2 does not); eager where scores are capped."""
    text = AutoConfig.from_pretrained(directory, trust_remote_code=False).get_text_config()
    capped = getattr(text, "attn_logit_softcapping", None) is not None
    return {"": "sdpa"} | ({"text_config": "eager"} if capped else {})


def render_prompt(loaded: LoadedModel, question: str) -> str:
    """The text that the model reads before its answer, with one placeholder for the image.

    Args:
        loaded: The model.
        question: The user's turn; a mark of the picture that data put into it (`perpo.data.placeholders`) is taken out.

    Raises:
        PerpoError: The question holds marks of several pictures, or spells one of the model's control tokens.
    """
    question = without_image(question)
    loaded.check_plain(question, "a question")
    return _rendered(loaded, question)


def _rendered(loaded: LoadedModel, question: str) -> str:
    template = loaded.family.prompt
    if template is not None:
        parts = {"image": loaded.processor.image_token, "bos": loaded.tokenizer.bos_token, "question": question}
        return template.format(**parts)
    content = [{"type": "image"}, {"type": "text", "text": question}]
    return loaded.processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )


def answers_token_ids(loaded: LoadedModel, prompt: str, answers: Sequence[str], *, end: bool = True) -> list[list[int]]:
    """The tokens of several answers to one prompt: the family's separator, the answer, the end token.

    An empty answer is the end token alone.

    Args:
        loaded: The model.
        prompt: What `render_prompt` gave.
        answers: The answers' texts.
        end: Whether the end token is appended; not for an answer that was cut at the token limit.

    Raises:
        PerpoError: The tokens of prompt and answer do not begin with the prompt's own, so that no
            split between the two is right; or an answer spells one of the model's control tokens.
    """
    for answer in answers:
        loaded.check_plain(answer, "an answer")
    separator = "" if prompt[-1:].isspace() else loaded.family.answer_separator
    texts = [prompt, *(prompt + separator + answer if answer else prompt for answer in answers)]
    prompt_ids, *whole = loaded.token_ids(texts)
    ids = []
    for answer, answered in zip(answers, whole, strict=True):
        if answered[: len(prompt_ids)] != prompt_ids:
            raise PerpoError(
                f"the tokenizer of {loaded.name} joins the end of the prompt with the start of {answer!r}",
                "the family's answer separator does not suit this tokenizer",
            )
        ids.append(answered[len(prompt_ids) :] + [loaded.end_id] * end)
    return ids


def add_lora(loaded: LoadedModel, *, r: int, alpha: int, dropout: float, train_projector: bool) -> PeftModel:
    """Put a new LoRA adapter on the linear layers of the language model.

    Args:
        loaded: A model without an adapter.
        r: Rank.
        alpha: Scale; the update is multiplied by alpha / r.
        dropout: Dropout before the adapter, in [0, 1).
        train_projector: Whether a copy of the projector is trained (and saved with the adapter).
            The original stays and is what runs when the adapter is off.

    Returns:
        The PeftModel; its adapter is called "default".

    Raises:
        PerpoError: The projector is to be trained, and it is not known which module that is.
    """
    projector = None
    if train_projector:
        projector = projector_modules(loaded.model, loaded.family)
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=loaded.family.lora_targets,
        modules_to_save=projector,
    )
    return in_full_precision(get_peft_model(loaded.model, config))


def projector_modules(model: Any, family: Family) -> list[str]:
    """Names of the modules that make up the projector.

    Raises:
        PerpoError: They are not known of this family.
    """
    if family.projector is None:
        raise PerpoError(
            f"which module of the model type '{family.model_type}' is the projector is not known",
            "give --mm_projector_lr 0",
        )
    return [name for name, _ in model.named_modules() if re.fullmatch(rf"(.*\.)?{family.projector}", name)]


def in_full_precision(model: Any) -> Any:
    """What trains is kept in float32, also over a base in half precision (PEFT does so for LoRA only)."""
    for parameter in model.parameters():
        if parameter.requires_grad and not hasattr(parameter, "ds_id"):  # which ZeRO-3 gives those that it parts
            parameter.data = parameter.data.float()
    return model
