"""The one form of a problem, for every benchmark and for a user's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from keyword import iskeyword
from pathlib import Path
from typing import Any

from coderl.config import DIFFICULTIES
from coderl.records import DataError, atomic_path, is_text, json_text, parse_json, read_rows, shown, write_rows


@dataclass(frozen=True)
class InputOutputTests:
    """Tests as pairs. kind "stdin": both are texts; kind "call": inputs are argument lists, outputs are values (JSON)."""

    kind: str
    inputs: list[Any]
    outputs: list[Any]

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class AssertTests:
    """Tests as assert statements, with set-up code that runs after the program and before them (sandbox notes)."""

    asserts: list[str]
    setup: str = ""
    kind: str = "assert"

    def __len__(self) -> int:
        return len(self.asserts)


Tests = InputOutputTests | AssertTests


@dataclass(frozen=True)
class Problem:
    """One problem; `entry_point` is null for standard input. Either suite of tests may be missing."""

    task_id: str
    benchmark: str
    split: str
    difficulty: str
    question: str
    starter_code: str
    entry_point: str | None
    solutions: list[str]
    hidden_tests: Tests | None
    example_tests: Tests | None

    def tests(self, suite: str) -> Tests | None:
        """The "hidden" or "example" suite."""
        return self.hidden_tests if suite == "hidden" else self.example_tests


COLUMNS: tuple[str, ...] = tuple(Problem.__dataclass_fields__)


SPLITS: tuple[str, ...] = ("train", "validation", "test", "prompt")
"""`prompt` is MBPP's (spec 8.8): problems for the prompts of few-shot generation."""

SUITE_KEYS: dict[str, tuple[str, ...]] = {
    "stdin": ("kind", "inputs", "outputs"),
    "call": ("kind", "inputs", "outputs"),
    "assert": ("kind", "asserts", "setup"),
}

MAX_DEPTH = 100
"""Of lists in lists in tests: every tool that reads a problem file has some limit, and real tests stay below 10."""


def _from_json(value: Any, where: str) -> Any:
    """A nested field, which may be JSON text; raises DataError for what no file or later stage can hold."""
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError as error:
            raise DataError(f"{where} is not valid JSON ({error})") from None
    _check_value(value, where)
    return value


def _check_value(value: Any, where: str, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise DataError(f"{where}: nested more than {MAX_DEPTH} deep")
    if isinstance(value, str):
        if not is_text(value):
            raise DataError(f"{where}: holds half of a surrogate pair (such as \\ud800), which is no text; replace or remove it")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_value(key, where, depth + 1)
            _check_value(item, where, depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_value(item, where, depth + 1)
    elif value is not None and not isinstance(value, int | float):
        raise DataError(f"{where}: holds a {type(value).__name__}, which JSON does not have")


def _tests_from_json(value: Any, where: str) -> Tests | None:
    value = _from_json(value, where)
    if value is None:
        return None
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected null or an object with 'kind', found {type(value).__name__}")
    kind = value.get("kind")
    if isinstance(kind, str) and kind in SUITE_KEYS:
        unknown = [key for key in value if key not in SUITE_KEYS[kind] and value[key] is not None]
        if unknown:
            raise DataError(f"{where}: unknown key {unknown[0]!r}; kind {kind!r} has {', '.join(SUITE_KEYS[kind])}")
    if kind == "assert":
        if not isinstance(value.get("setup"), str | None):
            raise DataError(f"{where}: 'setup' must be a string of code, found {shown(value['setup'])}")
        asserts = value.get("asserts")
        if not isinstance(asserts, list) or not all(isinstance(line, str) for line in asserts):
            raise DataError(f"{where}: kind 'assert' needs 'asserts', a list of strings")
        if not asserts:
            raise DataError(f"{where}: 'asserts' is empty; use null for a problem without tests")
        return AssertTests(asserts=asserts, setup=value.get("setup") or "")
    if kind not in ("stdin", "call"):
        raise DataError(f"{where}: kind must be 'stdin', 'call' or 'assert', found {shown(kind)}")
    inputs, outputs = value.get("inputs"), value.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        raise DataError(f"{where}: kind {kind!r} needs lists 'inputs' and 'outputs'")
    if len(inputs) != len(outputs):
        raise DataError(f"{where}: {len(inputs)} inputs but {len(outputs)} outputs; each input needs its output")
    if not inputs:
        raise DataError(f"{where}: no tests in it; use null for a problem without tests")
    if kind == "call" and not all(isinstance(arguments, list) for arguments in inputs):
        raise DataError(f"{where}: kind 'call' needs every input to be a list of arguments")
    if kind == "stdin" and not all(isinstance(text, str) for text in [*inputs, *outputs]):
        raise DataError(f"{where}: kind 'stdin' needs every input and output to be a string")
    return InputOutputTests(kind=kind, inputs=inputs, outputs=outputs)


def _tests_to_json(tests: Tests | None) -> dict[str, Any] | None:
    if tests is None:
        return None
    if isinstance(tests, AssertTests):
        return {"kind": "assert", "asserts": tests.asserts, "setup": tests.setup}
    return {"kind": tests.kind, "inputs": tests.inputs, "outputs": tests.outputs}


def problem_from_row(row: dict[str, Any], where: str) -> Problem:
    """Read one row; raises DataError whose message starts with `where` and names the field."""
    unknown = [key for key in row if key not in COLUMNS]
    if unknown:
        raise DataError(f"{where}: unknown field {unknown[0]!r}; fields are {', '.join(COLUMNS)}")
    for name in ("task_id", "question"):
        if not isinstance(row.get(name), str) or not row[name]:
            raise DataError(f"{where}: field {name!r} must be a non-empty string, found {shown(row.get(name))}")
    for name in ("task_id", "question", "benchmark", "split", "difficulty", "starter_code"):
        if row.get(name) is not None and not isinstance(row[name], str):
            raise DataError(f"{where}: field {name!r} must be a string, found {shown(row[name])}")
        _check_value(row.get(name), f"{where}: field {name!r}")
    for name, known in (("split", SPLITS), ("difficulty", DIFFICULTIES)):
        if row.get(name) and row[name] not in known:
            raise DataError(f"{where}: field {name!r} must be {', '.join(known[:-1])} or {known[-1]}, found {shown(row[name])}")
    entry_point = row.get("entry_point")
    if entry_point is not None and not _is_name(entry_point):
        raise DataError(f"{where}: field 'entry_point' must be null or the name of a function, found {shown(entry_point)}")
    solutions = _from_json(row.get("solutions"), f"{where}: field 'solutions'")
    if solutions is None:
        solutions = []
    if not isinstance(solutions, list) or not all(isinstance(text, str) for text in solutions):
        raise DataError(f"{where}: field 'solutions' must be a list of strings")
    hidden = _tests_from_json(row.get("hidden_tests"), f"{where}: field 'hidden_tests'")
    example = _tests_from_json(row.get("example_tests"), f"{where}: field 'example_tests'")
    for name, tests in (("hidden_tests", hidden), ("example_tests", example)):
        if tests is not None and tests.kind == "call" and not entry_point:
            raise DataError(f"{where}: field {name!r} has kind 'call', so 'entry_point' must name the function")
    return Problem(
        task_id=row["task_id"],
        benchmark=row.get("benchmark") or "custom",
        split=row.get("split") or "test",
        difficulty=row.get("difficulty") or "introductory",
        question=row["question"],
        starter_code=row.get("starter_code") or "",
        entry_point=entry_point,
        solutions=solutions,
        hidden_tests=hidden,
        example_tests=example,
    )


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isidentifier() and not iskeyword(value)


def problem_to_row(problem: Problem) -> dict[str, Any]:
    """The row as written to jsonl (nested fields as they are)."""
    row = {name: getattr(problem, name) for name in COLUMNS}
    row["hidden_tests"] = _tests_to_json(problem.hidden_tests)
    row["example_tests"] = _tests_to_json(problem.example_tests)
    return row


def read_problems(path: Path) -> list[Problem]:
    """Problems of a .jsonl, .jsonl.gz or .parquet file; raises DataError naming file, row and field."""
    problems: list[Problem] = []
    seen: set[str] = set()
    for number, row in read_rows(path):
        problem = problem_from_row(row, f"{path}: row {number}")
        if problem.task_id in seen:
            raise DataError(f"{path}: row {number}: task_id {problem.task_id!r} is there twice")
        seen.add(problem.task_id)
        problems.append(problem)
    if not problems:
        raise DataError(f"{path}: no problems in it; make it again with `coderl problems`")
    return problems


def write_problems(path: Path, problems: Iterable[Problem]) -> int:
    """Write problems atomically; nested fields (solutions, tests) are JSON text in parquet. Returns how many."""
    rows = [problem_to_row(problem) for problem in problems]
    if path.suffix != ".parquet":
        return write_rows(path, rows)
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for row in rows:
        for name in COLUMNS:
            nested = name in ("solutions", "hidden_tests", "example_tests")
            columns[name].append(json_text(row[name]) if nested else row[name])
    table = pa.table({name: pa.array(values, type=pa.string()) for name, values in columns.items()})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return len(rows)
