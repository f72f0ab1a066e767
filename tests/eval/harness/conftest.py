"""Fixtures of tests of lmms-eval's tasks."""

from tests.support.any_task import data, own, pair, rows, said  # noqa: F401
