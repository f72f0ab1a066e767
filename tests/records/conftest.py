"""Fixtures that tests of records share with others."""

from tests.support.runs import make_run  # noqa: F401
from tests.support.training import _frozen_imports, small_model, small_run, write_records  # noqa: F401
