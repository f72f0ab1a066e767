"""The record of a run that is about to begin. Needs no torch."""

from __future__ import annotations

import dataclasses
import os
from datetime import UTC, datetime
from typing import Any

from perpo.common.redact import clean
from perpo.data import data_sha256
from perpo.models.checkpoints import adapter_of, local_directory, resolve_model, weights_digest
from perpo.records.provenance import code_version, package_versions
from perpo.records.training_record import LOG_NAME, SCHEMA_VERSION, filled
from perpo.train.arguments import TrainArguments


def new_record(args: TrainArguments) -> dict[str, Any]:
    """Return the record of a run that is about to begin, without secrets; it reads the model's, adapter's and data's
    digests.

    Raises:
        PerpoError: One of them is not there, or the adapter is another model's.
    """
    weights = weights_digest(local_directory(resolve_model(args.model)))
    known = {
        "schema_version": SCHEMA_VERSION,
        "status": "running",
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "arguments": dataclasses.asdict(args),
        "model": {
            "name": args.model,
            "weights_sha256": weights,
            "adapter": args.adapter,
            "adapter_sha256": adapter_of(weights, args.adapter) if args.adapter else None,
        },
        "data": {"path": args.data, "sha256": data_sha256(args.data)},
        "code": code_version(),
        "packages": package_versions(),
        "world_size": int(os.environ.get("WORLD_SIZE", "1")),
        "precision": args.dtype,
        "log": LOG_NAME,
    }
    return filled(clean(known))
