"""Which candidates of which records are trained on, and what they become."""

from __future__ import annotations

import pickle

import pytest
import torch
from PIL import Image

from perpo.data import PreferenceRecord
from perpo.errors import PerpoError
from perpo.models.loading import load_model
from perpo.train.arguments import TrainArguments
from perpo.train.lists import Collator, ListDataset, choose, tokenize


def arguments(**changes):
    return TrainArguments(**({"data": "records.jsonl", "output_dir": "out"} | changes))


def record(rewards, **fields):
    defaults = {
        "image_path": "image.png",
        "question": "where?",
        "answer": "truth",
        "image_id": 1,
        "answers_gen": [f"answer {place}" for place in range(len(rewards))],
        "rewards": rewards,
        "reward_name": "iou",
    }
    return PreferenceRecord(**(defaults | fields))


def chosen(args, *records):
    choices, counts = choose(args, records)
    return [choice.answers for choice in choices], counts


def test_perpo_uses_all_candidates_in_the_order_of_the_data():
    answers, counts = chosen(arguments(), record([0.1, 0.9, 0.5]))
    assert answers == [["answer 0", "answer 1", "answer 2"]]
    assert counts == {"records": 1, "lists": 1, "candidates": 3}


def test_num_candidates_takes_the_first_usable_ones():
    args = arguments(num_candidates=2)
    answers, _ = chosen(args, record([0.1, 0.9, 0.5], truncated=[True, False, False]))
    assert answers == [["answer 1", "answer 2"]]


@pytest.mark.parametrize(
    ("method", "rewards", "expected"),
    [
        ("dpo", [0.5, 0.1, 0.9, 0.3], ["answer 1", "answer 2"]),
        ("dpo", [0.9, 0.1, 0.9, 0.1], ["answer 0", "answer 1"]),
        ("rft", [0.5, 0.1, 0.9, 0.9], ["answer 2"]),
    ],
)
def test_dpo_uses_the_best_and_the_worst_and_rft_the_best(method, rewards, expected):
    answers, _ = chosen(arguments(method=method), record(rewards))
    assert answers == [expected]


def test_sft_learns_the_truth():
    answers, counts = chosen(arguments(method="sft"), record([0.1, 0.9]))
    assert answers == [["truth"]]
    assert counts == {"records": 1, "lists": 1, "candidates": 1}


def test_truncated_answers_are_left_out_unless_kept_and_then_have_no_end():
    records = [record([0.1, 0.9, 0.5], truncated=[False, True, False]), record([0, 1], truncated=[True, False])]
    answers, counts = chosen(arguments(), *records)
    assert answers == [["answer 0", "answer 2"]]
    assert counts == {
        "records": 2,
        "candidates_left_out_truncated": 2,
        "lists_left_out_too_few_candidates": 1,
        "lists": 1,
        "candidates": 2,
    }
    kept, _ = choose(arguments(keep_truncated=True), records)
    assert [choice.complete for choice in kept] == [[True, False, True], [False, True]]


def test_an_answer_that_was_cut_before_its_first_character_has_no_token_and_is_left_out():
    cut = record([0.1, 0.9, 0.5, 0.3], answers_gen=["", "a", "b", ""], truncated=[True, True, False, False])
    answers, counts = chosen(arguments(keep_truncated=True), cut)
    assert answers == [["a", "b", ""]]  # one that ended at once is its end token
    assert counts["candidates_left_out_empty"] == 1
    assert counts["candidates"] == 3


def test_answers_without_a_recorded_reference_are_left_out():
    args = arguments(reference="recorded")
    choices, counts = choose(args, [record([0, 1, 0.5], reference_logps=[-1.0, None, -3.0]), record([0.5, 0.6])])
    assert [choice.answers for choice in choices] == [["answer 0", "answer 2"]]
    assert choices[0].reference_logps == [-1.0, -3.0]
    assert counts["candidates_left_out_no_recorded_reference"] == 3
    assert counts["lists_left_out_too_few_candidates"] == 1


def test_nothing_left_to_learn_from_is_an_error():
    with pytest.raises(PerpoError, match=r"has enough usable candidates: .*truncated 2"):
        choose(arguments(), [record([0, 1], truncated=[True, True])])
    with pytest.raises(PerpoError, match="candidates with different rewards"):
        choose(arguments(), [record([0.5, 0.5]), record([0.0, 0.0])])
    choose(arguments(method="rft"), [record([0.5, 0.5])])


@pytest.fixture(scope="module")
def loaded(small_model):
    return load_model(str(small_model), device="cpu")


@pytest.fixture
def image_root(tmp_path):
    Image.new("RGB", (50, 20), "red").save(tmp_path / "image.png")
    return str(tmp_path)


def test_candidates_become_tokens_with_an_end_and_lists_a_batch(loaded, image_root):
    records = [record([0, 1, 0.5], truncated=[False, False, True]), record([1, 0], question="and where is that?")]
    choices, _ = choose(arguments(keep_truncated=True), records)
    lists = tokenize(loaded, choices, image_root)
    tokenizer = loaded.tokenizer
    decoded = [tokenizer.decode(ids) for ids in lists[0].answers]
    assert decoded == [" answer 0</s>", " answer 1</s>", " answer 2"]

    dataset = ListDataset(lists, loaded)
    batch = Collator(tokenizer.pad_token_id)([dataset[0], dataset[1]])
    assert batch["numbers"] == [1, 2]
    assert batch["rewards"].tolist() == [[0, 1, 0.5], [1, 0, 0]]
    assert batch["mask"].tolist() == [[True, True, True], [True, True, False]]
    assert batch["token_counts"][0].tolist() == [len(ids) for ids in lists[0].answers]
    assert [image["pixel_values"].shape for image in batch["images"]] == [(1, 3, 32, 32)] * 2
    prefixes = [
        ids[mask] for ids, mask in zip(*(batch["packed"][k] for k in ("prefix_ids", "prefix_mask")), strict=True)
    ]
    for prefix, each in zip(prefixes, lists, strict=True):
        expected = loaded.encode([each.prompt], [Image.new("RGB", (50, 20))])
        assert torch.equal(prefix, expected.input_ids[0])
        assert each.prefix_tokens == len(prefix)


def test_what_is_longer_than_the_context_is_an_error(loaded, image_root):
    fits = record([0, 1], answers_gen=["a", "b"])
    whole = len(tokenize(loaded, choose(arguments(), [fits])[0], image_root)[0].answers[0])
    prompt = ListDataset(tokenize(loaded, choose(arguments(), [fits])[0], image_root), loaded)[0]["prefix"]
    room = loaded.context_length - len(prompt) - whole
    long = record([0, 1], answers_gen=["a", "a" + " a" * (room + 9)])
    choices, _ = choose(arguments(), [fits, long])
    with pytest.raises(PerpoError, match=r"record 2: image .4 tokens.* exceed the model's context of 128"):
        tokenize(loaded, choices, image_root)


def test_what_workers_are_handed_holds_no_model(loaded, image_root):
    choices, _ = choose(arguments(), [record([0, 1])])
    dataset = ListDataset(tokenize(loaded, choices, image_root), loaded)
    content = pickle.dumps(dataset)
    assert b"modeling_llava" not in content
    assert b"modeling_llava" in pickle.dumps(loaded)
    ours, theirs = dataset[0], pickle.loads(content)[0]
    assert ours["prefix"] == theirs["prefix"]
    assert torch.equal(ours["image"]["pixel_values"], theirs["image"]["pixel_values"])
