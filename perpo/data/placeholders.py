"""Marks that data put into a question where the picture stands: one is taken out, any other number is refused.

A model's own prompt says where its picture goes, so that a mark of the data would be a second picture, or text
that the model was never taught to read. Needs no torch.
"""

from __future__ import annotations

import re

from perpo.errors import PerpoError

# What stands for one picture, as data sets and models of these families write it. What encloses others comes first.
_ONE_IMAGE = (
    r"<\|vision_start\|>\s*(?:<\|image_pad\|>)+\s*<\|vision_end\|>",  # Qwen
    r"<img>\s*(?:<IMG_CONTEXT>)+\s*</img>",  # InternVL
    r"<img>[^<>]*</img>",  # Qwen-VL, with the picture's path inside
    r"<(?:im|image)_start>\s*(?:<image>|(?:<im_patch>)+)\s*<(?:im|image)_end>",  # LLaVA's first models
    r"<\|begin_of_image\|>\s*(?:<\|image\|>)+\s*<\|end_of_image\|>",  # GLM
    r"<\|image_start\|>\s*(?:<image>)+\s*<\|image_end\|>",  # LFM2-VL
    r"<start_of_image>\s*(?:<image_soft_token>)+\s*<end_of_image>",  # Gemma 3
    r"<(?:image|image_placeholder|image_pad|image_token|image_soft_token|imagehere|img|im_patch|start_of_image)>",
    r"<image[ _-]?\d+>",
    r"<\|(?:image|image_\d+|image_pad|image_placeholder)\|>",
    r"<img_context>|\[IMG\]",
)
# What is part of such a mark, and stands for no picture without the rest.
_PART = (
    r"<\|vision_(?:start|end|pad)\|>|</img>|<(?:im|image)_(?:start|end)>|<end_of_image>|\[IMG_(?:BREAK|END)\]"
    r"|<fake_token_around_image>|<global-img>|<row_\d+_col_\d+>"
    r"|<\|(?:begin|end)_of_image\|>|<\|image_(?:start|end)\|>|<\|img_(?:thumbnail|row_\d+_col_\d+)\|>"
)
_OTHER_MEDIA = (
    r"<(?:video|audio)(?:_placeholder|_soft_token|_pad)?>|<\|(?:video|audio)(?:_pad|_\d+)?\|>|<video[ _-]?\d+>"
)
_LABEL = r"(?:\b(?:picture|image)[ -]?\d+: ?)?"  # "Picture 1: <img>...", as Qwen-VL and InternVL count them

_IMAGE = re.compile(rf"{_LABEL}(?:{'|'.join(_ONE_IMAGE)})", re.IGNORECASE)
_MARK = re.compile(rf"{_OTHER_MEDIA}|{_PART}|{'|'.join(_ONE_IMAGE)}", re.IGNORECASE)
_CLOSING = re.compile(r"[,.;:!?)\]]")


def is_media_mark(token: str) -> bool:
    """Return whether a model's token stands for a picture, a video or a sound, or is part of what does."""
    return _MARK.fullmatch(token) is not None


def media_mark(text: str) -> str | None:
    """Return the first mark of a picture, a video or a sound in a text, or None."""
    match = _MARK.search(text)
    return match and match[0]


def without_image(question: str) -> str:
    """Return a question without the mark of its picture, wherever it stands, and without the space that it leaves
    behind.

    A question without a mark comes back as it is.

    Raises:
        PerpoError: It holds several marks, a part of one, or one of a video or a sound.
    """
    matches = list(_IMAGE.finditer(question))
    if len(matches) > 1:
        marks = ", ".join(match[0] for match in matches[:3])
        raise PerpoError(
            f"a question holds placeholders of {len(matches)} pictures ({marks}): {question!r:.80}",
            "a question can have only one picture: leave the record out, or join the pictures into one",
        )
    text = _joined(question[: matches[0].start()], question[matches[0].end() :]) if matches else question
    rest = media_mark(text)
    if rest is not None:
        raise PerpoError(
            f"a question holds {rest}, which is not a complete placeholder of one picture: {question!r:.80}",
            "remove it; the placeholder of the picture may be left out",
        )
    return text


def check_no_mark(answer: str) -> None:
    """Refuse an answer that holds a mark of a picture, a video or a sound.

    Raises:
        PerpoError: It does.
    """
    mark = media_mark(answer)
    if mark is not None:
        raise PerpoError(f"an answer holds {mark}, a placeholder of a picture or video: {answer!r:.80}", "remove it")


def _joined(before: str, behind: str) -> str:
    """What stood before and behind a mark, as one text that reads well."""
    left, right = before.rstrip(), behind.lstrip()
    if not left or not right:
        return left + right
    if _CLOSING.match(right):
        return left + right
    space = before[len(left) :] + behind[: len(behind) - len(right)]
    return f"{left}\n{right}" if "\n" in space else f"{left} {right}"
