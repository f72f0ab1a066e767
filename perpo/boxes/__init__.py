"""Boxes: read them from text, write them, convert them between frames, and the project's one IoU."""

from perpo.boxes.formats import PARTS, BoxFormat, Frame, ImageSize, Order, Resize, Scale, declared
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
