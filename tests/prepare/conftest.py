"""A small set in the refer layout, and images, as people have them."""

import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

PARTITIONS = {"refcoco": "unc", "refcoco+": "unc", "refcocog": "umd"}


def coco_name(number: int) -> str:
    """COCO's file name of a train2014 image."""
    return f"COCO_train2014_{number:012d}.jpg"


def save_image(path: Path, seed: int, size: tuple[int, int] = (24, 16)) -> Path:
    """A picture of noise that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@dataclass
class ReferSet:
    """Files in the refer layout, and the refs as they were put in, by data set."""

    root: Path
    images: Path
    refs: dict[str, list[dict]] = field(default_factory=dict)

    def add(self, dataset: str, splits: dict[str, list[int]], google: dict[str, list[int]] | None = None) -> None:
        """Write a data set with one ref for each image number of each split."""
        folder = self.root / dataset
        folder.mkdir(parents=True, exist_ok=True)
        refs = [self._ref(dataset, split, image) for split, images in splits.items() for image in images]
        self.refs[dataset] = refs
        # Python 2 wrote these files.
        (folder / f"refs({PARTITIONS[dataset]}).p").write_bytes(pickle.dumps(refs, protocol=2))
        numbers = sorted({ref["image_id"] for ref in refs})
        instances = {
            "images": [{"id": n, "file_name": coco_name(n), "width": 24, "height": 16} for n in numbers],
            "annotations": [
                {"id": ref["ann_id"], "image_id": ref["image_id"], "category_id": ref["category_id"], "iscrowd": 0}
                | {"bbox": self.box(ref["image_id"]), "area": 12.0, "segmentation": []}
                for ref in refs
            ],
            "categories": [{"id": 7, "name": "train"}],
        }
        (folder / "instances.json").write_text(json.dumps(instances))
        for number in numbers:
            save_image(self.images / coco_name(number), number)

    def box(self, image: int) -> list[float]:
        """x, y, width, height of the object in an image; two decimals, as COCO's."""
        return [1.25, 2.35, round(3 + image % 7 + 0.15, 2), 4.05]

    def _ref(self, dataset: str, split: str, image: int) -> dict:
        number = image * 10 + list(PARTITIONS).index(dataset)
        sentences = [
            {"raw": f"The {text}!", "sent": text, "tokens": text.split(), "sent_id": number * 10 + place}
            for place, text in enumerate([f"thing {image}", f"left of {image}"][: 1 + image % 2])
        ]
        return {
            "ref_id": number,
            "ann_id": number + 5,
            "image_id": image,
            "category_id": 7,
            "split": split,
            "file_name": coco_name(image).replace(".jpg", f"_{number}.jpg"),
            "sent_ids": [sentence["sent_id"] for sentence in sentences],
            "sentences": sentences,
        }


@pytest.fixture
def noise():
    """Saves a picture of noise: (path, seed, size)."""
    return save_image


@pytest.fixture
def refer(tmp_path) -> ReferSet:
    """RefCOCO, RefCOCO+ and RefCOCOg; images 5 and 6 of RefCOCO's train are in evaluations of the others."""
    made = ReferSet(tmp_path / "refer", tmp_path / "train2014")
    made.add("refcoco", {"train": [1, 2, 3, 4, 5, 6], "val": [11, 12], "testA": [13], "testB": [14]})
    made.add("refcoco+", {"train": [1, 2, 3, 4, 6], "val": [5, 11], "testA": [13], "testB": [14]})
    made.add("refcocog", {"train": [1, 2, 5, 11], "val": [21], "test": [6, 22]})
    return made
