"""The version of each benchmark's scores: runs of one version may be compared, others may not.

A version counts up whenever an answer can get another score than before. So that nobody forgets, `scorer_digests.json`
holds which code each version stands for, and a test compares the two. After a change of that code, raise the version if
a number can change, and write the digests down again:

    python -m perpo_eval.versions
"""

from __future__ import annotations

import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

VERSIONS = {"grounding": "2", "pope": "2", "ocr": "2", "llava_bench": "2", "mmhal": "2"}

DIGESTS = Path(__file__).with_name("scorer_digests.json")

_ALL = ("perpo.answers", "perpo.scores", "perpo_eval.benchmarks")
_JUDGED = ("perpo_eval.metrics.judged", "perpo_eval.judged", "perpo_eval.judge_readings")
_SOURCES = {
    "grounding": (
        "perpo_eval.metrics.grounding",
        "perpo.boxes",
        "perpo.box_text",
        "perpo.box_formats",
        "perpo.families",
    ),
    "pope": ("perpo_eval.metrics.pope",),
    "ocr": ("perpo_eval.metrics.ocr",),
    "llava_bench": _JUDGED,
    "mmhal": _JUDGED,
}


def scorer_digest(benchmark: str) -> str:
    """SHA-256 of the code that makes a benchmark's scores.

    Args:
        benchmark: A key of `VERSIONS`.
    """
    digest = hashlib.sha256()
    for name in (*_ALL, *_SOURCES[benchmark]):
        found = find_spec(name)
        assert found is not None
        digest.update(f"{name}\0".encode() + Path(str(found.origin)).read_bytes())
    return digest.hexdigest()


def digests() -> dict[str, dict[str, str]]:
    """The version of each benchmark, and the digest of its code as it is now."""
    return {name: {"version": version, "sha256": scorer_digest(name)} for name, version in VERSIONS.items()}


if __name__ == "__main__":
    DIGESTS.write_text(json.dumps(digests(), indent=1) + "\n", encoding="utf-8")
