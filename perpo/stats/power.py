"""Several tests at once, and what a test can find. numpy and scipy only."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

POWER = 0.8


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979, "A simple sequentially rejective multiple test procedure").

    The k-th smallest of m p-values is multiplied by m - k + 1, at most 1 and never below the one before.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = p.argsort(kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted.tolist()


def minimum_detectable_effect(stderr: float, clusters: float, *, alpha: float = 0.05, power: float = POWER) -> float:
    """Return the smallest true difference that a two-sided test finds with the given power.

    (t_{1 - alpha / 2} + t_power) times the standard error, G - 1 degrees of freedom (Bloom 1995, "Minimum
    Detectable Effects").

    Args:
        stderr: Clustered standard error of the difference.
        clusters: G, at least 2.
        alpha: Level of the test.
        power: Chance that it finds the effect.
    """
    from scipy.special import stdtrit

    return float((stdtrit(clusters - 1, 1 - alpha / 2) + stdtrit(clusters - 1, power)) * stderr)


def predicted_power(effect: float, stderr: float, clusters: int, *, alpha: float = 0.05) -> float:
    """Return the chance that a two-sided t test finds a true difference, by the noncentral t distribution."""
    from scipy.stats import nct, t

    critical, shift = t.ppf(1 - alpha / 2, clusters - 1), effect / stderr
    return float(nct.sf(critical, clusters - 1, shift) + nct.cdf(-critical, clusters - 1, shift))
