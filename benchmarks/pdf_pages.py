"""Pages a second of `perpo-data pdf`, at 1,000 x 1,400 pixels, and what a page costs in the formats of pictures.

The folder holds documents of all kinds of `made_pdfs`. Seconds of CPU are those of the command and its workers; on a
machine that others use too they say more than the clock. Run: python benchmarks/pdf_pages.py
"""

from __future__ import annotations

import argparse
import io
import os
import random
import resource
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import made_pdfs
import pypdfium2
from PIL import Image

from perpo.cli.data import main as perpo_data

_FORMATS: list[tuple[str, str, dict[str, Any]]] = [
    ("png, level 1", "PNG", {"compress_level": 1}),
    ("png, level 3 (ours)", "PNG", {"compress_level": 3}),
    ("png, level 6", "PNG", {"compress_level": 6}),
    ("jpeg, quality 90 (ours)", "JPEG", {"quality": 90}),
]


def main() -> None:
    """Print the cost of formats, then pages a second by number of workers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--dense", type=int, default=20, help="documents of six full pages (2,800 letters) beside them")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as name:
        formats(made_pdfs.plain(random.Random(0), lines=50))
        for what, folder in (("twelve kinds", Path(name) / "kinds"), ("full pages", Path(name) / "full")):
            if what == "full pages":
                folder.mkdir()
                for number in range(args.dense):
                    made = made_pdfs.plain(random.Random(number), lines=50)
                    (folder / f"{number}.pdf").write_bytes(made.data)
                pages = 6 * args.dense
            else:
                made_all = made_pdfs.write_folder(folder, args.documents)
                pages = sum(len(made.texts) for made in made_all.values())
            print(f"\n{what}: {len(list(folder.iterdir()))} documents, {pages} pages, {os.cpu_count()} cores")
            print(f"{'workers':>7} {'seconds':>9} {'pages/s':>9} {'CPU s':>9} {'pages/CPU s':>12}")
            for workers in args.workers:
                report(folder, Path(name) / f"{folder.name}-{workers}", workers, pages)


def formats(made: made_pdfs.MadePdf) -> None:
    """Print what a page costs in each format, in the colours that it is saved in (grey)."""
    document = pypdfium2.PdfDocument(made.data)
    start = time.process_time()
    pictures = [page.render(scale=1400 / page.get_height()).to_pil().convert("L") for page in document]
    each = 1000 / len(pictures)
    print(f"rendering: {(time.process_time() - start) * each:.1f} ms of CPU a page of {pictures[0].size} pixels")
    print(f"{'format':<24} {'ms of CPU':>9} {'KB':>6}")
    for name, kind, options in _FORMATS:
        start = time.process_time()
        size = sum(saved(picture, kind, options) for picture in pictures)
        print(f"{name:<24} {(time.process_time() - start) * each:>9.1f} {size / 1000 / len(pictures):>6.0f}")


def saved(picture: Image.Image, kind: str, options: dict[str, Any]) -> int:
    """Return how many bytes a picture takes."""
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.tell()


def report(folder: Path, output: Path, workers: int, pages: int) -> None:
    """Run the command and print a line."""
    before, start = cpu(), time.perf_counter()
    words = ["--pdf", str(folder), "--output", str(output), "--workers", str(workers)]
    said = io.StringIO()
    with redirect_stdout(said), redirect_stderr(said):
        code = perpo_data(["pdf", *words])
    if code:
        sys.exit(said.getvalue())
    seconds, used = time.perf_counter() - start, cpu() - before
    print(f"{workers:>7} {seconds:>9.1f} {pages / seconds:>9.1f} {used:>9.1f} {pages / used:>12.1f}")


def cpu() -> float:
    """Return the seconds of CPU of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main()
