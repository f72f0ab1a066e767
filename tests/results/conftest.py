"""Fixtures that tests of results share with others."""

from tests.support.runs import make_run  # noqa: F401
