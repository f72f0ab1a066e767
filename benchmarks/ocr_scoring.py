"""Scoring of read pages: our edit distance beside NLTK's, which Fox's script uses, and all scores together.

NLTK takes seconds a page, so it is timed on the first few pages only, and its time per page is compared
with ours over all pages, in one process. Run: python benchmarks/ocr_scoring.py
"""

from __future__ import annotations

import argparse
import random
import string

from measure import cost
from nltk.metrics import distance

from perpo_eval.scorers.ocr import edit_distance, score_page, wordnet_found


def main() -> None:
    """Print a line for each way of scoring, and the ratio of the two edit distances."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=100)
    parser.add_argument("--characters", type=int, default=3000, help="length of every page")
    parser.add_argument("--timed", type=int, default=2, help="pages that NLTK is timed on")
    parser.add_argument("--noise", type=float, default=0.1, help="share of the characters that are misread")
    args = parser.parse_args()

    # Newer releases refuse texts of more than 2,000 characters, older ones know no limit.
    distance.MAX_DISTANCE_INPUT_LEN = 2 * args.characters
    rng = random.Random(0)
    truths = [page(rng, args.characters) for _ in range(args.pages)]
    pairs = [(misread(rng, truth, args.noise), truth) for truth in truths]
    score_page(*pairs[0])  # Warm-up: WordNet is read at the first page.

    values: list[float] = []
    ours = cost(lambda: values.extend(edit_distance(*pair) for pair in pairs)).seconds / args.pages
    theirs = []
    for number, (prediction, truth) in enumerate(pairs[: args.timed]):
        edits: list[int] = []
        theirs.append(cost(lambda p=prediction, t=truth, f=edits: f.append(distance.edit_distance(p, t))).seconds)
        if edits[0] / max(len(prediction), len(truth)) != values[number]:
            raise SystemExit(f"page {number}: NLTK's distance is {edits[0]}, ours {values[number]} of the longer text")
    whole = cost(lambda: [score_page(*pair) for pair in pairs]).seconds / args.pages

    print(f"{args.pages} pages of {args.characters} characters, {args.noise:.0%} of them misread, one process")
    print(f"{'':<28} {'pages timed':>11} {'ms/page':>10} {'pages/s':>9}")
    report("edit distance, ours", args.pages, ours)
    report("edit distance, NLTK", len(theirs), sum(theirs) / len(theirs))
    report(f"all scores {'with' if wordnet_found() else 'without'} METEOR", args.pages, whole)
    print(f"NLTK page by page: {', '.join(f'{seconds:.2f} s' for seconds in theirs)}; its distances equal ours")
    print(f"ratio of the edit distances: {sum(theirs) / len(theirs) / ours:.0f} x")


def page(rng: random.Random, characters: int) -> str:
    """Words of 1 to 10 letters in lines of about 80 characters."""
    words: list[str] = []
    while sum(map(len, words)) + len(words) <= characters:
        words.append("".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, 10))))
    ends = ("\n" if number % 12 == 11 else " " for number in range(len(words)))
    return "".join(word + end for word, end in zip(words, ends, strict=True))[:characters]


def misread(rng: random.Random, text: str, noise: float) -> str:
    """The text with a share of its characters replaced, left out or doubled."""
    changes = (lambda letter: rng.choice(string.ascii_letters), lambda letter: "", lambda letter: 2 * letter)
    return "".join(rng.choice(changes)(letter) if rng.random() < noise else letter for letter in text)


def report(label: str, pages: int, seconds: float) -> None:
    """Print one line of the table."""
    print(f"{label:<28} {pages:>11} {seconds * 1000:>10.3f} {1 / seconds:>9.1f}")


if __name__ == "__main__":
    main()
