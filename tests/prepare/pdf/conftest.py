"""Made PDF files, the command over a folder of them, and what it wrote."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq
import pytest

from perpo.cli.data import main
from tests.support import ROOT


@pytest.fixture(scope="session")
def made_pdfs() -> Iterator[ModuleType]:
    """The module that makes PDF files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import made_pdfs

        yield made_pdfs


@dataclass
class PdfOutput:
    """What the command wrote, and its exit code."""

    code: int
    folder: Path

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.folder / "report.json").read_text(encoding="utf-8"))

    @property
    def questions(self) -> dict[str, str]:
        """Texts by the names of their pictures."""
        lines = (self.folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()
        return {Path(row["image_path"]).name: row["answer"] for row in map(json.loads, lines)}

    def rows(self, name: str = "pdf") -> list[dict[str, Any]]:
        path = self.folder / f"pages_{name}.parquet"
        return pq.read_table(path).to_pylist() if path.exists() else []

    def found(self) -> dict[str, list[str] | str]:
        """Of each document its pages, each a text or `<reason>`; or the reason why it is left out."""
        texts = self.questions | {row["file_name"]: row["answer"] for row in self.rows()}
        found: dict[str, list[str] | str] = {}
        for document in self.report["documents"]:
            if "reason" in document:
                found[document["file"]] = document["reason"]
                continue
            pages = {one["page"]: f"<{one['reason']}>" for one in document["left_out"]}
            for number in document["pages"]:
                pages[number] = texts[f"{document['sha256'][:16]}-{number:04d}.png"]
            found[document["file"]] = [pages[number] for number in sorted(pages)]
        return found

    def files(self) -> dict[str, bytes]:
        """All files by name, with what they hold."""
        paths = [path for path in self.folder.rglob("*") if path.is_file()]
        return {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture
def pdf(tmp_path) -> Callable[..., PdfOutput]:
    """Runs the command over tmp_path/in."""

    def run(*words: str, output: str = "out") -> PdfOutput:
        where = ["--pdf", str(tmp_path / "in"), "--output", str(tmp_path / output)]
        return PdfOutput(main(["pdf", *where, *words]), tmp_path / output)

    return run
