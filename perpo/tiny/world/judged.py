"""Open questions about the tiny world's pictures, in the columns of the benchmarks that a judge scores.

References and picture contents are put together from the scene, so that the judged suite has something to ask
without a network. The embedded model was not taught to answer such questions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count, islice
from typing import Any

from perpo.benchmarks.llava_bench import LLAVA_BENCH_CATEGORIES
from perpo.benchmarks.mmhal import MMHAL_TYPES
from perpo.tiny.world.objects import objects_of
from perpo.tiny.world.scenes import COLOURS, KINDS, ROUND_KINDS, SIDE, Scene, Shape, draw, make_scene

WILD_SCENES = 6
MMHAL_ROUNDS = 2
"""How often each type of question is asked, each time about another picture."""

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six")


def wild_rows(split: str = "test") -> Iterator[dict[str, Any]]:
    """Three questions (conv, detail, complex) about each of a few scenes, in LLaVA-Bench's columns.

    Yields:
        question_id, image (PIL, 96 x 96), question, category, caption, reference, file_name.
    """
    for scene in islice(_plain_scenes(split), WILD_SCENES):
        caption = f"A drawing of {_listed(scene)} on a noisy background."
        for category in LLAVA_BENCH_CATEGORIES:
            question, reference = _WILD[category](scene)
            yield {
                "question_id": f"{scene.index}_{category}",
                "image": draw(scene),
                "question": question,
                "category": category,
                "caption": caption,
                "reference": reference,
                "file_name": _name(split, scene),
            }


def mmhal_rows(split: str = "test") -> Iterator[dict[str, Any]]:
    """Yield a question of each type in turn, each about a picture of its own, in MMHal-Bench's columns.

    Yields:
        question_id, image (PIL, 96 x 96), question, question_type, image_content, gt_answer, file_name.
    """
    scenes = islice(_plain_scenes(split), WILD_SCENES, None)
    for number, scene in zip(range(MMHAL_ROUNDS * len(MMHAL_TYPES)), scenes, strict=False):
        kind = MMHAL_TYPES[number % len(MMHAL_TYPES)]
        question, answer = _MMHAL[kind](scene)
        yield {
            "question_id": str(number),
            "image": draw(scene),
            "question": question,
            "question_type": kind,
            "image_content": objects_of(scene),
            "gt_answer": answer,
            "file_name": _name(split, scene),
        }


def _plain_scenes(split: str) -> Iterator[Scene]:
    """Scenes of two shapes at least whose descriptions here fit one shape each."""
    for index in count():
        scene = make_scene(split, index)
        words, places = {_words(s) for s in scene.shapes}, {(s.kind, _place(s)) for s in scene.shapes}
        if 1 < len(scene.shapes) == len(words) == len(places):
            yield scene


def _name(split: str, scene: Scene) -> str:
    return f"tiny_{split}_{scene.index:06d}.png"


def _place(shape: Shape) -> str:
    x, y = shape.centre
    return f"in the {'upper' if y < SIDE / 2 else 'lower'} {'left' if x < SIDE / 2 else 'right'}"


def _words(shape: Shape) -> str:
    return f"{shape.size} {'striped ' if shape.striped else ''}{shape.colour} {shape.kind}"


def _listed(scene: Scene) -> str:
    return "; ".join(f"a {_words(shape)} {_place(shape)}" for shape in scene.shapes)


def _plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith("s") else f"{noun}s"


def _several(number: int, noun: str) -> str:
    return f"{_NUMBERS[number]} {noun if number == 1 else _plural(noun)}"


def _wild_complex(scene: Scene) -> tuple[str, str]:
    rounded = sum(shape.kind in ROUND_KINDS for shape in scene.shapes)
    straight = len(scene.shapes) - rounded
    verdict = "There are as many of each" if rounded == straight else "There are more straight ones"
    if rounded > straight:
        verdict = "There are more round ones"
    question = "Are there more round shapes or more shapes with straight edges, and how do you know?"
    told = f"{_NUMBERS[rounded]} round ({' or '.join(ROUND_KINDS)}), and {_NUMBERS[straight]} with straight edges"
    return question, f"{verdict}: I count {told}."


_WILD: dict[str, Callable[[Scene], tuple[str, str]]] = {
    "conv": lambda scene: (
        "How many shapes are there in this picture?",
        f"There are {_several(len(scene.shapes), 'shape')}.",
    ),
    "detail": lambda scene: ("Describe this picture in detail.", f"The picture shows {_listed(scene)}."),
    "complex": _wild_complex,
}


def _adversarial(scene: Scene) -> tuple[str, str]:
    names = (f"{colour} {kind}" for colour in COLOURS for kind in KINDS)
    absent = next(name for name in names if name not in objects_of(scene))
    return f"How large is the {absent}?", f"There is no {absent} in the picture."


def _comparison(scene: Scene) -> tuple[str, str]:
    first, last = scene.shapes[0], scene.shapes[-1]
    left = min(first, last, key=lambda shape: shape.centre[0])
    return (
        f"Which is further to the left, the {_words(first)} or the {_words(last)}?",
        f"The {_words(left)} is further to the left.",
    )


def _counting(scene: Scene) -> tuple[str, str]:
    ((kind, number),) = Counter(shape.kind for shape in scene.shapes).most_common(1)
    return f"How many {_plural(kind)} are there?", f"There {'is' if number == 1 else 'are'} {_several(number, kind)}."


_MMHAL: dict[str, Callable[[Scene], tuple[str, str]]] = {
    "attribute": lambda scene: (
        f"What colour is the {scene.shapes[0].kind} {_place(scene.shapes[0])}?",
        f"It is {scene.shapes[0].colour}.",
    ),
    "adversarial": _adversarial,
    "comparison": _comparison,
    "counting": _counting,
    "relation": lambda scene: (
        f"Where in the picture is the {_words(scene.shapes[0])}?",
        f"It is {_place(scene.shapes[0])}.",
    ),
    "environment": lambda scene: ("What is behind the shapes?", "Nothing but a noisy background."),
    "holistic": lambda scene: ("Describe the picture.", f"It shows {_listed(scene)}."),
    "other": lambda scene: ("Is anything written in the picture?", "No, nothing is written in it."),
}
