"""Files from the hub, and its errors in one sentence. Needs no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from perpo.common.files import disk_error
from perpo.errors import PerpoError


def download(name: str, patterns: Sequence[str]) -> Path:
    """Return the folder of a hub id, with those of its files that match one of the patterns.

    Raises:
        PerpoError: There is no such id, or the network, the hub or the disk fails.
    """
    from huggingface_hub import snapshot_download

    with hub_errors(name):
        return Path(snapshot_download(name, allow_patterns=list(patterns)))


def use_hub_cache(folder: str | Path) -> None:
    """Keep what comes from the hub in this folder from now on, in this process and those that it starts."""
    from huggingface_hub import constants

    os.environ["HF_HUB_CACHE"] = constants.HF_HUB_CACHE = str(folder)


@contextmanager
def hub_errors(resolved: str) -> Iterator[None]:
    """Make a sentence of an error of the hub: exit code 2 for a wrong name, 3 for the network, the hub or the disk."""
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
