"""Read what lmms-eval's models hand back: an answer, or a failure in its place. No torch."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from perpo.common.redact import without_secrets
from perpo_eval.engines.responses import Response

_LONGEST = 300

# Texts that models of lmms-eval 0.7 make of an exception: those of servers (openai, async_openai, gemini; also of a
# budget that is used up), of pictures that are generated, of videos; and two that are an exception's own words.
_FAILED = re.compile(
    r"\s*(?:\[LMMS_EVAL_[A-Z_]+|\[GENERATION_FAILED\]|\[ERROR\]"
    r"|(?:Error: )?can only concatenate str \(not \"NoneType\"\) to str"
    r"|Can not infer the answer\.\s*$"
    r"|Video .* (?:can not load|generate failed), check the source\s*$)"
)
_KEPT = ": the server keeps thoughts to itself (--max_new_tokens gives them more room), or it refused"
_EMPTY = "an empty answer without a token: lmms-eval's models return nothing where they failed"


def read_answer(said: Any, secrets: Collection[str] = ()) -> Response:
    """Return one output of an lmms-eval model as an answer, or as the error that it stands for.

    A text that lmms-eval makes of an exception is an error. So is no text at all, since many of its models return
    "" for any exception, unless the model counted one token that it wrote: the end alone, which says nothing. Where it
    counted more, the server keeps what they were: thoughts that used up the limit, or a refusal.

    Args:
        said: What `generate_until` gave for one request.
        secrets: Values that must stand in no error.
    """
    from lmms_eval.api.instance import unwrap_generation_output

    text, counts = unwrap_generation_output(said)
    tokens = counts.output_tokens if counts else None
    text = "" if text is None else str(text)
    if _FAILED.match(text):
        return Response("", error=without_secrets(" ".join(text.split()), secrets)[:_LONGEST])
    if not text.strip() and tokens != 1:
        return Response("", error=f"no text came of {tokens} tokens{_KEPT}" if tokens else _EMPTY)
    return Response(text, tokens_out=tokens)
