"""Formats of boxes: how numbers make a box.

Three things are declared, never guessed: the *scale* of the numbers, their *order*, and the *frame*, which is the
picture that they refer to:

- `original`: the image as it is;
- `padded`: the image centred on a square as wide as its longer side (LLaVA-1.5's training data);
- `cropped`: the centred square as wide as its shorter side, which is what remains when the
  shorter side is resized to the model's input and the centre cut out (CLIP's preprocessing);
- `resized`: the image stretched to the model's input, whatever its shape. Pixels of it need to know that
  input's size, which a `Resize` gives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from perpo.common.hints import did_you_mean
from perpo.errors import PerpoError

Frame = Literal["original", "padded", "cropped", "resized"]
Scale = Literal["0-1", "0-1000", "0-999", "pixels", "percent", "bins"]
Order = Literal["xyxy", "yxyx", "xywh"]
ImageSize = tuple[int, int]

# How many times its shorter side a picture may be long that Qwen's processors resize.
_MOST_ASPECT = 200


@dataclass(frozen=True)
class Resize:
    """The rule by which Qwen's processors choose the size of a model's input: sides in whole patches, an area within
    bounds.

    Attributes:
        factor: Both sides are multiples of it, in pixels.
        min_pixels: Smallest area.
        max_pixels: Largest area.
    """

    factor: int
    min_pixels: int
    max_pixels: int

    def size(self, image_size: ImageSize) -> ImageSize:
        """Return the (width, height) of the input that an image of (width, height) becomes.

        Sides are rounded to the nearest multiple (halves to the even one); where the area then is out of bounds, the
        image is first scaled to the bound and its sides are rounded into it. It is what transformers' `smart_resize`
        of Qwen2-VL gives, to the last rounding of its floating-point numbers.

        Raises:
            PerpoError: One side is more than 200 times the other, which the library refuses.
        """
        if max(image_size) > _MOST_ASPECT * min(image_size):
            raise PerpoError(
                f"a picture of {image_size[0]} x {image_size[1]} pixels cannot be resized for the model: its longer "
                f"side is more than {_MOST_ASPECT} times the shorter one",
                "leave the picture out, or crop or pad it",
            )
        factor, pixels = self.factor, image_size[0] * image_size[1]
        width, height = (round(side / factor) * factor for side in image_size)
        if width * height > self.max_pixels:
            shrink = math.sqrt(pixels / self.max_pixels)
            width, height = (max(factor, math.floor(side / shrink / factor) * factor) for side in image_size)
        elif width * height < self.min_pixels:
            # The root of the inverse quotient would round to other last bits, and up to another multiple.
            grow = math.sqrt(self.min_pixels / pixels)
            width, height = (math.ceil(side * grow / factor) * factor for side in image_size)
        return width, height


@dataclass(frozen=True)
class BoxFormat:
    """The way in which a model writes boxes.

    Attributes:
        scale: What the numbers count: shares of the frame's sides (0-1), thousandths (0-1000),
            999ths (0-999) or hundredths (percent) of them, pixels of the frame, or PaliGemma's 1024 bins.
        order: Which number is which: two corners with x or y first, or the upper left one with width and height.
        frame: The picture that they refer to.
        resize: For pixels of a resized picture, how its size is chosen.
    """

    scale: Scale
    order: Order = "xyxy"
    frame: Frame = "original"
    resize: Resize | None = None

    def __post_init__(self) -> None:
        for name, value, kind in (
            ("scale", self.scale, Scale),
            ("order", self.order, Order),
            ("frame", self.frame, Frame),
        ):
            if value not in get_args(kind):
                raise PerpoError(f"there is no box {name} '{value}'", did_you_mean(str(value), get_args(kind)))
        if self.counts_input and self.resize is None:
            raise PerpoError(
                "boxes in pixels of a resized image need the size of that image", "give another box scale or frame"
            )

    @property
    def counts_input(self) -> bool:
        """Return whether numbers count pixels of the model's input, so that what they mean depends on its size."""
        return self.scale == "pixels" and self.frame == "resized"


def declared(
    boxes: BoxFormat | None, *, scale: Scale | None = None, order: Order | None = None, frame: Frame | None = None
) -> BoxFormat | None:
    """Return a format with what the user declares in its place.

    Nothing follows from one part for the others: pixels of a family whose frame is `padded` are pixels of the padded
    picture, until the frame `original` is declared too.

    Args:
        boxes: The format that is usual, or None where that is not known: a declared scale then stands for two corners,
            x first, in the original picture, unless order and frame are declared too.
        scale: What numbers count; None for what is usual.
        order: Which number is which; None for what is usual.
        frame: The picture that they refer to; None for what is usual.

    Returns:
        The format; None where nothing is usual and nothing is declared.

    Raises:
        PerpoError: Pixels of a resized image whose size is not known, or an order or frame of numbers of which it is
            not known what they count.
    """
    if boxes is None and scale is None:
        if order is not None or frame is not None:
            raise PerpoError("it is not known how this model writes boxes", "give the box scale too")
        return None
    usual = boxes or BoxFormat("0-1")
    return replace(usual, scale=scale or usual.scale, order=order or usual.order, frame=frame or usual.frame)


PARTS = ("scale", "order", "frame")
