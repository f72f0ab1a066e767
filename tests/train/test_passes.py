"""A step in several passes has the gradients of one, and the memory of a pass."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.profiler import ProfilerActivity, profile

from perpo.errors import PerpoError
from perpo.models.prefix import pack, unpack
from perpo.train.arguments import TrainArguments
from perpo.train.lists import ListDataset, TokenizedList
from perpo.train.optimizing import training_arguments
from perpo.train.passes import check_budget, split
from perpo.train.policy import load_policy
from perpo.train.trainer import PreferenceTrainer

QUESTION = "USER: <image>\nwhere? ASSISTANT:"


def ids(count, start=20):
    return [start + place % 200 for place in range(count)]


@settings(max_examples=60, deadline=None)
@given(
    lists=st.lists(
        st.tuples(st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=6)), min_size=1, max_size=4
    ),
    spare=st.integers(0, 60),
)
def test_every_candidate_is_in_one_pass_and_none_is_over_the_budget(lists, spare):
    prefixes = [ids(prefix) for prefix, _ in lists]
    answers = [[ids(length, 50 + n) for n, length in enumerate(lengths)] for _, lengths in lists]
    images = [{"pixel_values": torch.tensor([[row]])} for row in range(len(lists))]
    budget = max(prefix + max(lengths) for prefix, lengths in lists) + spare
    passes = split(pack(prefixes, answers, 0), images, budget, None)
    widest = max(map(len, answers))
    number = torch.arange(len(lists) * widest, dtype=torch.float32).reshape(len(lists), widest) + 1
    present = torch.tensor([[n < len(each) for n in range(widest)] for each in answers])
    found, seen = torch.zeros_like(number), torch.zeros_like(number)
    for each in passes:
        assert each.packed["prefix_ids"].numel() + each.packed["answer_ids"].numel() <= budget
        got_prefixes, got_answers = unpack(each.packed)
        for span, image, prefix, some in zip(each.spans, each.images, got_prefixes, got_answers, strict=True):
            assert image is images[span.row]
            assert (prefix, some) == (prefixes[span.row], answers[span.row][span.start : span.stop])
        each.put(each.take(number), found)
        each.put(torch.ones_like(each.take(number)), one := torch.zeros_like(number))
        seen += one
    assert torch.equal(found, number * present)
    assert torch.equal(seen, present.float())
    # no two passes that follow each other would fit into one
    for one, other in itertools.pairwise(passes):
        tokens = Counter({span.row: sum(map(len, answers[span.row][span.start : span.stop])) for span in one.spans})
        following = other.spans[0]
        tokens[following.row] += len(answers[following.row][following.start])
        assert len(tokens) * (max(len(prefixes[row]) for row in tokens) + max(tokens.values())) > budget


def test_candidates_that_share_no_prefix_are_counted_with_theirs():
    """Each takes 10 + 5 tokens where the model's window is 12."""
    packed = pack([ids(10)], [[ids(5)] * 4], 0)
    assert [len(each.spans) for each in split(packed, [{}], 30, None)] == [1]
    assert [each.spans[0].stop - each.spans[0].start for each in split(packed, [{}], 30, 12)] == [2, 2]


def test_a_candidate_that_fits_into_no_pass_is_refused():
    lists = [TokenizedList(7, None, "", 30, [ids(4), ids(9)], [0, 1], None)]
    check_budget(lists, 39)
    with pytest.raises(
        PerpoError, match=r"record 7: image and prompt \(30 tokens\) and its longest answer \(9\)"
    ) as caught:
        check_budget(lists, 38)
    assert "--max_tokens_per_pass 39 or more" in caught.value.hint


@pytest.fixture
def make_trainer(small_model, tmp_path):
    def make(policy=None, **changes):
        options = {"model": str(small_model), "data": "", "output_dir": str(tmp_path), "lora_r": 4, "lora_alpha": 8}
        args = TrainArguments(**(options | changes))
        if policy is None:
            policy = load_policy(args)
            for name, parameter in policy.model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.3)
        trainer = PreferenceTrainer(args, training_arguments(args), policy, ListDataset([], policy.loaded), [])
        trainer.current_gradient_accumulation_steps = 1
        return trainer

    return make


def make_batch(trainer, lengths):
    generator = torch.Generator().manual_seed(0)
    loaded = trainer.policy.loaded
    prefix = loaded.token_ids([QUESTION])[0]
    place = prefix.index(loaded.processor.image_token_id)
    image = [loaded.processor.image_token_id] * loaded.model.config.image_seq_length
    prefixes = [[*prefix[:place], *image, *prefix[place + 1 :], *ids(row)] for row in range(len(lengths))]
    answers = [[torch.randint(10, 300, (n,), generator=generator).tolist() for n in each] for each in lengths]
    widest = max(map(len, lengths))
    mask = torch.tensor([[n < len(each) for n in range(widest)] for each in lengths])
    return {
        "numbers": list(range(1, len(lengths) + 1)),
        "packed": pack(prefixes, answers, 3),
        "images": [{"pixel_values": torch.randn(1, 3, 32, 32, generator=generator)} for _ in lengths],
        "rewards": torch.rand(mask.shape, generator=generator) * mask,
        "mask": mask,
        "token_counts": torch.tensor([[float(n) for n in each] + [0.0] * (widest - len(each)) for each in lengths]),
    }


def gradients(trainer, batch):
    model = trainer.model
    model.zero_grad()
    loss = trainer.training_step(model, dict(batch), torch.tensor(3.0))
    return loss, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("method", ["perpo", "lipo", "dpo", "rft"])
@pytest.mark.parametrize("recorded", [False, True])
def test_gradients_are_those_of_one_pass(make_trainer, monkeypatch, method, recorded):
    whole = make_trainer(method=method)
    batch = make_batch(whole, [[6, 2, 9, 4, 7], [3], [5, 5, 5]] if method != "rft" else [[6], [9], [2]])
    if recorded:
        batch["reference_logps"] = torch.randn(batch["mask"].shape, generator=torch.Generator().manual_seed(1))
    loss, expected = gradients(whole, batch)
    passes = make_trainer(whole.policy, method=method, max_tokens_per_pass=40)
    counted = []
    monkeypatch.setattr("perpo.train.passes.Pass.logps", _counting(counted))
    found_loss, found = gradients(passes, batch)
    # policy and reference without gradients, then the policy with them
    ways = 2 if recorded or method == "rft" else 3
    assert len(counted) % ways == 0
    assert len(counted) // ways > (1 if method == "rft" else 3)
    assert max(counted) <= 40
    torch.testing.assert_close(found_loss, loss)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)
    assert len(passes._since_last_log) == len(whole._since_last_log)


def _counting(counted):
    from perpo.train.passes import Pass

    logps = Pass.logps

    def count(self, model):
        counted.append(self.packed["prefix_ids"].numel() + self.packed["answer_ids"].numel())
        return logps(self, model)

    return count


def test_a_batch_within_the_budget_is_read_at_once(make_trainer, monkeypatch):
    trainer = make_trainer(max_tokens_per_pass=400)
    monkeypatch.setattr("perpo.train.passes.Pass.logps", None)
    gradients(trainer, make_batch(trainer, [[6, 2], [3, 3]]))


def test_passes_that_only_keep_step_add_nothing(make_trainer, monkeypatch):
    """As in a process with fewer passes than another has."""
    trainer = make_trainer(max_tokens_per_pass=40)
    batch = make_batch(trainer, [[6, 2, 9, 4, 7], [3, 3]])
    loss, expected = gradients(trainer, batch)
    monkeypatch.setattr(type(trainer.accelerator), "num_processes", 2)
    monkeypatch.setattr(trainer.accelerator, "gather", lambda count: torch.cat([count, count + 3]))
    synced = []
    monkeypatch.setattr(
        trainer.accelerator,
        "backward",
        lambda loss: (synced.append(trainer.accelerator.sync_gradients), loss.backward()),
    )
    found_loss, found = gradients(trainer, batch)
    assert synced == [False] * (len(synced) - 1) + [True]
    assert torch.equal(found_loss, loss)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=name)


def peak_bytes(work):
    """Most bytes of tensors at any time beyond those before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(held)


def test_memory_does_not_grow_with_the_number_of_candidates(make_trainer):
    def peak(budget, candidates):
        trainer = make_trainer(max_tokens_per_pass=budget)
        batch = make_batch(trainer, [[20] * candidates])
        gradients(trainer, batch)
        return peak_bytes(lambda: gradients(trainer, batch))

    assert peak(120, 40) <= 1.1 * peak(120, 10)
    assert peak(None, 40) > 2 * peak(None, 10)  # so that it is the passes' doing
