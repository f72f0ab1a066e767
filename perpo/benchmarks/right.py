"""When an answer counts as right."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """When an answer counts as right in a benchmark, and by which score answers are held against each other.

    Attributes:
        says: The rule for people.
        score: The score that decides.
        least: It is right from here on; with `higher_is_better` False, up to here.
        measure: The score that is shown for each sample.
        title: What the measure is called.
        span: What the measure can be at least and at most.
        higher_is_better: Which way is better, for both scores.
        rival: The score that takes the place of `least`, if any.
    """

    says: str
    score: str
    least: float
    measure: str
    title: str
    span: tuple[float, float] = (0.0, 1.0)
    higher_is_better: bool = True
    rival: str | None = None


RULES = {
    "grounding": Rule("IoU of at least 0.5", "acc@0.5", 1.0, "iou", "IoU"),
    "pope": Rule("the truth was said", "accuracy", 1.0, "accuracy", "accuracy"),
    "ocr": Rule("edit distance of at most 0.1", "edit_distance", 0.1, "edit_distance", "edit distance", (0, 1), False),
    "llava_bench": Rule(
        "the judge rates it no lower than the reference", "model", 0, "model", "rating", (1, 10), rival="reference"
    ),
    "mmhal": Rule("the judge gives at least 3 of 6 points", "score", 3.0, "score", "rating", (0, 6)),
}
"""By benchmark; a task of another one is shown without being judged."""
