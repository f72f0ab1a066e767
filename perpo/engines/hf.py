"""Candidates from a Hugging Face model: questions and images in, texts with their log-probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from perpo.answers import opened_thought
from perpo.data import Question
from perpo.data.images import image_size, open_image
from perpo.engines.base import Answer
from perpo.engines.decoding import Candidate, question_uniforms, sample_candidates
from perpo.errors import PerpoError, placed
from perpo.models.loaded import LoadedModel, answers_token_ids, render_prompt


@dataclass(frozen=True, kw_only=True)
class HfSampler:
    """Samples from a model that `perpo.models.loading.load_model` gave.

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
            PerpoError: They exceed the model's context; or a question or truth spells a control token.
        """
        prompts = []
        for number, question in enumerate(questions, 1):
            with placed(f"question {number}"):
                prompts.append(render_prompt(self.loaded, question.question))
                self.loaded.check_plain(question.answer, "its answer")
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
        loaded = self.loaded
        # What spells a control token would be refused when it is trained on.
        texts = [loaded.without_control_tokens(loaded.answer_text(c.token_ids)).strip() for c in candidates]
        ends = [[loaded.end_id] * (not c.truncated) for c in candidates]
        opened = opened_thought(prompt)
        return [
            Answer(text, c.truncated, c.logp if ids is not None and c.token_ids == [*ids, *end] else None, opened)
            for text, c, ids, end in zip(texts, candidates, self._again(prompt, texts), ends, strict=True)
        ]

    def _again(self, prompt: str, texts: Sequence[str]) -> list[list[int] | None]:
        """The tokens that training would make of answers' texts, without an end; None where it could not."""
        try:
            return list(answers_token_ids(self.loaded, prompt, texts, end=False))
        except PerpoError:  # one of the texts joins with the prompt
            return [None] if len(texts) == 1 else [again for text in texts for again in self._again(prompt, [text])]
