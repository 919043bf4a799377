"""Proofs on real data: references pass, mutants get the verdict of a plain fork, load changes nothing."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import mutants
import pytest

from coderl.problems import AssertTests
from coderl.sandbox import Job, Limits, Outcome, judge_many

DATA = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the shared benchmark data is not there")

NOT_HERE = ("sortedcontainers", "numpy")
"""Packages that 14 of the LeetCode references import, and programs in the judge do not have."""
ANY_ORDER = ("word-ladder-ii",)
"""References that answer in the order of a set, where the test wants another of the right orders."""


def rows(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
        return [json.loads(line) for line in lines]


def wrong(jobs: list[Job], limits: Limits = Limits(cpu_seconds=10)) -> list[tuple[object, Outcome]]:  # noqa: B008
    return [(identity, outcome) for identity, outcome in judge_many(jobs, limits, workers=2) if outcome.outcome != "passed_test"]


def humaneval() -> list[Job]:
    return [
        Job(
            row["task_id"],
            row["prompt"] + row["canonical_solution"],
            AssertTests([f"check({row['entry_point']})"], row["test"]),
            row["entry_point"],
        )
        for row in rows("humaneval/HumanEval.jsonl.gz")
    ]


@pytest.mark.parametrize("step", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_humaneval_references_pass_and_stubs_do_not(step: int) -> None:
    jobs = humaneval()[::step]
    assert wrong(jobs) == []
    stubs = [
        Job(job.id, str(job.program).rsplit("\n\n", 1)[0] + f"\n\n{job.entry_point} = lambda *a, **k: None", job.tests, job.entry_point)
        for job in jobs
    ]
    assert len(wrong(stubs)) == len(stubs)


@pytest.mark.parametrize("step", [40, pytest.param(1, marks=pytest.mark.slow)])
def test_leetcode_references_pass(step: int) -> None:
    table = rows("leetcode/LeetCodeDataset-v0.2.0-test.jsonl.gz") + rows("leetcode/LeetCodeDataset-v0.2.0-train.jsonl.gz")
    jobs = [
        Job(
            row["task_id"],
            row["prompt"] + row["completion"],
            AssertTests([f"check({row['entry_point']})"], row["test"]),
            row["entry_point"],
        )
        for row in table[::step]
        if not any(name in row["completion"] for name in NOT_HERE) and row["task_id"] not in ANY_ORDER
    ]
    assert wrong(jobs) == []
    assert len(jobs) * step > 2000


@lru_cache(maxsize=1)
def broken_programs(wanted: int) -> list[Job]:
    """Mutants of every MBPP reference but 123, which takes seconds itself."""
    found: list[Job] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for row in rows("mbpp/mbpp.jsonl"):
            if row["task_id"] == 123:
                continue
            tests = AssertTests(row["test_list"], row["test_setup_code"])
            code = row["code"].replace("\r\n", "\n")
            found += [Job((row["task_id"], number), text, tests) for number, text in enumerate(mutants.mutants(code, row["task_id"], 4))]
    step = max(1, len(found) // wanted)
    return found[::step]


def disagreements(jobs: list[Job], limits: Limits) -> list[tuple[object, str, Outcome]]:
    assert all(isinstance(job.tests, AssertTests) for job in jobs)
    lines = "".join(json.dumps({"code": job.program, "setup": job.tests.setup, "asserts": job.tests.asserts}) + "\n" for job in jobs)  # type: ignore[union-attr]
    plain = subprocess.run([sys.executable, mutants.__file__], input=lines, text=True, capture_output=True, check=True).stdout.split()
    assert len(plain) == len(jobs)
    judged = judge_many(jobs, limits, workers=2)
    return [(identity, said, outcome) for said, (identity, outcome) in zip(plain, judged, strict=True) if outcome.outcome != said]


@pytest.mark.parametrize("wanted", [60, pytest.param(10**6, marks=pytest.mark.slow)])
def test_mutants_get_the_verdict_of_a_plain_run(wanted: int) -> None:
    jobs = broken_programs(wanted)
    assert len(jobs) >= min(wanted, 3000)
    assert disagreements(jobs, Limits(cpu_seconds=mutants.CPU_SECONDS, memory_mb=1024)) == []


@pytest.mark.slow
def test_two_thousand_verdicts_do_not_change_with_eight_busy_processes() -> None:
    jobs = broken_programs(10**6)[:2000]
    limits = Limits(cpu_seconds=1)

    def verdicts() -> list[tuple[object, str, str | None, int]]:
        return [(i, found.outcome, found.error_class, found.n_passed) for i, found in judge_many(jobs, limits, workers=2)]

    idle = verdicts()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(8)]
    try:
        loaded = verdicts()
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert [(a, b) for a, b in zip(idle, loaded, strict=True) if a != b] == []
