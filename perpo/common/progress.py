"""One progress bar on a terminal, or a line every ten seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LINE_EVERY_S = 10.0


@contextmanager
def progress(total: int, label: str, initial: int = 0) -> Iterator[Callable[[int], None]]:
    """Show one progress bar with rate and remaining time on stderr.

    Where stderr is no terminal, a line is printed every ten seconds instead (so that a short
    job prints none).

    Args:
        total: How many items there are.
        label: What is being done.
        initial: How many of them an earlier run had done.

    Yields:
        A function to be called with the number of items finished since the last call.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    rate = _Rate(total, initial)
    if not console.is_terminal:
        yield _line_printer(rate, label)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    # stdout is left alone: what is piped must not end up on the terminal
    with Progress(*columns, console=console, redirect_stdout=False) as bar:
        task = bar.add_task(label, total=total, completed=initial, rate="")

        def advance(count: int) -> None:
            rate.add(count)
            bar.update(task, advance=count, rate=f"{rate.per_second:.1f}/s")

        yield advance


class _Rate:
    """Items done by this run, by the clock."""

    def __init__(self, total: int, initial: int) -> None:
        self.total = total
        self.finished = initial
        self._initial = initial
        self._start = time.monotonic()

    def add(self, count: int) -> None:
        self.finished += count

    @property
    def per_second(self) -> float:
        return (self.finished - self._initial) / max(time.monotonic() - self._start, 1e-9)

    def __str__(self) -> str:
        left = round((self.total - self.finished) / max(self.per_second, 1e-9))
        clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        return f"{self.finished}/{self.total}, {self.per_second:.1f}/s, {clock} left"


def _line_printer(rate: _Rate, label: str) -> Callable[[int], None]:
    last = time.monotonic()

    def advance(count: int) -> None:
        nonlocal last
        rate.add(count)
        if time.monotonic() - last >= _LINE_EVERY_S:
            last = time.monotonic()
            print(f"{label}: {rate}", file=sys.stderr, flush=True)

    return advance
