"""The page of blind votes where something is missing or damaged, and the numbers of a result."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import perpo_dashboard
from perpo_dashboard.shared.links import label_of
from perpo_dashboard.vote import votes
from perpo_dashboard.vote.votes import Opened, Vote, ballot

PAGE = Path(perpo_dashboard.__file__).parent / "vote" / "page.py"
NAMES = ("zebrafinch", "yakbutter")


@pytest.fixture
def studied(made_runs, announce, tmp_path):
    """Two runs, and a study of four questions about them."""
    folder = tmp_path / "results"
    runs = made_runs.write_pair(folder, 60, pictures=2, names=NAMES)
    announce(folder)
    keys, tasks = (np.array(runs[0].samples([name])[name].to_pylist()) for name in ("sample_key", "task"))
    pool = votes.Pool(keys, tasks, keys, np.zeros(len(keys), dtype=bool))
    ids = tuple(run.record.run_id for run in runs)
    digests = tuple(run.record.samples.sha256 for run in runs)
    study = votes.new_study(ids, digests, pool, count=4, seed=0, ask_alike=False)
    votes.add(folder / votes.VOTES_FILE, study)
    return folder, runs, study


def look(**state: str) -> AppTest:
    """The page in a state of its address."""
    page = AppTest.from_file(str(PAGE), default_timeout=30)
    page.query_params.update(state)
    page.run()
    assert [each.message for each in page.exception] == []
    return page


def said(page: AppTest) -> str:
    """What the page says outside of tables."""
    parts = [*page.markdown, *page.caption, *page.warning, *page.info, *page.error, *page.code, *page.text]
    return "\n".join(each.value for each in parts).replace("\\", "")


def cast(folder, study, voter, choices):
    """Vote for runs ("first", "second"), whichever side they stand on, or "tie" or "both bad", in the study's order."""
    sides = dict(ballot(study, voter))
    for question, choice in zip(study.questions, choices, strict=False):
        first_left = sides[question]
        side = {"first": "left" if first_left else "right", "second": "right" if first_left else "left"}
        left = study.runs[0 if first_left else 1]
        vote = Vote(study.id, voter, *question, left, side.get(choice, choice), votes.now())
        votes.add(folder / votes.VOTES_FILE, vote)


def test_one_run_is_not_enough(announce, tmp_path):
    announce(tmp_path)
    assert "A vote needs two runs" in said(look())


def test_a_run_cannot_be_held_against_itself(studied):
    from perpo_dashboard.shared.links import label_of

    label = label_of(studied[1][0])
    assert "Choose two different runs" in said(look(show="new", a=label, b=label))


def test_what_has_changed_is_not_voted_on_and_not_named(studied):
    _, runs, study = studied
    file = runs[1].path / "run.json"
    file.write_text(file.read_text().replace(study.samples_sha256[1], "0" * 64))
    page = look(study=study.id, voter="ann")
    assert "its samples have changed since the vote was set up" in said(page)
    assert not any(name in said(page) for name in NAMES)


def test_damaged_samples_stop_the_vote_without_a_name(studied):
    _, runs, study = studied
    with open(runs[1].path / "samples.parquet", "ab") as file:
        file.write(b"x")
    page = look(study=study.id, voter="ann")
    assert "are missing or damaged" in said(page)
    assert not any(name in said(page) for name in NAMES)


def test_lines_without_sense_are_counted(studied):
    folder, _, study = studied
    with open(folder / votes.VOTES_FILE, "a") as file:
        file.write('{"half": \n')
    assert "1 line makes no sense" in said(look(study=study.id, voter="ann"))


def test_a_vote_on_nothing_makes_no_sense(studied):
    folder, _, study = studied
    row = asdict(study) | {"id": "f00d", "questions": []}
    with open(folder / votes.VOTES_FILE, "a") as file:
        file.write(json.dumps(row) + "\n")
    told = said(look())
    assert "1 line makes no sense" in told
    assert "f00d" not in told


def test_a_question_that_the_runs_do_not_have_is_not_shown_as_another(studied):
    folder, _, study = studied
    for place, key in enumerate(("0", "g")):  # before and after all keys
        other = replace(study, id=f"other{place}", questions=(votes.AskedSample("refcoco_val", key),))
        votes.add(folder / votes.VOTES_FILE, other)
        told = said(look(study=other.id, voter="ann"))
        assert "are missing or damaged" in told
        assert not any(name in told for name in NAMES)


def test_a_new_vote_begins_with_two_runs_that_can_be_compared(studied):
    folder, runs, _ = studied
    record = json.loads((runs[0].path / "run.json").read_text())
    for task in record["tasks"]:
        task["data_sha256"] = "f" * 64
    record |= {"run_id": "other-data-zzzzzz", "created_utc": "2030-01-01T00:00:00+00:00"}
    copy = Path(shutil.copytree(runs[0].path, folder / "other"))
    (copy / "run.json").write_text(json.dumps(record))
    page = look(show="new")
    assert {page.selectbox(key=f"pick-{key}").value for key in "ab"} == {label_of(run) for run in runs}


def test_a_file_that_cannot_be_read_is_said(announce, tmp_path):
    announce(tmp_path)
    (tmp_path / votes.VOTES_FILE).mkdir()
    assert "cannot be read" in said(look())


def test_a_vote_that_cannot_be_kept_is_said_and_not_counted(studied):
    folder, _, study = studied
    page = look(study=study.id, voter="ann")
    kept = (folder / votes.VOTES_FILE).read_bytes()
    (folder / votes.VOTES_FILE).unlink()
    (folder / votes.VOTES_FILE).symlink_to(folder / "nowhere" / "votes.jsonl")  # also root cannot write there
    next(button for button in page.button if button.label == "Tie").click().run()
    assert "cannot be written" in said(page)
    (folder / votes.VOTES_FILE).unlink()
    (folder / votes.VOTES_FILE).write_bytes(kept)
    assert "0 of 4 answered" in [each.text for each in look(study=study.id, voter="ann").get("progress")]


def test_a_result_counts_each_question_once(studied):
    folder, _, study = studied
    cast(folder, study, "ann", ["first", "first", "tie", "second"])
    cast(folder, study, "bob", ["first", "second", "both bad", "second"])
    cast(folder, study, "eve", ["second", "second", "both bad"])
    page = look(study=study.id, show="result")
    table = page.dataframe[0].value.set_index("questions of")
    first, second = (next(name for name in table.columns if name.startswith(each)) for each in NAMES)
    row = table.loc["all questions"]
    assert (row[first][:1], row[second][:1], row["tie"][:1], row["both bad"][:1]) == ("1", "2", "0", "1")
    assert row["answered"] == 4
    assert row["preference"] == "67% [21, 94]"  # two of three
    voters = page.dataframe[1].value.set_index("voter")
    assert voters.loc["ann", [first, second, "tie", "both bad"]].tolist() == [2, 1, 1, 0]
    pairs = page.dataframe[2].value.set_index("voters")
    assert pairs.loc["ann and bob", "agree"].startswith("50%")
    # ann: 2 first, 1 second, 1 tie; bob: 1 first, 2 second, 1 both bad; by chance 4 of 16 agree
    assert pairs.loc["ann and bob", "kappa"] == pytest.approx((2 / 4 - 4 / 16) / (1 - 4 / 16))
    assert pairs.loc["ann and eve", "questions"] == 3
    assert "Krippendorff's alpha: " in said(page)


def test_votes_after_the_names_were_seen_are_told_apart(studied):
    folder, _, study = studied
    cast(folder, study, "ann", ["first"])
    votes.add(folder / votes.VOTES_FILE, Opened(study.id, "ann", votes.now()))
    cast(folder, study, "ann", ["second", "second"])
    page = look(study=study.id, show="result")
    assert "2 votes do not count, because their voters had seen the result before" in said(page)
    assert page.dataframe[0].value["answered"].iloc[0] == 1
