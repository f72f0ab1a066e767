"""perpo.common.program: errors, exit codes, signals, progress; in real processes where it matters."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from perpo.common import program as common
from perpo.common import progress as progress_bars
from perpo.common.files import atomic_write_text
from perpo.errors import PerpoError

HEAVY = ("torch", "transformers", "pandas", "pyarrow", "datasets")


def python(code: str, *argv: str, **options: object) -> subprocess.Popen[str]:
    """A process that runs `code` with pipes to all its streams."""
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | options
    command = [sys.executable, "-c", textwrap.dedent(code), *argv]
    return subprocess.Popen(command, text=True, **streams)  # type: ignore[call-overload, no-any-return]


def fail_with(error: Exception) -> int:
    def main(argv: list[str]) -> int:
        raise error

    return common.run_program(main, [])


def test_codes_of_success() -> None:
    assert common.run_program(lambda argv: None, []) == 0
    assert common.run_program(lambda argv: 1, []) == 1
    assert common.run_program(lambda argv: len(argv), ["a", "b"]) == 2


def test_an_error_is_a_sentence_a_hint_and_its_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail_with(PerpoError("expected a file", "check the path")) == 2
    assert capsys.readouterr() == ("", "error: expected a file\nhint: check the path\n")
    assert fail_with(PerpoError("half done", exit_code=3)) == 3
    assert capsys.readouterr().err == "error: half done\n"


def test_anything_else_is_one_line_without_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail_with(ValueError("first\n  second")) == 3
    expected = "error: ValueError: first second\nhint: run again with --debug for the traceback\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(("error", "code"), [(PerpoError("bad", "mend"), 2), (ValueError("bad"), 3)])
def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], error: Exception, code: int) -> None:
    def main(argv: list[str]) -> int:
        raise error

    assert common.run_program(main, ["--debug"]) == code
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "in main" in shown
    assert "run again with --debug" not in shown


def test_a_broken_pipe_that_is_not_stdout_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail_with(BrokenPipeError("a worker died")) == 3
    assert "a worker died" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["ours", "a library's"])
def test_a_full_disk_says_what_is_kept_and_how_to_go_on(kind, largest_file, tmp_path, capsys) -> None:
    path = tmp_path / "out.txt"

    def main(argv: list[str]) -> None:
        with largest_file(10):
            if kind == "ours":
                atomic_write_text(path, "x" * 20)
            else:
                path.write_text("x" * 20)

    assert common.run_program(main, [], interrupted="run it again") == 3
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {path if kind == 'ours' else 'a file'} could not be written: File too large")
    assert hint == "hint: let files be larger (ulimit -f); run it again"


def test_a_full_disk_behind_stdout_is_an_error_once() -> None:
    code = """
        import sys
        from perpo.common.program import run_program
        sys.exit(run_program(lambda argv: print("a row of a table")))
        """
    with open("/dev/full", "w") as full:
        process = python(code, stdout=full)
        _, shown = process.communicate(timeout=30)
    assert process.returncode == 3
    assert shown.splitlines()[0] == "error: a file could not be written: No space left on device"
    assert len(shown.splitlines()) == 2


def test_ctrl_c_is_one_line_and_130() -> None:
    process = python(
        """
        import sys, time
        from perpo.common.program import run_program
        def main(argv):
            print("ready", flush=True)
            time.sleep(60)
        sys.exit(run_program(main))
        """
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=30)
    assert process.returncode == 130
    assert shown == "interrupted; finished work is kept: run the same command again to continue\n"


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_leaves_is_no_error(lines: int) -> None:
    # one line stays in the buffer until the end; 100,000 fail in the middle
    process = python(
        """
        import sys
        from perpo.common.program import run_program
        def main(argv):
            sys.stdin.readline()
            for _ in range(int(argv[0])):
                print("a row of a table")
        sys.exit(run_program(main))
        """,
        str(lines),
    )
    assert process.stdout is not None
    process.stdout.close()
    process.stdout = None
    _, shown = process.communicate("go\n", timeout=30)
    assert (process.returncode, shown) == (141, "")


def test_nothing_heavy_is_imported() -> None:
    modules = ["perpo.common.program", "perpo.common.journal", "perpo.boxes", "perpo.rewards", "perpo.models.families"]
    modules += ["perpo.data", "perpo.data.rows", "perpo.data.images", "perpo.common.files"]
    code = "".join(f"import {module}\n" for module in modules)
    code += f"import sys\nprint([name for name in {HEAVY} if name in sys.modules])"
    out, _ = python(code).communicate(timeout=60)
    assert out == "[]\n"


def test_quiet_libraries_respects_the_user() -> None:
    code = """
        import os, warnings
        from perpo.common.program import quiet_libraries
        quiet_libraries()
        warnings.warn("noise")
        print(os.environ["TRANSFORMERS_VERBOSITY"], os.environ["HF_HUB_DISABLE_PROGRESS_BARS"])
        """
    clean = {
        name: value for name, value in os.environ.items() if name not in ("TRANSFORMERS_VERBOSITY", "PYTHONWARNINGS")
    }
    assert python(code, env=clean).communicate(timeout=30) == ("error 1\n", "")
    out, shown = python(code, env=clean | {"TRANSFORMERS_VERBOSITY": "info", "PYTHONWARNINGS": "default"}).communicate(
        timeout=30
    )
    assert out == "info 1\n"
    assert "noise" in shown


def test_progress_in_a_log_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress_bars.time, "monotonic", lambda: clock[0])
    with progress_bars.progress(7300, "sampling", initial=100) as advance:
        for _ in range(6):
            clock[0] += 4.0
            advance(4)
    # 12 s: 3 calls of 4 items = 1 item/s, 7300 - 112 = 7188 s left; then not before 22 s
    assert capsys.readouterr().err.splitlines() == [
        "sampling: 112/7300, 1.0/s, 1:59:48 left",
        "sampling: 124/7300, 1.0/s, 1:59:36 left",
    ]


def test_progress_on_a_terminal_leaves_stdout_alone(tmp_path: Path) -> None:
    code = """
        from perpo.common.progress import progress
        with progress(20, "sampling", initial=5) as advance:
            for item in range(15):
                advance(1)
                print("item", item)
        """
    terminal, end = pty.openpty()
    env = os.environ | {"TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "100"}
    process = python(code, stderr=end, env=env)
    out, _ = process.communicate(timeout=30)
    os.close(end)
    shown = b""
    try:
        while part := os.read(terminal, 65536):
            shown += part
    except OSError:  # Linux says end-of-file so
        pass
    os.close(terminal)
    assert out == "".join(f"item {item}\n" for item in range(15))
    text = shown.decode()
    assert "sampling" in text
    assert "20/20" in text
    assert re.search(r"\d/s", text)
    assert not re.search(r"\x1b\[\d*;?3\dm", text)  # NO_COLOR


def test_that_an_adapter_does_not_match_is_heard() -> None:
    """PEFT only warns of it."""
    code = """
        import warnings
        from perpo.common.program import quiet_libraries
        quiet_libraries()
        for module, text in (("peft.peft_model", "Found missing adapter keys while loading: x"), ("peft.other", "slow"),
                             ("torch.nn", "missing adapter keys")):
            warnings.warn_explicit(text, UserWarning, module, 1, module=module)
    """
    with python(code) as process:
        _, err = process.communicate()
    assert err == "peft.peft_model:1: UserWarning: Found missing adapter keys while loading: x\n"
