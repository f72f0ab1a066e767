"""The second step of an evaluation: from documents and answers to a run's rows. No model, no torch.

Rows are scored in blocks and kept as Arrow tables, so that 100,000 of them stay small.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from perpo.answers import after_prompt
from perpo.benchmarks.metrics import JUDGED
from perpo.models.families import Family
from perpo.records.run_record import CUT, sample_key
from perpo_eval.benchmarks.base import Benchmark
from perpo_eval.benchmarks.table import BENCHMARKS
from perpo_eval.engines.responses import Response
from perpo_eval.harness.loading import HarnessData
from perpo_eval.judge import verdicts
from perpo_eval.rows.loading import TaskData
from perpo_eval.rows.suites import TaskSpec

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 2000

Row = dict[str, Any]


def score_task(
    data: TaskData,
    template: str,
    family: Family | None,
    response_of: Callable[[int, str], Response],
    limit: int | None,
) -> pa.Table:
    """Score the answers to a task's documents.

    Args:
        data: The task with its documents.
        template: What was asked, with {query} in it.
        family: What is known of the model's family; needed where answers hold boxes.
        response_of: The answer by document number and sample key.
        limit: Only the first so many documents.

    Returns:
        One row a sample, with the columns of `perpo.records.run_record.SAMPLE_COLUMNS`.
    """
    benchmark = BENCHMARKS[data.spec.benchmark]
    names = score_names(benchmark, family)

    def rows() -> Iterator[Row]:
        for number, doc in enumerate(islice(data.docs, limit)):
            key = sample_key(data.dataset, data.revision, data.spec.split, doc["source_id"], doc["query"])
            response = response_of(number, key)
            about = _about(data, doc, key, response.question or benchmark.asked(doc, template), response)
            if response.error is not None:
                yield about | _unanswered(benchmark, family, names)
                continue
            size = (doc["width"], doc["height"])
            yield about | _scored(benchmark, response, json.loads(doc["target"]), size, family, names)

    return _table(rows(), names)


def harness_table(
    data: HarnessData, responses: Sequence[Response], scores: Sequence[dict[str, float | None]]
) -> pa.Table:
    """Return the rows of a task of lmms-eval's, which scored the answers itself.

    Args:
        data: The task with its documents.
        responses: The answers, in their order.
        scores: What each has by metric.
    """
    names = list(scores[0])

    def rows() -> Iterator[Row]:
        for doc, key, response, numbers in zip(data.docs, sample_keys(data), responses, scores, strict=True):
            about = _about(data, doc, key, response.question or doc["query"], response)
            about |= {"image": None} if doc["image_file"] is None else {}
            read = {"parse_ok": True if response.error is None else None, "prediction": None, "box_frame": None}
            yield about | read | {"scores": numbers}

    return _table(rows(), names)


def sample_keys(data: TaskData) -> list[str]:
    """Return the keys of a task's documents, in their order."""
    about = (data.dataset, data.revision, data.spec.split)
    return [sample_key(*about, doc["source_id"], doc["query"]) for doc in data.docs]


def rescore(samples: pa.Table, spec: TaskSpec, family: Family | None) -> pa.Table:
    """Score the responses of a stored run's task again.

    Args:
        samples: The task's rows.
        spec: The task.
        family: As for `score_task`.
    """
    benchmark = BENCHMARKS[spec.benchmark]
    names = score_names(benchmark, family)

    def rows() -> Iterator[Row]:
        for batch in samples.to_batches(max_chunksize=_BLOCK):
            for row in batch.to_pylist():
                if row["response"] is None:
                    yield row | _unanswered(benchmark, family, names)
                    continue
                said = Response(row["response"], row["prompt"], finish_reason=row["finish_reason"])
                size = (row["image"]["width"], row["image"]["height"])
                again = _scored(benchmark, said, json.loads(row["target"]), size, family, names)
                if benchmark.name in JUDGED:
                    again |= verdicts.scored(benchmark.name, row, verdicts.votes_in(row))
                yield row | again

    return _table(rows(), names)


def judge(
    tables: Sequence[pa.Table], specs: Sequence[TaskSpec], by: verdicts.Judge
) -> tuple[list[pa.Table], dict[str, Any]]:
    """Let a judge score the answers to those tasks that are judged.

    Args:
        tables: The rows of each task.
        specs: The tasks.
        by: The judge.

    Returns:
        The rows of each task, and what the record says of the judge.

    Raises:
        PerpoError: As `perpo_eval.judge.asking.ask_judge`.
    """
    places = [place for place, spec in enumerate(specs) if spec.benchmark in JUDGED]
    rows, record = by.judge([(specs[place].benchmark, tables[place].to_pylist()) for place in places])
    scored_tables = list(tables)
    for place, scored in zip(places, rows, strict=True):
        scored_tables[place] = _table(scored, score_names(BENCHMARKS[specs[place].benchmark], None))
    return scored_tables, record


def score_names(benchmark: Benchmark, family: Family | None) -> list[str]:
    """Return the scores of a benchmark's samples, in the order of the column."""
    scored = benchmark.score("", benchmark.example, (2, 2), family)  # type: ignore[arg-type]
    return [*scored.scores, *(["truncated"] if "truncated" in benchmark.info.by_name else [])]


def _about(data: TaskData, doc: Mapping[str, Any], key: str, question: str, response: Response) -> Row:
    return {
        "sample_key": key,
        "task": data.spec.name,
        "cluster_id": doc.get("cluster_id") or doc["image_sha256"],
        "image": {
            "sha256": doc["image_sha256"],
            "path": doc["image_path"],
            "width": doc["width"],
            "height": doc["height"],
        },
        "question": question,
        "prompt": response.prompt,
        "response": None if response.error else response.text,
        "target": doc["target"],
        "layout": doc.get("layout"),
        "tokens_out": response.tokens_out,
        "latency_ms": response.latency_ms,
        "finish_reason": response.finish_reason,
        "error": response.error,
        "judge": None,
    }


def _scored(
    benchmark: Benchmark,
    response: Response,
    target: Any,
    size: tuple[int, int],
    family: Family | None,
    names: Sequence[str],
) -> Row:
    said = after_prompt(response.prompt, response.text)
    scored = benchmark.score(said, target, size, family)  # type: ignore[arg-type]
    scores = dict(scored.scores)
    if "truncated" in names:
        reason = response.finish_reason
        scores["truncated"] = None if reason is None else float(reason in CUT)
    return {
        "parse_ok": scored.readable,
        "prediction": None if scored.prediction is None else json.dumps(scored.prediction, ensure_ascii=False),
        "box_frame": family.box_format.frame if benchmark.has_boxes and family is not None else None,
        "scores": {name: scores[name] for name in names},
    }


def _unanswered(benchmark: Benchmark, family: Family | None, names: Sequence[str]) -> Row:
    """What a question without an answer gets: no score, which is not the score of a wrong answer."""
    missing = {"missing": 1.0} if benchmark.name in JUDGED else {}
    return {
        "parse_ok": None,
        "prediction": None,
        "box_frame": family.box_format.frame if benchmark.has_boxes and family is not None else None,
        "scores": dict.fromkeys(names) | missing,
    }


def _table(rows: Iterable[Row], names: Sequence[str]) -> pa.Table:
    import pyarrow as pa

    schema = _schema(names)
    blocks, iterator = [], iter(rows)
    while block := list(islice(iterator, _BLOCK)):
        blocks.append(pa.Table.from_pylist(block, schema=schema))
    return pa.concat_tables(blocks) if blocks else schema.empty_table()


def _schema(names: Sequence[str]) -> pa.Schema:
    """The columns of `SAMPLE_COLUMNS`, with one field for each score."""
    import pyarrow as pa

    from perpo.records.run_record import SAMPLE_COLUMNS

    text, number = pa.string(), pa.float64()
    types = {
        "image": pa.struct([("sha256", text), ("path", text), ("width", pa.int32()), ("height", pa.int32())]),
        "parse_ok": pa.bool_(),
        "scores": pa.struct([(name, number) for name in names]),
        "tokens_out": pa.int32(),
        "latency_ms": number,
    }
    return pa.schema([(name, types.get(name, text)) for name in SAMPLE_COLUMNS])


def join(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the rows of several tasks as one table; a score that a task does not have is null."""
    import pyarrow as pa

    names = list(dict.fromkeys(field.name for t in tables for field in t.schema.field("scores").type))
    schema = _schema(names)
    return pa.concat_tables([_widened(table, schema, names) for table in tables])


def _widened(table: pa.Table, schema: pa.Schema, names: Sequence[str]) -> pa.Table:
    import pyarrow as pa

    columns = []
    for name in schema.names:
        column = table[name].combine_chunks()
        if name == "scores":
            held = {field.name: column.field(place) for place, field in enumerate(column.type)}
            empty = pa.nulls(len(column), pa.float64())
            column = pa.StructArray.from_arrays([held.get(name, empty) for name in names], names=list(names))
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=schema)
