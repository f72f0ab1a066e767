"""The losses against their formulas, written out in float64 Python."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perpo.losses import dpo_loss, lipo_loss, perpo_loss, preference_metrics, sft_loss

ANY_FLOAT = st.floats(width=32, allow_nan=False, allow_infinity=False)
LOGP = st.floats(-200, 0, width=32)
REWARD = st.sampled_from([0.0, 0.25, 0.3, 0.5, 1.0])


def lists(numbers=LOGP, rewards=REWARD, least=1):
    """Policy log-probs, reference log-probs and rewards of one list."""
    candidate = st.tuples(numbers, numbers, rewards)
    return st.lists(candidate, min_size=least, max_size=7).map(lambda rows: tuple(zip(*rows, strict=True)))


def tensor(row, dtype=torch.float64):
    return torch.tensor([row], dtype=dtype)


def formula(policy, reference, rewards, beta, gamma):
    """Loss and gradient by s: sum over ordered pairs of w softplus(-beta d), and its derivative."""
    s = [p - r for p, r in zip(policy, reference, strict=True)]
    pairs = [(i, j) if rewards[i] > rewards[j] else (j, i) for i, j in combinations(range(len(s)), 2)]
    pairs = [(i, j) for i, j in pairs if rewards[i] > rewards[j]]
    total = sum((rewards[i] - rewards[j]) ** gamma for i, j in pairs)
    loss, gradient = 0.0, [0.0] * len(s)
    for i, j in pairs:
        weight = (rewards[i] - rewards[j]) ** gamma / total
        x = -beta * (s[i] - s[j])
        loss += weight * (max(x, 0) + math.log1p(math.exp(-abs(x))))
        slope = -beta * weight / (1 + math.exp(-x)) if x > -700 else 0.0
        gradient[i] += slope
        gradient[j] -= slope
    return loss, gradient


@given(lists(), st.floats(0.01, 5), st.sampled_from([0.0, 0.5, 1.0, 2.0]))
def test_perpo_equals_the_formula_with_its_gradient(rows, beta, gamma):
    policy = tensor(rows[0]).requires_grad_()
    loss = perpo_loss(policy, tensor(rows[1]), tensor(rows[2]), beta=beta, gamma=gamma)
    loss.sum().backward()
    expected, gradient = formula(*rows, beta, gamma)
    assert loss.tolist() == pytest.approx([expected], rel=1e-9, abs=1e-12)
    assert policy.grad[0].tolist() == pytest.approx(gradient, rel=1e-9, abs=1e-12)


def test_a_worked_example():
    # s = (1, 0, -1), rewards (1, .5, 0): pairs (0,1) and (1,2) with margin .5, (0,2) with margin 1; gamma 1
    loss = perpo_loss(tensor([1, 0, -1]), tensor([0, 0, 0]), tensor([1, 0.5, 0]), beta=1.0, gamma=1.0)
    expected = 0.25 * 2 * math.log1p(math.exp(-1)) + 0.5 * math.log1p(math.exp(-2))
    assert loss.item() == pytest.approx(expected)


@given(lists(least=2), st.sampled_from([0.0, 0.5, 2.0]), st.randoms())
def test_the_order_of_a_list_does_not_matter(rows, gamma, random):
    order = list(range(len(rows[0])))
    random.shuffle(order)
    shuffled = [[row[place] for place in order] for row in rows]
    expected = perpo_loss(*map(tensor, rows), gamma=gamma)
    assert perpo_loss(*map(tensor, shuffled), gamma=gamma).tolist() == pytest.approx(expected.tolist())


@given(lists(least=2))
def test_reversed_rewards_reverse_the_gradient_at_the_start(rows):
    """Where policy and reference agree, every pair's slope is -beta / 2, towards the better one."""
    policy = tensor(rows[0])
    gradients = []
    for rewards in (tensor(rows[2]), 1 - tensor(rows[2])):
        leaf = policy.clone().requires_grad_()
        perpo_loss(leaf, policy, rewards).sum().backward()
        gradients.append(leaf.grad[0])
    assert gradients[0].tolist() == pytest.approx((-gradients[1]).tolist(), abs=1e-12)


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_ties_weigh_nothing(gamma):
    """The pair of equals has no part: moving both of them apart leaves only their pairs with the third."""
    rewards = tensor([0.5, 0.5, 0.0])
    policy = tensor([3.0, -2.0, 1.0]).requires_grad_()
    loss = perpo_loss(policy, tensor([0, 0, 0]), rewards, beta=1.0, gamma=gamma)
    assert loss.item() == pytest.approx((math.log1p(math.exp(-2)) + math.log1p(math.exp(3))) / 2)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 3.0])
@pytest.mark.parametrize("loss_of", [perpo_loss, dpo_loss, lipo_loss])
def test_a_list_without_spread_gives_nothing(loss_of, gamma):
    policy = torch.tensor([[1.0, -5.0, 2.0], [1.0, 2.0, 3.0]], requires_grad=True)
    rewards = torch.tensor([[0.3, 0.3, 0.3], [0.0, 0.0, 1.0]])
    options = {"gamma": gamma} if loss_of is perpo_loss else {}
    losses = loss_of(policy, torch.zeros(2, 3), rewards, **options)
    losses.sum().backward()
    assert losses[0] == 0
    assert policy.grad[0].tolist() == [0, 0, 0]
    assert losses[1] > 0
    assert policy.grad[1].abs().sum() > 0


@given(lists(least=2), lists(numbers=st.floats(width=32), rewards=st.floats(width=32)))
def test_masked_candidates_do_not_exist(rows, junk):
    """Whatever stands there, NaN and infinity too; the normaliser runs over the candidates used."""
    both = [[*row, *rest] for row, rest in zip(rows, junk, strict=True)]
    mask = torch.tensor([[True] * len(rows[0]) + [False] * len(junk[0])])
    for loss_of in (perpo_loss, dpo_loss, lipo_loss):
        policy = tensor(both[0]).requires_grad_()
        loss = loss_of(policy, tensor(both[1]), tensor(both[2]), mask=mask)
        loss.sum().backward()
        short = tensor(rows[0]).requires_grad_()
        expected = loss_of(short, tensor(rows[1]), tensor(rows[2]))
        expected.sum().backward()
        assert loss.tolist() == pytest.approx(expected.tolist())
        assert policy.grad[0].tolist() == pytest.approx([*short.grad[0].tolist(), *[0.0] * len(junk[0])])


def test_an_absent_candidate_does_not_make_small_margins_vanish():
    """The one pair weighs 1 whatever its margin; (0.001 / 1)^20 would be 0 in float32."""
    rewards = torch.tensor([[1.0, 0.999, 0.0]])
    mask = torch.tensor([[True, True, False]])
    loss = perpo_loss(torch.zeros(1, 3), torch.zeros(1, 3), rewards, gamma=20.0, mask=mask)
    assert loss.item() == pytest.approx(math.log(2))


@given(lists(numbers=ANY_FLOAT, rewards=st.floats(0, 1, width=32)), st.floats(1e-3, 10), st.floats(0, 10))
def test_any_finite_input_gives_finite_losses_gradients_and_metrics(rows, beta, gamma):
    policy, reference, rewards = (tensor(row, torch.float32) for row in rows)
    policy.requires_grad_()
    for loss_of in (perpo_loss, dpo_loss, lipo_loss):
        options = {"gamma": gamma} if loss_of is perpo_loss else {}
        loss = loss_of(policy, reference, rewards, beta=beta, **options)
        policy.grad = None
        loss.sum().backward()
        assert loss.isfinite().all()
        assert policy.grad.isfinite().all()
    metrics = preference_metrics(policy, reference, rewards, beta=beta, gamma=gamma)
    spread = metrics["no_spread"] == 0
    assert bool(spread) == (len(set(rows[2])) > 1)
    assert metrics["kl"].isfinite().all()
    assert bool(metrics["margin"].isfinite()) == bool(metrics["pair_accuracy"].isfinite()) == bool(spread)


@given(lists(least=2), st.floats(0.01, 5))
def test_dpo_is_the_best_against_the_worst(rows, beta):
    policy, reference, rewards = rows
    best, worst = (pick(rewards) for pick in (max, min))
    i, j = rewards.index(best), rewards.index(worst)
    x = -beta * ((policy[i] - reference[i]) - (policy[j] - reference[j]))
    expected = max(x, 0) + math.log1p(math.exp(-abs(x))) if best > worst else 0.0
    assert dpo_loss(*map(tensor, rows), beta=beta).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@given(lists(least=2), st.floats(0.01, 5))
def test_lipo_is_perpo_at_gamma_0(rows, beta):
    expected, _ = formula(*rows, beta, 0.0)
    assert lipo_loss(*map(tensor, rows), beta=beta).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_two_candidates_make_every_preference_loss_dpo():
    rows = tensor([-3.0, -4.0]), tensor([-3.5, -3.0]), tensor([0.2, 0.9])
    expected = -math.log(1 / (1 + math.exp(-0.1 * (-1 - 0.5))))
    for loss_of in (perpo_loss, lipo_loss, dpo_loss):
        assert loss_of(*rows).item() == pytest.approx(expected)


def test_sft_is_the_mean_negative_log_likelihood_per_token():
    assert sft_loss(torch.tensor([-6.0, -1.0]), torch.tensor([3.0, 2.0])).tolist() == [2.0, 0.5]


def test_metrics_of_a_worked_example():
    # s = (1, 2, 0); rewards (1, .5, 0); gamma 1: (0,1) weighs .25 and is wrong, (1,2) .25 and (0,2) .5 are right
    policy, mask = torch.tensor([[1.0, 2, 0, 9]]), torch.tensor([[True, True, True, False]])
    rewards = torch.tensor([[1.0, 0.5, 0, 7]])
    metrics = preference_metrics(policy, torch.zeros(1, 4), rewards, beta=2.0, gamma=1.0, mask=mask)
    assert {name: value.item() for name, value in metrics.items()} == pytest.approx(
        {"pair_accuracy": 0.75, "margin": 2 * (0.25 * -1 + 0.25 * 2 + 0.5 * 1), "kl": -1.0, "no_spread": 0.0}
    )
