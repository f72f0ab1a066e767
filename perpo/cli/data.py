"""perpo-data: build benchmark rows (Parquet) from what people have, and check training data against them."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from perpo import __version__
from perpo.benchmarks.table import INFO
from perpo.common.arguments import find_program, parse_arguments
from perpo.common.hints import did_you_mean
from perpo.common.program import quiet_libraries, run_program
from perpo.errors import PerpoError
from perpo.prepare import arguments

if TYPE_CHECKING:
    from perpo.prepare.parquet import Written

_PROG = "perpo-data"
_SUITES = {info.rows: info.suites[0] for info in INFO.values() if info.rows}
"""perpo-eval's suite for a kind of rows."""

_TINY_TOKENS = 256
"""Tokens of an answer about a page that the embedded model's context holds, beside a picture and a long question."""


@dataclass(frozen=True)
class _Command:
    """A command: its arguments, where the work is done ("module:function"), and what it does in a line."""

    arguments: type[Any]
    work: str
    line: str


_COMMANDS = {
    "refer": _Command(
        arguments.ReferArguments,
        "perpo.prepare.refer.rows:build",
        "RefCOCO, RefCOCO+ and RefCOCOg from the refer layout and COCO's train2014 images",
    ),
    "questions": _Command(
        arguments.QuestionsArguments,
        "perpo.prepare.refer.questions:build",
        "questions for perpo-sample, from the training files that refer wrote",
    ),
    "pope": _Command(
        arguments.PopeArguments,
        "perpo.prepare.pope:build",
        "POPE's yes/no questions from its JSON lines and COCO's val2014 images",
    ),
    "fox": _Command(
        arguments.FoxArguments,
        "perpo.prepare.pages.fox:build_fox",
        "Fox's English and Chinese pages from its folder focus_benchmark_test",
    ),
    "ocrbench": _Command(
        arguments.OcrbenchArguments,
        "perpo.prepare.pages.ocrbench:build_ocrbench",
        "OCRBench v2's full pages, English and Chinese, from the hub or a folder",
    ),
    "olmocr": _Command(
        arguments.OlmocrArguments,
        "perpo.prepare.pages.olmocr:build_olmocr",
        "olmOCR-Bench's pages with their unit tests, without mathematics, from the hub or a folder",
    ),
    "omnidocbench": _Command(
        arguments.OmnidocbenchArguments,
        "perpo.prepare.pages.omnidocbench:build_omnidocbench",
        "OmniDocBench's pages with their blocks of text, without tables and formulas, from the hub or a folder",
    ),
    "pages": _Command(
        arguments.PagesArguments,
        "perpo.prepare.pages.folder:build_folder",
        "your own pages: a folder of images, each with its text in a .txt file of the same name",
    ),
    "pdf": _Command(
        arguments.PdfArguments,
        "perpo.prepare.pdf.build:build",
        "your own PDF files: pictures and texts of their pages, as questions for training and rows for evaluation",
    ),
    "jsonl": _Command(
        arguments.JsonlArguments,
        "perpo.prepare.own_rows:build",
        "your own rows: JSON, CSV or Parquet with image, question and answer",
    ),
    "hub": _Command(
        arguments.HubArguments,
        "perpo.prepare.hub.rows:build",
        "RefCOCO/+/g and POPE from the Hugging Face hub, at a pinned commit",
    ),
    "overlap": _Command(
        arguments.OverlapArguments,
        "perpo.prepare.overlap.command:check_overlap",
        "check whether training data show images of an evaluation (then exit code 2), and write the data "
        "without them (--output)",
    ),
    "wordnet": _Command(
        arguments.WordnetArguments,
        "perpo.prepare.wordnet:find_or_fetch",
        "find or fetch WordNet, which METEOR needs",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Return entry point of the program; returns its exit code."""
    return run_program(_main, argv, interrupted="finished files are kept, unfinished ones are not")


def _main(argv: list[str]) -> None:
    words = [word for word in argv if word != "--debug"]  # run_program has acted on it
    if not words or words[0] in ("--help", "-h"):
        print(_help())
        return
    if words[0] == "--version":
        print(f"{_PROG} {__version__}")
        return
    name = words[0]
    if name not in _COMMANDS:
        raise PerpoError(f"there is no command '{name}'", did_you_mean(name, _COMMANDS))
    command = _COMMANDS[name]
    description = command.line[0].upper() + command.line[1:] + "."
    args = parse_arguments(command.arguments, words[1:], prog=f"{_PROG} {name}", description=description)
    quiet_libraries()
    if name == "wordnet":
        print(_work(command)(args.target))
        return
    written = _work(command)(args)
    if written:
        _show(written)
        _show_next(written)


def _work(command: _Command) -> Any:
    module, _, function = command.work.partition(":")
    return getattr(importlib.import_module(module), function)


def _help() -> str:
    width = max(map(len, _COMMANDS))
    lines = [f"  {name:<{width}}  {command.line}" for name, command in _COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {_PROG} COMMAND --flags",
            "",
            (
                "Build benchmark rows (Parquet files with the images inside) from your data, and check training data "
                "against them."
            ),
            "",
            *lines,
            "",
            f"{_PROG} COMMAND --help lists the flags of a command.",
        ]
    )


def _show(written: Sequence[Written]) -> None:
    """Print what was written, a line a file, with the digests below (sha256sum gives the same)."""
    names = list(dict.fromkeys(name for one in written for name in one.file.counts))
    table = [["file", *names, "counts"]]
    for one in written:
        counts = [str(one.file.counts.get(name, "")) for name in names]
        table.append([one.file.path.name, *counts, one.file.verdict or "none known"])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:], strict=False)),
        ]
        print("  ".join([*cells, row[-1]]))
    print()
    for one in written:
        print(f"{one.sha256}  {one.file.path}")


def _show_next(written: Sequence[Written]) -> None:
    """Say on stderr how the evaluations among the files are used."""
    files = [one.file for one in written if one.file.split != "train"]
    suites = list(dict.fromkeys(_SUITES[file.kind] for file in files))
    for suite in suites:
        words = [find_program("perpo-eval"), "--suite", suite, "--data", str(files[0].path.parent), "--model", "tiny"]
        other = "or another --model"
        if any(file.kind == "pages" and _SUITES[file.kind] == suite for file in files):
            words += ["--max_new_tokens", str(_TINY_TOKENS)]
            other += ", and its own limit without --max_new_tokens; the tiny model has no room for more"
        print(f"{_PROG}: evaluate with {shlex.join(words)}   # {other}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
