"""Rows as other programs write them become rows with `image_path`, `question`, `answer` and `answers_gen`.

Read are conversations (LLaVA's `conversations`, `messages` with text or a list of parts), pairs (`chosen` and
`rejected`, also as conversations; `rejected_response` beside `messages`; `output_1` and `output_2` with `preference`),
and pictures in `image_path`, `image`, in `images` with one of them, or in a part of a message. Fields of a row that
have these names already are taken as they are. A row that compares answers in another way is refused. Needs no torch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from perpo.data.placeholders import check_no_mark
from perpo.errors import PerpoError

Row = dict[str, Any]

PREFERENCE = "preference"  # the reward's name of what somebody chose (1) or rejected (0)

_TURNS = ("conversations", "messages")
_QUESTIONS = ("prompt", "query")
_ANSWERS = ("response", "completion")
_IMAGES = ("image_path", "image", "images")
_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant"}
_OUTPUTS = ("output_1", "output_2")
# What else says that a row compares answers: its fields are numbered, or named after who won.
_NUMBERED = re.compile(r"(?:output|response|completion|candidate|human_ref)_?(?:\d|[abjk])", re.IGNORECASE)
_WON = re.compile(r"(?:chosen|rejected)(?:[_-].*)?|.*[_-](?:chosen|rejected)|(?:dis)?preferred|preference|y_[wl]")
_ONE_EACH = "write each question with its answer as a separate row"


@dataclass
class _Exchange:
    """What a conversation holds: at most one question, one answer, and the pictures that the question shows."""

    question: str | None = None
    answer: str | None = None
    pictures: list[Any] = field(default_factory=list)


def plain_row(row: Row) -> Row:
    """Return a row in this project's names; other fields stay as they are, null ones are left out.

    `answer` of a pair is the chosen answer where the row has no other.

    Raises:
        PerpoError: What it holds is several questions, a system's turn, a video, several pictures, a comparison that
            is not understood, or contradicts itself.
    """
    fields = {name: value for name, value in row.items() if value is not None}
    exchange = _exchange_of(fields)
    _fill(fields, "question", exchange.question)
    if not set(_OUTPUTS) <= set(fields):  # else the conversation's answer only holds the place of theirs
        _fill(fields, "answer", exchange.answer)
    _add_pair(fields)
    return with_picture(fields, exchange.pictures)


def with_picture(row: Row, pictures: Sequence[Any] = ()) -> Row:
    """Return a row whose picture is in `image_path` and `image` (a path), or in `image` alone (bytes).

    Args:
        row: A row with its picture in one or several of `image_path`, `image` and `images`.
        pictures: Further ones that it names.

    Raises:
        PerpoError: It names several.
    """
    named = [row[name] for name in ("image_path", "image") if row.get(name) is not None]
    several = row.get("images")
    if several is not None:
        several = several if isinstance(several, list) else [several]
        if len(several) != 1 and (several or not named):
            raise PerpoError(f"it has {len(several)} pictures in `images`", "a question can have only one picture")
        named += several
    named += pictures
    held = [value for value in named if isinstance(value, dict) and value.get("bytes") is not None]
    paths = [value["path"] if isinstance(value, dict) else value for value in named if _is_path(value)]
    if len(held) + len(paths) < len(named):  # of another kind, which whoever takes the field will say
        return row
    if len(set(paths)) > 1 or any(each["bytes"] != held[0]["bytes"] for each in held[1:]):
        raise PerpoError(f"it names two pictures: {', '.join(map(repr, paths))[:160]}", "keep one of them")
    rest = {name: value for name, value in row.items() if name not in _IMAGES}
    if held:  # the row itself holds what a path beside it names
        return rest | {"image": held[0]}
    return rest | {"image_path": paths[0], "image": paths[0]} if paths else rest


def _is_path(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get("bytes") is None and isinstance(value.get("path"), str)
    return isinstance(value, str)


def _fill(row: Row, name: str, value: str | None) -> None:
    """Put a value into a field that is not there; one that says something else is refused."""
    if value is not None and row.setdefault(name, value) != value:
        raise PerpoError(f"its `{name}` and its conversation have different texts", "keep one of them")


def _exchange_of(row: Row) -> _Exchange:
    """What the conversations of a row hold; what stands in two of them has to be the same."""
    exchange = _Exchange()
    for name in _TURNS:
        if name in row:
            exchange = _merged(exchange, _read(row[name], name))
    if "question" not in row and exchange.question is None:
        exchange = _merged(exchange, _named(row, _QUESTIONS, "question"))
    if "answer" not in row and exchange.answer is None:
        exchange = _merged(exchange, _named(row, _ANSWERS, "answer"))
    return exchange


def _named(row: Row, names: Sequence[str], what: str) -> _Exchange:
    """What fields of other names hold: a text, or turns."""
    exchange = _Exchange()
    for name in names:
        value = row.get(name)
        if isinstance(value, str):
            said = _Exchange(question=value) if what == "question" else _Exchange(answer=value)
            exchange = _merged(exchange, said)
        elif value is not None:
            exchange = _merged(exchange, _read(value, name))
    return exchange


def _merged(one: _Exchange, other: _Exchange) -> _Exchange:
    for name in ("question", "answer"):
        texts = {getattr(each, name) for each in (one, other)} - {None}
        if len(texts) > 1:
            raise PerpoError(f"it has two different texts for its {name}", "keep one of them")
    pictures = one.pictures + [each for each in other.pictures if each not in one.pictures]
    return _Exchange(one.question or other.question, one.answer or other.answer, pictures)


def _add_pair(row: Row) -> None:
    """Make a list of two answers of what was chosen and what was rejected.

    Raises:
        PerpoError: One of the two is missing, or what compares answers is not understood.
    """
    texts = _of_outputs(row)
    for name in ("chosen", "rejected"):
        if name in row:
            texts[name] = _answer_in(row, name)
    other = [name for name in ("rejected_response", "rejected_messages") if name in row]
    if other and "rejected" not in texts:
        texts["rejected"] = _answer_in(row, other[0])
        if "chosen" not in texts and isinstance(row.get("answer"), str):
            texts["chosen"] = row["answer"]
    _check_understood(row, read=bool(texts))
    if not texts:
        return
    if "answers_gen" in row:
        raise PerpoError(f"it has both `answers_gen` and `{next(iter(texts))}`", "keep one of them")
    if set(texts) != {"chosen", "rejected"}:
        raise PerpoError(f"it has only a {next(iter(texts))} answer", "a pair needs a chosen and a rejected answer")
    if texts["chosen"] == texts["rejected"]:
        raise PerpoError(f"its chosen and its rejected answer are the same: {texts['chosen']!r:.60}", "remove it")
    for text in texts.values():
        check_no_mark(text)
    row.setdefault("answer", texts["chosen"])
    row |= {"answers_gen": [texts["chosen"], texts["rejected"]], "rewards": [1.0, 0.0], "reward_name": PREFERENCE}


def _of_outputs(row: Row) -> dict[str, str]:
    """The pair of a row that numbers its two answers and says in `preference` which of them is better."""
    if not set(_OUTPUTS) <= set(row):
        return {}
    better = row.get("preference")
    if better not in (1, 2) or isinstance(better, bool):
        raise PerpoError(
            f"it has `output_1` and `output_2`, but its `preference` is {better!r:.40}",
            "`preference` must be 1 (output_1 is better) or 2 (output_2 is better); remove the record if neither "
            "is better",
        )
    said = [row[name] if isinstance(row[name], str) else _content(row[name], name)[0] for name in _OUTPUTS]
    return {"chosen": said[int(better) - 1], "rejected": said[2 - int(better)]}


def _check_understood(row: Row, *, read: bool) -> None:
    """Refuse fields that compare answers and would be left aside.

    Args:
        row: The row.
        read: Whether a pair was read of it, which other fields may describe.
    """
    left = ["rejected_images"] if row.get("rejected_images") else []
    if not read and "answers_gen" not in row:
        numbered = [name for name in row if _NUMBERED.fullmatch(name)]
        left += numbered if len(numbered) > 1 else []
        left += [name for name in row if _WON.fullmatch(name) and name not in left]
        if isinstance(row.get("label"), bool) and any(name in row for name in (*_TURNS, *_ANSWERS)):
            left.append("label")  # whether the answer was liked
    if left:
        raise PerpoError(
            f"it compares answers in fields that are not supported: {', '.join(map(repr, left))[:160]}",
            "give pairs as `chosen` and `rejected`, or the answers as `answers_gen` with `rewards`",
        )


def _answer_in(row: Row, name: str) -> str:
    """The answer in a field that holds a text, one turn, or a question's turn and the answer's."""
    value = row[name]
    if isinstance(value, str):
        return value
    said = _read(value, name)
    if said.answer is None:
        raise PerpoError(f"`{name}` holds no answer", "write a text, or a turn of the assistant")
    _fill(row, "question", said.question)
    return said.answer


def _read(value: Any, name: str) -> _Exchange:
    """A question's turn, an answer's turn, or both."""
    turns = value if isinstance(value, list) else [value]
    exchange = _Exchange()
    roles = []
    for turn in turns:
        said = turn.get("role", turn.get("from")) if isinstance(turn, dict) else None
        if said is None:
            raise PerpoError(f"expected turns with a role in `{name}`, found {turn!r:.60}", _ONE_EACH)
        roles.append(_ROLES.get(str(said), str(said)))
        text, pictures = _content(turn, name)
        if roles[-1] == "user":
            exchange.question, exchange.pictures = text, pictures
        else:
            exchange.answer = text
            if pictures:
                raise PerpoError(f"the answer in `{name}` holds a picture", "answers are texts")
    if roles not in (["user"], ["assistant"], ["user", "assistant"]):
        hint = "move its text into the question, or remove it" if "system" in roles else _ONE_EACH
        raise PerpoError(
            f"expected one question and its answer in `{name}`, found {len(roles)} turns: {', '.join(roles)[:80]}", hint
        )
    return exchange


def _content(turn: Row, name: str) -> tuple[str, list[Any]]:
    """The text of a turn, and the pictures that its parts name."""
    content = turn.get("content", turn.get("value"))
    if isinstance(content, str):
        return content, []
    if not isinstance(content, list):
        raise PerpoError(f"expected a text or a list of parts in `{name}`, found {content!r:.60}", _ONE_EACH)
    texts, pictures, shown = [], [], 0
    for part in content:
        kind = part.get("type", "text" if "text" in part else None) if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind in ("image", "image_url"):
            shown += 1
            pictures += [
                value for value in map(_picture, map(part.get, ("image", "image_url", "url", "path"))) if value
            ]
        else:
            raise PerpoError(
                f"`{name}` has a part of the type {kind!r:.40}", "a question can have only texts and one picture"
            )
    if shown > 1:
        raise PerpoError(f"the question in `{name}` has {shown} pictures", "a question can have only one picture")
    return "".join(texts), pictures


def _picture(value: Any) -> Any:
    """What a part names: a path, or {bytes, path}; `image_url` wraps it."""
    return value["url"] if isinstance(value, dict) and isinstance(value.get("url"), str) else value
