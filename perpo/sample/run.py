"""From questions to preference records: sample, reward, keep a journal, filter, write.

Everything that can be wrong with the input is found before the model is loaded, and torch is not
imported until then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perpo.boxes import PARTS
from perpo.common.files import check_writable
from perpo.common.processes import Processes
from perpo.common.progress import progress
from perpo.common.redact import without_secrets
from perpo.data import Question, image_root_of, read_questions, write_jsonl
from perpo.data.images import PICTURES_VERSION
from perpo.engines.base import Answer, Decoding, Engine, EngineInfo, NoAnswer, ask
from perpo.engines.choice import load_engine
from perpo.engines.vllm_flags import vllm_wanted
from perpo.errors import PerpoError
from perpo.models.checkpoints import adapter_digest, grounding_prompt, local_directory, resolve_model, settings_digests
from perpo.rewards.asked import Asked, QuestionSet, read_asked
from perpo.sample.candidates import Summary, summarise
from perpo.sample.journals import SharedJournal
from perpo.sample.records import filtered, misread, record_of, rewarded

if TYPE_CHECKING:
    from perpo.sample.arguments import SampleArguments

TINY_QUESTIONS = 500
_TINY_IMAGES = 300  # not every picture has two questions

_TOLD_OTHERWISE = {
    *("model", "adapter", "questions", "dtype", "temperature", "top_p", "seed", "max_new_tokens", "engine"),
    *("served_model", "vllm_args"),
}
"""Arguments that a journal's key holds in another way: by digests, or as what they mean here."""

_NO_ANSWERS = {
    *("output", "image_root", "limit", "batch_size", "device", "reward", "min_margin", "duplicates"),
    *("estimate", "processes", "base_url", "concurrency", "rps", "timeout_s"),
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


def run_sampling(args: SampleArguments) -> SamplingRun | None:
    """Sample candidates for every question, reward and filter them, and write preference records.

    The answers of finished batches are kept in a journal beside the output. Interrupted and called
    again with the same arguments, this continues, and the output is the same, byte for byte. The
    reward, filters, `limit` and `batch_size` may change between calls. Where an image has changed,
    its questions are asked again; in half precision, in which answers depend on what else is in the
    batch, also where their batch would be another one now.

    Args:
        args: The arguments of perpo-sample.

    Of several processes (torchrun) each answers a part of the batches and keeps a journal of its own; all are read, so
    that their number may change between calls. The first one writes the records.

    Returns:
        Where the records are, and a summary; None in all processes but the first.

    Raises:
        PerpoError: Bad arguments, questions, images, reward or model; before the model is loaded
            where it can be known then. Or the filters leave no question.
    """
    output = Path(args.output)
    journal_path = output.with_name(f"{output.name}.journal")
    _check_output(output, journal_path)
    if args.adapter is not None:
        adapter_digest(args.adapter)
    processes = Processes()
    with processes.first_alone():
        questions = read_asked(
            args.model,
            args.reward,
            lambda: _read(args, output),
            answer_parts=args.box_parts,
            truth_parts=args.truth_parts,
            limit=args.limit,
        )
    engine = load_engine(
        args.model,
        args.adapter,
        dtype=args.dtype,
        device=processes.device(args.device) if args.engine == "hf" else None,
        servers=args.servers if args.engine == "server" else None,
        vllm=vllm_wanted(args.vllm_args) if args.engine == "vllm" else None,
    )
    engine.info.check_stopping(wanted=args.stop_on_repetition)
    engine.check(questions.questions, questions.image_root, args.decoding)
    return _sample(args, questions, engine, journal_path, processes)


def _sample(
    args: SampleArguments, questions: QuestionSet, engine: Engine, journal_path: Path, processes: Processes
) -> SamplingRun | None:
    """Ask an engine what the journals lack, and make records of the answers."""
    output, info = Path(args.output), engine.info
    provenance = _provenance(args.decoding, info)
    journals = SharedJournal(journal_path, _journal_key(args, questions, provenance), processes)

    def usable(row: dict[str, Any]) -> bool:
        return _usable(row, questions.asked, args.batch_size if info.by_batch else None)

    with journals:
        _sample_missing(journals, questions, engine, args, usable)
    processes.wait()
    if processes.rank:
        return None
    rows = journals.all_rows(usable)
    answered = [rows[index] for index in range(len(questions.asked))]
    sets = []
    with progress(len(answered), "rewarding") as advance:  # after the last question: no reward holds the model up
        for row in answered:
            sets.append(rewarded(questions, row))
            advance(1)
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
    from perpo.tiny.world.dense_rows import write_page_questions

    folder = output.parent / f"{output.stem}-questions"
    if args.questions == "tiny-pages":
        return read_questions(write_page_questions(folder, pages=TINY_QUESTIONS)), folder
    return read_questions(write_questions(folder, images=_TINY_IMAGES))[:TINY_QUESTIONS], folder


def _provenance(decoding: Decoding, info: EngineInfo) -> dict[str, Any]:
    """How the answers are made; goes into every record, with the size of its batch where that matters."""
    stopping = {"stop_on_repetition": True} if decoding.stop_on_repetition else {}
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
        **({} if info.served is None else {"served": dict(info.served)}),
        **stopping,
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
        **settings_digests(local_directory(resolve_model(args.model), weights=args.engine != "server"), args.adapter),
        "questions": [(question.image_path, question.question) for question in questions.of_file],
        # Which tokens an answer's text holds: see perpo.models.control_tokens. Rows say what thought a prompt opened,
        # and which answers loop.
        "texts": "marks kept, thoughts opened, loops told",
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _batch_of(index: int, count: int, size: int) -> range:
    """The questions that are asked together with one."""
    start = index // size * size
    return range(start, min(start + size, count))


def _usable(row: dict[str, Any], asked: Sequence[Asked], batch_size: int | None) -> bool:
    """Whether a journal's row still holds: of the picture as it is now and, where it matters, of the same batch."""
    index = row["id"]
    if index >= len(asked) or row["image_sha256"] != asked[index].image_sha256:
        return False
    return batch_size is None or row.get("batch") == _ends(_batch_of(index, len(asked), batch_size))


def _sample_missing(
    journal: SharedJournal,
    questions: QuestionSet,
    engine: Engine,
    args: SampleArguments,
    usable: Callable[[dict[str, Any]], bool],
) -> None:
    """Sample what the journal lacks.

    Batches always begin at the same questions, and one that is partly there is done again whole, so
    that an interruption changes no batch and with it no last bit of a number.

    Args:
        journal: The answers so far, and this process's share of the batches.
        questions: What is asked.
        engine: What answers. If an answer depends on its batch, only those of the same batches count, and no larger
            part is tried than memory had room for before.
        args: Questions per batch, and how tokens are chosen.
        usable: Whether a row of a journal still holds.
    """
    from perpo.engines.batches import BatchLimit

    rows, asked = journal.all_rows(usable), questions.asked
    by_batch = engine.info.by_batch
    done = {index for index, row in rows.items() if usable(row)}

    def answers(part: Sequence[tuple[int, Question]]) -> Sequence[list[Answer] | NoAnswer]:
        return ask(engine, part, questions.image_root, args.decoding)

    missed: list[NoAnswer] = []
    limit = BatchLimit(min([args.batch_size, *(rows[k]["batch_limit"] for k in done if by_batch)]))
    mine = journal.share([_batch_of(k, len(asked), args.batch_size) for k in range(0, len(asked), args.batch_size)])
    total = sum(map(len, mine))
    shown = progress(total, "sampling", initial=sum(index in done for batch in mine for index in batch))
    with shown as advance:
        for batch in mine:
            missing = [index for index in batch if index not in done]
            if not missing:
                continue
            # A server's batches, and vLLM's, are its own affair: what it has answered is not asked again.
            wanted = missing if engine.info.served is not None else batch
            numbered = [(index, asked[index].question) for index in wanted]
            for part, part_answers in limit.run(numbered, answers):
                how = {"batch": _ends(batch), "batch_size": len(part), "batch_limit": limit.size}
                answered = list(zip(part, part_answers, strict=True))
                journal.append(
                    _row(index, asked[index], given) | how
                    for (index, _), given in answered
                    if not isinstance(given, NoAnswer)
                )
                missed += [given for _, given in answered if isinstance(given, NoAnswer)]
                if ends := next((each.ends for each in missed if each.ends is not None), None):
                    raise ends
            advance(len(missing))
    if missed:
        raise PerpoError(
            f"{len(missed):,} of {len(asked):,} questions have no answer, such as: {missed[0].why}",
            "the others are kept: the same command asks again for these",
            exit_code=3,
        )


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
        "looped": [answer.looped for answer in answers],
        "reference_logps": [answer.logp for answer in answers],
    }
