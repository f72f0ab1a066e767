"""Candidates from a Hugging Face model: questions and images in, texts with their log-probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from perpo.data import Question
from perpo.decoding import Candidate, question_uniforms, sample_candidates
from perpo.errors import PerpoError
from perpo.images import image_size, open_image
from perpo.models import LoadedModel, answers_token_ids, render_prompt


@dataclass(frozen=True)
class Answer:
    """One sampled answer as text.

    Attributes:
        text: Without special tokens and the space around it.
        truncated: Whether the token limit cut it.
        logp: Sum of the log-probabilities (nats, at temperature 1) of its tokens, with the end token
            unless truncated; None where `perpo.models.answers_token_ids` of the text gives other
            tokens than were sampled, as training could not use it then.
    """

    text: str
    truncated: bool
    logp: float | None


@dataclass(frozen=True, kw_only=True)
class HfSampler:
    """Samples from a model that `perpo.models.load_model` gave.

    Attributes:
        loaded: The model.
        image_root: Folder that image paths start from.
        num_candidates: Candidates per question.
        temperature: Divides the logits; 0 takes the most probable token.
        top_p: Draw from the fewest tokens whose probabilities reach this.
        seed: Of the random numbers.
        max_new_tokens: Longest answer, the end token included.
    """

    loaded: LoadedModel
    image_root: Path
    num_candidates: int
    temperature: float
    top_p: float
    seed: int
    max_new_tokens: int

    def check_context(self, questions: Sequence[Question]) -> None:
        """Run the question with the most tokens of image and prompt through the processor: it and an answer must fit.

        Raises:
            PerpoError: They exceed the model's context.
        """
        prompts = [render_prompt(self.loaded, question.question) for question in questions]
        sizes = {path: image_size(self.image_root / path) for path in {question.image_path for question in questions}}
        tokens = {size: self.loaded.image_tokens(size) for size in set(sizes.values())}
        images = [tokens[sizes[question.image_path]] for question in questions]
        lengths = [len(ids) + image for ids, image in zip(self.loaded.token_ids(prompts), images, strict=True)]
        self._encode([questions[int(np.argmax(lengths))]])

    def answers(self, numbered: Sequence[tuple[int, Question]]) -> list[list[Answer]]:
        """Sample answers to one batch of questions.

        Args:
            numbered: Questions with their index in the file, which picks their random numbers.

        Returns:
            For each question `num_candidates` answers.
        """
        questions = [question for _, question in numbered]
        prompts, inputs = self._encode(questions)
        shape = (self.num_candidates, self.max_new_tokens)
        uniforms = np.stack([question_uniforms(self.seed, index, *shape) for index, _ in numbered])
        sampled = sample_candidates(
            self.loaded.model,
            inputs,
            torch.from_numpy(uniforms),
            temperature=self.temperature,
            top_p=self.top_p,
            end_ids=self.loaded.end_ids,
        )
        return [self._texts(prompt, found) for prompt, found in zip(prompts, sampled, strict=True)]

    def _encode(self, questions: Sequence[Question]) -> tuple[list[str], dict[str, torch.Tensor]]:
        """Prompts, and the left-padded batch that the model takes, on its device."""
        prompts = [render_prompt(self.loaded, question.question) for question in questions]
        images = [open_image(self.image_root / question.image_path) for question in questions]
        batch = self.loaded.encode(prompts, images)
        longest = int(batch["attention_mask"].sum(1).argmax())
        length = batch["input_ids"].shape[1]
        if length + self.max_new_tokens > self.loaded.context_length:
            raise PerpoError(
                f"{length} tokens of image and prompt and {self.max_new_tokens} of an answer exceed the model's "
                f"context of {self.loaded.context_length}: {questions[longest].question!r:.80}",
                "leave that question out, or give a smaller --max_new_tokens; nothing is ever cut silently",
            )
        model = self.loaded.model
        return prompts, dict(batch.to(model.device, model.dtype))

    def _texts(self, prompt: str, candidates: Sequence[Candidate]) -> list[Answer]:
        kept = [c.token_ids if c.truncated else c.token_ids[:-1] for c in candidates]
        texts = [text.strip() for text in self.loaded.tokenizer.batch_decode(kept, skip_special_tokens=True)]
        end = self.loaded.end_id
        try:
            again = answers_token_ids(self.loaded, prompt, texts, end=False)
        except PerpoError:  # one of the texts joins with the prompt; only an empty one is certain then
            again = [[] for _ in texts]
        return [
            Answer(text, c.truncated, c.logp if c.token_ids == [*ids, *[end] * (not c.truncated)] else None)
            for text, c, ids in zip(texts, candidates, again, strict=True)
        ]
