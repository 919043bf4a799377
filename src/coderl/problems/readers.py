"""Problems from files in the benchmarks' own forms: APPS (jsonl or folders), MBPP, and our own rows (docs/problem_rows.md).

Every reader yields `Problem`s of one split in the order of the source, and raises DataError naming file, row and column.
Tests and solutions stay as published; wrong ones are found by running them (`coderl run-tests`), not here.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coderl.problems.problem import SPLITS, AssertTests, InputOutputTests, Problem, Tests, problem_from_row, problem_to_row
from coderl.records import DataError, json_text, parse_json, read_rows, shown

APPS_SPLITS = ("train", "validation", "test")
"""APPS has train and test; a part of train that the user holds out is a validation split."""

MBPP_SPLITS: dict[str, range] = {
    "prompt": range(1, 11),
    "test": range(11, 511),
    "validation": range(511, 601),
    "train": range(601, 975),
}
"""Official division of MBPP by task id (spec 8.8)."""


# --------------------------------------------------------------------------------------------------- own rows


def read_own(source: Path, split: str) -> Iterator[Problem]:
    """A user's problems in our row form; rows of other splits are skipped, rows without a split belong to every split."""
    if split not in SPLITS:
        raise DataError(f"jsonl: no split {split!r}; rows have {', '.join(SPLITS)}")
    seen: set[str] = set()
    for number, row in read_rows(_file(source, "jsonl")):
        where = f"{source}: row {number}"
        problem = problem_from_row({**row, "split": row.get("split") or split}, where)
        if problem.task_id in seen:
            raise DataError(f"{where}: task_id {problem.task_id!r} is there twice")
        seen.add(problem.task_id)
        if problem.split == split:
            yield problem


# --------------------------------------------------------------------------------------------------- APPS


def read_apps(source: Path, split: str) -> Iterator[Problem]:
    """APPS (spec 2.1): the hub's jsonl, a folder with `<split>.jsonl`, or the original tree of one folder per problem.

    The tree is `source` or `source/<split>`. Neither form says its split itself: a single file is taken to be the split asked for.
    Call-based tests keep CodeRL's conventions (an expected value may be wrapped in a list).
    """
    if split not in APPS_SPLITS:
        raise DataError(f"apps: no split {split!r}; it has {', '.join(APPS_SPLITS)}")
    if source.is_dir() and (source / f"{split}.jsonl").exists():
        source = source / f"{split}.jsonl"
    if not source.is_dir():
        for number, row in read_rows(_file(source, "apps")):
            yield _apps_problem(row, split, f"{source}: row {number}")
        return
    tree = source / split if (source / split).is_dir() else source
    folders = sorted(folder for folder in tree.iterdir() if (folder / "question.txt").exists())
    if not folders:
        raise DataError(
            f"{tree}: neither {split}.jsonl nor problem folders with question.txt in it; give the folder that holds 0000, 0001, ..."
        )
    for folder in folders:
        yield _apps_problem(_apps_folder(folder), split, str(folder))


def _apps_folder(folder: Path) -> dict[str, Any]:
    """One problem folder as a row with the hub's columns; files that may be missing give empty columns."""

    def text(name: str) -> str:
        path = folder / name
        try:
            return path.read_text(encoding="utf-8") if path.exists() else ""
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-8 ({error.reason})") from None

    metadata = _json_column({"metadata.json": text("metadata.json")}, "metadata.json", dict, str(folder))
    return {
        "problem_id": folder.name,
        "question": text("question.txt"),
        "solutions": text("solutions.json"),
        "input_output": text("input_output.json"),
        "difficulty": (metadata or {}).get("difficulty"),
        "starter_code": text("starter_code.py"),
    }


def _apps_problem(row: dict[str, Any], split: str, where: str) -> Problem:
    name = _required(row, "problem_id", (int, str), where)
    name = name if isinstance(name, str) else json_text(name)
    question = _required(row, "question", (str,), where)
    difficulty = _required(row, "difficulty", (str,), where)
    solutions = _json_column(row, "solutions", list, where) or []
    if not all(isinstance(solution, str) for solution in solutions):
        raise DataError(f"{where}: column 'solutions' must be a list of programs")
    entry_point, tests = _apps_tests(_json_column(row, "input_output", dict, where), f"{where}: column 'input_output'")
    problem = Problem(
        task_id=f"apps/{split}/{int(name):05d}" if name.isdecimal() and len(name) < 20 else f"apps/{split}/{name}",
        benchmark="apps",
        split=split,
        difficulty=difficulty,
        question=question,
        starter_code=row.get("starter_code") or "",
        entry_point=entry_point,
        solutions=[solution.replace("\r\n", "\n") for solution in solutions],
        hidden_tests=tests,
        example_tests=None,
    )
    return _checked(problem, where)


def _apps_tests(data: dict[str, Any] | None, where: str) -> tuple[str | None, Tests | None]:
    """(function name or null, tests or null): problems without a single test exist (spec 2.1)."""
    if data is None:
        return None, None
    entry_point = data.get("fn_name")
    inputs, outputs = data.get("inputs"), data.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list) or len(inputs) != len(outputs):
        raise DataError(f"{where}: needs lists 'inputs' and 'outputs' of the same length")
    if not inputs:
        return entry_point, None
    if entry_point is not None:
        if not all(isinstance(arguments, list) for arguments in inputs):
            raise DataError(f"{where}: has 'fn_name', so every input must be a list of arguments")
        return entry_point, InputOutputTests("call", inputs, outputs)
    return None, InputOutputTests("stdin", [_joined(value, where) for value in inputs], [_joined(value, where) for value in outputs])


def _joined(value: Any, where: str) -> str:
    """Text of a standard-input test; some problems give it as a list of lines (spec 4.2)."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise DataError(f"{where}: has no 'fn_name', so inputs and outputs must be texts, found {type(value).__name__}")
    return value


# --------------------------------------------------------------------------------------------------- MBPP


def read_mbpp(source: Path, split: str) -> Iterator[Problem]:
    """MBPP's `mbpp.jsonl` with the official split. The question is the text and its asserts, which are also the hidden tests.

    The example tests are null: they would be the hidden tests, and filtering by them would be reading the answer.
    """
    if split not in MBPP_SPLITS:
        raise DataError(f"mbpp: no split {split!r}; it has {', '.join(MBPP_SPLITS)}")
    for number, row in read_rows(_file(source, "mbpp")):
        where = f"{source}: row {number}"
        task = _required(row, "task_id", (int,), where)
        text = _required(row, "text", (str,), where)
        code = _required(row, "code", (str,), where)
        asserts = _required(row, "test_list", (list,), where)
        if not asserts or not all(isinstance(line, str) for line in asserts):
            raise DataError(f"{where}: column 'test_list' must be a list of assert statements")
        if task not in MBPP_SPLITS[split]:
            continue
        problem = Problem(
            task_id=f"mbpp/{task}",
            benchmark="mbpp",
            split=split,
            difficulty="introductory",
            question=text + "\nYour code should satisfy these tests:\n" + "\n".join(asserts),
            starter_code="",
            entry_point=_called_name(asserts[0], code),
            solutions=[code.replace("\r\n", "\n")],
            hidden_tests=AssertTests(asserts, row.get("test_setup_code") or ""),
            example_tests=None,
        )
        yield _checked(problem, where)


def _called_name(statement: str, code: str) -> str | None:
    """The function under test: the first name that the assert calls and the reference defines; null if there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MBPP's programs have invalid escapes
            program, test = ast.parse(code), ast.parse(statement)
    except (SyntaxError, ValueError, RecursionError):  # ValueError: bytes that no program has
        return None
    defined = {node.name for node in ast.walk(program) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    calls = [node.func.id for node in ast.walk(test) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    return next((name for name in calls if name in defined), None)


# --------------------------------------------------------------------------------------------------- columns


def _checked(problem: Problem, where: str) -> Problem:
    """The problem, if its fields are such that it can be read back from rows; else DataError, which names the place in the source."""
    return problem_from_row(problem_to_row(problem), where)


def _file(source: Path, benchmark: str) -> Path:
    if source.is_dir():
        raise DataError(f"{source}: is a folder; benchmark {benchmark!r} needs a file (.jsonl, .jsonl.gz or .parquet)")
    return source


def _required(row: dict[str, Any], column: str, kinds: tuple[type, ...], where: str) -> Any:
    if column not in row:
        raise DataError(f"{where}: column {column!r} is missing; it has {', '.join(row) or 'none'}")
    if not isinstance(row[column], kinds) or isinstance(row[column], bool):
        raise DataError(f"{where}: column {column!r} must be {' or '.join(kind.__name__ for kind in kinds)}, found {shown(row[column])}")
    return row[column]


def _json_column(row: dict[str, Any], column: str, kind: type, where: str) -> Any:
    """A column that holds JSON text, or the value itself; null where it is missing or empty."""
    value = row.get(column)
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = parse_json(value)
        except ValueError as error:
            raise DataError(f"{where}: column {column!r} is not valid JSON ({error})") from None
    if value is not None and not isinstance(value, kind):
        raise DataError(f"{where}: column {column!r} must hold a {kind.__name__}, found {type(value).__name__}")
    return value
