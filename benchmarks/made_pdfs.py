"""Made PDF files of many kinds, with the text that is written on each page: for tests and for the benchmark.

Glyphs of other scripts are those of Latin letters under the other letters' codes: a text layer is read by codes, and
what is checked of the picture is that there is ink.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageDraw
from reportlab.lib.pdfencrypt import StandardEncryption
from reportlab.lib.utils import ImageReader
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.pdfgen.canvas import Canvas

WIDTH, HEIGHT = 600, 840  # points: at 1400 pixels for the longer side 1000 x 1400
LEFT, TOP, PITCH, SIZE = 60, 770, 14, 10
_CJK = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁律吕调阳"
_HEBREW = "אבגדהוזחטיכלמנסעפצקרשת"
_PRIVATE = "".join(map(chr, range(0xE000, 0xE020)))


@dataclass
class MadePdf:
    """A PDF file and what should be found in it.

    Attributes:
        data: Its bytes.
        texts: Of each page the text, or the reason why it is left out in `<...>`.
        reason: Why the document is left out; "" if it is not.
    """

    data: bytes
    texts: list[str] = field(default_factory=list)
    reason: str = ""


class _Sheet:
    """A canvas in memory with the fonts that are needed."""

    def __init__(self, width: float = WIDTH, height: float = HEIGHT, **options: object) -> None:
        _register()
        self._data = io.BytesIO()
        self.canvas = Canvas(self._data, pagesize=(width, height), invariant=1, **options)

    def write(self, x: float, y: float, text: str, font: str = "Times-Roman", size: float = SIZE) -> None:
        self.canvas.setFont(font, size)
        self.canvas.drawString(x, y, text)

    def lines(self, lines: list[str], x: float = LEFT, top: float = TOP, font: str = "Times-Roman") -> None:
        for number, line in enumerate(lines):
            self.write(x, top - number * PITCH, line, font)

    def end_page(self) -> None:
        self.canvas.showPage()

    def data(self) -> bytes:
        self.canvas.save()
        return self._data.getvalue()


def _register() -> None:
    if "Vera" not in pdfmetrics.getRegisteredFontNames():
        font = TTFont("Vera", "Vera.ttf")
        for number, letter in enumerate(_CJK + _HEBREW + _PRIVATE + "\ufb01\ufb02"):
            font.face.charToGlyph[ord(letter)] = font.face.charToGlyph[ord("A") + number % 26]
            font.face.charWidths[ord(letter)] = font.face.charWidths[ord("A") + number % 26]
        pdfmetrics.registerFont(font)


def words(rng: random.Random, count: int) -> list[str]:
    """Return words of small letters."""
    return ["".join(rng.choices("abcdeghiklmnoprstuvz", k=rng.randint(2, 9))) for _ in range(count)]


def _prose(rng: random.Random, lines: int, per_line: int = 12) -> list[str]:
    return [" ".join(words(rng, per_line)) for _ in range(lines)]


def plain(rng: random.Random, pages: int = 6, lines: int = 40) -> MadePdf:
    """A heading and one column."""
    sheet, texts = _Sheet(), []
    for _ in range(pages):
        heading, body = " ".join(words(rng, 3)).title(), _prose(rng, lines)
        sheet.write(LEFT, TOP + 30, heading, "Helvetica-Bold", 16)
        sheet.lines(body)
        sheet.end_page()
        texts.append("\n".join([heading, *body]))
    return MadePdf(sheet.data(), texts)


def columns(rng: random.Random, pages: int = 4) -> MadePdf:
    """A title over two columns, a line across the middle, and two columns again; every second page is drawn line by
    line over both columns.
    """
    sheet, texts = _Sheet(), []
    for page in range(pages):
        title, across = (" ".join(words(rng, count))[:length] + "z" for count, length in ((12, 50), (20, 75)))
        sheet.write(LEFT, TOP + 30, title, "Helvetica-Bold", 16)
        sheet.write(LEFT, TOP - 16 * PITCH, across, "Helvetica", 12)
        said = [title]
        for top in (TOP, TOP - 19 * PITCH):
            sides = {x: _prose(rng, 14, 6) for x in (LEFT, 330)}
            cells = [(x, top - row * PITCH, line) for x, side in sides.items() for row, line in enumerate(side)]
            for cell in sorted(cells, key=lambda cell: -cell[1]) if page % 2 else cells:
                sheet.write(*cell)
            said += [*sides[LEFT], *sides[330], *([across] if top == TOP else [])]
        sheet.end_page()
        texts.append("\n".join(said))
    return MadePdf(sheet.data(), texts)


def turned(rng: random.Random, pages: int = 4) -> MadePdf:
    """Pages that are turned by /Rotate, and read upright because of it."""
    sheet, texts = _Sheet(), []
    for page in range(pages):
        angle, body = 90 * (page % 4), _prose(rng, 30, 10)
        sheet.canvas.setPageRotation(angle)
        # What is turned clockwise when it is shown is drawn turned the other way; reportlab swaps the page's sides.
        sheet.canvas.rotate(angle)
        sheet.canvas.translate(*[(0, 0), (0, -HEIGHT), (-WIDTH, -HEIGHT), (-WIDTH, 0)][angle // 90])
        sheet.lines(body)
        sheet.end_page()
        texts.append("\n".join(body))
    return MadePdf(sheet.data(), texts)


def ligatures(rng: random.Random) -> MadePdf:
    """Ligatures, and words that are parted at the ends of lines."""
    sheet, body = _Sheet(), _prose(rng, 20, 9)
    drawn = [f"\ufb01rst {line} \ufb02ow inter-" for line in body]
    sheet.lines(drawn, font="Vera")
    sheet.end_page()
    return MadePdf(sheet.data(), ["\n".join(f"first {line} flow inter-" for line in body)])


def ideographs(rng: random.Random) -> MadePdf:
    """Chinese from left to right, then from top to bottom."""
    sheet = _Sheet()
    body = ["".join(rng.choices(_CJK, k=30)) for _ in range(20)]
    sheet.lines(body, font="Vera")
    sheet.end_page()
    for column in range(10):
        for row, letter in enumerate(rng.choices(_CJK, k=30)):
            sheet.write(500 - 30 * column, TOP - 20 * row, letter, "Vera")
    sheet.end_page()
    return MadePdf(sheet.data(), ["\n".join(body), "<vertical>"])


def leftwards(rng: random.Random) -> MadePdf:
    """Hebrew, drawn as it is seen."""
    sheet = _Sheet()
    sheet.lines(["".join(rng.choices(_HEBREW + " ", k=50)) for _ in range(20)], font="Vera")
    sheet.end_page()
    return MadePdf(sheet.data(), ["<right_to_left>"])


def scan(rng: random.Random) -> MadePdf:
    """Pictures of pages: without a text layer, with an unseen one, and with one that is painted over by the picture."""
    sheet = _Sheet()
    for _ in range(3):
        picture = Image.new("L", (WIDTH, HEIGHT), 255)
        for row in range(30):
            ImageDraw.Draw(picture).text((LEFT, 60 + row * PITCH), " ".join(words(rng, 8)), fill=0)
        if sheet.canvas.getPageNumber() == 2:
            sheet.canvas.drawImage(ImageReader(picture), 0, 0)
            sheet.canvas.setFont("Times-Roman", SIZE)
            block = sheet.canvas.beginText(LEFT, TOP)
            block.setTextRenderMode(3)
            block.textLines("\n".join(_prose(rng, 30)))
            sheet.canvas.drawText(block)
        elif sheet.canvas.getPageNumber() == 3:
            sheet.lines(_prose(rng, 30))
            sheet.canvas.drawImage(ImageReader(picture), 0, 0)
        else:
            sheet.canvas.drawImage(ImageReader(picture), 0, 0)
        sheet.end_page()
    return MadePdf(sheet.data(), ["<no_text>", "<invisible>", "<covered>"])


def hidden(rng: random.Random) -> MadePdf:
    """Text in white, text under a box, text outside of the page, text that is rotated, text of private letters, and
    much drawing beside few words.
    """
    sheet = _Sheet()
    seen = _prose(rng, 20)
    sheet.lines(seen)
    sheet.canvas.setFillGray(1)
    sheet.lines(_prose(rng, 5), top=300)
    sheet.end_page()
    sheet.lines(seen)
    sheet.canvas.rect(0, TOP - 5 * PITCH, WIDTH, 100, fill=1)
    sheet.end_page()
    sheet.lines([*_prose(rng, 20)], x=LEFT + WIDTH)
    sheet.lines(_prose(rng, 20))
    sheet.end_page()
    sheet.canvas.rotate(30)
    sheet.lines(_prose(rng, 10), x=300, top=300)
    sheet.end_page()
    sheet.lines([*_prose(rng, 10), *("".join(rng.choices(_PRIVATE, k=30)) for _ in range(10))], font="Vera")
    sheet.end_page()
    sheet.lines(_prose(rng, 2))
    for x in range(60, 500, 8):
        sheet.canvas.rect(x, 100, 6, 500, fill=1)
    sheet.end_page()
    return MadePdf(sheet.data(), ["<no_ink>", "<no_ink>", "<outside>", "<rotated>", "<unmapped>", "<other_ink>"])


def encrypted(rng: random.Random) -> MadePdf:
    """A document that opens with a password only."""
    sheet = _Sheet(encrypt=StandardEncryption("secret", canPrint=0))
    sheet.lines(_prose(rng, 20))
    sheet.end_page()
    return MadePdf(sheet.data(), reason="encrypted")


def broken(rng: random.Random) -> MadePdf:
    """A file that begins as a PDF and ends as none."""
    return MadePdf(plain(rng).data[:40] + rng.randbytes(2000), reason="broken")


def large(rng: random.Random) -> MadePdf:
    """A page of 200 x 280 inches with large letters, and one with letters that are too small to be read there."""
    sheet, body = _Sheet(14_000, 20_000), _prose(rng, 20)
    for row, line in enumerate(body):
        sheet.write(1000, 18_000 - 500 * row, line, size=250)
    sheet.end_page()
    sheet.lines(_prose(rng, 20), top=18_000)
    sheet.end_page()
    return MadePdf(sheet.data(), ["\n".join(body), "<small>"])


def sparse(rng: random.Random) -> MadePdf:
    """Pages with nothing, with a few words, with far too many, and with the words of an earlier page under another
    number.
    """
    sheet, body = _Sheet(), _prose(rng, 20)
    sheet.end_page()
    sheet.write(LEFT, TOP, "few words")
    sheet.end_page()
    for row in range(160):
        sheet.write(LEFT, 800 - row * 4.8, " ".join(words(rng, 16)), size=5)
    sheet.end_page()
    for number in (1, 2):
        sheet.lines([*body, str(number)])
        sheet.end_page()
    return MadePdf(
        sheet.data(), ["<no_text>", "<too_little_text>", "<too_much_text>", "\n".join([*body, "1"]), "<same_text>"]
    )


KINDS: dict[str, Callable[[random.Random], MadePdf]] = {
    "plain": plain,
    "columns": columns,
    "turned": turned,
    "ligatures": ligatures,
    "ideographs": ideographs,
    "leftwards": leftwards,
    "scan": scan,
    "hidden": hidden,
    "encrypted": encrypted,
    "broken": broken,
    "large": large,
    "sparse": sparse,
}
"""The kinds by name: each makes a document from random numbers."""


def write_folder(folder: Path, count: int, seed: int = 0) -> dict[str, MadePdf]:
    """Write so many documents, of each kind in turn; returns them by file name."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    for number in range(count):
        kind = list(KINDS)[number % len(KINDS)]
        name = f"{number:04d}-{kind}.pdf"
        made[name] = KINDS[kind](random.Random(f"{seed} {number}"))
        (folder / name).write_bytes(made[name].data)
    return made
