"""What each number means, in a sentence for who hovers over it. No Streamlit."""

from __future__ import annotations

from perpo.benchmarks.metrics import BENCHMARKS

_MEANINGS = {
    "grounding": {
        "acc@{}": "share of expressions whose box overlaps the true box with an IoU of at least {}",
        "iou": "intersection over union of the answered and the true box, averaged",
        "center_acc": "share of expressions for which the centre of the answered box lies in the true box",
        "parse_fail": "share of answers without a box that could be read; they count as wrong",
    },
    "pope": {
        "accuracy": "share of yes/no questions that are answered correctly",
        "precision": "of the answers yes, the share that is right",
        "recall": "of the questions whose answer is yes, the share that is answered so",
        "f1": "harmonic mean of the precision and recall of the answer yes",
        "yes_ratio": "share of the questions that are answered yes",
        "parse_fail": "share of answers that are neither a plain yes nor a plain no",
    },
    "ocr": {
        "edit_distance": "characters to change in order to get the true text, over the length of the longer text",
        "f1": "harmonic mean of precision and recall over the sets of words",
        "precision": "of the words that were read, the share that stands on the page",
        "recall": "of the words on the page, the share that was read",
        "bleu": "BLEU-4 of the read text against the true one",
        "meteor": "METEOR of the read text against the true one",
        "truncated": "share of answers that were cut off at the token limit",
    },
    "llava_bench": {
        "relative_score": "sum of the judge's ratings over the sum of its ratings of the reference answers",
        "model": "the judge's rating of the answers, 1 to 10",
        "reference": "the judge's rating of the reference answers, 1 to 10",
        "missing": "share of questions without a rating",
    },
    "mmhal": {
        "score": "the judge's rating, 0 to 6, averaged; below 3 is a hallucination",
        "hallucination_rate": "share of answers that the judge rates below 3",
        "missing": "share of questions without a rating",
    },
}
_READINGS = {
    "strict": "only a plain yes or no is read, everything else counts as wrong",
    "swapped": "answer and truth exchanged, as Fox's own script has them",
    "small": "true boxes below 32 x 32 pixels",
    "medium": "true boxes from 32 x 32 to 96 x 96 pixels",
    "large": "true boxes above 96 x 96 pixels",
    "original": "boxes read in the frame of the original picture",
    "padded": "boxes read in the frame of the padded square",
    "cropped": "boxes read in the frame of the cropped square",
    "resized": "boxes read in the frame of the resized picture",
}


def meaning(benchmark: str, metric: str) -> str:
    """What a metric of a benchmark says, as half a sentence; its name where nobody wrote that down."""
    name, _, reading = metric.partition(":")
    known = _MEANINGS.get(benchmark, {})
    stem, _, threshold = name.partition("@")
    told = known[f"{stem}@{{}}"].format(threshold) if threshold and f"{stem}@{{}}" in known else known.get(name, "")
    if not told:
        return metric
    return f"{told} ({_READINGS.get(reading, reading)})" if reading else told


def title(benchmark: str, metric: str) -> str:
    """What a metric is called."""
    return next((each.title for each in BENCHMARKS.get(benchmark, ()) if each.name == metric), metric)
