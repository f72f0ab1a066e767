"""The history of a metric over stored runs, as a table and a picture. No torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from perpo.benchmarks.declared import infos
from perpo.benchmarks.metrics import JUDGED
from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError
from perpo.records.run_record import Metric, RunRecord, metric_of
from perpo.records.store import Run
from perpo.results.colours import PALETTE
from perpo.results.text import FRACTION, INTERVAL_NOTE, Text, cell

if TYPE_CHECKING:
    import altair as alt


def history(runs: Sequence[Run], task: str | None = None, metric: str | None = None) -> pd.DataFrame:
    """Return one line for each run that has the metric, the oldest first.

    Args:
        runs: Measured runs, the oldest first.
        task: A task or a group; by default the first group of the newest run.
        metric: By default the primary one of its benchmark.

    Returns:
        Columns when, name (with the judge's, where one gave it), run_id, data, value, low, high, unit; `data` tells
        runs on other data, or with another judge, apart.

    Raises:
        PerpoError: No run has it.
    """
    if not runs:
        raise PerpoError("there are no measured runs to follow", "give a results folder")
    task = task or runs[-1].record.groups[0].name
    lines = []
    for run in runs:
        measurement = _metric(run.record, task, metric)
        if measurement is not None and measurement.value is not None:
            record = run.record
            line = {
                "when": pd.Timestamp(record.when),
                "name": _name(record, task),
                "run_id": record.run_id,
            }
            data = _data(record, task)
            numbers = {
                "value": measurement.value,
                "low": measurement.ci_low,
                "high": measurement.ci_high,
                "unit": measurement.unit,
            }
            lines.append(line | {"data": data} | numbers)
    if not lines:
        known = {part.task for run in runs for part in run.record.tasks}
        known |= {group.name for run in runs for group in run.record.groups}
        raise PerpoError(f"no run has {metric or 'the primary metric'} for '{task}'", did_you_mean(task, known))
    return pd.DataFrame(lines)


def _metric(record: RunRecord, task: str, name: str | None) -> Metric | None:
    group = record.group(task)
    part = group or next((each for each in record.tasks if each.task == task), None)
    if part is None or name is not None:
        return None if part is None else metric_of(part.metrics, name or "")
    info = infos(record.tasks).get(part.benchmark)
    return None if info is None else metric_of(part.metrics, info.primary)


def _data(record: RunRecord, task: str) -> str:
    """What the metric stands on: digests of the data, how many samples were taken of them, and the judge."""
    group = record.group(task)
    names = group.tasks if group is not None else [task]
    parts = [record.task(name) for name in names]
    data = "+".join(sorted({f"{(part.data_sha256 or '')[:8]}:{part.n_scored}" for part in parts}))
    return f"{data} {json.dumps(record.judge, sort_keys=True)}" if _is_judged(record, task) else data


def _is_judged(record: RunRecord, task: str) -> bool:
    part = record.group(task) or record.task(task)
    return part.benchmark in JUDGED


def _name(record: RunRecord, task: str) -> str:
    """What a run is called: scores of different judges are told apart."""
    judge = (record.judge or {}).get("id")
    return f"{record.name}, judge {judge}" if _is_judged(record, task) and judge else record.name


def text(table: pd.DataFrame, title: str) -> Text:
    """Return the history; a change of the data or the judge is said, for values on both sides do not compare."""
    rows = []
    for line in table.to_dict("records"):
        low, high = (None if pd.isna(line[end]) else line[end] for end in ("low", "high"))
        numbers = (line["value"], None, low, high, None, None, None, None)
        value = cell(Metric("", *numbers, unit=line["unit"]))
        rows.append([f"{line['when']:%Y-%m-%d %H:%M}", line["name"], value, line["run_id"]])
    notes = [INTERVAL_NOTE]
    if table["data"].nunique() > 1:
        changed = "The data, or the judge," if table["data"].str.contains(" ").any() else "The data"
        notes.append(
            f"{changed} changed between some of these runs, so values before and after the change are not comparable."
        )
    return Text(title, ["when (UTC)", "name", f"value ({_sign(table)})", "run"], rows, notes)


def _sign(table: pd.DataFrame) -> str:
    unit = str(table["unit"].iloc[-1])
    return "%" if unit == FRACTION else unit


def title_of(task: str, metric: str | None, runs: Sequence[Run]) -> str:
    """Return what is followed, such as "grounding: Acc@0.5"."""
    for run in reversed(runs):
        measurement = _metric(run.record, task, metric)
        if measurement is not None:
            record = run.record
            part = record.group(task) or record.task(task)
            info = infos(record.tasks).get(part.benchmark)
            return f"{task}: {measurement.name if info is None else info.title(measurement.name)}"
    return task


def picture(table: pd.DataFrame, title: str) -> alt.LayerChart:
    """Return the history as points with their intervals, a colour for each name, a line where values compare.

    Args:
        table: What `history` gave.
        title: What stands above it.
    """
    import altair as alt

    factor = 100 if _sign(table) == "%" else 1
    percent = table.assign(**{name: factor * table[name].astype(float) for name in ("value", "low", "high")})
    numbers = [alt.Tooltip(f"{name}:Q", format=".2f") for name in ("value", "low", "high")]
    base = alt.Chart(percent, title=title).encode(
        x=alt.X("when:T", title="when (UTC)", scale=alt.Scale(type="utc")),
        color=alt.Color("name:N", title="run", scale=alt.Scale(range=list(PALETTE))),
        tooltip=["name:N", alt.Tooltip("when:T", format="%Y-%m-%d %H:%M"), *numbers, "run_id:N"],
    )
    y = alt.Y("value:Q", title=_sign(table), scale=alt.Scale(zero=False))
    lines = base.mark_line(opacity=0.5).encode(y=y, detail="data:N")
    points = base.mark_point(filled=True, size=60).encode(y=y)
    bars = base.mark_rule().encode(y=alt.Y("low:Q", title=_sign(table)), y2="high:Q")
    return lines + bars + points


def draw(table: pd.DataFrame, title: str, file: Path) -> None:
    """Draw `picture` into a file.

    Args:
        table: What `history` gave.
        title: What stands above it.
        file: Where it goes; its suffix is .svg or .png.

    Raises:
        PerpoError: Another suffix, or the libraries that draw are not installed.
    """
    if file.suffix not in (".svg", ".png"):
        raise PerpoError(f"--picture {file} ends neither in .svg nor in .png", "such as trend.svg")
    try:
        import vl_convert  # noqa: F401  what altair draws with

        picture(table, title).properties(width=640, height=320).save(str(file))
    except ImportError as error:
        raise PerpoError(
            f"{error.name}, which draws the picture, is not installed", "pip install 'perpo[dashboard]'"
        ) from error
