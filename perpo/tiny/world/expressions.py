"""Referring expressions for scenes, in the three flavours of RefCOCO, every one unambiguous.

- "refshapes": short, places and relations allowed ("left red circle", "ring above the cross").
- "refshapes+": appearance only ("small striped square").
- "refshapesg": whole sentences ("the large red ring that is below the white cross").

An expression is kept only if exactly one shape of the scene fits it, and still exactly one when every
spatial word is read generously (a shape that is only a little to the left counts as left).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from perpo.tiny.world.scenes import SIDE, Scene, Shape

FLAVOURS = ("refshapes", "refshapes+", "refshapesg")

Fits = Callable[[Shape, bool], bool]
"""Whether a shape fits a phrase, read strictly (False) or generously (True)."""

_SIDES: dict[str, tuple[int, int]] = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1)}
_RELATIONS = {"left": ("left of", "to the left of"), "right": ("right of", "to the right of"),
              "top": ("above", "above"), "bottom": ("below", "below")}  # fmt: skip


def expressions(scene: Scene, target: Shape, flavour: str) -> list[str]:
    """Return all unambiguous expressions of one flavour for `target`, in a fixed order.

    Raises:
        ValueError: For an unknown flavour.
    """
    if flavour not in FLAVOURS:
        raise ValueError(f"flavour must be one of {FLAVOURS}, found {flavour!r}")
    make = {"refshapes": _short, "refshapes+": _appearance_only, "refshapesg": _sentences}[flavour]
    return list(dict.fromkeys(text for text, fits in make(scene, target) if is_unambiguous(scene, target, fits)))


def is_unambiguous(scene: Scene, target: Shape, fits: Fits) -> bool:
    """Return whether `target` fits strictly, and no other shape fits even generously."""
    return fits(target, False) and [s for s in scene.shapes if fits(s, True)] == [target]


def _appearances(target: Shape) -> Iterator[tuple[str, Fits]]:
    """Noun phrases without an article, from the shortest to the fullest."""
    for use_size, use_stripes, use_colour, use_kind in (
        (0, 0, 0, 1), (0, 0, 1, 0), (0, 0, 1, 1), (1, 0, 0, 1), (0, 1, 0, 1), (1, 0, 1, 0),
        (0, 1, 1, 0), (1, 0, 1, 1), (0, 1, 1, 1), (1, 1, 0, 1), (1, 1, 1, 1),
    ):  # fmt: skip
        if use_stripes and not target.striped:
            continue
        words = [
            target.size if use_size else "",
            "striped" if use_stripes else "",
            target.colour if use_colour else "",
            target.kind if use_kind else "thing",
        ]

        def fits(shape: Shape, _: bool, use: tuple[int, ...] = (use_size, use_stripes, use_colour, use_kind)) -> bool:
            return (
                (not use[0] or shape.size == target.size)
                and (not use[1] or shape.striped)
                and (not use[2] or shape.colour == target.colour)
                and (not use[3] or shape.kind == target.kind)
            )

        yield " ".join(filter(None, words)), fits


def _appearance_only(scene: Scene, target: Shape) -> Iterator[tuple[str, Fits]]:
    return _appearances(target)


def _shortest_name(scene: Scene, target: Shape) -> str | None:
    """The shortest appearance phrase that only `target` fits, if there is one."""
    return next((text for text, fits in _appearances(target) if is_unambiguous(scene, target, fits)), None)


def _beside(side: str, other: Shape) -> Fits:
    """Left of / right of / above / below another shape: mostly along that axis, by at least 8 pixels."""
    axis, sign = _SIDES[side]

    def fits(shape: Shape, generous: bool) -> bool:
        along = sign * (shape.centre[axis] - other.centre[axis])
        across = abs(shape.centre[1 - axis] - other.centre[1 - axis])
        return along > 0 if generous else along >= 8 and along >= across

    return fits


def _outermost(scene: Scene, side: str, among: Fits) -> Fits:
    """The leftmost (rightmost, ...) of those that fit `among`; within 5 pixels of it counts generously."""
    axis, sign = _SIDES[side]
    reached = max(sign * s.centre[axis] for s in scene.shapes if among(s, True))

    def fits(shape: Shape, generous: bool) -> bool:
        return among(shape, generous) and sign * shape.centre[axis] >= reached - (5 if generous else 0)

    return fits


def _in_corner(vertical: str, horizontal: str) -> Fits:
    """In a quarter of the picture: its centre at least 4 pixels inside; up to 4 outside counts generously."""

    def fits(shape: Shape, generous: bool) -> bool:
        inside = -4 if generous else 4
        return all(
            _SIDES[side][1] * (shape.centre[_SIDES[side][0]] - SIDE / 2) >= inside for side in (vertical, horizontal)
        )

    return fits


def _both(a: Fits, b: Fits) -> Fits:
    return lambda shape, generous: a(shape, generous) and b(shape, generous)


def _short(scene: Scene, target: Shape) -> Iterator[tuple[str, Fits]]:
    appearances = list(_appearances(target))
    for text, fits in appearances[:3]:
        alike = sum(fits(shape, True) for shape in scene.shapes)
        if alike > 1:
            for side in _SIDES:
                yield f"{side} {text}", _outermost(scene, side, fits)
        for side, (relation, _) in _RELATIONS.items():
            for other in scene.shapes:
                name = _shortest_name(scene, other)
                if other is not target and name is not None:
                    yield f"{text} {relation} the {name}", _both(fits, _beside(side, other))
    yield from appearances[:3]


def _sentences(scene: Scene, target: Shape) -> Iterator[tuple[str, Fits]]:
    appearances = list(_appearances(target))
    for text, fits in appearances[-2:]:
        for side, (_, relation) in _RELATIONS.items():
            for other in scene.shapes:
                name = _shortest_name(scene, other)
                if other is not target and name is not None:
                    yield f"the {text} that is {relation} the {name}", _both(fits, _beside(side, other))
        for vertical, words in (("top", "upper"), ("bottom", "lower")):
            for horizontal in ("left", "right"):
                corner = f"in the {words} {horizontal} of the picture"
                yield f"the {text} {corner}", _both(fits, _in_corner(vertical, horizontal))
    for text, fits in appearances[2:5]:
        for side in _SIDES:
            if sum(fits(shape, True) for shape in scene.shapes) > 1:
                yield f"the {text} that is nearest to the {side} edge", _outermost(scene, side, fits)
