"""perpo.results.regression.report, its files and perpo-report: verdicts derived by hand, hostile texts, exit codes."""

from __future__ import annotations

import dataclasses
import json
from datetime import date
from hashlib import sha256
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.weightstats import DescrStatsW

from perpo.cli.report import main
from perpo.errors import PerpoError
from perpo.records.store import read_run, write_run
from perpo.results.regression.junit import junit
from perpo.results.regression.page import page
from perpo.results.regression.report import Waiver, compare_runs
from perpo.results.regression.report_json import as_json
from perpo.results.regression.text import headline, markdown

SIZE = 1000  # with fewer images a loss of half a point may show in none of them


def rows(seed: int, **loss: float) -> dict[str, list[tuple[str, float]]]:
    """Two tasks, one sample an image, so that plain statistics apply; a task's loss is the share that turns wrong."""
    rng = np.random.default_rng(seed)
    found = {}
    for task in ("a", "b"):
        right = rng.random(SIZE) < 0.7
        wrong = rng.random(SIZE) < loss.get(task, 0.0)
        found[task] = [(f"{task}{k}", float(right[k] and not wrong[k])) for k in range(SIZE)]
    return found


def by_hand(base: list[tuple[str, float]], other: list[tuple[str, float]]) -> DescrStatsW:
    return DescrStatsW([b[1] - a[1] for a, b in zip(base, other, strict=True)])


def test_a_loss_in_one_task_is_found_there(make_run) -> None:
    base, worse = rows(1), rows(1, b=0.1)
    report = compare_runs(make_run("base", base), make_run("worse", worse))
    plain = {row.task: row for row in report.rows}
    assert {task: row.verdict for task, row in plain.items()} == {
        "a": "unchanged",
        "b": "regressed",
        "grounding": "regressed",
    }
    t_statistic, p, _ = by_hand(base["b"], worse["b"]).ttest_mean()
    assert plain["b"].difference.p_value == pytest.approx(p)
    assert plain["b"].difference.value / plain["b"].difference.stderr == pytest.approx(t_statistic)
    adjusted = multipletests([1.0, p, plain["grounding"].difference.p_value], method="holm")[1]
    assert [row.p_adjusted for row in report.rows] == pytest.approx(list(adjusted))
    assert report.verdict == "regressed"
    assert headline(report).startswith("regressed: worse against base (b -")
    # The average of two tasks of one sample an image: half of each task's difference, all images apart.
    assert plain["grounding"].difference.value == pytest.approx(plain["b"].difference.value / 2)
    pairs = plain["b"].pairs
    lost = sum(a[1] > b[1] for a, b in zip(base["b"], worse["b"], strict=True))
    assert (pairs.baseline_only, pairs.candidate_only) == (lost, 0)
    assert pairs.both + pairs.baseline_only + pairs.candidate_only + pairs.neither == SIZE


def test_the_reverse_is_an_improvement_and_a_run_against_itself_unchanged(make_run) -> None:
    base, worse = make_run("base", rows(2)), make_run("worse", rows(2, a=0.1, b=0.1))
    assert compare_runs(worse, base).verdict == "improved"
    again = compare_runs(base, base)
    assert {row.verdict for row in again.rows} == {again.verdict} == {"identical"}
    assert headline(again) == "identical: base against base"
    assert again.flips == []
    same = compare_runs(base, make_run("other words", rows(2)))
    assert {row.verdict for row in same.rows} == {"unchanged"}


def test_no_answer_is_like_no_other(make_run) -> None:
    run = make_run("base", {"a": [("x", 1.0), ("y", 0.0)]})
    table = run.samples()
    table = table.set_column(table.schema.get_field_index("response"), "response", pa.array(["said", None]))
    silent = write_run(run.path.parents[1], dataclasses.replace(run.record, run_id="silent"), table)
    assert compare_runs(silent, silent).verdict == "inconclusive"


def test_two_samples_tell_nothing(make_run, tmp_path) -> None:
    """Equal scores, other answers: up to 1 - 0.025^(1/2) = 84% of images may hold what shows in neither."""
    runs = [make_run(name, {"a": [("x", 1.0), ("y", 1.0)]}) for name in ("one", "two")]
    (row,) = compare_runs(*runs).rows
    assert (row.gain, row.verdict) == (0.0, "inconclusive")
    assert row.difference.equivalence == pytest.approx((-0.842, 0.842), abs=1e-3)
    flags = [f"--baseline={runs[0].path}", f"--candidate={runs[1].path}"]
    assert main([*flags, "--fail_on=inconclusive"]) == 1
    assert main(flags) == 0


def test_one_flip_in_60_images_is_not_unchanged(make_run) -> None:
    base, other = ({"a": [(f"{k}", float(k > flips)) for k in range(60)]} for flips in (0, 1))
    (row,) = compare_runs(make_run("base", base), make_run("other", other)).rows
    assert row.verdict == "inconclusive"


def test_runs_that_other_code_scored_are_said_or_refused(make_run, tmp_path, capsys) -> None:
    base, new = make_run("base", rows(1)), make_run("new", rows(1))
    record = dataclasses.replace(
        new.record, suite=new.record.suite | {"sha256": "f" * 64}, run_id="later", samples=None
    )
    later = write_run(new.path.parents[1], record, new.samples())
    flags = [f"--baseline={base.path}", f"--candidate={later.path}"]
    assert main(flags) == 0
    assert "were scored by different code of the same versions (ffffffff and" in " ".join(
        capsys.readouterr().out.split()
    )
    assert main([*flags, "--strict"]) == 2
    assert "hint: score both with perpo-eval --rescore RUN" in capsys.readouterr().err
    assert main([f"--baseline={base.path}", f"--candidate={new.path}", "--strict"]) == 0
    tasks = [dataclasses.replace(task, task_version="2") for task in new.record.tasks]
    newer = dataclasses.replace(new.record, tasks=tasks, run_id="newer", samples=None)
    flags[1] = f"--candidate={write_run(new.path.parents[1], newer, new.samples()).path}"
    capsys.readouterr()
    assert main(flags) == 0
    assert "(a: version 2 against 1; b: version 2 against 1)" in " ".join(capsys.readouterr().out.split())
    assert main([*flags, "--strict"]) == 2


def test_a_small_sample_is_inconclusive_and_says_what_it_would_have_seen(make_run) -> None:
    base = {"a": [(f"{k}", float(k % 2)) for k in range(30)]}
    other = {"a": [(f"{k}", float(k % 2) if k > 1 else 1.0 - k % 2) for k in range(30)]}
    (row,) = compare_runs(make_run("base", base), make_run("other", other)).rows
    assert row.verdict == "inconclusive"
    assert row.mde == pytest.approx(2.8 * row.difference.stderr, rel=0.06)


def test_unchanged_is_two_one_sided_tests_within_the_threshold(make_run) -> None:
    """With many flips it is the 95% interval, by which both one-sided tests of statsmodels reject at 2.5%."""
    base, other = rows(3), rows(3, a=0.01, b=0.01)
    runs = make_run("base", base), make_run("other", other)
    stats = by_hand(base["a"], other["a"])
    lost = 100 * abs(np.mean([b[1] - a[1] for a, b in zip(base["a"], other["a"], strict=True)]))
    for points, verdict in ((50.0, "unchanged"), (1.1 * lost, "inconclusive")):
        row = compare_runs(*runs, thresholds={"a": points}).rows[0]
        p = max(stats.ttest_mean(-points / 100, "larger")[1], stats.ttest_mean(points / 100, "smaller")[1])
        assert (row.verdict == "unchanged") == (p < 0.025)
        assert row.verdict == verdict


def test_a_loss_below_the_threshold_is_no_regression(make_run) -> None:
    runs = make_run("base", rows(4)), make_run("worse", rows(4, a=0.1, b=0.1))
    assert compare_runs(*runs, thresholds={"grounding": 50}).verdict == "unchanged"
    assert compare_runs(*runs, thresholds={"": 50, "b": 1}).rows[1].verdict == "regressed"
    for thresholds, said in (({"c": 1.0}, "'c', which was not compared"), ({"a": 0.0}, "a=0 is not between")):
        with pytest.raises(PerpoError, match=said):
            compare_runs(*runs, thresholds=thresholds)


def test_a_waiver_lets_a_known_loss_pass_until_it_expires(make_run) -> None:
    runs = make_run("base", rows(5)), make_run("worse", rows(5, b=0.1))
    waivers = [Waiver(task, "new frame", date(2026, 5, 1), 20.0) for task in ("b", "grounding")]
    passed = compare_runs(*runs, waivers=waivers, today=date(2026, 5, 1))
    assert passed.verdict == "unchanged"
    lost = {row.task: f"{100 * row.gain:+.1f}" for row in passed.waived}
    assert headline(passed) == (
        f"unchanged: worse against base; losses that are waived: b {lost['b']}, grounding {lost['grounding']} points"
    )
    assert "Waived until 2026-05-01, up to 20 points: b (new frame)." in markdown(passed)
    assert "regressed (waived)" in markdown(passed)
    expired = compare_runs(*runs, waivers=waivers, today=date(2026, 5, 2))
    assert expired.verdict == "regressed"
    assert "The waiver for b expired on 2026-05-01 (new frame)." in expired.notes
    with pytest.raises(PerpoError, match="'nope', which was not compared"):
        compare_runs(*runs, waivers=[Waiver("nope", "x", date(2026, 5, 1), 1.0)])
    larger = [dataclasses.replace(each, max_loss=1.0) for each in waivers]
    refused = compare_runs(*runs, waivers=larger, today=date(2026, 5, 1))
    assert (refused.verdict, refused.waived) == ("regressed", [])
    assert any(note.startswith("The waiver for b is for a loss of at most 1 points, and ") for note in refused.notes)


def test_common_compares_what_both_have(make_run) -> None:
    base, worse = rows(6), rows(6, b=0.1)
    short = {task: pairs[:300] for task, pairs in worse.items()}
    runs = make_run("base", {"a": base["a"]}), make_run("short", {"a": short["a"]}, data_sha256="1" * 64)
    with pytest.raises(PerpoError, match=r"data_sha256.*; a: n_scored 300 against 1000"):
        compare_runs(*runs)
    report = compare_runs(*runs, common=True)
    assert (report.samples, report.rows[0].difference.n) == (300, 300)
    assert report.notes == ["Compared on the 300 samples that both have, of 1,000 and 300."]


HOSTILE = "<script>alert(1)</script> | `` ` | \x00\x0b ]]> & \u202e $x$ **b**"


def hostile(make_run, name: str, score: float):
    """A run of one image whose texts are hostile; stored again with the columns that samples have."""
    run = make_run(name, {"a": [("x", score), ("y", score), ("z", 1.0)]})
    table = run.samples()
    size = table.num_rows
    texts = {
        "image": [{"sha256": "0" * 64, "path": "../../etc/passwd", "width": 40, "height": 20}] * size,
        "question": [HOSTILE] * size,
        "target": ["[1.0, 2.0, 9.0, 8.0]"] * size,
        "response": [HOSTILE + name] * size,
        "prediction": ["[0.0, 0.0, 5.0, 5.0]", None, None],
    }
    for column, values in texts.items():
        table = table.set_column(table.schema.get_field_index(column), column, pa.array(values))
    record = dataclasses.replace(run.record, run_id=f"hostile-{name}", samples=None)
    return write_run(run.path.parents[1], record, table)


class Tags(HTMLParser):
    """Names of a page's elements, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.names, self.text = [], ""

    def handle_starttag(self, tag, attrs):
        self.names.append(tag)

    def handle_data(self, data):
        self.text += data


def test_what_models_wrote_is_text_everywhere(make_run, tmp_path) -> None:
    report = compare_runs(hostile(make_run, "base", 1.0), hostile(make_run, "worse", 0.0))
    assert len(report.flips) == 2
    tags = Tags()
    tags.feed(page(report, [tmp_path]))
    assert "script" not in tags.names
    assert "image" not in tags.names
    assert tags.names.count("rect") == 2 + 2 * 1  # two truths, and the one prediction that each run has
    assert "<script>alert(1)</script> | `` ` |" in tags.text
    ElementTree.fromstring(junit(report))
    assert json.loads(json.dumps(as_json(report)))["flips"][0]["candidate"] == HOSTILE + "worse"
    lines = markdown(report).splitlines()
    (line,) = {line for line in lines if line.startswith("- question")}
    assert line.startswith("- question: ``` <script>")
    assert line.endswith(" ```")


def test_markdown_keeps_to_its_limit_and_says_so(make_run) -> None:
    base, worse = (hostile(make_run, name, score) for name, score in (("base", 1.0), ("worse", 0.0)))
    report = compare_runs(base, worse)
    whole = markdown(report)
    cut = markdown(report, limit=len(whole.encode()) - 100)
    assert len(cut.encode()) <= len(whole.encode()) - 100
    assert "more are left out: this text may have" in cut
    assert "more are left out" not in whole


def test_a_thumbnail_is_only_of_the_image_that_was_scored(make_run, tmp_path) -> None:
    file = tmp_path / "x.png"
    Image.new("RGB", (40, 20), "red").save(file)
    base, worse = hostile(make_run, "base", 1.0), hostile(make_run, "worse", 0.0)
    report = compare_runs(base, worse)
    known = {"path": "x.png", "width": 40, "height": 20, "sha256": sha256(file.read_bytes()).hexdigest()}
    flips = [dataclasses.replace(flip, image=known) for flip in report.flips]
    assert page(dataclasses.replace(report, flips=flips), [tmp_path]).count("data:image/png;base64,") == 2
    lying = [dataclasses.replace(flip, image=known | {"width": 20, "height": 40}) for flip in flips]  # by an older run
    assert "data:image" not in page(dataclasses.replace(report, flips=lying), [tmp_path])
    Image.new("RGB", (40, 20), "blue").save(file)
    assert "data:image" not in page(dataclasses.replace(report, flips=flips), [tmp_path])


@pytest.mark.parametrize("content", [b"no picture", b""])
def test_a_damaged_picture_leaves_an_empty_frame(make_run, tmp_path, content) -> None:
    (tmp_path / "x.png").write_bytes(content)
    report = compare_runs(hostile(make_run, "base", 1.0), hostile(make_run, "worse", 0.0))
    image = {"path": "x.png", "width": 40, "height": 20, "sha256": sha256(content).hexdigest()}
    flips = [dataclasses.replace(flip, image=image) for flip in report.flips]
    told = page(dataclasses.replace(report, flips=flips), [tmp_path])
    assert (told.count("<svg"), told.count("<image")) == (2, 0)


@pytest.mark.parametrize("text", ["[1, 2, 3]", '["a", "b", "c", "d"]', "no JSON", "null", f"[{'9' * 400}, 0, 1, 1]"])
def test_what_is_no_box_is_not_drawn_and_shown_as_it_is(make_run, text) -> None:
    report = compare_runs(hostile(make_run, "base", 1.0), hostile(make_run, "worse", 0.0))
    flips = [dataclasses.replace(f, target=text, baseline_prediction=text, benchmark="grounding") for f in report.flips]
    told = page(dataclasses.replace(report, flips=flips[:1]))
    assert told.count("<rect") == (flips[0].candidate_prediction is not None)
    assert markdown(dataclasses.replace(report, flips=flips[:1]))


def test_exit_codes_and_files(make_run, tmp_path, capsys) -> None:
    base, worse = make_run("base", rows(7)), make_run("worse", rows(7, b=0.1))
    make_run("other", rows(7), data_sha256="1" * 64)
    files = {kind: tmp_path / f"report.{kind}" for kind in ("markdown", "junit", "html", "json")}
    flags = [f"--results={tmp_path / 'results'}", "--baseline=base"]
    outputs = [f"--{kind}={path}" for kind, path in files.items()]
    (tmp_path / "results").joinpath("x").mkdir()

    assert main([*flags, f"--candidate={worse.path}", *outputs]) == 1  # written before it fails
    found = {kind: path.read_text() for kind, path in files.items()}
    assert found["markdown"].startswith("**▼ regressed: worse against base (b -")
    suite = ElementTree.fromstring(found["junit"])[0]
    assert suite.attrib["failures"] == "2"
    assert [case.find("failure") is not None for case in suite] == [False, True, True]
    assert json.loads(found["json"])["verdict"] == "regressed"
    assert "b" in capsys.readouterr().out

    assert main([*flags, f"--candidate={base.path / 'run.json'}"]) == 0
    assert main([*flags, "--candidate=other"]) == 2
    assert "a: data_sha256 111" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main([*flags, f"--candidate={tmp_path / 'empty'}"]) == 3
    assert "holds no finished run" in capsys.readouterr().err
    assert main([*flags, "--candidate=wrse"]) == 2
    assert "did you mean 'worse'?" in capsys.readouterr().err


def test_an_inconclusive_gate(make_run, tmp_path) -> None:
    make_run("base", {"a": [(f"{k}", float(k % 2)) for k in range(30)]})
    make_run("other", {"a": [(f"{k}", float(k % 2) if k > 1 else 1.0 - k % 2) for k in range(30)]})
    flags = [f"--results={tmp_path / 'results'}", "--baseline=base", "--candidate=other"]
    assert main(flags) == 0
    assert main([*flags, "--fail_on=inconclusive"]) == 1


def test_a_run_that_is_not_complete_is_not_judged(make_run, tmp_path, capsys) -> None:
    base = make_run("base", rows(8))
    partial = dataclasses.replace(base.record, status="partial", run_id="cut", name="cut", samples=None)
    write_run(base.path.parents[1], partial, base.samples())
    assert main([f"--results={tmp_path / 'results'}", "--baseline=base", "--candidate=cut"]) == 3
    assert "is partial" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--threshold", "x=y"], "--threshold x=y is not a number of points"),
        (["--threshold", "0"], "--threshold 0 is not a number of points"),
        (["--threshold", "200"], "--threshold 200 is not a number of points"),
        (["--waivers", "w.yaml"], "w.yaml"),
        (["--fail_on", "improved"], "--fail_on expects one of regressed, inconclusive"),
    ],
)
def test_bad_flags(words, said, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.yaml").write_text("- {task: a, reason: '', expires: soon}\n")
    assert main(["--baseline=x", "--candidate=y", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_record_that_is_not_whole_is_named(make_run, tmp_path) -> None:
    run = make_run("base", rows(9))
    (run.path / "samples.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(PerpoError, match="is not the file that"):
        compare_runs(read_run(run.path), read_run(run.path))


def test_a_folder_whose_newest_run_cannot_be_read_gives_no_older_one(make_run, tmp_path, capsys) -> None:
    base, new = make_run("base", rows(10)), make_run("new", rows(10, b=0.2))
    flags = [f"--baseline={base.path}", f"--candidate={tmp_path / 'results'}"]
    (new.path / "run.json").write_text((new.path / "run.json").read_text()[:200])
    assert main(flags) == 3
    assert "holds a run that cannot be read" in capsys.readouterr().err
    (new.path / "run.json").unlink()  # samples without their record
    assert main(flags) == 3
    assert "there is no run at" in capsys.readouterr().err


def test_names_are_names_whatever_they_look_like(make_run, tmp_path, capsys) -> None:
    base, odd = make_run("base", rows(11)), make_run("x[/v2](y):smile: @all a@0.5\n# <img src=x> `", rows(11))
    assert main([f"--baseline={base.path}", f"--candidate={odd.path}", f"--markdown={tmp_path / 'r.md'}"]) == 0
    assert "x[/v2](y):smile: @all" in " ".join(capsys.readouterr().out.split())
    first = (tmp_path / "r.md").read_text().splitlines()[0]
    assert first.startswith(r"**= unchanged: x[/v2]\(y):smile: &#64;all a@0.5 # &lt;img src=x&gt; \` against base")


def test_the_worst_rows_stay_when_the_table_is_too_long(make_run) -> None:
    many = {f"task{'x' * 40}{k}": [(f"{k}-{n}", 1.0) for n in range(4)] for k in range(60)}
    lost = many | {"task_lost": [(f"l{n}", float(n % 2)) for n in range(40)]}
    base = many | {"task_lost": [(f"l{n}", 1.0) for n in range(40)]}
    report = compare_runs(make_run("base", base), make_run("lost", lost))
    assert {row.task for row in report.rows if row.verdict == "regressed"} >= {"task_lost"}
    cut = markdown(report, limit=5000)
    assert len(cut.encode()) <= 5000
    assert "| task_lost |" in cut
    assert "more rows are left out: this text may have 5,000 bytes." in cut


def test_common_is_of_the_same_tasks_images_and_truths(make_run) -> None:
    base, run = rows(12), rows(12)
    one = make_run("base", base)
    lacking = compare_runs(one, make_run("a", {"a": run["a"]}), common=True)
    assert "Not compared, because one run lacks it: b." in lacking.notes
    with pytest.raises(PerpoError, match="no sample in common"):
        compare_runs(one, make_run("c", {"c": run["a"]}), common=True)
    moved = make_run("moved", {"a": run["a"], "b": run["b"]})
    for column, said in (
        ("cluster_id", "samples of both runs have different images"),
        ("target", "samples of both runs have different truths"),
    ):
        table = moved.samples()
        changed = table.set_column(table.schema.get_field_index(column), column, pa.array(["x"] * table.num_rows))
        record = dataclasses.replace(moved.record, run_id=f"moved-{column}", samples=None)
        with pytest.raises(PerpoError, match=f"{2 * SIZE} {said}"):
            compare_runs(one, write_run(one.path.parents[1], record, changed), common=True)


def test_judges_and_frames_must_be_the_same_even_where_one_has_none(make_run) -> None:
    one = make_run("base", rows(13))
    judged = dataclasses.replace(one.record, judge={"id": "gpt", "prompt_sha256": "0", "settings": {}})
    with pytest.raises(PerpoError, match="judge gpt against None"):
        compare_runs(one, dataclasses.replace(one, record=judged))
    tasks = [dataclasses.replace(task, box_frame=None) for task in one.record.tasks]
    with pytest.raises(PerpoError, match="a: box_frame None against padded"):
        compare_runs(one, dataclasses.replace(one, record=dataclasses.replace(one.record, tasks=tasks)))
