"""Prompts of the families that are listed: checked before the first is asked, and as tokens with their pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perpo.data import Question
from perpo.data.images import image_size, open_image
from perpo.engines.base import Decoding, Query
from perpo.errors import PerpoError, placed
from perpo.models.loaded import LoadedModel, render_prompt


def check_questions(loaded: LoadedModel, questions: Sequence[Question], image_root: Path, decoding: Decoding) -> Query:
    """Run the question with the most tokens of image and prompt through the processor.

    Args:
        loaded: The model, or all of it but the weights.
        questions: All that will be asked, with their truths.
        image_root: Folder that their image paths start from.
        decoding: How they are to be answered.

    Returns:
        That question.

    Raises:
        PerpoError: One does not fit the model's context together with an answer; or a text spells a control token.
    """
    prompts = []
    for number, question in enumerate(questions, 1):
        with placed(f"question {number}"):
            prompts.append(render_prompt(loaded, question.question))
            loaded.check_plain(question.answer, "its answer")
    sizes = {path: image_size(image_root / path) for path in {question.image_path for question in questions}}
    tokens = {size: loaded.image_tokens(size) for size in set(sizes.values())}
    images = [tokens[sizes[question.image_path]] for question in questions]
    lengths = [length + image for length, image in zip(prompt_lengths(loaded, prompts), images, strict=True)]
    longest = int(np.argmax(lengths))
    file = image_root / questions[longest].image_path
    query = Query(questions[longest].question, open_image(file), longest, file)
    encoded(loaded, [query], prompts[longest : longest + 1], decoding)
    return query


def prompt_lengths(loaded: LoadedModel, prompts: Sequence[str]) -> list[int]:
    """Return how long prompts are in tokens; a picture counts one."""
    return [len(ids) for ids in loaded.token_ids(prompts)] if prompts else []


def encoded(loaded: LoadedModel, queries: Sequence[Query], prompts: Sequence[str], decoding: Decoding) -> Any:
    """Return the left-padded batch that the model takes, on the CPU.

    Raises:
        PerpoError: One does not fit the model's context together with an answer.
    """
    batch = loaded.encode(prompts, [query.image for query in queries])
    longest = int(batch["attention_mask"].sum(1).argmax())
    length = batch["input_ids"].shape[1]
    if length + decoding.max_new_tokens > loaded.context_length:
        raise PerpoError(
            f"{length} tokens of image and prompt and {decoding.max_new_tokens} tokens of an answer exceed the "
            f"model's context of {loaded.context_length} tokens. The question: "
            f"{queries[longest].question!r:.80}",
            "leave that question out, or give a smaller --max_new_tokens; nothing is cut without saying so",
        )
    return batch


def check_read(
    loaded: LoadedModel, theirs: Sequence[int], ours: Sequence[int], reader: str, *, other: str, picture: str
) -> None:
    """Refuse an engine that read another prompt than our own copy of the model makes.

    Args:
        loaded: All of the model but its weights.
        theirs: The tokens that it read.
        ours: Those of our own copy.
        reader: Who read, for the message.
        other: What helps where the prompt is another one.
        picture: What helps where the picture became another number of tokens.

    Raises:
        PerpoError: They differ.
    """
    image = loaded.tokenizer.convert_tokens_to_ids(loaded.processor.image_token)
    shown = [_without_runs(ids, image) for ids in (theirs, ours)]
    if shown[0] != shown[1]:
        told = [repr(loaded.tokenizer.decode(ids))[:300] for ids in shown]
        raise PerpoError(
            f"{reader} reads another prompt than this model's:\n  theirs: {told[0]}\n  model:  {told[1]}",
            other,
        )
    if len(theirs) != len(ours):
        raise PerpoError(
            f"{reader} makes {list(theirs).count(image)} tokens of a picture, and this model {list(ours).count(image)}",
            picture,
        )


def _without_runs(ids: Sequence[int], token: int) -> list[int]:
    """Tokens with each run of one of them as a single one."""
    return [each for place, each in enumerate(ids) if each != token or place == 0 or ids[place - 1] != token]
