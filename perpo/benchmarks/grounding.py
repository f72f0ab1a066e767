"""Referring expressions: a box for an expression (RefCOCO, RefCOCO+, RefCOCOg, boxes of one's own)."""

from __future__ import annotations

from typing import get_args

from perpo.benchmarks.base import BenchmarkInfo, Definition, Rule
from perpo.boxes import Frame

SIZES = ("small", "medium", "large")
"""Of the true box, as COCO parts them."""

IN_FRAMES = tuple(f"acc@0.5:{frame}" for frame in get_args(Frame))
"""The accuracies with the answers read in one frame each."""

RIGHT_LABELS, WRONG_LABELS = "acc@0.5:reviewed", "acc@0.5:mislabelled"
"""The accuracies on the expressions that a review found right, and on those that it found wrong."""

GROUNDING = BenchmarkInfo(
    name="grounding",
    answer="box",
    metrics=(
        *(Definition(f"acc@{threshold}", f"Acc@{threshold}") for threshold in (0.3, 0.5, 0.7, 0.9)),
        Definition("iou", "mean IoU"),
        Definition("center_acc", "centre in box"),
        Definition("parse_fail", "unreadable", False),
        *(Definition(f"acc@0.5:{size}", size) for size in SIZES),
        *(Definition(f"acc@0.5:{frame}", frame) for frame in get_args(Frame)),
        Definition(RIGHT_LABELS, "Acc@0.5, right labels"),
        Definition(WRONG_LABELS, "Acc@0.5, wrong labels"),
    ),
    primary="acc@0.5",
    shown=("acc@0.5", RIGHT_LABELS),
    meanings={
        "acc@{}": "share of expressions whose box overlaps the true box with an IoU of at least {}",
        "iou": "intersection over union of the answered and the true box, averaged",
        "center_acc": "share of expressions for which the centre of the answered box lies in the true box",
        "parse_fail": "share of answers without a box that could be read; they count as wrong",
    },
    readings={
        "small": "true boxes below 32 x 32 pixels",
        "medium": "true boxes from 32 x 32 to 96 x 96 pixels",
        "large": "true boxes above 96 x 96 pixels",
        "original": "boxes read in the frame of the original picture",
        "padded": "boxes read in the frame of the padded square",
        "cropped": "boxes read in the frame of the cropped square",
        "resized": "boxes read in the frame of the resized picture",
        "reviewed": "expressions that a review found right",
        "mislabelled": "expressions that a review found wrong: who gains there learns the annotators",
    },
    right=Rule("IoU of at least 0.5", "acc@0.5", 1.0, "iou", "IoU"),
    flip_scores=("acc@0.5", "iou"),
    told_scores=("iou",),
    kinds=("box size", "expression length"),
    suites=("grounding", "paper"),
    max_new_tokens=64,
    board="Object grounding",
    leading_tasks=("ref", "grounding"),
    several_data_sets=True,
    rows="grounding",
    own_files="boxes_",
)
