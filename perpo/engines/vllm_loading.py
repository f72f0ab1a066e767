"""Load a model into vLLM: its environment among several processes, its settings, and an adapter.

vLLM is imported here alone, and when a model is loaded.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from perpo.common.processes import terminated
from perpo.engines.base import EngineInfo
from perpo.engines.vllm import VllmEngine
from perpo.engines.vllm_flags import VllmWanted
from perpo.errors import PerpoError
from perpo.models.checkpoints import adapter_of, local_directory, resolve_model, weights_digest
from perpo.models.families import Family
from perpo.models.hub import first_line
from perpo.models.loaded import DType
from perpo.models.loading import load_processor
from perpo.models.merging import merged_once
from perpo.models.original import is_original_at
from perpo.records.training_record import ADAPTER_WEIGHTS

TRIED = ("0.30", "0.33")
"""The oldest and the newest version whose interface was read."""

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Those that vLLM takes as the largest of its adapters."""

_WITHOUT_LORA = ("llava_onevision",)
"""Model types whose class in vLLM takes no adapters."""

_LAUNCHED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What launchers say to our processes: vLLM would take it for its own."""


def load_vllm(model: str, adapter: str | None, wanted: VllmWanted, *, dtype: DType | None) -> VllmEngine:
    """Load a model into vLLM.

    Args:
        model: As of `perpo.models.loading.load_processor`.
        adapter: Folder of an adapter. vLLM takes those of the language model alone as they are; a base is merged with
            others once, in the cache.
        wanted: How vLLM is set up.
        dtype: Type of the weights; by default bfloat16 on a GPU, float32 on the CPU.

    Raises:
        PerpoError: vLLM cannot be used here, or does not take the model.
    """
    with _own_environment(int(wanted.settings.get("tensor_parallel_size", 1))):
        vllm, platform = _imported()
        chosen: DType = dtype or ("float32" if platform.is_cpu() else "bfloat16")
        directory = local_directory(resolve_model(model))
        if is_original_at(directory):
            raise PerpoError(
                f"vLLM does not know the layout of LLaVA's own code, in which {model} is",
                "use --engine hf, or serve it with SGLang and use --engine server",
            )
        loaded = replace(load_processor(model), weights_sha256=weights_digest(directory))
        how, lora = {}, None
        if adapter is not None:
            loaded = replace(loaded, adapter_sha256=adapter_of(loaded.weights_sha256, adapter))
            rank = lora_rank(adapter, loaded.family)
            if rank is None:
                directory = merged_once(model, adapter, chosen)
            else:
                how = {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}
                lora = vllm.lora.request.LoRARequest(f"adapter-{loaded.adapter_sha256}", 1, str(Path(adapter)))
        if platform.is_cpu():
            # A seeded request of which half a prompt is read ends vLLM on the CPU ("does not use offset").
            how["enable_chunked_prefill"] = False
        llm, processes = _started(vllm, model, {"model": str(directory), "dtype": chosen, **how, **wanted.settings})
    acting = {} if adapter is None else {"adapter": "merged" if lora is None else "lora"}
    told = {"software": "vllm", "version": str(vllm.__version__), **acting, **wanted.told}
    info = EngineInfo(
        name="vllm",
        model=loaded.name,
        by_batch=False,  # it does, but nobody can make the same batch again
        dtype=chosen,
        weights_sha256=loaded.weights_sha256,
        adapter_sha256=loaded.adapter_sha256,
        family=loaded.family,
        processor=type(getattr(loaded.processor, "image_processor", None) or loaded.processor).__name__,
        device=platform.device_type,
        served=told,
    )
    return VllmEngine(loaded, llm, info, lora, processes)


def lora_rank(adapter: str, family: Family) -> int | None:
    """Return the rank that vLLM must make room for; None where the adapter has to be merged into its base.

    Args:
        adapter: Its folder.
        family: Of the base.
    """
    config = json.loads(Path(adapter, "adapter_config.json").read_text(encoding="utf-8"))
    other = ("modules_to_save", "use_dora", "layer_replication", "trainable_token_indices", "target_parameters")
    plain = config.get("peft_type") == "LORA" and config.get("bias", "none") == "none"
    plain = plain and not any(config.get(name) for name in other)
    plain = plain and config.get("init_lora_weights", True) in (True, False, "gaussian")
    with safe_open(str(Path(adapter, ADAPTER_WEIGHTS)), "pt") as file:
        names = list(file.keys())
    inside = all(f".{family.language_model}." in name and ".layers." in name for name in names)
    largest = max([int(config.get("r", 0)), *map(int, (config.get("rank_pattern") or {}).values())])
    if not (plain and inside) or family.model_type in _WITHOUT_LORA or largest > max(_RANKS):
        return None
    return min(rank for rank in _RANKS if rank >= largest)


def _started(vllm: Any, model: str, settings: dict[str, Any]) -> tuple[Any, list[BaseProcess]]:
    """vLLM with a model, and the processes that it has started for it.

    Raises:
        PerpoError: It does not take it.
    """
    fixed = {"seed": 0, "generation_config": "vllm", "limit_mm_per_prompt": {"image": 1, "video": 0, "audio": 0}}
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        signal.signal(signal.SIGTERM, terminated)  # else vLLM's process would live on without this one
    before = multiprocessing.active_children()
    try:
        llm = vllm.LLM(**fixed, trust_remote_code=False, **settings)
    except Exception as error:  # of many kinds; what happened in its own process is said there
        raise PerpoError(
            f"vLLM cannot load {model}: {first_line(error)}",
            "see what it says above; where memory does not suffice: --vllm_args max_model_len=4096 "
            "gpu_memory_utilization=0.8, or tensor_parallel_size=2",
        ) from error
    return llm, [process for process in multiprocessing.active_children() if process not in before]


def _imported() -> tuple[Any, Any]:
    """vLLM, and its platform.

    Raises:
        PerpoError: It cannot be imported.
    """
    try:
        import vllm
        import vllm.lora.request
        from vllm.platforms import current_platform
    except Exception as error:  # a build for another torch, a missing library
        raise PerpoError(
            f"vLLM is installed, but cannot be imported: {first_line(error)}",
            "make an environment in which its torch and ours are one (docs/engines.md), or use --engine server",
        ) from error
    version = str(vllm.__version__)
    if not _number(TRIED[0]) <= _number(version) <= _number(TRIED[1]):
        print(f"warning: this engine is written for vLLM {' to '.join(TRIED)}, and {version} is here", file=sys.stderr)
    return vllm, current_platform


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) if part.isdigit() else 0 for part in version.split(".")[:2])


@contextmanager
def _own_environment(gpus: int) -> Iterator[None]:
    """Within it the environment is vLLM's: of several processes each has GPUs of its own, and no launcher is seen.

    Args:
        gpus: How many each process takes.

    Raises:
        PerpoError: There are too few.
    """
    kept = dict(os.environ)
    rank = int(os.environ.get("LOCAL_RANK", "0"))
    there = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count())))).split(",")
    mine = there[rank * gpus : (rank + 1) * gpus]
    if torch.cuda.device_count() and len(mine) < gpus:  # counted without making a context on them
        raise PerpoError(
            f"process {rank + 1} finds no GPU of its own: there are {len(there)}, and each process takes {gpus}",
            "give fewer --processes, or a smaller --vllm_args tensor_parallel_size",
        )
    for name in [*_LAUNCHED, *(each for each in os.environ if each.startswith("TORCHELASTIC_"))]:
        os.environ.pop(name, None)
    if "LOCAL_RANK" in kept and torch.cuda.device_count():
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
    # A fork would share our process group; vLLM in this very process would make one of its own.
    os.environ |= {"VLLM_WORKER_MULTIPROCESSING_METHOD": "spawn", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # ours is for results
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
