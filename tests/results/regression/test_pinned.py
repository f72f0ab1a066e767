"""perpo.results.regression.pinned and perpo-report pin: cases that no statistics and no waiver let pass."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree

import pyarrow as pa
import pytest
import yaml

from perpo.benchmarks.table import INFO
from perpo.cli.report import main
from perpo.errors import PerpoError
from perpo.records.store import write_run
from perpo.results.regression.extras import extras_of
from perpo.results.regression.pinned import Pin, add_pins, pinned_cases, read_pins
from perpo.results.regression.report import compare_runs
from perpo.results.regression.text import COMMENT_LIMIT, markdown

SIZE = 1000
HOSTILE = "</script>`[x](http://x)`<b>&\n\x07|"


def scores(*wrong: int) -> dict[str, list[tuple[str, float]]]:
    """One task of a thousand images, all right but these."""
    return {"a": [(f"image{place}", float(place not in wrong)) for place in range(SIZE)]}


def keys_of(run) -> list[str]:
    """The keys in the order in which the samples were given."""
    rows = run.samples(["sample_key", "question"]).to_pylist()
    return [row["sample_key"] for row in sorted(rows, key=lambda row: int(row["question"].split()[-1][:-1]))]


def pin_file(folder, *pins: tuple[str, str]):
    path = folder / "pinned.yaml"
    path.write_text(yaml.safe_dump([{"key": key, "reason": reason} for key, reason in pins]))
    return path


def test_a_pinned_case_fails_a_gate_that_statistics_leave_open(make_run, tmp_path, capsys) -> None:
    base, new = make_run("base", scores(7)), make_run("new", scores(3))
    keys = keys_of(base)
    words = ["--baseline", str(base.path), "--candidate", str(new.path)]
    assert main(words) == 0  # one sample lost and one won in a thousand: no loss that a test could find
    pins = pin_file(
        tmp_path, (keys[3][:10], "a picture of a customer"), (keys[7], "was lost before"), (keys[9], "safe")
    )
    outputs = {kind: tmp_path / f"report.{kind}" for kind in ("markdown", "html", "junit", "json")}
    flags = [word for kind, path in outputs.items() for word in (f"--{kind}", str(path))]
    assert main([*words, "--pinned", str(pins), *flags]) == 1
    said = capsys.readouterr()
    named = f"regressed: new against base; pinned cases failed: a {keys[3][:12]} (a picture of a customer)"
    assert named in said.err.splitlines()
    assert "1 of 3 failed" in said.out
    for path in outputs.values():
        assert "a picture of a customer" in path.read_text()
        assert keys[3][:12] in path.read_text()
    for kind in ("markdown", "html", "json"):
        assert all(text in outputs[kind].read_text() for text in ("where is 3?", "base says 1.0", "new says 0.0"))
    report = json.loads(outputs["json"].read_text())
    assert report["verdict"] == "regressed"
    assert "regressed" not in {row["verdict"] for row in report["rows"]}
    told = [(case["candidate"], case["baseline"], case["fails"], case["reason"]) for case in report["pinned"]]
    assert told == [
        ("wrong", "right", True, "a picture of a customer"),
        ("right", "wrong", False, "was lost before"),
        ("right", "right", False, "safe"),
    ]
    suite = ElementTree.parse(outputs["junit"]).getroot()
    assert (suite.attrib["tests"], suite.attrib["failures"]) == (str(len(report["rows"]) + 3), "1")
    cases = [case for case in suite.iter("testcase") if case.attrib["classname"] == "pinned"]
    failed = [case.attrib["name"] for case in cases if case.find("failure") is not None]
    assert (len(cases), failed) == (3, [f"a {keys[3][:12]}"])


def test_no_waiver_lets_a_pinned_case_pass_and_a_pin_is_absolute(make_run, tmp_path) -> None:
    base, worse = make_run("base", scores(3)), make_run("worse", scores(*range(100)))
    waivers = tmp_path / "waivers.yaml"
    waivers.write_text("- {task: a, reason: known, expires: 2999-01-01, max_loss: 20}\n")
    words = ["--baseline", str(base.path), "--candidate", str(worse.path), "--waivers", str(waivers)]
    assert main(words) == 0
    assert main([*words, "--pinned", str(pin_file(tmp_path, (keys_of(base)[3], "wrong in both")))]) == 1
    (case,) = pinned_cases([Pin(keys_of(base)[3], "wrong in both")], [base], [worse])
    assert (case.baseline, case.candidate, case.fails) == ("wrong", "wrong", True)
    assert case.said == "wrong; baseline wrong"


def test_a_pinned_case_without_an_answer_fails_and_of_several_runs_each_must_be_right(make_run, tmp_path) -> None:
    base, new = make_run("base", scores()), make_run("new", scores(5))
    key = keys_of(base)[5]
    table = base.samples().to_pylist()
    for row in table:
        if row["sample_key"] == key:
            row["response"], row["scores"] = None, dict.fromkeys(row["scores"])
    silent = write_run(tmp_path / "silent", base.record, pa.Table.from_pylist(table, base.samples().schema))
    (case,) = pinned_cases([Pin(key, "x")], [base], [silent])
    assert (case.candidate, case.fails, case.sample.candidate) == ("no answer", True, "(no answer)")
    (case,) = pinned_cases([Pin(key, "x")], [base], [base, new])  # two seeds, of which the second is wrong
    assert (case.candidate, case.sample.candidate) == ("wrong", "new says 0.0")
    (case,) = pinned_cases([Pin(key, "x")], [base], [base, base])
    assert not case.fails


def test_pins_that_mean_no_sample_are_no_silence(make_run, tmp_path, capsys) -> None:
    base = make_run("base", scores())
    words = ["--baseline", str(base.path), "--candidate", str(base.path), "--pinned"]
    assert main([*words, str(pin_file(tmp_path, ("0" * 64, "gone")))]) == 2
    assert f"pinned case {'0' * 64} is the key of no sample of base" in capsys.readouterr().err
    other = make_run("other", {"b": scores()["a"]})
    with pytest.raises(PerpoError, match="is the key of no sample of other"):
        pinned_cases([Pin(keys_of(base)[0], "x")], [base], [other])
    table = base.samples().to_pylist()
    table[0]["sample_key"], table[1]["sample_key"] = "12345678" + "0" * 56, "12345678" + "1" * 56
    twins = write_run(tmp_path / "twins", base.record, pa.Table.from_pylist(table, base.samples().schema))
    with pytest.raises(PerpoError, match="pinned case 12345678 begins the keys of 2 samples"):
        pinned_cases([Pin("12345678", "x")], [twins], [twins])
    (case,) = pinned_cases([Pin("123456780", "x")], [twins], [twins])
    assert case.sample.sample_key == table[0]["sample_key"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "does not hold a list"),
        ("key: 12345678", "does not hold a list"),
        ("[", "cannot be read"),
        ("- 12345678", "case 1: expected key and reason"),
        ("- {key: 12345678, reason: ' '}", "case 1: expected key and reason"),
        ("- {key: 12345678, reason: x, task: a}", "case 1: expected key and reason"),
        ("- {key: 1234567, reason: x}", "case 1: '1234567' is not the first 8 to 64 digits"),
        ("- {key: 1234567g, reason: x}", "case 1: '1234567g' is not"),
        ("- {key: 12345678, reason: x}\n- {key: 1234567800, reason: y}", "case 2: 1234567800 is the case 12345678"),
    ],
)
def test_bad_files_of_pinned_cases_are_refused(tmp_path, text, fault) -> None:
    path = tmp_path / "pinned.yaml"
    path.write_text(text)
    with pytest.raises(PerpoError, match=fault):
        read_pins(path)


def test_keys_of_digits_alone_stay_text(tmp_path) -> None:
    path = tmp_path / "pinned.yaml"
    path.write_text("- {key: 01234567, reason: x}\n- {key: 12345678, reason: 'on'}\n- {key: 1.2345e8, reason: y}\n")
    with pytest.raises(PerpoError, match="case 3"):
        read_pins(path)
    path.write_text("- {key: 01234567, reason: x}\n- {key: 1234567E, reason: on}\n")
    assert read_pins(path) == [Pin("01234567", "x"), Pin("1234567e", "on")]


@pytest.mark.parametrize(
    ("flag", "text", "line"),
    [
        ("pinned", "- key: 01234567\n  reason: x\n  key: 12345678\n  reason: y\n", "line 3: 'key'"),
        ("waivers", "- task: a\n  reason: x\n  max_loss: 1\n  expires: 2099-01-01\n  task: b\n", "line 5: 'task'"),
    ],
)
def test_two_cases_without_a_dash_between_them_are_no_case(flag, text, line, tmp_path, capsys) -> None:
    (tmp_path / "cases.yaml").write_text(text)
    assert main(["--baseline=x", "--candidate=y", f"--{flag}={tmp_path / 'cases.yaml'}"]) == 2
    assert f"{line} is there twice" in capsys.readouterr().err


def test_pin_writes_what_pinned_reads(make_run, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    base = make_run("base", scores(4))
    keys = keys_of(base)
    assert main(["pin", str(base.path), keys[3][:8], keys[4], "--reason", "seen: by a customer #1"]) == 0
    assert f"{keys[4]} pinned (note: base answers it with: wrong)" in capsys.readouterr().err
    assert main(["pin", str(base.path), keys[5], "--reason", HOSTILE, "--file", "pinned.yaml"]) == 0
    pins = read_pins(tmp_path / "pinned.yaml")
    assert [pin.key for pin in pins] == keys[3:6]
    assert pins[0].reason == "seen: by a customer #1"
    assert pins[2].reason == " ".join(HOSTILE.split())
    assert "# a: where is 3?" in (tmp_path / "pinned.yaml").read_text()
    assert main(["pin", "base", keys[3], "--reason", "again"]) == 2
    assert f"{keys[3]} is pinned in pinned.yaml already" in capsys.readouterr().err
    assert main(["pin", str(base.path), "--reason", "no key"]) == 2
    assert main(["pin", str(base.path), "123", "--reason", "x"]) == 2
    with pytest.raises(PerpoError, match="needs a key and a reason"):
        add_pins(base, keys[:1], "  ", tmp_path / "other.yaml")
    assert not (tmp_path / "other.yaml").exists()


def test_words_of_pins_cannot_leave_a_report(make_run, tmp_path) -> None:
    base, new = make_run("base", scores()), make_run("new", scores(3))
    pins = tmp_path / "pinned.yaml"
    add_pins(base, [keys_of(base)[3]], HOSTILE, pins)
    flags = [word for kind in ("html", "markdown", "junit") for word in (f"--{kind}", str(tmp_path / kind))]
    words = ["--baseline", str(base.path), "--candidate", str(new.path), "--pinned", str(pins)]
    assert main([*words, *flags]) == 1
    assert "</script>" not in (tmp_path / "html").read_text()
    assert "<b>" not in (tmp_path / "markdown").read_text()
    ElementTree.parse(tmp_path / "junit")


def test_a_rule_tells_right_from_wrong_by_either_direction_and_by_a_rival() -> None:
    pages, open_ended = INFO["ocr"].right, INFO["llava_bench"].right
    assert [pages.holds({"edit_distance": value}) for value in (0.05, 0.1, 0.11, None)] == [True, True, False, None]
    pairs = [(7.0, 7.0), (6.0, 7.0), (6.0, None), (None, 7.0)]
    told = [open_ended.holds({"model": model, "reference": other}) for model, other in pairs]
    assert told == [True, False, None, None]


def test_markdown_stays_within_its_limit_and_says_what_is_left_out(make_run) -> None:
    base, worse = make_run("base", scores()), make_run("worse", scores(*range(300)))
    pins = [Pin(key, "long " * 70) for key in keys_of(base)[:300]]
    report = replace(compare_runs(base, worse), extras=extras_of([base], [worse], pins=pins))
    for limit in (COMMENT_LIMIT, 12_000):
        text = markdown(report, limit)
        assert len(text.encode()) <= limit
        shown = text.count("base says 1.0") - text.split("samples that lost most")[-1].count("base says 1.0")
        assert f"{300 - shown} more pinned cases that failed are left out." in text
        assert "more rows are left out." in text


def test_of_several_candidates_the_one_that_lost_a_pinned_case_fails(make_run, tmp_path, capsys) -> None:
    base, new, lost = make_run("base", scores()), make_run("new", scores(5)), make_run("lost", scores(3))
    pins = pin_file(tmp_path, (keys_of(base)[3], "a picture of a customer"))
    words = ["--baseline", str(base.path), "--pinned", str(pins), "--candidate", str(new.path)]
    assert main(words) == 0
    capsys.readouterr()
    junit = tmp_path / "junit.xml"
    assert main([*words, str(lost.path), "--junit", str(junit)]) == 1
    said = capsys.readouterr()
    assert f"regressed: lost against base; pinned cases failed: a {keys_of(base)[3][:12]}" in said.err
    assert f"pinned case a {keys_of(base)[3][:12]}" in said.out
    suites = list(ElementTree.parse(junit).getroot())
    assert [suite.attrib["failures"] for suite in suites] == ["0", "1"]
