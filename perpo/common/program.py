"""Parts that all programs share: arguments, errors and exit codes, progress, silence.

Nothing here imports torch, so that `--help` answers at once.
"""

from __future__ import annotations

import logging
import os
import select
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence

from perpo.common.arguments import arg, arguments_from_mapping, parse_arguments
from perpo.common.files import NotWritten, atomic_write_bytes, atomic_write_text, disk_error
from perpo.common.progress import progress
from perpo.errors import PerpoError, Terminated

__all__ = [
    "arg",
    "arguments_from_mapping",
    "atomic_write_bytes",
    "atomic_write_text",
    "parse_arguments",
    "progress",
    "quiet_libraries",
    "run_program",
]


# What PEFT says of an adapter that is not used as it was written is heard, beside what `perpo.models.adapters` checks.
_DOES_NOT_MATCH = r"(?is).*(missing adapter keys|mismatch|did not match)"


def run_program(
    main: Callable[[list[str]], int | None],
    argv: Sequence[str] | None = None,
    *,
    interrupted: str = "finished work is kept: run the same command again to continue",
) -> int:
    """Run `main` as a command-line program: its errors become sentences and exit codes.

    Args:
        main: Takes the words of the command line; returns an exit code, or None for 0.
        argv: The words after the program's name; None takes them from the process.
        interrupted: What is said after Ctrl-C or SIGTERM, and where a disk is full.

    Returns:
        What `main` returned; an error's own code (2 for bad input); 3 for anything unexpected;
        130 after Ctrl-C; 143 after SIGTERM, where that is waited for; 141 when the reader of stdout went away.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        code = main(words) or 0
        sys.stdout.flush()  # a reader that went away shows here, not at exit
        return code
    except KeyboardInterrupt:
        print(f"interrupted; {interrupted}", file=sys.stderr)
        return 130
    except Terminated:
        print(f"terminated; {interrupted}", file=sys.stderr)
        return 143
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _stdout_is_gone():
            return 141
        return _report(error, interrupted, debug="--debug" in words)


def quiet_libraries() -> None:
    """Silence the libraries' bars, notices and warnings, and let threads wait quietly; call it before importing them.

    What the user has set in the environment stays.
    """
    for name, value in {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_VERBOSITY": "error",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        # OpenMP's threads spin while they wait: beside any other busy process a step gets 30 times slower.
        "OMP_WAIT_POLICY": "PASSIVE",
    }.items():
        os.environ.setdefault(name, value)
    # DeepSpeed, which accelerate imports where it is installed, warns on stdout that there is no GPU.
    logging.getLogger("DeepSpeed").addFilter(lambda line: line.levelno >= logging.ERROR)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", _DOES_NOT_MATCH, module="peft")


def _report(error: Exception, interrupted: str, *, debug: bool) -> int:
    """Print an error as its sentence and hint (after its traceback with `--debug`); returns the exit code."""
    if debug:
        traceback.print_exception(error)
    known = error if isinstance(error, PerpoError) else disk_error(error)
    if known is not None:
        message, hint, code = known.message, known.hint, known.exit_code
        if isinstance(known, NotWritten):
            hint += f"; {interrupted}"
            _drop_unwritable_stdout()
    else:
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        hint, code = "" if debug else "run again with --debug for the traceback", 3
    print(f"error: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)
    return code


def _drop_unwritable_stdout() -> None:
    """Where stdout itself is what can't be written, turn it to nowhere, so that exiting does not try again."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stdout_is_gone() -> bool:
    """Whether stdout's reader went away; if so stdout is turned to nowhere, so that exiting is quiet."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # a stream that is no file
        return False
    poll = select.poll()
    poll.register(descriptor, 0)  # errors are always reported
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    return True
