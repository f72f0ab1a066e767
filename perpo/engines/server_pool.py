"""Several servers of one model: each call goes to the one with the fewest open, and to another where it is gone."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from perpo.engines.chat import ChatClient, ChatServer
from perpo.engines.replies import Completion
from perpo.errors import PerpoError


@dataclass
class ServerPool:
    """Open connections to the servers that are there.

    Attributes:
        clients: By address.
        room: How many more calls each takes.
        open_calls: How many each has.
        gone: Servers that gave no answers at any try; shared by all pools of an engine.
    """

    clients: dict[str, ChatClient]
    room: dict[str, asyncio.Semaphore]
    open_calls: dict[str, int]
    gone: set[str]

    @classmethod
    async def open(
        cls, stack: AsyncExitStack, servers: Sequence[ChatServer], key: str | None, gone: set[str]
    ) -> ServerPool:
        """Connect to the servers that are not gone; the stack closes the connections."""
        there = [server for server in servers if server.base_url not in gone]
        clients = {
            server.base_url: await stack.enter_async_context(ChatClient(server, key, answered=True)) for server in there
        }
        room = {server.base_url: asyncio.Semaphore(server.concurrency) for server in there}
        return cls(clients, room, dict.fromkeys(clients, 0), gone)

    async def complete(self, body: dict[str, Any]) -> Completion:
        """Ask the server with the fewest open calls; another one where it is gone."""
        while True:
            url = min((url for url in self.clients if url not in self.gone), key=lambda each: self.open_calls[each])
            self.open_calls[url] += 1
            try:
                async with self.room[url]:
                    return await self.clients[url].complete(body)
            except PerpoError as error:
                others = set(self.clients) - self.gone - {url}
                if error.exit_code != 3 or not others:
                    raise
                if url not in self.gone:
                    warn(f"{error.message}; the other servers go on")
                self.gone.add(url)
            finally:
                self.open_calls[url] -= 1


def warn(text: str) -> None:
    """Say what the user must know of a server."""
    print(f"warning: {text}", file=sys.stderr)
