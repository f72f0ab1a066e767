"""lmms-eval without its bars, its log and its prints on stdout."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def quiet_lmms_eval() -> Iterator[Any]:
    """Hand out the module of lmms-eval's tasks; no bars, no log, no prints on stdout."""
    with contextlib.redirect_stdout(sys.stderr):
        from loguru import logger

        logger.disable("lmms_eval")
        import lmms_eval.api.metrics  # which makes its metrics known
        import lmms_eval.api.task
        from PIL import ImageFile

        module: Any = lmms_eval.api.task
        bar = module.tqdm
        module.tqdm = lambda *words, **options: bar(*words, **options | {"disable": True})
        try:
            yield module
        finally:
            module.tqdm = bar
            ImageFile.LOAD_TRUNCATED_IMAGES = False  # importing lmms-eval sets it
