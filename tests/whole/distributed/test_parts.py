"""The parts that several processes need, without starting any."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch.utils.data import BatchSampler

import perpo.train.distributed
from perpo.cli.train import main
from perpo.errors import PerpoError
from perpo.losses import dpo_loss, perpo_loss, preference_metrics
from perpo.train.distributed import Filled, deepspeed_config, nanmeans, summed, world_size

SHIPPED = ["zero2", "zero2_offload", "zero3", "zero3_offload"]


class Order:
    """Seven places in another order each epoch."""

    def __init__(self):
        self.set_epoch(0)

    def set_epoch(self, epoch):
        self.places = torch.randperm(7, generator=torch.Generator().manual_seed(epoch)).tolist()

    def __iter__(self):
        return iter(self.places)

    def __len__(self):
        return 7


@pytest.mark.parametrize(("processes", "batch"), [(2, 2), (3, 1), (2, 5), (7, 1)])
def test_every_list_counts_once_an_epoch_and_all_processes_get_whole_batches(processes, batch):
    order = Filled(Order(), processes * batch)
    for epoch in (0, 1):
        order.set_epoch(epoch)
        places = list(order)
        assert len(places) == len(order) == math.ceil(7 / (processes * batch)) * processes * batch
        assert places[:7] == order.order.places
        assert all(place >= 7 for place in places[7:])
        assert all(len(each) == batch for each in BatchSampler(order, batch, drop_last=False))


def test_a_list_that_counts_nothing_has_neither_loss_nor_gradient_nor_metrics():
    policy = torch.tensor([[-1.0, -2.0, -3.0], [-4.0, -5.0, -6.0]], requires_grad=True)
    rewards = torch.tensor([[0.0, 0.5, 1.0]] * 2)
    mask = torch.tensor([[True] * 3, [False] * 3])
    reference = torch.zeros(2, 3)
    for loss in (dpo_loss, perpo_loss):
        losses = loss(policy, reference, rewards, mask=mask)
        assert losses[0] > 0
        assert losses[1] == 0
        (gradient,) = torch.autograd.grad(losses.sum(), policy)
        assert gradient[0].abs().sum() > 0
        assert gradient[1].tolist() == [0, 0, 0]
    metrics = preference_metrics(policy, reference, rewards, beta=0.1, gamma=0.5, mask=mask)
    alone = preference_metrics(policy[:1], reference[:1], rewards[:1], beta=0.1, gamma=0.5)
    assert nanmeans([metrics]) == pytest.approx({name: value.item() for name, value in alone.items()})
    assert all(value[1].isnan() for value in metrics.values())


def test_means_are_over_lists_and_not_over_batches():
    batches = [{"kl": torch.tensor([1.0, 2.0, math.nan])}, {"kl": torch.tensor([6.0])}]
    assert nanmeans(batches) == {"kl": 3.0}
    assert nanmeans([{"kl": torch.tensor([math.nan])}]) == {}


def test_one_process_sums_nothing():
    assert world_size() == 1
    assert summed(torch.tensor(3.0)) == 3.0


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_is_read_anew_each_time(name):
    config = deepspeed_config(name)
    assert config["zero_optimization"]["stage"] == int(name[4])
    assert ("offload_optimizer" in config["zero_optimization"]) == name.endswith("offload")
    config["zero_optimization"].clear()
    assert deepspeed_config(name)["zero_optimization"]


def test_all_that_is_shipped_is_named_in_help(capsys):
    files = Path(perpo.train.distributed.__file__).with_name("deepspeed_configs").glob("*.json")
    assert sorted(path.stem for path in files) == SHIPPED
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert all(name in out for name in SHIPPED)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[]", "does not hold a JSON object"),
        (json.dumps({"optimizer": {"type": "Adam"}}), "has its own optimizer"),
        (json.dumps({"scheduler": {"type": "WarmupLR"}}), "has its own scheduler"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused_before_anything_is_read(tmp_path, capsys, content, said):
    path = tmp_path / "zero.json"
    path.write_text(content)
    words = ["--data", "absent.jsonl", "--output_dir", str(tmp_path / "out"), "--deepspeed", str(path)]
    assert main(words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("name", "hint"), [("zerro2", "zero2"), ("configs/zero3.json", "zero3_offload")])
def test_a_configuration_that_is_not_there_is_told_with_those_that_are(name, hint):
    with pytest.raises(PerpoError, match="there is no DeepSpeed configuration") as caught:
        deepspeed_config(name)
    assert hint in caught.value.hint


def test_without_deepspeed_its_extra_is_named(monkeypatch):
    monkeypatch.setattr(perpo.train.distributed, "find_spec", lambda name: None)
    with pytest.raises(PerpoError, match="not installed") as caught:
        deepspeed_config("zero2")
    assert "perpo[deepspeed]" in caught.value.hint
