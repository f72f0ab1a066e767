"""A Hugging Face model as an engine: questions and pictures in, texts with their log-probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from perpo.answers import opened_thought
from perpo.data import Question
from perpo.engines.base import Answer, Decoding, EngineInfo, Query
from perpo.engines.decoding import SampledAnswer, question_uniforms, sample_candidates
from perpo.engines.prompts import check_questions, encoded, prompt_lengths
from perpo.engines.shared_image import answer
from perpo.engines.stopping import loops_of
from perpo.errors import PerpoError
from perpo.models.loaded import DType, LoadedModel, answers_token_ids, render_prompt
from perpo.models.loading import chosen_dtype, load_model


@dataclass(frozen=True, kw_only=True)
class HfEngine:
    """A model that `perpo.models.loading.load_model` gave; see `perpo.engines.base.Engine`.

    Attributes:
        loaded: The model.
        dtype: The type that its base was loaded in.
    """

    loaded: LoadedModel
    dtype: DType

    @cached_property
    def info(self) -> EngineInfo:
        """See `Engine`."""
        loaded = self.loaded
        return EngineInfo(
            name="hf",
            model=loaded.name,
            by_batch=self.dtype != "float32",
            dtype=self.dtype,
            weights_sha256=loaded.weights_sha256,
            adapter_sha256=loaded.adapter_sha256,
            family=loaded.family,
            processor=type(getattr(loaded.processor, "image_processor", None) or loaded.processor).__name__,
            attention=loaded.model.config._attn_implementation,
            device=str(loaded.model.device),
            stops_loops=True,
        )

    def check(self, questions: Sequence[Question], image_root: Path, decoding: Decoding) -> None:
        """See `Engine`."""
        check_questions(self.loaded, questions, image_root, decoding)

    def prompt(self, question: str) -> str:
        """See `Engine`."""
        return render_prompt(self.loaded, question)

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """See `Engine`; a picture counts one."""
        return prompt_lengths(self.loaded, prompts)

    def answers(self, queries: Sequence[Query], decoding: Decoding) -> list[list[Answer]]:
        """See `Engine`.

        One greedy answer to each query without log-probabilities goes through `perpo.engines.shared_image`, where a
        picture is read once for all its questions: faster, but `generate` keeps no logits. All else shares a
        question's prompt among its answers, in `perpo.engines.decoding`.
        """
        prompts = [self.prompt(query.question) for query in queries]
        if decoding.temperature == 0 and decoding.num_candidates == 1 and not decoding.logps:
            return [
                [self._without_logp(prompt, ids, decoding)]
                for prompt, ids in zip(prompts, self._greedy(queries, prompts, decoding), strict=True)
            ]
        sampled = self._sampled(queries, prompts, decoding)
        pairs = zip(prompts, sampled, strict=True)
        if decoding.logps:
            return [self._with_logps(prompt, candidates, decoding) for prompt, candidates in pairs]
        return [
            [self._without_logp(prompt, candidate.token_ids, decoding) for candidate in candidates]
            for prompt, candidates in pairs
        ]

    def _greedy(self, queries: Sequence[Query], prompts: Sequence[str], decoding: Decoding) -> list[list[int]]:
        images: dict[int, Image.Image] = {id(query.image): query.image for query in queries}
        numbers = {key: number for number, key in enumerate(images)}
        settings = {"max_new_tokens": decoding.max_new_tokens, "do_sample": False}
        settings |= {"stop_on_repetition": True} if decoding.stop_on_repetition else {}
        image_of = [numbers[id(query.image)] for query in queries]
        return answer(self.loaded, prompts, list(images.values()), image_of, settings)

    def _sampled(
        self, queries: Sequence[Query], prompts: Sequence[str], decoding: Decoding
    ) -> list[list[SampledAnswer]]:
        model = self.loaded.model
        inputs = dict(encoded(self.loaded, queries, prompts, decoding).to(model.device, model.dtype))
        shape = (decoding.num_candidates, decoding.max_new_tokens)
        uniforms = np.stack([question_uniforms(decoding.seed, query.draw, *shape) for query in queries])
        return sample_candidates(
            self.loaded.model,
            inputs,
            torch.from_numpy(uniforms),
            temperature=decoding.temperature,
            top_p=decoding.top_p,
            end_ids=self.loaded.end_ids,
            loops=loops_of(self.loaded) if decoding.stop_on_repetition else None,
        )

    def _without_logp(self, prompt: str, ids: list[int], decoding: Decoding) -> Answer:
        said = self.loaded.answer_text(ids)
        truncated = not ids or ids[-1] not in self.loaded.end_ids
        stopped = truncated and _stopped(ids, decoding)
        return Answer(self._trimmed(said), truncated, None, opened_thought(prompt), said, len(ids), stopped)

    def _with_logps(self, prompt: str, candidates: Sequence[SampledAnswer], decoding: Decoding) -> list[Answer]:
        loaded = self.loaded
        said = [loaded.answer_text(c.token_ids) for c in candidates]
        texts = [self._trimmed(each) for each in said]
        logps = [
            c.logp if ids is not None and c.token_ids == [*ids, *[loaded.end_id] * (not c.truncated)] else None
            for c, ids in zip(candidates, self._again(prompt, texts), strict=True)
        ]
        opened = opened_thought(prompt)
        ends = [(len(c.token_ids), c.truncated and _stopped(c.token_ids, decoding)) for c in candidates]
        return [
            Answer(text, c.truncated, logp, opened, whole, *end)
            for text, c, logp, whole, end in zip(texts, candidates, logps, said, ends, strict=True)
        ]

    def _trimmed(self, said: str) -> str:
        """A text without what spells a control token: it would be refused when it is trained on."""
        return self.loaded.without_control_tokens(said).strip()

    def _again(self, prompt: str, texts: Sequence[str]) -> list[list[int] | None]:
        """The tokens that training would make of answers' texts, without an end; None where it could not."""
        try:
            return list(answers_token_ids(self.loaded, prompt, texts, end=False))
        except PerpoError:  # one of the texts joins with the prompt
            return [None] if len(texts) == 1 else [again for text in texts for again in self._again(prompt, [text])]


def _stopped(cut: Sequence[int], decoding: Decoding) -> bool:
    """Whether an answer without an end was stopped as it looped: else it has all the tokens that it may have."""
    return decoding.stop_on_repetition and 0 < len(cut) < decoding.max_new_tokens


def load_hf(model: str, adapter: str | None, *, dtype: DType | None, device: str | None) -> HfEngine:
    """Load a Hugging Face model as an engine; the arguments are those of `perpo.engines.choice.load_engine`."""
    chosen = chosen_dtype(dtype, device)
    return HfEngine(loaded=load_model(model, adapter, dtype=chosen, device=device, frozen=True), dtype=chosen)
