"""The tiny world's scenes: a few coloured shapes on a noisy background, drawn from a seed.

A scene is a pure function of (split, index): the same call draws the same pixels on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIDE = 96
"""Width and height of every picture, in pixels."""

WORLD_VERSION = 1
"""Part of every seed: a change of what is drawn or said needs a new number."""

SPLIT_CODES = {"train": 0, "val": 1, "test": 2}

COLOURS = {
    "red": (212, 40, 44),
    "green": (44, 160, 60),
    "blue": (40, 84, 212),
    "yellow": (240, 212, 40),
    "purple": (144, 60, 176),
    "orange": (244, 136, 32),
    "white": (244, 244, 244),
}
ROUND_KINDS = ("circle", "ring")
KINDS = (*ROUND_KINDS, "square", "triangle", "cross")
SIZES = {"small": (13.0, 20.0), "large": (26.0, 38.0)}
_OVERSAMPLE = 3


@dataclass(frozen=True)
class Shape:
    """One object of a scene.

    Attributes:
        kind: One of `KINDS`.
        colour: A key of `COLOURS`.
        size: "small" or "large".
        striped: Whether dark stripes run across it.
        box: Its exact extent (x1, y1, x2, y2) in pixels.
    """

    kind: str
    colour: str
    size: str
    striped: bool
    box: tuple[float, float, float, float]

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) of the middle of the box, in pixels."""
        x1, y1, x2, y2 = self.box
        return (x1 + x2) / 2, (y1 + y2) / 2


@dataclass(frozen=True)
class Scene:
    """One picture: what is in it, and where; `draw` makes the picture."""

    split: str
    index: int
    shapes: tuple[Shape, ...]


def scene_rng(split: str, index: int, purpose: int) -> np.random.Generator:
    """Return the random numbers of one scene for one purpose.

    Purposes: 0 layout, 1 pixels, 2 training questions, 3 loose labels, 4 lessons, 10 and up the rows of a
    benchmark's split.

    Raises:
        KeyError: For a split other than train, val and test.
    """
    return np.random.default_rng([WORLD_VERSION, SPLIT_CODES[split], index, purpose])


def make_scene(split: str, index: int) -> Scene:
    """Lay out scene `index` of "train", "val" or "test": 2-6 shapes whose boxes do not touch."""
    rng = scene_rng(split, index, 0)
    wanted = int(rng.integers(2, 7))
    shapes: list[Shape] = []
    for _ in range(200):
        if len(shapes) == wanted:
            break
        size = str(rng.choice(list(SIZES)))
        side, aspect = rng.uniform(*SIZES[size]), rng.uniform(0.8, 1.25)
        width, height = side * np.sqrt(aspect), side / np.sqrt(aspect)
        x1, y1 = rng.uniform(1, SIDE - 1 - width), rng.uniform(1, SIDE - 1 - height)
        box = (float(x1), float(y1), float(x1 + width), float(y1 + height))
        if any(_too_close(box, other.box) for other in shapes):
            continue
        kind, colour = str(rng.choice(KINDS)), str(rng.choice(list(COLOURS)))
        shapes.append(Shape(kind, colour, size, bool(rng.random() < 0.3), box))
    return Scene(split, index, tuple(shapes))


def _too_close(a: tuple[float, ...], b: tuple[float, ...], gap: float = 2.0) -> bool:
    return a[0] < b[2] + gap and b[0] < a[2] + gap and a[1] < b[3] + gap and b[1] < a[3] + gap


def draw(scene: Scene) -> Image.Image:
    """Draw a scene: RGB, `SIDE` x `SIDE`, a two-colour gradient, the shapes, and noise over all."""
    rng = scene_rng(scene.split, scene.index, 1)
    corners = rng.uniform(60, 150, size=(2, 3))
    direction = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    ramp = np.clip(0.5 + (x - 0.5) * np.cos(direction) + (y - 0.5) * np.sin(direction), 0, 1)
    pixels = corners[0] + ramp[..., None] * (corners[1] - corners[0])
    for shape in scene.shapes:
        jitter = rng.uniform(-18, 18, size=3)
        alpha, ink = _stencil(shape)
        colour = np.clip(np.asarray(COLOURS[shape.colour]) + jitter, 0, 255)
        pixels = pixels * (1 - alpha) + alpha * colour * ink
    pixels = pixels + rng.normal(0, rng.uniform(3, 10), size=pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), "RGB")


def _stencil(shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """Coverage in [0, 1] and brightness of the ink of a shape, each (SIDE, SIDE, 1)."""
    scale = _OVERSAMPLE
    canvas = Image.new("L", (SIDE * scale, SIDE * scale), 0)
    pen = ImageDraw.Draw(canvas)
    x1, y1, x2, y2 = (value * scale for value in shape.box)
    width, height = x2 - x1, y2 - y1
    # PIL counts the last pixel in, a box does not.
    inside = (x1, y1, x2 - 1, y2 - 1)
    if shape.kind == "circle":
        pen.ellipse(inside, fill=255)
    elif shape.kind == "ring":
        pen.ellipse(inside, fill=255)
        pen.ellipse((x1 + 0.28 * width, y1 + 0.28 * height, x2 - 0.28 * width - 1, y2 - 0.28 * height - 1), fill=0)
    elif shape.kind == "square":
        pen.rectangle(inside, fill=255)
    elif shape.kind == "triangle":
        pen.polygon([((x1 + x2) / 2, y1), (x2 - 1, y2 - 1), (x1, y2 - 1)], fill=255)
    else:
        third_w, third_h = width / 3, height / 3
        pen.rectangle((x1 + third_w, y1, x2 - third_w - 1, y2 - 1), fill=255)
        pen.rectangle((x1, y1 + third_h, x2 - 1, y2 - third_h - 1), fill=255)
    alpha = np.asarray(canvas.reduce(scale), dtype=np.float64)[..., None] / 255
    ink = np.ones((SIDE, SIDE, 1))
    if shape.striped:
        rows = np.arange(SIDE)[:, None, None] + np.arange(SIDE)[None, :, None]
        ink = np.where(rows % 6 < 3, 1.0, 0.35)
    return alpha, ink
