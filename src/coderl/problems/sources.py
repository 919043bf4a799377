"""Rows from every form in which people have a benchmark: files, folders in the hub's layout, a hub id; and what was wrong with them.

Known damage is mended and counted by kind (`Findings.mended`), a row that cannot be used is an error, or with `skip_bad_rows` left
out and listed (`Findings.skipped`): nothing is dropped without a word.
"""

from __future__ import annotations

import gzip
import json
import logging
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coderl.problems.problem import Problem
from coderl.records import DataError, atomic_path, parse_json, read_rows

LOG = logging.getLogger(__name__)

ROW_SUFFIXES: tuple[str, ...] = (".jsonl", ".jsonl.gz", ".parquet", ".json")
"""Forms of a file of rows; `.json` is one list of them."""

HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(:(?P<config>[\w.-]+))?(@(?P<revision>[\w.-]+))?")
"""owner/name, with the name of a configuration and a revision where they are needed."""

Row = dict[str, Any]
Rows = Iterator[tuple[str, Row | DataError]]
"""(where, row), or in place of a row that is not even one: why."""


@dataclass
class Findings:
    """What a reader met: kinds of damage with the places of each, and the rows that were left out with the reason."""

    skip_bad_rows: bool = False
    mended: dict[str, list[str]] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    def mend(self, kind: str, where: str) -> None:
        """Count one more place with damage of this kind."""
        self.mended.setdefault(kind, []).append(where)

    def problems(self, rows: Rows, build: Callable[[Row, str], Problem | None]) -> Iterator[Problem]:
        """The problems that `build(row, where)` makes, without the None among them.

        Raises:
            DataError: of the first row that cannot be used, unless bad rows are skipped.
        """
        seen: dict[str, str] = {}
        for where, row in rows:
            try:
                if isinstance(row, DataError):
                    raise row
                problem = build(row, where)
                if problem is not None and problem.task_id in seen:
                    raise DataError(f"{where}: task_id {problem.task_id!r} is there twice, first at {seen[problem.task_id]}")
            except DataError as error:
                if not self.skip_bad_rows:
                    raise DataError(f"{error} (--skip-bad-rows leaves such rows out, and lists them)") from None
                self.skipped.append(str(error))
                continue
            if problem is not None:
                seen[problem.task_id] = where
                yield problem

    def log(self) -> None:
        """One line per kind of damage and per row that was left out."""
        for kind, places in self.mended.items():
            LOG.warning("%d x %s; first: %s", len(places), kind, ", ".join(places[:3]))
        for reason in self.skipped:
            LOG.warning("left out: %s", reason)
        if self.skipped:
            LOG.warning("%d rows left out", len(self.skipped))

    def write(self, path: Path) -> None:
        """All places of all kinds, as JSON: {"mended": {kind: [where, ...]}, "skipped": [why, ...]}."""
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps({"mended": self.mended, "skipped": self.skipped}, indent=1, ensure_ascii=False) + "\n")


def open_rows(source: str, split: str, benchmark: str, findings: Findings, *, all_splits: bool = False) -> Rows:
    """Rows of one split of a benchmark, with the place of each.

    Args:
        source: a file of rows (.jsonl, .jsonl.gz, .parquet, .json); a folder with `<split>.jsonl` or the like, or in the hub's layout
            (`data/<split>-00000-of-00001.parquet` and its kin); or the id of a parquet data set on the hub,
            `owner/name[:configuration][@revision]`.
        split: which of them; a single file is taken to be the split asked for.
        benchmark: for messages.
        findings: where mended damage is counted.
        all_splits: every file of a folder, for benchmarks whose rows say to which split they belong.

    Raises:
        DataError: nothing there, or a file that is cut off or in no known form.
    """
    path = Path(source)
    if path.is_dir():
        files = _files_of_split(path, split, all_splits)
        if not files:
            raise DataError(
                f"{path}: is a folder without files of split {split!r}; benchmark {benchmark!r} needs a file ({', '.join(ROW_SUFFIXES)}) "
                f"or a folder with {split}.jsonl, {split}.parquet or data/{split}-*.parquet"
            )
        return (row for file in files for row in _file_rows(file, findings))
    if path.exists():
        return _file_rows(path, findings)
    if HUB_ID.fullmatch(source):
        return hub_rows(source, split)
    raise DataError(f"{source}: no such file or folder; fetch it first and give its path, or give a hub id (owner/name)")


def _files_of_split(folder: Path, split: str, all_splits: bool) -> list[Path]:
    """The files of a split, by the first of the usual layouts that is there."""
    name = "*" if all_splits else split
    for pattern in (
        *(f"{split}{suffix}" for suffix in ROW_SUFFIXES),
        *(f"*[-_]{split}{suffix}" for suffix in ROW_SUFFIXES),
        f"{name}-*-of-*.parquet",
        f"data/{name}-*.parquet",
        f"{split}/*.parquet",
        *(["*.jsonl", "*.jsonl.gz", "*.parquet"] if all_splits else []),
        f"*/{name}-*-of-*.parquet",
    ):
        found = sorted(path for path in folder.glob(pattern) if path.is_file())
        if found:
            parents = sorted({str(path.parent) for path in found})
            if len(parents) > 1:
                raise DataError(f"{folder}: has files of split {split!r} in {', '.join(parents)}; give one of these folders")
            return found
    return []


def _file_rows(path: Path, findings: Findings) -> Rows:
    if path.suffix == ".parquet":
        for number, row in read_rows(path):
            yield f"{path}: row {number}", row
    elif path.suffix == ".json":
        yield from _json_list(path, findings)
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        yield from _json_lines(path, findings)
    else:
        raise DataError(f"{path}: unknown suffix; expected {', '.join(ROW_SUFFIXES)}")


def decoded(data: bytes, where: str, findings: Findings) -> str:
    """Text of bytes that should be UTF-8; other bytes are read as Windows-1252, the code page they are mostly from, and counted."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        findings.mend(f"not UTF-8 ({error.reason}), read as Windows-1252", where)
        return data.decode("cp1252", errors="replace")


def _json_lines(path: Path, findings: Findings) -> Rows:
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    where = f"{path}: row {number}"
                    yield where, _row(decoded(line, where, findings), where)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:  # how many rows are lost is not known: no row to skip
        raise DataError(f"{path}: cut off or damaged after row {number}, or not gzip ({error}); fetch the file again") from None


def _row(text: str, where: str) -> Row | DataError:
    try:
        value = parse_json(text)
    except ValueError as error:
        return DataError(f"{where}: not valid JSON ({error}); expected one object per line")
    return value if isinstance(value, dict) else DataError(f"{where}: expected a JSON object, found {type(value).__name__}")


def _json_list(path: Path, findings: Findings) -> Rows:
    try:
        values = parse_json(decoded(path.read_bytes(), str(path), findings))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); expected a list of rows, and the file may be cut off") from None
    if not isinstance(values, list):
        raise DataError(f"{path}: expected a list of rows, found {type(values).__name__}")
    for number, value in enumerate(values, 1):
        where = f"{path}: row {number}"
        yield where, value if isinstance(value, dict) else DataError(f"{where}: expected a JSON object, found {type(value).__name__}")


# --------------------------------------------------------------------------------------------------- hub


def hub_rows(source: str, split: str) -> Rows:
    """Rows of a data set on the hub (or of a local folder in its layout) by the `datasets` library, which caches what it fetched.

    Raises:
        DataError: the library is missing, or it cannot load the data set; the message says how to fetch it beforehand.
    """
    match = HUB_ID.fullmatch(source)
    name, config, revision = (match["name"], match["config"], match["revision"]) if match else (source, None, None)
    try:
        import datasets
    except ImportError:
        raise DataError(f"{_no_hub(source, name)}: reading from the hub needs `pip install 'coderl[hub]'`") from None
    try:
        table = datasets.load_dataset(name, config, split=split, revision=revision)
    except Exception as error:  # whatever the library, its HTTP client or a loading script raises
        reason = " ".join(str(error).split())
        raise DataError(f"{_no_hub(source, name)}: {type(error).__name__}: {reason:.300}") from None
    return ((f"{source}: row {number}", dict(row)) for number, row in enumerate(table, 1))


def _no_hub(source: str, name: str) -> str:
    folder = f"data/{name.rpartition('/')[2]}"
    return (
        f"{source}: no such file or folder, and as a data set of the hub it cannot be loaded. Where there is a network, run "
        f"`hf download {name} --repo-type dataset --local-dir {folder}` and give the folder {folder} as source. The reason"
    )
