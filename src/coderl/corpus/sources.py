"""Where corpus files come from: the procedural generator, the standard library, folders and tables of Python files."""

from __future__ import annotations

import os
import sysconfig
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coderl.config import ConfigError, CorpusConfig, ProceduralConfig
from coderl.problems.procedural import ProceduralBenchmark
from coderl.records import DataError, read_rows
from coderl.seeds import derived_seed

GENERATED = "procedural"
OWN_LICENSE = "bsd-3-clause"
"""Licence of generated files: the project's own."""
STDLIB_LICENSE = "psf-2.0"
SKIPPED_FOLDERS = frozenset(
    {"test", "tests", "idle_test", "idlelib", "turtledemo", "site-packages", "dist-packages", "__pycache__", "_bundled"}
)
"""Folders of the standard library that are no library code: test data with deliberate errors, an application, other people's packages."""


@dataclass(frozen=True)
class SourceFile:
    """One Python file; `text` is None where the bytes are no text. `path` is relative to its source."""

    text: str | None
    license: str | None
    path: str
    source: str


def read_sources(config: CorpusConfig, procedural: ProceduralConfig, seed: int) -> Iterator[SourceFile]:
    """All files of all sources, in a fixed order.

    Raises:
        ConfigError: a source that does not exist, or a folder without `default_license`.
        DataError: a malformed row; names file, row and column.
    """
    for source in config.sources:
        if source == GENERATED:
            benchmark = ProceduralBenchmark(procedural)
            for index in range(config.procedural_files):
                yield SourceFile(benchmark.corpus_file(index), OWN_LICENSE, f"procedural/{index:06d}.py", source)
        elif source == "stdlib":
            yield from _stdlib(config.stdlib_files, seed)
        elif Path(source).is_dir():
            if config.default_license is None:
                raise ConfigError(
                    f"corpus: source {source!r} is a folder of files without a licence column; say theirs in 'default_license'"
                )
            for path in sorted(Path(source).rglob("*.py")):
                yield SourceFile(_text(path), config.default_license, path.relative_to(source).as_posix(), source)
        elif source.endswith((".jsonl", ".jsonl.gz", ".parquet")) and Path(source).exists():
            for number, row in read_rows(Path(source)):
                yield _row(row, source, number, config.default_license)
        else:
            raise ConfigError(
                f"corpus: source {source!r} is neither 'procedural', 'stdlib', a folder, nor an existing .jsonl, .jsonl.gz or .parquet file"
            )


def _stdlib(limit: int | None, seed: int) -> Iterator[SourceFile]:
    """Modules of the running interpreter's standard library; with a limit, a random choice of them."""
    root = Path(sysconfig.get_path("stdlib"))
    names = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]  # os.walk does not enter the others
        names += [(Path(folder) / name).relative_to(root).as_posix() for name in files if name.endswith(".py")]
    names.sort()
    if limit is not None:
        names = sorted(sorted(names, key=lambda name: derived_seed(seed, "stdlib", name))[:limit])
    for name in names:
        yield SourceFile(_text(root / name), STDLIB_LICENSE, name, "stdlib")


def _text(path: Path) -> str | None:
    """A Python file's text by its own coding line; None where it cannot be decoded."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (SyntaxError, UnicodeDecodeError, LookupError):
        return None


def _row(row: dict[str, Any], source: str, number: int, default_license: str | None) -> SourceFile:
    where = f"{source}: row {number}"
    for column in ("text", "path"):
        if not isinstance(row.get(column), str):
            raise DataError(f"{where}: column {column!r} must be a string, found {row.get(column)!r:.80}")
    stated = row.get("license", default_license)
    if "license" not in row and default_license is None:
        raise DataError(f"{where}: column 'license' is missing; add it, or say the licence of all rows in corpus.default_license")
    if stated is not None and not isinstance(stated, str):
        raise DataError(f"{where}: column 'license' must be a string or null, found {stated!r:.80}")
    text: str | None = row["text"]
    try:
        row["text"].encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can spell
        text = None
    return SourceFile(text, stated, row["path"], source)
