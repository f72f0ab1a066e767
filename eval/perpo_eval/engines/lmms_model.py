"""Our model class for lmms-eval: batched, left-padded, with adapters, and loud when something fails."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NoReturn

import torch
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from PIL import Image

from perpo.common.progress import progress
from perpo.engines.base import Answer, Decoding, Engine, NoAnswer, Query
from perpo.engines.batches import BatchLimit
from perpo.engines.choice import load_engine
from perpo.errors import PerpoError, placed
from perpo.models.loaded import DType
from perpo_eval.engines.responses import Response

_MAX_NEW_TOKENS = 256
_KNOWN = {"max_new_tokens", "do_sample", "temperature", "top_p", "num_beams", "seed", "stop_on_repetition"}
# Batches whose images are decoded ahead of the model, by so many threads.
_AHEAD, _DECODERS = 4, 2

Answered = list[tuple[Instance, Response]]


@dataclass(frozen=True)
class _Job:
    request: Instance
    prompt: str
    length: int
    image: str
    settings: str

    @property
    def draw(self) -> int:
        """What is drawn depends on the prompt and the image, not on the place among the requests."""
        name = f"{self.prompt}\x1f{self.image}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")


class PerpoModel(lmms):
    """An engine of `perpo.engines.choice.load_engine`, asked through lmms-eval's interface.

    Three things stay here, for perpo's engines know nothing of lmms-eval: its requests with their stop strings, which
    batches are made of them, and that pictures are decoded ahead in threads. The engine reads a picture once for the
    questions about it that share a batch.

    An exception ends the run: no answer is ever made up. Where memory runs out, the batch is halved and tried
    again, down to one question. What is asked is answered greedily unless a task's generation_kwargs say
    otherwise; what is drawn depends on the question, the image and the seed alone.

    Args:
        pretrained: "tiny", a directory, or a hub id.
        adapter: Directory of an adapter, or None.
        batch_size: Most questions in one batch.
        dtype: float32, bfloat16 or float16; None for the device's own.
        device: As in torch; by default CUDA where there is one.
        max_batch_size: Of lmms-eval's interface; there is no automatic batch size, so it must be None.
        engine: What answers, in place of `pretrained`, `adapter`, `dtype` and `device`.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str = "tiny",
        adapter: str | None = None,
        batch_size: int | str = 16,
        dtype: DType | None = "float32",
        device: str | None = None,
        max_batch_size: int | None = None,
        engine: Engine | None = None,
    ) -> None:
        super().__init__()
        if max_batch_size is not None:
            raise PerpoError("the model class perpo cannot choose a batch size by itself", "give batch_size alone")
        self.engine: Engine = engine or load_engine(pretrained, adapter, dtype=dtype, device=device)
        self.batch_size = int(batch_size)
        self.limit = BatchLimit(self.batch_size)
        self._ends: PerpoError | None = None

    @property
    def device(self) -> torch.device:
        """Return where the model is."""
        return torch.device(self.engine.info.device or "cpu")

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer every request, in the order of the requests.

        Raises:
            PerpoError: A prompt that does not fit the model's context together with its answer.
        """
        answers: dict[int, GenerationResult] = {}
        with progress(len(requests), "answering") as advance:
            for batch in self.stream(requests):
                for request, response in batch:
                    counts = TokenCounts(output_tokens=response.tokens_out)
                    answers[id(request)] = GenerationResult(response.text, counts)
                advance(len(batch))
        return [answers[id(request)] for request in requests]

    def stream(self, requests: Sequence[Instance], known: Mapping[int, Response] | None = None) -> Iterator[Answered]:
        """Answer requests batch by batch, in an order of its own, as each batch is done.

        Batches are made of all requests alike whatever is known of them, for in half precision an answer depends on
        its batch: one that is wholly known is left out, one that is partly known is answered again whole. No larger
        parts are tried than memory had room for when what is known was answered.

        Args:
            requests: What is asked.
            known: Answers that there are already, by the requests' `id()`.

        Raises:
            PerpoError: As `generate_until`; or memory that does not suffice for one question.
        """
        before = [response.batch_limit for response in (known or {}).values() if response.batch_limit is not None]
        self.limit = BatchLimit(min([self.limit.size, *before]))
        with ThreadPoolExecutor(_DECODERS) as decoders:
            waiting: deque[tuple[list[_Job], dict[str, Future[Image.Image]]]] = deque()
            batches = self._batches(self._jobs(requests), known or {})
            try:
                for batch in batches:
                    firsts = {job.image: job.request for job in reversed(batch)}
                    waiting.append((batch, {key: decoders.submit(self._image, r) for key, r in firsts.items()}))
                    if len(waiting) > _AHEAD:
                        yield from self._answered(*waiting.popleft())
                while waiting:
                    yield from self._answered(*waiting.popleft())
            finally:
                decoders.shutdown(cancel_futures=True)

    def clean(self) -> None:
        """Called by lmms-eval when all is answered. The model is the caller's; nothing is taken from it."""

    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        """Refuse: none of our tasks asks for it."""
        raise NotImplementedError("the model class perpo answers generate_until tasks only")

    def generate_until_multi_round(self, requests: list[Instance]) -> NoReturn:
        """Refuse: none of our tasks asks for it."""
        raise NotImplementedError("the model class perpo answers generate_until tasks only")

    def _jobs(self, requests: Sequence[Instance]) -> list[_Job]:
        prompts = []
        for request in requests:
            *_, doc_id, task, _ = request.args
            with placed(f"{task}, row {doc_id}"):
                prompts.append(self.engine.prompt(request.args[0]))
        return [
            _Job(request, prompt, length, image_key(self, request), json.dumps(request.args[1], sort_keys=True))
            for request, prompt, length in zip(requests, prompts, self.engine.lengths(prompts), strict=True)
        ]

    def _batches(self, jobs: Sequence[_Job], known: Mapping[int, Response]) -> Iterator[list[_Job]]:
        """Jobs with the same settings; images with the longest prompts first, an image's questions together.

        What does not fit the context or the memory thus shows at once.
        """
        longest: dict[str, int] = {}
        for job in jobs:
            longest[job.image] = max(job.length, longest.get(job.image, 0))
        ordered = sorted(jobs, key=lambda job: (job.settings, -longest[job.image], job.image, -job.length))
        for _, group in groupby(ordered, key=lambda job: job.settings):
            alike = list(group)
            for start in range(0, len(alike), self.batch_size):
                batch = alike[start : start + self.batch_size]
                if not all(id(job.request) in known for job in batch):
                    yield batch

    def _answered(self, batch: list[_Job], images: dict[str, Future[Image.Image]]) -> Iterator[Answered]:
        """A batch's answers, in parts where memory does not suffice for the whole."""

        def work(part: Sequence[_Job]) -> list[Response]:
            return self._answer(part, {job.image: images[job.image].result() for job in part})

        for part, answers in self.limit.run(batch, work):
            limit = self.limit.size if self.engine.info.by_batch else None
            answered = [replace(response, batch_limit=limit) for response in answers]
            yield [(job.request, response) for job, response in zip(part, answered, strict=True)]
            if self._ends is not None:  # when the answers of the others are kept
                raise self._ends

    def _answer(self, batch: Sequence[_Job], images: dict[str, Image.Image]) -> list[Response]:
        start = time.perf_counter()
        decoding, stops = _settings(batch[0].settings)
        queries = [Query(job.request.args[0], images[job.image], job.draw) for job in batch]
        answers = self.engine.answers(queries, decoding)
        latency = 1000 * (time.perf_counter() - start) / len(batch)
        self._ends = next((each.ends for each in answers if isinstance(each, NoAnswer) and each.ends), None)
        return [
            Response("", error=given.why)
            if isinstance(given, NoAnswer)
            else _response(job.prompt, given[0], stops, latency)
            for job, given in zip(batch, answers, strict=True)
        ]

    def _image(self, request: Instance) -> Image.Image:
        _, _, doc_to_visual, doc_id, task, split = request.args
        images = doc_to_visual(self.task_dict[task][split][doc_id])
        if len(images) != 1:
            raise PerpoError(
                f"{task} shows {len(images)} images at once; perpo takes one", "choose another model class"
            )
        return images[0]


def _response(prompt: str, answer: Answer, stops: Sequence[str], latency: float) -> Response:
    text = answer.text if answer.whole is None else answer.whole
    cuts = [text.index(stop) for stop in stops if stop in text]
    text = text[: min(cuts)] if cuts else text
    return Response(text, prompt, answer.tokens, "stop" if cuts else answer.finish_reason, latency)


def image_key(model: lmms, request: Instance) -> str:
    """Return what tells images apart: what the request says, their digest where the task's documents have it, else the
    document.
    """
    if "image" in request.metadata:
        return str(request.metadata["image"])
    *_, doc_id, task, split = request.args
    docs = model.task_dict[task][split]
    return docs[doc_id]["image_sha256"] if "image_sha256" in docs.column_names else f"{task}/{doc_id}"


def _settings(text: str) -> tuple[Decoding, list[str]]:
    """A task's generation_kwargs as (how tokens are chosen, stop strings)."""
    given = json.loads(text)
    stops = given.pop("until", None) or []
    if unknown := sorted(set(given) - _KNOWN):
        raise PerpoError(f"generation_kwargs hold {', '.join(unknown)}, which perpo does not know", "leave them out")
    if given.pop("num_beams", 1) != 1:
        raise PerpoError("generation_kwargs ask for beam search, which perpo does not offer", "set num_beams to 1")
    drawn = {"temperature": 1.0} | {name: given[name] for name in ("temperature", "top_p", "seed") if name in given}
    decoding = Decoding(
        max_new_tokens=given.get("max_new_tokens", _MAX_NEW_TOKENS),
        logps=False,
        stop_on_repetition=given.get("stop_on_repetition", False),
        **(drawn if given.get("do_sample", False) else {}),
    )
    return decoding, [stops] if isinstance(stops, str) else [stop for stop in stops if stop]
