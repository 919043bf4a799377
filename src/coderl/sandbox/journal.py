"""What a killed `run-tests` had found: one line per judged program beside the output, read back when the stage starts again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Hashable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from coderl.records import keep, kept_name
from coderl.sandbox.outcome import Outcome

LOG = logging.getLogger(__name__)


def _digest(*parts: str) -> str:
    # The length before each part: ("ab", "c") is not ("a", "bc").
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class Journal:
    """Outcomes by (program, checker, CPU limit), kept in a file until `close(finished=True)`.

    A line is written and flushed as soon as a program is judged, so that a killed process loses what was being judged and nothing
    else; a half-written last line is dropped.

    Args:
        path: file to continue, or to begin.
        fingerprint: what the outcomes depend on besides these (tests, other limits, the judge). A file with another
            one is begun anew: its outcomes answer another question.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self.path = path
        self._known: dict[str, dict[str, Any]] = {}
        self._added = 0
        head = json.dumps({"fingerprint": fingerprint})
        lines = self._read(head)
        for line in lines:
            row = json.loads(line)
            self._known[row["key"]] = row["outcome"]
        if self._known:
            LOG.info("%s: %d programs had been judged before", path, len(self._known))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = open(path, "w", encoding="utf-8")  # noqa: SIM115
        self._file.write("".join(f"{line}\n" for line in [head, *lines]))
        self._file.flush()
        keep(path)

    def _read(self, head: str) -> list[str]:
        """The whole lines of outcomes of an earlier try at the same question."""
        if not self.path.exists():
            return []
        *whole, _torn = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        if not whole or whole[0] != head:
            LOG.warning("%s: begun with other tests, limits or another version; it is begun anew", self.path)
            return []
        return whole[1:]

    @staticmethod
    def _key(key: tuple[str, str], checker: str, cpu_seconds: float) -> str:
        return _digest(*key, checker, repr(cpu_seconds))

    def find(self, key: tuple[str, str], checker: str, cpu_seconds: float) -> Outcome | None:
        """The outcome of (task_id, program) by this checker under this limit, if it is known."""
        found = self._known.get(self._key(key, checker, cpu_seconds))
        return None if found is None else Outcome(**found)

    def add(self, key: Hashable, cpu_seconds: float, outcome: Outcome) -> None:
        """Keep an outcome."""
        assert isinstance(key, tuple)
        self._file.write(json.dumps({"key": self._key(key, outcome.checker, cpu_seconds), "outcome": asdict(outcome)}) + "\n")
        self._file.flush()
        self._added += 1

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Remove the file when all went well or nothing was judged, keep it for the next try when not."""
        self._file.close()
        if kind is None or not (self._known or self._added):
            self.path.unlink(missing_ok=True)
            if kept := kept_name(self.path):
                kept.unlink(missing_ok=True)
