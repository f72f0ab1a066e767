"""Tell which of a tokenizer's tokens steer a conversation, and which belong to what is said in it. Needs no torch.

Beside ordinary text, a tokenizer has tokens that end an answer, pad a batch, begin a turn or stand for a picture; those
are no part of an answer, and a text that spells one must not become it. All others, such as `<ref>`, `<|box_start|>`,
`<think>` or `<loc0012>`, are a model's own way of writing, and stay.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from perpo.data.placeholders import is_media_mark

_ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
# Turns and ends as families write them; of use where a tokenizer has them and its chat template does not write them.
_TURNS = re.compile(
    r"</?s>|<(?:bos|eos|pad|unk)>|<\|(?:im_start|im_end|im_sep|endoftext|begin_of_text|end_of_text|finetune_right_pad_id)\|>"
    r"|<\|(?:start_header_id|end_header_id|eot_id|eom_id|system|user|assistant|observation|end)\|>"
    r"|<(?:start|end)_of_turn>|<end_of_utterance>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"
)
# A template may open the answer's thoughts itself; they are the answer's all the same.
_THOUGHTS = re.compile(r"</?think(?:ing)?>")


def control_tokens(tokenizer: Any, prompt: str, end_ids: Collection[int]) -> dict[int, str]:
    """Return the tokens that steer, by their ids: named roles, ends, turns, pictures, and the special tokens of a
    prompt.

    Args:
        tokenizer: A Hugging Face tokenizer.
        prompt: A rendered prompt, which holds the special tokens that the chat template writes.
        end_ids: What ends an answer.
    """
    added: Mapping[int, Any] = tokenizer.added_tokens_decoder
    written = set(tokenizer(prompt, add_special_tokens=False).input_ids)
    roles = {getattr(tokenizer, f"{role}_token") for role in _ROLES}
    steering_tokens = {}
    for number, token in added.items():
        text = token.content
        steers = (
            text in roles
            or number in end_ids
            or (token.special and number in written)
            or _TURNS.fullmatch(text) is not None
            or is_media_mark(text)
        )
        if steers and not _THOUGHTS.fullmatch(text):
            steering_tokens[number] = text
    # A role may be played by a token of the ordinary vocabulary.
    named = {getattr(tokenizer, f"{role}_token_id"): getattr(tokenizer, f"{role}_token") for role in _ROLES}
    return steering_tokens | {number: text for number, text in named.items() if number is not None}


def decoded(tokenizer: Any, ids: Sequence[int], marks: Collection[int]) -> str:
    """Return the text of which the tokenizer would make these tokens again, where there is one.

    Args:
        tokenizer: A Hugging Face tokenizer.
        ids: Tokens of an answer.
        marks: The special tokens that belong to answers. Some tokenizers (SentencePiece as Llama 2 has it) begin what
            follows one with a blank of their own, as they begin a text; it is taken out as there.
    """
    mark = next((number for number in ids if number in marks), None)
    if mark is None or not _blank_behind(tokenizer, mark):
        return _text(tokenizer, ids)
    runs: list[list[int]] = [[]]
    for number in ids:
        runs += [[number], []] if number in marks else []
        if number not in marks:
            runs[-1].append(number)
    return "".join(_text(tokenizer, run) for run in runs)


def _blank_behind(tokenizer: Any, mark: int) -> bool:
    text = _text(tokenizer, [mark]) + "a"
    return _text(tokenizer, tokenizer(text, add_special_tokens=False).input_ids) != text


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def pattern_of(tokens: Collection[str]) -> re.Pattern[str]:
    """Return a pattern that finds any of these tokens in a text, the longest first."""
    return re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))
