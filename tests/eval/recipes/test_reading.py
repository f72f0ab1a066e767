"""Recipes are checked whole before anything runs; experiments skip what is done."""

from pathlib import Path

import pytest
import yaml

from perpo_eval.cli.run import demo_main, main
from perpo_eval.recipes.arguments import sample_arguments, train_arguments
from perpo_eval.recipes.reading import SHIPPED, find_recipe, read_recipe
from perpo_eval.recipes.recipe import DataFile, choose

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
def test_shipped_recipes_are_whole(path, tmp_path, capsys):
    recipe = read_recipe(path)
    assert recipe.base in recipe.experiments
    assert main([path.stem, "--dry_run", "--output_dir", str(tmp_path / "out")]) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == list(recipe.experiments)


def test_the_test_splits_are_not_what_settings_were_chosen_on():
    for path in SHIPPED.glob("tiny*.yaml"):
        assert all("test" in task or task.startswith("tinypope_") for task in read_recipe(path).evaluate["tasks"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"experimants": {}}, "there is no field 'experimants'"),
        ({"experiments": {"base": {"trian": {}}}}, "there is no field 'trian'"),
        ({"experiments": {"x": {"data": "exat", "train": {"method": "sft"}}}}, "'exat', which does not exist"),
        ({"experiments": {"x": {"data": "exact", "train": {"methud": "sft"}}}}, "no argument 'methud'"),
        ({"experiments": {"x": {"data": "exact", "train": {"method": "sfd"}}}}, "'sfd'"),
        ({"experiments": {"x": {"data": "exact", "rounds": -1, "train": {"method": "rft"}}}}, "rounds must be"),
        ({"experiments": {"x": {"data": "exact"}}}, "has data but no train"),
        ({"train": {"output_dir": "x"}}, "output_dir is set by the run itself"),
        ({"sample": {"temprature": 1.0}}, "no argument 'temprature'"),
        ({"evaluate": {"suite": "groundign"}}, "'groundign'"),
        ({"data": {"exact": {"file": "nowhere.jsonl"}}}, "nowhere.jsonl, found no such file"),
        ({"data": {"exact": {}}}, "must have exactly one of file, tiny, sampled, pdf, of"),
        ({"data": {"exact": {"sampled": "x"}}}, "is sampled for 'x', which is no data with questions"),
        (
            {
                "data": SMALL["data"] | {"pairs": {"sampled": "exact"}},
                "experiments": {"perpo": {"data": "pairs", "rounds": 1, "train": {}}},
            },
            "samples in rounds for 'pairs'",
        ),
        ({"data": {"exact": {"tiny": {"images": 6}, "image_root": "x"}}}, "image_root has no effect with tiny"),
        ({"data": {"exact": {"tiny": {"images": 0}}}}, "exact: images must be at least 1, got 0"),
        ({"data": {"exact": {"tiny": {"images": 6, "per_image": 0}}}}, "exact: per_image must be at least 1, got 0"),
        ({"data": {"exact": {"tiny": {"images": 6, "loose": 1.5}}}}, "exact: loose must be from 0 to 1, got 1.5"),
        ({"data": {"exact": {"tiny": {"images": 2}}}}, "perpo needs 3 images at least, and 'exact' has 2"),
        ({"data": {"results": {"tiny": {"images": 6}}}}, "'results' cannot be used as the name"),
        ({"data": {"exact": {"tiny": {"pages": 2}}}}, "perpo needs 3 pages at least, and 'exact' has 2"),
        ({"data": {"exact": {"tiny": {"pages": 6, "loose": 0.5}}}}, "no argument 'loose'"),
        ({"compare": {"benchmark": "ocrr"}}, "there is no benchmark 'ocrr'"),
        ({"compare": {"benchmark": "pope"}}, "its evaluation has 0 of pope"),
        ({"evaluate": {"suite": "ocr"}}, "its evaluation has 2 of ocr"),
        ({"compare": {"base": "bose"}}, "'bose', no experiment"),
        ({"compare": {"against": 5}}, "'5', no experiment"),
        ({"experiments": {}}, "experiments is empty"),
        ({"experiments": {"data": {}}}, "'data' cannot be used as the name"),
        ({"experiments": {"../x": {}}}, "'../x' cannot be used as the name"),
        ({"experiments": {"x": {"data": "exact", "rounds": 1, "train": {"method": "sft"}}}}, "rounds of sampling"),
        ({"seed": "abc"}, "seed must be a whole number from 0, found 'abc'"),
        ({"seed": -1}, "seed must be from 0 to 2^32 - 1, got -1"),
        ({"model": "/nowhere"}, "there is no model folder /nowhere"),
        ({"train": {"resume_from_checkpoint": "x"}}, "resume_from_checkpoint is set by the run itself"),
        ({"sample": {"reward": "iuo"}}, "there is no reward 'iuo'"),
        ({"evaluate": {"batch_size": 0}}, "evaluate: batch_size must be at least 1, got 0"),
        ({"evaluate": {"limit": -3}}, "evaluate: limit must be at least 1, got -3"),
        ({"evaluate": {"tasks": ["bad"]}}, "no task 'bad'"),
        ({"evaluate": {"data": "/none"}}, "/none, which is not a folder"),
        ({"experiments": {"base": {}}, "sample": {"num_candidats": 3}}, "no argument 'num_candidats'"),
        (
            {"experiments": {"base": {}}, "sample": {"num_candidates": 0}},
            "sample: num_candidates must be at least 1",
        ),
        ({"experiments": {"base": {}}, "train": {"bogus": 1}}, "no argument 'bogus'"),
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
    common = {"reference": "recorded", "beta": 1.0, "gamma": 0.5, "num_candidates": 4, "keep_truncated": True}
    recipe = read_recipe(_write(tmp_path, train=common | {"lora_dropout": 0.1}))
    x = Path("x")
    sft, perpo = (train_arguments(recipe, recipe.experiments[name], x, x, x, None, 1) for name in ("sft", "perpo"))
    assert (sft.beta, sft.gamma, sft.reference, sft.num_candidates, sft.keep_truncated) == (None, None, None, 0, False)
    assert sft.lora_dropout == 0.1
    assert {name: getattr(perpo, name) for name in common} == common
    assert perpo.lora_dropout == 0.0


def test_data_files_may_lie_anywhere(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    file = tmp_path / "elsewhere" / "data.jsonl"
    file.touch()
    sources = {
        "absolute": {"file": str(file), "image_root": "pictures"},
        "relative": {"file": "elsewhere/data.jsonl"},
        "both": {"file": str(file), "image_root": "/pictures"},
    }
    recipe = read_recipe(_write(tmp_path, data=sources, experiments={"base": {}}))
    assert recipe.data == {
        "absolute": DataFile(file, tmp_path / "pictures"),
        "relative": DataFile(file, file.parent),
        "both": DataFile(file, Path("/pictures")),
    }


def test_a_dry_run_shows_the_stages_and_writes_nothing(tmp_path, capsys):
    words = [str(_write(tmp_path)), "--output_dir", str(tmp_path / "out"), "--dry_run"]
    assert main(words) == 0
    rounds = ", ".join(f"round-{part}/sample, round-{part}/adapter" for part in (1, 2, 3))
    assert capsys.readouterr().out.splitlines() == [
        "base: evaluate",
        f"perpo: data/exact, {rounds}, evaluate",
        "sft: data/exact, train, evaluate",
    ]
    assert main([*words, "--only", "sft"]) == 2
    assert "'base' has not been run, but all others are compared with it" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


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


def test_training_all_weights_is_refused_before_anything_runs(tmp_path, capsys):
    """The stages of a recipe hand on adapters."""
    assert main([str(_write(tmp_path, train={"lora_enable": False}))]) == 2
    assert "writes no adapter, but later stages need one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("suite", "compared"), [("grounding", "grounding"), ("ocr", "ocr"), ("paper", "grounding")])
def test_what_is_compared_is_the_suites_first_benchmark_unless_it_is_named(tmp_path, suite, compared):
    """The paper's recipes of pages name none."""
    assert read_recipe(_write(tmp_path, evaluate={"suite": suite})).benchmark == compared
    named = _write(tmp_path, evaluate={"suite": suite}, compare={"benchmark": "pope"})
    assert read_recipe(named).benchmark == "pope"
