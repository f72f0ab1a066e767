"""probe.parquet: what the candidates' log-probabilities were before training, and are after it."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from perpo.data import read_preferences
from perpo.models.loading import load_model
from perpo.models.logps import repeated_logps
from perpo.records.training_record import read_record
from perpo.train.arguments import TrainArguments
from perpo.train.lists import Collator, ListDataset, choose, tokenize
from perpo.train.run import train
from perpo.train.watching.probe import COLUMNS


@pytest.fixture(scope="module")
def options(tmp_path_factory, small_run, write_records):
    root = tmp_path_factory.mktemp("data")
    rows = [
        {
            "question": f"what{' then' * number}?",
            "answer": "x",
            "answers_gen": ["zz", "e" * 9, "q", "left"][: 3 + number % 2],
            "rewards": [0.1, 1.0, 0.4, 0.2][: 3 + number % 2],
            "truncated": [number == 1, False, False, False][: 3 + number % 2],
        }
        for number in range(4)
    ]
    return small_run | {
        "data": write_records(root, rows),
        "image_root": str(root),
        "save_steps": 1,
        "num_train_epochs": 2.0,
        "probe_lists": 3,
    }


def expected(options, adapter):
    """The plain way: every candidate with its own prefix and image, one list at a time."""
    args = TrainArguments(**options, output_dir="unused")
    loaded = load_model(options["model"], adapter)
    choices, _ = choose(args, read_preferences(options["data"]))
    dataset = ListDataset(tokenize(loaded, choices[:3], options["image_root"]), loaded)
    found = []
    for place, each in enumerate(dataset.lists):
        item = dataset[place]
        batch = Collator(loaded.tokenizer.pad_token_id)([item])
        logps = repeated_logps(
            loaded.model, [item["prefix"]], [each.answers], batch["images"], pad_id=loaded.tokenizer.pad_token_id
        )
        found += logps[0].tolist()
    return found


@pytest.fixture(scope="module")
def probed(options, tmp_path_factory):
    return train(TrainArguments(**options, output_dir=str(tmp_path_factory.mktemp("probed") / "run")))


def test_the_file_holds_the_log_probs_of_the_first_lists(probed, options):
    table = pq.read_table(probed / "probe.parquet").to_pydict()
    assert list(table) == list(COLUMNS)
    assert table["record"] == [1] * 3 + [2] * 3 + [3] * 3
    assert table["candidate"] == [0, 1, 2] * 3
    assert table["answer"] == ["zz", "e" * 9, "q", "e" * 9, "q", "left", "zz", "e" * 9, "q"]
    assert table["reward"] == [0.1, 1.0, 0.4, 1.0, 0.4, 0.2, 0.1, 1.0, 0.4]
    assert table["question"][3] == "what then?"
    assert table["image_path"][-1] == "2.png"
    before, after = expected(options, None), expected(options, str(probed))
    assert table["logp_before"] == pytest.approx(before, abs=1e-4)
    assert table["reference_logp"] == pytest.approx(before, abs=1e-4)
    assert table["logp_after"] == pytest.approx(after, abs=1e-4)
    assert max(abs(np.subtract(before, after))) > 0.1
    assert read_record(probed)["probe"] == {"path": "probe.parquet", "lists": 3, "rows": 9}


def test_a_resumed_run_keeps_what_was_before(probed, options, tmp_path):
    cut = tmp_path / "run"
    shutil.copytree(probed / "checkpoint-3", cut / "checkpoint-3")
    (cut / "training.json").write_text(json.dumps(read_record(probed) | {"status": "running"}))
    table = pq.read_table(probed / "probe.parquet")
    blank = table.set_column(table.schema.get_field_index("logp_after"), "logp_after", [[None] * len(table)])
    pq.write_table(blank.cast(table.schema), cut / "probe.parquet")
    train(TrainArguments(**options, output_dir=str(cut), resume_from_checkpoint="last"))
    assert pq.read_table(cut / "probe.parquet").equals(table)

    elsewhere = tmp_path / "elsewhere"
    changes = {"output_dir": str(elsewhere), "resume_from_checkpoint": str(probed / "checkpoint-3")}
    train(TrainArguments(**options | changes))
    assert pq.read_table(elsewhere / "probe.parquet").equals(table)


def test_what_was_before_is_null_where_the_file_is_gone(probed, options, tmp_path):
    cut = tmp_path / "run"
    shutil.copytree(probed / "checkpoint-3", cut / "checkpoint-3")
    (cut / "training.json").write_text(json.dumps(read_record(probed) | {"status": "running"}))
    (cut / "probe.parquet").write_bytes(b"PAR1 cut")
    train(TrainArguments(**options, output_dir=str(cut), resume_from_checkpoint="last"))
    again, first = (pq.read_table(path / "probe.parquet").to_pydict() for path in (cut, probed))
    assert again["logp_before"] == [None] * 9
    assert again["logp_after"] == first["logp_after"]


def test_supervised_training_has_no_reference(options, tmp_path):
    output = train(TrainArguments(**options | {"method": "rft"}, output_dir=str(tmp_path / "run")))
    table = pq.read_table(output / "probe.parquet").to_pydict()
    assert table["answer"] == ["e" * 9] * 3
    assert table["reference_logp"] == [None] * 3
    assert all(after > before for before, after in zip(table["logp_before"], table["logp_after"], strict=True))


def test_none_is_written_unasked(options, tmp_path):
    output = train(TrainArguments(**options | {"probe_lists": 0}, output_dir=str(tmp_path / "run")))
    assert not (output / "probe.parquet").exists()
    assert read_record(output)["probe"] is None
