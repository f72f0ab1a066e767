"""Boxes: read them from text, write them, convert them between frames, and the project's one IoU."""

from typing import TYPE_CHECKING, Any

from perpo.boxes.formats import PARTS, BoxFormat, Frame, ImageSize, Order, Resize, Scale, declared

if TYPE_CHECKING:
    from perpo.boxes.frames import (
        Box,
        box_problem,
        format_box,
        frame_to_original,
        frame_window,
        iou,
        numbers_to_original,
        original_to_frame,
        parse_box,
        parse_boxes,
        same_box,
        stored_box,
    )

__all__ = [
    "PARTS",
    "Box",
    "BoxFormat",
    "Frame",
    "ImageSize",
    "Order",
    "Resize",
    "Scale",
    "box_problem",
    "declared",
    "format_box",
    "frame_to_original",
    "frame_window",
    "iou",
    "numbers_to_original",
    "original_to_frame",
    "parse_box",
    "parse_boxes",
    "same_box",
    "stored_box",
]


def __getattr__(name: str) -> Any:
    """Hand on what computes with boxes once it is asked for: it loads numpy, which `--help` can do without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from perpo.boxes import frames

    return getattr(frames, name)
