"""Who may import whom, and which modules must do without torch: `tools/layers.py` has the table."""

import ast
import importlib.util
import subprocess
import sys

import pytest

from tests.support import ROOT

_SPEC = importlib.util.spec_from_file_location("layers", ROOT / "tools" / "layers.py")
layers = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(layers)


def test_a_package_imports_only_what_stands_on_lines_below_its_own():
    files = layers.modules()
    assert len(files) > 250
    assert layers.upward(layers.imports(files)) == []


def test_no_modules_import_each_other_in_a_loop():
    assert layers.circles(layers.imports(layers.modules())) == []


def test_every_package_has_one_line_and_every_line_its_packages():
    there = {layers.package_of(module) for module in layers.modules()} - {(name, "") for name in layers.LINES}
    named = [(name, package) for name, lines in layers.LINES.items() for line in lines for package in line]
    assert sorted(named) == sorted(there)


def test_flags_are_taken_apart_at_the_head_of_a_job():
    """Whoever is below a head is given its own part of the flags (`perpo_eval.wanted`), never all of them."""
    heads = {"perpo_eval.evaluate.run", "perpo_eval.evaluate.rescoring", "perpo_eval.recipes.arguments"}
    taken = layers.imports(layers.modules())
    users = {module for module, target, _ in taken if target == "perpo_eval.arguments"}
    assert {module for module in users if not module.startswith("perpo_eval.cli.")} == heads


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ({"perpo.data.a": "from perpo.models.b import x", "perpo.models.b": ""}, "upward"),
        ({"perpo.data.a": "def f():\n    import perpo.models.b", "perpo.models.b": ""}, "upward"),
        ({"perpo.data.a": "if TYPE_CHECKING:\n    from perpo.models import b", "perpo.models.b": ""}, "upward"),
        ({"perpo.sample.a": "from perpo.train.b import x", "perpo.train.b": ""}, "upward"),
        ({"perpo.cli.a": "from perpo_eval.cli.b import x", "perpo_eval.cli.b": ""}, "upward"),
        ({"perpo_dashboard.cli": "import perpo_eval.cli.b", "perpo_eval.cli.b": ""}, "upward"),
        ({"perpo.data.a": "from perpo.data.b import x", "perpo.data.b": "from perpo.data import a"}, "circle"),
        ({"perpo.models.a": "from perpo.data.b import x", "perpo.data.b": ""}, None),
        ({"perpo_eval.cli.a": "from perpo.data.b import x", "perpo.data.b": ""}, None),
    ],
)
def test_what_runs_up_or_in_a_circle_is_found(tmp_path, code, fault):
    files = {}
    for name, text in code.items():
        files[name] = tmp_path / f"{name}.py"
        files[name].write_text(text)
    taken = layers.imports(files)
    assert taken
    assert bool(layers.upward(taken)) == (fault == "upward")
    assert bool(layers.circles(taken)) == (fault == "circle")


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
    files = layers.modules()
    free = {prefix: [m for m in files if f"{m}.".startswith(f"{prefix}.")] for prefix in layers.TORCH_FREE}
    assert all(free.values())
    names = sorted({m for found in free.values() for m in found if not m.endswith((".page", ".__main__"))})
    assert len(names) > 150
    code = (
        "import importlib, sys\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
        "    assert not {'torch', 'transformers', 'lmms_eval'} & set(sys.modules), name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
