"""The pictures of the tiny world's dense pages: two bitmap fonts, a slight tilt, noise, and often a JPEG between.

The fonts are Pillow's built-in one and X11's misc-fixed (see fonts/README.md), both 6 x 12 pixels a letter, so that
no font of the machine is needed.
"""

from __future__ import annotations

import functools
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from perpo.data.images import open_image
from perpo.tiny.world.dense import CELL_HEIGHT, CELL_WIDTH, DENSE_SIDE, DensePage
from perpo.tiny.world.scenes import scene_rng

_PIXELS = 61
_FIXED = Path(__file__).with_name("fonts") / "misc-fixed-6x12.png"


def draw_dense_page(page: DensePage) -> Image.Image:
    """Draw a page: RGB, `DENSE_SIDE` x `DENSE_SIDE`, dark letters on a light sheet, and noise over all."""
    rng = scene_rng(page.split, page.index, _PIXELS)
    ink, paper = rng.uniform(10, 80, size=3), rng.uniform(170, 245, size=3)
    alpha = np.asarray(_sheet(page), dtype=np.float64)[..., None] / 255
    pixels = paper * (1 - alpha) + ink * alpha
    pixels = pixels + rng.normal(0, rng.uniform(3, 10), size=pixels.shape)
    picture = Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), "RGB")
    return picture if page.jpeg is None else _through_jpeg(picture, page.jpeg)


def _sheet(page: DensePage) -> Image.Image:
    """Return where ink is, from 0 to 255."""
    sheet = Image.new("L", (DENSE_SIDE, DENSE_SIDE), 0)
    for line in page.lines:
        written = _written(line.text, page.font)
        written = written.resize((written.width * line.size, written.height * line.size), Image.Resampling.NEAREST)
        at = page.corner[0] + CELL_WIDTH * line.column, page.corner[1] + CELL_HEIGHT * line.row
        sheet.paste(255, at, written)
    if page.has_rule:
        y = page.corner[1] + CELL_HEIGHT * page.rule_row
        ImageDraw.Draw(sheet).rectangle((4, y + 5, DENSE_SIDE - 5, y + 6), fill=255)
    return sheet if page.angle == 0 else sheet.rotate(page.angle, Image.Resampling.BILINEAR)


def _written(text: str, font: str) -> Image.Image:
    """Return a mask of one line of text in letters of one cell."""
    strip = Image.new("L", (CELL_WIDTH * len(text) + 1, CELL_HEIGHT), 0)  # a serif may reach a pixel beyond
    if font == "courier":
        ImageDraw.Draw(strip).text((0, 0), text, fill=255, font=ImageFont.load_default_imagefont())
        return strip
    letters = _misc_fixed()
    for k, letter in enumerate(text):
        left = CELL_WIDTH * (ord(letter) - ord(" "))
        strip.paste(letters.crop((left, 0, left + CELL_WIDTH, CELL_HEIGHT)), (CELL_WIDTH * k, 0))
    return strip


@functools.cache
def _misc_fixed() -> Image.Image:
    return open_image(_FIXED).convert("L")


def _through_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    kept = io.BytesIO()
    picture.save(kept, "JPEG", quality=quality)
    return open_image(kept.getvalue())
