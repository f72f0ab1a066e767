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
    "same_file": "the bytes of an earlier document",
    "no_pages": "has no pages",
    "too_many_pages": "more pages than --max_pages",
    "crash": "the renderer crashed",
    "too_slow": "a page took longer than --page_seconds",
    "failed": "the renderer gave an error",
    "page_broken": "the page is damaged, or has no size",
    "too_large": "more pixels than --max_pixels",
    "too_narrow": f"a side of less than {LEAST_SIDE} pixels",
    "no_text": "no text layer",
    "too_little_text": "fewer characters than --min_characters",
    "too_much_text": "more characters than --max_characters",
    "outside": f"over {OUTSIDE_SHARE:.0%} of letters lie outside of the page",
    "rotated": f"over {ROTATED_SHARE:.0%} of letters are rotated",
    "right_to_left": "letters that are written from the right",
    "unmapped": f"over {UNMAPPED_SHARE:.0%} of letters are of no known code",
    "small": "letters are lower than --min_height",
    "invisible": f"over {UNSEEN_SHARE:.0%} of letters are not painted",
    "covered": f"over {UNSEEN_SHARE:.0%} of letters lie under a picture",
    "no_ink": f"over {UNSEEN_SHARE:.0%} of letters leave no ink",
    "vertical": f"over {STACKED_SHARE:.0%} of ideographs stand in columns",
    "mostly_picture": f"pictures on over {PICTURE_SHARE:.0%} of the page",
    "other_ink": f"over {OTHER_INK_SHARE:.0%} of the ink belongs to no text",
    "mark": "words that models take for their own marks",
    "same_text": "an earlier page's text, but for digits",
    "same_picture": "an earlier page's picture",
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
