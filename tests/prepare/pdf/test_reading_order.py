"""The order in which pieces of lines are read, and what of them becomes text. Boxes are made up."""

from dataclasses import replace

import pytest

from perpo.prepare.pdf.parts import Character
from perpo.prepare.pdf.reading_order import Line, Piece, columns_beside, find_gutter, pieces_of, read_lines
from perpo.prepare.pdf.text import normalise, page_text

PROSE = "words that are long enough"


def _piece(text: str, x: float, row: int, width: float = 200) -> Piece:
    return Piece(text, x, 20.0 * row, x + width, 20.0 * row + 12)


def _texts(pieces: list[Piece]) -> list[str]:
    return [line.text for line in read_lines(pieces)]


def _column(name: str, x: float, rows: range, width: float = 200) -> list[Piece]:
    return [_piece(f"{name}{row} {PROSE}", x, row, width) for row in rows]


def _named(pieces: list[Piece]) -> str:
    return " ".join(text.split()[0] for text in _texts(pieces))


def test_columns_are_read_one_after_another_however_they_are_drawn():
    pieces = _column("a", 0, range(6)) + _column("b", 250, range(6))
    assert _named(pieces) == "a0 a1 a2 a3 a4 a5 b0 b1 b2 b3 b4 b5"
    assert _named(sorted(pieces, key=lambda piece: (piece.y0, piece.x0))) == _named(pieces)


def test_columns_side_by_side_are_counted():
    two = _column("a", 0, range(6)) + _column("b", 250, range(6))
    three = [piece for number, name in enumerate("abc") for piece in _column(name, 250 * number, range(4))]
    titled = [_piece(f"title {PROSE}", 0, 0, 450), *(replace(p, y0=p.y0 + 40, y1=p.y1 + 40) for p in two)]
    for pieces, count in [(_column("a", 0, range(6)), 1), (two, 2), (three, 3), (titled, 2), ([], 0)]:
        assert columns_beside(read_lines(pieces)) == count


def test_a_title_whose_box_reaches_into_the_columns_is_no_column_beside_them():
    two = [replace(p, y0=p.y0 + 40, y1=p.y1 + 40) for p in _column("a", 0, range(6)) + _column("b", 250, range(6))]
    top, bottom = min(piece.y0 for piece in two), max(piece.y1 for piece in two)
    for y0, y1 in ((top - 15, top + 2), (bottom - 2, bottom + 15)):  # taller than a line, by little
        across = replace(_piece(f"title {PROSE}", 0, 0, 450), y0=y0, y1=y1)
        assert columns_beside(read_lines([across, *two])) == 2


def test_three_columns():
    pieces = [piece for number, name in enumerate("abc") for piece in _column(name, 250 * number, range(4))]
    assert _named(pieces) == "a0 a1 a2 a3 b0 b1 b2 b3 c0 c1 c2 c3"


def test_what_lies_across_parts_the_page():
    across = [_piece(f"title {PROSE}", 0, 0, 450), _piece(f"middle {PROSE}", 100, 5, 300)]
    pieces = across + [
        piece
        for rows in (range(1, 5), range(6, 10))
        for name, x in (("a", 0), ("b", 250))
        for piece in _column(name, x, rows)
    ]
    assert _named(pieces) == "title a1 a2 a3 a4 b1 b2 b3 b4 middle a6 a7 a8 a9 b6 b7 b8 b9"


def test_the_last_short_line_of_what_lies_across_stays_with_it():
    wide = [_piece(f"w{row} {PROSE}", 0, row, 450) for row in range(4)] + [_piece(f"w4 {PROSE}", 0, 4, 100)]
    wide.append(_piece(f"w5 {PROSE}", 0, 5, 450))
    pieces = wide + _column("a", 0, range(6, 10)) + _column("b", 250, range(6, 10))
    assert _named(pieces) == "w0 w1 w2 w3 w4 w5 a6 a7 a8 a9 b6 b7 b8 b9"


def test_page_numbers_and_short_headings_stand_alone():
    pieces = [_piece("33", 430, 0, 20), _piece("heading", 0, 2, 100), _piece("foot", 430, 12, 20)]
    pieces += _column("a", 0, range(4, 10)) + _column("b", 250, range(4, 10))
    assert _named(pieces) == "33 heading a4 a5 a6 a7 a8 a9 b4 b5 b6 b7 b8 b9 foot"
    # Columns that begin and end at other places are none of these.
    pieces = _column("a", 0, range(2, 10)) + _column("b", 250, range(0, 8))
    assert _named(pieces) == "a2 a3 a4 a5 a6 a7 a8 a9 b0 b1 b2 b3 b4 b5 b6 b7"


@pytest.mark.parametrize(
    "right",
    [
        [_piece("12.50", 250, row, 40) for row in range(6)],  # a table's column of numbers
        [_piece("a cell", 250, row) for row in range(6)],  # cells, which are no prose
        _column("b", 250, range(3)),  # too few lines
        _column("b", 205, range(6)),  # too near
        _column("b", 250, range(6, 12)),  # not beside but below
    ],
)
def test_other_things_than_columns_are_read_line_by_line(right):
    pieces = _column("a", 0, range(6)) + right
    assert find_gutter(pieces) is None
    assert _texts(pieces)[0].startswith("a0")
    rows = [line.y0 for line in read_lines(pieces)]
    assert rows == sorted(rows)


def test_one_column_with_ragged_ends_has_no_gutter():
    pieces = [_piece(f"{row} {PROSE}", 0, row, 150 + 37 * row % 200) for row in range(30)]
    assert find_gutter(pieces) is None


def _characters(text: str, x: float = 0, y: float = 0, added: bool = False) -> list[Character]:
    return [
        Character(one, (x + 6 * place, y, x + 6 * place + 6, y + 12), added=added and one == " ")
        for place, one in enumerate(text)
    ]


def test_characters_become_pieces_at_gaps_and_ends_of_lines():
    drawn = [*_characters("one two"), *_characters("far", 100), Character("\n"), *_characters("below", 0, 20)]
    assert [piece.text for piece in pieces_of(drawn)] == ["one two", "far", "below"]
    assert [line.text for line in read_lines(pieces_of(drawn))] == ["one two far", "below"]
    # A word in bold letters that is drawn later, and touches the next one.
    later = [*_characters("bc", 6), *_characters("below", 0, 20), *_characters("a", 0)]
    assert [line.text for line in read_lines(pieces_of(later))] == ["abc", "below"]


def test_gaps_between_ideographs_are_no_spaces_but_written_spaces_are():
    assert pieces_of(_characters("天 地", added=True))[0].text == "天地"
    assert pieces_of(_characters("天 地"))[0].text == "天 地"
    assert pieces_of(_characters("天 a", added=True))[0].text == "天 a"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("e\u0301t\u00e9", "été"),
        ("\ufb01 \ufb02 \ufb00 \ufb03 \ufb06", "fi fl ff ffi st"),
        (" a\u00a0 b\u200b\u2009c ", "a b c"),
        ("co\u00adop re\u2010do x\u2013y ½ ²", "co-op re-do x–y ½ ²"),
    ],
)
def test_normalisation(text, said):
    assert normalise(text) == said


def test_lines_of_a_paragraph_are_joined():
    def line(text, row, x=0.0, column=0):
        return Line(text, x, 15.0 * row, 200, 15.0 * row + 12, column)

    lines = [line("A para-", 0), line("graph of", 1), line("lines", 2), line("indented", 3, 20), line("more", 4)]
    assert page_text(lines, "join") == "A paragraph of lines\nindented more"
    assert page_text([line("gap", 0), line("below", 2)], "join") == "gap\nbelow"
    assert page_text([line("end", 4), line("next", 0, 300, column=1)], "join") == "end\nnext"
    assert page_text([line("天地", 0), line("玄黄", 1)], "join") == "天地玄黄"
    assert page_text([line("A-", 0), line("B 1-", 1), line("2", 2)], "join") == "A-B 1-2"
    assert page_text(lines, "keep") == "A para-\ngraph of\nlines\nindented\nmore"
