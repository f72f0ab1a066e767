"""The whole job of perpo-eval import: files, samples or truths, scores, run record."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perpo.benchmarks.base import AnswerKind
from perpo.boxes import Order, Scale
from perpo.common.files import check_writable
from perpo.common.numbers import check_numbers
from perpo.data.images import listing
from perpo.errors import PerpoError
from perpo_eval.benchmarks.table import BENCHMARKS
from perpo_eval.engines.base import family_from
from perpo_eval.engines.responses import Response
from perpo_eval.evaluate.checks import check_family, templates_of
from perpo_eval.evaluate.rescoring import model_elsewhere
from perpo_eval.evaluate.storing import RunWriter, generation_of
from perpo_eval.imports.arguments import ImportArguments
from perpo_eval.imports.files import Prediction, ReadFile, read_files
from perpo_eval.imports.finding import WAYS
from perpo_eval.imports.matching import Matched, choose_way, match
from perpo_eval.imports.questions import with_questions
from perpo_eval.imports.samples import samples_of
from perpo_eval.imports.truths import own_spec, own_task
from perpo_eval.rows.loading import TaskData, load_task
from perpo_eval.rows.suites import SUITES, TASKS, TaskSpec, select_tasks, spec_of

_MISSING = "no answer in the imported files"


def import_predictions(args: ImportArguments) -> Path:
    """Score predictions that were made elsewhere, and store the run; returns its folder.

    Raises:
        PerpoError: Files that can't be read or matched, before anything is written.
    """
    began, clock = datetime.now(UTC), time.perf_counter()
    args.check()
    check_numbers(args)
    check_writable(Path(args.output))
    suite, specs = _asked(args)
    family = family_from(args.reading, None)
    check_family(family, specs)
    benchmarks = [BENCHMARKS[spec.benchmark] for spec in specs]
    files = read_files(args.files, args.layout, args.named, boxes=any(each.has_boxes for each in benchmarks))
    predictions = [each for file in files for each in file.predictions]
    if args.question_file is not None:
        predictions = with_questions(predictions, args.question_file)
    templates = templates_of("paper", specs, family)
    about = _about(files, args)
    if args.truths is None:
        data = [load_task(spec, args.data) for spec in specs]
        answers, matched = _matched(predictions, data, templates, files[0].layout.hint, args)
        about |= matched
        for line in _said(about):
            print(line, file=sys.stderr)

        def answer(task: str, number: int, key: str) -> Response:
            return _response(answers.get(key))
    else:
        check_answers(predictions, benchmarks[0].info.answer)
        boxes = family.box_format if family is not None and benchmarks[0].has_boxes else None
        data = [own_task(predictions, specs[0], args.image_root, _truth_format(args, specs[0]), boxes)]
        about |= {"matched_by": "truths in the files", "matched": len(predictions), "missing": _nulls(predictions)}

        def answer(task: str, number: int, key: str) -> Response:
            return _response(predictions[number])

    if any(each.question is None for each in predictions):
        print("note: the files do not say what was asked; what perpo-eval asks is recorded", file=sys.stderr)
    rows = args.rows_wanted(suite)
    writer = RunWriter(
        wanted=args.run_wanted,
        rows=rows,
        generation=generation_of(rows, args.reading, family, None),
        model=model_elsewhere(args.name, args.family),
        family=family,
        training=None,
        hardware={},
        began=began,
        clock=clock,
        judge=None,
        imported=about,
    )
    return writer.store(data, templates, lambda task: lambda number, key: answer(task, number, key))


def _asked(args: ImportArguments) -> tuple[str, list[TaskSpec]]:
    """The suite, and its tasks."""
    if args.truths is not None:
        spec = own_spec(args.truths)
        return BENCHMARKS[spec.benchmark].info.suites[0], [spec]
    suite = args.suite or _suite_of(args.tasks)
    return suite, select_tasks(suite, args.data, args.tasks)


def _truth_format(args: ImportArguments, spec: TaskSpec) -> tuple[Scale, Order] | None:
    """How true boxes are written, which nothing in the files says; None where truths are no boxes."""
    if BENCHMARKS[spec.benchmark].has_boxes:
        if args.truth_scale is None or args.truth_order is None:
            raise PerpoError(
                "how true boxes are written is not said",
                "--truth_scale pixels, and --truth_order xyxy (left top right bottom) or xywh (left top width height)",
            )
        return args.truth_scale, args.truth_order
    if args.truth_scale is not None or args.truth_order is not None:
        raise PerpoError("--truth_scale and --truth_order are for --truths boxes_NAME", "leave them out")
    return None


def check_answers(predictions: Sequence[Prediction], kind: AnswerKind) -> None:
    """Refuse answers that no rule of their benchmark's can read as what they are.

    POPE's rule reads each word but "no" as yes: codes, and the words of an object that is written as JSON.

    Raises:
        PerpoError: There are such.
    """
    if kind != "box" and (data := next((each for each in predictions if each.as_data), None)):
        raise PerpoError(
            f"{data.place}: the answer is {data.answer!r:.60}, and the question asks for no box", "expected a text"
        )
    said = {each.answer.strip().lower() for each in predictions if each.answer is not None}
    if kind == "yes_no" and said and said <= {"0", "1", "0.0", "1.0", "true", "false"}:
        raise PerpoError(
            f"all answers are {' or '.join(sorted(said))}, which are no words of a model",
            "give what the model said, or yes and no",
        )


def _suite_of(tasks: Sequence[str]) -> str:
    """The smallest suite that has all of these tasks; one that has none of them says what there is."""
    kinds = set()
    for task in tasks:
        try:
            kinds.add(spec_of(task).benchmark)
        except KeyError:
            from perpo.common.hints import did_you_mean

            raise PerpoError(f"there is no task '{task}'", did_you_mean(task, TASKS)) from None
    fitting = [suite for suite, members in SUITES.items() if kinds <= set(members)]
    if not fitting:
        raise PerpoError(f"no suite holds all of {', '.join(tasks)}", "import them one after the other")
    return min(fitting, key=lambda suite: len(SUITES[suite]))


def _matched(
    predictions: Sequence[Prediction],
    data: Sequence[TaskData],
    templates: dict[str, str],
    hint: str,
    args: ImportArguments,
) -> tuple[dict[str, Prediction], dict[str, Any]]:
    """The prediction for each sample key, and what the record says of the matching."""
    samples = samples_of(data, templates)
    wanted = {sample.key for sample in samples if args.limit is None or sample.number < args.limit}
    way = choose_way(predictions, args.match, {sample.task for sample in samples})
    matched = match(predictions, samples, way, wanted, hint)
    kinds: dict[AnswerKind, list[Prediction]] = {}
    for sample in samples:
        if sample.key in matched.answers:
            kinds.setdefault(sample.kind, []).append(matched.answers[sample.key])
    for kind, those in kinds.items():
        check_answers(those, kind)
    if not matched.answers:
        told = f":\n  {listing(matched.unmatched)}"
        raise PerpoError(f"no prediction is about these tasks (by {WAYS[way]}){told}", _advice(args, samples, hint))
    if way == "position" and matched.missing and not matched.verified:
        raise PerpoError(
            f"{len(matched.missing):,} of {len(wanted):,} samples have no row, and no question or truth shows which",
            "behind a row that is left out all others would be shifted; --limit N where these are the first N",
        )
    if not args.partial:
        _check_whole(matched, len(wanted), _advice(args, samples, hint))
    _list(matched)
    counts = {
        "matched_by": WAYS[way],
        "matched": len(matched.answers),
        "unmatched": len(matched.unmatched),
        "beyond_limit": matched.beyond,
        "duplicates": len(matched.duplicates),
        "missing": len(matched.missing) + len(matched.null),
        "verified": {name: matched.verified[name] for name in ("question", "truth")},
    }
    return matched.answers, counts


def _advice(args: ImportArguments, samples: Sequence[Any], hint: str) -> str:
    such = f"--data {args.data} has such as {samples[0].source_id!r:.40} about {samples[0].image!r:.60}"
    return f"{such}; {hint}" if hint else f"{such}; --match, --columns and --tasks say otherwise"


def _check_whole(matched: Matched, wanted: int, advice: str) -> None:
    """Refuse predictions that are not those to all samples and to no others."""
    allow = "--partial allows it"
    if matched.unmatched:
        raise PerpoError(
            f"{len(matched.unmatched):,} predictions are about no sample of these tasks (by {WAYS[matched.way]}):\n  "
            f"{listing(matched.unmatched)}",
            f"{advice}; {allow}",
        )
    if matched.missing:
        raise PerpoError(
            f"{len(matched.missing):,} of {wanted:,} samples have no prediction:\n  {listing(matched.missing)}",
            f"{allow}: they are then missing, and not wrong",
        )
    if matched.null:
        raise PerpoError(
            f"{len(matched.null):,} of {wanted:,} predictions hold no answer:\n  {listing(matched.null)}",
            f'{allow}: they are then missing, and not wrong; an answer that is empty is "" in JSON (an empty cell of '
            "CSV, TSV and xlsx is none)",
        )


def _list(matched: Matched) -> None:
    """Say what was not matched: ten of each, and how many."""
    for what, told in (
        ("predictions without a sample", matched.unmatched),
        ("predictions that say the same again", matched.duplicates),
        ("samples without a prediction", matched.missing),
        ("predictions without an answer", matched.null),
    ):
        if told:
            print(f"note: {len(told):,} {what}:\n  {listing(told)}", file=sys.stderr)


def _about(files: Sequence[ReadFile], args: ImportArguments) -> dict[str, Any]:
    return {
        "files": [{"name": file.name, "sha256": file.sha256, "rows": len(file.predictions)} for file in files],
        "layout": files[0].layout.name,
        "columns": args.named,
        **({} if args.question_file is None else {"question_file": args.question_file.name}),
    }


def _said(about: dict[str, Any]) -> list[str]:
    """What is said of a matching, in short lines."""
    rows = sum(file["rows"] for file in about["files"])
    lines = [f"{rows:,} rows ({about['layout']}), matched by {about['matched_by']}: {about['matched']:,} samples"]
    agree = [f"{count:,} {name}s" for name, count in about["verified"].items() if count]
    lines += [f"held against the benchmark: {' and '.join(agree)} agree" if agree else _UNVERIFIED]
    return lines


_UNVERIFIED = (
    "warning: neither a question nor a truth in the files could be held against the benchmark: rows that are shifted "
    "would not be noticed"
)


def _nulls(predictions: Sequence[Prediction]) -> int:
    return sum(each.answer is None for each in predictions)


def _response(each: Prediction | None) -> Response:
    if each is None or each.answer is None:
        return Response("", error=_MISSING, question=None if each is None else each.question)
    return Response(
        each.answer,
        tokens_out=each.tokens,
        finish_reason=each.finish,
        latency_ms=each.latency_ms,
        question=each.question,
    )
