"""What the tests of the dashboard share: folders of runs, announced as the program does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest

from perpo_dashboard.shared.settings import Settings
from tests.support import ROOT

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="session")
def made_runs() -> Iterator[object]:
    """The module that makes up runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import made_runs

        yield made_runs


@pytest.fixture
def announce(monkeypatch, tmp_path) -> Callable[..., None]:
    """Show a results folder (and media folders), as if the program had been started over it; nothing cached is left."""
    import streamlit as st

    monkeypatch.setenv("PERPO_DASHBOARD", "")  # so that it is taken back after the test
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    st.cache_data.clear()
    st.cache_resource.clear()
    return lambda results, *media: Settings(results, media).announce()


@pytest.fixture
def write_training() -> Callable[..., dict[str, object]]:
    """Makes up a training run: `made_trainings.write_training`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        from made_trainings import write_training

        return write_training


@pytest.fixture(autouse=True)
def _own_main():
    """Streamlit leaves a page as `__main__`, which a process that a later test starts would run again."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main
