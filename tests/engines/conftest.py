"""Fixtures that tests of engines share with others."""

from tests.support.evaluation import cache, checkpoint, quick_judge, refcoco_folder, rows  # noqa: F401
