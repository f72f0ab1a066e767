"""perpo.results.model_index: what a model card says, read back by the hub's own library."""

from __future__ import annotations

import dataclasses

import pytest
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from perpo.errors import PerpoError
from perpo.results.model_index import update_card
from perpo_eval.cli.eval import main

ROWS = {"a": [("x", 1.0), ("y", 0.0)], "b": [("x", 1.0), ("z", 1.0)]}


def results(file) -> dict[str, EvalResult]:
    """The results in the primary metric, by data set."""
    held = ModelCard.load(file).data.eval_results
    return {result.dataset_name: result for result in held if result.metric_type in ("acc@0.5", "mean_reward")}


def test_a_new_card_holds_what_was_measured(make_run, tmp_path, capsys) -> None:
    run = make_run("mine", ROWS)
    file = tmp_path / "README.md"
    assert main(["export", "--results", str(tmp_path / "results"), "--model", "mine", "--card", str(file)]) == 0
    assert "6 results of run-mine" in capsys.readouterr().err
    found = results(file)
    assert {name: result.metric_value for name, result in found.items()} == {"a": 0.5, "b": 1.0}
    metric = run.record.task("a").metrics[0]
    assert found["a"].metric_args == {"ci_low": metric.ci_low, "ci_high": metric.ci_high, "run": "run-mine"}
    assert (found["a"].metric_type, found["a"].metric_name) == ("acc@0.5", "Acc@0.5")
    held = [result for result in ModelCard.load(file).data.eval_results if result.dataset_name == "a"]
    # The primary metric first; all of them under the names that the benchmark gives them.
    assert [result.metric_type for result in held] == ["acc@0.5", "iou", "parse_fail"]
    assert [result.metric_name for result in held] == ["Acc@0.5", "mean IoU", "unreadable"]
    assert [result.metric_value for result in held] == [metric.value for metric in run.record.task("a").metrics]


def test_all_else_in_a_card_stays_and_a_second_time_adds_nothing(make_run, tmp_path) -> None:
    file = tmp_path / "README.md"
    other = EvalResult("image-text-to-text", "held-out", "mine.jsonl", "mean_reward", 0.7)
    data = ModelCardData(base_model="llava-hf/x", license="mit", model_name="old", eval_results=[other])
    file.write_text(f"---\n{data.to_yaml()}\n---\n\n# Title\n\nWords of its own.\n")
    run = make_run("mine", ROWS)
    for _ in range(2):
        assert update_card(file, run) == 6
        card = ModelCard.load(file)
        assert (card.data.base_model, card.data.license, card.data.model_name) == ("llava-hf/x", "mit", "old")
        assert card.text.strip() == "# Title\n\nWords of its own."
        assert {name: result.metric_value for name, result in results(file).items()} == {
            "mine.jsonl": 0.7,
            "a": 0.5,
            "b": 1.0,
        }


def test_reported_numbers_and_broken_cards_are_refused(make_run, tmp_path) -> None:
    run = make_run("mine", ROWS)
    reported = dataclasses.replace(run, record=dataclasses.replace(run.record, source="reported"))
    with pytest.raises(PerpoError, match="is not a complete measured run"):
        update_card(tmp_path / "README.md", reported)
    (tmp_path / "README.md").write_text("---\nmodel-index: 3\n---\n")
    with pytest.raises(PerpoError, match="is not a model card that can be read"):
        update_card(tmp_path / "README.md", run)


def test_some_of_the_samples_are_refused(make_run, tmp_path) -> None:
    run = make_run("mine", ROWS)
    (task, *others) = run.record.tasks
    tasks = [dataclasses.replace(task, n_total=720), *others]
    record = dataclasses.replace(run.record, tasks=tasks, generation=run.record.generation | {"limit": 2})
    with pytest.raises(PerpoError, match="is about 2 of the 720 samples of a"):
        update_card(tmp_path / "README.md", dataclasses.replace(run, record=record))
    assert not (tmp_path / "README.md").exists()
