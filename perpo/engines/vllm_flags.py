"""Flags of programs that can load vLLM in their own process. Needs neither torch nor vLLM."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perpo.common.arguments import arg
from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError

_NUMBERS = ("quantization", "kv_cache_dtype")
"""Settings of vLLM that change numbers: records and journals hold them."""

_ROOM = (
    *("tensor_parallel_size", "pipeline_parallel_size", "gpu_memory_utilization", "kv_cache_memory_bytes"),
    *("max_model_len", "max_num_seqs", "max_num_batched_tokens", "enable_chunked_prefill", "enable_prefix_caching"),
    *("enforce_eager", "cpu_offload_gb", "mm_processor_cache_gb", "skip_mm_profiling", "mm_encoder_tp_mode"),
)
"""Those of room and speed, by which an answer changes no more than by what else is answered at that moment."""

_INSTEAD = {
    "device": "vLLM takes the GPUs that it sees: CUDA_VISIBLE_DEVICES, and --processes for several",
    "stop_on_repetition": "leave it out: answers that end in a loop are counted anyhow",
}


@dataclass(frozen=True)
class VllmWanted:
    """vLLM in this process, and how it is set up.

    Attributes:
        settings: Arguments of `vllm.LLM` by name.
    """

    settings: Mapping[str, Any]

    @property
    def told(self) -> dict[str, Any]:
        """Return the settings that answers depend on."""
        return {name: value for name, value in self.settings.items() if name in _NUMBERS}


@dataclass(frozen=True, kw_only=True)
class VllmFlags:
    """Flags that say how vLLM is set up."""

    vllm_args: list[str] = arg(
        [], f"for --engine vllm: name=value of {', '.join((*_ROOM, *_NUMBERS))}, such as max_model_len=4096"
    )


def vllm_wanted(words: Sequence[str]) -> VllmWanted:
    """Return what `vllm_args` say.

    Raises:
        PerpoError: One is no name=value, is given twice, names no setting, or has a value that cannot be.
    """
    settings: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not (equals and value):
            raise PerpoError(f"--vllm_args expects name=value, got {word!r}", "--vllm_args max_model_len=4096")
        if name not in (*_ROOM, *_NUMBERS):
            raise PerpoError(f"--vllm_args knows no '{name}'", did_you_mean(name, (*_ROOM, *_NUMBERS)))
        if name in settings:
            raise PerpoError(f"--vllm_args has {name} twice", "give it once")
        settings[name] = _value(value)
    gpus = settings.get("tensor_parallel_size", 1)
    if type(gpus) is not int or gpus < 1:
        raise PerpoError(f"--vllm_args tensor_parallel_size expects a number of GPUs, got {gpus!r}", "such as 2")
    return VllmWanted(settings)


def check_vllm(engine: str, flags: VllmFlags, unused: Mapping[str, Any], *, runs: bool = True) -> None:
    """Refuse flags that the engine has no use for, and vLLM where it is not installed.

    Args:
        engine: "vllm", or another one.
        flags: How vLLM is set up.
        unused: Flags that vLLM has no use for, with what they say; None is nothing.
        runs: Whether it is to run here.

    Raises:
        PerpoError: There are such, or there is no vLLM.
    """
    if engine != "vllm":
        if flags.vllm_args:
            raise PerpoError("--vllm_args is for --engine vllm", "add --engine vllm, or leave --vllm_args out")
        return
    vllm_wanted(flags.vllm_args)
    for name, value in unused.items():
        if value is not None and name in _INSTEAD:
            raise PerpoError(f"--{name} is not for --engine vllm", _INSTEAD[name])
    if runs and importlib.util.find_spec("vllm") is None:
        raise PerpoError(
            "--engine vllm needs vLLM, which is not installed beside perpo",
            "pip install 'perpo[vllm]', best in an environment of its own (docs/engines.md); or --engine server",
        )


def _value(text: str) -> Any:
    """A number, true, false or null as such; all else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
