"""A judge's verdicts: official prompts and settings, votes, a cache that pays for no call twice.

The judge is any OpenAI-compatible chat endpoint. Each answer is on the disk before the next question of its
worker is asked, found again by what was sent (model, messages, settings), where to, the vote and the attempt.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from perpo.common.journal import Journal
from perpo.common.progress import progress
from perpo.engines.chat import CallFailed, ChatClient
from perpo.engines.replies import Reply
from perpo_eval.judge.messages import official_settings
from perpo_eval.judge.settings import JudgeSettings, check_key
from perpo_eval.judge.table import JUDGINGS

_ATTEMPTS = 2
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True)
class JudgeQuestion:
    """One thing to be judged.

    Attributes:
        id: Unique among the questions.
        messages: OpenAI chat messages.
        benchmark: A key of `perpo_eval.judge.table.JUDGINGS`: whose settings and parser.
    """

    id: str
    messages: list[dict[str, str]]
    benchmark: str


@dataclass(frozen=True)
class Verdict:
    """The outcome of one vote on one question.

    Attributes:
        id: The question's.
        vote: From 0 on.
        text: What the judge wrote, at the last attempt that it answered; None if it wrote nothing.
        rating: The pair (first answer, second answer) or MMHal's rating, by our parser; None: missing.
        flags: "asked_again", "unreadable", "refusal" (the server says so), "cut" (at the token limit), "two_ratings",
            "out_of_scale".
        error: Why a call has no answer, or None.
        attempts: How often it was asked and answered: 2 after an answer without a rating.
        prompt_tokens: Of all attempts, as the server counts; None if it does not say.
        completion_tokens: Likewise.
        judge_model: What the server calls the judge.
        first_text: What the judge wrote at the first attempt: what the official scripts, which ask once, would count.
    """

    id: str
    vote: int
    text: str | None
    rating: tuple[float, float] | int | None
    flags: list[str]
    error: str | None
    attempts: int
    prompt_tokens: int | None
    completion_tokens: int | None
    judge_model: str | None
    first_text: str | None


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def ask_judge(
    settings: JudgeSettings,
    questions: Sequence[JudgeQuestion],
    cache: Path,
    *,
    key: str | None,
    report: Callable[[str], None] = _to_stderr,
) -> dict[str, list[Verdict]]:
    """Ask a judge about each question, `votes` times; what was answered before is not asked again.

    An answer without a readable rating is asked for once more; then it is missing. Killed or interrupted, the
    same call goes on where it was: calls that were open then are lost, and no other.

    Args:
        settings: The judge.
        questions: With different ids. Equal requests share their votes' calls.
        cache: The folder of the answers.
        key: The bearer token, or None. It is written nowhere.
        report: Takes lines for the user.

    Returns:
        The verdicts of each question by its id, one for each vote.

    Raises:
        PerpoError: The judge refuses the key, the model or the request (exit code 2), its quota is used up or it
            is gone (3), or another process is asking it with the same cache.
    """
    check_key(key)
    endpoint = json.dumps({"base_url": settings.server.base_url.rstrip("/"), "model": settings.model}, sort_keys=True)
    name = hashlib.sha256(endpoint.encode()).hexdigest()
    with Journal(cache / f"{name[:24]}.jsonl", name) as journal:
        asked = _Asked(settings, journal)
        for question in questions:
            asked.add(question)
        asyncio.run(asked.ask(key, report))
        return {
            question.id: [asked.verdict(question, vote) for vote in range(settings.votes)] for question in questions
        }


class _Asked:
    """The calls of some questions: those of the cache, those to be made, and what came of them."""

    def __init__(self, settings: JudgeSettings, journal: Journal) -> None:
        self._settings = settings
        self._journal = journal
        self._known = journal.done()
        self._calls: dict[tuple[str, int], tuple[dict[str, Any], str]] = {}
        self._errors: dict[tuple[str, int], str] = {}
        self._new: list[Reply] = []

    def add(self, question: JudgeQuestion) -> None:
        body = self._body(question)
        for vote in range(self._settings.votes):
            self._calls[_digest(body), vote] = body, question.benchmark

    async def ask(self, key: str | None, report: Callable[[str], None]) -> None:
        """Make the calls that are missing."""
        calls = [call for call in self._calls if self._next_attempt(call)]
        total, settings = len(self._calls), self._settings
        if not calls:
            report(f"judge {settings.model}: no calls to make, all {total:,} were answered before")
            return
        characters = sum(len(m["content"]) for call in calls for m in self._calls[call][0]["messages"])
        report(
            f"judge {settings.model}: {len(calls):,} of {total:,} calls to make, prompts of about "
            f"{characters // _CHARACTERS_PER_TOKEN:,} tokens (an estimate: {_CHARACTERS_PER_TOKEN} characters a token)"
        )
        queue = iter(calls)
        client = ChatClient(settings.server, key, answered=bool(self._known))
        with progress(total, "judging", total - len(calls)) as advance:
            try:
                async with client, asyncio.TaskGroup() as group:
                    for _ in range(min(settings.server.concurrency, len(calls))):
                        group.create_task(self._work(client, queue, advance))
            except ExceptionGroup as group_of_one:  # the first error ends the others
                raise _first(group_of_one) from None
            finally:
                if self._new:
                    report(self._spent())

    async def _work(self, client: ChatClient, queue: Iterator[tuple[str, int]], advance: Callable[[int], None]) -> None:
        for call in queue:
            body, _ = self._calls[call]
            try:
                while attempt := self._next_attempt(call):
                    self._keep(_row_id(call, attempt), await client.ask(body))
            except CallFailed as error:
                self._errors[call] = str(error)
            advance(1)

    def _keep(self, row_id: str, reply: Reply) -> None:
        row = {"id": row_id, **asdict(reply)}
        self._journal.append([row])
        self._known[row_id] = row
        self._new.append(reply)

    def _spent(self) -> str:
        """What this run's answers cost, as far as the server counts."""
        replies = self._new
        counted = [reply for reply in replies if None not in (reply.prompt_tokens, reply.completion_tokens)]
        read = sum(reply.prompt_tokens or 0 for reply in counted)
        written = sum(reply.completion_tokens or 0 for reply in counted)
        if not counted:
            return f"judge {self._settings.model}: {len(replies):,} answers; the server counts no tokens"
        some = f" of {len(counted):,}" if len(counted) < len(replies) else ""
        tokens = f"{read:,} tokens read and {written:,} written{some}, as the server counts"
        return f"judge {self._settings.model}: {len(replies):,} answers, {tokens}"

    def _replies(self, call: tuple[str, int]) -> list[Reply]:
        """The answers to the attempts of a call, up to the first that can be read."""
        replies: list[Reply] = []
        for attempt in range(1, _ATTEMPTS + 1):
            row = self._known.get(_row_id(call, attempt))
            if row is None:
                break
            replies.append(Reply(**{name: value for name, value in row.items() if name != "id"}))
            if self._rating(call, replies[-1]) is not None:
                break
        return replies

    def _next_attempt(self, call: tuple[str, int]) -> int | None:
        """The number of the attempt that is to be made, or None."""
        replies = self._replies(call)
        done = len(replies) == _ATTEMPTS or (replies and self._rating(call, replies[-1]) is not None)
        return None if done else len(replies) + 1

    def _rating(self, call: tuple[str, int], reply: Reply) -> Any:
        return None if reply.text is None else JUDGINGS[self._calls[call][1]].parse(reply.text)

    def verdict(self, question: JudgeQuestion, vote: int) -> Verdict:
        call = _digest(self._body(question)), vote
        replies = self._replies(call)
        last = replies[-1] if replies else None
        rating = None if last is None else self._rating(call, last)
        flags = [] if last is None else _flags(question.benchmark, replies, readable=rating is not None)
        tokens = [[getattr(reply, name) for reply in replies] for name in ("prompt_tokens", "completion_tokens")]
        prompt, completion = (None if None in counts or not counts else sum(counts) for counts in tokens)
        return Verdict(
            question.id,
            vote,
            None if last is None else last.text,
            rating,
            flags,
            self._errors.get(call),
            len(replies),
            prompt,
            completion,
            None if last is None else last.model,
            replies[0].text if replies else None,
        )

    def _body(self, question: JudgeQuestion) -> dict[str, Any]:
        sent = {name: value for name, value in official_settings()[question.benchmark].items() if name != "system"}
        return {
            "model": self._settings.model,
            "messages": question.messages,
            **{name: value for name, value in sent.items() if value is not None},
        }


def _flags(benchmark: str, replies: Sequence[Reply], *, readable: bool) -> list[str]:
    last = replies[-1]
    flags = {
        "asked_again": len(replies) > 1,
        "unreadable": not readable,
        "refusal": last.refused,
        "cut": last.finish_reason == "length",
    }
    return [name for name, true in flags.items() if true] + (JUDGINGS[benchmark].flags(last.text) if last.text else [])


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


def _row_id(call: tuple[str, int], attempt: int) -> str:
    return f"{call[0]}:{call[1]}:{attempt}"


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
