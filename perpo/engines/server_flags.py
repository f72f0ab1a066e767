"""Flags of programs that can ask a server. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from perpo.common.arguments import arg, default_of
from perpo.common.numbers import AboveZero, Count
from perpo.engines.served import ServersWanted
from perpo.errors import PerpoError

_INSTEAD = {
    "adapter": "serve the adapter (vLLM: --enable-lora --lora-modules NAME=FOLDER) and give --served_model NAME, or "
    "merge it into its base (perpo-train merge) and serve that",
    "dtype": "the server's own type counts (vLLM: --dtype)",
    "stop_on_repetition": "leave it out: answers that end in a loop are counted anyhow",
}


@dataclass(frozen=True, kw_only=True)
class ServerFlags:
    """Flags that say which servers are asked. Their key is taken from the environment alone."""

    base_url: list[str] = arg(
        [], "for --engine server: addresses such as http://127.0.0.1:8000/v1; their key is PERPO_SERVER_API_KEY"
    )
    served_model: str | None = arg(
        None, "for --engine server: what the servers call the model (default: their only one)"
    )
    concurrency: Count = arg(32, "for --engine server: calls that are open at once, for each server")
    rps: AboveZero | None = arg(
        None, "for --engine server: most calls that are begun in a second, for each server (default: no limit)"
    )
    timeout_s: AboveZero = arg(600.0, "for --engine server: seconds for one try of a call")

    @property
    def servers(self) -> ServersWanted:
        """Return the servers that are to answer."""
        return ServersWanted(**{each.name: getattr(self, each.name) for each in fields(ServerFlags)})


def check_servers(engine: str, flags: ServerFlags, unused: Mapping[str, Any]) -> None:
    """Refuse flags that the engine has no use for.

    Args:
        engine: "server", or another one.
        flags: Which servers are asked.
        unused: Flags that servers have no use for, with what they say; None is nothing.

    Raises:
        PerpoError: There are such; or no address was given, or one that is none.
    """
    if engine != "server":
        for each in fields(ServerFlags):
            if getattr(flags, each.name) != default_of(each):
                raise PerpoError(
                    f"--{each.name} is for --engine server", f"add --engine server, or leave --{each.name} out"
                )
        return
    if not flags.servers.servers:
        raise PerpoError("--engine server needs the server's address", "--base_url http://127.0.0.1:8000/v1")
    for name, value in unused.items():
        if value is not None:
            raise PerpoError(f"--{name} is not for --engine server", _INSTEAD.get(name, f"leave --{name} out"))
