"""What the tests of training share: a model that runs in milliseconds."""

from __future__ import annotations

import gc

import pytest

import perpo.training  # noqa: F401  so that what it imports is frozen below
from perpo.tiny.model import ModelShape, save_random_model

# 4 image tokens, one layer each, room for 128 tokens.
SHAPE = ModelShape(32, 16, 32, 1, -1, 32, 1, 128)


@pytest.fixture(scope="session", autouse=True)
def _frozen_imports():
    """Every run collects garbage once; walking all that was ever imported would take longer than the run."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def small_model(tmp_path_factory):
    """A checkpoint with random weights, as small as LLaVA gets."""
    return save_random_model(tmp_path_factory.mktemp("small"), SHAPE)
