"""Kinds of samples that get a row of their own: small boxes, long questions, the truth yes. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from perpo.benchmarks.declared import info_in
from perpo.records.store import Run
from perpo.results.kinds import kinds, labels
from perpo.results.samples import Scores

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Slice:
    """Samples of one kind.

    Attributes:
        task: The task that they belong to.
        kind: By what they are told apart and which they are, such as ("box size", "below 1% of the picture").
        keys: Their sample keys.
    """

    task: str
    kind: tuple[str, str]
    keys: list[str]


def slices_of(run: Run, scores: Scores, others: Sequence[Run] = ()) -> list[Slice]:
    """Return the kinds of samples of each task; a kind that all samples of a task are of is left out.

    Args:
        run: The run that says what the samples are.
        scores: Its scores of those samples that are compared.
        others: Runs of the same samples; they tell layouts of pages that `run`, which may be older, does not know.
    """
    table = _compared(run, scores, ["sample_key", "question", "target", "layout", "image"])
    for other in others:
        table = _with_layouts(table, other, scores)
    names, tasks = np.unique(scores.tasks, return_inverse=True)
    slices = []
    for result in run.record.tasks:
        mask, info = scores.tasks == result.task, info_in(run.record.tasks, result.benchmark)
        held = [name for name, values in scores.values.items() if not np.isnan(values[mask]).all()]
        for kind in kinds(info, held) if mask.any() else []:
            told = labels(
                kind,
                info,
                (names.tolist(), tasks),
                mask,
                run.record,
                lambda name: table[name].combine_chunks(),
                held,
                scores.values.__getitem__,
            )
            codes = told.codes[mask]
            for code in np.unique(codes[codes >= 0]).tolist():
                if (codes == code).all():
                    continue
                keys = scores.keys[mask][codes == code].tolist()
                slices.append(Slice(result.task, (kind, told.names[code]), keys))
    return slices


def _compared(run: Run, scores: Scores, columns: Sequence[str]) -> pa.Table:
    """Columns of those samples of a run that are compared, in the order of their keys."""
    import pyarrow as pa
    import pyarrow.compute as pc

    table = run.samples(columns)
    keys = pa.array(scores.keys.tolist(), pa.string())
    return table.filter(pc.is_in(table["sample_key"], value_set=keys)).sort_by("sample_key")


def _with_layouts(table: pa.Table, other: Run, scores: Scores) -> pa.Table:
    """The table with the layouts that another run tells, where no layout is known."""
    import pyarrow.compute as pc

    if table["layout"].null_count < len(table):
        return table
    layouts = _compared(other, scores, ["sample_key", "layout"])["layout"]
    return table.set_column(table.column_names.index("layout"), "layout", pc.coalesce(table["layout"], layouts))
