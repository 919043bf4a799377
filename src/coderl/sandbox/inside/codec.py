"""Values as plain JSON: exact built-in types with their kinds kept, anything else only by the name of its type.

The child that runs a program sends what a function returned; the judge outside compares it. A value that claims to be
something else (a subclass with its own `__eq__`, an object equal to everything) does not survive: subclasses of the
built-in types are read with the methods of their base, other objects become `{"o": "type name"}` and equal nothing.
"""

from __future__ import annotations

import builtins
import sys
from typing import Any

# A copy: patched builtins do not change what is read here.
globals()["__builtins__"] = dict(builtins.__dict__)

MAX_DEPTH = 100
MAX_NODES = 1_000_000
JSON_INTEGERS = 1 << 63
_SIMPLE = {int, float, str, bool, type(None)}
_bases = type.__dict__["__mro__"].__get__
_EXACT = frozenset((type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset))
_STRANGER = object()
_modules = sys.modules


class _Budget:
    def __init__(self, believe: bool) -> None:
        self.nodes = MAX_NODES
        self.believe = believe


class _TooMuchError(Exception):
    """A value deeper than MAX_DEPTH (or cyclic), or of more than MAX_NODES parts."""


def plain(value: Any, believe: bool = False) -> Any:
    """`value` as JSON: null, booleans, strings, floats, small integers and lists stand for themselves.

    The rest is an object with one key: "i" integer in hexadecimal, "t" tuple, "d" dict as pairs, "s" set, "f" frozenset,
    "b" bytes in hexadecimal, "y" bytearray, "c" complex, "r" Fraction as two integers, "m" Decimal as text, "x" another value
    of the library (deque, range, date, ...), "o" anything else. Cycles and values deeper than MAX_DEPTH or of more than
    MAX_NODES parts become "o". A scalar of numpy is the number that it holds.

    With `believe` (the legacy checker, which asked the value itself) an object that claims to equal a stranger becomes "e": it
    equals everything. What its `__eq__` raises is raised.
    """
    kind = type(value)
    if value is None or kind is bool or kind is str or (kind is int and -JSON_INTEGERS < value < JSON_INTEGERS):
        return value
    try:
        return _plain(value, 0, _Budget(believe))
    except (_TooMuchError, RecursionError):
        return {"o": "a value nested too deeply"}


def is_numpy(value: Any, name: str) -> bool:
    """Whether `value` is of numpy's type `name`, as far as its bases say."""
    return any(kind.__name__ == name and kind.__module__ == "numpy" for kind in _bases(type(value)))


def _many(values: Any, depth: int, budget: _Budget) -> list[Any]:
    found = list(values)
    budget.nodes -= len(found)
    if depth >= MAX_DEPTH or budget.nodes < 0:
        raise _TooMuchError
    kinds = set(map(type, found))
    if kinds <= _SIMPLE and (int not in kinds or all(-JSON_INTEGERS < value < JSON_INTEGERS for value in found if type(value) is int)):
        return found  # most long values are lists of numbers
    return [_plain(value, depth + 1, budget) for value in found]


def _plain(value: Any, depth: int, budget: _Budget) -> Any:
    if value is None:
        return None
    if budget.believe and type(value) not in _EXACT and value == _STRANGER:
        return {"e": str(type.__dict__["__name__"].__get__(type(value)))}
    for kind in _bases(type(value)):  # not type(value).__mro__, which a metaclass can answer
        if kind is str:
            return str.__str__(value)
        if kind is bool:
            return value
        if kind is int:
            exact = int.__int__(value)
            return exact if -JSON_INTEGERS < exact < JSON_INTEGERS else {"i": int.__format__(exact, "x")}
        if kind is float:
            return float.__float__(value)
        if kind is list:
            return _many(list.__iter__(value), depth, budget)
        if kind is tuple:
            return {"t": _many(tuple.__iter__(value), depth, budget)}
        if kind is dict:
            return {"d": [_many(pair, depth, budget) for pair in dict.items(value)]}
        if kind is set:
            return {"s": _many(set.__iter__(value), depth, budget)}
        if kind is frozenset:
            return {"f": _many(frozenset.__iter__(value), depth, budget)}
        if kind is bytes:
            return {"b": bytes.hex(value)}
        if kind is bytearray:
            return {"y": bytearray.hex(value)}
        if kind is complex:
            return {"c": [complex.real.__get__(value), complex.imag.__get__(value)]}
        if kind is getattr(_modules.get("fractions"), "Fraction", 0):
            return {"r": [_plain(part, depth, budget) for part in (value._numerator, value._denominator)]}
        if kind is getattr(_modules.get("decimal"), "Decimal", 0):
            return {"m": _plain(kind.__str__(value), depth, budget)}  # type: ignore[call-arg]
    if is_numpy(value, "generic"):
        exact = value.item()
        if type(exact) in _EXACT:
            return _plain(exact, depth, budget)
    name = str(type.__dict__["__name__"].__get__(type(value)))
    write = _LIBRARY.get(name)
    if write is not None and type.__getattribute__(type(value), "__module__") == _HOME[name]:
        return {"x": [name, [_plain(part, depth + 1, budget) for part in write(value)]]}
    return {"o": name}


_HOME = {"deque": "collections", "range": "builtins", "date": "datetime", "datetime": "datetime", "timedelta": "datetime"}
_LIBRARY: dict[str, Any] = {
    "deque": lambda value: [list(value)],
    "range": lambda value: [value.start, value.stop, value.step],
    "date": lambda value: [value.year, value.month, value.day],
    "datetime": lambda value: [value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond],
    "timedelta": lambda value: [value.days, value.seconds, value.microseconds],
}
"""Arguments that make an equal value again. A class that only has such a name makes what it says, and no more."""


def _library_value(name: Any, parts: list[Any]) -> Any:
    if name not in _HOME:
        raise ValueError("not a value")
    try:
        return getattr(__import__(_HOME[name]), name)(*parts)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(f"not a value: {error}") from None


def value_of(form: Any) -> Any:
    """The value that `plain` wrote; raises ValueError for anything it cannot have written, and for "o" and "e"."""
    if form is None or isinstance(form, bool | int | float | str):
        return form
    if isinstance(form, list):
        return [value_of(part) for part in form]
    if not isinstance(form, dict) or len(form) != 1:
        raise ValueError("not a value")
    ((tag, body),) = form.items()
    if tag == "i" and isinstance(body, str):
        return int(body, 16)
    if tag in ("b", "y") and isinstance(body, str):
        return bytes.fromhex(body) if tag == "b" else bytearray.fromhex(body)
    if tag == "m" and isinstance(body, str):
        import decimal

        try:
            return decimal.Decimal(body)
        except decimal.InvalidOperation as error:
            raise ValueError(f"not a value: {error}") from None
    if not isinstance(body, list):
        raise ValueError("not a value")
    try:
        if tag == "r" and len(body) == 2:
            import fractions

            return fractions.Fraction(value_of(body[0]), value_of(body[1]))
        if tag == "t":
            return tuple(value_of(part) for part in body)
        if tag == "d":
            return {value_of(key): value_of(part) for key, part in body}
        if tag in ("s", "f"):
            parts = [value_of(part) for part in body]
            return set(parts) if tag == "s" else frozenset(parts)
        if tag == "c":
            return complex(*body)
        if tag == "x" and len(body) == 2 and isinstance(body[1], list):
            return _library_value(body[0], [value_of(part) for part in body[1]])
    except (TypeError, ZeroDivisionError) as error:
        raise ValueError(f"not a value: {error}") from None
    raise ValueError("not a value")
