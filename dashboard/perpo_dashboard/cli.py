"""perpo-dashboard: tables and side-by-sides of stored runs in a browser, on this machine alone."""

from __future__ import annotations

import os
import socket
import sys
import threading
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from perpo.common.arguments import arg, parse_arguments
from perpo.common.numbers import Port
from perpo.common.program import run_program
from perpo.errors import PerpoError
from perpo.results.colours import BASELINE, PALETTE

DESCRIPTION = (
    "Show stored runs in a browser: leaderboard, comparisons, samples side by side, training, blind votes. "
    "perpo-dashboard export writes a comparison of two runs as HTML that needs no server."
)
_LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class DashboardArguments:
    """The arguments of perpo-dashboard."""

    results: Path = arg(Path("results"), "folder with run records, also in folders below it, such as runs/")
    media: list[Path] = arg([], "more folders that pictures may be read from (default: none)")
    port: Port = arg(8501, "port to listen on; 0 takes a free port")
    host: str = arg(
        "127.0.0.1",
        "address to listen on; with any other than 127.0.0.1, other people can open the dashboard without a password",
    )


@dataclass(frozen=True, kw_only=True)
class ExportPageArguments:
    """The arguments of perpo-dashboard export."""

    run: list[str] = arg(
        help="give it twice: the baseline, then the candidate. Folder of a run, or its id or name in --results"
    )
    out: Path = arg(help="folder for the page, index.html, and its files")
    results: Path = arg(Path("results"), "folder in which ids and names of runs, and pictures, are looked up")
    media: list[Path] = arg([], "more folders that pictures may be read from (default: none)")
    common: bool = arg(
        False, "compare only the tasks and samples that both runs have; otherwise runs that differ in them are refused"
    )


def main(argv: list[str] | None = None) -> int:
    """Return the program."""
    return run_program(_main, argv, interrupted="nothing is lost")


def _main(argv: list[str]) -> None:
    if argv and argv[0] == "export":
        _export(argv[1:])
        return
    args = parse_arguments(DashboardArguments, argv, prog="perpo-dashboard", description=DESCRIPTION)
    _check_folders(args.results, *args.media)
    serve(args)


def _check_folders(*folders: Path) -> None:
    for folder in folders:
        if not folder.is_dir():
            what = "is a file, no folder" if folder.exists() else "is not there"
            raise PerpoError(f"the folder {folder} {what}", "perpo-demo makes runs/, and perpo-eval results/")


def serve(args: DashboardArguments) -> None:
    """Listen until Ctrl-C.

    Raises:
        PerpoError: The address cannot be listened on, or Streamlit is not installed.
    """
    port = _free_port(args.host, args.port)
    try:
        from streamlit.web import bootstrap
    except ImportError as error:
        raise PerpoError(
            "streamlit, which the dashboard needs, is not installed", "pip install 'perpo[dashboard]'"
        ) from error
    from perpo_dashboard.shared.settings import Settings

    Settings(args.results.resolve(), tuple(folder.resolve() for folder in args.media)).announce()
    options = _options(args.host, port)
    bootstrap.load_config_options(options)
    if args.host not in _LOCAL:
        print(f"note: everyone who can reach {args.host} can read these runs and vote", file=sys.stderr)
    print(f"http://{_in_address(args.host)}:{port}", flush=True)
    print(f"showing {args.results}; Ctrl-C stops", file=sys.stderr)
    threading.Thread(target=_prepare, daemon=True).start()
    bootstrap.run(str(Path(__file__).with_name("app.py")), False, [], options)


def _prepare() -> None:
    """Import what the pages need, and read what they show unasked, while the first browser is still on its way."""
    for name in (
        "perpo_dashboard.leaderboard.tables",
        "perpo_dashboard.samples.browse",
        "altair",
        "scipy.special",
        "pyarrow.dataset",
    ):
        import_module(name)
    from perpo_dashboard.shared import stored

    stored.prepare()


def _in_address(host: str) -> str:
    """A host as browsers want it: IPv6 in brackets, and this machine where any of its addresses would do."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host


def _options(host: str, port: Port) -> dict[str, object]:
    """Streamlit's settings; given here, they hold against any config.toml."""
    return {
        "server_address": host,
        "server_port": port,
        "server_headless": True,
        "server_fileWatcherType": "none",
        "server_runOnSave": False,
        "server_enableStaticServing": False,
        "server_enableXsrfProtection": True,
        "server_enableCORS": True,
        "browser_gatherUsageStats": False,
        "theme_light_primaryColor": BASELINE,
        "theme_dark_primaryColor": PALETTE[5],  # light enough to be read on black
        "theme_headingFontSizes": ["1.75rem", "1.4rem", "1.2rem", "1.05rem", "1rem", "0.9rem"],  # numbers come first
        "client_toolbarMode": "viewer",
        "client_showErrorDetails": "none",
        "client_showErrorLinks": False,  # to search engines
        "logger_hideWelcomeMessage": True,
        "logger_level": "error",
        "global_developmentMode": False,
    }


def _free_port(host: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except socket.gaierror as error:
            raise PerpoError(
                f"{host} is not an address of this machine: {error.strerror}", "give another --host"
            ) from error
        except (OSError, OverflowError) as error:
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            raise PerpoError(f"cannot listen on {host}:{port}: {reason}", "give another --port, or 0") from error
        return int(listener.getsockname()[1])


def _export(argv: list[str]) -> None:
    args = parse_arguments(
        ExportPageArguments, argv, prog="perpo-dashboard export", description="Write a comparison of two runs as HTML."
    )
    if len(args.run) != 2:
        raise PerpoError(f"--run names {len(args.run)} runs; give exactly two", "--run BASELINE --run CANDIDATE")
    _check_folders(*args.media)
    from perpo.records.store import resolve_run
    from perpo.results.regression.report import compare_runs
    from perpo.results.regression.text import headline
    from perpo_dashboard import export

    baseline, candidate = (resolve_run(text, args.results) for text in args.run)
    report = compare_runs(baseline, candidate, common=args.common)
    page = export.write(report, args.out, (args.results, *args.media))
    print(headline(report), file=sys.stderr)
    print(page)


if __name__ == "__main__":
    sys.exit(main())
