"""What is measured on the programs of a row: one value per problem for every (model, decoding, metric).

Decodings, that is which programs of a model count and what they cost (docs/tables.md):

- `all`: the plain samples. `greedy`: the one greedy program.
- `filtered`: the first k plain samples, of which those that pass the example tests are submitted.
- `final_set`: what critical sampling returns (S' of spec 7.1); its `filtered` is taken from P and S' together (spec 7.4).
- `<any of the filtered ones>_agreement`: as that one, but the programs submitted are those of the largest groups of equal
  behaviour, not drawn (run_tests.behaviour_inputs).
- `filtered_first_round`, `filtered_equal_programs`, `filtered_equal_tokens`: plain samples of the same policy, cut per
  problem where critical sampling's first round, all its programs, or all its tokens end (spec 7.5).
- `filtered_equal_total`: as many plain samples for every problem, the fewest that cost at least all tokens of critical sampling
  over all problems: what the same compute gives without deciding where it goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from coderl.evaluation.estimators import Booleans, Floats, Integers, n_at_k, pass_at_k, ratio
from coderl.evaluation.programs import NOT_RUN, PASSED, Programs
from coderl.records import OUTCOMES

EQUAL_BUDGETS: tuple[str, ...] = ("filtered_first_round", "filtered_equal_programs", "filtered_equal_tokens", "filtered_equal_total")

CHECKER_METRICS: tuple[str, ...] = ("checker_disagreement", "legacy_pass@1", "strict_pass@1")
"""What the choice of the checker changes, on the programs that both have judged."""

RATES: tuple[str, ...] = ("hidden_", "example_", "checker_", "legacy_", "strict_")
"""Beginnings of the metrics that describe programs; the others are results, which are compared and kept per problem."""

OUTCOME_SHARES: tuple[str, ...] = tuple(f"{suite}_{name}" for suite in ("example", "hidden") for name in OUTCOMES)
"""The rates that are kept per problem too: shares of the four outcomes, figure 8 of the paper."""

AGREEMENT = "agreement"
"""Behind the name of a filtered decoding: of the programs that the filter leaves, which are submitted is decided by agreement."""

LATER_STAGES: tuple[str, ...] = ("resample", "repair", "refine")
"""Stages after the first round: a program is at most this many steps away from the one it descends from there."""


@dataclass(frozen=True)
class Measurement:
    """One metric of one row; arrays have shape [P], one entry per problem.

    `values` are in 0..1, NaN where the metric is not defined for a problem. `programs` and `tokens` are what was spent
    (tokens NaN where not known). `filled` marks problems where fewer than n programs passed the example tests.
    """

    model: str
    decoding: str
    metric: str
    values: Floats
    programs: Floats
    tokens: Floats
    filled: Booleans | None = None
    note: str = ""


def _cost(programs: Programs, mask: Booleans | None = None) -> tuple[Floats, Floats]:
    return programs.count(mask).astype(np.float64), programs.total(programs.tokens, mask)


def _shares(model: str, decoding: str, programs: Programs) -> list[Measurement]:
    """Outcome rates and mean share of passed tests, on hidden and on example tests."""
    spent, tokens = _cost(programs)
    measured: list[Measurement] = []
    for suite in ("hidden", "example"):
        outcome, share = getattr(programs, suite), getattr(programs, f"{suite}_share")
        run = outcome != NOT_RUN
        counts = programs.count(run)
        if not counts.any():
            continue

        def mean(weights: Floats, run: Booleans = run, counts: Integers = counts) -> Floats:
            return ratio(programs.total(weights, run), counts)

        for number, name in enumerate(OUTCOMES):
            values = mean((outcome == number).astype(np.float64))
            measured.append(Measurement(model, decoding, f"{suite}_{name}", values, spent, tokens))
        measured.append(Measurement(model, decoding, f"{suite}_tests_passed", mean(share), spent, tokens))
    checked = ~np.isnan(programs.limit_changed)
    if checked.any():
        values = ratio(programs.total(programs.limit_changed, checked), programs.count(checked))
        changed = int(programs.limit_changed[checked].sum())
        note = f"the full time limit changed {changed} of {int(checked.sum())} outcomes that the shortened one had cut"
        measured.append(Measurement(model, decoding, "hidden_limit_changed", values, spent, tokens, note=note))
    return measured


def _pass_at(model: str, decoding: str, programs: Programs, ks: Sequence[int], *, strict: bool) -> list[Measurement]:
    """pass@k for every k; problems without programs are left out. With `strict`, k > n is an error, else an empty value."""
    n, c = programs.count(), programs.count(programs.hidden == PASSED)
    spent, tokens = _cost(programs)
    some = n > 0
    measured = []
    for k in ks:
        values, note = np.full(n.shape, np.nan), ""
        few = int(np.sum(n[some] < k))
        if strict or not few:
            values[some] = pass_at_k(n[some], c[some], k)
        else:
            note = f"{few} problems have fewer than {k} programs"
        measured.append(Measurement(model, decoding, f"pass@{k}", values, spent, tokens, note=note))
    return measured


def _filtered(
    model: str, decoding: str, metric: str, pool: Programs, n: int, *, rest: Booleans | None = None, note: str = ""
) -> Measurement:
    """n@k over `pool`; the places left by the filter are filled from the programs in `rest` that fail the example tests."""
    kept = pool.example == PASSED
    fill = ~kept if rest is None else ~kept & rest
    right = pool.hidden == PASSED
    values, filled = n_at_k(pool.count(kept), pool.count(kept & right), pool.count(fill), pool.count(fill & right), n)
    spent, tokens = _cost(pool)
    return Measurement(model, decoding, metric, values, spent, tokens, filled, note)


def _agreed(measured: Measurement, pool: Programs, n: int, rest: Booleans | None = None) -> list[Measurement]:
    """`measured` again, but for which n programs are submitted: by agreement in place of by chance (spec 10.5).

    Of the programs that pass the example tests those with equal behaviour are a group. One of each group is submitted (its
    first), the largest group first and of equal ones the earlier, then a second of each, and so on. Places that are left are
    filled as in `measured`, by the expectation over chance. Nothing where no behaviour is known.
    """
    if not (pool.behaviour >= 0).any():
        return []
    kept = pool.example == PASSED
    fill = ~kept if rest is None else ~kept & rest
    right = pool.hidden == PASSED
    values = measured.values.copy()
    groups: dict[int, dict[int, list[int]]] = {}
    for position in np.flatnonzero(kept):
        own = groups.setdefault(int(pool.problem[position]), {})
        # A program without a known behaviour agrees with no other.
        own.setdefault(int(pool.behaviour[position]) if pool.behaviour[position] >= 0 else -2 - int(position), []).append(int(position))
    for problem, own in groups.items():
        ordered = sorted(own.values(), key=lambda group: (-len(group), group[0]))
        depth = max(map(len, ordered))
        submitted = [group[place] for place in range(depth) for group in ordered if place < len(group)][:n]
        if len(submitted) == n:
            values[problem] = float(right[submitted].any())
        elif right[submitted].any():
            values[problem] = 1.0
        else:
            others = np.flatnonzero(fill & (pool.problem == problem))
            values[problem] = pass_at_k([len(others)], [int(right[others].sum())], n - len(submitted))[0]
    return [replace(measured, decoding=f"{measured.decoding}_{AGREEMENT}", values=values)]


def _checkers(model: str, programs: Programs) -> list[Measurement]:
    """Both verdicts on the programs that the legacy checker judged as well; nothing where there are none.

    `checker_disagreement` is the share of programs whose outcomes differ, the other two are pass@1 of the same programs.
    """
    both = programs.legacy != NOT_RUN
    counts = programs.count(both)
    if not counts.any():
        return []
    marks = (programs.legacy != programs.hidden, programs.legacy == PASSED, programs.hidden == PASSED)
    return [
        Measurement(model, "all", metric, ratio(programs.total(mark.astype(np.float64), both), counts), *_cost(programs, both))
        for metric, mark in zip(CHECKER_METRICS, marks, strict=True)
    ]


def measure_given(model: str, programs: Programs) -> list[Measurement]:
    """The oracle and the floor: reference solutions or the empty program, which no model wrote."""
    return [*_pass_at(model, "all", programs, [1], strict=True), *_shares(model, "all", programs), *_checkers(model, programs)]


def measure_plain(model: str, programs: Programs, pass_at: Sequence[int], n_at: Sequence[tuple[int, int]]) -> list[Measurement]:
    """Plain sampling: pass@k and rates on all samples, n@k on the first k, pass@1 of the greedy program.

    Raises:
        DataError: k is larger than the number of samples of some problem.
    """
    sampled = programs.select(programs.of_kind("sample"))
    measured = _pass_at(model, "all", sampled, pass_at, strict=True)
    measured += _shares(model, "all", sampled)
    measured += _checkers(model, sampled)
    greedy = programs.of_kind("greedy")
    if greedy.any():
        measured += _pass_at(model, "greedy", programs.select(greedy), [1], strict=True)
    if (programs.example != NOT_RUN).any():
        for n, k in n_at:
            counts = sampled.count()
            pass_at_k(counts, np.zeros_like(counts), k)  # refuses k > n with the message that names both
            pool = sampled.select(sampled.rank < k)
            chance = _filtered(model, "filtered", f"{n}@{k}", pool, n)
            measured += [chance, *_agreed(chance, pool, n)]
    return measured


def final_set(programs: Programs, batch: int) -> Booleans:
    """Mask [N] of S' (spec 7.1): per problem and batch the refined programs; if none, the repaired; if none, the first round and
    whatever was resampled.

    A later program belongs to the batch of the first-round program it descends from.
    """
    first = programs.of_kind("sample")
    stage = np.where(first | programs.of_kind("resample"), 0, np.where(programs.of_kind("repair"), 1, 2))
    ordinal = np.cumsum(first) - 1
    starts = np.full(programs.problems, len(programs))
    np.minimum.at(starts, programs.problem, np.arange(len(programs)))
    before = np.concatenate([[0], np.cumsum(first)])[starts]
    number = np.where(first, (ordinal - before[programs.problem]) // batch, -1)
    for _ in LATER_STAGES:
        orphan = (number < 0) & (programs.parent >= 0)
        number[orphan] = number[programs.parent[orphan]]
    number = np.maximum(number, 0)
    group = programs.problem * (int(number.max()) + 1) + number
    last = np.zeros(int(group.max()) + 1, dtype=np.int64)
    np.maximum.at(last, group, stage)
    return np.asarray(stage == last[group])


def measure_critical(
    model: str, programs: Programs, pass_at: Sequence[int], n_at: Sequence[tuple[int, int]], batch: int
) -> list[Measurement]:
    """Critical sampling: pass@k and rates on S', n@k on the programs of P and S' that pass the example tests (spec 7.4).

    `n@budget` counts every program that was generated. `n@k` is the paper's accounting, where only S' counts: it is
    given where S' has exactly k programs for every problem, and its budget columns still hold all programs.
    """
    final = final_set(programs, batch)
    chosen = programs.select(final)
    spent, tokens = _cost(programs)

    def at_full_cost(measured: Measurement, note: str = "") -> Measurement:
        return Measurement(
            measured.model, measured.decoding, measured.metric, measured.values, spent, tokens, measured.filled, measured.note or note
        )

    measured = [at_full_cost(m) for m in _pass_at(model, "final_set", chosen, pass_at, strict=False)]
    measured += [at_full_cost(m) for m in _shares(model, "final_set", chosen)]
    if (programs.example != NOT_RUN).any():
        for n, k in n_at:
            if np.all(chosen.count() == k):
                note = f"k counts the final set only, as in the paper; {spent.mean():.1f} programs were generated"
                measured.append(_filtered(model, "filtered", f"{n}@{k}", programs, n, rest=final, note=note))
        repaired, passing = programs.count(programs.of_kind("repair")) > 0, programs.count(programs.example == PASSED) > 0
        unsolved = int((repaired & ~passing).sum())
        note = f"no repaired program passes the example tests either on {unsolved} of {programs.problems} problems" if unsolved else ""
        for n in sorted({n for n, _ in n_at}):
            if chosen.count().min() >= n:
                chance = _filtered(model, "filtered", f"{n}@budget", programs, n, rest=final, note=note)
                measured += [chance, *_agreed(chance, programs, n, final)]
    measured.append(_solved(model, "filtered", programs))
    return measured


def _solved(model: str, decoding: str, pool: Programs, note: str = "") -> Measurement:
    """pass@budget: share of problems that any program of the pool solves."""
    values = (pool.count(pool.hidden == PASSED) > 0).astype(np.float64)
    return Measurement(model, decoding, "pass@budget", values, *_cost(pool), note=note)


def measure_equal_budget(
    model: str, plain: Programs, critical: Programs, n_at: Sequence[tuple[int, int]], *, variant: str = ""
) -> list[Measurement]:
    """Plain samples of the same policy, cut per problem at critical sampling's budget (spec 7.5), then filtered.

    For tokens, the program that crosses the budget is counted: plain sampling never gets less than critical sampling.
    Where the plain samples end before the budget, all are used and `note` says on how many problems.

    Args:
        model: the policy's row.
        plain: its plain samples.
        critical: all programs of critical sampling.
        n_at: of which the n are measured.
        variant: name of the variant whose programs `critical` are. Beside a variant stands the equal total budget alone, as decoding
            `filtered_equal_total/<variant>`.
    """
    sampled = plain.select(plain.of_kind("sample"))
    first_round = critical.count(critical.of_kind("sample"))
    pool_size, pool_tokens = critical.count(), critical.total(critical.tokens)
    available = sampled.count()
    measured: list[Measurement] = []
    for decoding in EQUAL_BUDGETS[-1:] if variant else EQUAL_BUDGETS:
        counts_tokens = decoding in ("filtered_equal_tokens", "filtered_equal_total")
        if counts_tokens and (np.isnan(pool_tokens).any() or np.isnan(sampled.tokens).any()):
            continue
        if decoding == "filtered_equal_total":
            per_rank = np.bincount(sampled.rank, weights=sampled.tokens)
            count = 1 + int(np.searchsorted(np.cumsum(per_rank), pool_tokens.sum()))
            chosen = sampled.rank < count
            short = available < count
        elif decoding == "filtered_equal_tokens":
            chosen = sampled.tokens_before < pool_tokens[sampled.problem]
            short = sampled.total(sampled.tokens) < pool_tokens
        else:
            budget = first_round if decoding == "filtered_first_round" else pool_size
            chosen = sampled.rank < budget[sampled.problem]
            short = available < budget
        pool = sampled.select(chosen)
        note = f"plain samples end before the budget on {int(short.sum())} of {sampled.problems} problems" if short.any() else ""
        decoding = f"{decoding}/{variant}" if variant else decoding
        if (pool.example != NOT_RUN).any():
            smallest = int(pool.count().min())
            for n in sorted({n for n, _ in n_at}):
                if n <= smallest:
                    chance = _filtered(model, decoding, f"{n}@budget", pool, n, note=note)
                    measured += [chance] if variant else [chance, *_agreed(chance, pool, n)]
        measured.append(_solved(model, decoding, pool, note))
    return measured
