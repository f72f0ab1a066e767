"""QLoRA: the frozen base in 4 bits by bitsandbytes, on an NVIDIA GPU."""

from __future__ import annotations

from importlib.util import find_spec

import torch
from transformers import BitsAndBytesConfig

from perpo.errors import PerpoError
from perpo.models.checkpoints import model_config, resolve_model
from perpo.models.families import family_of
from perpo.train.arguments import TrainArguments
from perpo.train.distributed import deepspeed_config


def check_machine(args: TrainArguments) -> None:
    """Say now if the base is to be in 4 bits and that can't be had here.

    Raises:
        PerpoError: There is no NVIDIA GPU, or no bitsandbytes; or ZeRO-3 is to part what it packs.
    """
    if args.bits == 16:
        return
    if not torch.cuda.is_available():
        raise PerpoError("--bits 4 needs an NVIDIA GPU, but this machine has none", "leave --bits out")
    if find_spec("bitsandbytes") is None:
        raise PerpoError("--bits 4 needs bitsandbytes, which is not installed", "pip install 'perpo[qlora]'")
    zero = deepspeed_config(args.deepspeed).get("zero_optimization", {}) if args.deepspeed else {}
    if zero.get("stage") == 3:
        raise PerpoError("--bits 4 cannot be combined with ZeRO-3", "use --deepspeed zero2, or leave --bits out")


def quantization_config(args: TrainArguments) -> BitsAndBytesConfig | None:
    """Return how the base is loaded, or None where it keeps its 16 or 32 bits.

    The language model's linear layers are quantised; vision tower, projector and head are not.

    Raises:
        PerpoError: The model's family is not in the table, which knows these parts.
    """
    if args.bits == 16:
        return None
    family = family_of(model_config(resolve_model(args.model)).get("model_type", ""))
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=args.quant_type,
        bnb_4bit_use_double_quant=args.double_quant,
        bnb_4bit_compute_dtype=torch.bfloat16 if args.bf16 else torch.float32,
        llm_int8_skip_modules=[rf"(.*\.)?({part})" for part in (family.vision_tower, family.projector, "lm_head")],
    )
