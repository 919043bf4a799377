"""Estimators: pass@k, n@k, and bootstrap intervals over problems; numpy arrays in, numpy arrays out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coderl.records import DataError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]

CHUNK = 4_000_000
"""Problem draws made at a time: bounds the memory of the bootstrap (about 64 MB)."""


def pass_at_k(programs: Any, correct: Any, k: int) -> Floats:
    """Unbiased probability that at least one of `k` programs, drawn without replacement, is correct (spec 8.1).

    1 - C(n-c, k) / C(n, k), as the product of (n-c-j) / (n-j) over j < k: no factorial overflows, and a problem with
    fewer than `k` wrong programs gives exactly 1.

    Args:
        programs: n, programs per problem; integers, shape [P] (or anything that broadcasts).
        correct: c, correct ones among them; same shape.
        k: programs drawn, at least 1.

    Returns:
        Shape [P], in 0..1.

    Raises:
        DataError: k > n for some problem (the estimator does not exist there), or counts that cannot be.
    """
    n = np.atleast_1d(np.asarray(programs, dtype=np.int64))
    c = np.atleast_1d(np.asarray(correct, dtype=np.int64))
    n, c = np.broadcast_arrays(n, c)
    if k < 1:
        raise DataError(f"pass@{k}: k must be at least 1")
    if np.any(c < 0) or np.any(c > n):
        raise DataError(f"pass@{k}: the number of correct programs must be between 0 and the number of programs")
    if n.size and int(n.min()) < k:
        raise DataError(
            f"pass@{k} needs at least {k} programs per problem, but a problem has {int(n.min())}; "
            f"draw more (sample.sets.<set>.samples_per_problem) or ask for a smaller k (evaluate.pass_at)"
        )
    none_correct = np.ones(n.shape, dtype=np.float64)
    for j in range(k):
        none_correct *= np.maximum(n - c - j, 0) / (n - j)
    return 1.0 - none_correct


def n_at_k(filtered: Any, correct: Any, rest: Any, rest_correct: Any, n: int) -> tuple[Floats, Booleans]:
    """Probability that one of `n` submitted programs is correct, chosen at random among those that pass the example tests.

    Spec 8.1: with f programs left by the filter and c of them correct, 1 - C(f-c, n) / C(f, n). With f < n all f are
    submitted and the places left are filled at random from the rest; the value is the expectation over that draw.

    Args:
        filtered: f, programs that pass the example tests; shape [P].
        correct: c, correct ones among these; shape [P].
        rest: programs that may fill the places left; shape [P].
        rest_correct: correct ones among the rest; shape [P].
        n: programs submitted.

    Returns:
        (values [P] in 0..1, filled [P]: True where f < n, so that chance had a part).

    Raises:
        DataError: f + rest < n for some problem.
    """
    f, c, r, d = (np.atleast_1d(np.asarray(x, dtype=np.int64)) for x in (filtered, correct, rest, rest_correct))
    f, c, r, d = np.broadcast_arrays(f, c, r, d)
    if f.size and int((f + r).min()) < n:
        raise DataError(f"{n}@k submits {n} programs, but a problem has {int((f + r).min())}; draw more or submit fewer (evaluate.n_at)")
    values = np.ones(f.shape, dtype=np.float64)
    filled = f < n
    if np.any(~filled):
        values[~filled] = pass_at_k(f[~filled], c[~filled], n)
    unsure = filled & (c == 0)
    for places in np.unique(n - f[unsure]):
        here = unsure & (n - f == places)
        values[here] = pass_at_k(r[here], d[here], int(places))
    return values, filled


def resamples(problems: int, count: int, seed: int) -> Iterator[Floats]:
    """How often each problem is drawn in `count` bootstrap resamples, in chunks of shape [some, problems].

    The draws depend on (problems, count, seed) alone, so that all rows of a table share their resamples and the
    difference of two rows is a paired one.
    """
    generator = np.random.default_rng(seed)
    rows = max(1, CHUNK // max(problems, 1))
    for start in range(0, count, rows):
        size = min(rows, count - start)
        draws = generator.integers(0, problems, size=(size, problems))
        draws += np.arange(size)[:, None] * problems
        yield np.bincount(draws.ravel(), minlength=size * problems).reshape(size, problems).astype(np.float64)


def ratio(totals: Any, counts: Any) -> Floats:
    """totals / counts, NaN where the count is 0; shapes broadcast."""
    divided: Floats = np.divide(totals, counts, out=np.full(np.shape(totals), np.nan), where=np.asarray(counts) > 0)
    return divided


def means(values: Floats) -> Floats:
    """Mean of every column of [P, M] over the problems where it is defined (not NaN); NaN where there is none."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0))


def bootstrap_intervals(values: Floats, *, count: int, confidence: float, seed: int) -> tuple[Floats, Floats]:
    """Percentile bootstrap interval of the mean of every column, problems resampled with replacement.

    Args:
        values: [P, M], one row per problem, NaN where a column is not defined for a problem.
        count: resamples.
        confidence: e.g. 0.95.
        seed: seed of the draws.

    Returns:
        (low, high), each [M]; NaN for a column that is defined nowhere.
    """
    problems, columns = values.shape
    if problems == 0 or columns == 0:
        return np.full(columns, np.nan), np.full(columns, np.nan)
    defined = ~np.isnan(values)
    filled = np.where(defined, values, 0.0)
    everywhere = bool(defined.all())
    drawn: list[Floats] = []
    for weights in resamples(problems, count, seed):
        totals = weights @ filled
        sizes = np.full_like(totals, problems) if everywhere else weights @ defined.astype(np.float64)
        drawn.append(ratio(totals, sizes))
    return _percentiles(np.concatenate(drawn), confidence)


def bootstrap_over_seeds(values: Floats, *, same_problems: bool, count: int, confidence: float, seed: int) -> tuple[float, float]:
    """Percentile interval of a mean over training seeds and problems: both are resampled.

    Args:
        values: [S, P], one row per seed, NaN where a seed has no such problem.
        same_problems: True when column p is the same problem for every seed. Then one draw of the problems serves all
            the seeds of a resample (a crossed design: a hard problem is hard for every seed, and treating it as S
            independent problems would make the interval too narrow). Otherwise problems are drawn within each seed.
        count: resamples.
        confidence: e.g. 0.95.
        seed: seed of the draws.

    Returns:
        (low, high).
    """
    seeds, problems = values.shape
    defined = ~np.isnan(values)
    filled = np.where(defined, values, 0.0)
    present = defined.astype(np.float64)
    drawn: list[Floats] = []
    # One independent stream per seed for its problems (the first serves all in a crossed design), one for the seeds.
    streams = [resamples(problems, count, seed + 1 + (0 if same_problems else s)) for s in range(seeds)]
    if same_problems:
        streams = streams[:1]
    chooser = np.random.default_rng(seed)
    for parts in zip(*streams, strict=True):
        size = parts[0].shape[0]
        chosen = chooser.multinomial(seeds, np.full(seeds, 1 / seeds), size=size).astype(np.float64)
        per_seed = [parts[0 if same_problems else s] for s in range(seeds)]
        totals = np.stack([w @ filled[s] for s, w in enumerate(per_seed)], axis=1)
        sizes = np.stack([w @ present[s] for s, w in enumerate(per_seed)], axis=1)
        weights = chosen * (sizes > 0)  # a seed without the problems drawn has no say
        mean = ratio((weights * np.nan_to_num(ratio(totals, sizes))).sum(axis=1), weights.sum(axis=1))
        drawn.append(mean[:, None])
    low, high = _percentiles(np.concatenate(drawn), confidence)
    return float(low[0]), float(high[0])


def _percentiles(drawn: Floats, confidence: float) -> tuple[Floats, Floats]:
    tail = (1.0 - confidence) / 2.0
    undefined = np.isnan(drawn)
    if not undefined.any():
        low, high = np.quantile(drawn, [tail, 1.0 - tail], axis=0)
        return low, high
    low, high = np.full(drawn.shape[1], np.nan), np.full(drawn.shape[1], np.nan)
    some = ~undefined.all(axis=0)
    low[some], high[some] = np.nanquantile(drawn[:, some], [tail, 1.0 - tail], axis=0)
    return low, high
