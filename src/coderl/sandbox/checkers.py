"""Is this output right? `strict` is the rule of online judges, `legacy` the comparisons of the official CodeRL checker.

Outputs of functions arrive as the JSON of inside/codec.py and are compared along the *expected* value, never turned into
objects first: what a program returned can be neither deeper nor bigger than what is expected of it.
"""

from __future__ import annotations

import decimal
import math
import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

TOLERANCE = 1e-6
"""Relative and absolute, for expected tokens written as non-integers; ours: the usual promise of problem statements. The legacy
checker's 1e-5 together with rounding to 3 decimals lets wrong answers pass (spec 4.5)."""

# Each of these reads a token once: what a program prints may be ten million digits.
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?\Z", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+\Z", re.ASCII)
_LONG_FRACTION = 1 << 17
"""Bits; reducing a longer one, which a program can forge, would keep the judge busy."""
_WIDE = decimal.Context(prec=50, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[])


def _close(found: float, expected: float) -> bool:
    return found == expected or abs(found - expected) <= TOLERANCE * max(1.0, abs(expected))


def _tokens_close(found: str, expected: str) -> bool:
    """Whether two spellings of numbers are close; beyond the range of floats by decimals, where infinity is no number."""
    number, wanted = float(found), float(expected)
    if math.isfinite(number) and math.isfinite(wanted):
        return _close(number, wanted)
    big, goal = (_WIDE.create_decimal(token) for token in (found, expected))
    if not big.is_finite() or not goal.is_finite():
        return False
    return bool(_WIDE.abs(_WIDE.subtract(big, goal)) <= _WIDE.multiply(_WIDE.abs(goal), Decimal("1e-6")))


def strict_output(found: bytes | str, expected: str) -> bool:
    """Tokens in order, each as often as expected; case counts; white space (of Unicode: APPS has no-break spaces) only separates.

    A token equals the same text. Where the expected token is written as a number that is no integer (`2.50`, `1e-3`), any
    spelling of a number within the tolerance will do; integers have to be spelled the same. A byte that is no UTF-8 equals nothing.
    """
    given = found if isinstance(found, str) else found.decode("utf-8", "surrogateescape")
    if given == expected:
        return True
    wanted = expected.split()
    # What follows as many tokens as are expected is left in one piece: a flood of output makes no flood of tokens.
    tokens = given.split(None, len(wanted))
    if len(tokens) != len(wanted):
        return False
    for token, want in zip(tokens, wanted, strict=True):
        if token == want:
            continue
        if _INTEGER.match(want) or not _NUMBER.match(want) or not _NUMBER.match(token):
            return False
        if not _tokens_close(token, want):
            return False
    return True


@dataclass(frozen=True)
class Equality:
    """How returned values compare: STRICT for calls, PYTHON for assert statements and (with `believes`) the legacy checker."""

    tuples_are_lists: bool
    booleans_are_integers: bool
    tolerance: bool
    nan_equals_nan: bool
    believes: bool = False
    """An object that claims to equal everything does."""


STRICT = Equality(tuples_are_lists=True, booleans_are_integers=False, tolerance=True, nan_equals_nan=True)
PYTHON = Equality(tuples_are_lists=False, booleans_are_integers=True, tolerance=False, nan_equals_nan=False)
_LEGACY = Equality(tuples_are_lists=False, booleans_are_integers=True, tolerance=False, nan_equals_nan=False, believes=True)


def _number(form: Any) -> int | float | complex | Fraction | Decimal | None:
    if isinstance(form, bool | int | float):
        return form
    if not isinstance(form, dict) or len(form) != 1:
        return None
    ((tag, body),) = form.items()
    try:
        if tag == "i" and isinstance(body, str):
            return int(body, 16)
        if tag == "m" and isinstance(body, str):
            value = Decimal(body)
            return None if value.is_snan() else value
        if tag == "r" and isinstance(body, list) and len(body) == 2:
            above, below = _number(body[0]), _number(body[1])
            if not isinstance(above, int) or not isinstance(below, int) or max(above.bit_length(), below.bit_length()) > _LONG_FRACTION:
                return None
            return Fraction(above, below)
        if tag == "c" and isinstance(body, list) and len(body) == 2 and all(isinstance(part, float) for part in body):
            return complex(*body)
    except (ValueError, ArithmeticError):
        return None
    return None


def _parts(form: Any, tag: str) -> list[Any] | None:
    if isinstance(form, dict) and len(form) == 1 and isinstance(form.get(tag), list):
        found: list[Any] = form[tag]
        return found
    return None


def _numbers_equal(expected: int | float | complex, form: Any, rules: Equality) -> bool:
    found = _number(form)
    if found is None or (isinstance(found, bool) != isinstance(expected, bool) and not rules.booleans_are_integers):
        return False
    if isinstance(expected, float):
        if isinstance(found, complex):
            if found.imag != 0:
                return False
            found = found.real
        if math.isnan(expected):
            return rules.nan_equals_nan and isinstance(found, float | Decimal) and math.isnan(found)
        if rules.tolerance and not math.isinf(expected):
            try:
                return _close(float(found), expected)
            except OverflowError:
                return False
    return bool(found == expected)


def _unordered(expected: Any, parts: list[Any], rules: Equality) -> bool:
    """Every expected member meets a found one of its own. Quadratic in the size of what is expected, in which there are no floods."""
    left = list(parts)
    for value in expected:
        for position, form in enumerate(left):
            if equal_value(value, form, rules):
                del left[position]
                break
        else:
            return False
    return not left


def equal_value(expected: Any, form: Any, rules: Equality = STRICT) -> bool:
    """Whether the value in `form` (JSON of codec.plain) equals `expected`, a value of built-in types.

    STRICT: tuple equals list at any depth; True is not 1; an expected integer is met by an equal number exactly, an expected
    float within the tolerance; NaN equals NaN. PYTHON: what `==` says. A set, a generator or an object equals no list.
    """
    if isinstance(form, dict) and len(form) == 1 and "e" in form:
        return rules.believes
    if expected is None or isinstance(expected, str):
        return type(form) is type(expected) and bool(form == expected)
    if isinstance(expected, bool | int | float | complex):
        return _numbers_equal(expected, form, rules)
    if isinstance(expected, list | tuple):
        if rules.tuples_are_lists:
            parts = form if isinstance(form, list) else _parts(form, "t")
        else:
            parts = _parts(form, "t") if isinstance(expected, tuple) else (form if isinstance(form, list) else None)
        if parts is None or len(parts) != len(expected):
            return False
        return all(equal_value(value, part, rules) for value, part in zip(expected, parts, strict=True))
    if isinstance(expected, dict):
        pairs = _parts(form, "d")
        if pairs is None or len(pairs) != len(expected) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            return False
        return _dicts_equal(expected, pairs, rules)
    if isinstance(expected, set | frozenset):
        members = _parts(form, "s")
        if members is None:
            members = _parts(form, "f")
        return members is not None and len(members) == len(expected) and _unordered(expected, members, rules)
    if isinstance(expected, bytes | bytearray):
        return form in ({"b": expected.hex()}, {"y": expected.hex()})
    return False


def _dicts_equal(expected: dict[Any, Any], pairs: list[Any], rules: Equality) -> bool:
    texts = {key: part for key, part in pairs if isinstance(key, str)}
    others = [pair for pair in pairs if not isinstance(pair[0], str)]
    for key, value in expected.items():
        if isinstance(key, str):
            if key not in texts or not equal_value(value, texts.pop(key), rules):
                return False
            continue
        for position, (found_key, found_value) in enumerate(others):
            if equal_value(key, found_key, PYTHON if rules.believes else rules):
                if not equal_value(value, found_value, rules):
                    return False
                del others[position]
                break
        else:
            return False
    return not texts and not others


def legacy_value(expected: Any, form: Any, rows: Any = None) -> bool:
    """Spec 4.3: `==`; or equal to the first element of a non-empty expected list; or so after its tuples became lists.

    Args:
        expected: as legacy.cast_expected left it.
        form: what was returned; a tuple has become a list already.
        rows: [list(x) for x in result] where that is a sequence which begins with a tuple, else None (inside/legacy.py).
    """
    if equal_value(expected, form, _LEGACY):
        return True
    if not isinstance(expected, list | str) or not expected:
        return False
    if isinstance(expected, list) and equal_value(expected[0], form, _LEGACY):
        return True
    return rows is not None and equal_value(expected[0], rows, _LEGACY)


def _all_close(found: list[str], expected: list[str]) -> bool:
    try:
        numbers, wanted = [float(line) for line in found], [float(line) for line in expected]
    except ValueError:
        return False
    if len(numbers) != len(wanted):
        return False
    # numpy.allclose: infinities must be equal, NaN equals nothing.
    return all(
        a == b or (math.isfinite(a) and math.isfinite(b) and abs(a - b) <= 1e-8 + 1e-5 * abs(b))
        for a, b in zip(numbers, wanted, strict=True)
    )


def legacy_output(found: str, expected: str) -> bool:
    """Spec 4.4, row by row: the comparison cascade of the official checker, which ignores order and multiplicity at its end."""
    lines = found.splitlines()
    if "\n".join(lines).strip() == expected.strip():
        return True
    if "\n".join(line.strip() for line in lines).strip() == expected.strip():
        return True
    if lines == [expected]:
        return True
    wanted = [line.strip() for line in expected.split("\n") if line]
    if lines == wanted:
        return True
    lines = [line for line in lines if line]
    if lines == wanted or _all_close(lines, wanted):
        return True
    found_sets = [set(line.split()) for line in lines if line.split()]
    wanted_sets = [set(line.split()) for line in wanted]
    if {frozenset(tokens) for tokens in found_sets} == {frozenset(tokens) for tokens in wanted_sets}:
        return True
    try:
        rounded = {frozenset(round(float(token), 3) for token in tokens) for tokens in found_sets}
        return rounded == {frozenset(round(float(token), 3) for token in tokens) for tokens in wanted_sets}
    except (ValueError, OverflowError):
        return False
