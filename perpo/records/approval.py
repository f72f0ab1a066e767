"""Approvals of stored runs: `approval.json` beside a run.json says who took the run as a baseline, when and why.

It holds the digest of run.json, which holds that of the samples: a record that was changed since is not approved.
"""

from __future__ import annotations

import dataclasses
import getpass
import hashlib
import json
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic import dataclasses as checked

from perpo.common.files import atomic_write_text
from perpo.common.times import in_utc
from perpo.errors import PerpoError
from perpo.records.store import RUN_FILE, Run

APPROVAL_FILE = "approval.json"


@checked.dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class Approval:
    """An approval as the file holds it; `run_sha256` is the digest of the run.json that was approved."""

    who: str
    approved_utc: str
    why: str
    run_sha256: str


@dataclass(frozen=True)
class Standing:
    """A run's standing as a baseline: approved, not approved, or approved once and void since.

    Attributes:
        state: Which of these.
        said: The same as half a sentence: who, when and why, or why it is void.
        approval: The approval, also one that is void; None where there is none that can be read.
    """

    state: Literal["approved", "not approved", "void"]
    said: str
    approval: Approval | None = None


def approve(run: Run, why: str, who: str | None = None) -> Approval:
    """Approve a run as a baseline: write approval.json beside its run.json, in place of an older one.

    Args:
        run: The run, measured and complete.
        why: The reason.
        who: The name; by default that of git, else that of the user.

    Raises:
        PerpoError: There is no reason or no name.
    """
    why, who = " ".join(why.split()), " ".join((_default_name() if who is None else who).split())
    if not why or not who:
        raise PerpoError("an approval needs a reason and a name", "give --why TEXT and --who NAME")
    approval = Approval(who, datetime.now(UTC).isoformat(timespec="seconds"), why, _digest(run))
    text = json.dumps(dataclasses.asdict(approval), indent=1, ensure_ascii=False) + "\n"
    atomic_write_text(run.path / APPROVAL_FILE, text)
    return approval


def standing_of(run: Run) -> Standing:
    """Return whether a run is approved; a file that cannot be read approves nothing."""
    file = run.path / APPROVAL_FILE
    if not file.is_file():
        return Standing("not approved", "nobody approved it")
    try:
        approval = TypeAdapter(Approval).validate_json(file.read_bytes())
        day = f"{in_utc(approval.approved_utc):%Y-%m-%d}"
    except (OSError, ValidationError, ValueError):
        return Standing("void", f"its {APPROVAL_FILE} cannot be read")
    by = f"by {approval.who} on {day}: {approval.why}"
    if approval.run_sha256 != _digest(run):
        return Standing("void", f"approved {by}; its {RUN_FILE} was changed since", approval)
    return Standing("approved", f"approved {by}", approval)


def _digest(run: Run) -> str:
    return hashlib.sha256((run.path / RUN_FILE).read_bytes()).hexdigest()


def _default_name() -> str:
    """The name that git knows, else the user's."""
    try:
        asked = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, check=False)
        if asked.stdout.strip():
            return asked.stdout
    except OSError:  # no git
        pass
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name
        return ""
