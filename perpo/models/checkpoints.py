"""Find a checkpoint, see whether it can be loaded, and take its digest. Needs no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from perpo.boxes import ImageSize
from perpo.common.redact import without_secrets
from perpo.errors import PerpoError
from perpo.models.families import FAMILIES, Family, family_of, with_bounds
from perpo.models.hub import download, first_line, hub_errors
from perpo.models.original import check_original, hugging_face_config, is_original, is_original_at
from perpo.models.original_files import files_of_weights, weight_files
from perpo.records.training_record import ADAPTER_WEIGHTS, read_record

EMBEDDED = {"tiny": "checkpoint", "tiny-ocr": "ocr_checkpoint"}  # folders of perpo/tiny
_WEIGHTS = "*.safetensors"
_HUB_FILES = [_WEIGHTS, "*.json", "*.txt", "*.model", "*.jinja"]


def resolve_model(name: str, *, weights: bool = True) -> str:
    """Say where a model is, without loading it.

    Args:
        name: A key of `EMBEDDED`, a directory in the Hugging Face layout or that of LLaVA's own code, or a hub id.
        weights: Whether a directory must hold its weights, which an estimate does without.

    Returns:
        A directory, or the hub id as it was given.

    Raises:
        PerpoError: A directory that holds no usable model.
    """
    name = str(checkpoint_dir(name)) if name in EMBEDDED else name
    if Path(name).is_dir():
        _check_checkpoint(Path(name), weights=weights)
        return name
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise PerpoError(f"there is no model folder {name}", f"give a folder, a hub id or {' or '.join(EMBEDDED)}")
    return name


def public_name(name: str) -> str:
    """Return what others read as the name of a model or adapter: a folder's own name, no path, no secrets."""
    return Path(name).resolve().name if Path(name).is_dir() else without_secrets(name)


def adapter_digest(adapter: str | Path) -> str:
    """Return SHA-256 of an adapter's weights.

    Raises:
        PerpoError: The directory holds no adapter.
    """
    path = Path(adapter) / ADAPTER_WEIGHTS
    if not path.is_file() or not path.with_name("adapter_config.json").is_file():
        raise PerpoError(
            f"{adapter} does not hold an adapter ({ADAPTER_WEIGHTS} and adapter_config.json)",
            "give the output_dir of a perpo-train run",
        )
    return files_digest([path])


def weights_digest(directory: Path) -> str:
    """Return SHA-256 of a model's weight files, concatenated in the order of their names.

    Those of an original LLaVA checkpoint are followed by its vision tower's, where it is read from elsewhere.
    """
    return files_digest(files_of_weights(directory))


def processor_files(directory: Path) -> list[Path]:
    """Return everything that changes what the model reads or how it ends, and is not weights."""
    endings = (".json", ".jinja", ".txt", ".model")
    return sorted(path for path in directory.iterdir() if path.suffix in endings and "index" not in path.name)


def settings_digests(directory: Path, adapter: str | None) -> dict[str, str | None]:
    """Return what answers depend on beside weights: digests of a model's other files and of how an adapter acts."""
    acting = None if adapter is None else files_digest([Path(adapter, "adapter_config.json")])
    return {"processor": files_digest(processor_files(directory)), "adapter_config": acting}


def files_digest(paths: Sequence[Path]) -> str:
    """Return SHA-256 of the files' bytes, concatenated in the given order."""
    return _digest(tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths))


@lru_cache(maxsize=64)
def _digest(files: tuple[tuple[str, int, int], ...]) -> str:
    # Size and time are part of the key only: rounds load one large base many times in one process.
    sha = hashlib.sha256()
    for path, _, _ in files:
        for block in _blocks(path):
            sha.update(block)
    return sha.hexdigest()


def _blocks(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            yield block


def _check_checkpoint(directory: Path, *, weights: bool = True) -> None:
    config_path = directory / "config.json"
    if not config_path.is_file():
        if (directory / "adapter_config.json").is_file():
            raise PerpoError(f"{directory} is an adapter, not a model", "give it as --adapter, and its base as --model")
        raise PerpoError(
            f"{directory} is not a model: it has no config.json", "give a folder in the Hugging Face layout"
        )
    try:
        config = json.loads(config_path.read_text())
    except ValueError as error:
        raise PerpoError(
            f"{config_path} is not JSON: {first_line(error)}", "check that the download is complete"
        ) from error
    if (directory / "adapter_config.json").is_file():  # transformers would put it on the model, whether it fits or not
        raise PerpoError(
            f"{directory} holds both a model and an adapter",
            "move one of them into another folder, and give the adapter as --adapter",
        )
    if is_original(config):
        check_original(directory, config)
        if weights:  # the vision tower may be named later
            weight_files(directory)
    elif weights and not any(directory.glob(_WEIGHTS)):
        raise PerpoError(
            f"{directory} holds no weights in the safetensors format",
            "convert it: load it with transformers and save it with save_pretrained",
        )


def model_config(resolved: str) -> dict[str, Any]:
    """Return the config.json of a model that `resolve_model` found; of a hub id, that file alone is downloaded.

    That of an original LLaVA checkpoint is told as the Hugging Face layout has it.
    """
    config = _settings(resolved, "config.json") or {}
    return hugging_face_config(small_files(resolved)) if is_original(config) else config


def known_family(model: str, *, weights: bool = True) -> Family | None:
    """Return the row of the table of families for a model as the user named it; None where its type is in none.

    Args:
        model: The name.
        weights: As for `resolve_model`.

    Raises:
        PerpoError: It cannot be found.
    """
    return FAMILIES.get(model_config(resolve_model(model, weights=weights)).get("model_type", ""))


def refused_pictures(model: str) -> Callable[[ImageSize], str | None]:
    """Return what a model's family has against a picture of (width, height) pixels: a function that gives None where
    it takes it, as one does for all where the type is not in the table.

    Raises:
        PerpoError: The model, named as the user does, cannot be found.
    """
    family = known_family(model)
    return (lambda size: None) if family is None else family.refuses


def grounding_prompt(model: str, *, weights: bool = True) -> str | None:
    """Return how a model as the user named it is asked for an `{expression}`; None where its type is not in the table.

    Args:
        model: The name.
        weights: As for `resolve_model`.

    Raises:
        PerpoError: It cannot be found.
    """
    family = known_family(model, weights=weights)
    return None if family is None else family.grounding_prompt


def family_at(resolved: str) -> Family:
    """Return the family of a model that `resolve_model` found, with the bounds of its own image processor.

    Raises:
        PerpoError: Its model type is not in the table.
    """
    family = family_of(model_config(resolved).get("model_type", ""))
    if family.boxes is None or family.boxes.resize is None:
        return family
    whole = _settings(resolved, "processor_config.json") or {}  # the library reads this one first
    return with_bounds(family, whole.get("image_processor") or _settings(resolved, "preprocessor_config.json") or {})


def _settings(resolved: str, name: str) -> dict[str, Any] | None:
    """A JSON file of a model, downloaded alone from the hub; None where the model has none."""
    path = Path(resolved, name)
    if not Path(resolved).is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError

        try:
            with hub_errors(resolved):
                path = Path(hf_hub_download(resolved, name))
        except PerpoError as error:
            if name != "config.json" and isinstance(error.__cause__, EntryNotFoundError):
                return None
            raise
    return json.loads(path.read_text()) if path.is_file() else None


def small_files(resolved: str) -> Path:
    """Return the directory of a model's files but its weights; of a hub id, these alone are downloaded."""
    return Path(resolved) if Path(resolved).is_dir() else download(resolved, _HUB_FILES[1:])


def local_directory(resolved: str, *, weights: bool = True) -> Path:
    """Return the directory of a model that `resolve_model` found; a hub id is downloaded.

    Of its weights safetensors alone are, but for an original LLaVA checkpoint that has none.

    Args:
        resolved: What `resolve_model` gave.
        weights: Whether the weights are needed; without them only the small files of a hub id are downloaded.
    """
    if Path(resolved).is_dir():
        return Path(resolved)
    directory = download(resolved, _HUB_FILES if weights else _HUB_FILES[1:])
    if weights and not any(directory.glob(_WEIGHTS)) and is_original_at(directory):
        directory = download(resolved, [*_HUB_FILES, "pytorch_model*.bin"])
    _check_checkpoint(directory, weights=weights)
    return directory


def digests_of(directory: str | Path) -> dict[str, str | None]:
    """Return the record's digests of what training left in a directory: an adapter, or a whole checkpoint."""
    if (Path(directory) / ADAPTER_WEIGHTS).is_file():
        return {"adapter_sha256": adapter_digest(directory), "weights_sha256": None}
    return {"adapter_sha256": None, "weights_sha256": weights_digest(Path(directory))}


def adapter_of(weights_sha256: str, adapter: str | Path) -> str:
    """Return SHA-256 of an adapter's weights, if it may be put on a base of that digest.

    An adapter that perpo-train did not write does not say what it was trained on, and may.

    Raises:
        PerpoError: The directory holds no adapter, or one that was trained on other weights.
    """
    digest = adapter_digest(adapter)
    record = read_record(adapter)
    if record is not None and record["model"]["weights_sha256"] != weights_sha256:
        raise PerpoError(
            f"the adapter {adapter} was trained on another model: {record['model'].get('name')}",
            "give the model that the adapter was trained on",
        )
    return digest


def checkpoint_dir(name: str = "tiny") -> Path:
    """Return the folder of an embedded checkpoint (Hugging Face layout, safetensors), by its key in `EMBEDDED`."""
    return Path(__file__).parents[1] / "tiny" / EMBEDDED[name]
