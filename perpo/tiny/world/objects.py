"""Yes/no questions about the tiny world's objects, drawn by POPE's procedure.

POPE (Li et al., "Evaluating Object Hallucination in Large Vision-Language Models", arXiv 2305.10355,
section 5) asks six questions about each picture that holds at least three objects: three about objects
that are there, and three about objects that are not, which are chosen at random, from the most frequent
objects of the data set (popular), or from those that most often stand beside the picture's own objects
(adversarial). An object here is a coloured kind, "red circle". The scenes are drawn at random, so
frequent and neighbouring objects are hardly special: the three splits are about equally hard.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from perpo.tiny.world.scenes import COLOURS, KINDS, Scene, draw, make_scene, scene_rng

STRATEGIES = ("random", "popular", "adversarial")
OBJECTS = tuple(f"{colour} {kind}" for colour in COLOURS for kind in KINDS)
PER_IMAGE = 3
"""Questions of each answer about one picture."""

IMAGES = 120
"""Pictures asked about, in each strategy the same ones."""

_PURPOSE = 40


def object_question(name: str) -> str:
    """Return POPE's question: `Is there a red circle in the image?`."""
    article = "an" if name[0] in "aeiou" else "a"
    return f"Is there {article} {name} in the image?"


def objects_of(scene: Scene) -> list[str]:
    """Return the distinct objects of a scene, in the order in which they were laid out."""
    return list(dict.fromkeys(f"{shape.colour} {shape.kind}" for shape in scene.shapes))


def absent_objects(
    present: Sequence[Sequence[str]], strategy: str, names: Sequence[str], rng: np.random.Generator, count: int
) -> list[list[str]]:
    """For each picture, `count` objects that it does not hold, chosen by one of POPE's strategies.

    Args:
        present: The objects of each picture of the data set.
        strategy: "random"; "popular": the most frequent of the data set first; "adversarial": for each of
            the picture's first `count` objects, the one that most often occurs beside it.
        names: All objects that can be asked about.
        rng: Used by "random" alone. Ties of frequency go by the order of `names`.
        count: How many.

    Returns:
        One list of distinct names for each picture; shorter than `count` where nothing is left to ask.

    Raises:
        ValueError: For an unknown strategy.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {STRATEGIES}, found {strategy!r}")
    frequency = Counter(name for objects in present for name in objects)
    beside: dict[str, Counter[str]] = {name: Counter() for name in names}
    for objects in present:
        for name in objects:
            beside[name].update(other for other in objects if other != name)
    ranked = sorted(names, key=lambda name: -frequency[name])
    neighbours = {name: sorted(names, key=lambda other: -counts[other]) for name, counts in beside.items()}
    chosen = []
    for objects in present:
        absent: list[str] = []
        for number in range(count):
            if strategy == "random":
                order = [names[k] for k in rng.permutation(len(names))]
            elif strategy == "popular":
                order = ranked
            else:
                order = neighbours[objects[number % len(objects)]]
            absent += [name for name in order if name not in objects and name not in absent][:1]
        chosen.append(absent)
    return chosen


def object_rows(strategy: str, split: str = "test", *, images: int = IMAGES) -> Iterator[dict[str, Any]]:
    """Yield rows of one strategy over the scenes of `split`, in the columns of the hub's POPE.

    Args:
        strategy: One of `STRATEGIES`.
        split: "val" or "test".
        images: How many pictures; six questions each, present and absent by turns.

    Yields:
        id, question_id (from 1), question, answer ("yes" or "no"), image_source, image (PIL, 96 x 96),
        category, image_id.

    Raises:
        ValueError: For an unknown strategy.
    """
    scenes = _scenes(split, images)
    present = [objects_of(scene)[:] for scene in scenes]
    rng = scene_rng(split, 0, _PURPOSE)
    absent = absent_objects(present, strategy, OBJECTS, rng, PER_IMAGE)
    number = 0
    for scene, there, missing in zip(scenes, present, absent, strict=True):
        picture = draw(scene)
        for yes, no in zip(there[:PER_IMAGE], missing, strict=True):
            for name, answer in ((yes, "yes"), (no, "no")):
                number += 1
                yield {
                    "id": str(number - 1),
                    "question_id": str(number),
                    "question": object_question(name),
                    "answer": answer,
                    "image_source": f"tiny_{split}_{scene.index:06d}",
                    "image": picture,
                    "category": strategy,
                    "image_id": scene.index,
                }


def _scenes(split: str, images: int) -> list[Scene]:
    """The first `images` scenes of a split with at least `PER_IMAGE` distinct objects."""
    scenes: list[Scene] = []
    index = 0
    while len(scenes) < images:
        scene = make_scene(split, index)
        if len(objects_of(scene)) >= PER_IMAGE:
            scenes.append(scene)
        index += 1
    return scenes
