"""A model as its servers describe it, looked at before anything is asked. Needs no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from perpo.common.hints import did_you_mean
from perpo.common.redact import without_secrets
from perpo.errors import PerpoError

if TYPE_CHECKING:
    from perpo.engines.chat import ChatServer

KEY_VARIABLE = "PERPO_SERVER_API_KEY"
"""The environment variable that holds the servers' key."""

_TIMEOUT_S = 20.0
_LONGEST = 200


@dataclass(frozen=True)
class ServedModel:
    """A model as its servers know it.

    Attributes:
        name: What it is asked for by.
        root: What the server says that it loaded, the last part of a path alone; None where it does not say.
        software: Who owns the model in the server's list, such as "vllm"; None where it does not say.
        version: Of that software, where the server says it.
        most_tokens: The longest sequence that the server takes, or None where it does not say.
    """

    name: str
    root: str | None = None
    software: str | None = None
    version: str | None = None
    most_tokens: int | None = None

    @property
    def told(self) -> dict[str, Any]:
        """Return what records say of it."""
        return {"model": self.name, "root": self.root, "software": self.software, "version": self.version}


@dataclass(frozen=True, kw_only=True)
class ServersWanted:
    """The servers that are to answer; each field is called as the flag is.

    Attributes:
        base_url: Their addresses.
        served_model: The model's name there; None for the only one.
        concurrency: Calls that are open at once, for each server.
        rps: Calls that are begun in a second, for each server; None: no limit.
        timeout_s: For one try of a call.
    """

    base_url: Sequence[str]
    served_model: str | None
    concurrency: int
    rps: float | None
    timeout_s: float

    @property
    def servers(self) -> list[ChatServer]:
        """Return each of them.

        Raises:
            PerpoError: An address that is none, is given twice, or holds a password.
        """
        from perpo.engines.chat import ChatServer  # httpx takes a fifth of a second

        addresses = [url.rstrip("/") for url in self.base_url]
        if len(set(addresses)) < len(addresses):
            raise PerpoError("--base_url has one address twice", "give each server once")
        flags = ("--served_model", "--base_url")
        return [
            ChatServer(url, self.rps, self.concurrency, self.timeout_s, called="server", flags=flags)
            for url in addresses
        ]


def look_at(servers: Sequence[ChatServer], name: str | None, key: str | None) -> ServedModel:
    """Ask every server which models it has.

    Args:
        servers: All of them.
        name: The model that is wanted; None for the only one.
        key: Their key, or None.

    Returns:
        The model.

    Raises:
        PerpoError: A server is not there, does not have it, has several and none was named, or the servers do not
            serve the same.
    """
    models = [_model_of(server, name, key) for server in servers]
    for server, model in zip(servers[1:], models[1:], strict=True):
        if model != models[0]:
            raise PerpoError(
                f"the servers do not serve the same model: {servers[0].base_url} has {_said(models[0])}, "
                f"{server.base_url} has {_said(model)}",
                "give servers of one model and one version",
            )
    return models[0]


def server_key() -> str | None:
    """Return the servers' key, from the environment alone."""
    return os.environ.get(KEY_VARIABLE) or None


def _model_of(server: ChatServer, name: str | None, key: str | None) -> ServedModel:
    listed = _get(f"{server.base_url.rstrip('/')}/models", server, key)
    rows = listed.get("data") if isinstance(listed, dict) else None
    models = {str(row["id"]): row for row in rows or [] if isinstance(row, dict) and "id" in row}
    if not models:
        raise PerpoError(f"the server at {server.base_url} lists no models", "check that --base_url ends in /v1")
    if name is None and len(models) > 1:
        raise PerpoError(
            f"the server at {server.base_url} has {len(models)} models: {', '.join(models)[:_LONGEST]}",
            "name one with --served_model",
        )
    wanted = next(iter(models)) if name is None else name
    if wanted not in models:
        raise PerpoError(f"the server at {server.base_url} has no model '{wanted}'", did_you_mean(wanted, models))
    row = models[wanted]
    root, most = row.get("root"), row.get("max_model_len")
    return ServedModel(
        wanted,
        PurePath(without_secrets(root)).name if isinstance(root, str) and root else None,
        str(row["owned_by"])[:_LONGEST] if row.get("owned_by") else None,
        _version(server, key),
        most if isinstance(most, int) else None,
    )


def _version(server: ChatServer, key: str | None) -> str | None:
    """vLLM's version; other servers have no such address."""
    import httpx

    try:
        told = _get(str(httpx.URL(server.base_url).copy_with(path="/version")), server, key)
    except PerpoError:
        return None
    version = told.get("version") if isinstance(told, dict) else None
    return version[:_LONGEST] if isinstance(version, str) else None


def _get(url: str, server: ChatServer, key: str | None) -> Any:
    import httpx

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        response = httpx.get(url, headers=headers, timeout=_TIMEOUT_S)  # redirects are not followed: they get no key
    except httpx.HTTPError as error:
        raise PerpoError(
            f"there is no server at {server.base_url}: {type(error).__name__}",
            "start it, or check --base_url",
            exit_code=2,
        ) from error
    if response.status_code in (401, 403):
        raise PerpoError(
            f"the server at {server.base_url} wants a key (status {response.status_code})",
            f"set {KEY_VARIABLE} to it",
        )
    try:
        if response.status_code != 200:
            raise ValueError
        return json.loads(response.content)
    except ValueError:
        raise PerpoError(
            f"{url} gives no list of models (status {response.status_code})",
            "check that --base_url has the right end, usually /v1",
        ) from None


def _said(model: ServedModel) -> str:
    return ", ".join(str(value) for value in (model.name, model.root, model.software, model.version) if value)
