"""The official CodeRL checker's pipeline as seen from outside (spec 4.2): the rewriting of the program, the casting of the data.

What runs inside is inside/legacy.py, what compares is checkers.py. docs/outcomes.md says where this differs from the original.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_NUMPY = re.compile(r"\b(?:np|numpy)\b")
_FRACTIONS = re.compile(r"\bfractions\b")
_GUARD = "import sys\n"
"""First line of every executed source. The prelude itself runs as code objects of its own; this line keeps what it did to the
program's grammar: a `from __future__` import is no longer at the beginning, which is a syntax error (spec 4.5)."""
_HEAD = "stdin = sys.stdin\nstdout = sys.stdout\ndef code():\n"


@dataclass(frozen=True)
class Rewritten:
    """A program as the official checker executes it."""

    text: str
    inserted_at: int | None
    """Lines of the program before `def code():`; None when there is no such function."""

    def line(self, executed: int | None) -> int | None:
        """The program's own number of a line of `text`; None for a line that the program does not have."""
        if executed is None or executed <= 1:
            return None
        number = executed - 1
        if self.inserted_at is None or number <= self.inserted_at:
            return number
        return number - 3 if number > self.inserted_at + 3 else None


def uses_numpy(program: str) -> bool:
    """Whether a program writes one of the names under which numpy is known to APPS solutions."""
    return _NUMPY.search(program) is not None


def prelude(program: str, numpy: bool) -> list[str]:
    """The pieces of inside/prelude.py that matter to `program`; one whose name it never writes would change nothing."""
    pieces = ["common"]
    if _FRACTIONS.search(program):
        pieces.append("fractions")
    if numpy:
        pieces.append("numpy")
    return pieces


def rewrite_call(program: str) -> Rewritten:
    """A program that is called runs as it is."""
    return Rewritten(_GUARD + program, None)


def rewrite_stdin(program: str) -> Rewritten:
    """A script becomes the function `code`: from its first line on that does not start with `from ` or `import `, every line gets a TAB.

    Lines are cut at "\\n" wherever they stand, also inside a string of several lines, whose content changes with it.
    """
    lines = program.split("\n")
    imports = 0
    while imports < len(lines) and lines[imports].startswith(("from ", "import ")):
        imports += 1
    if imports == len(lines):
        return Rewritten(_GUARD + program + "\n", None)
    body = "".join(f"\t{line}\n" for line in lines[imports:])
    return Rewritten(_GUARD + "".join(f"{line}\n" for line in lines[:imports]) + _HEAD + body, imports)


def _integer_keys(value: dict[Any, Any]) -> dict[Any, Any] | None:
    try:
        return {int(key): part for key, part in value.items()}
    except (ValueError, TypeError):
        return None


def cast_arguments(arguments: Any) -> list[Any]:
    """The arguments of a call. Where the first is a dict its keys become integers, and all the other arguments are dropped (sic).

    A text instead of a list of arguments (CodeRL's example tests) is unpacked into its characters (sic).
    """
    if isinstance(arguments, list) and arguments and isinstance(arguments[0], dict):
        cast = _integer_keys(arguments[0])
        if cast is not None:
            return [cast]
    return list(arguments)


def cast_expected(expected: Any) -> Any:
    """The expected value of a call. A dict, or a list that begins with one, becomes a list of that dict alone with integer keys (sic)."""
    if isinstance(expected, dict):
        cast = _integer_keys(expected)
        return expected if cast is None else [cast]
    if isinstance(expected, list) and expected and isinstance(expected[0], dict):
        cast = _integer_keys(expected[0])
        return expected if cast is None else [cast]
    return expected
