"""Intervals and paired tests that respect clusters. numpy and scipy only."""

from perpo.stats.crossed import crossed_t
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
    Difference,
    PairedSums,
    Sums,
    cluster_bootstrap,
    cluster_t,
    paired_sums,
)
from perpo.stats.power import POWER, holm, minimum_detectable_effect, predicted_power
from perpo.stats.stepdown import joint_holm

__all__ = [
    "DRAWS",
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
    "crossed_t",
    "freedom",
    "holm",
    "joint_holm",
    "minimum_detectable_effect",
    "paired_sums",
    "predicted_power",
    "wilson_interval",
]
