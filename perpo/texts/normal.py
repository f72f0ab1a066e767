"""The normal form of a page's text: what looks the same is the same. No official script has it."""

from __future__ import annotations

import re
import unicodedata

_LIGATURES = {
    "ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st",
}  # fmt: skip
_INVISIBLE = dict.fromkeys("\u00ad\u200b\u200c\u200d\u2060\ufeff", "")
_CHANGED = str.maketrans(_LIGATURES | _INVISIBLE)
_HYPHEN_AT_LINE_END = re.compile("\u00ad[ \t]*\r?\n[ \t]*")


def normal(text: str) -> str:
    """Return a text in NFC, with ligatures as letters, and without soft hyphens and characters of no width.

    A word that a soft hyphen parts at the end of a line is put together. A hard hyphen stays: it may belong there.
    Joiners of no width are taken out too, so this is not for scripts that need them (Persian, Hindi).
    """
    return unicodedata.normalize("NFC", _HYPHEN_AT_LINE_END.sub("", text).translate(_CHANGED))
