"""Two runs of lmms-eval's tasks in the report, the leaderboard, the trend, a model card and the dashboard's pages."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from streamlit.testing.v1 import AppTest

import perpo_dashboard
from perpo.benchmarks.base import Definition
from perpo.benchmarks.declared import info_in, infos
from perpo.errors import PerpoError
from perpo.records.run_record import metric_of
from perpo.results import trend
from perpo.results.compare import metric_difference, metric_value, shared_samples
from perpo.results.leaderboard.board import boards
from perpo.results.model_index import update_card
from perpo.results.regression.report import compare_runs
from perpo.results.regression.text import markdown
from perpo.results.run_tables import run_texts
from perpo.results.samples import read_scores
from perpo_dashboard.shared.links import label_of
from perpo_dashboard.shared.settings import Settings


@pytest.fixture
def known(pair):
    return infos(pair[0].record.tasks)


def of_task(run, task: str):
    scores = read_scores(run)
    return scores.take(scores.tasks == task)


def declared(run, task: str, metric: str) -> dict:
    return next(each for each in run.record.task(task).declared["metrics"] if each["name"] == metric)


def test_what_is_declared_is_a_benchmark_like_others(known) -> None:
    assert list(known) == ["lmms:mme", "lmms:pope", "lmms:ocrbench", "lmms:my_task"]
    mme = known["lmms:mme"]
    assert (mme.primary, mme.shown) == ("mme_perception_score", ("mme_perception_score", "mme_cognition_score"))
    assert mme.by_name["mme_perception_score"].own == "mme_aggregate_results"
    assert mme.by_name["mme_perception_score"].scale == 800
    assert known["lmms:my_task"].by_name["acc"] == Definition("acc", "acc", True)
    assert known["lmms:pope"].right.least == 1.0


def test_a_paired_bootstrap_is_made_of_the_draws_that_both_runs_hold(pair, known) -> None:
    good, bad = pair
    for task, name in (("pope", "pope_f1_score"), ("ocrbench", "ocrbench_accuracy")):
        metric = known[f"lmms:{task}"].by_name[name]
        found = metric_difference(of_task(bad, task), of_task(good, task), metric)
        drawn = np.subtract(*(declared(run, task, name)["draws"]["values"] for run in (bad, good)))
        values = [metric_of(run.record.task(task).metrics, name).value for run in (bad, good)]
        assert found.value == pytest.approx(values[0] - values[1])
        assert found.interval == pytest.approx(tuple(np.percentile(drawn, (2.5, 97.5))))
        extreme = (np.abs(drawn - found.value) >= abs(found.value)).sum()
        assert found.p_value == pytest.approx((1 + extreme) / 1001)
        assert (found.method, found.n, found.n_clusters) == ("cluster-bootstrap", 120, 60)


def test_few_clusters_have_the_t_interval_of_the_draws(pair, known) -> None:
    good, bad = pair
    metric = known["lmms:mme"].by_name["mme_perception_score"]  # of 48 pictures
    found = metric_difference(of_task(bad, "mme"), of_task(good, "mme"), metric)
    drawn = np.subtract(*(declared(run, "mme", metric.name)["draws"]["values"] for run in (bad, good)))
    stderr = np.std(drawn, ddof=1) * np.sqrt(48 / 47)
    half = stats.t.ppf(0.975, 47) * stderr
    assert found.interval == pytest.approx((found.value - half, found.value + half))
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(found.value) / stderr, 47))


def test_of_a_part_of_the_samples_nothing_is_known(pair, known) -> None:
    good, bad = pair
    metric = known["lmms:pope"].by_name["pope_f1_score"]
    ours, theirs = of_task(bad, "pope"), of_task(good, "pope")
    assert metric_value(ours, metric) == metric_of(bad.record.task("pope").metrics, metric.name).value
    part = np.arange(120) > 0
    found = metric_difference(ours.take(part), theirs.take(part), metric)
    assert (found.value, found.p_value, found.method) == (None, None, "undefined")
    assert metric_value(ours.take(part), metric) is None
    same = metric_difference(theirs, theirs, metric)
    assert (same.value, same.interval, same.p_value) == (0.0, None, None)
    assert len(shared_samples(ours, theirs)[0].own) == len(ours.own)


def test_other_clusters_are_not_paired(pair, known) -> None:
    good, bad = pair
    metric = known["lmms:pope"].by_name["pope_f1_score"]
    theirs = of_task(good, "pope")
    strange = {key: replace(number, clusters="0" * 64) for key, number in theirs.own.items()}
    found = metric_difference(of_task(bad, "pope"), replace(theirs, own=strange), metric)
    assert found.method == "undefined"


def test_the_report_and_the_tables(pair) -> None:
    good, bad = pair
    report = compare_runs(good, bad)
    rows = {row.task: row for row in report.rows if row.primary}
    assert list(rows) == ["mme", "pope", "ocrbench", "my_task"]
    assert report.verdict == rows["mme"].verdict == rows["pope"].verdict == "regressed"
    value = metric_of(good.record.task("mme").metrics, "mme_perception_score").value
    assert rows["mme"].baseline == value
    assert rows["mme"].threshold == pytest.approx(4)  # half a point of a hundred, of 800
    assert "points of 800" in markdown(report)
    assert not [note for note in report.notes if "left out" in note]
    assert {flip.task for flip in report.flips} <= set(rows)
    assert all(flip.loss == 1 for flip in report.flips)
    assert {row.verdict for row in compare_runs(good, good).rows} == {"identical"}
    titles = [text.title for text in run_texts(good.record)]
    assert titles == [f"good on {task} (%)" for task in rows]


def test_the_leaderboard_marks_the_better_run(pair) -> None:
    model = replace(pair[0].record.model, id="one model")
    good, bad = (replace(run, record=replace(run.record, model=model)) for run in pair)
    (board,) = boards([bad, good])
    titles = [column.title for column in board.columns]
    assert titles[:2] == ["mme perception score", "mme cognition score"]
    assert len(titles) == 9  # two of mme, five of pope, and one of each other
    best = {column.metric for (row, column), mark in board.marks.items() if mark == "best"}
    assert {"pope_f1_score", "mme_perception_score"} <= best
    assert {board.rows[row].label for (row, _), mark in board.marks.items() if mark == "best"} == {"good"}


def test_the_trend_and_a_model_card(pair, tmp_path) -> None:
    table = trend.history(pair, "mme")
    values = [metric_of(run.record.task("mme").metrics, "mme_perception_score").value for run in pair]
    assert table["value"].tolist() == values
    assert trend.title_of("mme", None, pair) == "mme: perception score"
    card = tmp_path / "README.md"
    assert update_card(card, pair[0]) == 9  # two of mme, five of pope, and one of each other
    assert "name: perception score" in card.read_text()


def test_what_is_declared_and_cannot_be_read_is_said(pair) -> None:
    task = replace(pair[0].record.task("mme"), declared={"metrics": []})
    with pytest.raises(PerpoError, match="what the run declares of 'lmms:mme' cannot be read"):
        info_in([task], task.benchmark)
    with pytest.raises(PerpoError, match="'lmms:mme' is not known"):
        info_in([replace(task, declared=None)], task.benchmark)


@pytest.fixture
def shown(pair, tmp_path, monkeypatch):
    """Both runs in one folder, as the program shows them."""
    import streamlit as st

    monkeypatch.setenv("PERPO_DASHBOARD", "")
    st.cache_data.clear()
    st.cache_resource.clear()
    results = tmp_path / "results"
    for run in pair:
        shutil.copytree(run.path, results / run.path.parent.name / run.path.name)
    Settings(results, ()).announce()
    return pair


def page_of(name: str, **state: str) -> AppTest:
    page = AppTest.from_file(str(Path(perpo_dashboard.__file__).parent / name / "page.py"), default_timeout=60)
    page.query_params.update(state)
    page.run()
    assert [each.message for each in page.exception] == []
    return page


def said_on(page: AppTest) -> str:
    parts = [*page.markdown, *page.caption, *page.warning, *page.info, *page.error, *page.text, *page.code]
    return "\n".join(str(each.value) for each in parts).replace("\\", "")


def test_the_pages_show_them(shown, monkeypatch) -> None:
    state = {"a": label_of(shown[0]), "b": label_of(shown[1])}
    board = page_of("leaderboard")
    assert any("mme" in str(frame.value.columns.tolist()) for frame in board.dataframe)
    compared = page_of("compare", **state, part="mme")
    assert "its score is 1, as the truth's" in said_on(compared)
    counts = {button.label.rpartition("\n")[2]: button.label for button in compared.button}
    right = sum(read_scores(shown[0]).take(read_scores(shown[0]).tasks == "mme").values["sample_score"] == 1)
    both = int(counts["both right"].split("**")[1]) + int(counts["only A"].split("**")[1])
    assert both == right
    sample = page_of("samples", **state, task="pope")
    assert "score" in said_on(sample)
    assert "perhaps" in said_on(page_of("samples", **state, task="pope", said="perhaps"))
    monkeypatch.setattr("streamlit.page_link", lambda *words, **more: None)  # there is one page alone
    told = page_of("regressions", **state)
    assert "regressed" in said_on(told) or any("regressed" in str(frame.value) for frame in told.dataframe)
    assert any("mme · perception score" in str(box.options) for box in told.selectbox)


ERRORS = """
def picture(doc):
    return [doc["image"].convert("RGB")]


def score(doc, results):
    said = results[0].split()
    return {"errors": 0.0 if said == [doc["answer"]] else float(max(len(said), 1))}


def together(values):
    return sum(values) / len(values) * 0.999999  # no mean
"""


def truth(place: int) -> str:
    return "no" if place % 2 else "yes"


def test_one_long_answer_of_a_model_does_not_change_the_scale(said, own, data, tmp_path) -> None:
    folder, rows = tmp_path / "own", tmp_path / "rows"
    folder.mkdir()
    rows.mkdir()
    shutil.copy(data / "my_task.parquet", rows)
    (folder / "my_functions.py").write_text(ERRORS)
    text = (own / "my_task.yaml").read_text().split("metric_list")[0]
    lists = "metric_list: [{metric: errors, aggregation: %s, higher_is_better: false}]"
    for number, aggregation in enumerate(("mean", "!function my_functions.together")):
        (folder / "my_task.yaml").write_text(text + lists % aggregation)
        shared = {"include_path": str(folder), "data": str(rows)}
        long = said(["my_task"], lambda _, n: "a b c" if n == 3 else truth(n), tmp_path, f"long{number}", **shared)
        worse = said(["my_task"], lambda _, n: "x" if n % 5 == 0 else truth(n), tmp_path, f"worse{number}", **shared)
        for run in (long, worse):
            assert {declared(run, "my_task", "errors")[name] for name in ("unit", "scale")} == {"fraction", 1.0}
        (row,) = compare_runs(long, worse).rows
        assert row.gain == pytest.approx(3 / 120 - 24 / 120, abs=1e-5)
        assert row.verdict == "regressed"
