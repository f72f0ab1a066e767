"""From questions to preference records: sample, reward, keep a journal, filter, write.

Everything that can be wrong with the input is found before the model is loaded, and torch is not
imported until then.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.boxes import BoxFormat, box_problem, declared, parse_box, same_box
from perpo.boxes.readings import Answered, other_reading
from perpo.common.files import check_writable
from perpo.common.journal import Journal
from perpo.common.progress import progress
from perpo.common.redact import without_secrets
from perpo.data import (
    PreferenceRecord,
    Question,
    check_images,
    image_root_of,
    read_questions,
    write_jsonl,
)
from perpo.data.images import PICTURES_VERSION
from perpo.data.truths import check_formats, format_fields, row_format, says_format
from perpo.errors import PerpoError
from perpo.models.answer_format import answer_format, usual_resize
from perpo.models.checkpoints import adapter_digest, grounding_prompt, refused_pictures
from perpo.rewards import RewardFunction, check_truths, load_reward, score
from perpo.rewards.asked import Asked, asked_of
from perpo.sample.candidates import AnswerSet, Summary, summarise

if TYPE_CHECKING:
    from perpo.engines.base import Answer
    from perpo.engines.hf import HfSampler
    from perpo.models.loaded import LoadedModel
    from perpo.sample.arguments import SampleArguments

TINY_QUESTIONS = 500
_TINY_IMAGES = 300  # not every picture has two questions


@dataclass(frozen=True)
class SamplingRun:
    """What a run leaves.

    Attributes:
        output: The preference records.
        image_root: Folder that their image paths start from.
        summary: Numbers about the answers.
        ranks: Whether any record has finished answers of different rewards.
        warning: What is to be said of how boxes were read, or None.
    """

    output: Path
    image_root: Path
    summary: Summary
    ranks: bool
    warning: str | None = None


@dataclass(frozen=True)
class _Job:
    """The checked input of a run; `questions` are all of the file's, `asked` the first `--limit`.

    `answer_format` is None where it is not known how the model writes boxes, and none are asked for; `truth_format`
    is what truths are like whose row does not say it, and None where truths are no boxes.
    """

    questions: list[Question]
    asked: list[Asked]
    image_root: Path
    answer_format: BoxFormat | None
    truth_format: BoxFormat | None
    reward: RewardFunction


def run_sampling(args: SampleArguments) -> SamplingRun:
    """Sample candidates for every question, reward and filter them, and write preference records.

    The answers of finished batches are kept in a journal beside the output. Interrupted and called
    again with the same arguments, this continues, and the output is the same, byte for byte. The
    reward, filters, `limit` and `batch_size` may change between calls. Where an image has changed,
    its questions are asked again; in half precision, in which answers depend on what else is in the
    batch, also where their batch would be another one now.

    Args:
        args: The arguments of perpo-sample.

    Returns:
        Where the records are, and a summary.

    Raises:
        PerpoError: Bad arguments, questions, images, reward or model; before the model is loaded
            where it can be known then. Or the filters leave no question.
    """
    args.check()
    output = Path(args.output)
    journal_path = output.with_name(f"{output.name}.journal")
    _check_output(output, journal_path)
    job = _prepare(args, output)

    from perpo.engines.hf import HfSampler
    from perpo.models.loading import chosen_dtype, load_model

    dtype = chosen_dtype(args.dtype, args.device)
    loaded = load_model(args.model, args.adapter, dtype=dtype, device=args.device)
    sampler = HfSampler(
        loaded=loaded,
        image_root=job.image_root,
        num_candidates=args.num_candidates,
        temperature=args.temperature,
        top_p=args.top_p,
        seed=args.seed,
        max_new_tokens=args.max_new_tokens,
    )
    sampler.check_context([asked.question for asked in job.asked])
    provenance = _provenance(args, loaded, dtype)
    with Journal(journal_path, _journal_key(args, job, provenance)) as journal:
        _sample_missing(journal, job, sampler, args.batch_size, by_batch=dtype != "float32")
        rows = journal.done()
    answered = [rows[index] for index in range(len(job.asked))]
    sets = [_rewarded(job, row) for row in answered]
    kept = _filtered(sets, args)
    batched = {index: {} if dtype == "float32" else {"batch_size": rows[index]["batch_size"]} for index in rows}
    records = [_record(job, answers, args.reward, provenance | batched[answers.id]) for answers in kept]
    write_jsonl(output, records)
    ranks = any(answers.margin() > 0 for answers in kept)
    return SamplingRun(output, job.image_root, summarise(sets, len(kept)), ranks, _misread(job, answered))


def _check_output(output: Path, journal_path: Path) -> None:
    """Refuse what cannot be written, and to overwrite what no earlier call of this program wrote."""
    if output.suffix != ".jsonl":
        raise PerpoError(f"--output must end in .jsonl, got {output}", "records are written one JSON object a line")
    check_writable(output.parent)
    if output.exists() and not journal_path.exists():
        raise PerpoError(
            f"{output} exists, and there is no journal beside it to continue from",
            "choose another --output, or move that file away",
        )


def _prepare(args: SampleArguments, output: Path) -> _Job:
    """Check and read everything but the model's weights."""
    given = args.truth_parts
    are_boxes = args.reward == "iou" or any(given.values())
    answers = answer_format(args.model, args.box_scale, args.box_order, args.box_frame, are_boxes=are_boxes)
    if args.adapter is not None:
        adapter_digest(args.adapter)
    truths = declared(answers, **given)
    reward = load_reward(args.reward, answers, truths)
    questions, image_root = _read(args, output)
    if args.reward != "edit" and answers is not None:
        are_boxes = are_boxes or all(says_format(vars(question)) for question in questions)
    wanted = questions[: args.limit]
    if truths is not None and are_boxes:
        check_formats(wanted, truths, given, usual_resize(args.model))
    check_images(wanted, image_root, refused_pictures(args.model))
    asked = asked_of(wanted, image_root)
    check_truths(reward, (each.sample for each in asked), truths if are_boxes else None, answers)
    return _Job(questions, asked, image_root, answers, truths if are_boxes else None, reward)


def _read(args: SampleArguments, output: Path) -> tuple[list[Question], Path]:
    """All questions, and the folder that their image paths start from."""
    unpack_to = output.parent / f"{output.stem}-images"
    if args.questions != "tiny":
        image_root = Path(args.image_root or image_root_of(args.questions))
        prompt = grounding_prompt(args.model)
        return read_questions(args.questions, unpack_to=unpack_to, grounding_prompt=prompt), image_root
    if args.image_root is not None:
        raise PerpoError("the tiny questions come with their images", "leave --image_root out")
    from perpo.tiny.world import write_questions

    folder = output.parent / f"{output.stem}-questions"
    return read_questions(write_questions(folder, images=_TINY_IMAGES))[:TINY_QUESTIONS], folder


def _provenance(args: SampleArguments, loaded: LoadedModel, dtype: str) -> dict[str, Any]:
    """How the answers are made; goes into every record, in half precision with the size of its batch."""
    return {
        "engine": "hf",
        "temperature": args.temperature,
        "top_p": args.top_p,
        "seed": args.seed,
        "max_new_tokens": args.max_new_tokens,
        "model": without_secrets(loaded.name),
        "dtype": dtype,
        "weights_sha256": loaded.weights_sha256,
        "adapter_sha256": loaded.adapter_sha256,
    }


def _journal_key(args: SampleArguments, job: _Job, provenance: dict[str, Any]) -> str:
    """SHA-256 of all that sampled answers depend on, but for the images: each row says what it saw."""
    content = {
        # The name does not matter, for the weights have a digest.
        "provenance": {name: value for name, value in provenance.items() if name != "model"},
        "pictures": PICTURES_VERSION,
        "num_candidates": args.num_candidates,
        "questions": [(question.image_path, question.question) for question in job.questions],
        # Which tokens an answer's text holds: see perpo.models.control_tokens. Rows say what thought a prompt opened.
        "texts": "marks kept, thoughts opened",
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sample_missing(journal: Journal, job: _Job, sampler: HfSampler, batch_size: int, *, by_batch: bool) -> None:
    """Sample what the journal lacks.

    Batches always begin at the same questions, and one that is partly there is done again whole, so
    that an interruption changes no batch and with it no last bit of a number.

    Args:
        journal: The answers so far.
        job: What is asked.
        sampler: What answers.
        batch_size: Questions per batch.
        by_batch: Whether an answer depends on its batch: then only those of the same batches count, and no larger
            part is tried than memory had room for before.
    """
    from perpo.engines.batches import BatchLimit

    rows = journal.done()
    indices = range(len(job.asked))
    batches = [indices[start : start + batch_size] for start in indices[::batch_size]]
    done = {k for k in indices if k in rows and rows[k]["image_sha256"] == job.asked[k].image_sha256}
    if by_batch:
        done = {k for batch in batches for k in batch if k in done and rows[k].get("batch") == _ends(batch)}
    limit = BatchLimit(min([batch_size, *(rows[k]["batch_limit"] for k in done if by_batch)]))
    with progress(len(indices), "sampling", initial=len(done)) as advance:
        for batch in batches:
            missing = len(set(batch) - done)
            if not missing:
                continue
            numbered = [(index, job.asked[index].question) for index in batch]
            for part, found in limit.run(numbered, sampler.answers):
                how = {"batch": _ends(batch), "batch_size": len(part), "batch_limit": limit.size}
                answered = zip(part, found, strict=True)
                journal.append(_row(index, job, answers) | how for (index, _), answers in answered)
            advance(missing)


def _ends(batch: range) -> list[int]:
    return [batch.start, batch.stop]


def _row(index: int, job: _Job, answers: Sequence[Answer]) -> dict[str, Any]:
    """What the journal keeps of a question."""
    return {
        "id": index,
        "image_sha256": job.asked[index].image_sha256,
        "opened": answers[0].opened,
        "answers": [answer.text for answer in answers],
        "truncated": [answer.truncated for answer in answers],
        "reference_logps": [answer.logp for answer in answers],
    }


def _rewarded(job: _Job, row: dict[str, Any]) -> AnswerSet:
    """A row of the journal with its rewards."""
    sample = job.asked[row["id"]].sample
    scored = [score(job.reward, row["opened"] + answer, sample["answer"], sample) for answer in row["answers"]]
    return AnswerSet(
        id=row["id"],
        answers=row["answers"],
        rewards=[s.reward for s in scored],
        readable=[s.readable for s in scored],
        truncated=row["truncated"],
        reference_logps=row["reference_logps"],
    )


def _filtered(sets: Sequence[AnswerSet], args: SampleArguments) -> list[AnswerSet]:
    """The answers that become records.

    Raises:
        PerpoError: None do.
    """
    kept = [answers for answers in sets if answers.margin() >= args.min_margin]
    if not kept:
        best = max(answers.margin() for answers in sets)
        raise PerpoError(
            f"no question has a margin of {args.min_margin} between its best and worst finished answers; "
            f"the largest is {best:.3f}",
            "run the same command with a smaller --min_margin: what was sampled is kept",
        )
    return [answers.distinct() for answers in kept] if args.duplicates == "drop" else kept


def _misread(job: _Job, rows: Sequence[dict[str, Any]]) -> str | None:
    """What the first answer to each question says of how boxes are written; see `perpo.boxes.readings`."""
    if job.answer_format is None or job.truth_format is None:
        return None
    found = []
    for row in rows:
        asked = job.asked[row["id"]]
        truth = parse_box(asked.question.answer, row_format(vars(asked.question), job.truth_format), asked.image_size)
        if truth is not None:
            found.append(Answered(row["opened"] + row["answers"][0], truth, asked.image_size))
    return other_reading(found, job.answer_format)


def _is_text(job: _Job, asked: Asked) -> bool:
    """Whether a truth that nobody declares to be a box is none: a reward of the user's may be about texts."""
    if job.answer_format is None or job.truth_format is not None:
        return False
    return box_problem(asked.question.answer, job.answer_format, asked.image_size) is not None


def _record(job: _Job, answers: AnswerSet, reward: str, provenance: dict[str, Any]) -> PreferenceRecord:
    asked = job.asked[answers.id]
    question, size = asked.question, asked.image_size
    # A record speaks of one way to write boxes, which is the model's.
    said = format_fields(job.answer_format)
    if job.truth_format is not None and job.answer_format is not None:
        truth = same_box(question.answer, row_format(vars(question), job.truth_format), job.answer_format, size)
        question = dataclasses.replace(question, answer=truth)
    if reward == "edit" or _is_text(job, asked):
        said = {name: value if name == "box_frame" else None for name, value in said.items()}
    return PreferenceRecord(
        **vars(question) | said,
        answers_gen=answers.answers,
        rewards=answers.rewards,
        reward_name=reward,
        truncated=answers.truncated,
        reference_logps=answers.reference_logps,
        sampling=provenance,
    )
