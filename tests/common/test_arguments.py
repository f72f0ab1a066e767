"""perpo.common.arguments: a dataclass from flags, a YAML file and mappings."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from perpo import __version__
from perpo.common.arguments import arg, arguments_from_mapping, command_line, next_command, parse_arguments
from perpo.errors import PerpoError


@dataclass(frozen=True, kw_only=True)
class Arguments:
    data: str = arg(help="the file")
    beta: float = arg(0.1, "weight, 100% of it")
    steps: int = arg(5, "steps")
    bf16: bool = arg(False, "low precision")
    method: Literal["sft", "perpo"] = arg("perpo", "what to train with")
    adapter: str | None = arg(None, "start from here")
    cap: int | None = arg(None, "at most")
    tasks: list[str] = arg(["a"], "tasks")
    limit: int | str | None = arg(None, "a number, or one by task")
    output: Path = arg(Path("out"), "where")


def parse(*argv: str) -> Arguments:
    return parse_arguments(Arguments, list(argv), prog="perpo-test", description="A test.")


def message_and_hint(*argv: str) -> tuple[str, str]:
    with pytest.raises(PerpoError) as caught:
        parse(*argv)
    assert caught.value.exit_code == 2
    return caught.value.message, caught.value.hint


def config(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


def test_every_type_is_read_from_flags() -> None:
    words = "--data d.json --beta 1e-5 --steps -3 --bf16 --method sft --adapter x --cap 7 --tasks a b --output o"
    assert parse(*words.split()) == Arguments(
        data="d.json",
        beta=1e-5,
        steps=-3,
        bf16=True,
        method="sft",
        adapter="x",
        cap=7,
        tasks=["a", "b"],
        output=Path("o"),
    )


def test_a_number_or_text(tmp_path: Path) -> None:
    assert parse("--data", "d").limit is None
    assert parse("--data", "d", "--limit", "none").limit is None
    assert parse("--data", "d", "--limit", "64").limit == 64
    assert parse("--data", "d", "--limit", "pope=64").limit == "pope=64"
    assert parse("--data", "d", "--config", config(tmp_path, "limit: 64")).limit == 64
    assert parse("--data", "d", "--config", config(tmp_path, "limit: pope=64")).limit == "pope=64"
    where = config(tmp_path, "limit: [64]")
    assert message_and_hint("--data", "d", "--config", where)[0].endswith("expects a whole number or text, got [64]")


def test_defaults_and_a_list_of_its_own() -> None:
    first = parse("--data", "d")
    first.tasks.append("b")
    assert parse("--data", "d") == Arguments(data="d", tasks=["a"])


def test_a_list_may_be_given_in_parts() -> None:
    expected = Arguments(data="d", tasks=["x", "y", "z"])
    assert parse("--data", "d", "--tasks", "x", "--tasks", "y", "z") == expected
    assert parse("--data", "d", "--tasks", "x", "y", "z") == expected


@pytest.mark.parametrize(("words", "expected"), [("--bf16", True), ("--bf16 True", True), ("--bf16 false", False)])
def test_a_switch_may_have_a_value(words: str, expected: bool) -> None:
    assert parse("--data", "d", *words.split()).bf16 is expected


def test_flags_override_the_file_which_overrides_defaults(tmp_path: Path) -> None:
    # YAML 1.1 reads 1e-4 as a string: it must still be a number here
    path = config(tmp_path, "data: d\nbeta: 1e-4\nsteps: 9\nbf16: true\ntasks: [x, y]\nadapter: dir\n")
    expected = Arguments(data="d", beta=1e-4, steps=2, bf16=True, tasks=["x", "y"], adapter=None)
    assert parse("--config", path, "--steps", "2", "--adapter", "none") == expected


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    assert parse("--config", config(tmp_path, ""), "--data", "d") == Arguments(data="d")


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        ("--bta 1", "--bta", "--beta"),
        ("--bat=1", "--bat", "--data"),
        ("--zzz", "--zzz", "--method"),  # nothing is near: all are named
        ("--data d --me sft", "--me", "--"),  # no abbreviations
        ("--data d stray", "stray", "--name"),
        ("--data", "--data", "--help"),
        ("", "--data is required", "--config"),
        ("--data d --beta x", "--beta expects a finite number, got 'x'", ""),
        ("--data d --beta nan", "--beta expects a finite number", ""),
        ("--data d --steps 1.5", "--steps expects a whole number, got '1.5'", ""),
        ("--data d --bf16 maybe", "--bf16 expects True or False, got 'maybe'", ""),
        ("--data d --method perp", "--method expects one of sft, perpo, got 'perp'", "'perpo'"),
        ("--data d --cap x", "--cap expects a whole number, got 'x'", "write none"),
    ],
)
def test_bad_flags(words: str, message: str, hint: str) -> None:
    found_message, found_hint = message_and_hint(*words.split())
    assert message in found_message
    assert hint in found_hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bta: 1", "there is no argument 'bta'"),
        ("beta: [1]", "beta expects a finite number"),
        ("beta: true", "beta expects a finite number"),
        ("beta: .nan", "beta expects a finite number"),
        ("steps: 2.0", "steps expects a whole number"),
        ("steps: true", "steps expects a whole number"),
        ("bf16: 1", "bf16 expects True or False"),
        ("data: 5", "data expects text, got 5"),
        ("tasks: a", "tasks expects a list"),
        ("tasks: [1]", "tasks expects text"),
        ("steps: null", "steps expects a whole number, got None"),
        ("data: [", "line 1"),
        ("- data", "expected arguments as `name: value`, found a list"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = config(tmp_path, text)
    found, _ = message_and_hint("--config", path)
    assert message in found
    assert path in found


def test_no_such_file() -> None:
    assert "nowhere.yaml" in message_and_hint("--config", "nowhere.yaml")[0]


def test_mappings_are_checked_like_files() -> None:
    assert arguments_from_mapping(Arguments, {"data": "d", "cap": 3}, "stage 1") == Arguments(data="d", cap=3)
    with pytest.raises(PerpoError, match=r"stage 1: there is no argument 'stesp'") as caught:
        arguments_from_mapping(Arguments, {"data": "d", "stesp": 3}, "stage 1")
    assert caught.value.hint == "did you mean 'steps'?"
    with pytest.raises(PerpoError, match=r"stage 1: data is required"):
        arguments_from_mapping(Arguments, {}, "stage 1")


def test_help_names_every_argument_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help")
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "the file (required)",
        "100% of it (default: 0.1)",
        "{sft,perpo}",
        "--config",
        "--debug",
        "--version",
    ):
        assert part in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("--version")
    assert capsys.readouterr().out == f"perpo-test {__version__}\n"


def test_names_may_be_written_with_hyphens() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Two:
        fail_on: str = arg("a-b", "text")
        other: str = arg("", "text")

    found = parse_arguments(Two, ["--fail-on", "x-y", "--other=a-b=c-d"], prog="p", description="d")
    assert found == Two(fail_on="x-y", other="a-b=c-d")
    with pytest.raises(PerpoError, match="there is no argument --fail_of"):
        parse_arguments(Two, ["--fail-of", "x"], prog="p", description="d")


@pytest.mark.parametrize(
    "given",
    [
        {"data": "a b.jsonl"},
        {"data": "it's $HOME; rm *", "tasks": ["x y", "z"], "output": Path("-strange folder")},
        {"data": "-1", "beta": -0.5, "bf16": True, "method": "sft", "cap": 0, "adapter": "../a"},
        {"data": "", "tasks": [], "cap": -3},
    ],
)
def test_a_command_line_gives_the_same_arguments_back(given):
    arguments = Arguments(**given)
    program, sub, *words = shlex.split(command_line("perpo-test", arguments, "sub"))
    assert (program, sub) == ("perpo-test", "sub")
    assert parse(*words) == arguments


def test_a_command_line_says_what_is_not_as_by_default(monkeypatch, tmp_path):
    @dataclass(frozen=True, kw_only=True)
    class Other:
        on: bool = arg(True, "")
        most: int | None = arg(2, "")

    assert command_line("p", Other()) == "p"
    line = command_line("p", Other(on=False, most=None))
    assert parse_arguments(Other, shlex.split(line)[1:], prog="p", description="") == Other(on=False, most=None)
    for name in ("perpo-this", "perpo-other"):
        (tmp_path / name).touch()
    monkeypatch.setattr("sys.argv", [str(tmp_path / "perpo-this")])
    monkeypatch.chdir(tmp_path)
    assert next_command("perpo-other", Other()) == "perpo-other"
    assert next_command("perpo-missing", Other()) == "perpo-missing"
    monkeypatch.chdir("/")
    assert next_command("perpo-other", Other()) == str(tmp_path / "perpo-other").lstrip("/")


def test_a_word_that_comes_first_is_what_has_to_be_given() -> None:
    assert message_and_hint("my data", "--steps", "3") == (
        "'my data' is not the value of any argument",
        "each value follows its --name: give it as --data 'my data'",
    )
    for words in (("new", "--data", "d"), ("--steps", "3", "new")):
        assert message_and_hint(*words)[1] == "each value follows its --name; quote one that holds spaces"


def test_of_a_flag_that_is_given_twice_the_last_value_counts_and_the_other_is_told(capsys):
    @dataclass(kw_only=True)
    class Two:
        rate: float = 1.0
        names: list[str] = arg([])

    args = parse_arguments(Two, ["--rate", "2", "--names", "a", "--rate=3", "--names", "b"], prog="p", description="")
    assert (args.rate, args.names) == (3.0, ["a", "b"])
    assert capsys.readouterr().err == "warning: --rate is given twice: 3 counts, 2 does not\n"
    parse_arguments(Two, ["--rate", "2", "--rate", "2"], prog="p", description="")
    assert capsys.readouterr().err == ""
