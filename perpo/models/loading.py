"""Load a vision-language model with its processor and adapter, choose what trains, save it again.

Everything that reads a model goes through `load_model`, so that sampling, training and evaluation
see the same weights, the same prompt and the same answer tokens.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from peft import prepare_model_for_kbit_training
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError
from perpo.models.adapters import put_adapter, say_once
from perpo.models.checkpoints import (
    adapter_of,
    local_directory,
    model_config,
    public_name,
    resolve_model,
    settings_digests,
    weights_digest,
)
from perpo.models.families import FAMILIES, Family, with_bounds
from perpo.models.hub import first_line
from perpo.models.keeping import kept_or_loaded
from perpo.models.loaded import DType, LoadedModel, render_prompt
from perpo.models.lora import in_full_precision
from perpo.models.original import is_original_at
from perpo.models.unlisted import check_not_refused, check_unlisted, unlisted_family


def load_model(
    name: str,
    adapter: str | None = None,
    *,
    dtype: DType = "float32",
    device: str | None = None,
    trainable_adapter: bool = False,
    quantization: Any = None,
    frozen: bool = False,
) -> LoadedModel:
    """Load a model, its processor and, where given, an adapter.

    No code of the checkpoint is run, and only safetensors files are read; and the `.bin` files of LLaVA's own
    checkpoints, of which only tensors are taken.

    Args:
        name: "tiny", "tiny-ocr", a directory in the Hugging Face layout, or a hub id.
        adapter: Directory that `perpo-train` (or PEFT) wrote.
        dtype: Type of the base's weights.
        device: Device such as "cpu" or "cuda:0"; by default CUDA where there is one, else the CPU.
        trainable_adapter: Whether the adapter's weights will be trained on.
        quantization: How the base is quantised (see `perpo.train.quantization`), for training with LoRA; or None.
        frozen: Whether nothing will change the base's weights, so that they may be kept (see `perpo.models.keeping`).

    Raises:
        PerpoError: The model or the adapter cannot be found, read, or is of an unknown family; or there
            is no such device.
    """
    directory = local_directory(resolve_model(name))
    place = _device(device)
    known = _listed(directory)
    weights_sha256 = weights_digest(directory)
    adapter_sha256 = None if adapter is None else adapter_of(weights_sha256, adapter)
    with _damaged(name):
        processor = read_processor(directory)

    def base() -> Any:
        with _damaged(name):
            read = _base_model(directory, name, processor, dtype, place, quantization)
        return read.to(place) if quantization is None else prepare(read)

    depends_on = (str(directory), weights_sha256, settings_digests(directory, None)["processor"], dtype, str(place))
    model = kept_or_loaded(depends_on, base, frozen=frozen and quantization is None).eval()
    family = with_bounds(known, _pictures(processor)) if known else unlisted_family(model)
    _check_template(name, family, processor)
    if known is None:
        check_unlisted(model, family, lambda: _samples(LoadedModel(model, processor, family, name, weights_sha256)))
    if adapter is not None:
        model = in_full_precision(put_adapter(model, adapter, trainable=trainable_adapter)).eval()
    return LoadedModel(model, processor, family, name, weights_sha256, adapter_sha256)


def load_processor(name: str) -> LoadedModel:
    """Load all of a model but its weights, for a server that has these: what it reads, how long, and how it ends.

    Args:
        name: "tiny", a directory in the Hugging Face layout, or a hub id, of which only the small files are fetched.

    Returns:
        The model, in which a stand-in holds the configuration alone.

    Raises:
        PerpoError: The model cannot be found or read, or its family is not listed in `perpo.models.families`.
    """
    directory = local_directory(resolve_model(name), weights=False)
    known = _listed(directory)
    if known is None:
        raise PerpoError(
            f"the family of {name} is not listed, so that its prompt cannot be checked without its weights",
            "sample with --engine hf, which looks at the weights",
        )
    with _damaged(name):
        processor = read_processor(directory)
        config = read_config(directory)
        own = (directory / "generation_config.json").is_file()
        ends = GenerationConfig.from_pretrained(directory) if own else GenerationConfig.from_model_config(config)
    family = with_bounds(known, _pictures(processor))
    _check_template(name, family, processor)
    stand_in = SimpleNamespace(config=config, generation_config=ends)
    return LoadedModel(stand_in, processor, family, name, "")


def _listed(directory: Path) -> Family | None:
    """The family of a checkpoint, if it is listed; one that transformers does not know is refused."""
    model_type = model_config(str(directory)).get("model_type", "")
    if model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise PerpoError(f"the model type '{model_type}' is not supported", did_you_mean(model_type, FAMILIES))
    check_not_refused(model_type)
    return FAMILIES.get(model_type)


@contextmanager
def _damaged(name: str) -> Iterator[None]:
    try:
        yield
    except PerpoError:
        raise
    except Exception as error:  # the libraries raise many kinds for damaged files
        raise PerpoError(
            f"{name} cannot be loaded: {first_line(error)}", "check that the download is complete"
        ) from error


def read_processor(directory: Path) -> Any:
    """Return the processor of a checkpoint's directory, which pads on the left."""
    if is_original_at(directory):
        from perpo.models import original_processor

        processor = original_processor.read_processor(directory)
    else:
        processor = AutoProcessor.from_pretrained(directory, trust_remote_code=False)
    processor.tokenizer.padding_side = "left"
    return processor


def read_config(directory: Path) -> Any:
    """Return the configuration of transformers' model for a checkpoint's directory."""
    if is_original_at(directory):
        from perpo.models import original_weights

        return original_weights.read_config(directory)
    return AutoConfig.from_pretrained(directory, trust_remote_code=False)


def _pictures(processor: Any) -> dict[str, Any]:
    images = getattr(processor, "image_processor", None)
    return images.to_dict() if images else {}


def _check_template(name: str, family: Family, processor: Any) -> None:
    if family.prompt is None and not getattr(processor, "chat_template", None):
        raise PerpoError(
            f"{name} has no chat template", "add the chat_template.jinja of the model's hub page to its folder"
        )


def _samples(loaded: LoadedModel) -> list[Any]:
    """What the processor makes of a prompt with small images of two shapes."""
    prompt = render_prompt(loaded, "What is in this image?")
    each = [loaded.encode([prompt], [Image.new("RGB", size)]) for size in ((64, 48), (50, 90))]
    return [inputs.to(loaded.model.dtype) for inputs in each]


def default_dtype(device: torch.device) -> DType:
    """Return the type that weights are loaded in where none is asked for: bfloat16 on CUDA, float32 elsewhere."""
    return "bfloat16" if device.type == "cuda" else "float32"


def chosen_dtype(dtype: DType | None, device: str | None) -> DType:
    """Return the type that was asked for, else the default of the device, which is said where it is no float32."""
    if dtype is not None:
        return dtype
    try:
        default = default_dtype(_device(None) if device is None else torch.device(device))
    except RuntimeError:  # a name that no device has: `load_model` says so
        return "float32"
    if default != "float32":
        print(f"note: computing in {default}, which is the default on a GPU", file=sys.stderr)
    return default


def _device(name: str | None) -> torch.device:
    """The device of that name, or by default CUDA where there is one, else the CPU."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # no such kind, not compiled in, no such number
        raise PerpoError(
            f"the device {name} cannot be used: {first_line(error)}", "give a torch device, such as cpu or cuda:0"
        ) from error


def _base_model(
    directory: Path, name: str, processor: Any, dtype: DType, place: torch.device, quantization: Any
) -> Any:
    quantized = {} if quantization is None else {"quantization_config": quantization, "device_map": {"": place}}
    config = read_config(directory)
    how = {"dtype": getattr(torch, dtype), "attn_implementation": _attention(config), **quantized}
    if is_original_at(directory):
        from perpo.models.original_weights import load_original

        config.image_token_index = processor.image_token_id
        loaded: Any = load_original(directory, config, **how)
    else:
        loaded = AutoModelForImageTextToText.from_pretrained(
            directory, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **how
        )
    model, report = loaded
    check_loaded(name, report)
    _read_no_image_row(model)
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
            f"{name} lacks {len(absent)} weights that its config.json names, such as {absent[0]}",
            "check that the download is complete and that config.json belongs to these weights",
        )
    if unused := sorted(report["unexpected_keys"]):
        say_once(f"warning: {name} has {len(unused)} weights that its config.json does not name, such as {unused[0]}")


def _read_no_image_row(model: Any) -> None:
    """Let the placeholder of a picture have no row in the vocabulary: what it stands for is put in its place.

    So the softmax has the rows that the model was trained with, and no other.
    """
    words, image = model.get_input_embeddings(), getattr(model.config, "image_token_id", None)
    if image is not None and image >= words.num_embeddings:
        words.register_forward_pre_hook(lambda _, given: (given[0].masked_fill(given[0] == image, 0), *given[1:]))


def _attention(config: Any) -> dict[str, str]:
    """SDPA, which takes the 4-D masks of shared prefixes (FlashAttention 2 does not); eager where scores are capped."""
    text = config.get_text_config()
    capped = getattr(text, "attn_logit_softcapping", None) is not None
    return {"": "sdpa"} | ({"text_config": "eager"} if capped else {})


def prepare(model: Any) -> Any:
    """Freeze a quantised base and keep all else of it in float32: norms, embeddings, head, projector, vision tower."""
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
