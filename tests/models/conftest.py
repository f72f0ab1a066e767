"""Fixtures that tests of models share with others."""

from tests.support.training import _frozen_imports, small_model, small_run, write_records  # noqa: F401
