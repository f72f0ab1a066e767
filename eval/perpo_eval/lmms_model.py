"""Our model class for lmms-eval: batched, left-padded, with adapters, and loud when something fails."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NoReturn

import torch
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from PIL import Image

from perpo.cli.common import progress
from perpo.errors import PerpoError
from perpo.models import DType, LoadedModel, load_model, render_prompt
from perpo_eval.answering import answer

_MAX_NEW_TOKENS = 256
_KNOWN = {"max_new_tokens", "do_sample", "temperature", "top_p", "top_k", "num_beams"}


@dataclass(frozen=True)
class Response:
    """One answer.

    Attributes:
        text: What was said, without special tokens, cut at a stop string.
        prompt: What the model read.
        tokens_out: Generated tokens, the end token included.
        finish_reason: "stop" (end token or stop string), or "length" (cut at the token limit).
        latency_ms: Wall time of its batch divided by the batch's size.
    """

    text: str
    prompt: str
    tokens_out: int
    finish_reason: str
    latency_ms: float


@dataclass(frozen=True)
class _Job:
    index: int
    request: Instance
    prompt: str
    length: int
    image: str
    settings: str


class PerpoModel(lmms):
    """Any Hugging Face image-text-to-text model that `perpo.models.load_model` takes.

    An exception (out of memory too) ends the run: no answer is ever made up. What is asked is
    answered greedily unless a task's generation_kwargs say otherwise.

    Args:
        pretrained: "tiny", a directory, or a hub id.
        adapter: Directory of an adapter, or None.
        batch_size: Most questions in one batch.
        dtype: float32, bfloat16 or float16.
        device: As in torch; by default CUDA where there is one.
        max_batch_size: Of lmms-eval's interface; there is no automatic batch size, so it must be None.
    """

    is_simple = True

    def __init__(
        self,
        pretrained: str = "tiny",
        adapter: str | None = None,
        batch_size: int | str = 16,
        dtype: DType = "float32",
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        if max_batch_size is not None:
            raise PerpoError("the model class perpo finds no batch size of its own", "give batch_size alone")
        self.loaded: LoadedModel = load_model(pretrained, adapter, dtype=dtype, device=device)
        self.batch_size = int(batch_size)
        self.responses: dict[tuple[str, int], Response] = {}
        """Every answer so far, by task and document number."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.loaded.model.device

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer every request, in the order of the requests.

        Raises:
            PerpoError: A prompt that does not fit the model's context together with its answer.
        """
        answers: list[GenerationResult | None] = [None] * len(requests)
        with progress(len(requests), "answering") as advance:
            for batch in self._batches(self._jobs(requests)):
                for job, response in zip(batch, self._answer(batch), strict=True):
                    self.responses[job.request.task_name, int(job.request.doc_id)] = response
                    answers[job.index] = GenerationResult(response.text, TokenCounts(output_tokens=response.tokens_out))
                advance(len(batch))
        return [answer for answer in answers if answer is not None]

    def clean(self) -> None:
        """Called by lmms-eval when all is answered. The model is the caller's; nothing is taken from it."""

    def loglikelihood(self, requests: list[Instance]) -> NoReturn:
        """Not offered: none of our tasks asks for it."""
        raise NotImplementedError("the model class perpo answers generate_until tasks only")

    def generate_until_multi_round(self, requests: list[Instance]) -> NoReturn:
        """Not offered: none of our tasks asks for it."""
        raise NotImplementedError("the model class perpo answers generate_until tasks only")

    def _jobs(self, requests: Sequence[Instance]) -> list[_Job]:
        prompts = [render_prompt(self.loaded, request.args[0]) for request in requests]
        lengths = [len(ids) for ids in self.loaded.token_ids(prompts)]
        return [
            _Job(
                index,
                request,
                prompt,
                length,
                self._image_key(request),
                json.dumps(request.args[1], sort_keys=True),
            )
            for index, (request, prompt, length) in enumerate(zip(requests, prompts, lengths, strict=True))
        ]

    def _batches(self, jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
        """Jobs with the same settings; images with the longest prompts first, an image's questions together.

        What does not fit the context thus fails at once.
        """
        longest: dict[str, int] = {}
        for job in jobs:
            longest[job.image] = max(job.length, longest.get(job.image, 0))
        ordered = sorted(jobs, key=lambda job: (job.settings, -longest[job.image], job.image, -job.length))
        for _, group in groupby(ordered, key=lambda job: job.settings):
            alike = list(group)
            for start in range(0, len(alike), self.batch_size):
                yield alike[start : start + self.batch_size]

    def _answer(self, batch: Sequence[_Job]) -> list[Response]:
        start = time.perf_counter()
        settings, stops = _settings(batch[0].settings)
        firsts = {job.image: job.request for job in reversed(batch)}
        numbers = {image: number for number, image in enumerate(firsts)}
        images = [self._image(request) for request in firsts.values()]
        prompts = [job.prompt for job in batch]
        answers = answer(self.loaded, prompts, images, [numbers[job.image] for job in batch], settings)
        latency = 1000 * (time.perf_counter() - start) / len(batch)
        return [self._response(job.prompt, ids, stops, latency) for job, ids in zip(batch, answers, strict=True)]

    def _image_key(self, request: Instance) -> str:
        """What tells images apart: their digest where the task's documents have it, else the document."""
        _, _, _, doc_id, task, split = request.args
        docs = self.task_dict[task][split]
        return docs[doc_id]["image_sha256"] if "image_sha256" in docs.column_names else f"{task}/{doc_id}"

    def _image(self, request: Instance) -> Image.Image:
        _, _, doc_to_visual, doc_id, task, split = request.args
        images = doc_to_visual(self.task_dict[task][split][doc_id])
        if len(images) != 1:
            raise PerpoError(
                f"{task} shows {len(images)} images at once; perpo takes one", "choose another model class"
            )
        return images[0]

    def _response(self, prompt: str, ids: list[int], stops: Sequence[str], latency: float) -> Response:
        ended = bool(ids) and ids[-1] in self.loaded.end_ids
        text = self.loaded.tokenizer.decode(ids, skip_special_tokens=True)
        cuts = [text.index(stop) for stop in stops if stop in text]
        text = text[: min(cuts)] if cuts else text
        return Response(text, prompt, len(ids), "stop" if ended or cuts else "length", latency)


def _settings(text: str) -> tuple[dict[str, Any], list[str]]:
    """A task's generation_kwargs as (settings for generate, stop strings)."""
    given = json.loads(text)
    stops = given.pop("until", None) or []
    if unknown := sorted(set(given) - _KNOWN):
        raise PerpoError(f"generation_kwargs hold {', '.join(unknown)}, which perpo does not know", "leave them out")
    if given.pop("num_beams", 1) != 1:
        raise PerpoError("generation_kwargs ask for beam search, which perpo does not offer", "set num_beams to 1")
    if not given.get("do_sample", False):
        given = {key: value for key, value in given.items() if key == "max_new_tokens"}
    settings = {"max_new_tokens": _MAX_NEW_TOKENS, "do_sample": False, **given}
    return settings, [stops] if isinstance(stops, str) else [stop for stop in stops if stop]
