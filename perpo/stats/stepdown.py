"""Several paired tests that share images: p-values adjusted by what the rows have in common. numpy and scipy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perpo.stats.power import holm

_FINEST = 0.001  # ten draws of 10,000
_CHUNK = 500  # draws that are multiplied at once

Parts = tuple[NDArray[np.intp], NDArray[np.float64]]
"""Numbers of the clusters of a difference, and what each adds to it (see `perpo.stats.discordance.contributions`)."""


def joint_holm(
    p_values: Sequence[float],
    freedoms: Sequence[float],
    parts: Sequence[Parts | None],
    *,
    draws: int = 10_000,
    seed: int = 0,
) -> list[float]:
    """Return adjusted p-values by Westfall and Young's step-down method, and Holm's where those are below 0.001.

    Holm's method takes tests for unrelated, or worse. Rows of one report are related: they stand on the same images, a
    kind of samples is a part of its task, and what is unreadable is also wrong. So what the smallest of the p-values
    is like where nothing differs is drawn (Westfall and Young 1993, "Resampling-Based Multiple Testing", algorithm 2.8;
    Romano and Wolf 2005): if neither run is better, each cluster's contribution to a difference could as well have the
    other sign (Fisher 1935, Pitman 1937), in all rows at once. With the rows in the order of their p-values,

        p~_j = max over i <= j of the share of draws in which the smallest p-value of rows i, i + 1, ... is at most p_i

    where p-values of draws, and here of what was found, are those of Student's t of the signed contributions. No result
    is below a test's own p-value. A row that few clusters tell apart can have no small p-value, and costs the others
    nothing. A row whose contributions are not known is drawn as unrelated to the others. Where none is known it is
    Holm's method, and what so few draws cannot tell from 0 is Holm's too.

    Args:
        p_values: Of each test by itself.
        freedoms: Degrees of freedom of each.
        parts: What the clusters of each contribute; cluster numbers are the same in all.
        draws: How many times signs are drawn.
        seed: Of the random numbers; the same seed gives the same result.
    """
    plain, known = np.array(holm(p_values)), [part is not None for part in parts]
    if len(p_values) < 2 or not any(known):
        return plain.tolist()
    rng = np.random.default_rng(seed)
    told, drawn = np.array(p_values, dtype=np.float64), np.empty((draws, len(parts)))
    columns, others = np.flatnonzero(known), np.flatnonzero(~np.array(known))
    certain = [part for part in parts if part is not None]
    told[columns], drawn[:, columns] = _drawn([freedoms[place] for place in columns.tolist()], certain, draws, rng)
    drawn[:, others] = rng.random((draws, len(others)))
    order = told.argsort(kind="stable")
    # The smallest p-value of a row and all behind it, in each draw.
    smallest = np.minimum.accumulate(drawn[:, order[::-1]], axis=1)[:, ::-1]
    shares = (1 + (smallest <= told[order] * (1 + 1e-6)).sum(0)) / (draws + 1)
    adjusted = np.empty_like(told)
    adjusted[order] = np.maximum.accumulate(shares)
    return np.where(plain < _FINEST, plain, np.maximum(adjusted, p_values)).tolist()


def _drawn(
    freedoms: Sequence[float], parts: Sequence[Parts], draws: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(rows,) p-values of the contributions as they are, and (draws, rows) with signs drawn for each cluster."""
    labels, places = np.unique(np.concatenate([clusters for clusters, _ in parts]), return_inverse=True)
    table = np.zeros((len(labels), len(parts)), dtype=np.float32)
    starts = np.cumsum([0, *(len(clusters) for clusters, _ in parts)])
    for row, (_, values) in enumerate(parts):
        size = np.sqrt(np.square(values).sum())
        table[places[starts[row] : starts[row + 1]], row] = values / size if size > 0 else 0.0
    drawn = np.empty((draws + 1, len(parts)))
    drawn[draws] = np.abs(table.sum(0, dtype=np.float64))
    for start in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - start)
        signs = rng.integers(2, size=(size, len(labels)), dtype=np.int8).astype(np.float32) * 2 - 1
        drawn[start : start + size] = np.abs(signs @ table)
    for row, df in enumerate(freedoms):
        drawn[:, row] = _p_values(drawn[:, row], df)
    return drawn[draws], drawn[:draws]


def _p_values(ratios: NDArray[np.float64], df: float) -> NDArray[np.float64]:
    """Two-sided p-values of sums over the roots of their sums of squares, read from a table, which is quicker.

    Such a ratio r is Student's t of G = df + 1 values before their mean is taken off: t = r sqrt(df / (G - r^2)).
    """
    from scipy.special import stdtr

    grid = np.linspace(0, max(float(ratios.max()), 1e-6), 1000)
    statistic = grid * np.sqrt(df / np.maximum(df + 1 - np.square(grid), 1e-9))
    logs = np.log(np.maximum(2 * stdtr(df, -statistic), 1e-300))
    return np.exp(np.interp(ratios, grid, logs))
