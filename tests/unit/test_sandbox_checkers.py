"""Comparison of outputs: every row of spec 4.5 for the legacy checker, the corrected verdict for the strict one."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coderl.sandbox.checkers import PYTHON, STRICT, equal_value, legacy_output, legacy_value, strict_output
from coderl.sandbox.inside.codec import plain, value_of

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
]


@pytest.mark.parametrize(("found", "expected", "legacy", "strict"), OUTPUTS)
def test_outputs(found: str, expected: str, legacy: bool, strict: bool) -> None:
    assert legacy_output(found, expected) is legacy
    assert strict_output(found, expected) is strict


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
    ({1: "a"}, {"1": "a"}, False, False),
    ({1, 2}, [1, 2], False, False),
    ((x for x in [1, 2]), [1, 2], False, False),
    (range(3), [0, 1, 2], False, False),
    (None, None, True, True),
    (None, [], False, False),
    ("1", 1, False, False),
    (math.nan, math.nan, False, True),
    (math.inf, math.inf, True, True),
    (-math.inf, math.inf, False, False),
    (Liar(), 3, False, False),
    (LyingInt(4), 3, False, False),
    (LyingInt(3), 3, True, True),
    (LyingList([9]), [1, 2, 3], False, False),
    (CYCLE, [1, [1]], False, False),
    (DEEP, [[]], False, False),
    ([], [], True, True),
    ("", "", True, True),
    ([[1, (2, [3])]], [[1, [2, [3]]]], False, True),
]


@pytest.mark.parametrize(("found", "expected", "legacy", "strict"), VALUES, ids=range(len(VALUES)))
def test_values(found: Any, expected: Any, legacy: bool, strict: bool) -> None:
    form = json.loads(json.dumps(plain(found)))
    assert legacy_value(expected, form) is legacy
    assert equal_value(expected, form, STRICT) is strict


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(allow_nan=False)
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
    assert repr(back) == repr(value) or back == value
    assert type(back) is type(value)


@given(values, values)
def test_python_equality_of_the_journey(first: Any, second: Any) -> None:
    # The comparison along the expected value says what == says about the two values themselves (NaN aside).
    form = json.loads(json.dumps(plain(second)))
    if "nan" not in repr(first) and "nan" not in repr(second):
        assert equal_value(first, form, PYTHON) == (first == second)


def _json() -> st.SearchStrategy[Any]:
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda x: st.lists(x, max_size=3) | st.dictionaries(st.sampled_from("itdsfbyco"), x, max_size=2),
        max_leaves=10,
    )


@given(values, _json())
def test_forged_forms_are_harmless(expected: Any, form: Any) -> None:
    for rules in (STRICT, PYTHON):
        assert equal_value(expected, form, rules) in (True, False)
    assert legacy_value(expected, form) in (True, False)


@given(st.lists(st.text(min_size=1), max_size=5))
def test_strict_accepts_only_the_same_tokens(tokens: list[str]) -> None:
    text = " ".join(tokens)
    assert strict_output(text + "\n", text)
    assert not strict_output(text + " x", text)
