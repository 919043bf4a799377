"""How assert statements are taken apart."""

from __future__ import annotations

import pytest

from coderl.sandbox.asserts import Split, split


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("assert f(1, [2]) == (3, {'a': -4.5})", Split(("f(1, [2])",), "_value_0 == (3, {'a': -4.5})", (3, {"a": -4.5}), True)),
        ("assert f(g(1)) == None, 'message'", Split(("f(g(1))",), "_value_0 == None", None, True)),
        ("assert 4 == f(1)", Split(("f(1)",), "4 == _value_0")),
        ("assert f(1)", Split(("f(1)",), "_value_0")),
        ("assert not f(1)", Split(("f(1)",), "not _value_0")),
        ("assert f(1) == f(2)", Split(("f(1)", "f(2)"), "_value_0 == _value_1")),
        ("assert set(f(1)) == {1}", Split(("f(1)",), "set(_value_0) == {1}")),
        ("assert abs(f(1) - 2) < 1e-6", Split(("f(1)",), "abs(_value_0 - 2) < 1e-06")),
        ("assert math.isclose(f(1), math.pi)", Split(("f(1)",), "math.isclose(_value_0, math.pi)")),
        ("assert Solution().f(1) == 2", Split(("Solution().f(1)",), "_value_0 == 2", 2, True)),
        ("assert f(x) == y", Split(("f(x)", "y"), "_value_0 == _value_1")),
        ("assert all(v > 0 for v in f(1))", None),
        ("assert all(v > 0 for v in [1, 2]) and f(1)", Split(("f(1)",), "all((v > 0 for v in [1, 2])) and _value_0")),
        ("assert string(1) == 2", Split(("string(1)",), "_value_0 == 2", 2, True)),
        ("assert sum(1, 2) == 3", None),
        ("assert [f(i) for i in range(3)] == [0, 1, 2]", None),
        ("assert (x := f(1)) == 2", None),
        ("check(f)", None),
        ("assert check(f(1))", None),
        ("assert f(1) == 1; assert f(2) == 2", None),
        ("assert f(", None),
    ],
)
def test_split(statement: str, expected: Split | None) -> None:
    assert split(statement, "from typing import List\ndef check(x):\n    return x") == expected


def test_answers_known_beforehand_are_plain_values() -> None:
    """Objects, whatever they are called, equal nothing: they are never what a program may write to be right."""
    known = split("assert f(1) == (3, {'a': [-4.5]})")
    assert known is not None
    assert known.answer == [{"t": [3, {"d": [["a", [-4.5]]]}]}]
    for statement in (
        "assert f(1) == ...",
        "assert f(1) == [...]",
        f"assert f(1) == {'[' * 120}{']' * 120}",
        "assert f(1)",
        "assert 4 == f(1)",
    ):
        found = split(statement)
        assert found is None or found.answer is None, statement


def test_what_the_set_up_imports_is_known() -> None:
    assert split("assert approx(f(1)) == 2", "from tools import approx") == Split(("f(1)",), "approx(_value_0) == 2")
    assert split("assert approx(f(1)) == 2") == Split(("approx(f(1))",), "_value_0 == 2", 2, True)
