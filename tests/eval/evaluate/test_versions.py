"""A version of scores stands for one code: who changes the code decides whether numbers can change."""

import json
from pathlib import Path

import pytest

from perpo.benchmarks.metrics import METRICS
from perpo_eval.benchmarks.judged import JUDGE_SOURCES
from perpo_eval.evaluate import versions


@pytest.mark.parametrize("benchmark", METRICS)
def test_a_version_counts_up_when_its_scorer_changes(benchmark: str) -> None:
    noted = json.loads(versions.DIGESTS.read_text(encoding="utf-8"))[benchmark]
    assert noted == versions.digests()[benchmark], (
        f"the code that scores {benchmark} has changed: raise its version in perpo_eval/benchmarks if a "
        "number can change, then run python -m perpo_eval.evaluate.versions"
    )


def test_the_code_of_a_scorer_is_what_it_reads_answers_by(monkeypatch, tmp_path) -> None:
    """Another box reader is another grounding scorer, and no other POPE scorer."""
    before = {name: versions.scorer_digest(name) for name in ("grounding", "pope")}
    real = versions.module_file

    def changed(name: str) -> Path:
        if not name.endswith("boxes.text"):
            return real(name)
        (tmp_path / "box_text.py").write_text(real(name).read_text() + "\nMORE = 1\n")
        return tmp_path / "box_text.py"

    monkeypatch.setattr(versions, "module_file", changed)
    assert versions.scorer_digest("grounding") != before["grounding"]
    assert versions.scorer_digest("pope") == before["pope"]


def test_the_suites_digest_is_of_what_the_code_does(tmp_path: Path, monkeypatch) -> None:
    """A comment, a docstring or an import changes no digest: a recipe that is half done goes on."""
    before = versions.suite_sha256()
    real = versions.module_file

    def other(change):
        def module_file(name: str) -> Path:
            if name != JUDGE_SOURCES["judge's question"]:
                return real(name)
            (tmp_path / "moved.py").write_text(change(real(name).read_text()))
            return tmp_path / "moved.py"

        monkeypatch.setattr(versions, "module_file", module_file)
        return versions.suite_sha256()

    assert other(lambda text: '"""Says it better."""\n# Why.\nimport os\n' + text.split('"""', 2)[2]) == before
    assert other(lambda text: text + "\nMORE = 1\n") != before
