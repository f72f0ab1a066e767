"""A base with an adapter's weights in it, written as a checkpoint: where the user says, or once in the cache."""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from pathlib import Path

import torch

from perpo.common.files import cache_folder
from perpo.common.locks import InUse, new_folder
from perpo.errors import PerpoError
from perpo.models.checkpoints import (
    adapter_of,
    local_directory,
    model_config,
    public_name,
    resolve_model,
    settings_digests,
    weights_digest,
)
from perpo.models.loaded import DType, LoadedModel
from perpo.models.loading import load_model
from perpo.models.original_files import files_of_weights

_VERSION = "1"  # of what is written
_LOOK_EVERY_S = 1.0
_SPARE = 1.1
"""How much more room there must be than the weights take."""


def write_merged(model: str, adapter: str, folder: Path, dtype: str) -> LoadedModel:
    """Write weights and processor of a base with an adapter in it; the sum is computed in float32 and rounded once.

    Args:
        model: The base.
        adapter: Folder of the adapter.
        folder: Where to.
        dtype: Type of the written weights.

    Returns:
        The base, of which nothing but the processor is to be used any more.
    """
    loaded = load_model(model, adapter, dtype="float32", device="cpu")
    merged = loaded.model.merge_and_unload(safe_merge=True)
    merged.to(getattr(torch, dtype)).save_pretrained(folder)
    loaded.processor.save_pretrained(folder)
    return loaded


def merged_once(model: str, adapter: str, dtype: DType) -> Path:
    """Return the folder of a base with an adapter in it, in the cache; written where it is not there yet.

    Its name is a digest of both, so that it never holds another one. Of several processes one writes it, and the
    others wait.

    Args:
        model: The base.
        adapter: Folder of the adapter.
        dtype: Type of its weights.

    Raises:
        PerpoError: Both cannot be used together, or the disk has no room (exit code 3).
    """
    base = local_directory(resolve_model(model))
    weights = weights_digest(base)
    settings = settings_digests(base, adapter)
    parts = (_VERSION, dtype, weights, adapter_of(weights, adapter), *map(str, settings.values()))
    output = cache_folder() / "merged" / hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:32]
    waited = False
    while not output.is_dir():
        try:
            with new_folder(output, "merge") as new:
                _check_room(base, output, dtype)
                print(f"note: {public_name(adapter)} is merged into {public_name(model)}, in {output}", file=sys.stderr)
                write_merged(model, adapter, new, dtype)
        except InUse:
            if not waited:
                print("note: waiting for another process that merges this adapter", file=sys.stderr)
            waited = True
            time.sleep(_LOOK_EVERY_S)
        except PerpoError:
            if not output.is_dir():  # else another process was done in between
                raise
    return output


def _check_room(base: Path, output: Path, dtype: DType) -> None:
    """Refuse to begin what the disk has no room for.

    Raises:
        PerpoError: It has none (exit code 3).
    """
    config = model_config(str(base))
    known = config.get("dtype") or config.get("torch_dtype")
    larger = 2 if dtype == "float32" and known != "float32" else 1
    needed = _SPARE * larger * sum(file.stat().st_size for file in files_of_weights(base))
    place = next(folder for folder in output.parents if folder.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise PerpoError(
            f"the merged model takes {needed / 1e9:.1f} GB, and {place} has {free / 1e9:.1f} GB left",
            "make room, or set XDG_CACHE_HOME to a folder on a larger disk",
            exit_code=3,
        )
