"""Recipes are checked whole before anything runs; experiments skip what is done."""

from pathlib import Path

import pytest
import yaml

from perpo.errors import PerpoError
from perpo_eval.experiment import ExperimentRun, choose, sample_arguments, train_arguments
from perpo_eval.recipe import SHIPPED, find_recipe, read_recipe
from perpo_eval.run_cli import demo_main, main

SMALL = {
    "name": "small",
    "data": {"exact": {"tiny": {"images": 6}}},
    "sample": {"num_candidates": 4, "max_new_tokens": 12},
    "train": {"lora_r": 4, "lora_alpha": 8, "reference": "recorded", "beta": 1.0},
    "evaluate": {"data": "tiny", "tasks": ["refshapes_val"], "limit": 4},
    "experiments": {
        "base": {},
        "perpo": {"data": "exact", "rounds": 3, "train": {"method": "perpo"}},
        "sft": {"data": "exact", "train": {"method": "sft"}},
    },
}


def _write(tmp_path, **changes):
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL | changes))
    return path


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes_are_whole(path, capsys):
    recipe = read_recipe(path)
    assert recipe.base in recipe.experiments
    assert main([path.stem, "--dry_run"]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == list(recipe.experiments)


def test_the_test_splits_are_not_what_settings_were_chosen_on():
    for path in SHIPPED.glob("tiny*.yaml"):
        assert all("test" in task for task in read_recipe(path).evaluate["tasks"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"experimants": {}}, "there is no field 'experimants'"),
        ({"experiments": {"base": {"trian": {}}}}, "there is no field 'trian'"),
        ({"experiments": {"x": {"data": "exat", "train": {"method": "sft"}}}}, "'exat', which is not there"),
        ({"experiments": {"x": {"data": "exact", "train": {"methud": "sft"}}}}, "no argument 'methud'"),
        ({"experiments": {"x": {"data": "exact", "train": {"method": "sfd"}}}}, "'sfd'"),
        ({"experiments": {"x": {"data": "exact", "rounds": -1, "train": {"method": "rft"}}}}, "rounds must be"),
        ({"experiments": {"x": {"data": "exact"}}}, "has data but no train"),
        ({"train": {"output_dir": "x"}}, "output_dir is set by the run itself"),
        ({"sample": {"temprature": 1.0}}, "no argument 'temprature'"),
        ({"evaluate": {"suite": "groundign"}}, "'groundign'"),
        ({"data": {"exact": {"file": "nowhere.jsonl"}}}, "there is no file"),
        ({"data": {"exact": {}}}, "either file or tiny"),
        ({"compare": {"base": "bose"}}, "'bose', no experiment"),
    ],
)
def test_a_wrong_recipe_is_one_sentence_before_anything_runs(tmp_path, capsys, changes, said):
    code = main([str(_write(tmp_path, **changes)), "--output_dir", str(tmp_path / "out")])
    err = capsys.readouterr().err
    assert code == 2
    assert said in err
    assert "hint:" in err
    assert not (tmp_path / "out").exists()


def test_an_unknown_recipe_or_experiment_names_the_nearest(tmp_path, capsys):
    assert main(["tinny"]) == 2
    assert "tiny" in capsys.readouterr().err
    assert main([str(_write(tmp_path)), "--only", "perp"]) == 2
    assert "perpo" in capsys.readouterr().err


def test_rounds_cut_the_questions_and_share_one_schedule(tmp_path):
    recipe = read_recipe(_write(tmp_path), seed=7)
    experiment, x = recipe.experiments["perpo"], Path("x")
    arguments = [train_arguments(recipe, experiment, x, x, x, None, part) for part in (1, 2, 3)]
    assert [a.part for a in arguments] == [(1, 3), (2, 3), (3, 3)]
    assert {a.seed for a in arguments} == {7}
    # Each round draws other random numbers.
    assert len({sample_arguments(recipe, experiment, x, x, x, None, part).seed for part in (1, 2, 3)}) == 3


def test_common_arguments_that_a_method_has_no_use_for_stay_away_from_it(tmp_path):
    recipe = read_recipe(_write(tmp_path))
    x = Path("x")
    assert train_arguments(recipe, recipe.experiments["sft"], x, x, x, None, 1).beta is None
    assert train_arguments(recipe, recipe.experiments["perpo"], x, x, x, None, 1).beta == 1.0


def test_a_folder_of_another_seed_is_refused(tmp_path):
    path = _write(tmp_path)
    ExperimentRun(read_recipe(path, seed=0), tmp_path / "out")
    ExperimentRun(read_recipe(path, seed=0), tmp_path / "out")
    with pytest.raises(PerpoError, match="another seed"):
        ExperimentRun(read_recipe(path, seed=1), tmp_path / "out")


def test_choose_keeps_the_recipes_order(tmp_path):
    recipe = read_recipe(_write(tmp_path))
    assert choose(recipe, []) == ["base", "perpo", "sft"]
    assert choose(recipe, ["sft", "base"]) == ["base", "sft"]


def test_find_recipe_takes_a_path_or_a_shipped_name(tmp_path):
    assert find_recipe("tiny") == SHIPPED / "tiny.yaml"
    path = _write(tmp_path)
    assert find_recipe(str(path)) == path


def test_demo_refuses_unknown_flags(capsys):
    assert demo_main(["--quik"]) == 2
    assert "--quick" in capsys.readouterr().err
