"""How good a critic is: per class, over all programs, and within problems.

The number that matters for token values, ranking and seeds is the AUC *within* a problem: a critic that has only learned
which problems are easy has a high AUC over all programs and 0.5 within problems (docs/log.md). The log-likelihood of the
model that wrote the programs costs nothing and stands beside it as the baseline.

A metric that cannot be computed (no problem with both a passing and a failing program, a class that never occurs) is None,
never 0 and never an error.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from coderl.seeds import derived_seed

logger = logging.getLogger(__name__)

Metrics = dict[str, float | int | None]
"""Flat metrics by name, as in metrics.json."""

BOOTSTRAP = 2000
"""Resamples of the problems for an interval of 95%."""
ECE_BINS = 10


@dataclass(frozen=True)
class Judgement:
    """The critic's probabilities [C] for one program, beside its outcome.

    `log_likelihood` (sum over tokens) and `n_tokens` are those of the model that wrote it; None for reference solutions.
    """

    task_id: str
    label: int
    probabilities: NDArray[np.float32]
    log_likelihood: float | None
    n_tokens: int | None
    is_reference: bool


def auc(scores: Sequence[float], positive: Sequence[bool]) -> float | None:
    """Probability that a positive scores above a negative, ties half (area under the ROC curve); None with one class only."""
    flags = np.asarray(positive, dtype=bool)
    n_positive = int(flags.sum())
    n_negative = len(flags) - n_positive
    if n_positive == 0 or n_negative == 0:
        return None
    ranks = rankdata(np.asarray(scores, dtype=np.float64))
    return float((ranks[flags].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative))


def within_problem_aucs(tasks: Sequence[str], scores: Sequence[float], positive: Sequence[bool]) -> list[float]:
    """The AUC of each problem that has both classes, in order of first appearance."""
    groups: dict[str, list[int]] = defaultdict(list)
    for index, task in enumerate(tasks):
        groups[task].append(index)
    values = (auc([scores[i] for i in group], [positive[i] for i in group]) for group in groups.values())
    return [value for value in values if value is not None]


def _within_problem(name: str, tasks: Sequence[str], scores: Sequence[float], positive: Sequence[bool], seed: int) -> Metrics:
    """Mean within-problem AUC as `name`, with its 95% bootstrap interval over problems and the number of problems."""
    aucs = np.array(within_problem_aucs(tasks, scores, positive))
    found: Metrics = {name: None, f"{name}_low": None, f"{name}_high": None, f"{name}_n_problems": len(aucs)}
    if len(aucs) > 0:
        rng = np.random.default_rng(derived_seed(seed, "bootstrap"))
        means = [float(aucs[rng.integers(len(aucs), size=len(aucs))].mean()) for _ in range(BOOTSTRAP)]
        low, high = np.quantile(means, [0.025, 0.975])
        found |= {name: float(aucs.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}
    return found


def expected_calibration_error(probabilities: NDArray[np.float32], labels: Sequence[int], bins: int = ECE_BINS) -> float | None:
    """Mean |accuracy - confidence| over equal-width bins of the predicted class's probability, weighted by their size.

    probabilities [n, C], labels [n]; None for n = 0.
    """
    if len(labels) == 0:
        return None
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == np.asarray(labels)
    index = np.minimum((confidence * bins).astype(int), bins - 1)
    error = 0.0
    for b in range(bins):
        inside = index == b
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return float(error)


def class_metrics(labels: Sequence[int], predictions: Sequence[int], names: Sequence[str]) -> Metrics:
    """Precision, recall, F1 and support per class; accuracy, balanced accuracy, and the accuracy of the majority class."""
    truth, predicted = np.asarray(labels, dtype=int), np.asarray(predictions, dtype=int)
    found: Metrics = {}
    recalls = []
    supports = []
    for k, name in enumerate(names):
        hits = int(((truth == k) & (predicted == k)).sum())
        support, claimed = int((truth == k).sum()), int((predicted == k).sum())
        supports.append(support)
        if support:
            recalls.append(hits / support)
        found[f"precision_{name}"] = hits / claimed if claimed else None
        found[f"recall_{name}"] = hits / support if support else None
        found[f"f1_{name}"] = 2 * hits / (support + claimed) if support + claimed else None
        found[f"support_{name}"] = support
    total = len(truth)
    found["accuracy"] = float((truth == predicted).mean()) if total else None
    found["balanced_accuracy"] = float(np.mean(recalls)) if recalls else None
    found["majority_baseline"] = max(supports) / total if total else None
    return found


def critic_metrics(judgements: Sequence[Judgement], names: Sequence[str], seed: int) -> Metrics:
    """Every metric of a critic on held-out problems.

    Counted over sampled programs, which the critic is for: reference solutions differ from samples in style, and telling
    the two apart would pass for telling right from wrong. The metrics that end in `_with_references` count them too.

    Args:
        judgements: on programs of held-out problems; the last class is "passed".
        names: of the classes.
        seed: of the bootstrap.
    """
    passed = len(names) - 1
    samples = [j for j in judgements if not j.is_reference]
    found: Metrics = {
        "n_problems": len({j.task_id for j in judgements}),
        "n_samples": len(samples),
        "n_references": len(judgements) - len(samples),
    }
    found |= class_metrics([j.label for j in samples], [int(j.probabilities.argmax()) for j in samples], names)
    for suffix, programs in (("", samples), ("_with_references", judgements)):
        scores = [float(j.probabilities[passed]) for j in programs]
        positive = [j.label == passed for j in programs]
        found[f"auc{suffix}"] = auc(scores, positive)
        found |= _within_problem(f"auc_within_problem{suffix}", [j.task_id for j in programs], scores, positive, seed)
    stacked = np.stack([j.probabilities for j in samples]) if samples else np.zeros((0, len(names)), np.float32)
    found["expected_calibration_error"] = expected_calibration_error(stacked, [j.label for j in samples])
    known = [(j, j.log_likelihood, j.n_tokens) for j in samples if j.log_likelihood is not None and j.n_tokens]
    for name, values in (
        ("log_likelihood", [total for _, total, _ in known]),
        ("mean_log_likelihood", [total / count for _, total, count in known if count]),
    ):
        positive = [j.label == passed for j, _, _ in known]
        found[f"auc_{name}"] = auc(values, positive)
        found |= _within_problem(f"auc_within_problem_{name}", [j.task_id for j, _, _ in known], values, positive, seed)
    if found["auc_within_problem"] is None:
        logger.warning(
            "no held-out problem has both a passing and a failing program, so the within-problem AUC is unknown (null): "
            "draw more samples per problem, take more problems, or raise validation_share"
        )
    return found
