"""By which scores a sample got better or worse."""

FLIP_SCORES = {
    "grounding": ("acc@0.5", "iou"),
    "pope": ("accuracy",),
    "ocr": ("edit_distance",),
    "llava_bench": ("model",),
    "mmhal": ("score",),
}
"""Scores by which a benchmark's samples are said to have got worse, the deciding one first."""
