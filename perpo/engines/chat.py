"""One call to an OpenAI-compatible chat endpoint: paced, tried again, and honest about what went wrong."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from perpo.common.numbers import ABOVE_ZERO
from perpo.engines.bodies import BodyTooLarge, read_body
from perpo.engines.pace import Pace, retry_after
from perpo.engines.replies import Completion, Reply
from perpo.errors import PerpoError

TRIES = 6
TRIES_OF_TIME = 3
"""After so many time-outs a question is given up: an answer that runs on and on is paid for at each."""
_FIRST_WAIT_S = 1.0
_LONGEST_WAIT_S = 30.0
_LONGEST_RETRY_AFTER_S = 300.0
_GONE_AFTER = 3
"""So many calls in a row that reached nobody at any try, or, of a server that never answered, failed anyhow."""
_SHORTEST_SECRET = 8
"""Shorter keys are the dummies of local servers ("EMPTY"): words that a model may well use."""
_NO_CREDIT = "insufficient_quota"
_WITHOUT_ANSWER = {"content_filter", "content_policy_violation"}


@dataclass(frozen=True)
class ChatServer:
    """A server: where it is, and how hard it is pressed.

    Attributes:
        base_url: As OpenAI's clients take it, such as http://127.0.0.1:8000/v1; it must hold no password.
        rps: No more calls than this are begun in a second; None: no limit.
        concurrency: No more calls than this are open at once.
        timeout_s: For one try of a call.
        called: What messages call it; its key's variable holds the word.
        flags: The flags that name the model and the address.

    Raises:
        PerpoError: A value out of range, or an address that is none or holds a password or a query.
    """

    base_url: str
    rps: float | None = None
    concurrency: int = 16
    timeout_s: float = 300.0
    called: str = "judge"
    flags: tuple[str, str] = ("--judge_model", "--judge_base_url")

    def __post_init__(self) -> None:
        hint = "such as http://127.0.0.1:8000/v1"
        try:
            url = httpx.URL(self.base_url)
        except httpx.InvalidURL as error:
            raise PerpoError(f"the address of the {self.called} is not a URL: {error}", hint) from None
        if url.userinfo or url.query or url.fragment:
            raise PerpoError(
                f"the address of the {self.called} must not hold a user, password, query or fragment",
                f"put the key into {self.key_variable}",
            )
        if url.scheme not in ("http", "https") or not url.host:
            raise PerpoError(
                f"expected http(s)://HOST/... as the address of the {self.called}, found {self.base_url!r}", hint
            )
        for name in ("rps", "concurrency", "timeout_s"):
            value = getattr(self, name)
            if value is not None:
                ABOVE_ZERO.check(value, f"{name} of the {self.called}")

    @property
    def key_variable(self) -> str:
        """The environment variable that holds its key."""
        return f"PERPO_{self.called.upper()}_API_KEY"


class CallFailed(Exception):
    """A call got no answer, and another try now would not help; the text says why."""


class _TryAgain(CallFailed):
    def __init__(self, why: str, *, tries: int = TRIES, reached: bool = True) -> None:
        super().__init__(why)
        self.tries = tries
        self.reached = reached


class ChatClient:
    """The connection to a server; use it with `async with`.

    What may pass (429, 5xx, time-outs, broken connections, bodies that are no chat completion) is tried again
    with growing waits, `TRIES` times in all (`TRIES_OF_TIME` after a time-out); a Retry-After holds back every call.

    Args:
        server: Where it is, its pace, and the time for one try as a whole.
        key: Sent as the bearer token, or None. It is taken out of whatever the server says.
        answered: Whether it is known to answer such requests, so that one bad request is that question's fault.
    """

    def __init__(self, server: ChatServer, key: str | None, *, answered: bool = False) -> None:
        self._url = f"{server.base_url.rstrip('/')}/chat/completions"
        self._key = key
        self._called, self._key_variable, self._flags = server.called, server.key_variable, server.flags
        self._timeout_s = server.timeout_s
        self._answered = answered
        self._failures = 0
        self._pace = Pace(server.rps)
        # redirects are not followed: the key goes nowhere else
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.AsyncClient(headers=headers, timeout=None, limits=httpx.Limits(max_connections=None))

    async def __aenter__(self) -> ChatClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def ask(self, body: dict[str, Any]) -> Reply:
        """Ask once, for one answer; see `complete`."""
        return (await self.complete(body)).replies[0]

    async def complete(self, body: dict[str, Any]) -> Completion:
        """Ask once, for as many answers as the body says.

        Raises:
            CallFailed: There is no answer to this question; others may have one.
            PerpoError: No question would be answered (key, model, address, quota), or the server is gone.
        """
        waits = wait_random_exponential(multiplier=_FIRST_WAIT_S, max=_LONGEST_WAIT_S)
        retrying = AsyncRetrying(stop=_stop, wait=waits, retry=retry_if_exception_type(_TryAgain), reraise=True)
        try:
            completion: Completion = await retrying(self._try, body)
        except _TryAgain as error:
            self._failures += not (error.reached and self._answered)
            if self._failures >= _GONE_AFTER:
                raise PerpoError(
                    f"the {self._called} at {self._url} gives no answers: {error}",
                    f"answers so far are kept: repair the {self._called}, then run the same command again",
                    exit_code=3,
                ) from None
            raise CallFailed(f"{error} ({error.tries} tries)") from None
        self._failures, self._answered = 0, True
        return completion

    async def _try(self, body: dict[str, Any]) -> Completion:
        await self._pace.turn()
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._post(body)
        except TimeoutError:
            raise _TryAgain(f"no answer within {self._timeout_s:g} s", tries=TRIES_OF_TIME) from None
        except httpx.RequestError as error:
            reached = not isinstance(error, httpx.ConnectError)
            raise _TryAgain(self._said(f"{type(error).__name__}: {error}"), reached=reached) from None
        if response.status_code == 200:
            return self._completion(response)
        return Completion([self._failure(response)])

    async def _post(self, body: dict[str, Any]) -> httpx.Response:
        """The response, read up to a limit."""
        async with self._http.stream("POST", self._url, json=body) as response:
            try:
                content = await read_body(response)
            except BodyTooLarge as error:
                raise CallFailed(f"status {response.status_code}, and {error}") from None
            packing = ("content-encoding", "content-length", "transfer-encoding")
            headers = [(name, value) for name, value in response.headers.items() if name not in packing]
            return httpx.Response(response.status_code, headers=headers, content=content)

    def _completion(self, response: httpx.Response) -> Completion:
        try:
            answer = json.loads(response.content)
            choices = answer["choices"]
            replies = [self._reply(answer, choices[0]), *(self._reply(answer, choice) for choice in choices[1:])]
            return Completion(replies, _ids(answer.get("prompt_token_ids")))
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise _TryAgain(f"the body is not a chat completion: {self._said(response.text)}") from None

    def _reply(self, answer: dict[str, Any], choice: dict[str, Any]) -> Reply:
        message = choice["message"]
        refusal, content = message.get("refusal"), message.get("content")
        text = content if content else refusal
        if not (text is None or isinstance(text, str)):
            raise TypeError
        usage = answer.get("usage") or {}
        read, made = map(_count, (usage.get("prompt_tokens"), usage.get("completion_tokens")))
        reason = choice.get("finish_reason")
        thought = message.get("reasoning_content") or message.get("reasoning")
        return Reply(
            None if text is None else self._clean(text),
            None if reason is None else self._said(str(reason)),
            bool(refusal) or reason == "content_filter",
            self._said(answer["model"]) if isinstance(answer.get("model"), str) else None,
            read,
            made,
            _ids(choice.get("token_ids")),
            self._clean(thought) if isinstance(thought, str) else None,
        )

    def _failure(self, response: httpx.Response) -> Reply:
        """Sort a status that is not 200: the reply that a refusal is, or the error to be raised."""
        status = response.status_code
        codes, said = self._error_of(response)
        why = f"status {status}{f' ({said})' if said else ''}"
        if status == 402 or _NO_CREDIT in codes:  # OpenAI's 429 is this too
            hint = "answers so far are kept: add credit to the account, then run the same command again"
            raise PerpoError(f"the {self._called}'s credit is used up: {why}", hint, exit_code=3)
        if status in (408, 409, 425, 429) or status >= 500:
            wait_s = retry_after(response)
            if wait_s > _LONGEST_RETRY_AFTER_S:
                hint = "answers so far are kept: run the same command again after that time"
                raise PerpoError(f"the {self._called} asks to wait for {wait_s:.0f} s: {why}", hint, exit_code=3)
            self._pace.hold(wait_s)  # every call, this one too
            raise _TryAgain(why)
        if codes & _WITHOUT_ANSWER:
            return Reply(None, "content_filter", True, None, None, None)
        if "context_length_exceeded" in codes or (status in (400, 413, 422) and self._answered):
            raise CallFailed(why)
        raise PerpoError(f"the {self._called} at {self._url} refuses the request: {why}", self._hint(status))

    def _error_of(self, response: httpx.Response) -> tuple[set[str], str]:
        """The code, the type and the words of an error in OpenAI's form; without it, the body's beginning."""
        try:
            error = json.loads(response.content)["error"]
            codes, message = {str(error.get(name)) for name in ("code", "type")}, str(error["message"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return set(), self._said(response.text)
        return codes, self._said(message)

    def _hint(self, status: int) -> str:
        model, address = self._flags
        if status in (401, 403):
            return f"set {self._key_variable} to the key of this {self._called}"
        if status == 404:
            return f"check {model}, and check that {address} has the right end (usually /v1)"
        if 300 <= status < 400:
            return f"the address redirects to another one, to which the key is not sent: give the final {address}"
        return f"check {model}; the official settings (temperature, max_tokens) are always sent"

    def _said(self, text: str) -> str:
        return " ".join(self._clean(text).split())[:200]

    def _clean(self, text: str) -> str:
        """Text without the key (a server may echo it), and without what UTF-8 cannot hold."""
        if self._key and len(self._key) >= _SHORTEST_SECRET:
            text = text.replace(self._key, "***")
        return text.encode("utf-8", "replace").decode()


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _ids(value: Any) -> tuple[int, ...] | None:
    return tuple(value) if isinstance(value, list) and all(isinstance(each, int) for each in value) else None


def _stop(state: RetryCallState) -> bool:
    error = state.outcome.exception() if state.outcome else None
    return isinstance(error, _TryAgain) and state.attempt_number >= error.tries
