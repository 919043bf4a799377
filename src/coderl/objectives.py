"""The losses of CodeRL as pure functions, proven on the CPU in closed form.

Shapes: B programs, T token positions, V vocabulary, C outcome classes. `labels` are token ids with -100 where there is no
token; `logits[:, t]` predicts `labels[:, t]`. Every function returns sums over what it is given, never means: the caller
divides by the size of the whole optimiser step, so that splitting a step into micro-batches or over devices changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

IGNORED = -100
"""The label of a position without a token."""


def token_log_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """log p(label) at each position, 0 where there is no token. logits [B, T, V], labels [B, T] -> [B, T] float32."""
    losses = functional.cross_entropy(logits.float().transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
    return -losses


def cross_entropy_sum(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy summed over tokens (spec 2.3). logits [B, T, V], labels [B, T] -> scalar."""
    return functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")


def critic_loss_sum(logits: Tensor, outcomes: Tensor, weights: Tensor | None = None) -> Tensor:
    """-log p(outcome | program, problem) summed over programs (spec 5.3, Eq 9).

    logits [B, C], outcomes [B] int64; `weights` [B] multiply the terms (class balance) -> scalar.
    """
    losses = functional.cross_entropy(logits.float(), outcomes, reduction="none")
    return (losses if weights is None else losses * weights).sum()


def passing_log_odds(logits: Tensor) -> Tensor:
    """log p(passed) - log p(not passed) of outcome logits [B, C], the last class being "passed" -> [B] float32."""
    found = logits.float()
    return found[:, -1] - found[:, :-1].logsumexp(-1)


def pair_loss_sum(better: Tensor, worse: Tensor) -> Tensor:
    """-log sigmoid(better - worse) summed over pairs (RankNet, Burges et al. 2005); scores [N] -> scalar."""
    return functional.softplus(worse - better).sum()


def relative_returns(returns: Sequence[float], baseline: float | None, mode: str) -> list[float]:
    """Returns of the programs of one problem, as the policy gradient takes them (spec 6.1, 6.2, 10.4).

    mode "absolute": r; "greedy_relative": r - baseline, the return of the greedy program; "leave_one_out": r minus the mean
    return of the other programs (0 for a program alone); "group_normalised": (r - mean) / (standard deviation + 1e-6) over the
    programs (GRPO, spec 10.4). The last two are 0 for a group without a difference: it says nothing.

    Raises:
        ValueError: an unknown mode, or greedy_relative without a baseline.
    """
    if mode == "absolute":
        return list(returns)
    if mode == "greedy_relative":
        if baseline is None:
            raise ValueError("greedy_relative returns need the return of a greedy program")
        return [value - baseline for value in returns]
    if mode == "leave_one_out":
        if len(set(returns)) < 2:  # alone, or all alike: exactly nothing, where floating point would leave dust
            return [0.0 for _ in returns]
        total = sum(returns)
        return [value - (total - value) / (len(returns) - 1) for value in returns]
    if mode == "group_normalised":
        if len(set(returns)) < 2:
            return [0.0 for _ in returns]
        mean = sum(returns) / len(returns)
        deviation = (sum((value - mean) ** 2 for value in returns) / len(returns)) ** 0.5
        return [(value - mean) / (deviation + 1e-6) for value in returns]
    raise ValueError(f"unknown mode of returns {mode!r}: absolute, greedy_relative, leave_one_out or group_normalised")


def distance_values(length: int) -> list[float]:
    """q_t = 1 - (t - 1) / T for t = 1..T: linear decay by position (spec 6.5; slope and end values are ours)."""
    return [1 - t / length for t in range(length)]


def policy_loss_sum(
    logits: Tensor,
    labels: Tensor,
    values: Tensor,
    returns: Tensor,
    *,
    negative_returns: str = "unbounded",
    negative_weight: float = 1.0,
    token_scale: Tensor | None = None,
    old: Tensor | None = None,
    clip: float | None = None,
) -> Tensor:
    """Policy-gradient loss with token values, summed over tokens (spec 6.1 Eq 10, 6.2).

    L = - sum_b r_b sum_t q_bt log p(w_bt). With negative_returns "bounded", a program with r_b < 0 contributes
    - negative_weight r_b sum_t q_bt p(w_bt) instead: its gradient is that of p, which vanishes as p does, where log p
    falls without end and takes the model with it (spec 6.4, docs/log.md).

    Args:
        logits: [B, T, V].
        labels: [B, T], -100 where there is no token.
        values: q [B, T]; ignored where there is no token.
        returns: r [B], absolute or relative.
        negative_returns: "unbounded" (as published) or "bounded".
        negative_weight: factor on negative returns when bounded.
        token_scale: [B], e.g. 1 / length of each program for a mean over its tokens; None = 1.
        old: [B, T], log p of the tokens under the policy that drew them; needed with `clip`.
        clip: epsilon of PPO: the loss is - sum min(rho A, clip(rho, 1 - epsilon, 1 + epsilon) A) with A = r q and
            rho = p / p_old (spec 10.1, 10.4). None = no ratio. Negative returns are then neither bounded nor weighted.

    Returns:
        Scalar. A program with r = 0 contributes exactly 0 and no gradient.
    """
    log_probabilities = token_log_probabilities(logits, labels)
    surrogate = log_probabilities
    if negative_returns == "bounded":
        present = labels != IGNORED
        bounded = negative_weight * torch.where(present, log_probabilities.exp(), torch.zeros_like(log_probabilities))
        surrogate = torch.where((returns < 0)[:, None], bounded, log_probabilities)
    elif negative_returns != "unbounded":
        raise ValueError(f"unknown treatment of negative returns {negative_returns!r}: unbounded or bounded")
    weights = values * returns[:, None]
    if token_scale is not None:
        weights = weights * token_scale[:, None]
    weights = torch.where(labels != IGNORED, weights, torch.zeros_like(weights))
    if clip is not None:
        if old is None:
            raise ValueError("a clipped ratio needs the log-probabilities of the policy that drew the programs")
        ratio = torch.where(labels != IGNORED, log_probabilities - old, torch.zeros_like(log_probabilities)).exp()
        return -torch.minimum(ratio * weights, ratio.clamp(1 - clip, 1 + clip) * weights).sum()
    return -(weights * surrogate).sum()


def kl_sum(logits: Tensor, labels: Tensor, reference: Tensor, token_scale: Tensor | None = None) -> Tensor:
    """KL(p, p_ref) on the drawn tokens, summed: p_ref / p - log(p_ref / p) - 1, never negative (spec 10.4, GRPO's estimator).

    logits [B, T, V], labels [B, T], reference [B, T] log p_ref of the labels, token_scale [B] -> scalar.
    """
    log_ratio = torch.where(labels != IGNORED, reference - token_log_probabilities(logits, labels), torch.zeros_like(reference))
    terms = log_ratio.exp() - log_ratio - 1
    return (terms if token_scale is None else terms * token_scale[:, None]).sum()
