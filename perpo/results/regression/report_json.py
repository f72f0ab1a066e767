"""A regression report as JSON: everything, with full precision. No torch."""

from __future__ import annotations

import dataclasses
from typing import Any

from perpo.results.regression import extras
from perpo.results.regression.report import Report
from perpo.results.regression.rows import ReportRow

JSON_SCHEMA = 2
"""Version of the JSON: 2 added `schema`, `others`, `runs`, `pinned`, `approval`, `costs`, `price`, and of each row
`name`, `role`, `kind`, `primary`, `left_out`; in a row's difference `df` and `between_runs`. Nothing of 1 changed."""


def as_json(report: Report) -> dict[str, Any]:
    """Return everything with full precision, in the metrics' units."""
    entries = {"baseline": report.baseline_entry, "candidate": report.candidate_entry}
    return {
        "schema": JSON_SCHEMA,
        "verdict": report.verdict,
        "baseline": report.baseline.record.run_id,
        "candidate": report.candidate.record.run_id,
        "runs": {name: [run.record.run_id for run in entry.runs] for name, entry in entries.items()},
        "judge": report.candidate.record.judge,
        "samples": report.samples,
        "notes": report.notes,
        "rows": [_row_json(row) for row in report.rows],
        "others": [_row_json(row) for row in report.others],
        "flips": [dataclasses.asdict(flip) for flip in report.flips],
        **extras.as_json(report.extras),
    }


def _row_json(row: ReportRow) -> dict[str, Any]:
    waiver = row.waiver and {
        "reason": row.waiver.reason,
        "expires": row.waiver.expires.isoformat(),
        "max_loss": row.waiver.max_loss,
    }
    about = {"metric": row.metric.name, "unit": row.metric.unit, "higher_is_better": row.metric.higher_is_better}
    plain = dataclasses.replace(row, difference=dataclasses.replace(row.difference, parts=None))
    told = dataclasses.asdict(plain) | about | {"gain": row.gain, "waiver": waiver, "name": row.name}
    del told["difference"]["parts"]
    return told
