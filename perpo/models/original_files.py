"""The weight files of LLaVA's own checkpoint directories, and of their vision towers.

Needs no torch until they are read.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.errors import PerpoError
from perpo.models.hub import first_line
from perpo.models.original import fetched_tower, is_original_at, tower_name

if TYPE_CHECKING:
    from torch import Tensor

TOWER_KEY = "model.vision_tower."
_INDEX = {".safetensors": "model.safetensors.index.json", ".bin": "pytorch_model.bin.index.json"}
_CHECK = "check that the download is complete"


def weight_files(directory: str | Path) -> list[Path]:
    """Return the files with a checkpoint's or a tower's weights: safetensors, or else PyTorch's `.bin`.

    Raises:
        PerpoError: There are none, or some that an index names are missing.
    """
    folder = Path(directory)
    for ending, pattern in ((".safetensors", "*.safetensors"), (".bin", "pytorch_model*.bin")):
        there, index = sorted(folder.glob(pattern)), _INDEX[ending]
        if (folder / index).is_file():
            named = [folder / name for name in sorted(set(_index(folder / index).values()))]
            if absent := [path.name for path in named if not path.is_file()]:
                raise PerpoError(
                    f"{folder} lacks {len(absent)} of the {len(named)} weight files that {index} names, such as "
                    f"{absent[0]}",
                    _CHECK,
                )
            return named
        if there:
            return there
    raise PerpoError(f"{folder} holds no weights in the safetensors format, and no pytorch_model.bin", _CHECK)


def _index(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text())["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise PerpoError(f"{path} is no index of weight files", _CHECK) from error


def weight_names(directory: str | Path) -> Iterable[str]:
    """Return the names of a checkpoint's weights, without reading these where an index or safetensors tell them.

    Raises:
        PerpoError: A file cannot be read.
    """
    files = weight_files(directory)
    index = Path(directory, _INDEX[files[0].suffix])
    return _index(index) if index.is_file() else [name for path in files for name in _names(path)]


def _names(path: Path) -> Iterable[str]:
    if path.suffix == ".bin":
        return read_file(path)
    with path.open("rb") as file:
        try:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(length, path.stat().st_size)))
        except (struct.error, ValueError) as error:
            raise PerpoError(f"{path} cannot be loaded: it is no safetensors file", _CHECK) from error
    return header.keys() - {"__metadata__"}


def read_file(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weight file, mapped into memory; no code that is in it is run.

    Raises:
        PerpoError: It is damaged, or holds something other than tensors.
    """
    import torch
    from safetensors import safe_open

    try:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as tensors:
                return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 (it is no mapping)
        read: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # the libraries raise many kinds for damaged files
        raise PerpoError(f"{path} cannot be loaded: {first_line(error)}", _CHECK) from error
    if not isinstance(read, dict) or not all(isinstance(each, torch.Tensor) for each in read.values()):
        raise PerpoError(f"{path} cannot be loaded: it holds more than tensors", "check that it holds weights")
    return read


def holds_tower(directory: str | Path) -> bool:
    """Return whether an original checkpoint's weights hold its vision tower."""
    return any(name.startswith(TOWER_KEY) for name in weight_names(directory))


def files_of_weights(directory: str | Path) -> list[Path]:
    """Return the files that a model's numbers come from: its weights and, where these lack it, its vision tower.

    Raises:
        PerpoError: Some are not there.
    """
    if not is_original_at(directory):
        return sorted(Path(directory).glob("*.safetensors"))
    files = weight_files(directory)
    if holds_tower(directory):
        return files
    tower = tower_folder(directory)
    return [*files, *weight_files(tower), *(path for path in [tower / "config.json"] if path.is_file())]


def tower_folder(directory: str | Path) -> Path:
    """Return the folder of the vision tower of an original checkpoint that does not hold its own, weights included.

    Raises:
        PerpoError: It cannot be found; or it was trained along with the checkpoint, so that no other one is right.
    """
    config = json.loads(Path(directory, "config.json").read_text())
    if config.get("unfreeze_mm_vision_tower") or "mm_vision_tower" in (config.get("mm_tunable_parts") or ""):
        raise PerpoError(
            f"{directory} lacks the weights of its vision tower, which was trained along with it",
            _CHECK,
        )
    name = tower_name(directory)
    folder = fetched_tower(name, ("*.json", "*.safetensors"))
    if not any(folder.glob("*.safetensors")) and not Path(name).is_dir():
        folder = fetched_tower(name, ("*.json", "pytorch_model*.bin"))
    return folder
