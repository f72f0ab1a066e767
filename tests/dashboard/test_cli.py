"""perpo-dashboard as a program: what it refuses, where it listens, how it stops."""

from __future__ import annotations

import http.client
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from perpo_dashboard import cli

WAIT_S = 30


def run(*words: object, code: str = "", folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The program with these words, in a Python that has first run `code`."""
    program = f"{code}\nimport sys\nfrom perpo_dashboard.cli import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-P", "-c", program, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, cwd=folder, check=False)


@contextmanager
def running(*words: object) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A dashboard that answers: its address and its process."""
    command = [sys.executable, "-P", "-m", "perpo_dashboard.cli", "--port", "0", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], WAIT_S)[0]
        url = process.stdout.readline().strip()
        end = time.monotonic() + WAIT_S
        while process.poll() is None and time.monotonic() < end and not _answers(url):
            time.sleep(0.02)
        assert _answers(url), process.stderr and process.stderr.read()
        yield url, process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def _answers(url: str) -> bool:
    try:
        return status(url, "/_stcore/health") == 200
    except OSError:
        return False


def status(url: str, path: str, **headers: str) -> int:
    """What a request is answered with, the path sent as it stands."""
    host, port = re.fullmatch(r"http://(.+):(\d+)", url).groups()  # type: ignore[union-attr]
    connection = http.client.HTTPConnection(host, int(port), timeout=WAIT_S)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        assert b"root:" not in (response.read() if response.status != 101 else b"")
        return response.status
    finally:
        connection.close()


def test_help_answers_without_streamlit_and_torch(tmp_path):
    blocked = "import sys; sys.modules |= dict.fromkeys(['streamlit', 'altair', 'torch', 'pandas', 'pyarrow'])"
    for words in (["--help"], ["export", "--help"]):
        done = run(*words, code=blocked)
        assert (done.returncode, done.stderr) == (0, "")
        assert "--results" in done.stdout


def test_without_streamlit_it_says_what_to_install(tmp_path):
    done = run("--results", tmp_path, "--port", 0, code="import sys; sys.modules['streamlit'] = None")
    assert (done.returncode, done.stdout) == (2, "")
    assert "streamlit, which the dashboard needs, is not installed" in done.stderr
    assert "hint: pip install 'perpo[dashboard]'" in done.stderr


@pytest.mark.parametrize(
    "words", [["--results", "nowhere"], ["--results", "file"], ["--results", ".", "--media", "nowhere"]]
)
def test_folders_that_are_none_are_refused(tmp_path, words):
    (tmp_path / "file").touch()
    done = run(*words, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    what = "is a file, no folder" if words[-1] == "file" else "is not there"
    assert done.stderr.startswith(f"error: the folder {words[-1]} {what}\nhint: ")


def test_unknown_words_are_refused(tmp_path):
    done = run("--result", tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--results" in done.stderr


def test_a_port_in_use_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--results", tmp_path, "--port", port)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"error: cannot listen on 127.0.0.1:{port}: {os.strerror(98)}" in done.stderr
    assert "hint: give another --port" in done.stderr


@pytest.mark.parametrize(("words", "said"), [(["--port", "70000"], "70000"), (["--host", "192.0.2.1"], "192.0.2.1")])
def test_ports_and_addresses_that_are_none_are_refused(tmp_path, words, said):
    done = run("--results", tmp_path, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_it_listens_here_alone_and_stops_at_ctrl_c(tmp_path):
    with running("--results", tmp_path) as (url, process):
        port = int(url.rpartition(":")[2])
        listening = [c.laddr for c in psutil.Process(process.pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert listening == [("127.0.0.1", port)]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT_S)
        assert process.returncode in (0, 130)
        assert errors.splitlines()[0] == f"showing {tmp_path}; Ctrl-C stops"
        assert "Traceback" not in errors


def test_who_opens_it_to_others_is_told(tmp_path):
    with running("--results", tmp_path, "--host", "0.0.0.0") as (url, process):
        assert url.startswith("http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT_S)
    assert "note: everyone who can reach 0.0.0.0 can read these runs and vote" in errors


def test_nothing_outside_is_served_and_no_other_site_may_speak_to_it(tmp_path):
    (tmp_path / "secret.txt").write_text("root: secret")
    with running("--results", tmp_path) as (url, _):
        for path in ("/../../../etc/passwd", "/..%2f..%2f..%2fetc/passwd", "/media/../../etc/passwd", "//etc/passwd"):
            status(url, path)  # whatever it is, nothing of a file is in it
        for path in ("/secret.txt", "/app/static/secret.txt", "/app/static/../secret.txt", "/media/secret.txt"):
            status(url, path)
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}
        upgrade["Sec_WebSocket_Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
        assert status(url, "/_stcore/stream", Origin=url, **upgrade) == 101
        assert status(url, "/_stcore/stream", Origin="http://example.org", **upgrade) == 403


def test_a_name_that_is_no_address_is_refused(tmp_path):
    done = run("--results", tmp_path, "--host", "no.such.host.invalid")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(r"^error: no\.such\.host\.invalid is not an address of this machine: \w", done.stderr)
    assert "hint: give another --host" in done.stderr


@pytest.mark.parametrize(
    ("host", "shown"),
    [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("::1", "[::1]"), ("::", "[::1]"), ("box", "box")],
)
def test_the_address_that_is_printed_can_be_opened(host, shown):
    assert cli._in_address(host) == shown
