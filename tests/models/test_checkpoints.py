"""A model of the hub that can't be had: a wrong name is the user's to mend, the network is infrastructure."""

from __future__ import annotations

import errno

import huggingface_hub
import pytest
from huggingface_hub import errors

from perpo.common.files import NotWritten
from perpo.errors import PerpoError
from perpo.models.checkpoints import local_directory, model_config


def http_error(kind: type[errors.HfHubHTTPError], status: int) -> errors.HfHubHTTPError:
    """An error as the hub's answer with this status gives it, without asking."""
    response = type("Response", (), {"status_code": status, "headers": {}, "request": None})()
    error = kind.__new__(kind)
    Exception.__init__(error, f"{status} of the hub")
    error.response = response
    return error


WRONG = [
    errors.HFValidationError("Repo id must use alphanumeric chars"),
    http_error(errors.RepositoryNotFoundError, 401),
    http_error(errors.GatedRepoError, 403),
    http_error(errors.RevisionNotFoundError, 404),
    http_error(errors.RemoteEntryNotFoundError, 404),
    http_error(errors.HfHubHTTPError, 404),
    http_error(errors.HfHubHTTPError, 401),
]
UNREACHABLE = [
    http_error(errors.HfHubHTTPError, 500),
    http_error(errors.HfHubHTTPError, 429),
    errors.LocalEntryNotFoundError("outgoing traffic has been disabled"),
    errors.OfflineModeIsEnabled("HF_HUB_OFFLINE=1"),
    ConnectionError("Name or service not known"),
]


@pytest.mark.parametrize(
    ("error", "code", "hint"),
    [(error, 2, "check the name, or give a folder") for error in WRONG]
    + [(error, 3, "check the network, or give a folder") for error in UNREACHABLE],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
@pytest.mark.parametrize(
    ("function", "call"), [(model_config, "hf_hub_download"), (local_directory, "snapshot_download")]
)
def test_a_wrong_name_exits_with_2_and_the_network_with_3(error, code, hint, function, call, monkeypatch) -> None:
    def refuse(*words, **options):
        raise error

    monkeypatch.setattr(huggingface_hub, call, refuse)
    with pytest.raises(PerpoError, match="is not a folder, and it could not be fetched from the hub") as caught:
        function("owner/name")
    assert (caught.value.exit_code, caught.value.hint) == (code, hint)


def test_a_full_disk_is_not_the_network(monkeypatch) -> None:
    def full(*words, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", full)
    with pytest.raises(
        NotWritten, match=r"hub could not be written: No space left on device \(.* MiB left\)"
    ) as caught:
        local_directory("owner/name")
    assert (caught.value.exit_code, caught.value.hint) == (3, "make room")


@pytest.mark.parametrize("function", [model_config, local_directory])
def test_names_and_no_network_as_the_hubs_own_library_says_them(function, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(PerpoError) as caught:
        function("owner/no-such-model")
    assert caught.value.exit_code == 3
    with pytest.raises(PerpoError) as caught:
        function("owner/no such model")
    assert caught.value.exit_code == 2
