"""Parts of a page: characters and pictures, and where they are seen. Needs no renderer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)  # and not frozen, for a page has thousands and those are made slowly
class Character:
    """One character.

    Attributes:
        text: The character; "\\n" where a line ends and " " between words.
        box: Left, top, right, bottom in pixels of the picture, from its upper left corner.
        added: Whether pdfium added it, as a space where there is only a gap.
        rotated: Whether it does not stand upright in the picture.
        unseen: Whether the PDF says that it is not to be painted.
        unmapped: Whether its code stands for no known character.
        place: Where in the page's order of things it is drawn; -1 where that is not known.
    """

    text: str
    box: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    added: bool = False
    rotated: bool = False
    unseen: bool = False
    unmapped: bool = False
    place: int = -1

    @property
    def is_space(self) -> bool:
        return self.text in " \n"


@dataclass(frozen=True)
class Placed:
    """A picture on a page: its box in pixels, and where in the page's order of things it is drawn."""

    box: tuple[float, float, float, float]
    place: int
