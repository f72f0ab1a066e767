"""Do training data show images that an evaluation asks about? Compared by content and by COCO's numbers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal

# COCO's numbers have at most six digits, written with twelve: so a date and time is not taken for one.
_COCO = re.compile(r"(?<![0-9])0{6}([0-9]{6})(?![0-9])")

Reason = Literal["content", "COCO number"]


@dataclass(frozen=True)
class ImageIdentity:
    """The marks by which an image can be recognised.

    Attributes:
        name: What it is called in messages, such as its file's name.
        sha256: Digest of the image file's bytes (hex); None if it is not at hand.
    """

    name: str
    sha256: str | None

    @property
    def coco(self) -> int | None:
        """COCO's number, if the name has one."""
        return coco_number(self.name)


@dataclass
class ImageIndex:
    """The images of evaluations.

    Attributes:
        by_sha256: Name by digest.
        by_coco: Name by COCO's number.
        unknown: Images with neither: nothing can be said about them.
        known: Digest, number or name of each image, to count them.
    """

    by_sha256: dict[str, str] = field(default_factory=dict)
    by_coco: dict[int, str] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    known: set[str | int] = field(default_factory=set)

    def add(self, image: ImageIdentity, source: str) -> None:
        """Take in an image of the evaluation called `source`."""
        label = f"{image.name} ({source})"
        # The number first: POPE's lists and RefCOCO's may hold one image in two forms.
        self.known.add(next(key for key in (image.coco, image.sha256, image.name) if key is not None))
        if image.sha256 is not None:
            self.by_sha256.setdefault(image.sha256, label)
        if image.coco is not None:
            self.by_coco.setdefault(image.coco, label)
        if image.sha256 is None and image.coco is None:
            self.unknown.add(label)


@dataclass(frozen=True)
class Match:
    """A training image that an evaluation has too."""

    image: str
    evaluation: str
    reason: Reason


def coco_number(name: str) -> int | None:
    """Return COCO's number of an image, from names such as COCO_train2014_000000123456.jpg or 000000123456.jpg.

    Returns:
        The number, which is one for all years and splits of COCO; None where the name has none.
    """
    match = _COCO.search(PurePath(name).name)
    return int(match[1]) if match else None


def sha256_of(data: bytes) -> str:
    """Return SHA-256 (hex) of an image file's bytes."""
    return hashlib.sha256(data).hexdigest()


def find_matches(train: Iterable[ImageIdentity], index: ImageIndex) -> dict[ImageIdentity, Match]:
    """Return which training images are in an evaluation: the same bytes, or the same COCO number.

    An image that was resized or compressed anew has other bytes: then only the number can tell.
    """
    matches: dict[ImageIdentity, Match] = {}
    for image in train:
        if image.sha256 is not None and image.sha256 in index.by_sha256:
            matches[image] = Match(image.name, index.by_sha256[image.sha256], "content")
        elif image.coco is not None and image.coco in index.by_coco:
            matches[image] = Match(image.name, index.by_coco[image.coco], "COCO number")
    return matches


def count_reasons(matches: Mapping[ImageIdentity, Match]) -> dict[Reason, int]:
    """Return how many images were recognised by what."""
    reasons = [match.reason for match in matches.values()]
    return {"content": reasons.count("content"), "COCO number": reasons.count("COCO number")}
