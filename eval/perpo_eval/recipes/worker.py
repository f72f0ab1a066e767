"""A process of `perpo-run --jobs N`: it does one experiment after another, as it is told through a pipe."""

from __future__ import annotations

import io
import os
import pickle
import signal
import sys
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from perpo.common.processes import end_with_parent
from perpo.common.program import quiet_libraries
from perpo.errors import Terminated
from perpo.models.keeping import keeping_base
from perpo_eval.recipes.stage import SPEAKER

if TYPE_CHECKING:
    from perpo_eval.recipes.jobs import SharedWork


_STDERR = 2


class _Lines(io.TextIOBase):
    """What is said, in whole lines, each under the name of its experiment: others write to the same terminal."""

    about = ""

    def __init__(self) -> None:
        self._line = ""

    def write(self, text: str) -> int:
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            said = line if line.startswith(SPEAKER) or not line else f"{SPEAKER}{self.about}{line}"
            os.write(_STDERR, f"{said}\n".encode(errors="backslashreplace"))
        return len(text)


def main(descriptor: int) -> None:
    """Do what is asked for until nobody asks for more."""
    end_with_parent()
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):  # by which bars would be drawn all the same
        os.environ.pop(name, None)
    sys.stderr = lines = _Lines()
    quiet_libraries()
    pipe = Connection(descriptor)
    try:
        with suppress(EOFError, OSError), keeping_base():
            work: SharedWork = pipe.recv()
            import perpo.train.run  # noqa: F401  (torch loads while the first process does what all share)

            while True:
                task = pipe.recv()
                lines.about = f"{task}: " if isinstance(task, str) else ""
                pipe.send(_error_of(work, task))
    except Terminated:
        sys.exit(128 + signal.SIGTERM)


def _error_of(work: SharedWork, task: str | list[str]) -> Exception | None:
    """What the task raised, if it did."""
    try:
        work.do(task) if isinstance(task, str) else work.prepare(task)
    except Exception as error:
        error.add_note(traceback.format_exc())  # for --debug, since it is raised again elsewhere
        try:  # it goes through the pipe as it would come out: some libraries' errors cannot be made again
            return pickle.loads(pickle.dumps(error))
        except Exception:
            other = RuntimeError(f"{type(error).__name__}: {error}")
            other.add_note(error.__notes__[-1])
            return other
    return None


if __name__ == "__main__":
    main(int(sys.argv[1]))
