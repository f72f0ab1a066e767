"""The version of each benchmark's scores, and of the suite: runs of one version may be compared, others may not.

A version counts up whenever an answer can get another score than before. So that nobody forgets, `scorer_digests.json`
holds which code each version stands for, and a test compares the two. After a change of that code, raise the version if
a number can change, and write the digests down again:

    python -m perpo_eval.evaluate.versions
"""

from __future__ import annotations

import json
from pathlib import Path

from perpo.common.code_digest import code_digest, module_file

VERSIONS = {"grounding": "2", "pope": "2", "ocr": "2", "llava_bench": "2", "mmhal": "2"}

DIGESTS = Path(__file__).with_name("scorer_digests.json")

_ALL = {
    "answers": "perpo.answers",
    "metrics": "perpo.benchmarks.metrics",
    "what a benchmark is": "perpo_eval.benchmarks.base",
}
_JUDGED = {
    "benchmark": "perpo_eval.benchmarks.judged",
    "judge's question": "perpo_eval.judge.messages",
    "judge's ratings": "perpo_eval.judge.ratings",
    "judge's verdicts": "perpo_eval.judge.verdicts",
    "judge's error": "perpo_eval.judge.readings",
}
_SOURCES = {
    "grounding": {
        "benchmark": "perpo_eval.benchmarks.grounding",
        "scorer": "perpo_eval.scorers.grounding",
        "boxes": "perpo.boxes.frames",
        "box text": "perpo.boxes.text",
        "box formats": "perpo.boxes.formats",
        "families": "perpo.models.families",
    },
    "pope": {"benchmark": "perpo_eval.benchmarks.pope", "scorer": "perpo_eval.scorers.pope"},
    "ocr": {"benchmark": "perpo_eval.benchmarks.ocr", "scorer": "perpo_eval.scorers.ocr"},
    "llava_bench": _JUDGED,
    "mmhal": _JUDGED,
}


SUITE_VERSION = "2"
_ASKED_AND_SCORED = {
    "documents": "perpo_eval.rows.documents",
    "judge's question": "perpo_eval.judge.messages",
    "judge's ratings": "perpo_eval.judge.ratings",
    "judge's verdicts": "perpo_eval.judge.verdicts",
    "judge's error": "perpo_eval.judge.readings",
    "answers": "perpo.answers",
    "box formats": "perpo.boxes.formats",
    "box text": "perpo.boxes.text",
    "boxes": "perpo.boxes.frames",
    "families": "perpo.models.families",
    "images": "perpo.data.images",
    "orientation": "perpo.data.orientation",
    "prompts": "perpo.benchmarks.prompts",
    "metrics": "perpo.benchmarks.metrics",
    "intervals": "perpo.stats.intervals",
}
"""What is asked and how answers are scored, by its job: the module."""


def scorer_digest(benchmark: str) -> str:
    """SHA-256 of the code that makes a benchmark's scores.

    Args:
        benchmark: A key of `VERSIONS`.
    """
    return code_digest({job: module_file(module) for job, module in (_ALL | _SOURCES[benchmark]).items()})


def digests() -> dict[str, dict[str, str]]:
    """The version of each benchmark, and the digest of its code as it is now."""
    return {name: {"version": version, "sha256": scorer_digest(name)} for name, version in VERSIONS.items()}


def suite_sha256() -> str:
    """Digest of what is asked and how answers are scored."""
    here = Path(__file__).parents[1]
    files = {
        f"{job}/{path.relative_to(here / folder).as_posix()}": path
        for job, folder in (
            ("tasks", "tasks"),
            ("scorers", "scorers"),
            ("benchmarks", "benchmarks"),
            ("judge prompts", "judge/prompts"),
        )
        for path in (here / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return code_digest(files | {job: module_file(module) for job, module in _ASKED_AND_SCORED.items()})


if __name__ == "__main__":
    DIGESTS.write_text(json.dumps(digests(), indent=1) + "\n", encoding="utf-8")
