"""Stage run_tests: rows in the order of the samples, complete or not there, and errors that name file and row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from coderl.config import RunTestsConfig
from coderl.problems import InputOutputTests, Problem, write_problems
from coderl.records import DataError, Sample, read_json_lines, read_outcomes, read_samples, write_samples
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
