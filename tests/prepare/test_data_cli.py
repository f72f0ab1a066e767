"""perpo-data as a user runs it: in a process of its own, with wrong words, and killed in the middle."""

import hashlib
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import perpo.prepare
from perpo.cli.data import main
from perpo.common.arguments import parse_arguments
from perpo_eval.arguments import EvalArguments

PROGRAM = [sys.executable, "-m", "perpo.cli.data"]
# Kills its own process, as kill -9 would, when the second group of rows is to be written.
KILLED = """
import os, signal, sys
import pyarrow.parquet as pq
from perpo.cli.data import main
from perpo.prepare import parquet

class Writer(pq.ParquetWriter):
    groups = 0
    def write_table(self, table, *words, **settings):
        if self.groups:
            os.kill(os.getpid(), signal.SIGKILL)
        self.groups += 1
        super().write_table(table, *words, **settings)

pq.ParquetWriter = Writer
parquet._GROUP_ROWS = 1
sys.exit(main(sys.argv[1:]))
"""


def _run(*words, program=PROGRAM):
    return subprocess.run([*program, *map(str, words)], capture_output=True, text=True, timeout=60)


@pytest.fixture
def words(refer, tmp_path):
    base = ["refer", "--root", refer.root, "--images", refer.images, "--output", tmp_path / "out"]
    return [*map(str, base), "--datasets", "refcoco", "--splits", "val", "--allow_other_counts"]


def test_a_process_of_its_own_builds_the_rows_and_prints_them(words, tmp_path):
    done = _run(*words)
    assert done.returncode == 0, done.stderr
    path = tmp_path / "out" / "refcoco_val.parquet"
    table, _, digests = done.stdout.partition("\n\n")
    header, row = table.splitlines()
    assert header.split() == ["file", "rows", "images", "expressions", "counts"]
    assert row.startswith("refcoco_val.parquet")
    assert row.split()[1:4] == ["2", "2", "3"]
    assert "2 refs instead of 3811" in row
    assert digests.split() == [hashlib.sha256(path.read_bytes()).hexdigest(), str(path)]
    assert "Traceback" not in done.stderr
    said, command = done.stderr.splitlines()[-1].split("perpo-data: evaluate with ")
    program, *flags = shlex.split(command, comments=True)
    args = parse_arguments(EvalArguments, flags, prog="perpo-eval", description="")
    assert (said, Path(program).name) == ("", "perpo-eval")
    assert args == EvalArguments(suite="grounding", data=str(path.parent), model="tiny")


def test_a_training_file_alone_is_nothing_to_evaluate_with(words, capsys):
    assert main([*words[:-2], "train", words[-1]]) == 0
    assert "perpo-eval" not in capsys.readouterr().err


def test_a_second_run_is_refused_and_overwrite_gives_the_same_bytes(words, tmp_path):
    first = _run(*words)
    again = _run(*words)
    assert again.returncode == 2
    assert "1 of 1 files already exist" in again.stderr
    assert "--overwrite" in again.stderr
    assert _run(*words, "--overwrite").stdout == first.stdout


def test_a_kill_in_the_middle_leaves_no_half_file(words, tmp_path):
    killed = _run(*words, program=[sys.executable, "-c", KILLED])
    assert killed.returncode == -9
    path = tmp_path / "out" / "refcoco_val.parquet"
    (left,) = path.parent.iterdir()
    assert left.name.startswith(".refcoco_val.parquet.")
    again = _run(*words)
    assert again.returncode == 0, again.stderr
    assert f"{left} was left by a run that was killed" in again.stderr
    assert pq.read_table(path).num_rows == 2


def test_a_kill_in_the_middle_leaves_the_old_file(words, tmp_path):
    _run(*words)
    path = tmp_path / "out" / "refcoco_val.parquet"
    before = path.read_bytes()
    assert _run(*words, "--overwrite", program=[sys.executable, "-c", KILLED]).returncode == -9
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("wrong", "message", "hint"),
    [
        (["rfer"], "there is no command 'rfer'", "did you mean 'refer'?"),
        (["refer", "--rot", "x"], "there is no argument --rot", "did you mean '--root'?"),
        (["refer", "--output", "out"], "--root is required", "see perpo-data refer --help"),
        (["pages", "--folder", "nowhere", "--name", "x", "--output", "out"], "expected a folder of pages", "--folder"),
        (["jsonl", "--kind", "page", "--file", "x"], "--kind expects one of pages, yesno", "did you mean 'pages'?"),
        (["fox", "--root", "nowhere", "--output", "out"], "en_page_ocr.json, found no such file", "--root"),
        (
            ["pope", "--questions", "nowhere", "--images", "x", "--output", "out"],
            "nowhere, found nothing there",
            "--questions",
        ),
        (["overlap", "--train", "nowhere.jsonl", "--against", "x"], "found nothing there", "--against"),
    ],
)
def test_wrong_words_get_a_sentence_and_a_hint(wrong, message, hint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(wrong) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[0]
    assert hint in error.splitlines()[1]
    assert list(tmp_path.iterdir()) == []


def test_help_lists_the_commands_and_each_has_its_flags(capsys):
    for words in ([], ["--help"], ["-h"]):
        assert main(words) == 0
    listed = capsys.readouterr().out
    for name in ("refer", "pope", "fox", "pages", "jsonl", "hub", "overlap", "wordnet"):
        assert f"\n  {name} " in listed
        with pytest.raises(SystemExit) as caught:
            main([name, "--help"])
        assert caught.value.code == 0
        assert f"usage: perpo-data {name} " in capsys.readouterr().out


def test_the_commands_need_no_torch():
    folder = Path(perpo.prepare.__file__).parent
    files = [path.relative_to(folder).with_suffix("") for path in folder.rglob("*.py") if path.stem != "__init__"]
    names = ["perpo.cli.data", *(".".join(("perpo.prepare", *file.parts)) for file in sorted(files))]
    assert len(names) > 15
    code = (
        f"import importlib, sys\nfor name in {names}:\n    importlib.import_module(name)\n"
        "assert not {'torch', 'transformers', 'datasets', 'pycocotools', 'perpo_eval'} & set(sys.modules)\n"
    )
    done = _run(program=[sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr
