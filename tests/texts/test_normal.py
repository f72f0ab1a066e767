"""perpo.texts.normal: what looks the same is the same."""

from __future__ import annotations

import pytest

from perpo.texts.normal import normal


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("cafe\u0301", "café"),
        ("ﬁne eﬃcient oﬀ ﬂat baﬄe", "fine efficient off flat baffle"),
        ("in\u00adter\u00ad\n  national", "international"),
        ("well-\nknown", "well-\nknown"),
        ("\ufeffa\u200bb\u200cc\u200dd\u2060e", "abcde"),
        ("½ ² Ａ “a”  b", "½ ² Ａ “a”  b"),  # looks other than 1/2, 2, A
        ("", ""),
    ],
)
def test_the_normal_form(text: str, found: str) -> None:
    assert normal(text) == found
    assert normal(found) == found
