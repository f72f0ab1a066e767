"""The questions that benchmarks ask, as data. `{expression}` and `{question}` are filled in.

Sources: the short grounding prompt is LLaVA-1.5's (haotian-liu/LLaVA, Apache-2.0); the long one is that of
lmms-eval's RefCOCO tasks (EvolvingLMMs-Lab/lmms-eval, MIT and Apache-2.0); the ending of yes/no questions is
LLaVA's for POPE. Pages of Fox bring their own question; the one here is for pages without.
"""

from __future__ import annotations

GROUNDING = "Please provide the bounding box coordinate of the region this sentence describes: {expression}"

LMMS_EVAL_GROUNDING = (
    "Bounding box coordinates are specified in the format (top-left x, top-left y, bottom-right x, bottom-right y). "
    "All values are floating point numbers bounded between 0 and 1. " + GROUNDING
)

YES_NO = "{question}\nAnswer the question using a single word or phrase."

OCR = "OCR this image:"
