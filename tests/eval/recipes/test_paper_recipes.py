"""The recipes of the paper's experiments: whole, with the source of each value, and ready to run."""

import random
import re
from pathlib import Path

import pytest
from PIL import Image

from perpo.train.arguments import TrainArguments
from perpo_eval.cli.run import main
from perpo_eval.recipes.arguments import train_arguments
from perpo_eval.recipes.reading import read_recipe
from perpo_eval.recipes.recipe import DataFile, PagesPart
from perpo_eval.rows.suites import SUITES, TASKS
from tests.support import ROOT

RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
METHODS = ["sft", "rft", "dpo", "lipo", "perpo"]
IN_FOLDERS = (r"  data: \.\./data/benchmarks", r"  (questions|pairs): \{.*\}", r"  base: \{\}", r"  perpo: \{.*\}")


GROUNDING = [path for path in RECIPES if "ocr" not in path.stem]
OCR = [path for path in RECIPES if "ocr" in path.stem]
every_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


def test_there_is_one_for_each_of_the_papers_experiments():
    grounding = [f"{model}-refcoco" for model in ("llava-1.5", "llava-next", "llava-onevision")]
    assert [path.stem for path in RECIPES] == sorted([*grounding, "llava-next-25k-ocr", "llava-next-50k-ocr"])


@every_recipe
def test_it_compares_the_methods_at_the_authors_settings(path):
    recipe = read_recipe(path)
    assert list(recipe.experiments) == ["base", *METHODS]
    x = Path("x")
    for method in METHODS:
        arguments = train_arguments(recipe, recipe.experiments[method], x, x, x, None, 1)
        assert arguments.method == method
        assert (arguments.lora_r, arguments.lora_alpha, arguments.warmup_steps) == (128, 256, 0)
        assert arguments.learning_rate == arguments.mm_projector_lr == 5e-6
        assert arguments.bf16
        assert arguments.beta == (0.1 if arguments.ranks else None)
        assert arguments.gamma == (0.5 if method == "perpo" else None)
    sampled = (recipe.sample["reward"], recipe.sample["num_candidates"], recipe.sample["min_margin"])
    assert sampled == (("edit", 5, 0.04) if "ocr" in path.stem else ("iou", 20, 0.8))
    assert arguments.per_device_train_batch_size == (1 if "ocr" in path.stem else 2)


@every_recipe
def test_every_value_says_where_it_comes_from(path):
    body = path.read_text().partition("\nmodel:")[2]
    for line in body.splitlines():
        setting = re.match(r"  +\w+: \S", line) and not any(re.fullmatch(known, line) for known in IN_FOLDERS)
        if setting:
            assert re.search(r"# \[(code|second-hand|ours)\]", line), line


@pytest.mark.parametrize("path", GROUNDING, ids=lambda path: path.stem)
def test_a_dry_run_checks_every_stage(path, tmp_path, capsys):
    """With stand-ins for the model, the questions and the benchmarks' files, of which only the names are read."""
    (tmp_path / "recipes").mkdir()
    place = tmp_path / "recipes" / path.name
    place.write_text(re.sub(r"^model: .*$", "model: tiny", path.read_text(), flags=re.MULTILINE))
    words = [str(place), "--output_dir", str(tmp_path / "out"), "--dry_run"]
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert f"--data is {tmp_path}/recipes/../data/benchmarks, which is not a folder" in err
    plan = ["base: evaluate", *(f"{method}: data/pairs, train, evaluate" for method in METHODS)]
    assert out.splitlines() == plan

    recipe = read_recipe(place)
    benchmarks = tmp_path / "data" / "benchmarks"
    benchmarks.mkdir(parents=True)
    for task in TASKS.values():
        if not task.tiny and task.benchmark in SUITES[recipe.evaluate["suite"]]:
            (benchmarks / f"{task.name}.parquet").touch()
    assert main(words) == 2
    assert "found no such file" in capsys.readouterr().err
    source = recipe.data["questions"]
    assert isinstance(source, DataFile)
    source.file.write_text('{"image_path": "1.png", "question": "where?", "answer": "[0.1, 0.1, 0.9, 0.9]"}\n')
    source.image_root.mkdir()
    Image.new("RGB", (8, 8)).save(source.image_root / "1.png")
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == plan
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", OCR, ids=lambda path: path.stem)
def test_dense_ocr_goes_from_a_folder_of_pdf_files_to_the_table(path, tmp_path, capsys):
    """A dry run, and an estimate, of the recipe as it is but for its model."""
    (tmp_path / "recipes").mkdir()
    place = tmp_path / "recipes" / path.name
    place.write_text(re.sub(r"^model: .*$", "model: tiny", path.read_text(), flags=re.MULTILINE))
    pages = int(re.search(r"(\d+)k", path.stem)[1]) * 1000
    recipe = read_recipe(place)
    assert recipe.data["lessons"] == PagesPart("papers", 0, pages)
    assert recipe.data["questions"] == PagesPart("papers", pages, 5000)
    words = [str(place), "--output_dir", str(tmp_path / "out")]
    assert main([*words, "--dry_run"]) == 2
    assert "expected a folder of PDF files" in capsys.readouterr().err
    folder = tmp_path / "data" / "papers"
    folder.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        import made_pdfs
    for number in range(3):
        (folder / f"{number}.pdf").write_bytes(made_pdfs.KINDS["plain"](random.Random(number), pages=4).data)
    assert main([*words, "--dry_run"]) == 0
    taught = "data/papers, data/lessons, taught"
    plan = [f"{method}: {taught}, data/questions, data/pairs, train, evaluate" for method in METHODS]
    assert capsys.readouterr().out.splitlines() == [f"base: {taught}, evaluate", *plan]
    assert main([*words, "--estimate", "H100"]) == 0
    told = capsys.readouterr().out
    assert re.search(rf"^taught +{pages:,} ", told, re.MULTILINE)
    assert re.search(r"^data/pairs +5,000 ", told, re.MULTILINE)
    assert "measured on no GPU" in " ".join(told.split())
    assert "and papers has about 11 for training" in " ".join(told.split())  # of 12 pages 2% are held out
    assert not (tmp_path / "out").exists()


def test_the_defaults_are_the_authors_too():
    """What a recipe says and what perpo-train does by itself do not drift apart."""
    recipe = read_recipe(next(path for path in RECIPES if path.stem == "llava-1.5-refcoco"))
    for name in ("lora_r", "lora_alpha", "learning_rate", "mm_projector_lr", "per_device_train_batch_size"):
        assert recipe.train[name] == getattr(TrainArguments, name)
