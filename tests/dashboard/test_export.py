"""perpo-dashboard export: one page that needs nothing, and what lies beside it."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from perpo.records.store import resolve_run
from perpo.results.regression.report import compare_runs
from perpo.results.regression.report_json import as_json
from perpo.results.regression.text import headline
from perpo_dashboard.cli import main
from tests.support import ROOT

RESULTS = ROOT / "results"


def export(out: Path, *words: str) -> int:
    return main(["export", "--results", str(RESULTS), "--out", str(out), *words])


def test_a_comparison_is_written_as_files(tmp_path, capsys) -> None:
    assert export(tmp_path / "new" / "out", "--run", "base", "--run", "dpo") == 0
    told = capsys.readouterr()
    page = Path(told.out.strip())
    assert page == tmp_path / "new" / "out" / "index.html"
    runs = [resolve_run(name, RESULTS) for name in ("base", "dpo")]
    report = compare_runs(*runs)
    assert told.err.strip() == headline(report)
    html = page.read_text(encoding="utf-8")
    assert f"<title>{headline(report)}</title>" in html
    assert json.loads((page.parent / "report.json").read_text()) == json.loads(json.dumps(as_json(report)))
    with open(page.parent / "leaderboard.csv", newline="") as file:
        assert [row["run_id"] for row in csv.DictReader(file)] == [run.record.run_id for run in runs]
    linked = set(re.findall(r'href="([^"]+)"', html)) - set(re.findall(r'<image href="([^"]+)"', html))
    assert linked == {each.name for each in page.parent.iterdir()} - {"index.html"}


def test_the_page_asks_nobody_for_anything(tmp_path) -> None:
    assert export(tmp_path, "--run", "base", "dpo") == 0  # both behind one --run
    html = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<script" not in html
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(https?:|//)", html)


def test_runs_are_compared_on_what_both_have_if_asked(tmp_path, capsys) -> None:
    perpo = str(resolve_run("perpo", RESULTS / "tiny").path)
    assert export(tmp_path, "--run", "tiny", "--run", perpo) == 2
    assert "cannot be compared" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert export(tmp_path, "--run", "tiny", "--run", perpo, "--common") == 0
    assert "Compared on the 4,040 samples that both have" in (tmp_path / "report.md").read_text()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--run", "base"], 2, "--run names 1 runs"),
        (["--run", "base", "dpo", "--run", "perpo"], 2, "--run names 3 runs"),
        (["--run", "base", "--run", "nobody"], 2, "there is no run nobody"),
        ([], 2, "run"),
        (["--run", "base", "--run", "dpo", "--media", "nowhere"], 2, "the folder nowhere is not there"),
    ],
)
def test_what_it_cannot_do_is_said(tmp_path, capsys, words, code, said) -> None:
    assert export(tmp_path / "out", *words) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_to(tmp_path, capsys) -> None:
    (tmp_path / "file").write_text("in the way")
    assert export(tmp_path / "file" / "out", "--run", "base", "--run", "dpo") == 2
    assert "cannot be made: Not a directory" in capsys.readouterr().err


def test_it_needs_no_streamlit(tmp_path) -> None:
    words = ["export", "--results", str(RESULTS), "--out", str(tmp_path), "--run", "base", "--run", "dpo"]
    code = f"import sys; sys.modules['streamlit'] = None; from perpo_dashboard.cli import main; sys.exit(main({words}))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
