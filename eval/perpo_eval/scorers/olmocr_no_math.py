"""The scores of a page of olmOCR-Bench: how many of its unit tests pass. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from perpo.texts.unit_tests import TYPES, TestedPage, UnitTest


def score_tests(text: str | None, unit_tests: Sequence[UnitTest]) -> dict[str, float | None]:
    """Return how many tests a page has and passes, in all and by type.

    Args:
        text: What the model said; None if no answer could be read, which passes nothing. An empty answer passes tests
            of absence, as in the official program.
        unit_tests: The tests of the page.

    Returns:
        `passed`, `tests`, `page_share` (their ratio), and `passed:<type>` and `tests:<type>`, None without such tests.
    """
    page = None if text is None else TestedPage(text)
    verdicts = [(test["type"], page is not None and page.passes(test)) for test in unit_tests]
    passed, tests = sum(verdict for _, verdict in verdicts), len(verdicts)
    scores: dict[str, float | None] = {"passed": float(passed), "tests": float(tests)}
    scores["page_share"] = passed / tests if tests else None
    for kind in TYPES:
        of_kind = [verdict for name, verdict in verdicts if name == kind]
        scores[f"passed:{kind}"] = float(sum(of_kind)) if of_kind else None
        scores[f"tests:{kind}"] = float(len(of_kind)) if of_kind else None
    return scores
