"""Programs of one model with their outcomes, as arrays: what every metric is computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from coderl.config import TABLE_ROWS, ConfigError, Section, validate
from coderl.evaluation.estimators import Booleans, Floats, Integers
from coderl.problems import Problem
from coderl.records import OUTCOMES, DataError, parse_json, read_outcomes, read_samples

KINDS: tuple[str, ...] = ("sample", "greedy", "refine", "repair", "reference", "empty", "resample")
PASSED = OUTCOMES.index("passed_test")
NOT_RUN = -1
"""Outcome of a program on a suite that its problem does not have."""


class ProgramFiles(Section):
    """Files (shards) of one model's programs; `samples` is empty for the reference solutions and the empty program."""

    samples: list[Path] = Field(default_factory=list)
    hidden: list[Path]
    example: list[Path] = Field(default_factory=list)


def parse_program_files(text: str) -> dict[str, ProgramFiles]:
    """Read the `--programs` flag: JSON {"actor": {"samples": [...], "hidden": [...], "example": [...]}, ...}, or a path to it.

    Raises:
        ConfigError: not JSON, an unknown model name or key, or a model without outcomes on the hidden tests.
    """
    where = "--programs"
    if not text.lstrip().startswith("{"):
        path = Path(text.strip())
        if not path.is_file():
            raise ConfigError(f"--programs: neither a JSON object nor a file: {text.strip()[:200]!r}")
        where, text = str(path), path.read_text(encoding="utf-8", errors="replace")
    try:
        data = parse_json(text)
    except ValueError as error:
        raise ConfigError(f"{where}: not valid JSON: {error}") from None
    if not isinstance(data, dict) or not data:
        raise ConfigError(f'{where}: expected a mapping such as {{"actor": {{"samples": [...], "hidden": [...], "example": [...]}}}}')
    files = {name: validate(ProgramFiles, value, f"{where}: {name}") for name, value in data.items()}
    for name, value in files.items():
        row_name(name)
        if not value.hidden:
            raise ConfigError(f"{where}: {name}: 'hidden' is empty; name the outcome files that `coderl run-tests --suite hidden` wrote")
        if not value.samples and name not in ("reference", "empty"):
            raise ConfigError(f"{where}: {name}: 'samples' is empty; name the files that `coderl sample` wrote")
    return files


def row_name(program: str) -> str:
    """The table's row name for a key of `--programs`; raises ConfigError for a key that has none."""
    if program in TABLE_ROWS:
        return TABLE_ROWS[program]
    if program.startswith("policy/") and len(program) > len("policy/"):
        return "rl_finetune/" + program.removeprefix("policy/")
    if program.startswith("critical/") and len(program) > len("critical/"):
        return "critical_sampling/" + program.removeprefix("critical/")
    raise ConfigError(f"programs: unknown model {program!r}; valid names: {', '.join(TABLE_ROWS)}, policy/<variant>, critical/<variant>")


@dataclass(frozen=True)
class Programs:
    """N programs in order of (problem, sample_id); all arrays have shape [N].

    `problem` counts the evaluated problems from 0. `tokens` is NaN where it is not known. `parent` is the position in
    these arrays of the program that this one came from, -1 for none. `hidden` and `example` are outcome indices
    (spec 4.1), NOT_RUN where the problem has no example tests; the shares are of passed tests. `limit_changed` is 1 where
    the shortened time limit had given another hidden outcome than the full one, 0 where the same, NaN where only one was tried. `legacy`
    are the legacy checker's outcomes on the hidden tests, NOT_RUN where it was not asked (run_tests.legacy_samples).
    `behaviour` numbers what programs answer on made inputs (run_tests.behaviour_inputs), -1 where that is not known.
    """

    problems: int
    problem: Integers
    sample_id: Integers
    kind: NDArray[np.int8]
    parent: Integers
    tokens: Floats
    hidden: NDArray[np.int8]
    hidden_share: Floats
    example: NDArray[np.int8]
    example_share: Floats
    limit_changed: Floats
    legacy: NDArray[np.int8]
    behaviour: Integers

    def __len__(self) -> int:
        return len(self.problem)

    def select(self, mask: Booleans) -> Programs:
        """The programs where `mask` [N] holds (parents are not renumbered and are dropped)."""
        names = [each.name for each in fields(self) if each.name not in ("problems", "parent")]
        return replace(self, parent=np.full(int(mask.sum()), -1), **{name: getattr(self, name)[mask] for name in names})

    def of_kind(self, *kinds: str) -> Booleans:
        """Mask [N] of the programs of these kinds."""
        return np.isin(self.kind, [KINDS.index(kind) for kind in kinds])

    def count(self, mask: Booleans | None = None) -> Integers:
        """Programs per problem, shape [P]."""
        chosen = self.problem if mask is None else self.problem[mask]
        counts: Integers = np.bincount(chosen, minlength=self.problems)
        return counts

    def total(self, weights: Floats, mask: Booleans | None = None) -> Floats:
        """Sum of `weights` [N] per problem, shape [P]."""
        chosen = slice(None) if mask is None else mask
        return np.bincount(self.problem[chosen], weights=weights[chosen], minlength=self.problems).astype(np.float64)

    @property
    def rank(self) -> Integers:
        """Position of each program among those of its problem, from 0; shape [N]."""
        counts = self.count()
        starts = np.cumsum(counts) - counts
        return np.arange(len(self)) - starts[self.problem]

    @property
    def tokens_before(self) -> Floats:
        """Tokens of the problem's earlier programs; shape [N]."""
        before: Floats = np.cumsum(self.tokens) - self.tokens
        first = np.arange(len(self)) - self.rank
        return np.asarray(before - before[first])


def read_programs(name: str, files: ProgramFiles, problems: Sequence[Problem]) -> Programs:
    """Programs of one model and their outcomes on `problems`, checked for gaps.

    Args:
        name: key of `--programs`, for messages.
        files: shards of samples and of outcomes.
        problems: evaluated problems; all of them have hidden tests.

    Raises:
        DataError: a program of an unknown problem, a problem without programs, a program without outcome, an outcome
            without program, or zero executed tests; the message names the file or the program.
    """
    index = {problem.task_id: number for number, problem in enumerate(problems)}
    place: dict[tuple[int, int], int] = {}
    kind: list[int] = []
    parent: list[int] = []
    tokens: list[float] = []

    def add(task_id: str, sample_id: int, kind_name: str, where: Path) -> None:
        if task_id not in index:
            raise DataError(f"{where}: task_id {task_id!r} is not among the evaluated problems; sample and evaluate the same problem set")
        if (index[task_id], sample_id) in place:
            raise DataError(f"{where}: task_id {task_id!r} with sample_id {sample_id} is already in another file; give each shard once")
        if kind_name not in KINDS:
            raise DataError(f"{where}: task_id {task_id!r}, sample_id {sample_id}: kind {kind_name!r} is none of {', '.join(KINDS)}")
        place[index[task_id], sample_id] = len(place)
        kind.append(KINDS.index(kind_name))

    for path in files.samples:
        for sample in read_samples(path):
            add(sample.task_id, sample.sample_id, sample.kind, path)
            parent.append(-1 if sample.parent is None else sample.parent)
            tokens.append(float("nan") if sample.n_tokens is None else float(sample.n_tokens))
    if not files.samples:
        for path in files.hidden:
            for task_id, sample_id in read_outcomes(path):
                add(task_id, sample_id, name, path)
                parent.append(-1)
                tokens.append(float("nan"))
    outcomes: dict[str, NDArray[np.int8]] = {}
    shares: dict[str, Floats] = {}
    limit_changed = np.full(len(place), np.nan)
    legacy = np.full(len(place), NOT_RUN, dtype=np.int8)
    behaviour = np.full(len(place), -1, dtype=np.int64)
    numbers: dict[str, int] = {}
    for suite, paths in (("hidden", files.hidden), ("example", files.example)):
        outcome, share = np.full(len(place), NOT_RUN, dtype=np.int8), np.full(len(place), np.nan)
        read_from: dict[int, Path] = {}
        for path in paths:
            for (task_id, sample_id), row in read_outcomes(path).items():
                position = place.get((index.get(task_id, -1), sample_id))
                if position is None:
                    raise DataError(
                        f"{path}: outcome of task_id {task_id!r}, sample_id {sample_id}, but {name} has no such program; test again"
                    )
                if row.suite != suite:
                    raise DataError(f"{path}: outcomes on the {row.suite} tests, given as outcomes on the {suite} tests")
                if row.n_tests < 1:
                    raise DataError(
                        f"{path}: task_id {task_id!r}, sample_id {sample_id}: zero executed tests; such a program has no outcome"
                    )
                if position in read_from:
                    raise DataError(
                        f"{path}: task_id {task_id!r}, sample_id {sample_id} has an outcome on the {suite} tests already, in "
                        f"{read_from[position]}; give each file once, of one run of `coderl run-tests`"
                    )
                read_from[position] = path
                outcome[position], share[position] = OUTCOMES.index(row.outcome), row.n_passed / row.n_tests
                if suite == "hidden" and row.limit_changed_outcome is not None:
                    limit_changed[position] = row.limit_changed_outcome
                if suite == "hidden" and row.legacy_outcome is not None:
                    legacy[position] = OUTCOMES.index(row.legacy_outcome)
                if suite == "example" and row.behaviour is not None:
                    behaviour[position] = numbers.setdefault(row.behaviour, len(numbers))
        outcomes[suite], shares[suite] = outcome, share
    if not place:
        raise DataError(f"{name}: no programs in {', '.join(map(str, files.samples or files.hidden))}; make the files again")

    keys = np.array(list(place), dtype=np.int64).reshape(-1, 2)
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    keys = keys[order]
    back = {(int(p), int(s)): position for position, (p, s) in enumerate(keys)}
    programs = Programs(
        problems=len(problems),
        problem=keys[:, 0],
        sample_id=keys[:, 1],
        kind=np.array(kind, dtype=np.int8)[order],
        parent=np.array([back.get((int(p), parent[old]), -1) for (p, _), old in zip(keys, order, strict=True)], dtype=np.int64),
        tokens=np.array(tokens, dtype=np.float64)[order],
        hidden=outcomes["hidden"][order],
        hidden_share=shares["hidden"][order],
        example=outcomes["example"][order],
        example_share=shares["example"][order],
        limit_changed=limit_changed[order],
        legacy=legacy[order],
        behaviour=behaviour[order],
    )
    _check_complete(name, files, programs, problems)
    return programs


def _check_complete(name: str, files: ProgramFiles, programs: Programs, problems: Sequence[Problem]) -> None:
    """Every problem has programs (the reference solutions may lack some), every program has its outcomes."""
    lacking = np.flatnonzero(programs.count() == 0)
    if len(lacking) and name != "reference":
        raise DataError(
            f"{name}: {len(lacking)} of {len(problems)} problems have no programs, the first is {problems[lacking[0]].task_id!r}; "
            f"a shard is missing in {', '.join(map(str, files.samples or files.hidden))}"
        )
    with_examples = np.array([problem.example_tests is not None for problem in problems])[programs.problem]
    for suite, needed in (("hidden", np.ones(len(programs), dtype=bool)), ("example", with_examples & bool(files.example))):
        gaps = np.flatnonzero(needed & (getattr(programs, suite) == NOT_RUN))
        if len(gaps):
            first = gaps[0]
            raise DataError(
                f"{name}: {len(gaps)} programs have no outcome on the {suite} tests, the first is task_id "
                f"{problems[programs.problem[first]].task_id!r}, sample_id {programs.sample_id[first]}; "
                f"run `coderl run-tests --suite {suite}` on all shards"
            )
