"""Intervals and paired tests that respect clusters. numpy and scipy only."""

from perpo.stats.drawn import OWN_DRAWS, draw_clusters, drawn_difference, drawn_estimate
from perpo.stats.intervals import (
    Estimate,
    bootstrap_ratio,
    checked_sums,
    clustered_mean,
    clustered_ratio,
    constant_interval,
    freedom,
    wilson_interval,
)
from perpo.stats.paired import (
    DRAWS,
    POWER,
    Difference,
    PairedSums,
    Sums,
    cluster_bootstrap,
    cluster_t,
    holm,
    minimum_detectable_effect,
    paired_sums,
    predicted_power,
)

__all__ = [
    "DRAWS",
    "OWN_DRAWS",
    "POWER",
    "Difference",
    "Estimate",
    "PairedSums",
    "Sums",
    "bootstrap_ratio",
    "checked_sums",
    "cluster_bootstrap",
    "cluster_t",
    "clustered_mean",
    "clustered_ratio",
    "constant_interval",
    "draw_clusters",
    "drawn_difference",
    "drawn_estimate",
    "freedom",
    "holm",
    "minimum_detectable_effect",
    "paired_sums",
    "predicted_power",
    "wilson_interval",
]
