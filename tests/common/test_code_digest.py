"""A digest of code changes with what the code does, and with nothing else."""

from pathlib import Path

import pytest

from perpo.common.code_digest import code_digest, module_file

CODE = "import os\n\n\ndef area(a, b):\n    return a * b\n"


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("def area(a, b):\n    return a * b\n", True),
        ('"""Says what it is."""\nimport sys\nfrom os import path\n\ndef area(a, b):\n    """Of a box."""\n    # why\n'
         "    import json\n    return a*b", True),
        ("def area(a, b):\n    return a + b\n", False),
        ("def area(a, b=1):\n    return a * b\n", False),
        ("def area(a, b):\n    return b * a\n", False),
        (CODE + "LIMIT = 1\n", False),
        ('def area(a, b):\n    x = "not a docstring"\n    return a * b\n', False),
    ],
)  # fmt: skip
def test_code_is_what_it_does(tmp_path: Path, other: str, same: bool) -> None:
    (tmp_path / "a.py").write_text(CODE)
    (tmp_path / "b.py").write_text(other)
    assert (code_digest({"job": tmp_path / "a.py"}) == code_digest({"job": tmp_path / "b.py"})) is same


def test_files_that_are_not_python_are_their_bytes_and_jobs_count(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("# one")
    (tmp_path / "b.txt").write_text("# two")
    a, b = tmp_path / "a.txt", tmp_path / "b.txt"
    assert code_digest({"x": a, "y": b}) == code_digest({"y": b, "x": a})
    assert (
        len({code_digest({"x": a}), code_digest({"x": b}), code_digest({"y": a}), code_digest({"x": a, "y": b})}) == 4
    )


def test_a_module_is_found_without_being_imported() -> None:
    assert module_file("perpo.common.code_digest").read_text().startswith('"""Digests of code')
    with pytest.raises(ModuleNotFoundError, match=r"perpo\.nothing"):
        module_file("perpo.nothing")
