"""Problems from the benchmarks' own rows: APPS, MBPP (full and sanitized), HumanEval, LeetCodeDataset, and our own (docs/problem_rows.md).

Every reader yields `Problem`s of one split in the order of the source, mends known damage and counts it (`Findings`), and raises
DataError naming file, row, column and expectation for the rest. Tests and solutions stay as published; wrong ones are found by running
them (`coderl problems-report`), not here.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coderl.problems.examples import extract_doctests, extract_examples
from coderl.problems.problem import SPLITS, AssertTests, InputOutputTests, Problem, Tests, problem_from_row, problem_to_row
from coderl.problems.sources import Findings, Row, Rows, decoded, open_rows
from coderl.records import DataError, json_text, parse_json, shown

MBPP_SPLITS: dict[str, range] = {
    "prompt": range(1, 11),
    "test": range(11, 511),
    "validation": range(511, 601),
    "train": range(601, 975),
}
"""Official division of MBPP by task id (spec 8.8)."""

_LONG_INTEGER = 10**4300
"""Python's own readers refuse integers with more digits."""


@dataclass(frozen=True)
class Reader:
    """How the rows of a benchmark are found and read."""

    splits: tuple[str, ...]
    build: Callable[[Row, str, str, Findings], Problem | None]
    """(row, where, split, findings) -> the problem, null if the row is of another split."""
    rows_name_their_split: bool = False


def read(benchmark: str, source: str, split: str, findings: Findings | None = None) -> Iterator[Problem]:
    """Problems of one split of a benchmark.

    Args:
        benchmark: key of READERS.
        source: file, folder or hub id (`sources.open_rows`); for apps also the original tree of one folder per problem.
        split: one that the benchmark has.
        findings: where damage is counted, and whether bad rows are skipped.

    Raises:
        DataError: nothing there, an unknown split, or a row that cannot be used.
    """
    findings = Findings() if findings is None else findings
    reader = READERS[benchmark]
    if split not in reader.splits:
        raise DataError(f"{benchmark}: no split {split!r}; it has {', '.join(reader.splits)}")
    rows = _apps_tree(Path(source), split, findings) if benchmark == "apps" else None
    if rows is None:
        rows = open_rows(source, split, benchmark, findings, all_splits=reader.rows_name_their_split)
    return findings.problems(rows, lambda row, where: reader.build(row, where, split, findings))


# --------------------------------------------------------------------------------------------------- own rows


def _own_problem(row: Row, where: str, split: str, findings: Findings) -> Problem | None:
    """A user's problem in our row form; rows of other splits are skipped, rows without a split belong to every split."""
    problem = problem_from_row({**row, "split": row.get("split") or split}, where)
    return problem if problem.split == split else None


# --------------------------------------------------------------------------------------------------- APPS


def _apps_tree(source: Path, split: str, findings: Findings) -> Rows | None:
    """Rows of the original tree, `source/0000/question.txt` or `source/<split>/0000/...`; null if it is none."""
    if not source.is_dir():
        return None
    for tree in (source / split, source):
        folders = sorted(path.parent for path in tree.glob("*/question.txt"))
        if folders:
            return ((str(folder), _apps_folder(folder, findings)) for folder in folders)
    return None


def _apps_folder(folder: Path, findings: Findings) -> Row | DataError:
    """One problem folder as a row with the hub's columns; files that may be missing give empty columns."""

    def text(name: str) -> str:
        path = folder / name
        return decoded(path.read_bytes(), str(path), findings) if path.exists() else ""

    try:
        metadata = _json_column({"metadata.json": text("metadata.json")}, "metadata.json", dict, str(folder))
    except DataError as error:
        return error
    return {
        "problem_id": folder.name,
        "question": text("question.txt"),
        "solutions": text("solutions.json"),
        "input_output": text("input_output.json"),
        "difficulty": (metadata or {}).get("difficulty"),
        "starter_code": text("starter_code.py"),
    }


def _apps_problem(row: Row, where: str, split: str, findings: Findings) -> Problem:
    """A row with the columns of codeparrot/apps or of one of its copies.

    `solutions` and `input_output` are JSON texts, or plain values as parquet copies have them; `id` may stand for `problem_id`, and
    `inputs`, `outputs`, `fn_name` for `input_output`. Call-based tests keep CodeRL's conventions (an expected value may be wrapped in a
    list).
    """
    name = _required(row, "problem_id" if "problem_id" in row or "id" not in row else "id", (int, str), where)
    name = name if isinstance(name, str) else json_text(name)
    question = _required(row, "question", (str,), where)
    difficulty = _required(row, "difficulty", (str,), where)
    starter_code = _optional(row, "starter_code", str, where) or ""
    solutions = _json_column(row, "solutions", list, where) or []
    if not all(isinstance(solution, str) for solution in solutions):
        raise DataError(f"{where}: column 'solutions' must be a list of programs, found {shown(solutions)}")
    if not solutions:
        findings.mend("no reference solutions: kept, for its tests", where)
    data = _json_column(row, "input_output", dict, where)
    if data is None and "input_output" not in row and "inputs" in row:
        data = {key: _json_column(row, key, list, where) for key in ("inputs", "outputs")} | {"fn_name": row.get("fn_name")}
    entry_point, tests = _apps_tests(data, f"{where}: column 'input_output'", findings)
    if tests is None:
        findings.mend("no tests: kept, for its solutions only (never counted as passed)", where)
        if entry_point is None and starter_code:  # the prompt's format line goes by the function then (spec 2.2)
            entry_point = _last_function(starter_code)
    elif entry_point is None and starter_code.strip():
        findings.mend("starter code, yet tests on standard input: the tests decide", where)
    elif entry_point is not None and not starter_code.strip():
        findings.mend("a function is called, yet there is no starter code: its name stands in the tests only", where)
    problem = Problem(
        task_id=f"apps/{split}/{int(name):05d}" if name.isdecimal() and len(name) < 20 else f"apps/{split}/{name}",
        benchmark="apps",
        split=split,
        difficulty=difficulty.lower(),
        question=question,
        starter_code=starter_code,
        entry_point=entry_point,
        solutions=[solution.replace("\r\n", "\n") for solution in solutions],
        hidden_tests=tests,
        example_tests=extract_examples(question, entry_point, starter_code),
    )
    return _checked(problem, where)


def _apps_tests(data: Row | None, where: str, findings: Findings) -> tuple[str | None, Tests | None]:
    """(function name or null, tests or null): problems without a single test exist (spec 2.1)."""
    if not data or all(value is None for value in data.values()):
        return None, None
    entry_point = data.get("fn_name")
    inputs, outputs = data.get("inputs"), data.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        raise DataError(f"{where}: needs lists 'inputs' and 'outputs' of the same length, found {shown(data)}")
    if len(inputs) != len(outputs):
        findings.mend("another number of inputs than of outputs: the pairs that exist are kept", where)
        count = min(len(inputs), len(outputs))
        inputs, outputs = inputs[:count], outputs[:count]
    if any(_has_long_integer(value) for value in (inputs, outputs)):
        findings.mend("an integer of more than 4300 digits: kept", where)
    if not inputs:
        return entry_point, None
    if entry_point is None:
        return None, InputOutputTests("stdin", [_joined(value, where) for value in inputs], [_joined(value, where) for value in outputs])
    if any(isinstance(arguments, str) for arguments in inputs):
        pairs = [_from_text(given, wanted) for given, wanted in zip(inputs, outputs, strict=True)]
        kept = [pair for pair in pairs if pair is not None]
        lost = len(pairs) - len(kept)
        findings.mend("call-based with texts for inputs: one JSON value per line is one argument", where)
        if lost:
            findings.mend("call-based with a text for input that is no JSON: these tests are left out", f"{where} ({lost} tests)")
        if not kept:
            return entry_point, None
        inputs, outputs = [given for given, _ in kept], [wanted for _, wanted in kept]
    if not all(isinstance(arguments, list) for arguments in inputs):
        raise DataError(f"{where}: has 'fn_name', so every input must be a list of arguments, found {shown(inputs)}")
    return entry_point, InputOutputTests("call", inputs, outputs)


def _from_text(given: Any, wanted: Any) -> tuple[list[Any], Any] | None:
    """A call-based test whose input is a text, as (arguments, value): lines of JSON. Others stay as they are."""
    if not isinstance(given, str):
        return given, wanted
    try:
        arguments = [parse_json(line) for line in given.split("\n") if line.strip()]
    except ValueError:
        return None
    if isinstance(wanted, str):
        with suppress(ValueError):  # else a text that the function returns, without its quotes
            wanted = parse_json(wanted)
    return arguments, wanted


def _has_long_integer(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_has_long_integer, value))
    if isinstance(value, dict):
        return any(map(_has_long_integer, value.values()))
    return type(value) is int and abs(value) >= _LONG_INTEGER


def _last_function(source: str) -> str | None:
    """Name of the last function that starter code begins (its body is missing)."""
    words = [line.split("def ", 1)[1] for line in source.splitlines() if line.strip().startswith("def ")]
    name = words[-1].partition("(")[0].strip() if words else ""
    return name if name.isidentifier() else None


def _joined(value: Any, where: str) -> str:
    """Text of a standard-input test; some problems give it as a list of lines (spec 4.2)."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise DataError(f"{where}: has no 'fn_name', so inputs and outputs must be texts, found {type(value).__name__}")
    return value


# --------------------------------------------------------------------------------------------------- MBPP


def _mbpp_problem(row: Row, where: str, split: str, findings: Findings) -> Problem | None:
    """A row of `mbpp.jsonl` or, with `prompt` and `test_imports`, of `sanitized-mbpp.json`; both have the official split by task id.

    The question is the text and its asserts, which are also the hidden tests (spec 8.8). The example tests are null: they would be the
    hidden tests, and filtering by them would be reading the answer.
    """
    task = _required(row, "task_id", (int,), where)
    sanitized = "text" not in row and "prompt" in row
    text = _required(row, "prompt" if sanitized else "text", (str,), where)
    code = _required(row, "code", (str,), where)
    asserts = _texts(row, "test_list", "assert statements", where)
    if not any(task in ids for ids in MBPP_SPLITS.values()):
        raise DataError(f"{where}: column 'task_id' is {task}; MBPP's are 1 to 974")
    if task not in MBPP_SPLITS[split]:
        return None
    if sanitized:
        setup = "\n".join(_texts(row, "test_imports", "import statements", where, empty=True))
    else:
        setup = _optional(row, "test_setup_code", str, where) or ""
    problem = Problem(
        task_id=f"mbpp/{task}",
        benchmark="mbpp_sanitized" if sanitized else "mbpp",
        split=split,
        difficulty="introductory",
        question=text + "\nYour code should satisfy these tests:\n" + "\n".join(asserts),
        starter_code="",
        entry_point=_called_name(asserts[0], code),
        solutions=[code.replace("\r\n", "\n")],
        hidden_tests=AssertTests(asserts, setup),
        example_tests=None,
    )
    return _checked(problem, where)


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


# --------------------------------------------------------------------------------------------------- HumanEval


def _humaneval_problem(row: Row, where: str, split: str, findings: Findings) -> Problem:
    """A row of `HumanEval.jsonl.gz`. A program is whole: the prompt is part of the reference, and `check(<entry point>)` is one test.

    The example tests are those of the docstring; the hidden tests have more.
    """
    name = _required(row, "task_id", (str,), where)
    prompt = _required(row, "prompt", (str,), where)
    solution = _required(row, "canonical_solution", (str,), where)
    test = _required(row, "test", (str,), where)
    entry_point = _required(row, "entry_point", (str,), where)
    if "check" not in _functions(test):
        raise DataError(f"{where}: column 'test' must define check(candidate), found {shown(test)}")
    problem = Problem(
        task_id=f"humaneval/{name.rpartition('/')[2]}",
        benchmark="humaneval",
        split=split,
        difficulty="introductory",
        question=prompt,
        starter_code="",
        entry_point=entry_point,
        solutions=[prompt + solution],
        hidden_tests=AssertTests([f"check({entry_point})"], test),
        example_tests=extract_doctests(prompt, entry_point),
    )
    return _checked(problem, where)


# --------------------------------------------------------------------------------------------------- LeetCode

_LEETCODE_LEVELS = {"easy": "introductory", "medium": "interview", "hard": "competition"}


def _leetcode_problem(row: Row, where: str, split: str, findings: Findings) -> Problem:
    """A row of LeetCodeDataset: a statement, a class Solution, and a function check(candidate) of asserts.

    Each assert becomes one test. The example tests are null: most of the asserts are the statement's own examples. A program is whole,
    with the data set's `prompt` (imports, and lists and trees where the asserts need them) as its beginning: given as set-up code, what
    it defines would be objects of another process, which equal nothing there (docs/outcomes.md, integrity).
    """
    name = _required(row, "task_id", (str,), where)
    prompt = _required(row, "prompt", (str,), where)
    completion = _required(row, "completion", (str,), where)
    test = _required(row, "test", (str,), where)
    called = _required(row, "entry_point", (str,), where)
    meta = _json_column(row, "meta", dict, where) or {}
    question = _optional(row, "problem_description", str, where) or meta.get("question_title")
    if not isinstance(question, str) or not question.strip():
        question = _required(row, "query", (str,), where).partition("Please complete the following python code")[0]
    level = _optional(row, "difficulty", str, where) or meta.get("difficulty")
    level = level.lower() if isinstance(level, str) else level
    if level == "meidum":
        findings.mend("difficulty 'Meidum': read as Medium", where)
        level = "medium"
    if level not in _LEETCODE_LEVELS:
        raise DataError(f"{where}: column 'difficulty' must be Easy, Medium or Hard, found {shown(level)}")
    asserts = _asserts_of_check(test, called)
    if asserts is None:
        raise DataError(f"{where}: column 'test' must define check(candidate) of assert statements only, found {shown(test)}")
    if not asserts:
        raise DataError(f"{where}: column 'test' has no assert statement in check(candidate); zero tests are no success")
    starter = _optional(row, "starter_code", str, where) or meta.get("lang_code")
    problem = Problem(
        task_id=f"leetcode/{name}",
        benchmark="leetcode",
        split=split,
        difficulty=_LEETCODE_LEVELS[level],
        question=question,
        starter_code=starter if isinstance(starter, str) else "",
        entry_point=called.rpartition(".")[2],
        solutions=[prompt + completion],
        hidden_tests=AssertTests(asserts),
        example_tests=None,
    )
    return _checked(problem, where)


def _functions(source: str) -> set[str]:
    try:
        return {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    except (SyntaxError, ValueError, RecursionError):
        return set()


class _Candidate(ast.NodeTransformer):
    """The name `candidate` replaced by what is under test."""

    def __init__(self, called: str) -> None:
        self.called = ast.parse(called, mode="eval").body

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.called if node.id == "candidate" else node


def _asserts_of_check(test: str, called: str) -> list[str] | None:
    """The asserts of `def check(candidate)` with the candidate in them; null if it is not such a function."""
    try:
        body = ast.parse(test).body
        candidate = _Candidate(called)
    except (SyntaxError, ValueError, RecursionError):
        return None
    if len(body) != 1 or not isinstance(body[0], ast.FunctionDef) or body[0].name != "check":
        return None
    statements = [node for node in body[0].body if not isinstance(node, ast.Pass)]
    if not all(isinstance(node, ast.Assert) for node in statements):
        return None
    return [ast.unparse(ast.fix_missing_locations(candidate.visit(node))) for node in statements]


# --------------------------------------------------------------------------------------------------- columns


def _checked(problem: Problem, where: str) -> Problem:
    """The problem, if its fields are such that it can be read back from rows; else DataError, which names the place in the source."""
    return problem_from_row(problem_to_row(problem), where)


def _required(row: Row, column: str, kinds: tuple[type, ...], where: str) -> Any:
    if column not in row:
        raise DataError(f"{where}: column {column!r} is missing; it has {', '.join(row) or 'none'}")
    if not isinstance(row[column], kinds) or isinstance(row[column], bool):
        raise DataError(f"{where}: column {column!r} must be {' or '.join(kind.__name__ for kind in kinds)}, found {shown(row[column])}")
    return row[column]


def _optional(row: Row, column: str, kind: type, where: str) -> Any:
    value = row.get(column)
    if value is not None and not isinstance(value, kind):
        raise DataError(f"{where}: column {column!r} must be {kind.__name__} or null, found {shown(value)}")
    return value


def _texts(row: Row, column: str, what: str, where: str, *, empty: bool = False) -> list[str]:
    """A column that is a list of texts."""
    values = _required(row, column, (list,), where)
    if not all(isinstance(line, str) for line in values) or not (values or empty):
        raise DataError(f"{where}: column {column!r} must be a list of {what}, found {shown(values)}")
    return list(values)


def _json_column(row: Row, column: str, kind: type, where: str) -> Any:
    """A column that holds JSON text, JSON text within JSON text, or the value itself; null where it is missing or empty."""
    value = row.get(column)
    for _ in range(2):
        if not isinstance(value, str):
            break
        if not value.strip():
            return None
        try:
            value = parse_json(value)
        except ValueError as error:
            raise DataError(f"{where}: column {column!r} is not valid JSON ({error})") from None
    if value is not None and not isinstance(value, kind):
        raise DataError(f"{where}: column {column!r} must hold a {kind.__name__}, found {type(value).__name__}")
    return value


READERS: dict[str, Reader] = {
    "jsonl": Reader(SPLITS, _own_problem, rows_name_their_split=True),
    # APPS has train and test; a part of train that the user holds out is a validation split.
    "apps": Reader(("train", "validation", "test"), _apps_problem),
    "mbpp": Reader(tuple(MBPP_SPLITS), _mbpp_problem, rows_name_their_split=True),
    "humaneval": Reader(("test",), _humaneval_problem),
    "leetcode": Reader(("train", "validation", "test"), _leetcode_problem),
}
