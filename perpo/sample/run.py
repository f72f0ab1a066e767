"""From questions to preference records: sample, reward, keep a journal, filter, write.

Everything that can be wrong with the input is found before the model is loaded, and torch is not
imported until then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.boxes import PARTS
from perpo.common.files import check_writable
from perpo.common.journal import Journal
from perpo.common.progress import progress
from perpo.common.redact import without_secrets
from perpo.data import Question, image_root_of, read_questions, write_jsonl
from perpo.data.images import PICTURES_VERSION
from perpo.engines.base import Answer, Decoding, Engine, EngineInfo, ask
from perpo.engines.choice import load_engine
from perpo.errors import PerpoError
from perpo.models.checkpoints import adapter_digest, grounding_prompt, local_directory, resolve_model, settings_digests
from perpo.rewards.asked import Asked, QuestionSet, read_asked
from perpo.sample.candidates import Summary, summarise
from perpo.sample.records import filtered, misread, record_of, rewarded

if TYPE_CHECKING:
    from perpo.sample.arguments import SampleArguments

TINY_QUESTIONS = 500
_TINY_IMAGES = 300  # not every picture has two questions

_TOLD_OTHERWISE = {"model", "adapter", "questions", "dtype", "temperature", "top_p", "seed", "max_new_tokens"}
"""Arguments that a journal's key holds in another way: by digests, or as what they mean here."""

_NO_ANSWERS = {
    *("output", "image_root", "limit", "batch_size", "device", "reward", "min_margin", "duplicates"),
    *(f"{whose}_{part}" for whose in ("box", "truth") for part in PARTS),
}
"""Those that no answer depends on, or whose part in it the rows of the journal tell: images, and batches."""


@dataclass(frozen=True)
class SamplingRun:
    """The result of a run.

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
    output = Path(args.output)
    journal_path = output.with_name(f"{output.name}.journal")
    _check_output(output, journal_path)
    if args.adapter is not None:
        adapter_digest(args.adapter)
    questions = read_asked(
        args.model,
        args.reward,
        lambda: _read(args, output),
        answer_parts=args.box_parts,
        truth_parts=args.truth_parts,
        limit=args.limit,
    )
    engine = load_engine(args.model, args.adapter, dtype=args.dtype, device=args.device)
    engine.check(questions.questions, questions.image_root, args.decoding)
    return _sample(args, questions, engine, journal_path)


def _sample(args: SampleArguments, questions: QuestionSet, engine: Engine, journal_path: Path) -> SamplingRun:
    """Ask an engine what the journal lacks, and make records of the answers."""
    output, info = Path(args.output), engine.info
    provenance = _provenance(args.decoding, info)
    with Journal(journal_path, _journal_key(args, questions, provenance)) as journal:
        _sample_missing(journal, questions, engine, args)
        rows = journal.done()
    answered = [rows[index] for index in range(len(questions.asked))]
    sets = [rewarded(questions, row) for row in answered]
    kept = filtered(sets, args)
    batched = {index: {"batch_size": rows[index]["batch_size"]} if info.by_batch else {} for index in rows}
    records = [record_of(questions, answers, provenance | batched[answers.id]) for answers in kept]
    write_jsonl(output, records)
    ranks = any(answers.margin() > 0 for answers in kept)
    return SamplingRun(output, questions.image_root, summarise(sets, len(kept)), ranks, misread(questions, answered))


def _check_output(output: Path, journal_path: Path) -> None:
    """Refuse what cannot be written, and to overwrite what no earlier call of this program wrote."""
    if output.suffix != ".jsonl":
        raise PerpoError(f"--output must end in .jsonl, got {output}", "records are written as JSON lines")
    check_writable(output.parent)
    if output.exists() and not journal_path.exists():
        raise PerpoError(
            f"{output} exists, but there is no journal beside it, so it cannot be continued",
            "choose another --output, or move that file away",
        )


def _read(args: SampleArguments, output: Path) -> tuple[list[Question], Path]:
    """All questions, and the folder that their image paths start from."""
    unpack_to = output.parent / f"{output.stem}-images"
    if args.questions not in ("tiny", "tiny-pages"):
        image_root = Path(args.image_root or image_root_of(args.questions))
        prompt = grounding_prompt(args.model)
        return read_questions(args.questions, unpack_to=unpack_to, grounding_prompt=prompt), image_root
    if args.image_root is not None:
        raise PerpoError("the tiny questions come with their images", "leave --image_root out")
    from perpo.tiny.world import write_questions
    from perpo.tiny.world.dense import write_page_questions

    folder = output.parent / f"{output.stem}-questions"
    if args.questions == "tiny-pages":
        return read_questions(write_page_questions(folder, pages=TINY_QUESTIONS)), folder
    return read_questions(write_questions(folder, images=_TINY_IMAGES))[:TINY_QUESTIONS], folder


def _provenance(decoding: Decoding, info: EngineInfo) -> dict[str, Any]:
    """How the answers are made; goes into every record, with the size of its batch where that matters."""
    return {
        "engine": info.name,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "seed": decoding.seed,
        "max_new_tokens": decoding.max_new_tokens,
        "model": without_secrets(info.model),
        "dtype": info.dtype,
        "weights_sha256": info.weights_sha256,
        "adapter_sha256": info.adapter_sha256,
    }


def _journal_key(args: SampleArguments, questions: QuestionSet, provenance: dict[str, Any]) -> str:
    """SHA-256 of all that sampled answers depend on, but for the images: each row says what it saw.

    A new argument is a part of it until it is named above.
    """
    named = {name: value for name, value in vars(args).items() if name not in _TOLD_OTHERWISE | _NO_ANSWERS}
    content = named | {
        # The name does not matter, for the weights have a digest.
        "provenance": {name: value for name, value in provenance.items() if name != "model"},
        "pictures": PICTURES_VERSION,
        **settings_digests(local_directory(resolve_model(args.model)), args.adapter),
        "questions": [(question.image_path, question.question) for question in questions.of_file],
        # Which tokens an answer's text holds: see perpo.models.control_tokens. Rows say what thought a prompt opened.
        "texts": "marks kept, thoughts opened",
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sample_missing(journal: Journal, questions: QuestionSet, engine: Engine, args: SampleArguments) -> None:
    """Sample what the journal lacks.

    Batches always begin at the same questions, and one that is partly there is done again whole, so
    that an interruption changes no batch and with it no last bit of a number.

    Args:
        journal: The answers so far.
        questions: What is asked.
        engine: What answers. If an answer depends on its batch, only those of the same batches count, and no larger
            part is tried than memory had room for before.
        args: Questions per batch, and how tokens are chosen.
    """
    from perpo.engines.batches import BatchLimit

    rows, asked = journal.done(), questions.asked
    batch_size, by_batch = args.batch_size, engine.info.by_batch
    indices = range(len(asked))
    batches = [indices[start : start + batch_size] for start in indices[::batch_size]]
    done = {k for k in indices if k in rows and rows[k]["image_sha256"] == asked[k].image_sha256}
    if by_batch:
        done = {k for batch in batches for k in batch if k in done and rows[k].get("batch") == _ends(batch)}

    def answers(part: Sequence[tuple[int, Question]]) -> list[list[Answer]]:
        return ask(engine, part, questions.image_root, args.decoding)

    limit = BatchLimit(min([batch_size, *(rows[k]["batch_limit"] for k in done if by_batch)]))
    with progress(len(indices), "sampling", initial=len(done)) as advance:
        for batch in batches:
            missing = len(set(batch) - done)
            if not missing:
                continue
            numbered = [(index, asked[index].question) for index in batch]
            for part, part_answers in limit.run(numbered, answers):
                how = {"batch": _ends(batch), "batch_size": len(part), "batch_limit": limit.size}
                answered = zip(part, part_answers, strict=True)
                journal.append(_row(index, asked[index], its_answers) | how for (index, _), its_answers in answered)
            advance(missing)


def _ends(batch: range) -> list[int]:
    return [batch.start, batch.stop]


def _row(index: int, asked: Asked, answers: Sequence[Answer]) -> dict[str, Any]:
    """What the journal keeps of a question."""
    return {
        "id": index,
        "image_sha256": asked.image_sha256,
        "opened": answers[0].opened,
        "answers": [answer.text for answer in answers],
        "truncated": [answer.truncated for answer in answers],
        "reference_logps": [answer.logp for answer in answers],
    }
