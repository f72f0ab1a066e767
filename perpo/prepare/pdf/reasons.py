"""Reasons to leave out a document or a page of it: each has a name, a sentence, and some have a limit."""

from __future__ import annotations

OUTSIDE_SHARE = 0.01
UNMAPPED_SHARE = 0.01
UNSEEN_SHARE = 0.02
ROTATED_SHARE = 0.05
STACKED_SHARE = 0.5
PICTURE_SHARE = 0.5
OTHER_INK_SHARE = 0.6
LEAST_SIDE = 28  # pixels; models cut pictures into patches of 14 or 16

REASONS = {
    "not_readable": "the file cannot be read",
    "broken": "no PDF, or too damaged to be opened",
    "encrypted": "a password is needed",
    "same_file": "has the bytes of an earlier document",
    "no_pages": "has no pages",
    "too_many_pages": "more pages than --max_pages",
    "crash": "the renderer crashed",
    "too_slow": "opening it, or one of its pages, took longer than --page_seconds",
    "failed": "the renderer gave an error",
    "page_broken": "the page is damaged, or has no size",
    "too_large": "more than --max_pixels pixels",
    "too_narrow": f"a side of less than {LEAST_SIDE} pixels",
    "no_text": "no text layer",
    "too_little_text": "fewer characters than --min_characters",
    "too_much_text": "more characters than --max_characters",
    "outside": f"more than {OUTSIDE_SHARE:.0%} of the characters lie outside of the page",
    "rotated": f"more than {ROTATED_SHARE:.0%} of the characters are rotated",
    "right_to_left": "text from right to left, whose order a PDF does not tell",
    "unmapped": f"more than {UNMAPPED_SHARE:.0%} of the characters are unknown or of private use",
    "small": "characters are lower than --min_height pixels",
    "vertical": f"more than {STACKED_SHARE:.0%} of the ideographs are written from top to bottom",
    "invisible": f"more than {UNSEEN_SHARE:.0%} of the characters are not painted (as under a scan)",
    "covered": f"more than {UNSEEN_SHARE:.0%} of the characters lie under a picture",
    "no_ink": f"more than {UNSEEN_SHARE:.0%} of the characters leave no ink (white, clipped or painted over)",
    "mostly_picture": f"pictures on more than {PICTURE_SHARE:.0%} of the page",
    "other_ink": f"more than {OTHER_INK_SHARE:.0%} of the ink belongs to no text",
    "same_text": "the text of an earlier page, but for digits, spaces and capitals",
    "same_picture": "the picture of an earlier page",
}
"""What a document (up to `failed`) or a page can be left out for, in the order of the checks: the first one counts."""


class LeftOut(Exception):
    """A document or page is left out.

    Args:
        reason: A name in `REASONS`.
        detail: What was found.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


