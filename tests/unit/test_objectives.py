"""The losses against their closed forms (spec 6, 12)."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coderl.objectives import (
    IGNORED,
    critic_loss_sum,
    cross_entropy_sum,
    distance_values,
    kl_sum,
    pair_loss_sum,
    passing_log_odds,
    policy_loss_sum,
    relative_returns,
    token_log_probabilities,
)

REWARDS = {"compile_error": -1.0, "runtime_error": -0.6, "failed_test": -0.3, "passed_test": 1.0}


def random_batch(seed: int, programs: int = 3, tokens: int = 5, vocabulary: int = 7) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(programs, tokens, vocabulary, generator=generator, dtype=torch.float64).float().requires_grad_()
    labels = torch.randint(0, vocabulary, (programs, tokens), generator=generator)
    values = torch.rand(programs, tokens, generator=generator)
    for row in range(programs):
        labels[row, tokens - row :] = IGNORED
    return logits, labels, values


def test_policy_loss_is_the_closed_form() -> None:
    logits, labels, values = random_batch(0)
    returns = torch.tensor([1.3, -0.7, 0.4])
    expected = 0.0
    for b in range(3):
        for t in range(5):
            if labels[b, t] != IGNORED:
                log_p = logits[b, t, labels[b, t]] - logits[b, t].logsumexp(0)
                expected -= (returns[b] * values[b, t] * log_p).item()
    assert policy_loss_sum(logits, labels, values, returns).item() == pytest.approx(expected, rel=1e-5)


def test_gradient_is_return_times_value_times_score() -> None:
    """d(-r q log p_y)/d logit_v = r q (p_v - [v = y])."""
    logits, labels, values = random_batch(1, programs=1, tokens=1)
    policy_loss_sum(logits, labels, values, torch.tensor([-0.6])).backward()
    p = logits.detach().softmax(-1)[0, 0]
    one_hot = torch.zeros(7)
    one_hot[labels[0, 0]] = 1
    torch.testing.assert_close(logits.grad[0, 0], -0.6 * values[0, 0] * (p - one_hot))


def test_bounded_gradient_is_that_of_the_probability() -> None:
    """With r < 0 and weight w: d(-w r q p_y)/d logit_v = -w r q p_y ([v = y] - p_v); it vanishes with p."""
    logits, labels, values = random_batch(2, programs=1, tokens=1)
    policy_loss_sum(logits, labels, values, torch.tensor([-1.3]), negative_returns="bounded", negative_weight=0.2).backward()
    p = logits.detach().softmax(-1)[0, 0]
    one_hot = torch.zeros(7)
    one_hot[labels[0, 0]] = 1
    torch.testing.assert_close(logits.grad[0, 0], 0.2 * 1.3 * values[0, 0] * p[labels[0, 0]] * (one_hot - p))


def test_bounded_leaves_positive_returns_alone() -> None:
    logits, labels, values = random_batch(3)
    returns = torch.tensor([0.3, 1.0, 2.0])
    plain = policy_loss_sum(logits, labels, values, returns)
    bounded = policy_loss_sum(logits, labels, values, returns, negative_returns="bounded", negative_weight=0.2)
    assert plain.item() == bounded.item()


def test_unbounded_loss_falls_without_end_and_the_bounded_one_does_not() -> None:
    labels, values, returns = torch.tensor([[0]]), torch.ones(1, 1), torch.tensor([-1.0])
    logits = torch.tensor([[[-1000.0, 0.0]]])
    assert policy_loss_sum(logits, labels, values, returns).item() < -900
    assert abs(policy_loss_sum(logits, labels, values, returns, negative_returns="bounded").item()) < 1e-6


@pytest.mark.parametrize("negative_returns", ["unbounded", "bounded"])
def test_zero_return_is_exactly_nothing(negative_returns: str) -> None:
    logits, labels, values = random_batch(4)
    loss = policy_loss_sum(logits, labels, values, torch.zeros(3), negative_returns=negative_returns)
    loss.backward()
    assert loss.item() == 0.0
    assert not logits.grad.any()


def test_sign_flips_with_the_return_and_one_is_cross_entropy() -> None:
    logits, labels, values = random_batch(5)
    returns = torch.tensor([1.0, 0.5, 2.0])
    assert policy_loss_sum(logits, labels, values, returns).item() == -policy_loss_sum(logits, labels, values, -returns).item()
    ones = torch.ones_like(values)
    assert policy_loss_sum(logits, labels, ones, torch.ones(3)).item() == pytest.approx(cross_entropy_sum(logits, labels).item(), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4))
def test_padding_changes_nothing(seed: int, pads: int) -> None:
    logits, labels, values = random_batch(seed)
    returns = torch.tensor([1.0, -0.3, 0.7])
    wide_logits = torch.cat([logits, torch.full((3, pads, 7), 9.0)], 1)
    wide_labels = torch.cat([labels, torch.full((3, pads), IGNORED)], 1)
    wide_values = torch.cat([values, torch.full((3, pads), 5.0)], 1)
    for mode in ("unbounded", "bounded"):
        plain = policy_loss_sum(logits, labels, values, returns, negative_returns=mode)
        wide = policy_loss_sum(wide_logits, wide_labels, wide_values, returns, negative_returns=mode)
        torch.testing.assert_close(plain, wide)
    torch.testing.assert_close(cross_entropy_sum(logits, labels), cross_entropy_sum(wide_logits, wide_labels))


def test_micro_batches_sum_to_the_step() -> None:
    logits, labels, values = random_batch(6)
    returns = torch.tensor([1.0, -1.3, 0.4])
    whole = torch.autograd.grad(policy_loss_sum(logits, labels, values, returns), logits)[0]
    parts = sum(policy_loss_sum(logits[i : i + 1], labels[i : i + 1], values[i : i + 1], returns[i : i + 1]) for i in range(3))
    torch.testing.assert_close(torch.autograd.grad(parts, logits)[0], whole)


def test_token_log_probabilities() -> None:
    logits, labels, _ = random_batch(7)
    found = token_log_probabilities(logits, labels)
    assert found[2, 3].item() == 0.0  # no token there
    assert found[0, 0].item() == pytest.approx(logits[0, 0].log_softmax(-1)[labels[0, 0]].item(), rel=1e-5)


def test_critic_loss() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, math.log(3)]])
    assert critic_loss_sum(logits, torch.tensor([3])).item() == pytest.approx(-math.log(0.5))
    assert critic_loss_sum(logits, torch.tensor([3]), torch.tensor([2.0])).item() == pytest.approx(-2 * math.log(0.5))


@pytest.mark.parametrize(
    ("outcome", "row"),
    [
        ("compile_error", [0.0, -0.4, -0.7, -2.0]),
        ("runtime_error", [0.4, 0.0, -0.3, -1.6]),
        ("failed_test", [0.7, 0.3, 0.0, -1.3]),
        ("passed_test", [2.0, 1.6, 1.3, 0.0]),
    ],
)
def test_table_of_relative_returns(outcome: str, row: list[float]) -> None:
    """Spec 6.2, rows sample, columns greedy baseline."""
    found = [relative_returns([REWARDS[outcome]], REWARDS[baseline], "greedy_relative")[0] for baseline in REWARDS]
    assert found == pytest.approx(row)


def test_leave_one_out() -> None:
    assert relative_returns([1.0, 0.0, -1.0], None, "leave_one_out") == pytest.approx([1.5, 0.0, -1.5])
    assert relative_returns([1.0], None, "leave_one_out") == [0.0]
    assert relative_returns([1.0, -0.3], 0.5, "absolute") == [1.0, -0.3]


def test_group_normalised_returns_have_mean_zero_and_deviation_one() -> None:
    found = torch.tensor(relative_returns([1.0, -0.3, -0.3, -1.0], None, "group_normalised"))
    assert found.mean().item() == pytest.approx(0.0, abs=1e-6)
    assert found.std(correction=0).item() == pytest.approx(1.0, rel=1e-4)
    assert relative_returns([0.4, 0.4], None, "group_normalised") == [0.0, 0.0]


def test_pair_loss() -> None:
    """-log sigmoid of the margin: log 2 at none, its gradient half of the margin's sign."""
    better, worse = torch.tensor([0.0, 2.0], requires_grad=True), torch.tensor([0.0, -1.0])
    loss = pair_loss_sum(better, worse)
    assert loss.item() == pytest.approx(math.log(2) + math.log(1 + math.exp(-3)), rel=1e-5)
    assert torch.autograd.grad(loss, better)[0][0].item() == pytest.approx(-0.5)


def test_log_odds_of_passing() -> None:
    logits = torch.tensor([[1.0, 0.5, -2.0, 0.3], [0.0, 0.0, 0.0, 0.0]])
    passed = logits.softmax(-1)[:, -1]
    torch.testing.assert_close(passing_log_odds(logits), (passed / (1 - passed)).log())


def test_a_ratio_of_one_has_the_gradient_of_the_plain_loss() -> None:
    logits, labels, values = random_batch(8)
    returns = torch.tensor([1.0, -1.3, 0.4])
    old = token_log_probabilities(logits, labels).detach()
    plain = torch.autograd.grad(policy_loss_sum(logits, labels, values, returns), logits)[0]
    clipped = torch.autograd.grad(policy_loss_sum(logits, labels, values, returns, old=old, clip=0.2), logits)[0]
    torch.testing.assert_close(clipped, plain)


def test_beyond_the_clip_there_is_no_gradient_in_the_direction_of_gain_but_there_is_one_back() -> None:
    """rho = 1.5 or 0.5 with epsilon 0.2: cut for a gain at 1.5 and a loss at 0.5, whole for the other two (spec 10.1)."""
    for return_, shift, cut in ((1.0, 1.5, True), (-1.0, 0.5, True), (1.0, 0.5, False), (-1.0, 1.5, False)):
        logits = torch.zeros(1, 1, 4, requires_grad=True)
        labels, values, returns = torch.tensor([[2]]), torch.ones(1, 1), torch.tensor([return_])
        old = token_log_probabilities(logits, labels).detach() - math.log(shift)
        loss = policy_loss_sum(logits, labels, values, returns, old=old, clip=0.2)
        bound = max(min(shift, 1.2), 0.8)
        assert loss.item() == pytest.approx(-min(shift * return_, bound * return_), rel=1e-5)
        assert bool(torch.autograd.grad(loss, logits)[0].abs().sum() == 0) is cut
    with pytest.raises(ValueError, match="policy that drew"):
        policy_loss_sum(torch.zeros(1, 1, 2), torch.zeros(1, 1).long(), torch.ones(1, 1), torch.ones(1), clip=0.2)


def test_kl_is_zero_at_the_reference_positive_elsewhere_and_blind_to_pads() -> None:
    logits, labels, _ = random_batch(9)
    own = token_log_probabilities(logits, labels).detach()
    assert kl_sum(logits, labels, own).item() == pytest.approx(0.0, abs=1e-6)
    assert torch.autograd.grad(kl_sum(logits, labels, own), logits)[0].abs().max().item() == pytest.approx(0.0, abs=1e-6)
    shifted = own + 0.5
    present = int((labels != IGNORED).sum())
    assert kl_sum(logits, labels, shifted).item() == pytest.approx(present * (math.exp(0.5) - 1.5), rel=1e-4)
    scale = torch.tensor([0.5, 0.5, 0.5])
    assert kl_sum(logits, labels, shifted, scale).item() == pytest.approx(0.5 * present * (math.exp(0.5) - 1.5), rel=1e-4)


def test_returns_refuse_what_they_cannot_do() -> None:
    with pytest.raises(ValueError, match="greedy program"):
        relative_returns([1.0], None, "greedy_relative")
    with pytest.raises(ValueError, match="unknown mode"):
        relative_returns([1.0], None, "advantage")
    with pytest.raises(ValueError, match="unknown treatment"):
        policy_loss_sum(torch.zeros(1, 1, 2), torch.zeros(1, 1).long(), torch.ones(1, 1), torch.ones(1), negative_returns="clip")


def test_distance_values_fall_from_one() -> None:
    assert distance_values(4) == [1.0, 0.75, 0.5, 0.25]
