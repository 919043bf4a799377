"""Estimators against counting by hand, the numbers of spec section 12, and the coverage of the intervals."""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coderl.evaluation import bootstrap_intervals, bootstrap_over_seeds, n_at_k, pass_at_k
from coderl.records import DataError


def brute_force(right: list[bool], k: int) -> float:
    """Share of all draws of k programs that hold a correct one."""
    draws = list(combinations(right, k))
    return sum(any(draw) for draw in draws) / len(draws)


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [(5, 2, 1, 0.4), (5, 2, 2, 0.7), (5, 0, 2, 0.0), (5, 5, 1, 1.0), (5, 4, 2, 1.0), (1, 1, 1, 1.0), (1000, 1, 1, 0.001)],
)
def test_pass_at_k_gives_the_numbers_of_the_specification(n: int, c: int, k: int, expected: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx([expected], abs=1e-12)


@settings(deadline=None)
@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_equals_counting_every_draw(case: tuple[int, int, int]) -> None:
    n, c, k = case
    assert pass_at_k(n, c, k)[0] == pytest.approx(brute_force([True] * c + [False] * (n - c), k), abs=1e-12)


def test_pass_at_k_is_stable_and_takes_many_problems() -> None:
    values = pass_at_k([1000, 1000, 2000], [0, 1, 1000], 1000)
    assert values[0] == 0.0
    assert values[1] == 1.0
    assert values[2] == 1.0


def test_pass_at_k_refuses_more_draws_than_programs() -> None:
    with pytest.raises(DataError, match=r"pass@20 needs at least 20 programs per problem, but a problem has 5.*pass_at"):
        pass_at_k([40, 5], [1, 1], 20)
    with pytest.raises(DataError, match="number of correct"):
        pass_at_k([5], [6], 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=7), st.integers(1, 2))
def test_n_at_k_equals_the_expectation_over_submissions(programs: list[tuple[bool, bool]], n: int) -> None:
    """Each program is (passes the examples, is right); those that pass go first, places left are filled at random."""
    kept = [right for passes, right in programs if passes]
    rest = [right for passes, right in programs if not passes]
    if len(kept) >= n:
        expected = brute_force(kept, n)
    else:
        fills = list(combinations(rest, n - len(kept)))
        expected = sum(any(kept) or any(fill) for fill in fills) / len(fills)
    values, filled = n_at_k(len(kept), sum(kept), len(rest), sum(rest), n)
    assert values[0] == pytest.approx(expected, abs=1e-12)
    assert filled[0] == (len(kept) < n)


def test_n_at_k_refuses_more_submissions_than_programs() -> None:
    with pytest.raises(DataError, match=r"5@k submits 5 programs, but a problem has 3"):
        n_at_k([2], [1], [1], [0], 5)


def test_intervals_are_deterministic_and_contain_the_mean() -> None:
    values = np.random.default_rng(0).random((50, 3))
    first = bootstrap_intervals(values, count=500, confidence=0.95, seed=7)
    again = bootstrap_intervals(values, count=500, confidence=0.95, seed=7)
    other = bootstrap_intervals(values, count=500, confidence=0.95, seed=8)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.all(first[0] < values.mean(axis=0))
    assert np.all(values.mean(axis=0) < first[1])


def test_intervals_leave_out_problems_where_a_metric_is_undefined() -> None:
    values = np.random.default_rng(0).random((40, 1))
    holes = np.concatenate([np.concatenate([values, np.full((40, 1), np.nan)]), np.full((80, 1), np.nan)], axis=1)
    low, high = bootstrap_intervals(holes, count=4000, confidence=0.95, seed=1)
    dense_low, dense_high = bootstrap_intervals(values, count=4000, confidence=0.95, seed=1)
    assert low[0] == pytest.approx(dense_low[0], abs=0.03)
    assert high[0] == pytest.approx(dense_high[0], abs=0.03)
    assert np.isnan(low[1])


def test_a_95_percent_interval_covers_the_truth_about_95_times_in_a_hundred() -> None:
    random = np.random.default_rng(3)
    worlds = random.binomial(20, 0.3, size=(100, 400)) / 20  # 400 repetitions of 100 problems, true mean 0.3
    low, high = bootstrap_intervals(worlds, count=1000, confidence=0.95, seed=5)
    assert 0.91 <= np.mean((low <= 0.3) & (high >= 0.3)) <= 0.98


def test_the_bootstrap_of_a_whole_table_takes_less_than_two_seconds() -> None:
    values = np.random.default_rng(0).random((300, 150))
    start = time.process_time()
    bootstrap_intervals(values, count=2000, confidence=0.95, seed=1)
    assert time.process_time() - start < 2.0


def test_over_one_seed_the_interval_is_about_that_over_problems() -> None:
    values = np.random.default_rng(0).random((1, 200))
    low, high = bootstrap_over_seeds(values, same_problems=True, count=4000, confidence=0.95, seed=1)
    expected = bootstrap_intervals(values.T, count=4000, confidence=0.95, seed=2)
    assert low == pytest.approx(expected[0][0], abs=0.01)
    assert high == pytest.approx(expected[1][0], abs=0.01)


def test_problems_shared_by_the_seeds_widen_the_interval() -> None:
    """Three copies of one seed hold no more information than one; three independent problem sets do."""
    one = np.random.default_rng(0).random((1, 200))
    copies = np.repeat(one, 3, axis=0)
    width = [
        high - low
        for low, high in (bootstrap_over_seeds(copies, same_problems=same, count=4000, confidence=0.95, seed=1) for same in (True, False))
    ]
    alone = np.subtract(*reversed(bootstrap_over_seeds(one, same_problems=True, count=4000, confidence=0.95, seed=1)))
    assert width[0] == pytest.approx(alone, rel=0.1)
    # Drawing 3 of 3 seeds with replacement: the weights' squares sum to 5 / 9 on average.
    assert width[1] == pytest.approx(alone * (5 / 9) ** 0.5, rel=0.1)


def test_seeds_of_different_length_are_allowed_when_problems_differ() -> None:
    values = np.full((2, 4), 0.5)
    values[1, 2:] = np.nan
    assert bootstrap_over_seeds(values, same_problems=False, count=200, confidence=0.95, seed=1) == (0.5, 0.5)
