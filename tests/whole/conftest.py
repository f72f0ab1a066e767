"""Fixtures that tests of whole programs share with others."""

from tests.support.evaluation import cache, checkpoint, quick_judge, refcoco_folder, rows  # noqa: F401
from tests.support.training import _frozen_imports, small_model, small_run, write_records  # noqa: F401
