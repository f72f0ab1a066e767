"""A program's arguments are a dataclass: this makes one from flags, a YAML file or a mapping.

Nothing here imports torch, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin, get_type_hints

from perpo import __version__
from perpo.common.hints import did_you_mean
from perpo.common.numbers import ranges_of
from perpo.common.processes import is_first_process
from perpo.common.redact import without_secrets
from perpo.common.values import convert, without_none
from perpo.errors import PerpoError

T = TypeVar("T")


def arg(default: Any = dataclasses.MISSING, help: str = "") -> Any:
    """Return a field of an arguments dataclass (which is to be `kw_only=True`); without a default it is required."""
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata={"help": help})
    return dataclasses.field(default=default, metadata={"help": help})


def parse_arguments(cls: type[T], argv: Sequence[str] | None, *, prog: str, description: str) -> T:
    """Read the command line, and the file given as `--config`, into an arguments dataclass.

    Args:
        cls: The dataclass. Field types: str, int, float, bool, Path, Literal, int | str, a list of
            those, or one of all these or None; numbers of a kind of `perpo.common.numbers`.
        argv: The words after the program's name; None takes them from the process.
        prog: The program's name.
        description: One or two sentences for `--help`.

    Returns:
        An instance. Flags override the file, the file overrides the defaults.

    Raises:
        PerpoError: An unknown or missing argument, a value of the wrong type, or a number out of its range.
    """
    parser = _Parser(prog=prog, description=description, allow_abbrev=False)
    parser.add_argument(
        "--config", metavar="FILE.yaml", help="read arguments from this file; flags on the command line override it"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback if there is an error")
    parser.add_argument("--version", action="version", version=f"{prog} {__version__}")
    hints = get_type_hints(cls)
    fields = _fields(cls)
    for field in fields.values():
        _add_flag(parser, field, hints[field.name])
    words = [_underscored(word) for word in (sys.argv[1:] if argv is None else argv)]
    known, unknown = parser.parse_known_args(words)
    flags = vars(known)
    if unknown:
        # One that comes first is probably what has to be given.
        lacking = [name for name in fields if default_of(fields[name]) is dataclasses.MISSING and name not in flags]
        meant = lacking[0] if lacking and unknown[0] == words[0] else None
        _refuse_word(unknown[0], [f"--{name}" for name in [*fields, "config", "debug", "version"]], meant)
    config = flags.pop("config")
    del flags["debug"]  # run_program has acted on it
    values = _converted(cls, _read_yaml(config), f"{config}: ") if config else {}
    values |= _converted(cls, flags, "--")
    return _build(cls, values, "--", f"give it as a flag or in the --config file; see {prog} --help")


def _underscored(word: str) -> str:
    """`--fail-on=x` as `--fail_on=x`: both spellings of a name are taken."""
    name, sign, value = word.partition("=")
    return name[:2] + name[2:].replace("-", "_") + sign + value if name.startswith("--") else word


def arguments_from_mapping(cls: type[T], mapping: Mapping[str, Any], where: str) -> T:
    """Make an arguments dataclass from a mapping, such as a part of a recipe.

    Args:
        cls: The dataclass.
        mapping: Values by field name.
        where: Where the mapping was found, for messages.

    Raises:
        PerpoError: An unknown or missing key, a value of the wrong type, or a number out of its range.
    """
    return _build(cls, _converted(cls, mapping, f"{where}: "), f"{where}: ", "add it")


def command_line(program: str, arguments: Any, *subcommand: str) -> str:
    """Return the command that gives a program these arguments, quoted for a shell; what is as by default is left out.

    Args:
        program: Its name, or where it lies.
        arguments: An arguments dataclass.
        subcommand: Words between the program and its flags.
    """
    words = [program, *subcommand]
    for field in dataclasses.fields(arguments):
        value = getattr(arguments, field.name)
        if value == default_of(field):
            continue
        if value is True:
            words.append(f"--{field.name}")
        elif isinstance(value, list):
            words += [f"--{field.name}", *map(str, value)]
        else:
            text = "none" if value is None else str(value)
            words += [f"--{field.name}={text}"] if text.startswith("-") else [f"--{field.name}", text]
    return shlex.join(words)


def next_command(program: str, arguments: Any, *subcommand: str) -> str:
    """Return `command_line` of another of our programs, as it can be called from here.

    What it holds runs as it stands, for the arguments were made by the program's own class.
    """
    return command_line(find_program(program), arguments, *subcommand)


def find_program(name: str) -> str:
    """Return how to call another of our programs: by its name where the PATH has it, else where it lies beside this
    one.
    """
    beside = Path(sys.argv[0]).with_name(name)
    return name if shutil.which(name) or not beside.is_file() else os.path.relpath(beside)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise PerpoError(message, f"see {self.prog} --help")


class _Last(argparse.Action):
    """Keeps the last value of a flag, as scripts count on that add flags to a command; the others are told."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        if (before := getattr(namespace, self.dest, values)) != values and is_first_process():
            told = f"warning: --{self.dest} is given twice: {values} counts, {before} does not"
            print(without_secrets(told), file=sys.stderr)
        setattr(namespace, self.dest, values)


def _fields(cls: Any) -> dict[str, dataclasses.Field[Any]]:
    return {field.name: field for field in dataclasses.fields(cls)}


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the field's default, or MISSING where it is required."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _add_flag(parser: argparse.ArgumentParser, field: dataclasses.Field[Any], hint: Any) -> None:
    kind = without_none(hint)
    options: dict[str, Any] = {"metavar": _metavar(kind), "action": _Last}
    if kind is bool:
        options |= {"nargs": "?", "const": "True"}
    elif get_origin(kind) is list:
        options |= {"nargs": "*", "action": "extend", "metavar": _metavar(get_args(kind)[0])}
    default = default_of(field)
    note = f" (default: {' '.join(map(str, default)) if isinstance(default, list) else default})"
    if default is dataclasses.MISSING:
        note = " (required)"
    elif default in (None, "", []):
        note = ""
    text = (field.metadata.get("help", "") + note).replace("%", "%%")
    parser.add_argument(f"--{field.name}", default=argparse.SUPPRESS, help=text, **options)


def _metavar(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "{" + ",".join(map(str, get_args(kind))) + "}"
    return {int: "INT", float: "FLOAT", bool: "True|False", Path: "PATH"}.get(kind, "TEXT")


def _refuse_word(word: str, flags: list[str], meant: str | None) -> NoReturn:
    if word.startswith("-"):
        name = word.split("=")[0]
        raise PerpoError(f"there is no argument {name}", did_you_mean(name, flags))
    hint = "each value follows its --name"
    hint += f": give it as --{meant} {shlex.quote(word)}" if meant else "; quote one that holds spaces"
    raise PerpoError(f"'{word}' is not the value of any argument", hint)


def _read_yaml(path: str) -> Mapping[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PerpoError(f"the --config file {path} cannot be read: {error}", "check its path") from error
    except yaml.YAMLError as error:
        text = " ".join(str(error).split())
        raise PerpoError(f"the --config file {path} is not valid YAML: {text}", "one `name: value` a line") from error
    if content is None:  # an empty file
        return {}
    if not isinstance(content, dict):
        raise PerpoError(
            f"{path}: expected arguments as `name: value`, found a {type(content).__name__}",
            "one `name: value` a line",
        )
    return content


def _converted(cls: Any, mapping: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The mapping with every value turned into its field's type; unknown keys are refused."""
    hints = get_type_hints(cls)
    names = _fields(cls)
    for key in mapping:
        if key not in names:
            raise PerpoError(f"{prefix}there is no argument '{key}'", did_you_mean(str(key), names))
    return {key: convert(value, hints[key], prefix + key) for key, value in mapping.items()}


def _build(cls: type[T], values: Mapping[str, Any], prefix: str, hint: str) -> T:
    for name, field in _fields(cls).items():
        if name not in values and default_of(field) is dataclasses.MISSING:
            raise PerpoError(f"{prefix}{name} is required", hint)
    for name, allowed in ranges_of(cls).items():
        if values.get(name) is not None:
            allowed.check(values[name], f"{prefix}{name}")
    return cls(**values)
