"""Lists of candidates: best-of-N against all draws, and what is known of each answer."""

import json
from itertools import combinations

import numpy as np
import pytest

from perpo.boxes import BoxFormat
from perpo.data import data_sha256
from perpo.errors import PerpoError
from perpo_dashboard.training import candidates as lists
from perpo_dashboard.training.candidates import Candidate, candidates, pairs_in_order
from perpo_dashboard.training.rewards import record_format


def _file(tmp_path, rewards, **more):
    rows = [
        {
            "image_path": "x.png",
            "image_id": f"image {place}",
            "question": "q",
            "answer": "a",
            "answers_gen": [f"answer {n}" for n in range(len(each))],
            "iou_scores": each,
        }
        | more
        for place, each in enumerate(rewards)
    ]
    file = tmp_path / "lists.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def _read(tmp_path, rewards):
    file = _file(tmp_path, rewards)
    return lists.read_lists(file, data_sha256(file))


def test_best_of_n_is_the_mean_over_all_draws(tmp_path):
    rewards = np.random.default_rng(0).uniform(size=(5, 6)).round(2).tolist()
    found = lists.best_of(_read(tmp_path, rewards))
    for n in range(1, 7):
        draws = [list(combinations(each, n)) for each in rewards]
        assert found.best[n - 1] == pytest.approx(np.mean([np.mean([max(d) for d in each]) for each in draws]))
        assert found.worst[n - 1] == pytest.approx(np.mean([np.mean([min(d) for d in each]) for each in draws]))
    assert found.records == 5
    assert (found.low < found.best).all()
    assert (found.best < found.high).all()


def test_best_of_n_stands_on_lists_of_the_usual_length(tmp_path):
    found = lists.best_of(_read(tmp_path, [[0.1, 0.3], [1.0, 1.0, 1.0], [0.2, 0.4]]))
    assert found.records == 2
    np.testing.assert_allclose(found.best, [0.25, 0.35])
    np.testing.assert_allclose(found.worst, [0.25, 0.15])


def test_one_list_has_no_interval(tmp_path):
    found = lists.best_of(_read(tmp_path, [[0.1, 0.3]]))
    assert np.isnan(found.low).all()


def test_the_histogram_is_shares_over_all_candidates(tmp_path):
    edges, shares = lists.histogram(_read(tmp_path, [[0.0, 0.04], [0.05, 1.0]]).rewards)
    np.testing.assert_allclose(edges, np.arange(21) / 20)
    assert (shares[0], shares[1], shares[-1]) == (0.5, 0.25, 0.25)
    assert shares.sum() == 1


def test_records_keep_their_own_rewards(tmp_path):
    found = _read(tmp_path, [[0.1, 0.3], [1.0], [0.2, 0.4]])
    assert [found.record(number)["rewards"] for number in (1, 2, 3)] == [[0.1, 0.3], [1.0], [0.2, 0.4]]
    np.testing.assert_allclose(found.spreads, [0.2, 0.0, 0.2])
    assert found.reward_name == "iou"


def test_other_data_than_were_trained_on_are_refused(tmp_path):
    file = _file(tmp_path, [[0.1, 0.3]])
    with pytest.raises(PerpoError, match="is not the file that was used for training"):
        lists.read_lists(file, "0" * 64)


def _row(answer, before, after, reward=None, reference=None):
    return {
        "answer": answer, "reward": reward, "tokens": 3, "reference_logp": reference,
        "logp_before": before, "logp_after": after,
    }  # fmt: skip


def test_answers_get_the_log_probabilities_that_were_measured_for_them():
    record = {
        "answers_gen": ["low", "same", "cut", "same", "high"],
        "rewards": [0.1, 0.5, 0.9, 0.4, 0.8],
        "truncated": [False, False, True, False, False],
        "reference_logps": [-1.0, -2.0, -3.0, -4.0, None],
    }
    rows = [_row("low", -1, -5), _row("same", -2, -3), _row("same", -2, -3), _row("high", -6, -4, reference=-7.0)]
    found = candidates(record, rows)
    assert [(each.answer, each.reward, each.before, each.reference) for each in found] == [
        ("cut", 0.9, None, -3.0),
        ("high", 0.8, -6, -7.0),
        ("same", 0.5, -2, -2.0),
        ("same", 0.4, -2, -4.0),
        ("low", 0.1, -1, -1.0),
    ]
    assert [each.change for each in found] == [None, 2, -1, -1, -4]
    assert pairs_in_order(found) == (5, 6)  # the two that are the same text gained the same


def test_without_the_data_the_probe_alone_is_ranked():
    found = candidates(None, [_row("a", -1, None, 0.2), _row("b", -2, None, 0.7)])
    assert [(each.answer, each.reward, each.change) for each in found] == [("b", 0.7, None), ("a", 0.2, None)]
    assert pairs_in_order(found) == (0, 0)


def test_answers_without_rewards_have_no_order():
    found = [Candidate("a", None, before=-1.0, after=0.0), Candidate("b", 0.5, before=-1.0, after=0.0)]
    assert pairs_in_order(found) == (0, 0)


def test_a_probe_is_read_by_record(tmp_path, write_training):
    write_training(tmp_path / "out", tmp_path)
    found = lists.read_probe(tmp_path / "out" / "probe.parquet")
    assert {number: len(rows) for number, rows in found.items()} == {1: 4, 2: 4}
    (tmp_path / "out" / "probe.parquet").write_bytes(b"PAR1")
    with pytest.raises(PerpoError, match="cannot be read"):
        lists.read_probe(tmp_path / "out" / "probe.parquet")


def test_a_records_boxes_are_drawn_as_it_says_or_as_its_model_does_in_its_frame():
    padded, silent = BoxFormat("0-1", frame="padded"), dict.fromkeys(("box_scale", "box_order", "box_resize"))
    said = silent | {"box_scale": "pixels", "box_order": "xywh", "box_frame": "original"}
    assert record_format(said, padded) == record_format(said, None) == BoxFormat("pixels", "xywh", "original")
    assert record_format(silent | {"box_frame": "padded"}, padded) == padded
    assert record_format(silent | {"box_frame": "original"}, padded) is None
    assert record_format(silent | {"box_frame": "padded"}, None) is None
