"""The tiny world's benchmarks as Parquet files in the cache, drawn at their first use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from perpo.common.code_digest import code_digest, module_file
from perpo.common.files import cache_folder, disk_errors

_DRAWN_BY = {
    "expressions": "perpo.tiny.world.expressions",
    "judged questions": "perpo.tiny.world.judged",
    "objects": "perpo.tiny.world.objects",
    "pages": "perpo.tiny.world.pages",
    "prompts": "perpo.benchmarks.prompts",
    "scenes": "perpo.tiny.world.scenes",
    "rows": "perpo.tiny.world",
}


_DENSE = {"dense pages": "perpo.tiny.world.dense"}


def tiny_version(tasks: Sequence[str] = ()) -> str:
    """Return the tiny world's version, with a digest of what draws it: a world in the making changes although its
    version stands.

    Args:
        tasks: What is drawn; dense pages have a part of their own, on which nothing else depends.
    """
    from perpo.tiny.world.scenes import WORLD_VERSION

    drawn_by = _DRAWN_BY | (_DENSE if any(task.startswith("tinydense") for task in tasks) else {})
    return f"{WORLD_VERSION}-{code_digest({job: module_file(module) for job, module in drawn_by.items()})[:8]}"


def tiny_parquet(task: str) -> Path:
    """Return the rows of a task of the tiny world, such as refshapes_val, tinypope_random or tinywild_test."""
    from perpo.tiny.world import write_parquet

    path = cache_folder() / f"tiny-world-{tiny_version([task])}" / f"{task}.parquet"
    if not path.is_file():
        part = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with disk_errors(path):
                write_parquet(_rows(task), part)
                part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return path


def _rows(task: str) -> Iterator[dict[str, Any]]:
    from perpo.tiny.world import benchmark_rows
    from perpo.tiny.world.dense_rows import dense_rows
    from perpo.tiny.world.judged import mmhal_rows, wild_rows
    from perpo.tiny.world.objects import object_rows
    from perpo.tiny.world.pages import page_rows

    dataset, split = task.rsplit("_", 1)
    if dataset == "tinypope":
        return object_rows(split)
    drawn: dict[str, Callable[[str], Iterator[dict[str, Any]]]]
    drawn = {"tinypages": page_rows, "tinydense": dense_rows, "tinywild": wild_rows, "tinymmhal": mmhal_rows}
    return drawn[dataset](split) if dataset in drawn else benchmark_rows(dataset, split)
