"""Test code without the program: what it asks of the program is answered from a transcript of earlier calls.

A `check(candidate)` function cannot always be taken apart. Here it runs whole, in a jailed child of its own, with stand-ins for
the names that it has from the program. A stand-in that is called answers from the transcript. At the first call that is not in
it the test goes on *collecting*: results are unknown values, and its asserts decide nothing any more. What it would have called
is reported, the program's child makes those calls, and the test runs again over the longer transcript, until it ends.
Expected values never come near the program, and the program never near the test.

A call is [target, arguments, keyword arguments]. Targets: ["name", text] calls a name of the program, ["value", text] is its
value, ["ref", k, ...] calls result k (or the part of it at these positions), ["get", reference, name] is an attribute,
["op", reference, operation] an operation. Arguments: ["v", plain value], ["r", reference], ["n", name].
"""

from __future__ import annotations

import ast
import builtins
import operator
from collections.abc import Callable
from typing import Any

from . import codec
from .child import describe

MAX_CALLS = 1000
OPERATIONS: dict[str, Callable[..., Any]] = {
    "iter": list,
    "next": next,
    "len": len,
    "getitem": operator.getitem,
    "setitem": operator.setitem,
    "setattr": setattr,
    "contains": operator.contains,
    "str": str,
    "repr": repr,
}
"""What a test may do to an object of the program besides calling it; `iter` gives all items at once."""
_EXCEPTIONS = {
    kind.__name__.lower(): kind for kind in vars(builtins).values() if isinstance(kind, type) and issubclass(kind, BaseException)
}
_ASSERT = ast.parse(
    """
try:
    _held_ = True if _test_ else False
except Exception:
    if _session_.live:
        raise
    _held_ = True
if not _held_ and _session_.live:
    raise AssertionError
"""
)
_path = operator.attrgetter("_path_")


class _Stop(BaseException):
    """The test asks for what no transcript can hold, or for too much."""


class _NotPlain(BaseException):
    """The test computes with an object of the program, as if it were a value: what comes of that proves nothing."""


class ProgramError(Exception):
    """An exception of the program's own class, which a test can only catch as Exception."""


class _Asserts(ast.NodeTransformer):
    def visit_Assert(self, node: ast.Assert) -> Any:
        """The test is evaluated once, and decides only if every answer up to its end was a real one."""

        class Fill(ast.NodeTransformer):
            def visit_Name(self, name: ast.Name) -> Any:
                return node.test if name.id == "_test_" else name

        filled = Fill().visit(ast.parse(ast.unparse(_ASSERT)))
        return [ast.fix_missing_locations(line) for line in filled.body]


def _opaque(form: Any) -> bool:
    if isinstance(form, dict):
        return "o" in form or any(_opaque(part) for part in form.values())
    return isinstance(form, list) and any(_opaque(part) for part in form)


class Session:
    """One run of one test over one transcript."""

    def __init__(self, transcript: list[Any]) -> None:
        self.transcript = transcript
        self.calls: list[Any] = []
        self.verified = 0
        self.live = True
        self.supported = True
        self.raised: BaseException | None = None
        self.error: list[Any] = []

    def ask(self, target: list[Any], args: Any = (), kwargs: Any = {}) -> Any:  # noqa: B006
        """The result of one call: from the transcript, or unknown."""
        call = [target, [self._encode(value) for value in args], [[name, self._encode(value)] for name, value in kwargs.items()]]
        number = len(self.calls)
        if number >= MAX_CALLS:
            raise _Stop
        self.calls.append(call)
        if self.live and number < len(self.transcript) and self._settled(self.transcript[number][0]) == call:
            self.calls[-1] = self.transcript[number][0]
            _, form, error, changed = self.transcript[number]
            self.verified = number + 1
            self._change([*args, *kwargs.values()], changed)
            if error is not None:
                self._raise(error)
            return self._value(form, ["ref", number])
        self.live = False
        return Unknown(self, ["ref", number])

    def _settled(self, call: list[Any]) -> list[Any]:
        """A call with the results that it was given, as far as they turned out to be plain values."""

        def value(form: list[Any]) -> list[Any]:
            if form[0] != "r" or len(form[1]) != 2:
                return form
            _, found, error, _ = self.transcript[form[1][1]]
            return form if error is not None or _opaque(found) else ["v", found]

        target, args, kwargs = call
        return [target, [value(form) for form in args], [[name, value(form)] for name, form in kwargs]]

    def _encode(self, argument: Any) -> list[Any]:
        path = _path(argument) if isinstance(argument, Remote) else None
        if path is not None:
            return ["n", path[1]] if path[0] == "name" else ["r", path]
        form = codec.plain(argument)
        if _opaque(form):
            self.supported &= not self.live
            raise _Stop
        return ["v", form]

    def _raise(self, error: list[Any]) -> None:
        try:
            self.raised = _EXCEPTIONS.get(error[0], ProgramError)(error[1])
        except TypeError:
            self.raised = ProgramError(error[1])
        self.error = error
        raise self.raised

    def _value(self, form: Any, path: list[Any]) -> Any:
        """The value of a form; objects in it, as far as they can be addressed, are stand-ins."""
        if not _opaque(form):
            return codec.value_of(form)
        if isinstance(form, list):
            return [self._value(part, [*path, position]) for position, part in enumerate(form)]
        if "t" in form:
            return tuple(self._value(part, [*path, position]) for position, part in enumerate(form["t"]))
        return Remote(self, path)

    def _change(self, arguments: list[Any], changed: Any) -> None:
        """What the program did to the lists, dicts and sets that it was given."""
        for change in changed if isinstance(changed, list) else ():
            match change:
                case [int(position), form] if 0 <= position < len(arguments) and not _opaque(form):
                    argument, value = arguments[position], codec.value_of(form)
                case _:  # a forged line
                    continue
            if type(argument) is not type(value):
                continue
            if isinstance(argument, list | bytearray):
                argument[:] = value
            elif isinstance(argument, dict | set):
                argument.clear()
                argument.update(value)


class Remote:
    """Stands for a name of the program, or for a result that is no plain value. Equal to nothing: such an object proves nothing."""

    _session_: Session
    _path_: list[Any] | None

    def __init__(self, session: Session, path: list[Any] | None) -> None:
        self.__dict__.update(_session_=session, _path_=path)

    def _value_(self) -> Any:
        """The value of a variable; an object stays what it is."""
        return self._session_.ask(["value", self._path_[1]]) if self._path_ and self._path_[0] == "name" else self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        return self._session_.ask(self._path_ or [], args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        here = self._value_()
        return self._session_.ask(["get", here._path_, name]) if isinstance(here, Remote) else getattr(here, name)

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def __bool__(self) -> bool:
        here = self._value_()
        return True if isinstance(here, Remote) else bool(here)

    def __hash__(self) -> int:
        return id(self)


class Unknown(Remote):
    """A result that is not there yet, or (without a path) something computed from one: goes through any test, decides nothing."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__"):
            raise AttributeError(name)
        return self._session_.ask(["get", self._path_, name]) if self._path_ else self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        return self._session_.ask(self._path_, args, kwargs) if self._path_ else self

    def __bool__(self) -> bool:
        return True


def _strict(name: str) -> Any:
    def operate(self: Remote, *args: Any) -> Any:
        here = self._value_()
        if isinstance(here, Remote):
            found = self._session_.ask(["op", here._path_, name], args) if here._path_ else here
            return found if name != "iter" else iter(found)
        return OPERATIONS[name](here, *args) if name != "iter" else iter(here)

    return operate


def _binary(name: str, reverse: bool) -> Any:
    def operate(self: Remote, other: Any) -> Any:
        here = self._value_()
        if isinstance(here, Remote):
            if name in ("eq", "ne"):
                return name == "ne"
            raise _NotPlain
        return getattr(operator, name)(other, here) if reverse else getattr(operator, name)(here, other)

    return operate


def _equipped() -> None:
    for name in OPERATIONS:
        setattr(Remote, f"__{name}__", _strict(name))
    for name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "and_", "or_", "xor"):
        plain = name.rstrip("_")
        setattr(Remote, f"__{plain}__", _binary(name, False))
        setattr(Remote, f"__r{plain}__", _binary(name, True))
        for spelled in (plain, "r" + plain):
            setattr(Unknown, f"__{spelled}__", lambda self, *args: Unknown(self._session_, None))
    for name in ("neg", "abs", "round", "getitem"):
        setattr(Unknown, f"__{name}__", lambda self, *args: Unknown(self._session_, None))
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        setattr(Remote, f"__{name}__", _binary(name, False))
    for name in ("eq", "ne", "lt", "le", "gt", "ge", "contains"):
        setattr(Unknown, f"__{name}__", lambda self, *args: True)
    constants: tuple[tuple[str, Any], ...] = (("float", 0.0), ("int", 0), ("index", 0), ("len", 0), ("str", ""), ("repr", ""))
    for name, value in constants:
        setattr(Unknown, f"__{name}__", lambda self, value=value: value)
    Unknown.__iter__ = lambda self: iter(())  # type: ignore[attr-defined]
    Unknown.__hash__ = Remote.__hash__  # type: ignore[method-assign]


_equipped()


def run(setup: str, statement: str, names: list[str], transcript: list[Any], space: dict[str, Any]) -> list[Any]:
    """Run one test; returns ["verdict", held, error] or ["calls", how many of the transcript hold, all calls] or ["unsupported"].

    Args:
        setup: the tests' own code.
        statement: the test.
        names: what both have from the program.
        transcript: [call, plain value, error, changed arguments] of the program's answers so far.
        space: the namespace to run in.
    """
    session = Session(transcript)
    space.update({name: Remote(session, ["name", name]) for name in names}, _session_=session)
    held, error = True, None
    try:
        for source in (setup, statement):
            exec(compile(_Asserts().visit(ast.parse(source)), "tests.py", "exec", dont_inherit=True), space)
    except _Stop:
        session.live = False
    except _NotPlain:
        held = False
    except AssertionError as failure:
        held, error = False, session.error if failure is session.raised else None
    except BaseException as failure:
        held, error = False, session.error if failure is session.raised else describe(failure)
    if not session.supported:
        return ["unsupported"]
    return ["verdict", held, error] if session.live else ["calls", session.verified, session.calls]
