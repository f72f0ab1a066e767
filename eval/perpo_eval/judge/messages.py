"""Write what a judge is asked: the official prompts and settings of prompts/."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from perpo.benchmarks.llava_bench import LLAVA_BENCH
from perpo.benchmarks.mmhal import MMHAL
from perpo.benchmarks.table import INFO


def llava_messages(
    question: str, category: str, caption: str, reference: str, answer: str, *, swapped: bool = False
) -> list[dict[str, str]]:
    """LLaVA-Bench's request: the reference answer is Assistant 1 and the model's Assistant 2.

    Args:
        question: The user's question.
        category: conv, detail or complex.
        caption: The picture's description. (The first official script put a line break after each of its letters.)
        reference: The reference answer.
        answer: The model's answer.
        swapped: Show the model's answer first, which the official protocol does not do.
    """
    rule = json.loads(_prompt(LLAVA_BENCH.name))[f"llava_bench_{category}"]
    role = rule["role"]
    first, second = (answer, reference) if swapped else (reference, answer)
    content = (
        f"[Context]\n{caption}\n\n[Question]\n{question}\n\n"
        f"[{role} 1]\n{first}\n\n[End of {role} 1]\n\n"
        f"[{role} 2]\n{second}\n\n[End of {role} 2]\n\n"
        f"[System]\n{rule['prompt']}\n\n"
    )
    system = official_settings()[LLAVA_BENCH.name]["system"]
    return [{"role": "system", "content": system}, {"role": "user", "content": content}]


def mmhal_messages(question: str, image_content: Sequence[str], gt_answer: str, answer: str) -> list[dict[str, str]]:
    """MMHal-Bench's request: the names of what the picture holds, the human's answer and the model's."""
    content = _prompt(MMHAL.name).format(", ".join(image_content), question, gt_answer, answer)
    return [{"role": "user", "content": content}]


def prompts_sha256(benchmark: str) -> str:
    """Return the digest of a benchmark's prompt file and settings."""
    settings = json.dumps(official_settings()[benchmark], sort_keys=True)
    return hashlib.sha256(f"{_prompt(benchmark)}\x1f{settings}".encode()).hexdigest()


@cache
def _prompt(benchmark: str) -> str:
    return (files("perpo_eval") / "judge" / "prompts" / INFO[benchmark].judge_prompt).read_text(encoding="utf-8")


@cache
def official_settings() -> dict[str, Any]:
    """Return the official scripts' judge (`official_model`), and by benchmark system message, temperature and token
    limit.
    """
    return json.loads((files("perpo_eval") / "judge" / "prompts" / "settings.json").read_text(encoding="utf-8"))
