"""The report on problem files: counts per level, and references that are run."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from coderl.config import RunTestsConfig
from coderl.evaluation.references import report_problems
from coderl.problems import InputOutputTests, Problem, write_problems
from coderl.problems.readers import read

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.exists(), reason="real benchmark files are not beside the checkout")
FAST = RunTestsConfig(time_policy="exact", cpu_seconds=2)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as text:
        return list(csv.DictReader(text))


def test_counts_and_outcomes_per_level(tmp_path: Path) -> None:
    tests, example = InputOutputTests("stdin", ["1\n", "2\n"], ["1\n", "2\n"]), InputOutputTests("stdin", ["7\n"], ["8\n"])
    problems = [
        Problem("a", "mine", "test", "introductory", "q", "", None, ["print(input())", "print(1)"], tests, example),
        Problem("b", "mine", "test", "interview", "q", "", None, [], tests, None),
        Problem("c", "mine", "test", "interview", "q", "", None, ["print(0)"], None, None),
        Problem("d", "mine", "train", "interview", "q", "", None, ["1/0"], tests, None),
    ]
    write_problems(tmp_path / "p.parquet", problems)
    report_problems(
        problems=[tmp_path / "p.parquet"],
        config=FAST,
        output=tmp_path / "r.csv",
        failures=tmp_path / "f.csv",
        solutions_per_problem=None,
    )
    found = {(row["split"], row["difficulty"]): row for row in rows(tmp_path / "r.csv")}
    assert list(found) == [("test", "introductory"), ("test", "interview"), ("test", "all"), ("train", "interview"), ("train", "all")]
    whole = {key: int(value) for key, value in found["test", "all"].items() if value.isdigit()}
    assert whole == {
        "problems": 3,
        "without_hidden_tests": 1,
        "hidden_tests": 4,
        "without_example_tests": 2,
        "example_tests": 1,
        "without_solutions": 1,
        "solutions": 3,
        "solutions_judged": 2,
        "solutions_passed_hidden": 1,
        "solutions_passed_example": 0,
        "problems_solved": 1,
    }
    assert found["train", "all"]["solutions_passed_hidden"] == "0"
    failed = [(row["task_id"], row["solution"], row["suite"], row["outcome"], row["error_class"]) for row in rows(tmp_path / "f.csv")]
    assert failed == [
        ("a", "1", "hidden", "failed_test", ""),
        ("d", "0", "hidden", "runtime_error", "zerodivisionerror"),
        ("a", "0", "example", "failed_test", ""),
        ("a", "1", "example", "failed_test", ""),
    ]


@needs_data
@pytest.mark.parametrize("step", [8, pytest.param(1, marks=pytest.mark.slow)])
def test_every_mbpp_and_humaneval_reference_passes(tmp_path: Path, step: int) -> None:
    for name, splits in (("mbpp", ("train", "validation", "test", "prompt")), ("humaneval", ("test",))):
        source = str(DATA / {"mbpp": "mbpp/mbpp.jsonl", "humaneval": "humaneval/HumanEval.jsonl.gz"}[name])
        write_problems(tmp_path / f"{name}.parquet", [problem for split in splits for problem in read(name, source, split)][::step])
    files = [tmp_path / "mbpp.parquet", tmp_path / "humaneval.parquet"]
    report_problems(
        problems=files,
        config=RunTestsConfig(),
        output=tmp_path / "r.csv",
        failures=tmp_path / "f.csv",
        solutions_per_problem=None,
    )
    whole = [row for row in rows(tmp_path / "r.csv") if row["difficulty"] == "all"]
    assert all(row["problems"] == row["solutions"] == row["solutions_passed_hidden"] == row["problems_solved"] for row in whole)
    failed = [(row["task_id"], row["suite"]) for row in rows(tmp_path / "f.csv")]
    assert set(failed) <= {("humaneval/47", "example")}, "its docstring is wrong"
    if step == 1:
        assert sum(int(row["problems"]) for row in whole) == 974 + 164


NO_PACKAGE = re.compile("sortedcontainers")


@needs_data
@pytest.mark.parametrize("step", [40, pytest.param(1, marks=pytest.mark.slow)])
def test_leetcode_references_pass_or_need_a_package(tmp_path: Path, step: int) -> None:
    problems = [problem for split in ("test", "train") for problem in read("leetcode", str(DATA / "leetcode"), split)][::step]
    write_problems(tmp_path / "leetcode.parquet", problems)
    report_problems(
        problems=[tmp_path / "leetcode.parquet"],
        config=RunTestsConfig(prelude="apps", time_policy="exact", cpu_seconds=10),
        output=tmp_path / "r.csv",
        failures=tmp_path / "f.csv",
        solutions_per_problem=None,
    )
    failed = {row["task_id"]: row for row in rows(tmp_path / "f.csv")}
    packages = {task for task, row in failed.items() if NO_PACKAGE.search(row["error_message"])}
    assert set(failed) - packages <= {"leetcode/word-ladder-ii"}, "it answers in the order of a set"
    if step == 1:
        assert (len(problems), len(packages), len(failed)) == (2090, 13, 14)
