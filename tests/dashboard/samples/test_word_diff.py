"""Word differences: derived by hand, and held against the texts that they stand for."""

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from perpo_dashboard.samples.word_diff import Stretch, as_html, differences


def told(truth, answer):
    return [(part.kind, part.text.strip()) for part in differences(truth, answer).parts]


def test_changed_added_and_dropped_words_are_told_apart():
    assert told("the red ring is small", "the blue ring is very small") == [
        ("both", "the"), ("truth", "red"), ("answer", "blue"), ("both", "ring is"), ("answer", "very"),
        ("both", "small"),
    ]  # fmt: skip
    found = differences("the red ring is small", "the ring")
    assert (found.count("truth"), found.count("answer"), found.count("both")) == (3, 0, 2)


def test_white_space_alone_is_no_difference():
    assert differences("CLOUD I\nUNCLE", " CLOUD  I UNCLE ").parts == [Stretch("both", "CLOUD  I UNCLE", 3)]


def test_each_chinese_character_is_a_word():
    assert told("猫在桌子上", "猫在椅子上") == [("both", "猫在"), ("truth", "桌"), ("answer", "椅"), ("both", "子上")]


def test_nothing_said_and_nothing_to_say():
    assert told("two words", "") == [("truth", "two words")]
    assert told("", "two words") == [("answer", "two words")]
    assert told("", "") == []


def test_very_long_texts_are_cut_and_say_so():
    found = differences("a " * 10_001, "a " * 10_001)
    assert (found.cut, found.count("both")) == (True, 10_000)
    assert not differences("a " * 10_000, "b").cut


_WORDS = st.lists(st.sampled_from(["a", "b", "<b>", "猫", "&"]), max_size=12).map(" ".join)


@given(_WORDS, _WORDS)
def test_both_texts_can_be_read_out_of_their_differences(truth, answer):
    parts = differences(truth, answer).parts

    def words(*kinds):
        return " ".join(part.text for part in parts if part.kind in kinds).split()

    assert words("both", "truth") == truth.split()
    assert words("both", "answer") == answer.split()


class _Read(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.text = set(), ""

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


def test_no_text_becomes_html():
    hostile = "<script>alert(1)</script> <img src=x onerror=alert(1)> \"quoted\" 'so' &amp; </div>"
    page = _Read()
    page.feed(as_html(differences("<b>truth</b> &lt;", hostile), "#009e73", "#0072b2"))
    assert page.tags == {"div", "del", "ins"}
    assert sorted(page.text.split()) == sorted(f"<b>truth</b> &lt; {hostile}".split())
