"""Hostile files, many workers, and jobs that are killed."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import ROOT

# Where a file's name says so, the renderer does what a hostile file may make it do.
_HOSTILE = """
import os, signal, time
try:
    import pypdfium2
except ImportError:
    pypdfium2 = None
if pypdfium2:
    class Hostile(pypdfium2.PdfDocument):
        def __init__(self, path, *rest):
            self._named = str(path)
            if "opening" in self._named:
                os.kill(os.getpid(), signal.SIGSEGV)
            if "failing" in self._named:
                raise OverflowError("far too much")
            super().__init__(path, *rest)
        def __getitem__(self, index):
            if "crashing" in self._named and index == 1:
                os.kill(os.getpid(), signal.SIGSEGV)
            if "hanging" in self._named and index == 1:
                time.sleep(3600)
            if "greedy" in self._named:
                bytearray(8 * 2**30)
            if "slow" in self._named:
                time.sleep(0.2)
            return super().__getitem__(index)
    pypdfium2.PdfDocument = Hostile
"""


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """Lets names of files make the renderer crash, hang or take memory."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(_HOSTILE)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])


def _write(made_pdfs, folder, *names, pages=2):
    folder.mkdir(exist_ok=True)
    for name in names:
        made = made_pdfs.plain(random.Random(name), pages=pages, lines=5)
        (folder / f"{name}.pdf").write_bytes(made.data)


def test_a_hostile_file_is_reported_and_the_others_are_read(made_pdfs, pdf, tmp_path, hostile):
    _write(made_pdfs, tmp_path / "in", "a-good", "crashing", "failing", "greedy", "hanging", "opening", "z-good")
    done = pdf("--eval_share", "0", "--workers", "1", "--page_seconds", "3")
    assert done.code == 0
    said = {one["file"]: (one["reason"], one["detail"]) for one in done.report["documents"] if "reason" in one}
    assert said == {
        "crashing.pdf": ("crash", "at page 2, SIGSEGV"),
        "failing.pdf": ("failed", "OverflowError: far too much"),
        "hanging.pdf": ("too_slow", "at page 2"),
        "opening.pdf": ("crash", "while it was opened, SIGSEGV"),
    }
    read = {one["file"]: one["pages"] for one in done.report["documents"] if "reason" not in one}
    assert read == {"a-good.pdf": [1, 2], "greedy.pdf": [], "z-good.pdf": [1, 2]}
    # What the crashed one had done is not left behind.
    assert len(list((done.folder / "images").iterdir())) == 4


def test_the_result_is_the_same_with_any_number_of_workers(made_pdfs, pdf, tmp_path, monkeypatch):
    made_pdfs.write_folder(tmp_path / "in", 12)
    (tmp_path / "in" / "again").mkdir()
    (tmp_path / "in" / "again" / "copy.PDF").write_bytes((tmp_path / "in" / "0001-columns.pdf").read_bytes())
    words = ["--eval_share", "0.4", "--longest_side", "500", "--min_height", "1"]
    one, three = (pdf(*words, "--workers", count, output=f"out{count}") for count in ("1", "3"))
    assert one.files() == three.files()
    assert one.found()["again/copy.PDF"] == "same_file"
    assert len(one.found()["0001-columns.pdf"]) == 4


def test_processes_that_do_not_start_are_no_fault_of_the_documents(made_pdfs, pdf, tmp_path, monkeypatch, capfd):
    _write(made_pdfs, tmp_path / "in", "good")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text("import os; os._exit(7)")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    assert pdf().code == 3
    assert "a process that reads PDF files did not start (exit code 7)" in capfd.readouterr().err


def test_without_the_renderer_one_sentence_says_what_to_install(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.pdf").write_bytes(b"%PDF-1.4")
    code = "import sys; sys.modules['pypdfium2'] = None; from perpo.cli.data import main; sys.exit(main(sys.argv[1:]))"
    words = ["pdf", "--pdf", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    job = subprocess.run([sys.executable, "-c", code, *words], env=environment, capture_output=True, text=True)
    assert job.returncode == 2
    assert job.stderr.splitlines() == [
        "error: pypdfium2, which reads PDF files, is not installed",
        "hint: pip install 'perpo[pdf]'",
    ]


def test_a_full_disk_is_no_fault_of_the_documents(made_pdfs, pdf, tmp_path, monkeypatch, capfd):
    _write(made_pdfs, tmp_path / "in", "a", "b")
    (tmp_path / "site").mkdir()
    full = "import errno, pathlib\ndef full(*_):\n    raise OSError(errno.ENOSPC, 'No space left on device')\n"
    (tmp_path / "site" / "sitecustomize.py").write_text(f"{full}pathlib.Path.write_bytes = full\n")
    with monkeypatch.context() as patch:
        patch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
        assert pdf("--eval_share", "0").code == 3
    error = capfd.readouterr().err
    assert "could not be written: No space left on device" in error
    assert "make room" in error
    assert len(pdf("--eval_share", "0").questions) == 4


def _start(tmp_path, *words):
    command = [sys.executable, "-m", "perpo.cli.data", "pdf", "--pdf", str(tmp_path / "in"), "--eval_share", "0"]
    command += ["--output", str(tmp_path / "out"), "--workers", "2", *words]
    places = [str(tmp_path / "site"), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _wait_for_lines(journal: Path, count: int) -> None:
    end = time.monotonic() + 60
    while not (journal.exists() and journal.read_bytes().count(b"\n") >= count):
        assert time.monotonic() < end
        time.sleep(0.02)


def _readers(folder: Path) -> list[str]:
    """Processes that read documents and were started with this folder in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if b"perpo.prepare.pdf.reader" in (process / "cmdline").read_bytes():
                    found += [process.name] if str(folder).encode() in (process / "environ").read_bytes() else []
            except OSError:
                continue
    return found


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_job_goes_on_where_it_was_and_leaves_no_process(made_pdfs, pdf, tmp_path, hostile, how):
    _write(made_pdfs, tmp_path / "in", *(f"slow-{number}" for number in range(8)))
    job = _start(tmp_path)
    journal = tmp_path / "out" / ".pdf-journal.jsonl"
    _wait_for_lines(journal, 4)
    job.send_signal(how)
    job.communicate(timeout=60)
    assert job.returncode == (-9 if how == signal.SIGKILL else 130)
    end = time.monotonic() + 30
    while _readers(tmp_path / "site") and time.monotonic() < end:  # they end when their pipe is closed
        time.sleep(0.02)
    assert _readers(tmp_path / "site") == []
    rows = [json.loads(line) for line in journal.read_text().splitlines()[1:]]
    assert 3 <= len(rows) < 8
    assert not (tmp_path / "out" / "questions.jsonl").exists()
    # A picture that was lost with the machine is made again.
    (tmp_path / "out" / "images" / rows[0]["pages"][0]["image"]).write_bytes(b"")
    refused = pdf("--eval_share", "0", "--dpi", "50")
    assert refused.code == 2
    begun = time.time()
    done = pdf("--eval_share", "0")
    assert done.code == 0
    fresh = pdf("--eval_share", "0", output="fresh")
    assert done.files() == fresh.files()
    kept = [done.folder / "images" / page["image"] for row in rows[1:] for page in row["pages"]]
    assert kept
    assert all(path.stat().st_mtime < begun for path in kept)


@pytest.mark.slow
def test_a_document_of_a_thousand_pages(made_pdfs, pdf, tmp_path):
    _write(made_pdfs, tmp_path / "in", "long", pages=1000)
    done = pdf("--eval_share", "0", "--longest_side", "700", "--min_height", "1")
    assert len(done.questions) == 1000
    refused = pdf("--max_pages", "999", output="refused")
    assert refused.report["documents"][0]["reason"] == "too_many_pages"
