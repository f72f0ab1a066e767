"""The tiny world's benchmarks: rows in RefCOCO's columns, and training questions, from a seed.

Three benchmarks stand on the same scenes, as RefCOCO, RefCOCO+ and RefCOCOg stand on COCO's: their
splits share pictures, so intervals must cluster by picture. testA asks for round shapes (circle,
ring), testB for the others, as RefCOCO's ask for people and for the rest.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from perpo.benchmarks.prompts import GROUNDING
from perpo.common.files import atomic_write_text, disk_errors, make_folder
from perpo.tiny.world.expressions import FLAVOURS, expressions
from perpo.tiny.world.scenes import ROUND_KINDS, SIDE, WORLD_VERSION, Scene, Shape, draw, make_scene, scene_rng

BENCHMARKS: dict[str, tuple[str, ...]] = {
    "refshapes": ("train", "val", "testA", "testB"),
    "refshapes+": ("train", "val", "testA", "testB"),
    "refshapesg": ("train", "val", "test"),
}
PROMPT = GROUNDING
SCENES = {"train": 1000, "val": 450, "test": 450}
"""Pictures behind each split's rows; testA, testB and test share theirs."""

QUESTIONS_START = 100_000
"""Training questions use train scenes from this index on; the embedded checkpoint saw only lower ones."""

EXPRESSIONS_PER_ROW = 2
LOOSE_SCALE = 1.45
"""A loose label is the exact box with its width and height multiplied by this, cut at the picture's edge."""


def loose_box(scene: Scene, number: int, share: float) -> tuple[float, float, float, float]:
    """Return the label that a sloppy annotator gives shape `number`: inflated for a `share` of the shapes.

    Whether a shape is one of them depends only on the scene and its number. Pixels, xyxy.
    """
    x1, y1, x2, y2 = scene.shapes[number].box
    if scene_rng(scene.split, scene.index, 3).random(len(scene.shapes))[number] >= share:
        return x1, y1, x2, y2
    grow_x, grow_y = ((x2 - x1) * (LOOSE_SCALE - 1) / 2, (y2 - y1) * (LOOSE_SCALE - 1) / 2)
    return max(0.0, x1 - grow_x), max(0.0, y1 - grow_y), min(SIDE, x2 + grow_x), min(SIDE, y2 + grow_y)


def answer_text(box: tuple[float, float, float, float]) -> str:
    """Return a box in pixels as LLaVA writes it: `[0.61, 0.10, 0.77, 0.54]`, shares of the picture's side."""
    return "[" + ", ".join(f"{value / SIDE:.2f}" for value in box) + "]"


def _wanted(split: str, shape: Shape) -> bool:
    return split not in ("testA", "testB") or (shape.kind in ROUND_KINDS) == (split == "testA")


def benchmark_rows(benchmark: str, split: str, *, images: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield rows of one split, one target with up to two expressions each, at most one row a picture.

    Args:
        benchmark: A key of `BENCHMARKS`.
        split: One of its splits.
        images: How many scenes to look at (all of the split's by default).

    Yields:
        The columns of RefCOCO's rows: question_id, image (PIL, 96 x 96), question, answer (list of
        expressions), segmentation, bbox (x, y, width, height in pixels), iscrowd, file_name, and
        image_id and object_id.

    Raises:
        ValueError: For an unknown benchmark or split.
    """
    if benchmark not in BENCHMARKS or split not in BENCHMARKS[benchmark]:
        raise ValueError(f"no split {split!r} of {benchmark!r}; known: {BENCHMARKS}")
    family = split if split in SCENES else "test"
    purpose = 10 + 8 * FLAVOURS.index(benchmark) + BENCHMARKS[benchmark].index(split)
    for index in range(SCENES[family] if images is None else images):
        scene = make_scene(family, index)
        rng = scene_rng(family, index, purpose)
        said = {n: expressions(scene, s, benchmark) for n, s in enumerate(scene.shapes) if _wanted(split, s)}
        targets = [number for number, texts in said.items() if texts]
        if not targets:
            continue
        number = int(rng.choice(targets))
        chosen = rng.permutation(len(said[number]))[:EXPRESSIONS_PER_ROW]
        x1, y1, x2, y2 = scene.shapes[number].box
        yield {
            "question_id": f"{family}_{index}_{number}",
            "image": draw(scene),
            "question": PROMPT.format(expression="").strip(),
            "answer": [said[number][k] for k in sorted(chosen)],
            "segmentation": [x1, y1, x2, y1, x2, y2, x1, y2],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "iscrowd": 0,
            "file_name": f"tiny_{family}_{index:06d}.png",
            "image_id": index,
            "object_id": number,
        }


def write_parquet(rows: Iterable[Mapping[str, Any]], path: Path) -> Path:
    """Write rows as Parquet; images as {bytes (PNG), path}, as the hub's image column is stored."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    stored = [
        {**row, "image": {"bytes": _png(row["image"]), "path": row.get("file_name") or f"{row['image_source']}.png"}}
        for row in rows
    ]
    make_folder(path.parent)
    pq.write_table(pa.Table.from_pylist(stored), path)
    return path


def write_questions(directory: Path, *, images: int, seed: int = 0, per_image: int = 2, loose: float = 0.0) -> Path:
    """Write training questions: `directory/questions.jsonl` and `directory/images/*.png`.

    Scenes come from the train split beyond those that the embedded checkpoint was taught on; another
    seed takes other scenes. All three flavours are asked in equal shares.

    Args:
        directory: Created if missing.
        images: Number of pictures.
        seed: Which block of scenes.
        per_image: Questions a picture.
        loose: Share of the answers that are loose boxes (see `loose_box`); 0 gives exact ones.

    Returns:
        The path of the file, one JSON object per line: image_path, question, answer, image_id.
    """
    with disk_errors(directory):
        make_folder(directory / "images")
    lines = []
    for index in range(QUESTIONS_START + seed * 50_000, QUESTIONS_START + seed * 50_000 + images):
        scene = make_scene("train", index)
        rng = scene_rng("train", index, 2)
        name = f"images/tiny_train_{index:06d}.png"
        with disk_errors(directory / name):
            draw(scene).save(directory / name)
        for _ in range(per_image):
            number = int(rng.integers(len(scene.shapes)))
            texts = expressions(scene, scene.shapes[number], str(rng.choice(FLAVOURS)))
            if texts:
                question = PROMPT.format(expression=texts[int(rng.integers(len(texts)))])
                answer = answer_text(loose_box(scene, number, loose))
                lines.append({"image_path": name, "question": question, "answer": answer, "image_id": index})
    path = directory / "questions.jsonl"
    atomic_write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
    return path


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


__all__ = [
    "BENCHMARKS",
    "PROMPT",
    "WORLD_VERSION",
    "answer_text",
    "benchmark_rows",
    "loose_box",
    "write_parquet",
    "write_questions",
]
