"""Rows of programs and outcomes: every field of every row is checked, and a damaged file is one message that names it."""

from __future__ import annotations

import gzip
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coderl.records import (
    DataError,
    OutcomeRow,
    Sample,
    json_text,
    parse_json,
    read_json_lines,
    read_outcomes,
    read_rows,
    read_samples,
    write_outcomes,
    write_rows,
    write_samples,
)

SAMPLE = Sample("a", 0, "print(1)", "refine", 1, 3, -1.5, 7, True)
OUTCOME = OutcomeRow("a", 0, "hidden", "runtime_error", 1, 2, 1, "valueerror", "no", 3, 0.5, 1.25, "strict", "namespace", 0.5, False)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def test_rows_survive_a_round_trip(tmp_path: Path, name: str) -> None:
    bare = Sample("b", 0, "")
    write_samples(tmp_path / name, [SAMPLE, bare])
    assert read_samples(tmp_path / name) == [SAMPLE, bare]
    other = OutcomeRow("b", 0, "hidden", "passed_test", 2, 2, None, None, None, None, 0.5, 1.25, "strict", "namespace")
    write_outcomes(tmp_path / name, [OUTCOME, other])
    assert read_outcomes(tmp_path / name) == {("a", 0): OUTCOME, ("b", 0): other}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_id": 3}, "'task_id' must be a string, found 3"),
        ({"task_id": "\ud800"}, "'task_id' must be a string, found '\\ud800'"),
        ({"sample_id": "0"}, "'sample_id' must be an integer from 0, found '0'"),
        ({"sample_id": True}, "'sample_id' must be an integer from 0, found True"),
        ({"sample_id": -1}, "'sample_id' must be an integer from 0, found -1"),
        ({"solution": None}, "needs 'solution'"),
        ({"kind": "banana"}, "'kind' must be one of sample, greedy, refine, repair, reference, empty, resample, found 'banana'"),
        ({"kind": None}, "'kind' must be one of"),
        ({"round": 1.0}, "'round' must be an integer from 0, found 1.0"),
        ({"parent": [1]}, "'parent' must be an integer from 0 or null, found [1]"),
        ({"log_likelihood": "x"}, "'log_likelihood' must be a number or null, found 'x'"),
        ({"log_likelihood": False}, "'log_likelihood' must be a number or null, found False"),
        ({"n_tokens": "abc"}, "'n_tokens' must be an integer from 0 or null, found 'abc'"),
        ({"n_tokens": 2**70}, "'n_tokens' must be an integer from 0 or null, found 1180591620717411303424"),
        ({"finished": 1}, "'finished' must be true or false or null, found 1"),
    ],
)
def test_a_wrong_field_of_a_sample_names_row_and_field(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_lines(tmp_path / "s.jsonl", [asdict(Sample("b", 0, "")), asdict(SAMPLE) | changes])
    with pytest.raises(DataError, match=re.escape(f"{path}: row 2: {message}")):
        read_samples(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task_id": None}, "'task_id' must be a string, found None"),
        ({"sample_id": 0.0}, "'sample_id' must be an integer from 0, found 0.0"),
        ({"suite": "secret"}, "'suite' must be one of hidden, example, found 'secret'"),
        ({"outcome": "passed"}, "'outcome' must be one of compile_error, runtime_error, failed_test, passed_test, found 'passed'"),
        ({"n_passed": "one"}, "'n_passed' must be an integer from 0, found 'one'"),
        ({"n_passed": 3}, "'n_passed' is 3, but there are 2 tests"),
        ({"n_tests": None}, "'n_tests' must be an integer from 0, found None"),
        ({"first_failed_test": "1"}, "'first_failed_test' must be an integer from 0 or null, found '1'"),
        ({"error_class": 5}, "'error_class' must be a string or null, found 5"),
        ({"error_message": ["x"]}, "'error_message' must be a string or null, found ['x']"),
        ({"error_line": "3"}, "'error_line' must be an integer from 0 or null, found '3'"),
        ({"cpu_seconds": "0.5"}, "'cpu_seconds' must be a number, found '0.5'"),
        ({"memory_mb": None}, "'memory_mb' must be a number, found None"),
        ({"checker": 1}, "'checker' must be a string, found 1"),
        ({"cpu_limit": "1"}, "'cpu_limit' must be a number or null, found '1'"),
        ({"limit_changed_outcome": 0}, "'limit_changed_outcome' must be true or false or null, found 0"),
    ],
)
def test_a_wrong_field_of_an_outcome_names_row_and_field(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_lines(tmp_path / "o.jsonl", [asdict(OUTCOME) | {"task_id": "b"}, asdict(OUTCOME) | changes])
    with pytest.raises(DataError, match=re.escape(f"{path}: row 2: {message}")):
        read_outcomes(path)


def test_a_missing_field_of_an_outcome_is_named_and_whole_numbers_are_numbers(tmp_path: Path) -> None:
    row = asdict(OUTCOME) | {"cpu_seconds": 0, "memory_mb": 1}
    assert read_outcomes(write_lines(tmp_path / "o.jsonl", [row]))["a", 0].cpu_seconds == 0
    del row["n_tests"]
    with pytest.raises(DataError, match=r"o\.jsonl: row 1: missing field 'n_tests'"):
        read_outcomes(write_lines(tmp_path / "o.jsonl", [row]))


def test_two_outcomes_of_one_program_are_an_error_that_names_both(tmp_path: Path) -> None:
    first = write_lines(tmp_path / "first.jsonl", [asdict(OUTCOME) | {"task_id": "b"}, asdict(OUTCOME)])
    second = write_lines(tmp_path / "second.jsonl", [asdict(OUTCOME) | {"outcome": "passed_test", "n_passed": 2}])
    with pytest.raises(
        DataError, match=r"second\.jsonl: row 1: .*'a', sample_id 0 .* in .*first\.jsonl: row 2 \(runtime_error there, passed_test here\)"
    ):
        read_outcomes([first, second])
    with pytest.raises(DataError, match=r"first\.jsonl: row 1: .*give each file once"):
        read_outcomes([first, first])
    other = write_lines(tmp_path / "other.jsonl", [asdict(OUTCOME) | {"suite": "example"}])
    with pytest.raises(DataError, match=r"other\.jsonl: row 1: .* on the example tests, but .*first\.jsonl: row 2 has one on the hidden"):
        read_outcomes([first, other])


def test_two_samples_of_one_number_are_an_error_that_names_both(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "s.jsonl", [asdict(SAMPLE), asdict(SAMPLE)])
    with pytest.raises(DataError, match=r"s\.jsonl: row 2: .*'a' with sample_id 0 is there twice \(first in .*s\.jsonl: row 1\)"):
        read_samples(path)


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[" * 100_000, r"line 2: not valid JSON \(nested too deeply\)"),
        ('{"a": ', r"line 2: not valid JSON \(Expecting value at column"),
        ("[1]", "line 2: expected a JSON object, found list"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "x.jsonl").write_text("{}\n" + line + "\n")
    with pytest.raises(DataError, match=r"x\.jsonl: " + message):
        list(read_json_lines(tmp_path / "x.jsonl"))


def test_a_damaged_gzip_stream_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    whole = gzip.compress("".join(json.dumps({"n": n, "text": str(n * n)}) + "\n" for n in range(2000)).encode())
    for damaged in (whole[:40] + bytes(40) + whole[80:], whole[:-20], whole[:-8] + bytes(8), b"no gzip"):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"x\.jsonl\.gz: .*make the file again"):
            list(read_rows(path))


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip"])
def test_damaged_parquet_pages_name_the_file(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "x.parquet"
    table = pa.table({"text": [f"row {n * n}" for n in range(5000)]})
    pq.write_table(table, path, compression=compression, use_dictionary=False)
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + bytes(b ^ 255 for b in whole[200:2000]) + whole[2000:])
    with pytest.raises(DataError, match=r"x\.parquet: damaged after row 0 .*make the file again"):
        list(read_rows(path))
    for damaged in (whole[: len(whole) // 2], whole[:-20] + bytes(20), b""):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"x\.parquet: not a parquet file"):
            list(read_rows(path))


def test_an_output_of_unknown_suffix_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    for name in ("x.csv", "x", "x.json"):
        with pytest.raises(DataError, match=f"{name}: unknown suffix"):
            write_rows(tmp_path / name, [{"a": 1}])
    assert not list(tmp_path.iterdir())


def test_integers_of_any_length_survive() -> None:
    value = {"n": 10**6000 + 1}
    assert parse_json(json_text(value)) == value
