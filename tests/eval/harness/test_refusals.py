"""What of lmms-eval's tasks cannot be run, and what can go wrong with those that can: each is said in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from perpo.errors import PerpoError
from perpo_eval.arguments import EvalArguments, JudgeArguments
from perpo_eval.evaluate import run as runner
from perpo_eval.evaluate.rescoring import judge_run
from perpo_eval.evaluate.run import evaluate
from perpo_eval.harness.finding import find_tasks
from tests.support.any_task import OWN_FUNCTIONS, OWN_TASK


@pytest.fixture
def no_model(monkeypatch) -> None:
    """Nothing that costs may happen before a refusal."""
    monkeypatch.setattr(runner, "load_engine", lambda *words: pytest.fail("a model was loaded"))


def task_folder(folder: Path, task: str = OWN_TASK, functions: str = OWN_FUNCTIONS) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "my_task.yaml").write_text(task)
    (folder / "my_functions.py").write_text(functions)
    return folder


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ("mmbench_en_dev", "asks a judge or another service"),
        ("hellaswag", "compares the likelihoods of its choices"),
        ("live_bench_2406", "asks a judge or another service"),
        ("gsm8k", "through 2 filters"),
        ("no_such_task_at_all", "lmms-eval has no task 'no_such_task_at_all', and perpo has none"),
    ],
)
def test_tasks_that_cannot_be_run_are_refused_by_name(task, why, no_model, tmp_path) -> None:
    with pytest.raises(PerpoError, match=why) as error:
        evaluate(EvalArguments(tasks=[task], output=str(tmp_path)))
    assert task in error.value.message


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        ({"tasks": ["mme", "refshapes_val"]}, "refshapes_val is perpo's task and mme is lmms-eval's"),
        ({"tasks": ["mme"], "suite": "pope"}, "--suite has no use"),
        ({"tasks": ["mme"], "box_scale": "pixels"}, "--box_scale has no use"),
        ({"include_path": "."}, "--include_path has no use"),
        ({"tasks": ["mme"], "include_path": "nowhere"}, "--include_path nowhere is no folder"),
        ({"tasks": ["mme"], "data": "nowhere"}, "nowhere holds no mme.parquet"),
    ],
)
def test_settings_without_use_are_refused(flags, why, no_model, tmp_path) -> None:
    with pytest.raises(PerpoError, match=why):
        evaluate(EvalArguments(output=str(tmp_path), **flags))


def test_a_slip_in_a_name_of_either_kind_is_guessed(no_model, tmp_path) -> None:
    for name, meant in (("refshapes_vla", "refshapes_val"), ("ocrbnech", "ocrbench")):
        with pytest.raises(PerpoError) as error:
            evaluate(EvalArguments(tasks=[name], output=str(tmp_path)))
        assert meant in error.value.hint


def test_a_group_stands_for_its_tasks_and_a_tag_for_those_that_bear_it(tmp_path) -> None:
    assert [file.name for file in find_tasks(["pope_full"], None)] == ["pope_adv", "pope_pop", "pope_random"]
    folder = task_folder(tmp_path / "own", OWN_TASK + "tag: [mine, others]\n")
    other = OWN_TASK.replace("my_task", "an_other", 1) + "tag: mine\n"
    (folder / "an_other.yaml").write_text(other)
    assert [file.name for file in find_tasks(["mine"], str(folder))] == ["an_other", "my_task"]
    assert [file.name for file in find_tasks(["others", "my_task"], str(folder))] == ["my_task"]


def test_a_task_that_is_defined_twice_is_not_guessed(tmp_path) -> None:
    folder = task_folder(tmp_path / "own", OWN_TASK.replace("my_task", "mme", 1))
    with pytest.raises(PerpoError, match="'mme' is defined twice"):
        find_tasks(["mme"], str(folder))


@pytest.mark.parametrize("name", ["pope", "mmmu"])  # a task of lmms-eval's, and a group
def test_a_group_of_ones_own_is_not_mixed_with_lmms_evals(name, tmp_path) -> None:
    folder = task_folder(tmp_path / "own")
    (folder / "group.yaml").write_text(f"group: {name}\ntask: [my_task]\n")
    with pytest.raises(PerpoError, match=f"'{name}' is defined twice.*group.yaml"):
        find_tasks([name], str(folder))


def test_a_task_file_that_is_no_yaml_is_named(tmp_path) -> None:
    folder = task_folder(tmp_path / "own", OWN_TASK + "other: [1, 2\n")
    with pytest.raises(PerpoError, match=r"my_task\.yaml cannot be loaded: ParserError"):
        find_tasks(["my_task"], str(folder))


def test_the_digest_covers_what_the_functions_import(tmp_path) -> None:
    helped = "import sys\n\nsys.path.append(__file__.rpartition('/')[0])\nimport own_helper_beside\n" + OWN_FUNCTIONS
    digests = []
    for folder, text in (("one", "LEAST = 1\n"), ("other", "LEAST = 2\n")):
        made = task_folder(tmp_path / folder, functions=helped)
        (made / "own_helper_beside.py").write_text(text)
        (made / "unused.py").write_text(folder)
        digests.append(find_tasks(["my_task"], str(made))[0].sha256)
        (made / "own_helper_beside.py").write_text("LEAST = 3\n")
        digests.append(find_tasks(["my_task"], str(made))[0].sha256)
    assert digests[0] != digests[2]
    assert digests[1] == digests[3]


def test_the_digest_covers_the_functions(tmp_path) -> None:
    before = find_tasks(["my_task"], str(task_folder(tmp_path / "own")))[0].sha256
    after = find_tasks(["my_task"], str(task_folder(tmp_path / "own", functions=OWN_FUNCTIONS + "\n# other\n")))[0]
    assert before != after.sha256


def test_a_task_without_a_score_for_each_sample_is_refused(data, no_model, tmp_path) -> None:
    functions = OWN_FUNCTIONS.replace('{"acc": float(', '{"acc": str(')
    folder = task_folder(tmp_path / "own", functions=functions)
    with pytest.raises(PerpoError, match="'my_task' gives no score for a sample"):
        evaluate(EvalArguments(tasks=["my_task"], include_path=str(folder), data=str(data), output=str(tmp_path)))


def test_a_file_that_cannot_be_loaded_is_named(data, no_model, tmp_path) -> None:
    folder = task_folder(tmp_path / "own", functions="import nothing_of_that_name\n")
    with pytest.raises(PerpoError, match=r"my_task\.yaml cannot be loaded: .*nothing_of_that_name"):
        evaluate(EvalArguments(tasks=["my_task"], include_path=str(folder), data=str(data), output=str(tmp_path)))


def test_rows_in_other_columns_are_said(own, no_model, tmp_path) -> None:
    (tmp_path / "my_task.jsonl").write_text(json.dumps({"text": "Red?", "answer": "yes"}) + "\n")
    with pytest.raises(PerpoError, match=r"my_task\.jsonl cannot be read as rows of my_task: .*question"):
        evaluate(EvalArguments(tasks=["my_task"], include_path=str(own), data=str(tmp_path), output=str(tmp_path)))


def test_a_hub_that_cannot_be_reached_is_said(own, no_model, tmp_path, monkeypatch) -> None:
    import datasets
    from lmms_eval.api.task import ConfigurableTask

    def unreachable(*words, **more):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    monkeypatch.setattr(ConfigurableTask.download.retry, "sleep", lambda seconds: None)
    with pytest.raises(PerpoError, match=r"my_task \(somebody/my_task\) cannot be had: .*no network") as error:
        evaluate(EvalArguments(tasks=["my_task"], include_path=str(own), output=str(tmp_path)))
    assert error.value.exit_code == 3


@pytest.mark.parametrize(("pictures", "count"), [("[doc['image'], doc['image']]", 2), ("[]", 0)])
def test_perpos_engine_takes_one_picture(pictures, count, data, no_model, tmp_path) -> None:
    functions = OWN_FUNCTIONS.replace('[doc["image"].convert("RGB")]', pictures)
    folder = task_folder(tmp_path / "own", functions=functions)
    with pytest.raises(PerpoError, match=f"show another number of pictures than one .row 0: {count}"):
        evaluate(EvalArguments(tasks=["my_task"], include_path=str(folder), data=str(data), output=str(tmp_path)))


def test_an_answer_that_the_task_cannot_score_is_an_error_and_not_a_0(data, said, tmp_path) -> None:
    functions = OWN_FUNCTIONS.replace("    return {", "    assert results[0] != 'odd', 'what is this'\n    return {")
    folder = task_folder(tmp_path / "own", functions=functions)

    def odd(task: str, place: int) -> str:
        return "odd" if place == 5 else "yes"

    with pytest.raises(PerpoError, match="my_task, row 5: process_results fails: AssertionError: what is this"):
        said(["my_task"], odd, tmp_path, "odd", include_path=str(folder))


def test_an_aggregation_that_fails_leaves_its_number_undefined_and_is_said(said, tmp_path) -> None:
    run = said(["mme"], lambda task, place: "yes", tmp_path, "odd", limit=3)  # mme takes pairs
    task = run.record.task("mme")
    (metric,) = task.metrics
    assert (metric.value, metric.ci_low, metric.n) == (None, None, 3)
    assert "mme_perception_score: AssertionError: MME only supports pairwise evaluation" in task.note
    assert [row["scores"]["mme_perception_score"] for row in run.samples().to_pylist()] == [1.0, 0.0, 1.0]


def test_neither_rescored_nor_judged_without_its_rows(pair, tmp_path) -> None:
    with pytest.raises(PerpoError, match="'mme' is scored by its own task file with its own rows"):
        evaluate(EvalArguments(rescore=pair[0].path, output=str(tmp_path)))
    with pytest.raises(PerpoError, match="'mme' is scored by its own task file with its own rows"):
        judge_run(JudgeArguments(run=str(pair[0].path), judge_model="m", output=str(tmp_path)))


def test_pictures_that_cannot_be_read_are_counted(own, no_model, tmp_path) -> None:
    rows = [{"image": {"bytes": b"none", "path": "a.png"}, "question": "Red?", "answer": "yes"}] * 2
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "my_task.parquet")
    with pytest.raises(PerpoError, match="cannot be read"):
        evaluate(EvalArguments(tasks=["my_task"], include_path=str(own), data=str(tmp_path), output=str(tmp_path)))
