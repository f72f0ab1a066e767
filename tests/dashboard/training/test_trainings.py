"""Trainings: names, curves, and where the files are that a record speaks of."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from perpo.boxes import BoxFormat
from perpo.errors import PerpoError
from perpo_dashboard.training import trainings
from perpo_dashboard.training.trainings import Training, moved, names_of, read_training, short_names, smoothed, thinned


def _training(folder, output_dir="out", log=()):
    return Training(Path(folder), {"arguments": {"output_dir": output_dir}}, list(log))


def test_what_belongs_to_another_training_is_none(tmp_path):
    folders = [tmp_path / name for name in ("a", "a/best", "a/checkpoint-10", "b/best", "c/a")]
    assert list(names_of(folders, tmp_path)) == ["a", "b/best", "c/a"]


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["r/dpo/round-1/adapter", "r/perpo/round-1/adapter", "r/sft/train"], ["dpo/round-1", "perpo/round-1", "sft"]),
        (["r/x/adapter", "r/x/train"], ["adapter", "train"]),
        (["r/x/adapter", "r/x/y"], ["adapter", "y"]),
        (["a/adapter", "a/train", "b"], ["a/adapter", "a/train", "b"]),
        (["only/one/adapter"], ["adapter"]),
        (["."], ["."]),
        ([], []),
    ],
)
def test_names_are_as_short_as_they_stay_apart(names, short):
    assert short_names(names) == dict(zip(names, short, strict=True))


def test_a_curve_has_gaps_where_numbers_were_not_finite():
    log = [{"step": 1, "epoch": 0.5, "loss": 2.0}, {"step": 2, "loss": None}, {"step": 3, "kl": 1}, {"loss": 9.0}]
    each = _training("x", log=log)
    places, values = each.curve("loss", "step")
    np.testing.assert_array_equal(places, [1, 2])
    np.testing.assert_array_equal(values, [2.0, np.nan])
    assert each.last("loss") is None
    assert each.last("kl") == 1.0
    assert each.last("margin") is None
    assert each.curve("loss", "epoch")[0].tolist() == [0.5]


def test_smoothing_is_a_weighted_mean_of_what_came_before():
    values, weight = np.array([3.0, 1.0, np.nan, 4.0]), 0.8
    found = smoothed(values, weight)
    seen = []
    for place, value in enumerate(values):
        if np.isnan(value):
            assert np.isnan(found[place])
            continue
        seen.append(value)
        weights = weight ** np.arange(len(seen))[::-1]
        assert found[place] == pytest.approx(np.average(seen, weights=weights))
    np.testing.assert_array_equal(smoothed(values, 0.0), values)


def test_what_is_no_number_of_a_log_is_a_gap_or_no_point():
    huge = 10**400
    log = [{"step": 1, "loss": huge}, {"step": huge, "loss": 2.0}, {"step": 3, "loss": "3"}, {"step": 4, "loss": 4}]
    places, values = _training("x", log=log).curve("loss", "step")
    assert places.tolist() == [1, 3, 4]
    np.testing.assert_array_equal(values, [np.nan, np.nan, 4])


@pytest.mark.parametrize("name", ["adapter_config.json", "config.json", "processor_config.json"])
def test_a_folder_of_odd_files_does_not_say_how_boxes_are_written(tmp_path, name):
    odd = {"auto_mapping": "x", "model_type": ["llava"], "image_processor": [1]}
    (tmp_path / name).write_text(json.dumps(odd))
    assert trainings.box_format(tmp_path) is None
    (tmp_path / name).write_text("[1]")
    assert trainings.box_format(tmp_path) is None


def test_long_curves_are_means_of_neighbours():
    places, values = np.arange(10.0), np.arange(10.0)
    values[4:6] = np.nan
    at, mean, size = thinned(places, values, most=5)
    assert size == 2
    np.testing.assert_array_equal(at, [1, 3, 5, 7, 9])
    np.testing.assert_array_equal(mean, [0.5, 2.5, np.nan, 6.5, 8.5])
    assert thinned(places, values, most=10)[2] == 1
    at, mean, size = thinned(np.arange(11.0), np.ones(11), most=5)
    assert (size, at[-1], len(at)) == (3, 10, 4)


def test_arguments_that_differ():
    records = {"a": {"arguments": {"x": 1, "y": [1], "z": None}}, "b": {"arguments": {"x": 1, "y": [2], "w": 0}}}
    assert trainings.differing(records) == {"y": {"a": [1], "b": [2]}, "w": {"a": None, "b": 0}}


@pytest.mark.parametrize(
    ("folder", "output_dir", "path", "now"),
    [
        ("/new/runs/r/out", "runs/r/out", "runs/data.json", "/new/runs/data.json"),  # started in another folder
        ("/new/runs/r/out", "/old/runs/r/out", "/old/images/x", "/new/images/x"),  # moved as a whole
        ("/new/r/out", "/old/runs/r/out", "/old/runs/data.json", "/new/data.json"),  # moved in part
        ("/new/out", "out", "/elsewhere/data.json", "/elsewhere/data.json"),  # was never below
        ("/new/renamed", "runs/out", "runs/data.json", "runs/data.json"),  # nothing tells where
        ("/new/out", "/old/out", "/old/../etc/passwd", "/new/../etc/passwd"),
    ],
)
def test_paths_move_with_the_output_folder(folder, output_dir, path, now):
    assert moved(path, _training(folder, output_dir)) == Path(now)


def test_files_come_from_the_declared_folders_alone(tmp_path):
    root, other = tmp_path / "root", tmp_path / "other"
    for folder in (root, other):
        folder.mkdir()
        (folder / "file").write_text("x")
    (root / "link").symlink_to(other / "file")
    (root / "circle").symlink_to(root / "circle")
    assert trainings.inside(root / "file", [root]) == root / "file"
    assert trainings.inside(root / "link", [root, other]) == other / "file"
    for path in ("link", "circle", "../other/file", "none", ".", "x" * 5000, "nul\0"):
        assert trainings.inside(root / path, [root]) is None, path


def test_how_boxes_are_written_stands_in_the_folder(tmp_path):
    assert trainings.box_format(tmp_path) is None
    (tmp_path / "adapter_config.json").write_text("{broken")
    assert trainings.box_format(tmp_path) is None
    mapping = {"auto_mapping": {"parent_library": "transformers.models.llava.modeling_llava"}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(mapping))
    assert trainings.box_format(tmp_path) == BoxFormat("0-1", frame="padded")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
    bounds = {"image_processor": {"min_pixels": 100, "max_pixels": 200}}
    (tmp_path / "processor_config.json").write_text(json.dumps(bounds))
    found = trainings.box_format(tmp_path)
    assert (found.scale, found.resize.min_pixels, found.resize.max_pixels) == ("pixels", 100, 200)


def test_libraries_name_the_families_as_the_table_does():
    """PEFT writes the module that a model's class comes from: its folder has to be the table's model type."""
    from perpo.models.families import FAMILIES

    (root,) = importlib.util.find_spec("transformers").submodule_search_locations
    assert [name for name in FAMILIES if not Path(root, "models", name, f"modeling_{name}.py").is_file()] == []


def test_a_training_is_read_with_its_log(tmp_path, write_training):
    write_training(tmp_path / "out", tmp_path)
    found = read_training(tmp_path / "out")
    assert found.record["arguments"]["method"] == "perpo"
    assert found.last("loss") == 1 / 20
    with open(tmp_path / "out" / "log.jsonl", "a") as file:
        file.write('{"step": 21, "lo')  # killed
    assert len(read_training(tmp_path / "out").log) == 20


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("training.json", "{", "damaged"),
        ("training.json", '{"schema_version": 9}', "schema version 9"),
        ("log.jsonl", "{\n", r"log\.jsonl is damaged"),
    ],
)
def test_what_is_damaged_is_said(tmp_path, write_training, name, text, reason):
    write_training(tmp_path / "out", tmp_path)
    (tmp_path / "out" / name).write_text(text)
    with pytest.raises(PerpoError, match=reason):
        read_training(tmp_path / "out")


def test_no_record_is_no_training(tmp_path):
    with pytest.raises(PerpoError, match=r"no training\.json"):
        read_training(tmp_path)
