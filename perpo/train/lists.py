"""From preference records to batches: choose the candidates, tokenize them, load the images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers.trainer_pt_utils import LengthGroupedSampler

from perpo.data import PreferenceRecord, Question
from perpo.data.images import image_size, open_image
from perpo.errors import PerpoError, placed
from perpo.methods import METHODS
from perpo.models.loaded import LoadedModel, answers_token_ids, render_prompt
from perpo.models.prefix import PER_TOKEN, pack
from perpo.train.arguments import TrainArguments


@dataclass(frozen=True)
class ChosenAnswers:
    """The answers of one record that are trained on.

    Attributes:
        number: The record's number in the data, from 1 on.
        record: The record.
        answers: Texts, in the data's order.
        complete: Per answer, whether it has an end token (one cut at the token limit has none).
        rewards: Per answer; empty where there are none (the data's own answers).
        reference_logps: Per answer, or None where the reference has to be computed.
    """

    number: int
    record: Question
    answers: list[str]
    complete: list[bool]
    rewards: list[float]
    reference_logps: list[float] | None = None


@dataclass(frozen=True)
class TokenizedList:
    """A choice, ready to be packed.

    Attributes:
        number: The record's number in the data, from 1 on.
        image_path: Where its image is.
        prompt: The rendered prompt, with the image's placeholder.
        prefix_tokens: Tokens of image and prompt together.
        answers: Token ids of each candidate.
        rewards: As in the choice.
        reference_logps: As in the choice.
    """

    number: int
    image_path: Path
    prompt: str
    prefix_tokens: int
    answers: list[list[int]]
    rewards: list[float]
    reference_logps: list[float] | None


def choose(args: TrainArguments, records: Sequence[Question]) -> tuple[list[ChosenAnswers], dict[str, int]]:
    """Choose what is trained on.

    Left out are answers that were cut at the token limit (unless they are kept and hold any text),
    answers without a recorded log-probability (where those are the reference), and lists with too few
    answers left.
    Of the rest the method picks which are learnt: all, the best and the worst, the best.

    Args:
        args: The run's arguments.
        records: Preference records, or questions where the method learns the data's own answers.

    Returns:
        The choices, and how many records, lists, candidates were read, used and left out.

    Raises:
        PerpoError: Nothing is left, or no list has two different rewards.
    """
    if not args.samples:
        choices = [ChosenAnswers(n, record, [record.answer], [True], []) for n, record in enumerate(records, 1)]
        return choices, {"records": len(records), "lists": len(records), "candidates": len(records)}
    counts: Counter[str] = Counter(records=len(records))
    choices = []
    for number, record in enumerate(records, 1):
        assert isinstance(record, PreferenceRecord)
        places = _usable(args, record, counts)
        if len(places) < (2 if args.ranks else 1):
            counts["lists_left_out_too_few_candidates"] += 1
            continue
        choices.append(_choice(args, number, record, places))
    counts["lists"] = len(choices)
    counts["candidates"] = sum(len(choice.answers) for choice in choices)
    if not choices:
        left_out = ", ".join(f"{name} {count}" for name, count in counts.items() if "left_out" in name)
        raise PerpoError(f"no record of {args.data} has enough usable candidates: {left_out}", "sample more")
    if args.ranks and not any(len(set(choice.rewards)) > 1 for choice in choices):
        raise PerpoError(
            f"no record of {args.data} has candidates with different rewards",
            "nothing can be learnt from it: sample at a higher --temperature, or check the reward",
        )
    return choices, dict(counts)


def _usable(args: TrainArguments, record: PreferenceRecord, counts: Counter[str]) -> list[int]:
    """The places of the candidates that may be used."""
    places = []
    for place in range(len(record.answers_gen)):
        if not args.keep_truncated and record.truncated and record.truncated[place]:
            counts["candidates_left_out_truncated"] += 1
        elif record.truncated and record.truncated[place] and not record.answers_gen[place]:
            counts["candidates_left_out_empty"] += 1  # it has no token, not even one at its end
        elif args.reference == "recorded" and (record.reference_logps is None or record.reference_logps[place] is None):
            counts["candidates_left_out_no_recorded_reference"] += 1
        else:
            places.append(place)
    return places[: args.num_candidates or None]


def _choice(args: TrainArguments, number: int, record: PreferenceRecord, places: list[int]) -> ChosenAnswers:
    rewards, picks = record.rewards, METHODS[args.method].picks
    assert picks is not None
    places = [places[picked] for picked in picks([rewards[place] for place in places])]
    logps = record.reference_logps or []
    return ChosenAnswers(
        number,
        record,
        [record.answers_gen[place] for place in places],
        [not (record.truncated and record.truncated[place]) for place in places],
        [rewards[place] for place in places],
        [float(logps[place] or 0.0) for place in places] if args.reference == "recorded" else None,
    )


def tokenize(
    loaded: LoadedModel,
    choices: Sequence[ChosenAnswers],
    image_root: str | Path,
    *,
    max_length: int | None = None,
    max_prompt_length: int | None = None,
) -> list[TokenizedList]:
    """Render the prompts and tokenize the answers.

    Args:
        loaded: The model.
        choices: What is trained on.
        image_root: Where image paths start from.
        max_length: The most tokens of image, prompt and answer together.
        max_prompt_length: The most tokens of a prompt, its image not counted.

    Raises:
        PerpoError: An image, its prompt and an answer together are longer than the model's context.
            Or than the arguments allow. Nothing is ever truncated. Or a text spells a control token.
    """
    image_tokens: dict[tuple[int, int], int] = {}
    sizes = {path: image_size(Path(image_root, path)) for path in {choice.record.image_path for choice in choices}}
    lists = []
    context = loaded.context_length
    most = context if max_length is None else min(max_length, context)
    whose = "the model's context" if most == context else "--max_length"
    for choice in choices:
        path = Path(image_root, choice.record.image_path)
        with placed(f"record {choice.number}"):
            prompt = render_prompt(loaded, choice.record.question)
            ids = answers_token_ids(loaded, prompt, choice.answers)
        answers = [ids if ended else ids[:-1] for ids, ended in zip(ids, choice.complete, strict=True)]
        size = sizes[choice.record.image_path]
        if size not in image_tokens:
            image_tokens[size] = loaded.image_tokens(size)
        text, longest = len(loaded.token_ids([prompt])[0]) - 1, max(map(len, answers))
        if max_prompt_length is not None and text > max_prompt_length:
            raise PerpoError(
                f"record {choice.number}: its prompt has {text} tokens, more than --max_prompt_length "
                f"{max_prompt_length}",
                "leave the record out; nothing is truncated",
            )
        if image_tokens[size] + text + longest > most:
            raise PerpoError(
                f"record {choice.number}: image ({image_tokens[size]} tokens), prompt ({text}) and longest answer "
                f"({longest}) together exceed {whose} of {most} tokens",
                "leave the record out; nothing is truncated",
            )
        prefix = image_tokens[size] + text
        lists.append(
            TokenizedList(choice.number, path, prompt, prefix, answers, choice.rewards, choice.reference_logps)
        )
    return lists


class ListDataset(Dataset):
    """Tokenized lists with their images, loaded when they are asked for.

    From its length on they come again, and count nothing: see `perpo.train.distributed.Filled`. Processes that load
    images are handed it, so that it holds no model.
    """

    def __init__(self, lists: Sequence[TokenizedList], loaded: LoadedModel) -> None:
        self.lists = lists
        self.encoder = loaded.without_model()

    def __len__(self) -> int:
        return len(self.lists)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.lists[index % len(self.lists)]
        inputs = dict(self.encoder.encode([item.prompt], [open_image(item.image_path)]))
        image_inputs = {name: value for name, value in inputs.items() if name not in PER_TOKEN}
        counts = index < len(self.lists)
        return {"list": item, "prefix": inputs["input_ids"][0].tolist(), "image": image_inputs, "counts": counts}


class SimilarLengths(LengthGroupedSampler):
    """An order in which lists of similar lengths follow each other; another one each epoch.

    Lists are sorted by their prefixes, to 64 tokens, and then by all their answers' tokens, because both are
    padded to a batch's longest. The order follows from seed and epoch alone, so that a resumed run finds it again.

    Args:
        lists: What is ordered.
        together: How many follow each other: the lists of one optimizer step over all processes.
        seed: Of the order.
    """

    def __init__(self, lists: Sequence[TokenizedList], together: int, seed: int) -> None:
        answers = [sum(map(len, each.answers)) for each in lists]
        wider = max(answers) + 1
        lengths = [each.prefix_tokens // 64 * wider + count for each, count in zip(lists, answers, strict=True)]
        super().__init__(together, lengths=lengths, generator=torch.Generator())
        self.seed = seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate before each epoch."""
        self.generator.manual_seed(self.seed + epoch)


@dataclass(frozen=True)
class Collator:
    """Packs lists into a batch.

    A batch holds `numbers` (of the lists' records), `packed` (see `perpo.models.prefix`), `images` (for each list
    what the processor made of its image), `rewards` (B, N), `mask` (B, N; True
    where there is a candidate; nowhere in a list that counts nothing), `token_counts` (B, N) and, where it
    was recorded, `reference_logps` (B, N).
    """

    pad_id: int

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        lists: list[TokenizedList] = [item["list"] for item in items]
        batch: dict[str, Any] = {
            "numbers": [each.number for each in lists],
            "packed": pack([item["prefix"] for item in items], [each.answers for each in lists], self.pad_id),
            "images": [item["image"] for item in items],
            "rewards": _rows([each.rewards for each in lists]),
            "mask": _rows([[float(item["counts"])] * len(item["list"].answers) for item in items]) > 0,
            "token_counts": _rows([[float(len(ids)) for ids in each.answers] for each in lists]),
        }
        if lists[0].reference_logps is not None:
            batch["reference_logps"] = _rows([each.reference_logps or [] for each in lists])
        return batch


def _rows(rows: Sequence[Sequence[float]]) -> Tensor:
    """Rows of unequal lengths, filled up with 0."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[0.0] * (width - len(row))] for row in rows])
