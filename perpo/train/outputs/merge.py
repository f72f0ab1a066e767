"""perpo-train merge: an adapter's weights put into its base, as a checkpoint of its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from perpo.common.arguments import arg
from perpo.common.files import atomic_write_text
from perpo.common.locks import new_folder
from perpo.errors import PerpoError
from perpo.models.checkpoints import (
    adapter_digest,
    adapter_of,
    local_directory,
    public_name,
    resolve_model,
    weights_digest,
)
from perpo.models.original_files import read_file, weight_files
from perpo.records.provenance import code_version, package_versions
from perpo.records.training_record import public_record, read_record

MERGE_RECORD_FILE = "merge.json"
SCHEMA_VERSION = 1
DESCRIPTION = (
    "Merge an adapter into its base and write a checkpoint that loads without PEFT. The sum is computed in "
    "float32 and rounded once."
)


@dataclass(frozen=True, kw_only=True)
class MergeArguments:
    """The arguments of `perpo-train merge`."""

    model: str = arg(
        help="base that the adapter was trained on: tiny, a folder in the Hugging Face layout, or a hub id"
    )
    adapter: str = arg(help="folder of the adapter")
    output: str = arg(help="folder to write, which must not exist yet")
    dtype: Literal["base", "float32", "bfloat16", "float16"] = arg("base", "type of the written weights")


def merge(args: MergeArguments) -> Path:
    """Write the merged checkpoint: weights, processor, chat template, generation config, merge.json, model card.

    Returns:
        The output directory. A crash leaves none.

    Raises:
        PerpoError: The output exists, or model and adapter cannot be used together.
    """
    output = Path(args.output)
    with new_folder(output, "merge") as new:
        base = local_directory(resolve_model(args.model))
        adapter_of(weights_digest(base), args.adapter)  # before torch is imported
        _write(args, base, new)
    return output


def _write(args: MergeArguments, base: Path, folder: Path) -> None:
    from perpo.models.merging import write_merged

    dtype = base_dtype(base) if args.dtype == "base" else args.dtype
    loaded = write_merged(args.model, args.adapter, folder, dtype)
    training = read_record(args.adapter)
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "created_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        "base": {"name": public_name(args.model), "weights_sha256": loaded.weights_sha256},
        "adapter": {"name": public_name(args.adapter), "sha256": adapter_digest(args.adapter)},
        "dtype": dtype,
        "weights_sha256": weights_digest(folder),
        "training_run": training and public_record(training),
        "code": code_version(),
        "packages": package_versions(),
    }
    atomic_write_text(folder / MERGE_RECORD_FILE, json.dumps(record, indent=2) + "\n")
    if training is not None and training["steps"] is not None:
        from perpo.train.outputs.card import write_card

        write_card(folder, training, training["steps"])


def base_dtype(base: Path) -> str:
    """Return the type that most of a base's weights are in.

    Raises:
        PerpoError: It is none that is written.
    """
    sizes: dict[str, int] = {}
    for file in weight_files(base):
        for tensor in read_file(file).values():
            name = str(tensor.dtype).removeprefix("torch.")
            sizes[name] = sizes.get(name, 0) + tensor.numel()
    name = max(sizes, key=lambda each: sizes[each])
    if name not in ("float32", "bfloat16", "float16"):
        raise PerpoError(f"the base's weights are of the type {name}", "give --dtype")
    return name
