"""One run's numbers as tables: one for each benchmark, and where they matter the other readings. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from perpo.benchmarks.base import BenchmarkInfo
from perpo.benchmarks.declared import info_in
from perpo.benchmarks.grounding import RIGHT_LABELS, WRONG_LABELS
from perpo.benchmarks.metrics import JUDGE_READINGS
from perpo.benchmarks.ocr import NORMALISED
from perpo.records.run_record import GroupResult, Metric, RunRecord, TaskResult, metric_of
from perpo.results.text import FRACTION, INTERVAL_NOTE, TINY_NOTE, Text, cell, is_tiny, judge_note, with_unit

METEOR_NOTE = "METEOR needs WordNet: run perpo-data wordnet, then perpo-eval --rescore RUN."
PARTIAL_NOTE = "The run is partial: more than 5% of its judgements are missing."
AWAITING_NOTE = "No judge was asked: perpo-eval judge RUN scores the stored answers, without the model."
FRAMES_NOTE = (
    "Acc@0.5 with the answers read in each frame that the family could use; the declared frame comes "
    "first. If one frame gains what another loses, the model may have changed its frame."
)

_FRAMES_TITLE = "Acc@0.5 (%) by frame, and by size of the true box"


def run_texts(record: RunRecord) -> list[Text]:
    """Return the tables of a run: its benchmarks one after the other, tasks as rows and metrics as columns, in percent.

    Metrics in another reading (`acc@0.5:original`) get a table of their own, for grounding alone, and only
    where the readings differ; those of a judged benchmark by category too. run.json holds all of them.
    """
    texts = []
    for group in record.groups:
        info = info_in(record.tasks, group.benchmark)
        reviewed = [metric.name for metric in group.metrics if metric.name in (RIGHT_LABELS, WRONG_LABELS)]
        own = bool(info.own_files) and group.name.startswith(info.own_files)
        plain = [name for name in (m.name for m in group.metrics) if ":" not in name or (own and name == NORMALISED)]
        plain += reviewed
        notes = [INTERVAL_NOTE, *_notes(group, info)]
        notes += [f"{task.task}: {task.note}." for task in record.tasks if task.note and task.task in group.tasks]
        notes += _failed_notes(record, group)
        notes += [note for task in record.tasks if task.task in group.tasks for note in answer_notes(task, record)]
        notes += [note for task in record.tasks if task.task in group.tasks for note in loop_notes(task)]
        notes += [f"Warning: {text}." for text in record.warnings or [] if info.has_boxes]
        notes += _imported_notes(record)
        notes += [METEOR_NOTE] if _lacks(group.metrics, "meteor") else []
        title = f"{record.name} on {group.name} (%{_judge(record, group)})"
        texts.append(_text(record, group, title, plain, notes))
        readings = [metric.name for metric in group.metrics if ":" in metric.name and metric.name not in reviewed]
        if info.has_boxes and _frames_differ(group.metrics):
            texts.append(_text(record, group, _FRAMES_TITLE, readings, [FRAMES_NOTE]))
        if info.judged:
            texts[-1].notes.extend(_judged_notes(record, group))
            texts += [] if record.judge is None else [_by_category(record, group)]
    if is_tiny(record) and texts:
        texts[-1].notes.append(TINY_NOTE)
    return texts


def loop_notes(task: TaskResult) -> list[str]:
    """Return what is to be said of answers to a task that end in a loop."""
    if not task.n_looped:
        return []
    cut = "" if task.n_looped_truncated is None else f", {task.n_looped_truncated:,} of them cut"
    share = "" if task.n_scored is None else f" of {task.n_scored:,}"
    return [f"{task.n_looped:,}{share} answers to {task.task} end in a loop{cut}."]


def answer_notes(task: TaskResult, record: RunRecord) -> list[str]:
    """Return what is to be said of answers to a task that were cut, or are none that tables count."""
    notes = []
    if task.n_truncated:
        at = "the token limit" if task.max_new_tokens is None else f"{task.max_new_tokens:,} tokens"
        looping = " or where they looped" if record.generation.get("stop_on_repetition") else ""
        notes.append(f"{task.n_truncated:,} of {task.n_scored:,} answers to {task.task} were cut at {at}{looping}.")
    unread = any(metric.name == "parse_fail" for metric in task.metrics)  # then the table has them
    if task.n_parse_fail and not unread:
        notes.append(
            f"{task.n_parse_fail:,} of {task.n_scored:,} responses to {task.task} hold no answer, because their "
            "thoughts do not end."
        )
    return notes


def _text(record: RunRecord, group: GroupResult, title: str, names: Sequence[str], notes: list[str]) -> Text:
    known = info_in(record.tasks, group.benchmark).by_name
    rows = []
    per_task = [(task, record.task(task).metrics) for task in group.tasks]
    average = [("average", group.metrics)] if len(per_task) > 1 else []
    for label, metrics in [*per_task, *average]:
        first = metrics[0]
        rows.append([label, str(first.n), str(first.n_clusters), *(cell(metric_of(metrics, name)) for name in names)])
    header = ["task", "n", "images", *(with_unit(known[name].title, known[name].unit) for name in names)]
    return Text(title, header, rows, notes)


def _failed_notes(record: RunRecord, group: GroupResult) -> list[str]:
    """How many questions of a benchmark that no judge scores got no answer."""
    tasks = [record.task(name) for name in group.tasks]
    failed, asked = (
        sum(count or 0 for count in counts) for counts in ([t.n_error for t in tasks], [t.n_scored for t in tasks])
    )
    if info_in(record.tasks, group.benchmark).judged or not failed:
        return []
    return [
        (
            f"{failed:,} of {asked:,} questions got no answer and have no score; the column error of "
            "samples.parquet says why."
        )
    ]


def _imported_notes(record: RunRecord) -> list[str]:
    """Where answers came from that were made elsewhere."""
    if record.imported is None:
        return []
    names = [file["name"] for file in record.imported["files"]]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    about = f"{record.imported['layout']}, matched by {record.imported['matched_by']}"
    return [f"Imported: {', '.join(names[:3])}{more} ({about})."]


def _judge(record: RunRecord, group: GroupResult) -> str:
    if not info_in(record.tasks, group.benchmark).judged:
        return ""
    return "; awaiting judge" if record.judge is None else f"; judge {record.judge['id']}"


def _judged_notes(record: RunRecord, group: GroupResult) -> list[str]:
    """What else is known of judged numbers: who judged, what the official script would print, the judge's own error."""
    if record.judge is None:
        kept = sum(record.task(task).n_scored or 0 for task in group.tasks)
        return [f"{kept:,} answers are kept. {AWAITING_NOTE}"]
    notes = judge_note([record]) + ([PARTIAL_NOTE] if record.status == "partial" else [])
    for metric in group.metrics:
        name, _, kind = metric.name.partition(":")
        if kind in JUDGE_READINGS:
            unit = "%" if metric.unit == FRACTION else f" {metric.unit}"
            told = "undefined" if metric.value is None else cell(metric) + unit
            notes.append(f"{name.replace('_', ' ')}, {JUDGE_READINGS[kind]}: {told}.")
    return notes


def _by_category(record: RunRecord, group: GroupResult) -> Text:
    """A judged benchmark's metrics by the kind of question, kinds as rows."""
    metric_by_name = {metric.name: metric for metric in group.metrics}
    known = info_in(record.tasks, group.benchmark).by_name
    parted = [name for name in known if ":" in name]
    names = list(dict.fromkeys(name.partition(":")[0] for name in parted))
    rows = []
    for kind in dict.fromkeys(name.partition(":")[2] for name in parted):
        metrics = [metric_by_name[f"{name}:{kind}"] for name in names]
        rows.append([kind, str(metrics[0].n), str(metrics[0].n_clusters), *map(cell, metrics)])
    header = ["questions", "n", "images", *(with_unit(known[name].title, known[name].unit) for name in names)]
    title = f"{record.name} on {group.name} by kind of question (%{_judge(record, group)})"
    return Text(title, header, rows, [INTERVAL_NOTE])


def _frames_differ(metrics: list[Metric]) -> bool:
    values = {m.value for m in metrics if m.name in [f"acc@0.5:{frame}" for frame in ("original", "padded", "cropped")]}
    return len(values) > 1


def _notes(group: GroupResult, info: BenchmarkInfo) -> list[str]:
    if info.note_splits and {name.rpartition("_")[2] for name in group.tasks} != set(info.note_splits):
        return []
    return [info.note] if info.note else []


def _lacks(metrics: list[Metric], name: str) -> bool:
    metric = metric_of(metrics, name)
    return metric is not None and metric.value is None
