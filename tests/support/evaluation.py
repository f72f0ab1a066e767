"""What the tests of evaluation share: a model whose answers differ, photographs, and a cache of their own."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from perpo.engines import chat
from perpo.tiny.model import TINY, new_model, new_processor

_CACHES: list[Path] = []


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory) -> Iterator[Path]:
    """The cache folder of the session, instead of the user's.

    Each file that imports this fixture makes one of its own for the session: all must name the same folder.
    """
    if not _CACHES:
        _CACHES.append(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(_CACHES[0]))
        yield _CACHES[0] / "perpo"


@pytest.fixture
def quick_judge(monkeypatch) -> None:
    """Shorter waits between the tries of a call to a judge, and no proxy before loopback."""
    monkeypatch.setattr(chat, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A model without knowledge whose answers depend on all that it reads."""
    folder = tmp_path_factory.mktemp("model")
    processor = new_processor(TINY, ["where is the small red circle? USER: ASSISTANT:"])
    model = new_model(TINY, processor)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.mul_(5 if "proj" in name or "embed_tokens" in name else 1)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def jpeg(seed: int, size: tuple[int, int]) -> bytes:
    """A picture of (width, height) with coarse structure."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, format="JPEG")
    return buffer.getvalue()


def refcoco_rows(pictures: int = 5) -> list[dict]:
    """Rows in RefCOCO's columns, two expressions each, about pictures that are not square."""
    return [
        {
            "question_id": str(100 + number),
            "image": {"bytes": jpeg(number, (160 + 10 * number, 120)), "path": f"COCO_{number}.jpg"},
            "question": "Please carefully observe the area ...",
            "answer": [f"the thing number {number} on the left", "the other one"],
            "segmentation": [1.0, 2.0],
            "bbox": [10.0, 20.0, 50.5, 60.0],
            "iscrowd": 0,
            "file_name": f"COCO_{number}.jpg",
        }
        for number in range(pictures)
    ]


@pytest.fixture(scope="session")
def refcoco_folder(tmp_path_factory) -> Path:
    """A folder with two tasks about the same pictures."""
    folder = tmp_path_factory.mktemp("refcoco")
    for task in ("refcoco_val", "refcocog_val"):
        pq.write_table(pa.Table.from_pylist(refcoco_rows()), folder / f"{task}.parquet")
    return folder


@pytest.fixture
def rows() -> list[dict]:
    """Rows in RefCOCO's columns, to be changed."""
    return refcoco_rows()
