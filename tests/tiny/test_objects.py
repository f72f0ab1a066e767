"""Yes/no questions about the tiny world: POPE's procedure, against a plain statement of it."""

from __future__ import annotations

import io

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from perpo.tiny.world import write_parquet
from perpo.tiny.world.objects import (
    IMAGES,
    OBJECTS,
    PER_IMAGE,
    STRATEGIES,
    absent_objects,
    object_question,
    object_rows,
    objects_of,
)
from perpo.tiny.world.scenes import Scene, Shape, draw, make_scene
from perpo_eval.benchmarks.pope import POPE

NAMES = tuple("abcdefg")
PICTURES = st.lists(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True), min_size=1, max_size=8)
FEW = 12
"""Pictures of the tests that draw."""


def expected(present: list[list[str]], strategy: str, names: tuple[str, ...], count: int) -> list[list[str]]:
    """POPE's section 5, one object after another, of what is absent and not asked yet.

    The next is the most frequent of the data set (popular), or what most often stands beside the
    picture's k-th object (adversarial); of equals, the one that is named first.
    """
    asked = []
    for mine in present:
        chosen: list[str] = []
        for k in range(count):
            best, most = None, -1
            for name in names:
                if name in mine or name in chosen:
                    continue
                if strategy == "popular":
                    times = sum(name in other for other in present)
                else:
                    times = sum(name in other and mine[k % len(mine)] in other for other in present)
                if times > most:
                    best, most = name, times
            if best is not None:
                chosen.append(best)
        asked.append(chosen)
    return asked


@pytest.mark.parametrize("strategy", ["popular", "adversarial"])
@settings(max_examples=50, deadline=None)
@given(present=PICTURES, count=st.integers(1, 4))
def test_popular_and_adversarial_are_what_pope_says(strategy: str, present: list[list[str]], count: int) -> None:
    found = absent_objects(present, strategy, NAMES, np.random.default_rng(0), count)
    assert found == expected(present, strategy, NAMES, count)


def test_the_strategies_on_pictures_done_by_hand() -> None:
    present = [["a", "b"], ["a", "c"], ["a", "c"], ["d"], ["b", "c", "a"], ["e", "d"], ["e", "f"]]
    # a 4 times, c 3, b, d and e 2, f once, g never.
    rng = np.random.default_rng(0)
    popular = absent_objects(present, "popular", NAMES, rng, 2)
    assert popular[0] == ["c", "d"]
    assert popular[3] == ["a", "c"]
    adversarial = absent_objects(present, "adversarial", NAMES, rng, 2)
    # Picture 0 holds a and b: beside a, c stands most often (3 times); beside b there are a and c, both taken,
    # so the first of the others.
    assert adversarial[0] == ["c", "d"]
    # Picture 6 holds e and f: beside e, d stands once; beside f nothing else does.
    assert adversarial[6] == ["d", "a"]
    # Picture 3 holds d alone, which serves both times: beside it stands e, and then the first of the others.
    assert adversarial[3] == ["e", "a"]


@settings(max_examples=50, deadline=None)
@given(present=PICTURES, strategy=st.sampled_from(STRATEGIES), count=st.integers(1, 7), seed=st.integers(0, 5))
def test_what_is_absent_is_absent_and_asked_once(
    present: list[list[str]], strategy: str, count: int, seed: int
) -> None:
    found = absent_objects(present, strategy, NAMES, np.random.default_rng(seed), count)
    assert len(found) == len(present)
    for mine, asked in zip(present, found, strict=True):
        assert not set(mine) & set(asked)
        # Where fewer are left, all of them are asked.
        assert len(asked) == len(set(asked)) == min(count, len(NAMES) - len(mine))


def test_random_takes_every_absent_object_alike() -> None:
    pictures = 3000
    found = absent_objects([["a"]] * pictures, "random", NAMES, np.random.default_rng(1), 2)
    for name in NAMES[1:]:
        times = sum(name in asked for asked in found)
        # Two of six: binomial with p = 1/3, five standard errors.
        assert abs(times / pictures - 1 / 3) < 5 * (2 / 9 / pictures) ** 0.5
    assert not any("a" in asked for asked in found)


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(ValueError, match="'adverse'"):
        absent_objects([["a"]], "adverse", NAMES, np.random.default_rng(0), 1)
    with pytest.raises(ValueError, match="'adverse'"):
        next(object_rows("adverse"))


@pytest.mark.parametrize("name", OBJECTS)
def test_the_article_goes_with_the_sound(name: str) -> None:
    # Of the world's colours, only orange begins with a vowel's sound.
    article = "an" if name.startswith("orange") else "a"
    assert object_question(name) == f"Is there {article} {name} in the image?"


def test_objects_of_a_scene_are_named_once() -> None:
    shapes = [("circle", "red", 10), ("ring", "blue", 30), ("circle", "red", 50), ("circle", "blue", 70)]
    scene = Scene("val", 0, tuple(Shape(k, c, "small", False, (x, x, x + 9.0, x + 9.0)) for k, c, x in shapes))
    assert objects_of(scene) == ["red circle", "blue ring", "blue circle"]


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict]]:
    return {strategy: list(object_rows(strategy, "val", images=FEW)) for strategy in STRATEGIES}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_six_questions_a_picture_yes_and_no_by_turns(rows: dict[str, list[dict]], strategy: str) -> None:
    mine = rows[strategy]
    scenes = [scene for scene in (make_scene("val", k) for k in range(200)) if len(objects_of(scene)) >= PER_IMAGE]
    assert len(mine) == 6 * FEW
    assert [row["answer"] for row in mine] == ["yes", "no"] * 3 * FEW
    assert [row["question_id"] for row in mine] == [str(number) for number in range(1, 6 * FEW + 1)]
    assert [row["id"] for row in mine] == [str(number) for number in range(6 * FEW)]
    assert {row["category"] for row in mine} == {strategy}
    for start, scene in zip(range(0, 6 * FEW, 6), scenes, strict=False):
        six = mine[start : start + 6]
        assert {(row["image_id"], row["image_source"]) for row in six} == {(scene.index, f"tiny_val_{scene.index:06d}")}
        there = {object_question(f"{shape.colour} {shape.kind}") for shape in scene.shapes}
        assert [row["question"] in there for row in six] == [True, False] * 3
        assert len({row["question"] for row in six}) == 6
        assert six[0]["image"].tobytes() == draw(scene).tobytes()


def test_the_strategies_share_pictures_and_positives_and_differ_in_the_rest(rows: dict[str, list[dict]]) -> None:
    positives = [[(row["image_id"], row["question"]) for row in rows[name][::2]] for name in STRATEGIES]
    assert positives[0] == positives[1] == positives[2]
    negatives = [[row["question"] for row in rows[name][1::2]] for name in STRATEGIES]
    assert negatives[0] != negatives[1] != negatives[2] != negatives[0]


@pytest.mark.parametrize("strategy", ["popular", "adversarial"])
def test_the_rows_negatives_are_those_of_the_procedure(rows: dict[str, list[dict]], strategy: str) -> None:
    present = [objects_of(make_scene("val", row["image_id"])) for row in rows[strategy][::6]]
    flat = [name for asked in expected(present, strategy, OBJECTS, PER_IMAGE) for name in asked]
    assert [row["question"] for row in rows[strategy][1::2]] == [object_question(name) for name in flat]


def test_rows_are_the_same_every_time_and_other_splits_have_other_pictures(rows: dict[str, list[dict]]) -> None:
    again = list(object_rows("random", "val", images=FEW))
    assert [row | {"image": None} for row in again] == [row | {"image": None} for row in rows["random"]]
    assert [row["image"].tobytes() for row in again] == [row["image"].tobytes() for row in rows["random"]]
    test = {row["image"].tobytes() for row in object_rows("random", images=3)}
    assert len(test) == 3
    assert not test & {row["image"].tobytes() for row in again}
    assert IMAGES == 120


def test_the_parquet_file_is_what_the_evaluation_reads(rows: dict[str, list[dict]], tmp_path) -> None:
    table = pq.read_table(write_parquet(rows["popular"][:6], tmp_path / "tinypope_popular.parquet")).to_pylist()
    assert set(POPE.rows.columns) <= set(table[0])
    assert table[1]["image"]["path"] == f"{table[1]['image_source']}.png"
    with Image.open(io.BytesIO(table[1]["image"]["bytes"])) as image:
        assert image.tobytes() == rows["popular"][1]["image"].tobytes()
    samples = [sample for row in table for sample in POPE.rows.samples(row)]
    assert samples[0] == ("1", rows["popular"][0]["question"], "yes")
    assert [POPE.rows.problem(row) for row in table] == [None] * 6
