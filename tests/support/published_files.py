"""The judged benchmarks' files as their authors publish them, with few questions about made pictures."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

from perpo.benchmarks.llava_bench import LLAVA_BENCH_CATEGORIES
from perpo.benchmarks.mmhal import MMHAL_TYPES


def picture(file: Path, seed: int) -> None:
    """A small photograph's stand-in."""
    pixels = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((80, 60)).save(buffer, format="JPEG")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(buffer.getvalue())


def llava_bench(folder: Path, pictures: int = 4) -> Path:
    """LLaVA-Bench-in-the-Wild: three questions about each picture."""
    questions, contexts, answers = [], [], []
    for number in range(pictures):
        image = f"{number + 1:03d}.jpg"
        picture(folder / "images" / image, number)
        contexts.append({"id": image[:3], "image": image, "caption": f"A picture numbered {number}."})
        for category in LLAVA_BENCH_CATEGORIES:
            place = len(questions)
            asked = f"What is in picture {number} ({category})?"
            questions.append({"image": image, "text": asked, "category": category, "question_id": place})
            answers.append({"question_id": place, "prompt": asked, "text": f"The number {number}, {category}."})
    for name, rows in (("questions", questions), ("context", contexts), ("answers_gpt4", answers)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def mmhal(folder: Path, rounds: int = 2, name: str = "response_template.json") -> Path:
    """MMHal-Bench: a question of each type in turn, each about a picture of its own."""
    rows = []
    for number in range(rounds * len(MMHAL_TYPES)):
        image = f"{number}_o.jpg"
        picture(folder / "images" / image, 100 + number)
        rows.append(
            {
                "question_type": MMHAL_TYPES[number % len(MMHAL_TYPES)],
                "question_topic": "indoor",
                "image_id": f"{number:016x}",
                "image_src": f"https://example.org/{number}/{image}",
                "image_content": ["Cat", "Chair"],
                "question": f"What is the colour of thing {number}?",
                "gt_answer": f"Thing {number} is red.",
                "model_answer": "",
            }
        )
    (folder / name).write_text(json.dumps(rows))
    return folder


def both(folder: Path) -> Path:
    """A folder with both."""
    llava_bench(folder / "llava_bench_wild")
    mmhal(folder / "mmhal")
    return folder
