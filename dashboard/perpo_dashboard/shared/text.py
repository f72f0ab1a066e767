"""Show texts: escaped, letter by letter, errors with their hints, empty pages."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import streamlit as st

from perpo.errors import PerpoError
from perpo.records.store import Unreadable

_TURNING = ("R", "AL", "LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""Classes of letters, and of marks, that Unicode's algorithm for both directions of reading turns words by."""


def escape(text: str) -> str:
    """Return text that Streamlit's Markdown shows as it is: for labels, captions and help.

    What looks like an address gets an invisible character (U+2060), so that it does not become a link. What is read
    from right to left, or would turn what stands behind it, stands in a pair of its own (U+2068, U+2069).
    """
    text = " ".join(text.split())
    if any(unicodedata.bidirectional(letter) in _TURNING for letter in text):
        text = "\u2068" + re.sub("[\u2066-\u2069]", "", text) + "\u2069"
    text = re.sub(r"(://|www\.|@)", "\u2060\\1", text, flags=re.IGNORECASE)
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~$:^=&@])", r"\\\1", text)


def reason(error: PerpoError) -> str:
    """Return Markdown of what was wrong, and of what to do on a line below."""
    return f"{escape(error.message)}  \n{escape(error.hint)}"


def plain(text: str | None, *, height: Any = "content", missing: str = "nothing") -> None:
    """Show what a model or a data set wrote, letter by letter: no Markdown, no HTML, no formulas."""
    if text is None:
        st.caption(missing)
    else:
        st.code(text, language=None, wrap_lines=True, height=height)


def empty(message: str, command: str) -> None:
    """Say what is missing and what to run for it, and end the page."""
    st.info(message, icon=":material/info:")
    st.code(command, language="bash")
    st.stop()


def tell_unreadable(unreadable: Sequence[Unreadable]) -> None:
    """Show the records that cannot be read, with their reasons; nothing where all can."""
    if not unreadable:
        return
    count = f"{len(unreadable)} run{'s' if len(unreadable) > 1 else ''} cannot be read"
    with st.expander(count, icon=":material/warning:"):
        for each in unreadable:
            st.text(f"{each.path}: {each.reason}")
