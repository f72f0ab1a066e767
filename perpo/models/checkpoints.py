"""Find a checkpoint, see whether it can be loaded, and take its digest. Needs no torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from perpo.boxes import ImageSize
from perpo.common.files import disk_error
from perpo.common.redact import without_secrets
from perpo.errors import PerpoError
from perpo.models.families import FAMILIES, Family, family_of, with_bounds
from perpo.records.training_record import ADAPTER_WEIGHTS, read_record

EMBEDDED = {"tiny": "checkpoint", "tiny-ocr": "ocr_checkpoint"}  # folders of perpo/tiny
_HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja"]
_CONVERT_HINT = (
    "use its Hugging Face conversion (llava-hf/llava-1.5-7b-hf for LLaVA-1.5 7B), or convert it with "
    "src/transformers/models/llava/convert_llava_weights_to_hf.py of the transformers repository"
)


def resolve_model(name: str) -> str:
    """Say where a model is, without loading it.

    Args:
        name: A key of `EMBEDDED`, a directory in the Hugging Face layout, or a hub id.

    Returns:
        A directory, or the hub id as it was given.

    Raises:
        PerpoError: A directory that holds no usable model.
    """
    name = str(checkpoint_dir(name)) if name in EMBEDDED else name
    if Path(name).is_dir():
        _check_checkpoint(Path(name))
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
    """Return SHA-256 of a model's safetensors files, concatenated in the order of their names."""
    return files_digest(sorted(directory.glob("*.safetensors")))


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


def _check_checkpoint(directory: Path) -> None:
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
    if "mm_vision_tower" in config or config.get("model_type") == "llava_llama":
        raise PerpoError(
            f"{directory} is an original LLaVA checkpoint, which is not in the Hugging Face layout", _CONVERT_HINT
        )
    if (directory / "adapter_config.json").is_file():  # transformers would put it on the model, whether it fits or not
        raise PerpoError(
            f"{directory} holds both a model and an adapter",
            "move one of them into another folder, and give the adapter as --adapter",
        )
    if not any(directory.glob("*.safetensors")):
        raise PerpoError(
            f"{directory} holds no weights in the safetensors format",
            "convert it: load it with transformers and save it with save_pretrained",
        )


def model_config(resolved: str) -> dict[str, Any]:
    """Return the config.json of a model that `resolve_model` found; of a hub id, that file alone is downloaded."""
    return _settings(resolved, "config.json") or {}


def known_family(model: str) -> Family | None:
    """Return the row of the table of families for a model as the user named it; None where its type is in none.

    Raises:
        PerpoError: It cannot be found.
    """
    return FAMILIES.get(model_config(resolve_model(model)).get("model_type", ""))


def refused_pictures(model: str) -> Callable[[ImageSize], str | None]:
    """Return what a model's family has against a picture of (width, height) pixels: a function that gives None where
    it takes it, as one does for all where the type is not in the table.

    Raises:
        PerpoError: The model, named as the user does, cannot be found.
    """
    family = known_family(model)
    return (lambda size: None) if family is None else family.refuses


def grounding_prompt(model: str) -> str | None:
    """Return how a model as the user named it is asked for an `{expression}`; None where its type is not in the table.

    Raises:
        PerpoError: It cannot be found.
    """
    family = known_family(model)
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
            with _hub_errors(resolved):
                path = Path(hf_hub_download(resolved, name))
        except PerpoError as error:
            if name != "config.json" and isinstance(error.__cause__, EntryNotFoundError):
                return None
            raise
    return json.loads(path.read_text()) if path.is_file() else None


def use_hub_cache(folder: str | Path) -> None:
    """Keep what comes from the hub in this folder from now on, in this process and those that it starts."""
    from huggingface_hub import constants

    os.environ["HF_HUB_CACHE"] = constants.HF_HUB_CACHE = str(folder)


def small_files(resolved: str) -> Path:
    """Return the directory of a model's files but its weights; of a hub id, these alone are downloaded."""
    if Path(resolved).is_dir():
        return Path(resolved)
    from huggingface_hub import snapshot_download

    with _hub_errors(resolved):
        return Path(snapshot_download(resolved, allow_patterns=_HUB_FILES[1:]))


def local_directory(resolved: str) -> Path:
    """Return the directory of a model that `resolve_model` found; a hub id is downloaded (safetensors only)."""
    if Path(resolved).is_dir():
        return Path(resolved)
    from huggingface_hub import snapshot_download

    with _hub_errors(resolved):
        directory = Path(snapshot_download(resolved, allow_patterns=_HUB_FILES))
    _check_checkpoint(directory)
    return directory


@contextmanager
def _hub_errors(resolved: str) -> Iterator[None]:
    """What the hub says becomes one sentence: exit code 2 for a wrong name, 3 for the network, the hub or the disk."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        if (full := disk_error(error, HF_HUB_CACHE)) is not None:
            raise full from error
        wrong = _names_nothing(error)
        raise PerpoError(
            f"{resolved} is not a folder, and it could not be fetched from the hub: {first_line(error)}",
            f"check {'the name' if wrong else 'the network'}, or give a folder",
            exit_code=2 if wrong else 3,
        ) from error


def _names_nothing(error: Exception) -> bool:
    """Whether an error of the hub says that there is no such model, or none for this user."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # A gated model is a RepositoryNotFoundError too.
    if isinstance(error, (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError, RemoteEntryNotFoundError)):
        return True
    return isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 404)


def first_line(error: Exception) -> str:
    """Return what a library's error says, short enough for one sentence."""
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__


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
