"""Stage run_tests: rows in the order of the samples, complete or not there, and errors that name file and row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from coderl.config import RunTestsConfig
from coderl.problems import AssertTests, InputOutputTests, Problem, write_problems
from coderl.records import DataError, Sample, read_json_lines, read_outcomes, read_samples, write_json_lines, write_samples
from coderl.sandbox import InfrastructureError, Job, judge_many, stage
from coderl.sandbox.stage import judge_samples, run_tests

CONFIG = RunTestsConfig(cpu_seconds=1, workers=1)
RIGHT, WRONG = "print(int(input()) * 2)", "print(0)"


def problem(task_id: str, **fields: Any) -> Problem:
    base: dict[str, Any] = {
        "task_id": task_id,
        "benchmark": "custom",
        "split": "test",
        "difficulty": "introductory",
        "question": "Double it.",
        "starter_code": "",
        "entry_point": None,
        "solutions": [RIGHT, "print(2 * int(input()))"],
        "hidden_tests": InputOutputTests("stdin", ["1", "2"], ["2", "4"]),
        "example_tests": InputOutputTests("stdin", ["3"], ["6"]),
    }
    return Problem(**{**base, **fields})


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    problems = tmp_path / "problems.jsonl"
    write_problems(problems, [problem("a"), problem("b", example_tests=None), problem("c", solutions=[WRONG])])
    samples = tmp_path / "samples.jsonl.gz"
    write_samples(
        samples,
        [
            Sample("b", 1, RIGHT),
            Sample("a", 0, WRONG),
            Sample("a", 1, RIGHT),
            Sample("a", 2, WRONG),
            Sample("c", 0, "print("),
            Sample("b", 0, "1/0"),
        ],
    )
    return problems, samples, tmp_path / "outcomes.jsonl.gz"


def test_rows(files: tuple[Path, Path, Path]) -> None:
    problems, samples, output = files
    run_tests(config=CONFIG, problems=problems, samples=[samples], suite="hidden", output=output)
    rows = [(row["task_id"], row["sample_id"], row["outcome"], row["n_passed"], row["n_tests"]) for _, row in read_json_lines(output)]
    assert rows == [
        ("b", 1, "passed_test", 2, 2),
        ("a", 0, "failed_test", 0, 2),
        ("a", 1, "passed_test", 2, 2),
        ("a", 2, "failed_test", 0, 2),
        ("c", 0, "compile_error", 0, 2),
        ("b", 0, "runtime_error", 0, 2),
    ]
    found = read_outcomes(output)
    assert (found["b", 0].error_class, found["b", 0].error_line, found["b", 0].suite) == ("zerodivisionerror", 1, "hidden")


def test_several_files_are_one_list(files: tuple[Path, Path, Path]) -> None:
    problems, samples, output = files
    more = samples.with_name("more.jsonl")
    write_samples(more, [Sample("c", 1, RIGHT)])
    run_tests(config=CONFIG, problems=problems, samples=[samples, more], suite="hidden", output=output)
    assert [row["task_id"] for _, row in read_json_lines(output)] == ["b", "a", "a", "a", "c", "b", "c"]


def test_identical_programs_are_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Job] = []

    def counted(jobs: Any, *args: Any, **kwargs: Any) -> Any:
        jobs = list(jobs)
        seen.extend(jobs)
        return judge_many(jobs, *args, **kwargs)

    monkeypatch.setattr(stage, "judge_many", counted)
    table = [problem("a"), problem("b")]
    samples = [Sample(task, number, [RIGHT, WRONG][number % 2]) for task in "ab" for number in range(6)]
    rows = judge_samples(table, samples, CONFIG, "hidden")
    assert len(seen) == 4
    assert [row.outcome for row in rows] == ["passed_test", "failed_test"] * 6
    assert [(row.task_id, row.sample_id) for row in rows] == [(sample.task_id, sample.sample_id) for sample in samples]


def test_reference_and_empty_programs(files: tuple[Path, Path, Path]) -> None:
    problems, _, output = files
    run_tests(config=CONFIG, problems=problems, samples="reference", suite="hidden", output=output)
    rows = {key: row.outcome for key, row in read_outcomes(output).items()}
    assert rows == {
        ("a", 0): "passed_test",
        ("a", 1): "passed_test",
        ("b", 0): "passed_test",
        ("b", 1): "passed_test",
        ("c", 0): "failed_test",
    }
    run_tests(config=CONFIG, problems=problems, samples="empty", suite="hidden", output=output)
    assert {key: row.outcome for key, row in read_outcomes(output).items()} == {(task, 0): "failed_test" for task in "abc"}


def test_problems_without_the_suite_are_counted(files: tuple[Path, Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    problems, samples, output = files
    run_tests(config=CONFIG, problems=problems, samples=[samples], suite="example", output=output)
    assert {task for task, _ in read_outcomes(output)} == {"a", "c"}
    assert "2 of 6 programs skipped" in caplog.text


def test_the_legacy_checker_judges_the_first_programs_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    problems, samples, output = tmp_path / "problems.jsonl", tmp_path / "samples.jsonl", tmp_path / "out.jsonl"
    swapped = "n = int(input())\nprint(7, n)"
    tests = InputOutputTests("stdin", ["1", "2"], ["1 7", "2 7"])
    asserts = AssertTests(["assert f(1) == 2"])
    write_problems(problems, [problem("a", hidden_tests=tests), problem("b", hidden_tests=asserts)])
    programs = [("a", 0, "1/0", "greedy"), ("a", 1, swapped, "sample"), ("a", 2, "print(", "sample"), ("a", 3, swapped, "sample")]
    programs += [("b", 0, "def f(x): return 2 * x", "sample")]
    write_samples(samples, [Sample(task, number, text, kind) for task, number, text, kind in programs])  # type: ignore[arg-type]
    config = CONFIG.model_copy(update={"legacy_samples": 2})
    run_tests(config=config, problems=problems, samples=[samples], suite="hidden", output=output)
    found = {(row.task_id, row.sample_id): (row.outcome, row.legacy_outcome) for row in read_outcomes(output).values()}
    assert found == {
        ("a", 0): ("runtime_error", None),
        ("a", 1): ("failed_test", "passed_test"),
        ("a", 2): ("compile_error", "compile_error"),
        ("a", 3): ("failed_test", None),
        ("b", 0): ("passed_test", None),
    }
    again = output.with_name("again.jsonl")
    run_tests(config=config, problems=problems, samples=[samples], suite="hidden", output=again)
    timeless = [[{**row, "cpu_seconds": 0, "memory_mb": 0} for _, row in read_json_lines(path)] for path in (output, again)]
    assert timeless[0] == timeless[1]
    run_tests(config=config, problems=problems, samples=[samples], suite="example", output=output)
    assert {row.legacy_outcome for row in read_outcomes(output).values()} == {None}
    with pytest.raises(ValueError, match="legacy_samples compares"):
        RunTestsConfig(legacy_samples=1, checker="legacy")


def test_outcomes_from_before_the_legacy_column_are_read(files: tuple[Path, Path, Path]) -> None:
    problems, samples, output = files
    run_tests(config=CONFIG, problems=problems, samples=[samples], suite="hidden", output=output)
    rows = [row for _, row in read_json_lines(output)]
    old = output.with_name("old.jsonl")
    write_json_lines(old, [{name: value for name, value in row.items() if name != "legacy_outcome"} for row in rows])
    assert read_outcomes(old) == read_outcomes(output)
    write_json_lines(old, [{**row, "legacy_outcome": "fine"} for row in rows])
    with pytest.raises(DataError, match=r"old\.jsonl: row 1: 'legacy_outcome' must be one of"):
        read_outcomes(old)


def test_a_wrong_special_judge_names_file_and_problem(tmp_path: Path) -> None:
    problems, output = tmp_path / "problems.jsonl", tmp_path / "out.jsonl"
    wrong = InputOutputTests("stdin", ["1"], ["2"], "def accepts(input, output, expected):\n    return nothere")
    write_problems(problems, [problem("a"), problem("mine/b", hidden_tests=wrong)])
    with pytest.raises(DataError, match=r"problems\.jsonl: mine/b: the special judge failed on test 0: nameerror"):
        run_tests(config=CONFIG, problems=problems, samples="reference", suite="hidden", output=output)
    assert not output.exists()


def test_the_prelude_is_configured(tmp_path: Path) -> None:
    table = [problem("a", solutions=["print(gcd(int(input()) * 2, 0))"])]
    samples = [Sample("a", 0, table[0].solutions[0])]
    for prelude, outcome in (("none", "runtime_error"), ("apps", "passed_test")):
        (row,) = judge_samples(table, samples, RunTestsConfig(cpu_seconds=1, prelude=prelude), "hidden")  # type: ignore[arg-type]
        assert row.outcome == outcome


def test_nothing_judged_is_an_error(tmp_path: Path) -> None:
    problems, output = tmp_path / "problems.jsonl", tmp_path / "out.jsonl"
    write_problems(problems, [problem("a", hidden_tests=None)])
    with pytest.raises(DataError, match=r"problems\.jsonl.*no program was judged"):
        run_tests(config=CONFIG, problems=problems, samples="empty", suite="hidden", output=output)
    write_problems(problems, [problem("a", solutions=[])])
    with pytest.raises(DataError, match="no problem has a reference solution"):
        run_tests(config=CONFIG, problems=problems, samples="reference", suite="hidden", output=output)
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(DataError, match=r"none\.jsonl: no programs"):
        run_tests(config=CONFIG, problems=problems, samples=[tmp_path / "none.jsonl"], suite="hidden", output=output)
    assert not output.exists()
    assert list(tmp_path.glob(".*")) == []


def test_no_example_tests_at_all_are_no_error(tmp_path: Path) -> None:
    problems, output = tmp_path / "problems.jsonl", tmp_path / "out.jsonl.gz"
    write_problems(problems, [problem("a", example_tests=None)])
    run_tests(config=CONFIG, problems=problems, samples="empty", suite="example", output=output)
    assert read_outcomes(output) == {}


def test_unknown_task(files: tuple[Path, Path, Path]) -> None:
    problems, samples, output = files
    bad = samples.with_name("bad.jsonl")
    write_samples(bad, [Sample("a", 7, RIGHT), Sample("nobody", 0, RIGHT)])
    with pytest.raises(DataError, match=r"bad\.jsonl: row 2: unknown task_id 'nobody'"):
        run_tests(config=CONFIG, problems=problems, samples=[samples, bad], suite="hidden", output=output)
    assert not output.exists()


def test_a_killed_run_goes_on_where_it_stopped(files: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    problems, samples, output = files
    arguments: dict[str, Any] = {"problems": problems, "samples": [samples], "suite": "hidden", "output": output}
    run_tests(config=CONFIG, **arguments)
    whole = output.read_bytes()
    output.unlink()
    judged: list[object] = []
    last = 3

    def stops(jobs: Any, *args: Any, **kwargs: Any) -> Any:
        for identity, outcome in judge_many(jobs, *args, **kwargs):
            if len(judged) == last:
                raise KeyboardInterrupt
            judged.append(identity)
            yield identity, outcome

    monkeypatch.setattr(stage, "judge_many", stops)
    with pytest.raises(KeyboardInterrupt):
        run_tests(config=CONFIG, **arguments)
    (journal,) = output.parent.glob(".*.judged")
    assert not output.exists()
    with journal.open("a") as lines:
        lines.write('{"key": "half a li')  # what kill -9 leaves
    last = 99
    run_tests(config=CONFIG, **arguments)
    assert len(judged) == len(set(judged)) == 5  # six programs, two of them the same: none was judged again
    assert [{**row, "cpu_seconds": 0, "memory_mb": 0} for _, row in read_json_lines(output)] == [
        {**json.loads(line), "cpu_seconds": 0, "memory_mb": 0} for line in gzip.decompress(whole).splitlines()
    ]
    assert list(output.parent.glob(".*.judged")) == []


def test_a_journal_of_other_settings_is_not_used(files: tuple[Path, Path, Path], caplog: pytest.LogCaptureFixture) -> None:
    problems, samples, output = files
    journal = output.with_name(f".{output.name}.judged")
    journal.write_text('{"fingerprint": "of something else"}\n{"key": "x", "outcome": {}}\n')
    run_tests(config=CONFIG, problems=problems, samples=[samples], suite="hidden", output=output)
    assert "begun anew" in caplog.text
    assert len(read_outcomes(output)) == 6


def test_parquet_in_and_out(files: tuple[Path, Path, Path]) -> None:
    problems, samples, output = files
    table, programs = output.with_suffix(".parquet"), samples.with_name("samples.parquet")
    write_samples(programs, read_samples(samples))
    run_tests(config=CONFIG, problems=problems, samples=[programs], suite="hidden", output=table)
    run_tests(config=CONFIG, problems=problems, samples=[samples], suite="hidden", output=output)
    assert {key: row.outcome for key, row in read_outcomes(table).items()} == {
        key: row.outcome for key, row in read_outcomes(output).items()
    }


def test_a_failing_judge_leaves_no_file(files: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    problems, samples, output = files

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise InfrastructureError("no")
        yield

    monkeypatch.setattr(stage, "judge_many", fails)
    with pytest.raises(InfrastructureError):
        run_tests(config=CONFIG, problems=problems, samples=[samples], suite="hidden", output=output)
    assert list(output.parent.glob(".*partial")) == []
    assert not output.exists()
