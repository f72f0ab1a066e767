"""The tiny world's pages: a few short lines of capitals on a noisy sheet, drawn from a seed.

The letters are Pillow's built-in bitmap font at twice its size, so that the same call draws the same
pixels on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from perpo.tiny.world.scenes import SIDE, scene_rng

PAGES = 200
"""Pages of each split."""

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
GLYPH_WIDTH, GLYPH_HEIGHT = 12, 14
LINE_STEP = 24
LINE_LETTERS = 7
"""Longest line, spaces counted."""

MOST_LINES = 4
_JITTER = 3
"""A line lies up to two pixels right of and below its place on a grid of letters."""

_ENLARGE = 2
_ABOVE = 3
"""Empty rows of the font above its capitals."""
_LAYOUT, _PIXELS = 50, 51
_WORDS = (
    "A I AM AN AS AT BE BY DO GO HE IF IN IS IT ME MY NO OF ON OR SO TO UP US WE ACE ACT ADD AGE AGO AID AIM AIR ALL "
    "AND ANT ANY APE ARM ART ASH ASK BAD BAG BAR BAT BAY BED BEE BEG BET BIG BIT BOX BOY BUD BUG BUS BUT BUY CAB CAN "
    "CAP CAR CAT COD COT COW CRY CUP CUT DAM DAY DEN DEW DIG DIM DOG DOT DRY DUE DUG EAR EAT EEL EGG ELM END ERA EVE "
    "EYE FAN FAR FAT FED FEW FIG FIN FIR FIT FIX FLY FOG FOR FOX FUN FUR GAP GAS GEM GET GOT GUM GUN HAD HAM HAT HAY "
    "HEN HER HID HIM HIP HIS HIT HOG HOP HOT HOW HUB HUT ICE INK INN IVY JAM JAR JAW JAY JET JOB JOG JOY JUG KEY KID "
    "KIN KIT LAB LAP LAW LAY LED LEG LET LID LIP LIT LOG LOT LOW MAN MAP MAT MAY MEN MET MIX MOP MUD MUG NAP NET NEW "
    "NOD NOR NOT NOW NUT OAK OAR OAT ODD OFF OIL OLD ONE OUR OUT OWL OWN PAD PAN PAW PAY PEA PEN PET PIE PIG PIN PIT "
    "POD POT PUT RAG RAM RAN RAT RAW RAY RED RIB RID RIM RIP ROD ROW RUB RUG RUN RYE SAD SAP SAT SAW SAY SEA SEE SET "
    "SHE SHY SIP SIT SIX SKY SOW SPY SUM SUN TAN TAP TAR TEA TEN THE TIE TIN TIP TOE TON TOP TOY TRY TUB TUG TWO URN "
    "USE VAN VAT VET VOW WAG WAR WAS WAX WAY WEB WET WHO WHY WIG WIN WIT WON YAK YAM YES YET YEW YOU ZIP ZOO BANK "
    "BARN BEAR BELL BIRD BLUE BOAT BOOK CAKE CALM COLD CORN DARK DEEP DEER DUCK DUST FARM FAST FERN FIRE FISH FLAG "
    "FROG GATE GOAT GOLD GREY HAND HARP HAWK HILL HOME IRON JUMP KIND KING KITE LAKE LAMB LAMP LEAF LION LONG MILK "
    "MINT MOON MOSS NEST NINE NOON PALM PARK PATH POND QUIZ RAIN RICE RING ROAD ROCK ROOF ROSE SAIL SALT SAND SEED "
    "SHIP SNOW SOUP STAR SWAN TALL TREE VASE VINE WALL WIND WOLF WOOD YARD ZERO APPLE BREAD BRICK CHAIR CLOUD CLOCK "
    "DREAM EAGLE FIELD FRUIT GLASS GRAPE GREEN HEART HORSE HOUSE JUDGE KNIFE LEMON LIGHT MAPLE MOUSE NIGHT OCEAN "
    "ORGAN PAPER PIANO PLANT QUEEN QUIET RIVER ROUND SHEEP SMALL SMOKE STONE STORM TABLE TIGER TOWER TRAIN UNCLE "
    "VOICE WATER WHALE WHEAT WORLD YOUNG ZEBRA ANCHOR BASKET BRIDGE CANDLE CASTLE COFFEE DESERT DRAGON FLOWER FOREST "
    "GARDEN GUITAR HAMMER ISLAND JACKET JUNGLE KETTLE LADDER MARKET MEADOW NEEDLE ORANGE PEPPER PLANET QUARTZ RABBIT "
    "SADDLE SILVER SPIDER SUMMER TEMPLE TUNNEL VALLEY VIOLIN WINDOW WINTER YELLOW"
)
WORDS = tuple(_WORDS.split())


@dataclass(frozen=True)
class Page:
    """One page: what is written on it, and where.

    Attributes:
        split: "train", "val" or "test".
        index: Number within the split.
        lines: Two to four lines of at most `LINE_LETTERS` letters.
        corners: (x, y) of the upper left corner of each line's first letter, in pixels.
    """

    split: str
    index: int
    lines: tuple[str, ...]
    corners: tuple[tuple[int, int], ...]

    @property
    def text(self) -> str:
        """The lines, joined by line breaks."""
        return "\n".join(self.lines)


def make_page(split: str, index: int) -> Page:
    """Write page `index` of a split.

    Raises:
        KeyError: For a split other than train, val and test.
    """
    rng = scene_rng(split, index, _LAYOUT)
    lines = tuple(_line(rng) for _ in range(int(rng.integers(2, MOST_LINES + 1))))
    first = int(rng.integers(0, MOST_LINES - len(lines) + 1))
    corners = []
    for number, line in enumerate(lines):
        indent = int(rng.integers(0, 2)) if len(line) < LINE_LETTERS else 0
        right, below = rng.integers(0, _JITTER, size=2)
        corners.append((GLYPH_WIDTH * indent + int(right), LINE_STEP * (first + number) + int(below)))
    return Page(split, index, lines, tuple(corners))


def _line(rng: np.random.Generator) -> str:
    words: list[str] = []
    while True:
        room = LINE_LETTERS - len(" ".join(words)) - bool(words)
        fitting = [word for word in WORDS if len(word) <= room]
        if not fitting or (words and rng.random() < 0.2):
            return " ".join(words)
        words.append(str(rng.choice(fitting)))


def glyph_boxes(page: Page) -> list[tuple[float, float, float, float] | None]:
    """Return the box (x1, y1, x2, y2) in pixels of every character of `page.text`; None for a line break.

    A serif may reach two pixels beyond its letter's left edge.
    """
    boxes: list[tuple[float, float, float, float] | None] = []
    for number, (line, (x, y)) in enumerate(zip(page.lines, page.corners, strict=True)):
        boxes += [None] if number else []
        boxes += [(x + GLYPH_WIDTH * k, y, x + GLYPH_WIDTH * (k + 1), y + GLYPH_HEIGHT) for k in range(len(line))]
    return boxes


def draw_page(page: Page) -> Image.Image:
    """Draw a page: RGB, `SIDE` x `SIDE`, dark letters on a light sheet or the reverse, and noise over all."""
    rng = scene_rng(page.split, page.index, _PIXELS)
    dark, light = rng.uniform(10, 80, size=3), rng.uniform(170, 245, size=3)
    paper, ink = (light, dark) if rng.random() < 0.5 else (dark, light)
    letters = Image.new("L", (SIDE, SIDE), 0)
    font = ImageFont.load_default_imagefont()
    for line, (x, y) in zip(page.lines, page.corners, strict=True):
        strip = Image.new("L", (GLYPH_WIDTH * len(line) // _ENLARGE, GLYPH_HEIGHT // _ENLARGE), 0)
        ImageDraw.Draw(strip).text((0, -_ABOVE), line, fill=255, font=font)
        letters.paste(strip.resize((GLYPH_WIDTH * len(line), GLYPH_HEIGHT), Image.Resampling.NEAREST), (x, y))
    alpha = np.asarray(letters, dtype=np.float64)[..., None] / 255
    pixels = paper * (1 - alpha) + ink * alpha
    pixels = pixels + rng.normal(0, rng.uniform(3, 10), size=pixels.shape)
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), "RGB")


def page_rows(split: str, *, pages: int = PAGES) -> Iterator[dict[str, Any]]:
    """Yield rows of one split in the columns that `perpo-data` gives page images.

    Args:
        split: "val" or "test".
        pages: How many.

    Yields:
        question_id, image (PIL, 96 x 96), question (empty: the task's prompt), answer (the text),
        language, file_name, image_id.
    """
    for index in range(pages):
        page = make_page(split, index)
        yield {
            "question_id": f"{split}_{index}",
            "image": draw_page(page),
            "question": "",
            "answer": page.text,
            "language": "en",
            "file_name": f"tiny_page_{split}_{index:06d}.png",
            "image_id": index,
        }
