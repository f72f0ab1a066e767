"""One run's numbers as tables: one for each benchmark, and where they matter the other readings. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from perpo.prepare.known import POPE_SPLITS
from perpo.records import GroupResult, Metric, RunRecord, metric_of
from perpo.scores import BENCHMARKS
from perpo.tables import INTERVAL_NOTE, TINY_NOTE, Text, cell, is_tiny

POPE_NOTE = (
    "F1 counts a yes to an object that is there. The number that the LLaVA papers print for POPE is the mean F1 of the "
    "three splits (random had 2,910 questions then, 3,000 today). The yes ratio is that of the answers."
)
OCR_NOTE = (
    "Edit distance: lower is better. F1, precision and recall are over sets of words. BLEU and METEOR are NLTK's "
    "(sentence BLEU-4 without smoothing; METEOR with Porter stems and WordNet)."
)
METEOR_NOTE = "METEOR needs WordNet: perpo-data wordnet, then perpo-eval --rescore RUN."
FRAMES_NOTE = (
    "Acc@0.5 with the answers read in each frame that the family could be using, the declared one first. A gain in one "
    "frame that is a loss in another may be a change of frame."
)

_FRAMES_TITLE = "Acc@0.5 (%) by frame, and by size of the true box"


def run_texts(record: RunRecord) -> list[Text]:
    """The tables of a run: its benchmarks one after the other, tasks as rows and metrics as columns, in percent.

    Metrics in another reading (`acc@0.5:original`) get a table of their own, for grounding alone, and only
    where the readings differ; run.json holds all of them.
    """
    texts = []
    for group in record.groups:
        plain = [metric.name for metric in group.metrics if ":" not in metric.name]
        notes = [INTERVAL_NOTE, *_notes(group)]
        notes += [f"{task.task}: {task.note}." for task in record.tasks if task.note and task.task in group.tasks]
        notes += [METEOR_NOTE] if _lacks(group.metrics, "meteor") else []
        title = f"{record.name} on {group.name} (%)"
        texts.append(_text(record, group, title, plain, notes))
        readings = [metric.name for metric in group.metrics if ":" in metric.name]
        if group.benchmark == "grounding" and _frames_differ(group.metrics):
            texts.append(_text(record, group, _FRAMES_TITLE, readings, [FRAMES_NOTE]))
    if is_tiny(record) and texts:
        texts[-1].notes.append(TINY_NOTE)
    return texts


def _text(record: RunRecord, group: GroupResult, title: str, names: Sequence[str], notes: list[str]) -> Text:
    titles = {metric.name: metric.title for metric in BENCHMARKS[group.benchmark]}
    rows = []
    per_task = [(task, record.task(task).metrics) for task in group.tasks]
    average = [("average", group.metrics)] if len(per_task) > 1 else []
    for label, metrics in [*per_task, *average]:
        first = metrics[0]
        rows.append([label, str(first.n), str(first.n_clusters), *(cell(metric_of(metrics, name)) for name in names)])
    header = ["task", "n", "images", *(titles[name] for name in names)]
    return Text(title, header, rows, notes)


def _frames_differ(metrics: list[Metric]) -> bool:
    found = {m.value for m in metrics if m.name in [f"acc@0.5:{frame}" for frame in ("original", "padded", "cropped")]}
    return len(found) > 1


def _notes(group: GroupResult) -> list[str]:
    if group.benchmark == "pope":
        return [POPE_NOTE] if {name.rpartition("_")[2] for name in group.tasks} == set(POPE_SPLITS) else []
    return [OCR_NOTE] if group.benchmark == "ocr" else []


def _lacks(metrics: list[Metric], name: str) -> bool:
    metric = metric_of(metrics, name)
    return metric is not None and metric.value is None
