"""Stage `corpus`: Python files for pretraining, each source through the same named filters, with statistics.

CodeRL states the licence list only (spec 1.1); the other filters are recipes of the same data's users, or ours, and each
can be loosened by its key.
"""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from coderl.config import CorpusConfig, ProceduralConfig
from coderl.corpus.filters import make_filters
from coderl.corpus.sources import SourceFile, read_sources
from coderl.records import DataError, atomic_path

LOG = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 30.0
"""In a log, where no bar is drawn."""
COLUMNS = ("text", "license", "path", "source")
STATISTICS = ("source", "filter", "files_in", "files_dropped", "characters_in", "characters_dropped")
ALL = "all filters"


def make_corpus(
    *, config: CorpusConfig, procedural: ProceduralConfig, decontaminate: list[Path], seed: int, output: Path, statistics: Path
) -> int:
    """Write the corpus (parquet with text, license, path, source) and what each filter dropped (CSV); returns files kept.

    Args:
        config: sources and filters.
        procedural: of the generated files; the same as for the problems, or held-out compositions would differ.
        decontaminate: problem files; a file that overlaps with any of their problems is dropped.
        seed: of the choice of library files and of MinHash.
        output: .parquet.
        statistics: .csv with one row per source and filter, and a row "all filters" (files read, files dropped) per source.

    Raises:
        ConfigError: an unusable source or key.
        DataError: a malformed row (file, row and column are named), nothing left, or an output of another suffix.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if output.suffix != ".parquet":
        raise DataError(f"{output}: the corpus is written as parquet; name the output .parquet")
    filters = make_filters(config, decontaminate, seed)
    counts = _Statistics([*filters, ALL])
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    kept = 0
    with atomic_path(statistics) as statistics_file, atomic_path(output) as corpus_file:
        with pq.ParquetWriter(corpus_file, schema, compression="zstd") as writer:
            rows: list[SourceFile] = []
            told = time.monotonic()
            for number, file in enumerate(tqdm(read_sources(config, procedural, seed), desc="corpus", unit="file", disable=None), 1):
                if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
                    told = time.monotonic()
                    LOG.info("corpus: %d files read, %d kept", number, kept)
                if _dropped(file, filters, counts):
                    continue
                rows.append(file)
                kept += 1
                if len(rows) == 4096:
                    _write(writer, schema, rows)
                    rows = []
            _write(writer, schema, rows)
        if not kept:
            raise DataError(f"{output}: the corpus is empty: {counts.worst()}; change 'sources' or that filter's key in the corpus section")
        counts.write(statistics_file)
    LOG.info("%s: %d files kept", output, kept)
    return kept


class _Statistics:
    """Per source and filter: files and characters that reached it, and those that it dropped."""

    def __init__(self, filters: list[str]) -> None:
        self.filters = filters
        self.table: dict[str, dict[str, list[int]]] = {}

    def count(self, file: SourceFile, name: str, *, dropped: bool) -> None:
        row = self.table.setdefault(file.source, {each: [0, 0, 0, 0] for each in self.filters})[name]
        size = len(file.text or "")
        for column, amount in enumerate((1, int(dropped), size, size if dropped else 0)):
            row[column] += amount

    def worst(self) -> str:
        """The filter that dropped most files, in words."""
        drops = [(row[1], name, source) for source, rows in self.table.items() for name, row in rows.items() if name != ALL]
        if not drops:
            return "the sources hold no file"
        files, name, source = max(drops)
        return f"filter '{name}' dropped most ({files} files of source '{source}')"

    def write(self, path: Path) -> None:
        with open(path, "w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(STATISTICS)
            writer.writerows([source, name, *row] for source, rows in self.table.items() for name, row in rows.items())


def _dropped(file: SourceFile, filters: dict[str, Callable[[SourceFile], bool]], counts: _Statistics) -> bool:
    """Whether some filter drops the file; it is counted at every filter that it reaches."""
    for name, drops in filters.items():
        dropped = drops(file)
        counts.count(file, name, dropped=dropped)
        if dropped:
            break
    counts.count(file, ALL, dropped=dropped)
    return dropped


def _write(writer: Any, schema: Any, rows: list[SourceFile]) -> None:
    import pyarrow as pa

    if rows:
        writer.write_table(pa.table({name: [getattr(row, name) for row in rows] for name in COLUMNS}, schema=schema))
