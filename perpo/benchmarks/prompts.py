"""The questions that benchmarks ask, as data. `{expression}`, `{question}` and `{query}` are filled in.

Sources: the short grounding prompt is LLaVA-1.5's (haotian-liu/LLaVA, Apache-2.0); the long one is that of
lmms-eval's RefCOCO tasks (EvolvingLMMs-Lab/lmms-eval, MIT and Apache-2.0); the ending of yes/no questions is
LLaVA's for POPE. Pages of Fox and OCRBench v2 bring their own question; the one here is for pages without. The one
that asks for Markdown is the basic one of olmOCR-Bench (allenai/olmocr, Apache-2.0); OmniDocBench, which leaves the
question to everybody, gets it too.
"""

from __future__ import annotations

from dataclasses import dataclass

GROUNDING = "Please provide the bounding box coordinate of the region this sentence describes: {expression}"

LMMS_EVAL_GROUNDING = (
    "Bounding box coordinates are specified in the format (top-left x, top-left y, bottom-right x, bottom-right y). "
    "All values are floating point numbers bounded between 0 and 1. " + GROUNDING
)

YES_NO = "{question}\nAnswer the question using a single word or phrase."

OCR = "OCR this image:"

OLMOCR = (
    "Please provide a natural, plain text representation of the document, formatted in Markdown. Skip any headers and "
    "footers. For ALL mathematical expressions, use LaTeX notation with \\( and \\) for inline equations and \\[ and "
    "\\] for display equations. Convert any tables into Markdown format."
)


@dataclass(frozen=True)
class Asking:
    """A way in which a row's question becomes the user's turn.

    Attributes:
        template: The user's turn, with `{query}` in the place of the row's words; alone it asks them as they are.
        usual: What is asked where a row has no words of its own.
    """

    template: str = "{query}"
    usual: str = ""

    def __call__(self, words: str) -> str:
        """The user's turn for a row's words; empty where nothing is asked."""
        return self.template.replace("{query}", words or self.usual)


AS_WRITTEN = Asking()
PAGE = Asking(usual=OCR)
MARKDOWN_PAGE = Asking(usual=OLMOCR)
POPE = Asking(YES_NO.replace("{question}", "{query}"))

_PAGES = ("pages_", "fox_ocr_", "tinypages_", "tinydense_", "ocrbench_v2_")
_BY_NAME = dict.fromkeys(_PAGES, PAGE) | {
    "olmocr_": MARKDOWN_PAGE,
    "omnidocbench_": MARKDOWN_PAGE,
    "coco_pope_": POPE,
    "tinypope_": POPE,
}


def asking_of(name: str) -> Asking:
    """Return how the questions of a file of rows are asked, by its name without the suffix, which is also its task's.

    Evaluation, sampling and validation ask by this. A file of one's own is asked as it is written; pages have a usual
    question, and POPE's are asked for a single word.
    """
    return next((asking for start, asking in _BY_NAME.items() if name.startswith(start)), AS_WRITTEN)
