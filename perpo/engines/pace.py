"""Decide when calls of a server may begin: so many in a second, and none while it asks to wait."""

from __future__ import annotations

import asyncio
from email.utils import parsedate_to_datetime
from time import time

import httpx


class Pace:
    """A clock that says when the next call may begin."""

    def __init__(self, rps: float | None) -> None:
        self._gap_s = 1 / rps if rps else 0.0
        self._next = 0.0

    async def turn(self) -> None:
        """Wait until a call may begin."""
        while True:
            now = asyncio.get_running_loop().time()
            if self._next <= now:
                self._next = now + self._gap_s
                return
            await asyncio.sleep(self._next - now)

    def hold(self, wait_s: float) -> None:
        """Let no call begin for so many seconds."""
        self._next = max(self._next, asyncio.get_running_loop().time() + wait_s)


def retry_after(response: httpx.Response) -> float:
    """Return the seconds that a server asks to wait: Retry-After, a number or a date (RFC 9110, 10.2.3); else 0."""
    value = response.headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except ValueError:
        return 0.0
