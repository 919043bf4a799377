"""Comparison of outputs: every row of spec 4.5 for the legacy checker, the corrected verdict for the strict one."""

from __future__ import annotations

import json
import math
import time
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coderl.sandbox.checkers import PYTHON, STRICT, TOLERANCE, equal_value, legacy_output, legacy_value, strict_output
from coderl.sandbox.inside import legacy as inside_legacy
from coderl.sandbox.inside.codec import MAX_DEPTH, MAX_NODES, plain, value_of
from coderl.sandbox.legacy import cast_expected

# (printed, expected, legacy, strict): the table of spec 4.5 and the cascade of 4.4.
OUTPUTS = [
    ("2 1\n", "1 2", True, False),
    ("2\n1\n", "1\n2", True, False),
    ("NO YES\n", "YES NO", True, False),
    ("1 2\n", "1 1 2", True, False),
    ("5 5 5\n", "5", True, False),
    ("1\n1\n1\n", "1", True, False),
    ("1000001\n", "1000000", True, False),
    ("1000009\n", "1000000", True, False),
    ("998244300\n", "998244353", True, False),
    ("0.0004\n", "0.0", True, False),
    ("0.3334\n", "0.3333", True, False),
    ("", "", True, True),
    ("\n", "", True, True),
    ("1 2\n", "1 2", True, True),
    ("1 2", "1 2\n", True, True),
    ("1  2 \n", "1 2\n", True, True),
    ("1\n\n2\n", "1\n2\n", True, True),
    ("1\r\n2\r\n", "1\n2\n", True, True),
    ("Yes\n", "YES", False, False),
    ("1 3\n", "1 2", False, False),
    ("1\n", "1\n2", False, False),
    ("", "1", False, False),
    ("1", "", False, False),
    ("3.0\n", "3", True, False),
    ("3\n", "3.0", True, True),
    ("3.0000001\n", "3.0", True, True),
    ("3.1\n", "3.0", False, False),
    ("1e5\n", "100000.0", True, True),
    ("abc\n", "3.0", False, False),
    ("nan\n", "nan", True, True),
    ("a\n\nb\n", "a\nb", True, True),
    ("01\n", "1", True, False),
    ("+1\n", "1", True, False),
    ("-0\n", "0", True, False),
    ("1_000.0\n", "1000.0", True, False),
    # White space is Unicode's, as for str.split(). Legacy: str.splitlines() cuts at more.
    ("a\tb\x0bc\x0cd\n", "a b c d", False, True),
    ("a\u00a0b\n", "a b", True, True),
    ("a\u3000b\n", "a\u3000b", True, True),
    ("a\x1cb\n", "a b", False, True),
    ("\n\n  a\n\n", "a", True, True),
    ("a\rb\n", "a\nb", True, True),
    # Signs, zeros and other spellings count where an integer or a word is expected, and only there.
    ("+5\n", "5", True, False),
    ("-0\n", "0", True, False),
    ("-0.0\n", "0.0", True, True),
    ("100000\n", "1e5", True, True),
    ("1e5\n", "100000", True, False),
    ("+2.5\n", "2.50", True, True),
    (".5\n", "0.5", True, True),
    ("5.\n", "5.0", True, True),
    ("0x10\n", "16.0", False, False),
    ("1,000.0\n", "1000.0", False, False),
    ("2.5000009\n", "2.5", True, True),
    ("2.500004\n", "2.5", True, False),
    ("1234567.8\n", "1234567.1", True, True),
    ("1234569.8\n", "1234567.1", True, False),
    ("0.0000009\n", "0.0", True, True),
    ("٣.0\n", "3.0", True, False),
    # Integers are exact at any length; floats beyond the range of floats are compared all the same.
    ("1" * 5000 + "2\n", "1" * 5000 + "3", True, False),
    ("9" * 400 + ".0\n", "9" * 400 + ".0", True, True),
    ("7.0\n", "9" * 400 + ".0", False, False),
    ("7\n", "1e400", False, False),
    ("1e500\n", "1e400", True, False),
    ("1.0000001e400\n", "1e400", True, True),
    ("1e99999999999999999999\n", "1e88888888888888888888", True, False),
    # Words that float() knows are words.
    ("NaN\n", "nan", False, False),
    ("inf\n", "Infinity", True, False),
    ("inf\n", "inf", True, True),
    ("-inf\n", "1e400", False, False),
    # One byte order mark more is one token wrong.
    ("\ufeff1\n", "1", False, False),
    ("1 2 3 \n", "1 2", False, False),
    ("1 2 x", "1 2", False, False),
]


@pytest.mark.parametrize(("found", "expected", "legacy", "strict"), OUTPUTS)
def test_outputs(found: str, expected: str, legacy: bool, strict: bool) -> None:
    assert legacy_output(found, expected) is legacy
    assert strict_output(found, expected) is strict


def test_a_byte_that_is_no_text_equals_nothing() -> None:
    assert strict_output(b"a\xff", "a\ufffd") is False
    assert strict_output("a\ufffd".encode(), "a\ufffd") is True


def test_floods_cost_no_time() -> None:
    begun = time.process_time()
    digits = b"1" * 10_000_000
    assert strict_output(digits + b"x", "1.5") is False  # a regular expression that tries every split would never end
    assert strict_output(digits + b".5", "1.5") is False
    assert strict_output(b"1." + digits + b"e", "1.5") is False
    assert strict_output(b"a " * 5_000_000, "a b") is False
    forged = {"i": "f" * 15_000_000}
    assert equal_value(1, {"r": [forged, {"i": "e" * 15_000_000}]}) is False
    assert equal_value(1.5, forged) is False
    assert equal_value(1.5, {"m": "1" * 15_000_000}) is False
    assert equal_value(3, {"m": "1e999999999"}) is False
    assert time.process_time() - begun < 5


def test_legacy_survives_where_the_official_checker_raised() -> None:
    # Spec 4.6: expected "a\nb", printed "a\n\nb" raised UnboundLocalError there and lost all later programs of the problem.
    assert legacy_output("a\n\nc\n", "a\nb") is False


class Liar:
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 0


class LyingInt(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


class LyingList(list):  # type: ignore[type-arg]
    def __eq__(self, other: object) -> bool:
        return True

    def __iter__(self) -> Any:
        return iter([1, 2, 3])

    def __len__(self) -> int:
        return 3


class Unequal:
    """Equal to nothing, and everything compares to it by chance of its attributes, as nodes of a tree do."""

    def __eq__(self, other: Any) -> bool:
        return bool(self.value == other.value)  # type: ignore[attr-defined]

    __hash__ = object.__hash__


class Colour(Enum):
    RED = 1


class Level(IntEnum):
    LOW = 1


class Text(str):
    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


Point = namedtuple("Point", "x y")
CYCLE: list[Any] = [1]
CYCLE.append(CYCLE)
DEEP: list[Any] = []
for _ in range(5000):
    DEEP = [DEEP]

# (returned, expected, legacy, strict)
VALUES: list[tuple[Any, Any, bool, bool]] = [
    (3, 3, True, True),
    (3.0, 3, True, True),
    (3, 3.0, True, True),
    (True, 1, True, False),
    (1, True, True, False),
    (True, True, True, True),
    (0.1 + 0.2, 0.3, False, True),
    (10**20, 10**20, True, True),
    (10**20 + 1, 10**20, False, False),
    (float(10**20), 10**20 + 1, False, False),
    ((1, 2), [1, 2], True, True),
    ([(1, 2), (3, 4)], [[1, 2], [3, 4]], False, True),
    ([(1, 2)], [[[1, 2]]], True, False),
    ([1, 2], [[1, 2]], True, False),
    ([1, 2], [1, 2, 3], False, False),
    ([2, 1], [1, 2], False, False),
    ({"a": [1]}, {"a": [1]}, True, True),
    ({1: "a"}, {"1": "a"}, True, False),  # legacy makes the expected keys integers
    ({1, 2}, [1, 2], False, False),
    ((x for x in [1, 2]), [1, 2], False, False),
    (range(3), [0, 1, 2], False, False),
    (None, None, True, True),
    (None, [], False, False),
    ("1", 1, False, False),
    (math.nan, math.nan, False, True),
    (math.inf, math.inf, True, True),
    (-math.inf, math.inf, False, False),
    (Liar(), 3, True, False),
    ([Liar(), 1], [3, 1], True, False),
    ([Liar(), 1], [3, 2], False, False),
    (LyingInt(4), 3, True, False),
    (LyingInt(3), 3, True, True),
    (LyingList([9]), [1, 2, 3], True, False),
    (Text("a"), "a", True, True),  # its own equality is not asked
    (Point(1, 2), [1, 2], True, True),
    (OrderedDict(a=1), {"a": 1}, True, True),
    (defaultdict(int, {"a": 1}), {"a": 1}, True, True),
    (Counter("aab"), {"a": 2, "b": 1}, True, True),
    (deque([1, 2]), [1, 2], False, False),
    (deque([(1, 2)]), [[[1, 2]]], True, False),
    ({"a": 1}.keys(), ["a"], False, False),
    (Colour.RED, 1, False, False),
    (Level.LOW, 1, True, True),
    (frozenset([1]), [1], False, False),
    (b"a", "a", False, False),
    (3 + 0j, 3, True, True),
    (3 + 1j, 3, False, False),
    (Fraction(6, 2), 3, True, True),
    (Fraction(1, 2), 0.5, True, True),
    (Fraction(1, 10), 0.1, False, True),
    (Fraction(7, 2), 3, False, False),
    (Decimal("3.0"), 3, True, True),
    (Decimal("0.1"), 0.1, False, True),
    (Decimal("1e999999"), 3, False, False),
    (Decimal("NaN"), math.nan, False, True),
    (Decimal("sNaN"), math.nan, False, False),
    (Decimal("Infinity"), math.inf, True, True),
    (10**400, 1.5, False, False),
    (10**400, math.inf, False, False),
    (-0.0, 0, True, True),
    (0.30000000000000004, 0.3, False, True),
    ([True], [1], True, False),
    ({"a": (1, [2])}, {"a": [1, [2]]}, False, True),
    ({"a": 1, "b": 2}, {"a": 1}, False, False),
    ({}, [], False, False),
    ([], {}, False, False),
    ({"1": 2}, {"1": 2}, False, True),  # legacy has made the expected keys integers
    (CYCLE, [1, [1]], False, False),
    (DEEP, [[]], False, False),
    ([], [], True, True),
    ("", "", True, True),
    ([[1, (2, [3])]], [[1, [2, [3]]]], False, True),
]


@pytest.mark.parametrize(("found", "expected", "legacy", "strict"), VALUES, ids=range(len(VALUES)))
def test_values(found: Any, expected: Any, legacy: bool, strict: bool) -> None:
    assert equal_value(expected, _sent(found), STRICT) is strict
    given = list(found) if isinstance(found, tuple) else found
    form = _sent(given, believe=True)  # before the rows: to ask a defaultdict for its first row adds a key
    rows = json.loads(json.dumps(inside_legacy._rows(given)))
    assert legacy_value(cast_expected(expected), form, rows) is legacy


def _sent(value: Any, believe: bool = False) -> Any:
    return json.loads(json.dumps(plain(value, believe)))


def test_a_comparison_that_raises_is_an_error_of_the_program() -> None:
    with pytest.raises(AttributeError):
        plain([Unequal()], believe=True)
    assert plain([Unequal()]) == [{"o": "Unequal"}]


def test_what_is_too_big_is_not_sent() -> None:
    assert plain([0] * MAX_NODES) == [0] * MAX_NODES
    assert list(plain([0] * (MAX_NODES + 1))) == ["o"]
    deep: Any = 0
    for _ in range(MAX_DEPTH):
        deep = [deep]
    assert plain(deep) == deep
    assert list(plain([deep])) == ["o"]


def test_numpy_results() -> None:
    import numpy

    for value, expected in ((numpy.int64(3), 3), (numpy.float64(0.5), 0.5), (numpy.bool_(True), True), ([numpy.float32(2)], [2])):
        assert equal_value(expected, _sent(value), STRICT)
        assert legacy_value(expected, _sent(value, believe=True))
    assert not equal_value(1, _sent(numpy.bool_(True)), STRICT)
    assert not equal_value([1, 2], _sent(numpy.array([1, 2])), STRICT)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.complex_numbers(allow_nan=False)
    | st.fractions()
    | st.decimals(allow_nan=False)
)
# Few values, so that equal ones of different types meet.
near = st.sampled_from(
    [0, 1, 2, True, False, 0.0, 1.0, -0.0, 2.5, 1 + 0j, 1j, Fraction(1), Fraction(5, 2), Decimal(1), Decimal("2.50"), 2**70]
)
hashable = st.recursive(st.booleans() | st.integers() | st.text(), lambda x: st.tuples(x, x) | st.frozensets(x, max_size=3), max_leaves=5)
values = st.recursive(
    scalars,
    lambda x: st.lists(x, max_size=4) | st.tuples(x, x) | st.dictionaries(hashable, x, max_size=3) | st.sets(hashable, max_size=3),
    max_leaves=12,
)


@given(values)
def test_a_value_survives_the_journey(value: Any) -> None:
    form = json.loads(json.dumps(plain(value)))
    back = value_of(form)
    # Sorted: NaN has another hash every time, and a set with it another order.
    assert sorted(repr(back)) == sorted(repr(value)) or back == value
    assert type(back) is type(value)


@settings(deadline=None)
@given(near | st.lists(near, max_size=2), near | st.lists(near, max_size=2))
def test_python_equality_of_numbers(first: Any, second: Any) -> None:
    # A literal is never a Fraction or a Decimal, a result may be.
    if not {type(part) for part in (first if isinstance(first, list) else [first])} & {Fraction, Decimal}:
        assert equal_value(first, _sent(second), PYTHON) == (first == second)


@given(values, values)
def test_python_equality_of_the_journey(first: Any, second: Any) -> None:
    # The comparison along the expected value says what == says about the two values themselves (NaN aside).
    form = json.loads(json.dumps(plain(second)))
    if "nan" not in repr(first) and "nan" not in repr(second) and "Fraction" not in repr(first) and "Decimal" not in repr(first):
        assert equal_value(first, form, PYTHON) == (first == second)


def _json() -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from("itdsfbycormeo"), x, max_size=2),
        max_leaves=10,
    )


@given(values, _json())
def test_forged_forms_are_harmless(expected: Any, form: Any) -> None:
    for rules in (STRICT, PYTHON):
        assert equal_value(expected, form, rules) in (True, False)
    assert legacy_value(expected, form, form) in (True, False)


@given(st.lists(st.text(min_size=1), max_size=5))
def test_strict_accepts_only_the_same_tokens(tokens: list[str]) -> None:
    text = " ".join(tokens)
    assert strict_output(text + "\n", text)
    assert not strict_output(text + " x", text)


# ------------------------------------------------------------- the strict rules once more, slow and in other words


WHITE = " \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))


def slow_tokens(text: str) -> list[str]:
    tokens, token = [], ""
    for character in text + " ":
        if character in WHITE:
            if token:
                tokens.append(token)
            token = ""
        else:
            token += character
    return tokens


def slow_number(token: str) -> tuple[Fraction, bool] | None:
    """(value, written as an integer), None for a word."""
    sign = -1 if token.startswith("-") else 1
    rest = token[1:] if token[:1] in ("+", "-") else token
    mantissa, letter, exponent = rest.partition("e") if "e" in rest else rest.partition("E")
    power = 0
    if letter:
        digits = exponent[1:] if exponent[:1] in ("+", "-") else exponent
        if not digits or any(d not in "0123456789" for d in digits):
            return None
        power = int(digits) * (-1 if exponent[0] == "-" else 1)
    whole, point, part = mantissa.partition(".")
    if not (whole + part) or any(d not in "0123456789" for d in whole + part):
        return None
    return sign * Fraction(int(whole + part), 10 ** len(part)) * Fraction(10) ** power, not letter and not point


def slow_output(found: str, expected: str) -> bool | None:
    """The documented rule in exact arithmetic; None where the answer hangs on the last bit of a float."""
    left, right = slow_tokens(found), slow_tokens(expected)
    if len(left) != len(right):
        return False
    sure = True
    for token, want in zip(left, right, strict=True):
        if token == want:
            continue
        goal, number = slow_number(want), slow_number(token)
        if goal is None or goal[1] or number is None:
            return False
        slack = Fraction(1, 10**6) * max(Fraction(1), abs(goal[0])) - abs(number[0] - goal[0])
        if abs(slack) < Fraction(1, 10**12) * max(Fraction(1), abs(goal[0])):
            sure = False
        elif slack < 0:
            return False
    return True if sure else None


number_texts = st.builds(
    lambda sign, whole, point, part, exponent: sign + whole + point + part + exponent,
    st.sampled_from(["", "", "-", "+"]),
    st.sampled_from(["", "0", "00", "1", "10", "9999999", "123456789012345678901", "1" * 320]),
    st.sampled_from(["", "", "."]),
    st.sampled_from(["", "0", "5", "0000001", "999999", "0000009"]),
    st.sampled_from(["", "", "", "e0", "E1", "e+2", "e-3", "e400", "e-400", "e"]),
)
other_texts = st.sampled_from(
    ["nan", "inf", "-inf", "Infinity", "1_0", "0x1", "a", "A", "1.2.3", "\u00a0", "٣", "é", "1e", "--1", "+", "."]
)
gaps = st.sampled_from([" ", "  ", "\n", "\r\n", "\t", "\v", "\f", "\n\n", " \n", "\u2003", "\x1c", "\x85"])
texts = st.lists(st.tuples(number_texts | other_texts, gaps), max_size=4).map(lambda parts: "".join(token + gap for token, gap in parts))


@settings(max_examples=600, deadline=None)
@given(texts, texts | st.none(), st.data())
def test_strict_output_against_the_slow_rule(expected: str, found: str | None, data: st.DataObject) -> None:
    if found is None:  # the expected tokens with other gaps and sometimes another spelling: what often passes
        tokens = [data.draw(number_texts) if data.draw(st.integers(0, 4)) == 0 else token for token in slow_tokens(expected)]
        found = "".join(token + data.draw(st.sampled_from([" ", "\n", "\r\n", "\t "])) for token in tokens)
    verdict = slow_output(found, expected)
    if verdict is not None:
        assert strict_output(found, expected) is verdict
        assert strict_output(found.encode(), expected) is verdict


def slow_value(found: Any, expected: Any) -> bool:
    """The documented rule for returned values, on the values themselves."""
    if isinstance(expected, list | tuple):
        same = isinstance(found, list | tuple) and len(found) == len(expected)
        return same and all(slow_value(f, e) for f, e in zip(found, expected, strict=True))
    if isinstance(expected, dict):
        if not isinstance(found, dict) or len(found) != len(expected):
            return False
        return all(
            any(type(k) is type(key) and k == key and slow_value(v, value) for k, v in found.items()) for key, value in expected.items()
        )
    if isinstance(expected, bool) or isinstance(found, bool):
        return found is expected
    if isinstance(expected, int):
        return isinstance(found, int | float | complex | Fraction | Decimal) and found == expected
    if isinstance(expected, float):
        if not isinstance(found, int | float | complex | Fraction | Decimal) or (isinstance(found, complex) and found.imag):
            return False
        value = found.real if isinstance(found, complex) else found
        if math.isnan(expected) or math.isinf(expected) or math.isnan(value) or (not isinstance(value, int) and math.isinf(value)):
            return value == expected or (math.isnan(expected) and math.isnan(value))
        return abs(Fraction(value) - Fraction(expected)) <= Fraction(TOLERANCE) * max(Fraction(1), abs(Fraction(expected)))
    return type(found) is type(expected) and bool(found == expected)


json_scalars = (
    st.none() | st.booleans() | st.sampled_from([0, 1, -1, 2, 3, 10**20, 0.0, 1.0, 0.5, 1.0000001, 1e300, math.inf, math.nan, "", "1", "a"])
)
json_values = st.recursive(
    json_scalars, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from(["1", "a"]), x, max_size=2), max_leaves=6
)
results = st.recursive(
    json_scalars | near,
    lambda x: st.lists(x, max_size=3) | st.tuples(x) | st.tuples(x, x) | st.dictionaries(st.sampled_from(["1", "a", 1]), x, max_size=2),
    max_leaves=6,
)


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(part) for part in value) if isinstance(value, list) else value


@settings(max_examples=600, deadline=None)
@given(json_values, results, st.booleans())
def test_strict_values_against_the_slow_rule(expected: Any, found: Any, same: bool) -> None:
    if same:
        found = _as_tuples(expected)
    assert equal_value(expected, _sent(found), STRICT) is slow_value(found, expected)


plain_texts = st.text(alphabet="ab1. \n\t", max_size=12)


@settings(deadline=None)
@given(plain_texts, plain_texts)
def test_legacy_accepts_the_same_lines(found: str, expected: str) -> None:
    if [slow_tokens(line) for line in found.split("\n") if line.strip()] == [
        slow_tokens(line) for line in expected.split("\n") if line.strip()
    ] and all(line.strip() for line in expected.split("\n")):
        assert legacy_output(found, expected)
