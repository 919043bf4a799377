"""One program in one forked child: compile it, run it once per test, write down what it did. Never told what is right.

A standard-input program runs as `__main__` once per test, each time in a new namespace with files 0 and 1 re-opened; a
program that is called or asserted on is loaded once. Every test ends with one line of JSON in the file of answers:

    ["compiled"]                          the source compiled
    ["refused", class, message, line]     it did not
    ["loaded", error]                     module executed (call and assert)
    ["step", value, error, changed]       one call of an assert test that consists of several
    [index, answer, error]                a test: end of its output (stdin) or a value (call, assert); error
    ["fresh"]                             the rest needs a fresh child
    ["end"]                               all tests were run

A program can write such lines too; all it wins is to state its own answers, which the judge outside compares.
"""

from __future__ import annotations

import builtins
import marshal
import os
import types
from typing import Any, NoReturn

from . import codec, legacy, prelude, replay
from .child import (
    PRISTINE,
    PROGRAM,
    Child,
    Error,
    World,
    describe,
    discard,
    exit_error,
    finish,
    modules,
    new_module,
    next_test,
    prepare,
    quietly,
)

globals()["__builtins__"] = dict(builtins.__dict__)

TESTS = "tests.py"
OUTPUT_OF_ONE_CHILD = 4 << 20
"""Bytes of output after which the rest of the tests gets a fresh child, so that many legal outputs fit the file limit."""
_os_exit, _getpid, _unmarshal = os._exit, os.getpid, marshal.loads
_BUILTINS = builtins.__dict__


def run_stdin(child: Child, code: Any, job: dict[str, Any]) -> None:
    """A script, once per test, as `__main__` in a new namespace."""
    shown = World.shown
    for index, text in enumerate(job["inputs"], job["first"]):
        child.provide(text)
        if index > job["first"]:
            shown = next_test(shown, code)
        space = new_module("__main__")
        if job.get("prelude"):
            prelude.run(job["prelude"], space)
        error: Error | None = None
        child.start_clock(index)
        try:
            exec(code, space)
        except SystemExit as stop:
            error = exit_error(stop)
        except BaseException as failure:
            error = describe(failure)
        late, stays = finish(shown)
        discard(space)  # open files that were never closed are written out here, as at the exit of an interpreter
        if not shown.closed:
            quietly(shown.flush)  # what destructors printed
        error = error or late
        child.leave_if_copy()
        end = child.output_end()
        child.result(index, end, error)
        if error is not None and job["stop_at_first_error"]:
            return
        if stays or end > OUTPUT_OF_ONE_CHILD:
            child.answer(["fresh"])
            return
    child.write(b'["end"]\n')


def load(child: Child, code: Any, job: dict[str, Any]) -> dict[str, Any] | None:
    """Execute the module once. A main guard stays closed: tests import a function, they do not run a script."""
    space = new_module("solution")
    modules["solution"] = modules["__main__"]
    prelude.run(job.get("prelude", []), space)
    child.start_clock()
    try:
        exec(code, space)
        if job.get("setup"):
            exec(compile(job["setup"], TESTS, "exec", dont_inherit=True), space)
    except BaseException as failure:
        not_loaded(child, failure)
        return None
    child.write(b'["loaded",null]\n')
    return space


def called(error: BaseException) -> Error:
    """What a test's exception is reported as; leaving is no way to answer."""
    described = describe(error)
    return ["systemexit", "the program ended before it answered", described[2]] if isinstance(error, SystemExit) else described


def entry(space: dict[str, Any], name: str) -> Any:
    """The function to call: of the module, else the method of a Solution, which is made once as CodeRL does (spec 4.2).

    What the module only imported yields to a method of that name: `from heapq import *` brings a `merge`.
    """
    if not name.isidentifier():
        return eval(name, space)
    if name in space:
        own = getattr(space[name], "__module__", None) in (None, space.get("__name__"))
        if own or not hasattr(space.get("Solution"), name):
            return space[name]
    if "Solution" in space:
        return getattr(space["Solution"](), name)
    raise AttributeError(f"the program defines no function {name!r}")


def run_call(child: Child, code: Any, job: dict[str, Any]) -> None:
    """A function, called once per test."""
    space = load(child, code, job)
    if space is None:
        return
    function: Any = None
    for index, arguments in enumerate(job["inputs"], job["first"]):
        error: Error | None = None
        answer: Any = None
        child.start_clock(index)
        try:
            if function is None:
                function = entry(space, job["entry_point"])
            answer = codec.plain(function(*codec.value_of(arguments)))
        except BaseException as failure:
            error = called(failure)
        child.leave_if_copy()
        child.result(index, answer, error)
        if error is not None and job["stop_at_first_error"]:
            return
    child.write(b'["end"]\n')


def _comes_from_tests(error: BaseException) -> bool:
    trace, last = error.__traceback__, ""
    while trace is not None:
        last, trace = trace.tb_frame.f_code.co_filename, trace.tb_next
    return last == TESTS


def _own_equality(value: Any) -> bool:
    """Whether comparing `value` would run code of the program."""
    methods = type.__dict__["__mro__"].__get__(type(value))
    return any("__eq__" in kind.__dict__ and getattr(kind, "__module__", "") in ("solution", "__main__") for kind in methods)


class ForeignValueError(Exception):
    """The program returned an object that compares by rules of its own."""


def _guarded(function: Any) -> Any:
    """The program's function, returning exact built-in values: an object that lies about equality is not let through."""

    def call(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        try:
            return codec.value_of(codec.plain(value))
        except ValueError:
            if _own_equality(value):
                raise ForeignValueError from None
            return value

    return call


def run_assert(child: Child, code: Any, job: dict[str, Any]) -> None:
    """Assert statements: the calls in them, or the whole of what could not be taken apart."""
    compiled = job.get("tests")
    space = load(child, code, job)
    if space is None:
        return
    for index, test in enumerate(job["inputs"], job["first"]):
        error: Error | None = None
        answer: Any = None
        child.start_clock(index)
        try:
            if "values" in test:
                codes = compiled[index] if compiled else None
                if codes is None:
                    codes = [compile(text, TESTS, "eval", dont_inherit=True) for text in test["values"]]
                answer = [codec.plain(eval(expression, space)) for expression in codes]
            elif "steps" in test:
                answer = run_steps(child, space, test)
            elif "calls" in test:
                answer = run_calls(child, space, test["calls"])
            else:
                answer = run_guarded(space, test, job)
        except BaseException as failure:
            error = called(failure)
        child.leave_if_copy()
        child.result(index, answer, error)
        if error is not None and job["stop_at_first_error"]:
            return
    child.write(b'["end"]\n')


def run_values(child: Child, code: Any, job: dict[str, Any]) -> None:
    """Assert statements whose calls are all compiled and need nothing beside the program: run_assert without its other ways.

    _loop.c has this too.
    """
    space = load(child, code, job)
    if space is None:
        return
    for index in range(job["first"], job["last"]):
        child.start_clock(index)
        try:
            answer = [codec.plain(eval(expression, space)) for expression in job["tests"][index]]
        except BaseException as failure:
            failed(child, index, failure)
            if job["stop_at_first_error"]:
                return
        else:
            child.leave_if_copy()
            child.result(index, answer, None)
    child.write(b'["end"]\n')


def failed(child: Child, index: int, failure: BaseException) -> None:
    """Write down what a test raised; -1: the module, after which nothing comes."""
    try:
        if index < 0:
            not_loaded(child, failure)
            _os_exit(0)
        error = called(failure)
        child.process = child.process or _getpid()
        child.leave_if_copy()
        child.result(index, None, error)
    except MemoryError as none_left:
        out_of_memory(child, max(index, 0), none_left)
        _os_exit(0)


def not_loaded(child: Child, failure: BaseException) -> None:
    """The line of a module that raised."""
    error = describe(failure)
    if isinstance(failure, SystemExit):
        error = exit_error(failure) or ["systemexit", "the program ended before it could be called", error[2]]
    child.answer(["loaded", error])


def out_of_memory(child: Child, index: int, failure: MemoryError) -> None:
    """In the harness: the program left it no room."""
    failure.__traceback__ = None
    child.result(index, None, ["memoryerror", "", None])


def run_steps(child: Child, space: dict[str, Any], test: dict[str, Any]) -> int:
    """All calls of a check function, which knows what it checks as `_entry_0`; each answer is safe before the next call."""
    for position, text in enumerate(test["entries"]):
        space[f"_entry_{position}"] = eval(compile(text, TESTS, "eval", dont_inherit=True), space)
    for text in test["steps"]:
        value = codec.plain(eval(compile(text, TESTS, "eval", dont_inherit=True), space))
        child.answer(["step", value, None, None])
    return len(test["steps"])


def run_calls(child: Child, space: dict[str, Any], calls: list[Any]) -> int:
    """The calls of a test that runs elsewhere (replay.py); one that fails does not keep the next from being made."""
    results: list[Any] = []
    for target, args, kwargs in calls:
        value = error = None
        changed: list[Any] = []
        result: Any = _NO_RESULT
        try:
            function = _called(space, results, target)
            given = [_argument(space, results, form) for form in (*args, *(form for _, form in kwargs))]
            result = function(*given[: len(args)], **{name: value for (name, _), value in zip(kwargs, given[len(args) :], strict=True)})
            value = codec.plain(result)
            for position, form in enumerate((*args, *(form for _, form in kwargs))):
                if form[0] == "v" and isinstance(given[position], list | dict | set | bytearray):
                    after = codec.plain(given[position])
                    if after != form[1]:
                        changed.append([position, after])
        except BaseException as failure:
            error = called(failure)
        results.append(result)
        child.answer(["step", value, error, changed])
    return len(calls)


_NO_RESULT = object()


def _named(space: dict[str, Any], name: str) -> Any:
    if name in space:
        return space[name]
    if name in _BUILTINS:
        return _BUILTINS[name]
    raise NameError(f"name {name!r} is not defined")


def _referred(results: list[Any], path: list[Any]) -> Any:
    found = results[path[1]]
    for position in path[2:]:
        found = found[position]
    if found is _NO_RESULT:
        raise ReferenceError("there is no such result")
    return found


def _called(space: dict[str, Any], results: list[Any], target: list[Any]) -> Any:
    kind, *rest = target
    if kind == "name":
        return _named(space, rest[0])
    if kind == "value":
        return lambda: _named(space, rest[0])
    if kind == "ref":
        return _referred(results, target)
    found = _referred(results, rest[0])
    if kind == "get":
        return lambda: getattr(found, rest[1])
    return lambda *args: replay.OPERATIONS[rest[1]](found, *args)


def _argument(space: dict[str, Any], results: list[Any], form: list[Any]) -> Any:
    kind, what = form
    return codec.value_of(what) if kind == "v" else _referred(results, what) if kind == "r" else _named(space, what)


def run_guarded(space: dict[str, Any], test: dict[str, Any], job: dict[str, Any]) -> Any:
    """A statement that cannot be split: run with the original builtins; the answer is the word that only this job knows."""
    import ast

    _BUILTINS.clear()
    _BUILTINS.update(PRISTINE)
    tree = ast.parse(test["run"])
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    guarded = dict(space)
    for name in names | {job.get("entry_point") or ""}:
        if isinstance(space.get(name), types.FunctionType) and space[name].__code__.co_filename == PROGRAM:
            guarded[name] = _guarded(space[name])
    for statement in tree.body:  # check(Solution().f): what the check is given
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            call = statement.value
            call.args = [ast.Call(ast.Name("_guarded_", ast.Load()), [part], []) for part in call.args if not isinstance(part, ast.Starred)]
    guarded["_guarded_"] = lambda value: _guarded(value) if callable(value) and not isinstance(value, type) else value
    try:
        exec(compile(ast.fix_missing_locations(tree), TESTS, "exec", dont_inherit=True), guarded)
    except ForeignValueError:
        return False
    except AssertionError as failure:
        if type(failure) is AssertionError and _comes_from_tests(failure):
            return False
        raise
    return test["word"]


def _decoded(forms: list[Any]) -> list[Any] | None:
    # An object that is no plain value equals nothing: the test is failed.
    try:
        return [codec.value_of(form) for form in forms]
    except (ValueError, RecursionError):
        return None


def run_evaluate(child: Child, job: dict[str, Any]) -> None:
    """No program here: trusted expressions of the tests over values that a program returned, in a child of their own."""
    space = new_module("tests")
    child.write(b'["compiled"]\n')
    try:
        if job["setup"]:
            exec(compile(job["setup"], TESTS, "exec", dont_inherit=True), space)
    except Exception:
        # Set-up code that needs the program's own classes: what is left of it has to do.
        space.setdefault("__name__", "tests")
    child.write(b'["loaded",null]\n')
    for index, test in enumerate(job["inputs"], job["first"]):
        error: Error | None = None
        answer: Any = None
        child.start_clock(index)
        try:
            if "replay" in test:
                answer = replay.run(test["setup"], test["replay"], test["names"], test["transcript"], new_module("tests"))
                child.result(index, answer, None)
                continue
            values = _decoded(test["values"])
            answer = False
            if values is not None:
                space.update({f"_value_{position}": value for position, value in enumerate(values)})
                answer = bool(eval(compile(test["expression"], TESTS, "eval", dont_inherit=True), space))
        except Exception as failure:
            error = describe(failure)
        child.result(index, answer, error)
    child.write(b'["end"]\n')


def run_special(child: Child, job: dict[str, Any]) -> None:
    """No program here: the special judge of a problem over what a program printed or returned. Its errors are the problem's own."""
    space = new_module("special_judge")
    child.write(b'["compiled"]\n')
    try:
        exec(compile(job["source"], PROGRAM, "exec", dont_inherit=True), space)
        accepts = space["accepts"]
    except BaseException as failure:
        child.answer(["loaded", describe(failure)])
        return
    child.write(b'["loaded",null]\n')
    for index, test in enumerate(job["inputs"], job["first"]):
        error: Error | None = None
        answer: Any = None
        child.start_clock(index)
        output = _decoded([test["output"]])
        try:
            answer = output is not None and accepts(codec.value_of(test["input"]), output[0], codec.value_of(test["expected"]))
            if type(answer) is not bool:
                raise TypeError(f"accepts() must return True or False, not {type(answer).__name__}")
        except BaseException as failure:
            error = describe(failure)
        child.result(index, answer if error is None else None, error)
        if error is not None:
            return
    child.write(b'["end"]\n')


def warm(child: Child) -> None:
    """Run trusted programs of every kind (in the parent)."""
    kinds: list[tuple[Any, str, dict[str, Any]]] = [
        (run_stdin, "n = int(input())\nprint(n, *map(int, input().split()))", {"inputs": [b"1\n2 3\n"] * 12}),
        (run_stdin, "import sys\nsys.stdout.write(sys.stdin.read())\nraise SystemExit(0)", {"inputs": [b"1\n"] * 4}),
        (run_stdin, "print(unknown)", {"inputs": [b""] * 4}),
        (run_call, "def f(x):\n    return [x, (1, {2: 3.5})]", {"inputs": [[1]] * 8, "entry_point": "f"}),
        (run_assert, "def f(x):\n    return x", {"inputs": [{"values": ["f(1)"]}] * 4, "setup": ""}),
        (run_values, "def f(x):\n    return x", {"last": 4, "tests": [(compile("f(1)", TESTS, "eval"),)] * 4}),
    ]
    for _ in range(4):
        for run, source, job in kinds:
            run(child, compile(source, PROGRAM, "exec", dont_inherit=True), {"first": 0, "stop_at_first_error": False, **job})
    del modules["solution"]
    prepare(World.box)


_RUN = {
    "stdin": run_stdin,
    "call": run_call,
    "assert": run_assert,
    "values": run_values,
    "legacy_stdin": legacy.run_stdin,
    "legacy_call": legacy.run_call,
}
_TRUSTED = {"evaluate": run_evaluate, "special": run_special}


def main(child: Child, job: dict[str, Any]) -> NoReturn:
    """Do the job and leave; the exit status says nothing that the answers do not."""
    if job["kind"] in _TRUSTED:
        _TRUSTED[job["kind"]](child, job)
        _os_exit(0)
    if "file" in job:
        child.write_source(job["file"])
    try:
        if "code" in job:
            code, job["tests"] = _unmarshal(job["code"])
        else:
            code = compile(job["source"], PROGRAM, "exec", dont_inherit=True)
            child.write(b'["compiled"]\n')
    except BaseException as failure:
        child.answer(["refused", *describe(failure)])
        _os_exit(0)
    if job["kind"] == "compile":
        _os_exit(0)
    try:
        _RUN[job["kind"]](child, code, job)
    except MemoryError as failure:
        out_of_memory(child, child.test, failure)
    _os_exit(0)
