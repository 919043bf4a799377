"""Is this output right? `strict` is the rule of online judges, `legacy` the comparisons of the official CodeRL checker.

Outputs of functions arrive as the JSON of inside/codec.py and are compared along the *expected* value, never turned into
objects first: what a program returned can be neither deeper nor bigger than what is expected of it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

TOLERANCE = 1e-6
"""Relative and absolute, for expected tokens written as non-integers; ours: the usual promise of problem statements. The legacy
checker's 1e-5 together with rounding to 3 decimals lets wrong answers pass (spec 4.5)."""

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\Z", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+\Z", re.ASCII)
_INTEGER_TAG = "i"


def _close(found: float, expected: float) -> bool:
    return found == expected or abs(found - expected) <= TOLERANCE * max(1.0, abs(expected))


def strict_output(found: str, expected: str) -> bool:
    """Tokens in order, each as often as expected; case counts; white space only separates.

    A token equals the same text. Where the expected token is written as a number that is no integer (`2.50`, `1e-3`), any
    spelling of a number within the tolerance will do; integers have to be spelled the same.
    """
    if found == expected:
        return True
    tokens, wanted = found.split(), expected.split()
    if len(tokens) != len(wanted):
        return False
    for token, want in zip(tokens, wanted, strict=True):
        if token == want:
            continue
        if _INTEGER.match(want) or not _NUMBER.match(want) or not _NUMBER.match(token):
            return False
        if not _close(float(token), float(want)):
            return False
    return True


@dataclass(frozen=True)
class Equality:
    """How returned values compare: STRICT for calls, PYTHON for assert statements and the legacy checker."""

    tuples_are_lists: bool
    booleans_are_integers: bool
    tolerance: bool
    nan_equals_nan: bool


STRICT = Equality(tuples_are_lists=True, booleans_are_integers=False, tolerance=True, nan_equals_nan=True)
PYTHON = Equality(tuples_are_lists=False, booleans_are_integers=True, tolerance=False, nan_equals_nan=False)


def _number(form: Any) -> int | float | None:
    if isinstance(form, bool | int | float):
        return form
    if isinstance(form, dict) and len(form) == 1 and isinstance(form.get(_INTEGER_TAG), str):
        try:
            return int(form[_INTEGER_TAG], 16)
        except ValueError:
            return None
    return None


def _parts(form: Any, tag: str) -> list[Any] | None:
    if isinstance(form, dict) and len(form) == 1 and isinstance(form.get(tag), list):
        found: list[Any] = form[tag]
        return found
    return None


def _numbers_equal(expected: int | float, form: Any, rules: Equality) -> bool:
    found = _number(form)
    if found is None or (isinstance(found, bool) != isinstance(expected, bool) and not rules.booleans_are_integers):
        return False
    if isinstance(expected, float):
        if math.isnan(expected):
            return rules.nan_equals_nan and isinstance(found, float) and math.isnan(found)
        if rules.tolerance and not math.isinf(expected):
            try:
                return _close(float(found), expected)
            except OverflowError:
                return False
    return found == expected


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
    if expected is None or isinstance(expected, str):
        return type(form) is type(expected) and bool(form == expected)
    if isinstance(expected, bool | int | float):
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
    if isinstance(expected, complex):
        parts = _parts(form, "c")
        return parts == [expected.real, expected.imag] or (expected.imag == 0 and _numbers_equal(expected.real, form, rules))
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
            if equal_value(key, found_key, rules):
                if not equal_value(value, found_value, rules):
                    return False
                del others[position]
                break
        else:
            return False
    return not texts and not others


def legacy_value(expected: Any, form: Any) -> bool:
    """Spec 4.3: `==`; or equal to the first element of a non-empty expected list; or so after its tuples became lists."""
    as_tuple = _parts(form, "t")
    if as_tuple is not None:
        form = as_tuple
    if equal_value(expected, form, PYTHON):
        return True
    first = expected[0] if isinstance(expected, list) and expected else None
    if isinstance(expected, list) and expected and equal_value(first, form, PYTHON):
        return True
    if isinstance(form, list) and form and _parts(form[0], "t") is not None and isinstance(expected, list) and expected:
        rows = [part if isinstance(part, list) else _parts(part, "t") for part in form]
        return all(row is not None for row in rows) and equal_value(first, rows, PYTHON)
    return False


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
