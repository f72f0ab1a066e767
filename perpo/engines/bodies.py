"""Bodies that judges and servers send are read up to a limit: one without end fails its call, and fills no memory."""

from __future__ import annotations

from typing import Any

LARGEST_BODY = 16 << 20
"""In bytes, unpacked; a chat completion has some thousand."""


class BodyTooLarge(Exception):
    """A server sent more than `LARGEST_BODY`; the rest was not read."""

    def __init__(self) -> None:
        super().__init__(f"the body is larger than {LARGEST_BODY >> 20} MiB")


async def read_body(response: Any) -> bytes:
    """Return the unpacked body of an httpx response that is being streamed.

    Raises:
        BodyTooLarge: It is longer than the limit.
    """
    parts, size = [], 0
    async for part in response.aiter_bytes(1 << 16):
        size += len(part)
        if size > LARGEST_BODY:
            raise BodyTooLarge
        parts.append(part)
    return b"".join(parts)


def limit_bodies(client: Any) -> bool:
    """Let the client of an OpenAI-compatible server fail where a body is too large; whether it is such a client."""
    http = getattr(client, "_client", None)  # what the openai package calls its httpx client, or that of httpx2
    if http is None or not hasattr(http, "event_hooks"):
        return False
    keep = _keep_async if hasattr(http, "aclose") else _keep
    http.event_hooks["response"].append(keep)
    return True


# httpx calls these before it reads the body, and reads none that is there.
def _keep(response: Any) -> None:
    parts, size = [], 0
    try:
        for part in response.iter_bytes(1 << 16):
            size += len(part)
            if size > LARGEST_BODY:
                raise BodyTooLarge
            parts.append(part)
    finally:
        response.close()
    response._content = b"".join(parts)


async def _keep_async(response: Any) -> None:
    try:
        response._content = await read_body(response)
    finally:
        await response.aclose()
