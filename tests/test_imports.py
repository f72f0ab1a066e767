"""Who may import whom, and which modules must do without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

TORCH_FREE = [
    "perpo.boxes.formats", "perpo.models.answer_format", "perpo.boxes.readings", "perpo.data.truths", "perpo",
    "perpo.boxes", "perpo.rewards", "perpo.models.families", "perpo.data", "perpo.records.run_record",
    "perpo.records.store", "perpo.stats", "perpo.stats.discordance", "perpo.results.compare", "perpo.results.text",
    "perpo.results.run_tables", "perpo.benchmarks.metrics", "perpo.benchmarks.prompts", "perpo.train.arguments",
    "perpo.cli.train", "perpo.cli.sample", "perpo.tiny", "perpo.tiny.world", "perpo_eval.cli.eval",
    "perpo_eval.cli.run", "perpo_eval.recipes.reading", "perpo_eval.recipes.experiment", "perpo_eval.rows.suites",
    "perpo_eval.scorers.grounding", "perpo_eval.scorers.pope", "perpo_eval.scorers.ocr",
    "perpo_eval.evaluate.scoring", "perpo_eval.rows.documents", "perpo_eval.benchmarks.table", "perpo.cli.data",
    "perpo.train.resuming", "perpo.records.training_record", "perpo.results.leaderboard.views",
    "perpo.results.leaderboard.files", "perpo_dashboard.leaderboard.boards", "perpo_dashboard.leaderboard.tables",
    "perpo.stats.paired", "perpo.results.leaderboard.board", "perpo.results.regression.report",
    "perpo.results.regression.flips", "perpo.results.regression.text", "perpo.cli.report",
    "perpo.train.outputs.card", "perpo.train.outputs.services", "perpo.train.outputs.merge",
    "perpo.train.authors.flags", "perpo.train.authors.checks", "perpo_dashboard.cli",
    "perpo_dashboard.shared.stored", "perpo_dashboard.shared.pictures", "perpo_dashboard.vote.result",
    "perpo_dashboard.training.rewards", "perpo_eval.judge.asking", "perpo_eval.judge.ratings",
    "perpo_eval.judge.verdicts", "perpo_eval.judge.readings", "perpo_eval.cli.judge", "perpo_eval.rows.published",
    "perpo.tiny.world.judged", "perpo.common.locks", "perpo.train.samplers", "perpo.common.redact",
    "perpo_eval.engines.failures", "perpo.engines.bodies", "perpo.data.images", "perpo.data.text_rows",
    "perpo.data.row_formats", "perpo.data.placeholders", "perpo.models.control_tokens", "perpo.answers",
    "perpo.boxes.text",
]  # fmt: skip


def _imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    ("folder", "forbidden"),
    [
        ("perpo", {"perpo_eval", "perpo_dashboard"}),
        ("eval/perpo_eval", {"perpo_dashboard"}),
        ("dashboard/perpo_dashboard", {"perpo_eval", "torch"}),
    ],
)
def test_imports_go_one_way(folder, forbidden):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    assert {str(path): found for path in files if (found := _imported(path) & forbidden)} == {}


def test_pictures_are_opened_in_one_place():
    """Whoever opens one without `perpo.data.images.open_image` sees it lying, or black where it is transparent."""
    opening = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for folder in ("perpo", "eval", "dashboard")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr == "open" and ast.unparse(node.value).endswith("Image"))
        or (isinstance(node, ast.ImportFrom) and node.module == "PIL.Image")
    ]
    assert len(opening) == 1
    assert opening[0].startswith("perpo/data/images.py:")


def test_what_needs_no_torch_imports_none():
    code = (
        "import importlib, sys\n"
        f"for name in {TORCH_FREE}:\n"
        "    importlib.import_module(name)\n"
        "    assert not {'torch', 'transformers', 'lmms_eval'} & set(sys.modules), name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
