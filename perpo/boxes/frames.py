"""Boxes: read them from text, write them, convert them between frames, and the project's one IoU.

The canonical box is float64 (x1, y1, x2, y2). What the numbers of a text mean is declared, never guessed; see
`perpo.boxes.formats`.
"""

from __future__ import annotations

import json
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perpo.boxes.formats import BoxFormat, Frame, ImageSize, Order, Resize, Scale
from perpo.boxes.text import numbers_in

Box = NDArray[np.float64]

# What a number is divided by to get a share of the frame's side. Bins are PaliGemma's 1024 tokens
# <loc0000> to <loc1023>.
_DIVISOR: dict[str, float] = {"0-1": 1.0, "0-1000": 1000.0, "0-999": 999.0, "percent": 100.0, "bins": 1024.0}
_LAST_BIN = 1023
# How far a share of the frame's side may lie beyond it by rounding alone.
_ROUNDING = 0.01


def iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of boxes.

    Args:
        a: (..., 4) boxes, x1 y1 x2 y2, in any unit.
        b: (..., 4) boxes in the same unit, broadcast against `a`.

    Returns:
        (...) values in [0, 1]. An empty or inverted box has area 0, hence IoU 0 with any box; so
        has a box with a coordinate that is not finite. Never NaN.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        low = np.maximum(a[..., :2], b[..., :2])
        high = np.minimum(a[..., 2:], b[..., 2:])
        common = _area(np.concatenate([low, high], axis=-1))
        union = _area(a) + _area(b) - common
    finite = np.isfinite(union) & np.isfinite(a).all(-1) & np.isfinite(b).all(-1)
    result = np.zeros(np.broadcast_shapes(common.shape, union.shape))
    np.divide(common, union, out=result, where=finite & (common > 0))
    return np.clip(result, 0.0, 1.0)


def parse_boxes(
    text: str,
    *,
    scale: Scale,
    order: Order = "xyxy",
    image_size: ImageSize | None = None,
    frame: Frame = "original",
    resize: Resize | None = None,
) -> list[Box]:
    """Read every box of a response or a truth, in the order of the text; of thoughts before the answer, none.

    Four numbers make a box: `[a, b, c, d]`, `(a, b, c, d)`, `(a, b), (c, d)`, `[[a, b], [c, d]]`,
    `{"bbox_2d": [a, b, c, d]}`, `x1=a, y1=b, x2=c, y2=d`, or bare numbers divided by commas or white
    space; eight bare numbers make two boxes. Numbers may be written `.61` or `1e-1`; with percent signs
    they are shares of no other scale. Any other count of numbers is no box, and neither is a polygon. Of
    `bins`, four `<locNNNN>` make a box. Inverted boxes are returned as they are. `perpo.boxes.text` says
    what is read where a text holds several of these.

    Args:
        text: What a model said.
        scale: What the numbers count; see `BoxFormat`.
        order: Which number is which.
        image_size: (width, height) of the original image in pixels.
        frame: The picture that the numbers refer to.
        resize: For pixels of a resized picture, how its size is chosen.

    Returns:
        Boxes x1 y1 x2 y2 in pixels of the original image if its size is given; else as shares of
        the frame's sides (for `pixels`: in pixels of the frame).
    """
    fmt = BoxFormat(scale, order, frame, resize)
    boxes = []
    for numbers in numbers_in(text, bins=scale == "bins"):
        if numbers.percent and scale != "percent":
            continue
        box = np.array(numbers.values, dtype=np.float64) / _DIVISOR.get(scale, 1.0)
        box = box if numbers.named else _corners(box, order)
        if image_size is not None:
            with np.errstate(over="ignore", invalid="ignore"):
                box = _to_original(box, fmt, image_size)
        # Numbers may be too large at once, or become so in pixels.
        if np.isfinite(box).all():
            boxes.append(box)
    return boxes


def parse_box(text: str, fmt: BoxFormat, image_size: ImageSize | None = None) -> Box | None:
    """Return the first box in a text, as `parse_boxes` gives it; None where there is none."""
    boxes = parse_boxes(
        text, scale=fmt.scale, order=fmt.order, image_size=image_size, frame=fmt.frame, resize=fmt.resize
    )
    return boxes[0] if boxes else None


def box_problem(text: str, fmt: BoxFormat, image_size: ImageSize) -> str | None:
    """Return what keeps a text from being a true box of this format, or None.

    Args:
        text: What is to hold one box.
        fmt: The format.
        image_size: (width, height) of the original image in pixels.
    """
    boxes = parse_boxes(
        text, scale=fmt.scale, order=fmt.order, image_size=image_size, frame=fmt.frame, resize=fmt.resize
    )
    if len(boxes) != 1:
        return f"holds {len(boxes)} boxes instead of one" if boxes else "holds no box"
    (box,) = boxes
    if not _area(box) > 0:
        return "holds an empty or inverted box"
    shares = original_to_frame(box, fmt.frame, image_size)
    if shares.min() < -_ROUNDING or shares.max() > 1 + _ROUNDING:
        return f"holds a box outside of the scale {fmt.scale}"
    return None


def stored_box(text: str | None) -> tuple[float, float, float, float] | None:
    """Return the box in a record's column `target` or `prediction`.

    Args:
        text: JSON.

    Returns:
        x1 y1 x2 y2 in pixels of the original image; None where the text is none, or no four finite numbers.
    """
    try:
        ends = json.loads(text or "null")
        if not isinstance(ends, list) or len(ends) != 4 or not all(type(end) in (int, float) for end in ends):
            return None
        x1, y1, x2, y2 = map(float, ends)
    except (ValueError, OverflowError):
        return None
    return (x1, y1, x2, y2) if all(map(math.isfinite, (x1, y1, x2, y2))) else None


def format_box(box: ArrayLike, fmt: BoxFormat, image_size: ImageSize) -> str:
    """Write a box as a model of this format would: two decimals of 0-1, whole numbers otherwise.

    Args:
        box: x1 y1 x2 y2 in pixels of the original image.
        fmt: The format.
        image_size: (width, height) of the original image in pixels.

    Returns:
        For example `[0.61, 0.10, 0.77, 0.54]`. What lies outside the frame is cut at its edge.
    """
    unit = np.clip(original_to_frame(box, fmt.frame, image_size), 0.0, 1.0)
    if fmt.scale == "0-1":
        ends = [round(float(value), 2) for value in unit]
    elif fmt.scale == "bins":
        ends = [min(math.floor(value * 1024), _LAST_BIN) for value in unit]
    else:
        sides = _frame_pixels(fmt, image_size) if fmt.scale == "pixels" else (_DIVISOR[fmt.scale],) * 2
        ends = [int(value) for value in np.rint(unit * np.array(sides * 2))]
    # Corners are rounded before a width is taken, so that it leads to the same corner as two of them do.
    numbers = _in_order(ends, fmt.order)
    if fmt.scale == "bins":
        return "".join(f"<loc{number:04d}>" for number in numbers)
    return "[" + ", ".join(f"{number:.2f}" if fmt.scale == "0-1" else str(number) for number in numbers) + "]"


def same_box(text: str, written: BoxFormat, wanted: BoxFormat, image_size: ImageSize) -> str:
    """Return a text's box as another format writes it; the text itself where the two formats are one.

    Args:
        text: Holds a box.
        written: How it is written.
        wanted: How it is to be written.
        image_size: (width, height) of the original image in pixels.
    """
    box = None if written == wanted else parse_box(text, written, image_size)
    return text if box is None else format_box(box, wanted, image_size)


def numbers_to_original(numbers: ArrayLike, fmt: BoxFormat, image_size: ImageSize) -> Box:
    """(..., 4) numbers as a text writes them, to x1 y1 x2 y2 in pixels of the original image."""
    with np.errstate(over="ignore", invalid="ignore"):
        shares = np.asarray(numbers, dtype=np.float64) / _DIVISOR.get(fmt.scale, 1.0)
        return _to_original(_corners(shares, fmt.order), fmt, image_size)


def frame_window(frame: Frame, image_size: ImageSize) -> tuple[float, float, float, float]:
    """Return where a frame lies: (left, top, width, height) in pixels of the original image.

    The margins of `padded` are whole pixels, the left and upper one rounded down, as LLaVA-1.5's
    `expand2square` has it. Those of `cropped` are exact halves: the real cut is at a whole pixel
    of the resized image, which differs by less than one such pixel.
    """
    width, height = image_size
    longer, shorter = max(image_size), min(image_size)
    if frame == "padded":
        return float(-((longer - width) // 2)), float(-((longer - height) // 2)), float(longer), float(longer)
    if frame == "cropped":
        return (width - shorter) / 2, (height - shorter) / 2, float(shorter), float(shorter)
    return 0.0, 0.0, float(width), float(height)


def original_to_frame(boxes: ArrayLike, frame: Frame, image_size: ImageSize) -> Box:
    """(..., 4) boxes from pixels of the original image to shares of a frame's sides.

    Outside the frame the shares are below 0 or above 1, so that nothing is lost.
    """
    left, top, width, height = frame_window(frame, image_size)
    return (np.asarray(boxes, dtype=np.float64) - [left, top] * 2) / ([width, height] * 2)


def frame_to_original(boxes: ArrayLike, frame: Frame, image_size: ImageSize) -> Box:
    """(..., 4) boxes from shares of a frame's sides to pixels of the original image."""
    left, top, width, height = frame_window(frame, image_size)
    return np.asarray(boxes, dtype=np.float64) * ([width, height] * 2) + [left, top] * 2


def _to_original(box: Box, fmt: BoxFormat, image_size: ImageSize) -> Box:
    if fmt.scale == "pixels" and fmt.frame == "resized":
        return frame_to_original(box / ([*_frame_pixels(fmt, image_size)] * 2), fmt.frame, image_size)
    if fmt.scale == "pixels":
        left, top, _, _ = frame_window(fmt.frame, image_size)
        return box + np.array([left, top] * 2)
    return frame_to_original(box, fmt.frame, image_size)


def _frame_pixels(fmt: BoxFormat, image_size: ImageSize) -> tuple[float, float]:
    """How many pixels a frame's sides have."""
    if fmt.frame == "resized" and fmt.resize is not None:
        return fmt.resize.size(image_size)
    _, _, width, height = frame_window(fmt.frame, image_size)
    return width, height


def _corners(box: Box, order: Order) -> Box:
    """Numbers in an order as x1 y1 x2 y2."""
    if order == "yxyx":
        return box[..., [1, 0, 3, 2]]
    if order == "xywh":
        with np.errstate(over="ignore"):
            return np.concatenate([box[..., :2], box[..., :2] + box[..., 2:]], axis=-1)
    return box


def _in_order(ends: list[float], order: Order) -> list[float]:
    """x1 y1 x2 y2 as numbers in an order."""
    left, top, right, bottom = ends
    if order == "yxyx":
        return [top, left, bottom, right]
    return [left, top, right - left, bottom - top] if order == "xywh" else ends


def _area(boxes: Box) -> Box:
    sides = np.maximum(boxes[..., 2:] - boxes[..., :2], 0.0)
    return sides[..., 0] * sides[..., 1]
