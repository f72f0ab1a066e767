"""The one error that users see: a sentence, a hint, an exit code, and no traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class PerpoError(Exception):
    """Something the user can mend.

    Args:
        message: One sentence: what was expected and what was found.
        hint: What to do about it.
        exit_code: 2 for usage, bad input or runs that cannot be compared; 3 for incomplete work
            or infrastructure.
    """

    def __init__(self, message: str, hint: str = "", *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.exit_code = exit_code


class Terminated(BaseException):
    """The process was sent SIGTERM and has put its work in order; like KeyboardInterrupt no error of the work."""


@contextmanager
def placed(where: str) -> Iterator[None]:
    """Put the place, such as a file and a record's number, before what a `PerpoError` says."""
    try:
        yield
    except PerpoError as error:
        raise PerpoError(f"{where}: {error.message}", error.hint, exit_code=error.exit_code) from error
