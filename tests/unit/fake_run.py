"""A whole run's files made of dice: problems, programs, outcomes, logs; for the tests of the tables and of the report."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from coderl.config import CriticalSampleConfig
from coderl.evaluation import ProgramFiles
from coderl.problems import InputOutputTests, Problem, write_problems
from coderl.records import OUTCOMES, OutcomeRow, Sample, write_outcomes, write_samples

LEVELS = {"introductory": 0.55, "interview": 0.2, "competition": 0.03}
OPERATIONS = ("sorted(a)", "a[::-1]", "[x for x in a if x % 2 == 0]", "[x * 3 for x in a]", "[abs(x) for x in a]")


@dataclass
class FakeRun:
    """Where the files are."""

    folder: Path
    problems: Path
    programs: dict[str, ProgramFiles]
    models: dict[str, Path]
    critic_metrics: Path
    corpus_statistics: Path
    critical: CriticalSampleConfig


def outcome_row(task_id: str, sample_id: int, suite: str, outcome: str, n_tests: int = 10, n_passed: int | None = None) -> OutcomeRow:
    """An outcome with plausible fields."""
    passed = (n_tests if outcome == "passed_test" else 0) if n_passed is None else n_passed
    errors = {
        "compile_error": ("syntaxerror", "invalid syntax <script>alert(1)</script>"),
        "runtime_error": ("indexerror", "list index out of range"),
    }
    error_class, message = errors.get(outcome, (None, None))
    return OutcomeRow(
        task_id=task_id,
        sample_id=sample_id,
        suite=suite,  # type: ignore[arg-type]
        outcome=outcome,  # type: ignore[arg-type]
        n_passed=passed,
        n_tests=n_tests,
        first_failed_test=None if outcome == "passed_test" else passed,
        error_class=error_class,
        error_message=message,
        error_line=2 if message else None,
        cpu_seconds=0.01,
        memory_mb=10.0,
        checker="strict",
        backend="fork",
    )


def fake_problems(count: int, without_examples: int = 0) -> list[Problem]:
    """Problems of three levels in turn; the last `without_examples` have no example tests."""
    levels = list(LEVELS)
    return [
        Problem(
            task_id=f"test/{i:04d}",
            benchmark="procedural",
            split="test",
            difficulty=levels[i % 3],
            question=f"Read a sequence of numbers & keep those < {i}. Then print the <b>result</b>.\nInput\n1 6 -2\nOutput\n-2 1 6",
            starter_code="",
            entry_point=None,
            solutions=["a = list(map(int, input().split()))\nprint(*sorted(a))\n"] * 3,
            hidden_tests=InputOutputTests("stdin", ["1 2"], ["1 2"]),
            example_tests=None if i >= count - without_examples else InputOutputTests("stdin", ["1 6 -2"], ["-2 1 6"]),
        )
        for i in range(count)
    ]


class Dice:
    """Draws programs and outcomes: each problem has its own rate of success, shared by all models."""

    def __init__(self, problems: list[Problem], seed: int) -> None:
        self.problems = problems
        base = np.random.default_rng(99)
        self.rate = np.array([base.beta(LEVELS[p.difficulty] * 1.2, (1 - LEVELS[p.difficulty]) * 1.2) for p in problems])
        self.random = np.random.default_rng(seed)

    def program(self) -> str:
        operation = OPERATIONS[self.random.integers(len(OPERATIONS))]
        return f"a = [int(x) for x in input().split()]\na = {operation}\nprint(*a)  # <&>"

    def outcomes(self, number: int, sample_id: int, skill: float) -> tuple[OutcomeRow, OutcomeRow | None]:
        problem = self.problems[number]
        right = self.random.random() < min(1.0, self.rate[number] * skill)
        wrong = OUTCOMES[self.random.choice(3, p=[0.1, 0.3, 0.6])]
        hidden = outcome_row(problem.task_id, sample_id, "hidden", "passed_test" if right else wrong)
        if not right and wrong == "failed_test":
            hidden = outcome_row(problem.task_id, sample_id, "hidden", wrong, n_passed=int(self.random.integers(0, 10)))
        if sample_id < 2:  # the legacy checker forgives the second program of a problem
            forgiven = sample_id == 1 and hidden.outcome == "failed_test"
            hidden = replace(hidden, legacy_outcome="passed_test" if forgiven else hidden.outcome)
        if problem.example_tests is None:
            return hidden, None
        lucky = right or (wrong == "failed_test" and self.random.random() < 0.15)
        return hidden, outcome_row(problem.task_id, sample_id, "example", "passed_test" if lucky else wrong, 2)


def write_programs(
    folder: Path, samples: list[Sample], hidden: list[OutcomeRow], example: list[OutcomeRow], shards: int = 2
) -> ProgramFiles:
    """Samples and outcomes in shards, as the stages leave them."""
    tasks = {task: i for i, task in enumerate(dict.fromkeys(row.task_id for row in [*samples, *hidden]))}
    paths: dict[str, list[Path]] = {"samples": [], "hidden": [], "example": []}
    for shard in range(shards):
        for name, rows in (("samples", samples), ("hidden", hidden), ("example", example)):
            if not rows:
                continue
            path = folder / name / f"of-{shards}" / f"{shard}.jsonl.gz"
            mine = [row for row in rows if tasks[row.task_id] % shards == shard]
            (write_samples if name == "samples" else write_outcomes)(path, mine)  # type: ignore[arg-type]
            paths[name].append(path)
    return ProgramFiles(**paths)


def plain_model(folder: Path, dice: Dice, skill: float, count: int, *, greedy: bool = True) -> ProgramFiles:
    """`count` plain samples and a greedy program per problem."""
    samples, hidden, example = [], [], []
    for number, problem in enumerate(dice.problems):
        for i in range(count + greedy):
            kind = "greedy" if i == count else "sample"
            samples.append(
                Sample(problem.task_id, i, dice.program(), kind, n_tokens=int(dice.random.integers(20, 60)), log_likelihood=-3.0)
            )  # type: ignore[arg-type]
            h, e = dice.outcomes(number, i, skill)
            hidden.append(h)
            example += [] if e is None else [e]
    return write_programs(folder, samples, hidden, example)


def critical_model(folder: Path, dice: Dice, skill: float, n: int) -> ProgramFiles:
    """First round of n, repair where no program passes the examples, refinement where some does."""
    samples, hidden, example = [], [], []
    for number, problem in enumerate(dice.problems):
        pool: list[tuple[Sample, OutcomeRow | None]] = []

        def draw(
            kind: str,
            parents: list[int | None],
            round_: int,
            factor: float,
            number: int = number,
            problem: Problem = problem,
            pool: list[tuple[Sample, OutcomeRow | None]] = pool,
        ) -> None:
            for parent in parents:
                i = len(pool)
                sample = Sample(problem.task_id, i, dice.program(), kind, round_, parent, n_tokens=int(dice.random.integers(10, 60)))  # type: ignore[arg-type]
                h, e = dice.outcomes(number, i, skill * factor)
                pool.append((sample, e))
                hidden.append(h)
                example.extend([] if e is None else [e])

        draw("sample", [None] * n, 0, 1.0)
        if problem.example_tests is not None:
            passing = [s.sample_id for s, e in pool if e is not None and e.outcome == "passed_test"]
            if not passing:
                draw("repair", [0] * n, 1, 1.5)
                passing = [s.sample_id for s, e in pool[n:] if e is not None and e.outcome == "passed_test"]
            if passing:
                draw("refine", [passing[j % len(passing)] for j in range(n)], 2, 1.4)
        samples += [s for s, _ in pool]
    return write_programs(folder, samples, hidden, example)


def training_log(folder: Path, columns: dict[str, tuple[float, float]], steps: int, dice: Dice) -> Path:
    """training_log.csv whose columns go from the first to the second value, with noise."""
    folder.mkdir(parents=True)
    with open(folder / "training_log.csv", "w", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["step", *columns])
        for step in range(50, steps + 1, 50):
            t = 1 - np.exp(-4 * step / steps)
            writer.writerow([step, *(f"{a + (b - a) * t + 0.03 * abs(a - b) * dice.random.normal():.6g}" for a, b in columns.values())])
    return folder


def make_fake_run(folder: Path, *, count: int = 30, samples: int = 40, n: int = 20, seed: int = 1, without_examples: int = 1) -> FakeRun:
    """Write all files of a run; the same arguments give the same bytes."""
    problems = fake_problems(count, without_examples)
    dice = Dice(problems, seed)
    write_problems(folder / "problems.parquet", problems)
    skills = {"actor": 0.7, "policy/rl": 1.0, "policy/ce": 0.75}
    programs = {name: plain_model(folder / name, dice, skill, samples) for name, skill in skills.items()}
    programs["critical"] = critical_model(folder / "critical", dice, 1.0, n)
    passed = [outcome_row(p.task_id, i, "hidden", "passed_test") for p in problems for i in range(3)]
    passed[-1] = outcome_row(problems[-1].task_id, 2, "hidden", "runtime_error")
    programs["reference"] = write_programs(folder / "reference", [], passed, [])
    failed = [outcome_row(p.task_id, 0, "hidden", "failed_test") for p in problems]
    programs["empty"] = write_programs(folder / "empty", [], failed, [])
    shares = {
        f"share_{name}": (start, end) for name, start, end in zip(OUTCOMES, (0.1, 0.25, 0.45, 0.2), (0.05, 0.2, 0.4, 0.35), strict=True)
    }
    base = {"loss": (6.0, 0.3), "learning_rate": (4e-3, 4e-4), "grad_norm": (3.0, 0.8)}
    rl = {"loss": (0.3, 0.1), "learning_rate": (1e-3, 1e-4), "grad_norm": (2.0, 0.6), "loss_ce": (0.25, 0.2), "loss_rl": (0.02, -0.1)}
    models = {
        "base": training_log(folder / "models/base", base, 4000, dice),
        "actor": training_log(folder / "models/actor", {**base, "loss": (1.2, 0.1)}, 500, dice),
        "critic": training_log(folder / "models/critic", {**base, "loss": (1.3, 0.7)}, 2500, dice),
        "policy/rl": training_log(
            folder / "models/policy/rl",
            {**rl, "mean_return": (-0.4, -0.1), "mean_relative_return": (-0.2, 0.1), "mean_value": (0.3, 0.5), **shares},
            1000,
            dice,
        ),
        "policy/ce": training_log(folder / "models/policy/ce", base, 1000, dice),
    }
    metrics = models["critic"] / "metrics.json"
    metrics.write_text(
        json.dumps(
            {
                "n_problems": 150,
                "n_samples": 1200,
                "support_compile_error": 1,
                "precision_compile_error": None,
                "accuracy": 0.71,
                "majority_baseline": 0.62,
                "auc": 0.81,
                "auc_within_problem": 0.63,
                "auc_within_problem_low": 0.58,
                "auc_within_problem_high": 0.68,
                "auc_within_problem_n_problems": 88,
                "auc_log_likelihood": 0.84,
                "auc_within_problem_log_likelihood": 0.79,
                "auc_within_problem_log_likelihood_low": 0.74,
                "auc_within_problem_log_likelihood_high": 0.84,
                "auc_within_problem_log_likelihood_n_problems": 88,
                "auc_within_problem_mean_log_likelihood": 0.77,
            }
        )
    )
    statistics = folder / "statistics.csv"
    statistics.write_text(
        "source,filter,files_in,files_dropped\nprocedural,exact_duplicates,24000,312\nstdlib,license,1100,4\nall,all filters,25100,316\n"
    )
    return FakeRun(folder, folder / "problems.parquet", programs, models, metrics, statistics, CriticalSampleConfig(policy="rl", batch=n))
