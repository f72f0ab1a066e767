"""Read a pickle that holds plain data, and refuse any other: a pickle can name code, and loading it runs that code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, NoReturn

from perpo.errors import PerpoError


class _Refused(Exception):
    pass


class _PlainUnpickler(pickle.Unpickler):
    """Containers, text, bytes, numbers and None need no class; whatever asks for one is refused."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise _Refused(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        raise _Refused("it refers to objects outside the file")


def read_plain_pickle(path: Path) -> Any:
    """Return what a pickle holds, if that is made of plain containers, text, bytes, numbers and None.

    Byte strings of Python 2 (protocols 0 to 2) become text, one character a byte (Latin-1).

    Raises:
        PerpoError: No such file, not a whole pickle, or one that names code (which is not run).
    """
    if not path.is_file():
        raise PerpoError(
            f"expected a pickle at {path}, found {'a folder' if path.is_dir() else 'no such file'}", "check the path"
        )
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="latin1").load()
    except _Refused as error:
        raise PerpoError(
            f"{path} is refused: {error}. A pickle that names code can run anything",
            "fetch the file again from the authors of the data set",
        ) from error
    except Exception as error:  # damaged pickles raise nearly every kind, MemoryError among them
        text = " ".join(str(error).split()) or type(error).__name__
        raise PerpoError(f"{path} is not a complete pickle: {text}", "fetch it again") from error
