"""What gates beside the primary metric: guards, named metrics, kinds of samples, several runs, several candidates."""

from __future__ import annotations

import dataclasses
import json
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import ttest_1samp
from statsmodels.stats.multitest import multipletests

from perpo.cli.report import main
from perpo.errors import PerpoError
from perpo.records.store import Run, write_run
from perpo.results.regression import many
from perpo.results.regression.entries import Entry
from perpo.results.regression.page import page
from perpo.results.regression.report import compare_entries, compare_runs
from perpo.results.regression.report_json import as_json
from perpo.results.regression.rows import Waiver, Wanted
from perpo.results.regression.slices import slices_of
from perpo.results.regression.text import headline, markdown
from perpo.results.samples import read_scores
from perpo.stats import crossed_t

SIZE = 1000
KEYS = [f"{number:04d}" for number in range(SIZE)]


def scores(seed: int, loss: float = 0.0) -> np.ndarray:
    """Right or wrong of as many samples, an image each; `loss` of them turn wrong."""
    rng = np.random.default_rng(seed)
    return np.where(np.random.default_rng(0).random(SIZE) < loss, 0.0, rng.random(SIZE) < 0.7)


def lost(share: float) -> np.ndarray:
    return (np.random.default_rng(1).random(SIZE) < share).astype(float)


def again(run: Run, name: str, columns: dict | None = None, **fields) -> Run:
    """The run stored once more with other columns of its table, or fields of its record."""
    table = run.samples()
    for column, values in (columns or {}).items():
        array = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values)
        place = table.schema.get_field_index(column)
        table = table.append_column(column, array) if place < 0 else table.set_column(place, column, array)
    record = dataclasses.replace(run.record, run_id=f"run-{name}", name=name, samples=None, **fields)
    return write_run(run.path.parents[1], record, table)


def with_scores(run: Run, name: str, **columns) -> Run:
    """The run with other scores by name, in the order of its samples."""
    rows = [dict(row) for row in run.samples()["scores"].to_pylist()]
    for score, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[score.replace("acc", "acc@0.5")] = float(value)
    return again(run, name, {"scores": rows})


def with_cuts(run: Run, name: str, cut) -> Run:
    reasons = ["length" if each else "stop" for each in cut]
    tasks = [dataclasses.replace(task, n_truncated=reasons.count("length")) for task in run.record.tasks]
    return again(run, name, {"finish_reason": reasons}, tasks=tasks)


@pytest.fixture
def base(make_run) -> Run:
    return make_run("base", {"a": list(zip(KEYS, scores(3), strict=True))})


def by_name(report) -> dict:
    return {row.name: row for row in [*report.rows, *report.others]}


def test_a_rise_of_unreadable_answers_fails_although_the_primary_metric_is_as_it_was(base) -> None:
    worse = with_scores(base, "worse", parse_fail=lost(0.05))
    report = compare_runs(base, worse)
    row = by_name(report)["a.parse_fail"]
    assert (row.verdict, row.role, row.gain) == ("regressed", "guards", pytest.approx(-lost(0.05).mean()))
    p = ttest_1samp(lost(0.05), 0).pvalue
    assert row.p_adjusted == pytest.approx(multipletests([p, 1.0], method="holm")[1][0])
    assert by_name(report)["a"].verdict == "identical"
    assert report.verdict == "regressed"
    assert headline(report).startswith("regressed: worse against base (a.parse_fail -")
    assert [row.name for row in compare_runs(base, worse, metrics="primary").rows] == ["a"]
    assert compare_runs(base, worse, metrics="primary").verdict != "regressed"
    better = compare_runs(worse, base)
    assert by_name(better)["a.parse_fail"].verdict == "improved"
    assert better.verdict != "improved"  # a guard only fails


def test_a_rise_of_cut_answers_fails(base) -> None:
    runs = with_cuts(base, "whole", np.zeros(SIZE)), with_cuts(base, "cut", lost(0.04))
    row = by_name(compare_runs(*runs))["a.truncated"]
    assert (row.verdict, row.baseline, row.candidate) == ("regressed", 0.0, pytest.approx(lost(0.04).mean()))
    half = compare_runs(base, runs[1])  # not known of one of them
    assert "a.truncated" not in by_name(half)
    said = "Not known of every run, so that they guard nothing: a.truncated."
    assert said in half.notes
    for report in (compare_runs(*runs), compare_runs(base, runs[1], metrics="primary"), compare_runs(base, base)):
        assert said not in report.notes


def test_a_guard_in_which_nothing_differs_is_told_and_costs_no_power(base) -> None:
    worse = with_scores(base, "worse", acc=scores(3, 0.05))
    report = compare_runs(base, worse)
    assert [row.name for row in report.rows] == ["a"]
    (row,) = report.rows
    assert row.p_adjusted == pytest.approx(row.difference.p_value)
    assert "a.parse_fail" in {row.name for row in report.others}
    # What is only told is adjusted as if all gated: three rows, of which one differs.
    iou = with_scores(base, "iou", iou=scores(3, 0.05))
    told = by_name(compare_runs(base, iou))["a.iou"]
    assert (told.role, told.verdict) == ("told", "regressed")
    assert told.p_adjusted == pytest.approx(min(3 * told.difference.p_value, 1.0))
    assert compare_runs(base, iou).verdict != "regressed"


def test_a_metric_gates_where_a_threshold_names_it_or_all_do(base) -> None:
    iou = with_scores(base, "iou", iou=scores(3, 0.05))
    for asked in ({"thresholds": {"a.iou": 1.0}}, {"thresholds": {"grounding.iou": 1.0}}, {"metrics": "all"}):
        report = compare_runs(base, iou, **asked)
        assert (by_name(report)["a.iou"].role, report.verdict) == ("decides", "regressed")
    far = compare_runs(base, iou, thresholds={"a.iou": 50.0})
    assert by_name(far)["a.iou"].verdict == "unchanged"
    with pytest.raises(PerpoError, match=r"--threshold names 'a.iuo', which was not compared"):
        compare_runs(base, iou, thresholds={"a.iuo": 1.0})


def pope(base: Run, name: str, yes: np.ndarray) -> Run:
    """The run as one of POPE, whose questions have the truths yes and no in turn."""
    truth = np.arange(SIZE) % 2 == 0
    yes = yes.astype(bool)
    counts = {"tp": yes & truth, "fp": yes & ~truth, "fn": ~yes & truth, "yes": yes, "accuracy": yes == truth}
    rows = [{key: float(value[place]) for key, value in counts.items()} for place in range(SIZE)]
    tasks = [dataclasses.replace(task, benchmark="pope", box_frame=None) for task in base.record.tasks]
    groups = [dataclasses.replace(group, name="pope", benchmark="pope") for group in base.record.groups]
    target = ['"yes"' if each else '"no"' for each in truth]
    return again(base, name, {"scores": rows, "target": target}, tasks=tasks, groups=groups)


def test_a_metric_without_a_better_direction_is_changed_and_fails_where_it_is_named(base) -> None:
    truth = np.arange(SIZE) % 2 == 0
    one, other = pope(base, "one", truth), pope(base, "other", truth | (lost(0.1) > 0))
    report = compare_runs(one, other)
    row = by_name(report)["a.yes_ratio"]
    assert (row.role, row.verdict) == ("told", "changed")
    assert row.gain == pytest.approx((~truth & (lost(0.1) > 0)).mean())  # as it is: more yes
    assert by_name(compare_runs(one, other, metrics="all"))["a.yes_ratio"].role == "told"
    named = compare_runs(one, other, thresholds={"": 50.0, "pope.yes_ratio": 2.0})
    assert (by_name(named)["a.yes_ratio"].role, named.verdict) == ("decides", "changed")
    fewer = compare_runs(other, one, thresholds={"": 50.0, "pope.yes_ratio": 2.0})
    assert fewer.verdict == "changed"
    assert by_name(fewer)["a.yes_ratio"].gain == pytest.approx(-row.gain)
    passed = compare_runs(one, other, thresholds={"": 50.0, "pope.yes_ratio": 20.0})
    assert by_name(passed)["a.yes_ratio"].verdict == "unchanged"
    assert headline(named).startswith("changed: other against one (a.yes_ratio +")
    assert "Changed: as regressed or improved" in markdown(named)


def test_the_gate_fails_by_its_exit_code_on_what_is_named(base, tmp_path) -> None:
    truth = np.arange(SIZE) % 2 == 0
    one, other = pope(base, "one", truth), pope(base, "other", truth | (lost(0.1) > 0))
    flags = [f"--baseline={one.path}", f"--candidate={other.path}", "--threshold", "50"]
    assert main([*flags, f"--junit={tmp_path / 'r.xml'}"]) == 0
    assert main([*flags, "pope.yes_ratio=2.0", f"--junit={tmp_path / 'r.xml'}"]) == 1
    (case,) = [case for case in ElementTree.parse(tmp_path / "r.xml").iter("testcase") if "yes" in case.get("name")]
    assert case.find("failure").get("type") == "changed"


def boxed(base: Run, name: str, small: np.ndarray, right: np.ndarray) -> Run:
    """The run with true boxes that take 0.5% or 50% of a picture of 40 x 20 pixels."""
    boxes = ["[0.0, 0.0, 2.0, 2.0]" if each else "[0.0, 0.0, 20.0, 20.0]" for each in small]
    return again(with_scores(base, f"{name} scores", acc=right), name, {"target": boxes})


def test_a_loss_in_one_kind_of_samples_is_found_there(base) -> None:
    small = np.arange(SIZE) < 100
    right = scores(3)
    worse = np.where(small & (lost(0.4) > 0), 0.0, right)
    runs = boxed(base, "one", small, right), boxed(base, "other", small, worse)
    name = "a[box size: below 1% of the picture]"
    assert name not in by_name(compare_runs(*runs))
    told, gate = (compare_runs(*runs, thresholds={"": 5.0}, slices=how) for how in ("tell", "gate"))
    row = by_name(gate)[name]
    difference = (worse - right)[small]
    assert row.difference.value == pytest.approx(difference.mean())
    assert row.difference.p_value == pytest.approx(ttest_1samp(difference, 0).pvalue)
    p = [row.difference.p_value for row in gate.rows]
    assert len(p) == 2  # the task, and the kind in which something differs
    adjusted = multipletests(p, method="holm")[1]
    assert [row.p_adjusted for row in gate.rows] == pytest.approx(list(adjusted))
    assert (gate.verdict, told.verdict) == ("regressed", "unchanged")
    assert by_name(told)[name].role == "told"
    waived = compare_runs(*runs, thresholds={"": 5.0}, slices="gate", waivers=[Waiver(name, "known", row_date(), 90.0)])
    assert waived.verdict != "regressed"


def row_date():
    from datetime import UTC, datetime, timedelta

    return datetime.now(UTC).date() + timedelta(days=2)


def test_a_threshold_that_names_a_kind_of_samples_counts_there(base) -> None:
    small = np.arange(SIZE) < 100
    right = scores(3)
    runs = boxed(base, "one", small, right), boxed(base, "other", small, np.where(small & (lost(0.4) > 0), 0.0, right))
    name = "a[box size: below 1% of the picture]"
    for slices, points, verdict in (("tell", 5.0, "regressed"), ("gate", 90.0, "unchanged")):
        report = compare_runs(*runs, thresholds={"": 5.0, name: points}, slices=slices)
        row = by_name(report)[name]
        assert (row.role, row.threshold, report.verdict) == ("decides", points / 100, verdict)
    with pytest.raises(PerpoError, match="which was not compared"):
        compare_runs(*runs, thresholds={name: 5.0})


def test_a_metric_that_gates_must_be_there_of_every_candidate(base) -> None:
    whole = with_cuts(base, "whole", np.zeros(SIZE))
    without = with_scores(base, "without", acc=scores(3))
    baseline, both = Entry((with_cuts(base, "b", np.zeros(SIZE)),)), [Entry((whole,)), Entry((without,))]
    for candidates in (both, both[::-1]):
        with pytest.raises(PerpoError, match=r"names 'a.truncated', which was not compared of without"):
            compare_entries(baseline, candidates, Wanted({"a.truncated": 1.0}))


def test_a_kind_of_few_images_is_inconclusive_whatever_it_lost(base) -> None:
    small = np.arange(SIZE) < 19
    right = np.where(small, 1.0, scores(3))
    runs = boxed(base, "one", small, right), boxed(base, "other", small, np.where(small, lost(0.9) * 0, right))
    row = by_name(compare_runs(*runs, slices="gate"))["a[box size: below 1% of the picture]"]
    assert (row.gain, row.p_adjusted, row.verdict) == (-1.0, None, "inconclusive")


def test_layouts_that_an_older_baseline_does_not_know_are_those_of_the_candidate(base) -> None:
    pages = {"tasks": [dataclasses.replace(task, benchmark="ocr") for task in base.record.tasks]}
    layouts = [["1 column", "2 columns", None][place % 3] for place in range(SIZE)]
    older = again(base, "older", {"target": ['"a page"'] * SIZE}, **pages)
    newer = again(older, "newer", {"layout": layouts})
    keys = base.samples(["sample_key"])["sample_key"].to_pylist()
    expected = {
        ("layout", layout): sorted(key for key, own in zip(keys, layouts, strict=True) if own == layout)
        for layout in ("1 column", "2 columns")
    }
    for run, others in ((older, [older, newer]), (newer, [older])):
        assert {part.kind: part.keys for part in slices_of(run, read_scores(older), others)} == expected
    assert slices_of(older, read_scores(older), [older]) == []


def test_kinds_of_a_ratio_are_told_by_the_share_of_right_answers(base) -> None:
    truth = np.arange(SIZE) % 2 == 0
    runs = pope(base, "one", truth), pope(base, "other", truth | (lost(0.1) > 0))
    row = by_name(compare_runs(*runs, slices="tell"))["a.accuracy[truth: no]"]
    assert row.gain == pytest.approx(-(lost(0.1)[~truth]).mean())


def seeds(base: Run, name: str, loss: float, count: int = 3, **fields) -> list[Run]:
    """Runs of one configuration that differ as seeds do."""
    rng = np.random.default_rng(len(name))
    runs = []
    for seed in range(count):
        flipped = np.where(rng.random(SIZE) < 0.05, 1 - scores(3, loss), scores(3, loss))
        run = with_scores(base, f"{name}{seed}", acc=flipped)
        model = dataclasses.replace(run.record.model, adapter="x", adapter_sha256=f"{seed}{name}" * 8)
        arguments = {"method": "sft", "seed": seed, "output_dir": f"out/{seed}", "learning_rate": 1e-4}
        training = {"arguments": arguments, "data": {"sha256": "d" * 64}}
        settings = {"model": model, "training_run": training} | fields
        runs.append(again(run, f"{name}-{seed}", **settings))
    return runs


def test_several_seeds_are_one_entry(base) -> None:
    ours, theirs = seeds(base, "new", 0.05), seeds(base, "old", 0.0, 2)
    (report,) = compare_entries(Entry(tuple(theirs)), [Entry(tuple(ours))], Wanted())
    row = by_name(report)["a"]
    columns = [
        [(np.array([each["acc@0.5"] for each in run.samples().sort_by("sample_key")["scores"].to_pylist()]),
          np.ones(SIZE)) for run in side] for side in (ours, theirs)
    ]  # fmt: skip
    expected = crossed_t(*columns, np.arange(SIZE))
    for name in ("value", "stderr", "interval", "p_value", "df", "between_runs"):
        assert getattr(row.difference, name) == pytest.approx(getattr(expected, name))
    assert row.candidate == pytest.approx(np.mean([above.mean() for above, _ in columns[0]]))
    assert row.pairs is None
    told = as_json(report)
    assert told["runs"]["candidate"] == ["run-new-0", "run-new-1", "run-new-2"]
    assert json.loads(json.dumps(told))["rows"][0]["difference"]["method"] == "crossed-t"
    assert "Values are means over 2 runs of old-0, old-1 (2 runs) and 3 runs" in markdown(report)
    assert page(report).count("<li>") == 5


def test_one_run_a_side_has_the_numbers_that_it_always_had(base) -> None:
    (ours,), (theirs,) = seeds(base, "new", 0.05, 1), seeds(base, "old", 0.0, 1)
    row = by_name(compare_runs(theirs, ours))["a"]
    assert (row.difference.method, row.difference.df) == ("cluster-t", None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": {"weights_sha256": "b" * 64}}, "model weights_sha256"),
        ({"generation": {"limit": None, "temperature": 0.7}}, "temperature 0.7 against 0.0"),
        ({"training_run": {"arguments": {"method": "sft", "learning_rate": 1.0}}}, "training's learning_rate 1.0"),
        ({"training_run": {"arguments": {"method": "sft"}, "data": {"sha256": "e" * 64}}}, "training data eee"),
        ({"training_run": None}, "one was trained"),
        ({"suite": {"name": "paper", "version": "1", "sha256": "b" * 64}}, "suite paper against grounding"),
    ],
)
def test_runs_of_two_configurations_are_no_entry(base, change, said) -> None:
    one, other = seeds(base, "new", 0.0, 2, generation={"limit": None, "temperature": 0.0})
    if "model" in change:
        change = {"model": dataclasses.replace(other.record.model, **change["model"])}
    strange = again(other, "strange", **change)
    with pytest.raises(PerpoError, match="are not of one configuration") as found:
        compare_entries(Entry((base,)), [Entry((one, strange))], Wanted())
    assert said in found.value.message
    with pytest.raises(PerpoError, match="is named twice in one entry"):
        compare_entries(Entry((base,)), [Entry((one, one))], Wanted())


def test_a_run_on_both_sides_is_refused_among_seeds_and_said_by_itself(base) -> None:
    one, two, three = seeds(base, "new", 0.0)
    with pytest.raises(PerpoError, match=f"the run {two.record.run_id} is in the baseline and in the candidate"):
        compare_entries(Entry((one, two)), [Entry((two, three))], Wanted())
    assert any("are one run" in note for note in compare_runs(one, one).notes)
    assert not any("are one run" in note for note in compare_runs(one, two).notes)


def test_sampled_training_data_may_differ_and_it_is_said(base) -> None:
    runs = [
        again(run, f"s{place}", training_run={"arguments": {"method": "dpo"}, "data": {"sha256": str(place) * 64}})
        for place, run in enumerate(seeds(base, "new", 0.0, 2))
    ]
    (report,) = compare_entries(Entry((base,)), [Entry(tuple(runs))], Wanted())
    assert any("learned from sampled data that differ" in note for note in report.notes)


def test_many_candidates_are_adjusted_together(base, tmp_path, capsys) -> None:
    runs = [with_scores(base, f"c{place}", acc=scores(3, loss)) for place, loss in enumerate((0.0, 0.01, 0.05))]
    reports = compare_entries(Entry((base,)), [Entry((run,)) for run in runs], Wanted({"": 2.0}))
    rows = [report.rows[0] for report in reports]
    # The second loses in some of the samples in which the third does. Its adjusted p-value is at least that of the
    # signs of its K losses alone, 2^(1 - K), and at most Holm's with one other that differs.
    alone = [row.difference.p_value for row in rows]
    count = round(-rows[1].difference.value * SIZE)
    assert 2.0 ** (1 - count) * 0.5 < rows[1].p_adjusted <= 2 * alone[1]
    assert rows[2].p_adjusted == pytest.approx(3 * alone[2])  # below what draws can tell: Holm's
    assert [report.verdict for report in reports] == ["identical", "unchanged", "regressed"]
    assert many.worst(reports) is reports[2]

    files = {kind: tmp_path / f"report.{kind}" for kind in ("markdown", "junit", "html", "json")}
    flags = ["--baseline", str(base.path), "--threshold=2", "--candidate", *(str(run.path) for run in runs)]
    assert main([*flags, *(f"--{kind}={path}" for kind, path in files.items())]) == 1
    assert "(the worst of 3 candidates)" in capsys.readouterr().err
    text = files["markdown"].read_text()
    assert text.startswith("**3 candidates against base**")
    assert all(f"{run.record.name} against base" in text for run in runs)
    suites = list(ElementTree.parse(files["junit"]).getroot())
    assert [suite.get("name") for suite in suites] == [f"perpo-report c{n}" for n in range(3)]
    assert [suite.get("failures") for suite in suites] == ["0", "0", "1"]
    told = json.loads(files["json"].read_text())
    assert (told["schema"], told["verdict"], len(told["candidates"])) == (2, "regressed", 3)
    assert [each["verdict"] for each in told["candidates"]] == [report.verdict for report in reports]
    assert files["html"].read_text().count("<h1") == 4
    assert main(flags[:-1]) == 0  # without the one that lost
    assert len(many.markdown(reports, limit=6000).encode()) <= 6000


def test_a_narrow_terminal_shows_verdicts_in_the_first_table(base, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main([f"--baseline={base.path}", f"--candidate={with_scores(base, 'worse', acc=scores(3, 0.05)).path}"]) == 1
    head, rule, row = capsys.readouterr().out.splitlines()[2:5]
    assert head.split()[:3] == ["task", "verdict", "gain"]
    assert row.split()[:4] == ["a", "▼", "regressed", "-3.5"]
    assert set(rule) == {"─"}


def test_runs_joined_by_commas_are_one_entry_on_the_command_line(base, tmp_path, capsys) -> None:
    ours = seeds(base, "new", 0.05)
    flags = [f"--results={tmp_path / 'results'}", f"--baseline={base.path}"]
    out = tmp_path / "r.json"
    assert main([*flags, "--candidate=new-0,new-1,new-2", f"--json={out}"]) in (0, 1)
    assert json.loads(out.read_text())["runs"]["candidate"] == [run.record.run_id for run in ours]
    assert main([*flags, "--candidate=new-0,new-0"]) == 2
    assert "is named twice" in capsys.readouterr().err
    assert main([*flags, "--candidate=new-0,"]) == 2
    assert "names no run before or behind a comma" in capsys.readouterr().err


def test_the_single_report_has_the_keys_of_its_first_layout(base) -> None:
    told = as_json(compare_runs(base, with_scores(base, "worse", acc=scores(3, 0.05))))
    first = {"verdict", "baseline", "candidate", "judge", "samples", "notes", "rows", "flips"}
    assert set(told) == first | {"schema", "runs", "others", "pinned", "approval", "costs", "price"}
    row = {"task", "tasks", "benchmark", "metric", "baseline", "candidate", "difference", "threshold", "p_adjusted"}
    row |= {"verdict", "mde", "pairs", "waiver", "unit", "higher_is_better", "gain"}
    assert set(told["rows"][0]) == row | {"name", "role", "kind", "primary", "left_out"}
