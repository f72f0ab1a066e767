"""Any server with an OpenAI-compatible chat endpoint as an engine: vLLM, SGLang, llama.cpp, a hosted one.

What is sent: each picture as the model is to see it (the file's own bytes where every reader sees the same in them,
else a PNG; padded where the family pads), the question as a user's turn, and every setting of sampling, so that no
default of the server's counts. What comes back is read as our own engine reads tokens, where the server says them.
Weights are the server's affair: log-probabilities are never taken from it.
"""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from perpo.data import Question
from perpo.data.images import plain_bytes
from perpo.data.placeholders import without_image
from perpo.engines.base import Answer, Decoding, EngineInfo, NoAnswer, Query, first_seed
from perpo.engines.chat import CallFailed, ChatServer
from perpo.engines.prompts import check_questions, check_read, encoded, prompt_lengths
from perpo.engines.replies import Completion, Reply, answer_of
from perpo.engines.served import ServedModel, ServersWanted, look_at, server_key
from perpo.engines.server_pool import ServerPool, warn
from perpo.errors import PerpoError
from perpo.models.checkpoints import public_name, resolve_model
from perpo.models.loaded import LoadedModel, render_prompt
from perpo.models.loading import load_processor

NEUTRAL = {"frequency_penalty": 0.0, "presence_penalty": 0.0}
"""Settings of OpenAI's interface that change no probability."""

NEUTRAL_OF_OTHERS = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
"""Those that vLLM and SGLang know beside them, and fill in from the model's generation_config.json if they lack."""

SAID_IN_TOKENS = {"return_token_ids": True, "skip_special_tokens": False}
"""Asks vLLM and SGLang for the tokens of prompt and answer, and for marks of boxes that are special tokens."""

_NOT_KNOWN = ("status 400", "status 422")
_FEWEST_TO_TELL = 3
"""So many questions whose candidates are all equal tell that a server gives all candidates one seed."""


@dataclass
class ServerEngine:
    """A model behind one or more servers; see `perpo.engines.base.Engine`.

    Attributes:
        loaded: All of the model but its weights.
        servers: Where it is served; all of them serve the same model.
        served: What the servers say of it.
        key: Of the servers, or None. It is sent to them and written nowhere.
    """

    loaded: LoadedModel
    servers: Sequence[ChatServer]
    served: ServedModel
    key: str | None = None
    _more: dict[str, Any] = field(default_factory=lambda: NEUTRAL_OF_OTHERS | SAID_IN_TOKENS)
    _one_by_one: bool = False
    _gone: set[str] = field(default_factory=set)
    _probed: bool = False

    @cached_property
    def info(self) -> EngineInfo:
        """See `Engine`."""
        return EngineInfo(
            name="server",
            model=self.loaded.name,
            by_batch=False,  # it does, but nobody can make the same batch again
            family=self.loaded.family,
            processor=type(getattr(self.loaded.processor, "image_processor", None) or self.loaded.processor).__name__,
            served=self.served.told,
        )

    def check(self, questions: Sequence[Question], image_root: Path, decoding: Decoding) -> None:
        """Check the questions, then ask the longest of them and hold what the server read against our own prompt.

        Raises:
            PerpoError: See `Engine`; the server reads another prompt, or takes the thought out of answers.
        """
        longest = check_questions(self.loaded, questions, image_root, decoding)
        self.probe(longest, decoding)

    def probe(self, query: Query, decoding: Decoding) -> None:
        """Ask each server for one token, and look at what it read.

        Raises:
            PerpoError: It does not answer, or reads another prompt than `perpo.models.loaded.render_prompt` gives.
        """
        prompt = self.prompt(query.question)
        ours = encoded(self.loaded, [query], [prompt], decoding)["input_ids"][0].tolist()
        if self.served.most_tokens is not None and len(ours) + decoding.max_new_tokens > self.served.most_tokens:
            raise PerpoError(
                f"{len(ours)} tokens of image and prompt and {decoding.max_new_tokens} of an answer exceed the "
                f"{self.served.most_tokens} tokens that the server takes",
                "start it with a larger --max-model-len, or give a smaller --max_new_tokens",
            )
        asyncio.run(self._probe(query, replace(decoding, max_new_tokens=1, num_candidates=1), ours))
        self._probed = True

    def prompt(self, question: str) -> str:
        """See `Engine`; what the chat template of our own copy of the model makes."""
        return render_prompt(self.loaded, question)

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """See `Engine`; a picture counts one."""
        return prompt_lengths(self.loaded, prompts)

    def answers(self, queries: Sequence[Query], decoding: Decoding) -> list[list[Answer] | NoAnswer]:
        """See `Engine`; all queries are asked at once, as far as the servers' `concurrency` goes."""
        if not self._probed:
            self.probe(max(queries, key=lambda query: len(query.question)), decoding)
        return asyncio.run(self._answers(queries, decoding))

    async def _answers(self, queries: Sequence[Query], decoding: Decoding) -> list[list[Answer] | NoAnswer]:
        async with AsyncExitStack() as stack:
            pool = await ServerPool.open(stack, self.servers, self.key, self._gone)
            one_by_one = self._one_by_one
            answers = await asyncio.gather(*(self._answer(pool, query, decoding) for query in queries))
            if not one_by_one and _all_alike(answers, decoding):
                warn(
                    "the server gives all candidates of a question one seed, so that they are equal: each is asked for "
                    "by itself from now on"
                )
                self._one_by_one = True
                answers = await asyncio.gather(*(self._answer(pool, query, decoding) for query in queries))
        return _ended(answers)

    async def _answer(self, pool: ServerPool, query: Query, decoding: Decoding) -> list[Answer] | NoAnswer:
        try:
            replies = await self._replies(pool, query, decoding)
            return [self._read(query, reply) for reply in replies]
        except CallFailed as error:
            return NoAnswer(str(error))
        except PerpoError as error:
            return NoAnswer(error.message, error)

    async def _replies(self, pool: ServerPool, query: Query, decoding: Decoding) -> list[Reply]:
        body, count = self._body(query, decoding), decoding.num_candidates
        if count == 1 or self._one_by_one:
            return [await self._single(pool, body, place) for place in range(count)]
        replies = (await pool.complete(body | {"n": count})).replies[:count]
        if len(replies) < count:
            if not self._one_by_one:
                warn(f"the server gives {len(replies)} of {count} candidates at once: each is asked for by itself")
            self._one_by_one = True
            replies += [await self._single(pool, body, place) for place in range(len(replies), count)]
        return replies

    async def _single(self, pool: ServerPool, body: Mapping[str, Any], place: int) -> Reply:
        return (await pool.complete({**body, "n": 1, "seed": body["seed"] + place})).replies[0]

    def _body(self, query: Query, decoding: Decoding) -> dict[str, Any]:
        """A call without its number of answers."""
        picture = {"type": "image_url", "image_url": {"url": self._picture(query)}}
        # As our own prompt has it: a mark of the picture that data put into the question would be read as text.
        content = [picture, {"type": "text", "text": without_image(query.question)}]
        return {
            "model": self.served.name,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "seed": first_seed(decoding, query.draw),
            **NEUTRAL,
            **self._more,
        }

    def _picture(self, query: Query) -> str:
        """The picture as a data URL."""
        plain = None if query.file is None or self.loaded.family.pads_images else plain_bytes(query.file)
        if plain is None:
            buffer = io.BytesIO()
            self.loaded.shown(query.image).save(buffer, "PNG", compress_level=1)
            plain = buffer.getvalue(), "image/png"
        data, media = plain
        return f"data:{media};base64,{base64.b64encode(data).decode()}"

    def _read(self, query: Query, reply: Reply) -> Answer:
        """An answer, read as our own engine reads its tokens."""
        if reply.thought:
            raise PerpoError(
                "the server takes thoughts out of the answers, so that what the model said is not known",
                "start it without a reasoning parser (vLLM: no --reasoning-parser)",
            )
        if reply.text is None or reply.refused or reply.finish_reason not in ("stop", "length"):
            raise CallFailed(f"no whole answer: it ended with {reply.finish_reason!r}")
        truncated = reply.finish_reason == "length"
        return answer_of(self.loaded, self.prompt(query.question), reply.text, reply.token_ids, truncated=truncated)

    async def _probe(self, query: Query, decoding: Decoding, ours: list[int]) -> None:
        """Ask each server once, and hold what it read against our own tokens."""
        for server in self.servers:
            async with AsyncExitStack() as stack:
                pool = await ServerPool.open(stack, [server], self.key, self._gone)
                try:
                    completion = await self._taken(pool, query, decoding)
                except CallFailed as error:
                    raise PerpoError(
                        f"the server at {server.base_url} does not answer the longest question: {error}",
                        "look at what the server prints",
                    ) from None
            self._compare(server, completion, ours)

    async def _taken(self, pool: ServerPool, query: Query, decoding: Decoding) -> Completion:
        """A first answer; without what a strict server does not know, if it refuses that."""
        try:
            return await pool.complete(self._body(query, decoding) | {"n": 1})
        except CallFailed as error:
            if not self._more or not str(error).startswith(_NOT_KNOWN):  # a busy server is no strict one
                raise
            kept, self._more = self._more, {}
            try:
                completion = await pool.complete(self._body(query, decoding) | {"n": 1})
            except (PerpoError, CallFailed):
                self._more = kept
                raise
            warn(
                f"the server does not know {', '.join(kept)}: its own defaults hold for these, special tokens may be "
                "missing from answers, and its prompt is not known"
            )
            return completion

    def _compare(self, server: ChatServer, completion: Completion, ours: list[int]) -> None:
        """Refuse a server that reads another prompt."""
        theirs = completion.prompt_ids
        if theirs is None:
            count = completion.replies[0].prompt_tokens
            if count is not None and count != len(ours):
                warn(
                    f"the server at {server.base_url} counts {count} tokens of image and prompt, and our copy of the "
                    f"model {len(ours)}: it may read another prompt (chat template) or another size of the picture"
                )
            elif count is None:
                warn(f"the server at {server.base_url} does not say what it read: its prompt could not be compared")
            return
        check_read(
            self.loaded,
            theirs,
            ours,
            f"the server at {server.base_url}",
            other="serve it with the chat template of --model (vLLM: --chat-template), or give the model that is "
            "served",
            picture="serve it with the processor settings of --model (vLLM: --mm-processor-kwargs)",
        )


def load_server(model: str, wanted: ServersWanted) -> ServerEngine:
    """Return the engine of some servers, which are looked at first.

    Args:
        model: The model that they serve, as of `perpo.models.loading.load_processor`.
        wanted: Where they are, and how hard they are pressed.

    Raises:
        PerpoError: A server is not there or does not have the model; or `model` cannot be read.
    """
    key = server_key()
    served = look_at(wanted.servers, wanted.served_model, key)
    names = {public_name(model), public_name(resolve_model(model)), model.rpartition("/")[2]}
    if served.root is not None and served.root not in names:
        warn(
            f"the server loaded {served.root}, and --model is {public_name(model)}: only its prompt is compared, not "
            "its weights"
        )
    return ServerEngine(load_processor(model), wanted.servers, served, key)


def _all_alike(answers: Sequence[list[Answer] | NoAnswer], decoding: Decoding) -> bool:
    given = [each for each in answers if not isinstance(each, NoAnswer)]
    if decoding.temperature == 0 or decoding.num_candidates < 2 or len(given) < _FEWEST_TO_TELL:
        return False
    return all(len({answer.text for answer in each}) == 1 for each in given)


def _ended(answers: Sequence[list[Answer] | NoAnswer]) -> list[list[Answer] | NoAnswer]:
    """The answers; where a whole batch got none, the run is to end: the server, and no question, is at fault."""
    missing = [each for each in answers if isinstance(each, NoAnswer)]
    if len(missing) < max(len(answers), _FEWEST_TO_TELL) or any(each.ends for each in missing):
        return list(answers)
    why = f"the server answered none of {len(missing)} questions, such as: {missing[0].why}"
    ends = PerpoError(
        why, "answers so far are kept: see what the server prints, then run the same command", exit_code=3
    )
    return [replace(each, ends=ends) for each in missing]
