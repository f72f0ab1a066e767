"""Choose the engine that answers, for perpo-sample and perpo-eval alike. Needs no torch until it loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perpo.engines.base import Engine
    from perpo.engines.served import ServersWanted
    from perpo.engines.vllm_flags import VllmWanted
    from perpo.models.loaded import DType


def load_engine(
    model: str,
    adapter: str | None = None,
    *,
    dtype: DType | None = None,
    device: str | None = None,
    servers: ServersWanted | None = None,
    vllm: VllmWanted | None = None,
) -> Engine:
    """Load what answers.

    Args:
        model: "tiny", a directory in the Hugging Face layout, or a hub id.
        adapter: Directory that `perpo-train` (or PEFT) wrote, or None.
        dtype: Type of the weights; by default the device's.
        device: Such as "cpu" or "cuda:0"; by default CUDA where there is one.
        servers: The servers that have the model; None to load it here.
        vllm: How vLLM is set up that loads it here; None for transformers.

    Raises:
        PerpoError: The model cannot be loaded, or is not served.
    """
    if servers is not None:
        from perpo.engines.server import load_server

        return load_server(model, servers)
    if vllm is not None:
        from perpo.engines.vllm_loading import load_vllm
        from perpo.models.keeping import let_go

        let_go()  # vLLM asks for most of the GPU's memory
        return load_vllm(model, adapter, vllm, dtype=dtype)
    from perpo.engines.hf import load_hf

    return load_hf(model, adapter, dtype=dtype, device=device)
