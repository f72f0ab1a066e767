"""perpo.records.approval, perpo-report approve and --need_approved: who approved a baseline, and when that is void."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from hashlib import sha256

import pytest

from perpo.cli.report import main
from perpo.errors import PerpoError
from perpo.records.approval import approve, standing_of
from perpo.records.store import find_runs, read_run, resolve_run
from perpo_eval.cli.eval import main as eval_main
from tests.support.runs import make_run  # noqa: F401

ROWS = {"a": [(f"image{place}", 1.0) for place in range(40)]}


@pytest.fixture
def pair(make_run):  # noqa: F811
    return make_run("base", ROWS), make_run("new", ROWS)


def test_an_approval_lies_beside_the_record_and_the_store_does_not_trip(pair, capsys) -> None:
    base, _ = pair
    assert main(["approve", str(base.path), "--why", "release 3", "--who", "Ada"]) == 0
    held = json.loads((base.path / "approval.json").read_text())
    assert held["run_sha256"] == sha256((base.path / "run.json").read_bytes()).hexdigest()
    assert (held["who"], held["why"]) == ("Ada", "release 3")
    age = datetime.now(UTC) - datetime.fromisoformat(held["approved_utc"])
    assert 0 <= age.total_seconds() < 60
    runs, unreadable = find_runs(base.path.parents[1])
    assert (len(runs), unreadable) == (2, [])
    assert resolve_run(str(base.path), base.path).record == base.record
    day = held["approved_utc"][:10]
    assert standing_of(base).said == f"approved by Ada on {day}: release 3"
    results = ["--results", str(base.path.parents[1])]
    eval_main(["list", *results])
    lines = capsys.readouterr().out.splitlines()
    assert [("measured, approved" in line) for line in lines if "run-" in line] == [True, False]
    eval_main(["show", "--run", "base", *results])
    assert f"approval: approved by Ada on {day}: release 3" in capsys.readouterr().err


def test_a_record_that_was_changed_is_not_approved(pair) -> None:
    base, _ = pair
    approve(base, "good", "Ada")
    file = base.path / "run.json"
    file.write_text(file.read_text().replace('"duration_s": 1.5', '"duration_s": 1.6'))
    changed = standing_of(read_run(base.path))
    assert (changed.state, changed.approval.who) == ("void", "Ada")
    assert changed.said.endswith("good; its run.json was changed since")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"who": 1}', "\udcff"])
def test_a_file_that_cannot_be_read_approves_nothing(pair, text) -> None:
    base, _ = pair
    (base.path / "approval.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert (standing_of(base).state, standing_of(base).approval) == ("void", None)
    approve(base, "good", "Ada")
    held = json.loads((base.path / "approval.json").read_text())
    (base.path / "approval.json").write_text(json.dumps(held | {"approved_utc": "yesterday"}))
    assert standing_of(base).state == "void"


def test_a_report_says_who_approved_its_baseline_and_can_ask_for_it(pair, tmp_path, capsys) -> None:
    base, new = pair
    outputs = [tmp_path / name for name in ("r.md", "r.html", "r.json")]
    words = ["--baseline", str(base.path), "--candidate", str(new.path)]
    words += [f"--{kind}={path}" for kind, path in zip(("markdown", "html", "json"), outputs, strict=True)]
    assert main(words) == 0
    assert all("The baseline is not approved: nobody approved it." in path.read_text() for path in outputs[:2])
    assert json.loads(outputs[2].read_text())["approval"][0]["state"] == "not approved"
    capsys.readouterr()
    assert main([*words, "--need_approved"]) == 2
    hint = f"perpo-report approve {base.path} --why REASON"
    assert hint in " ".join(capsys.readouterr().err.split())
    assert main([*hint.split()[1:], "--who", "Ada"]) == 0  # it runs as it stands
    assert main([*words, "--need_approved"]) == 0
    assert all("The baseline is approved by Ada on " in path.read_text() for path in outputs[:2])
    (base.path / "approval.json").write_text("{}")
    assert main([*words, "--need_approved"]) == 2


def test_git_says_who_approves_else_the_system(pair, tmp_path, monkeypatch) -> None:
    base, _ = pair
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("LOGNAME", "eve")
    assert approve(base, "x").who == "eve"
    subprocess.run(["git", "init", "-q", "."], check=True)
    subprocess.run(["git", "config", "user.name", "Grace  Hopper"], check=True)
    assert approve(base, "x").who == "Grace Hopper"


def test_no_approval_without_reason_or_samples(pair, capsys) -> None:
    base, _ = pair
    with pytest.raises(PerpoError, match="needs a reason and a name"):
        approve(base, " ", "Ada")
    with pytest.raises(PerpoError, match="needs a reason and a name"):
        approve(base, "good", " ")
    assert main(["approve", str(base.path)]) == 2
    (base.path / "samples.parquet").write_bytes(b"cut")
    assert main(["approve", str(base.path), "--why", "good"]) == 2
    assert "is not the file that run.json describes" in capsys.readouterr().err
    assert not (base.path / "approval.json").exists()
