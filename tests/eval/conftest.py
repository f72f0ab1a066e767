"""Fixtures that tests of evaluation share with others."""

from tests.support.evaluation import cache, checkpoint, quick_judge, refcoco_folder, rows  # noqa: F401
