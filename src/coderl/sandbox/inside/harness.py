"""One program in one forked child: compile it, run it once per test, write down what it did. Never told what is right.

A standard-input program runs as `__main__` once per test, each time in a new namespace with files 0 and 1 re-opened; a
program that is called or asserted on is loaded once. Every test ends with one line of JSON in the file of answers:

    ["compiled"]                          the source compiled
    ["refused", class, message, line]     it did not
    ["loaded", error]                     module executed (call and assert)
    [index, cpu, rss, answer, error]      a test: end of its output (stdin) or a value (call, assert), or an error
    ["fresh"]                             the rest needs a fresh child
    ["end"]                               all tests were run

A program can write such lines too; all it wins is to state its own answers, which the judge outside compares.
"""

from __future__ import annotations

import builtins

# Functions below look builtins up in a copy: a program that patches the real ones does not change its harness.
__builtins__ = dict(builtins.__dict__)

import ast  # noqa: E402
import atexit  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import resource  # noqa: E402
import struct  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
import types  # noqa: E402
from typing import Any, NoReturn  # noqa: E402

from . import codec  # noqa: E402

PROGRAM = "solution.py"
TESTS = "tests.py"
MAX_MESSAGE = 500
OUTPUT_OF_ONE_CHILD = 4 << 20
"""Bytes of output after which the rest of the tests gets a fresh child, so that many legal outputs fit the file limit."""

Error = list[Any]
_open_file, _dump, _cpu, _wall, _usage = io.open, json.dumps, time.process_time, time.monotonic, resource.getrusage
_pack, _os_open, _os_close, _os_exit, _lseek = struct.pack_into, os.open, os.close, os._exit, os.lseek
_write, _pwrite, _truncate, _dup2, _shutdown = os.write, os.pwrite, os.ftruncate, os.dup2, threading._shutdown  # type: ignore[attr-defined]
_threads, _callbacks, _run_callbacks = threading._active, atexit._ncallbacks, atexit._run_exitfuncs  # type: ignore[attr-defined]
_stderr, _modules, _restore_limit, _chdir = sys.stderr, sys.modules, sys.setrecursionlimit, os.chdir
_BUILTINS = builtins.__dict__
_PRISTINE = dict(_BUILTINS)


class Child:
    """The files of one child: its job, standard input and output, answers, and the page that its parent's clock reads."""

    def __init__(self, folder: str, page: Any, answers: int, given: int, shown: int) -> None:
        self.folder, self.page, self.answers, self.given, self.shown = folder, page, answers, given, shown
        self.test = 0

    def answer(self, row: list[Any]) -> None:
        line = _dump(row).encode() + b"\n"
        try:
            _write(self.answers, line)
        except OSError:  # the program closed it
            self.answers = _os_open(self.folder + "/answers", os.O_WRONLY | os.O_APPEND)
            _write(self.answers, line)

    def start_clock(self, test: int = 0) -> None:
        self.test = test
        _pack("<dd", self.page, 0, _cpu(), _wall())

    def provide(self, text: bytes) -> None:
        """Files 0 and 1 for the next test."""
        try:
            _truncate(self.given, 0)
        except OSError:
            self.given = _os_open(self.folder + "/in", os.O_RDWR | os.O_TRUNC)
        if text:
            _pwrite(self.given, text, 0)
        _lseek(self.given, 0, 0)
        _dup2(self.given, 0)
        try:
            _dup2(self.shown, 1)
        except OSError:
            self.shown = _os_open(self.folder + "/out", os.O_WRONLY | os.O_APPEND)
            _dup2(self.shown, 1)

    def output_end(self) -> int:
        try:
            return _lseek(self.shown, 0, 2)
        except OSError:
            self.shown = _os_open(self.folder + "/out", os.O_WRONLY | os.O_APPEND)
            return _lseek(self.shown, 0, 2)


def _name(kind: type) -> str:
    return str(type.__dict__["__name__"].__get__(kind)).lower()


def describe(error: BaseException) -> Error:
    """[class in lower case, message, line of the program]."""
    line = None
    if isinstance(error, SyntaxError) and error.filename == PROGRAM:
        line = error.lineno
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == PROGRAM:
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        message = (str(error.msg) if isinstance(error, SyntaxError) else str(error))[:MAX_MESSAGE]
    except BaseException:
        message = ""
    return [_name(type(error)), str(message), line if isinstance(line, int) else None]


def exit_error(error: SystemExit) -> Error | None:
    """None for the exits that a shell calls success."""
    code = error.code
    if code is None or (isinstance(code, int) and int(code) & 0xFF == 0):
        return None
    described = describe(error)
    return ["systemexit", f"exit status {int(code) & 0xFF}" if isinstance(code, int) else described[1], described[2]]


def new_module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    space = module.__dict__
    space["__builtins__"] = builtins
    space["__file__"] = PROGRAM
    space["__annotations__"] = {}
    _modules["__main__"] = module
    return module


def open_streams() -> tuple[Any, Any]:
    given = sys.stdin = sys.__stdin__ = _open_file(0, "r", encoding="utf-8", closefd=False)
    shown = sys.stdout = sys.__stdout__ = _open_file(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.__stderr__ = _stderr
    return given, shown


def _quietly(function: Any) -> None:
    # Failures in threads and exit callbacks leave the exit status of an interpreter at 0.
    try:
        function()
    except BaseException:
        return


def finish(shown: Any) -> tuple[Error | None, bool]:
    """What the interpreter does at exit: wait for threads, run callbacks, flush. Returns (error, whether state stays behind)."""
    error: Error | None = None
    stays = False
    if len(_threads) > 1 or "concurrent.futures.thread" in _modules:
        stays = True
        _quietly(_shutdown)
    if _callbacks():
        _quietly(_run_callbacks)
    for stream in (sys.stdout, shown):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except AttributeError:
            pass
        except BaseException as failure:
            error = error or describe(failure)
    return error, stays


def run_stdin(child: Child, code: Any, job: dict[str, Any]) -> None:
    space: dict[str, Any] = {}
    for index, text in enumerate(job["inputs"], job["first"]):
        child.provide(text.encode("utf-8", "surrogatepass"))
        _given, shown = open_streams()
        sys.argv = [PROGRAM]
        space = new_module("__main__").__dict__
        error: Error | None = None
        child.start_clock(index)
        start = _cpu()
        try:
            exec(code, space)
        except SystemExit as stop:
            error = exit_error(stop)
        except BaseException as failure:
            error = describe(failure)
        late, stays = finish(shown)
        if error is None:
            error = late
        space.clear()  # open files that were never closed are written out here, as at the exit of an interpreter
        end = child.output_end()
        child.answer([index, _cpu() - start, _usage(0).ru_maxrss, end, error])
        if error is not None and job["stop_at_first_error"]:
            return
        if stays or end > OUTPUT_OF_ONE_CHILD:
            child.answer(["fresh"])
            return
        if sys.getrecursionlimit() != 1000:
            _restore_limit(1000)
        _chdir(job["box"])
    child.answer(["end"])


def load(child: Child, code: Any, job: dict[str, Any]) -> dict[str, Any] | None:
    """Execute the module once. A main guard stays closed: tests import a function, they do not run a script."""
    child.provide(b"")
    open_streams()
    sys.argv = [PROGRAM]
    module = new_module("solution")
    _modules["solution"] = module
    space = module.__dict__
    child.start_clock()
    try:
        exec(code, space)
        if job.get("setup"):
            exec(compile(job["setup"], TESTS, "exec", dont_inherit=True), space)
    except SystemExit as stop:
        child.answer(["loaded", exit_error(stop) or ["systemexit", "the program ended before it could be called", describe(stop)[2]]])
        return None
    except BaseException as failure:
        child.answer(["loaded", describe(failure)])
        return None
    child.answer(["loaded", None])
    return space


def called(error: BaseException) -> Error:
    described = describe(error)
    return ["systemexit", "the program ended before it answered", described[2]] if isinstance(error, SystemExit) else described


def entry(space: dict[str, Any], name: str) -> Any:
    if not name.isidentifier():
        return eval(name, space)
    if name in space:
        return space[name]
    if "Solution" in space:
        return getattr(space["Solution"](), name)
    raise AttributeError(f"the program defines no function {name!r}")


def run_call(child: Child, code: Any, job: dict[str, Any]) -> None:
    space = load(child, code, job)
    if space is None:
        return
    function: Any = None
    for index, arguments in enumerate(job["inputs"], job["first"]):
        error: Error | None = None
        answer: Any = None
        child.start_clock(index)
        start = _cpu()
        try:
            if function is None:
                function = entry(space, job["entry_point"])
            answer = codec.plain(function(*codec.value_of(arguments)))
        except BaseException as failure:
            error = called(failure)
        child.answer([index, _cpu() - start, _usage(0).ru_maxrss, answer, error])
        if error is not None and job["stop_at_first_error"]:
            return
    child.answer(["end"])


def _comes_from_tests(error: BaseException) -> bool:
    trace, last = error.__traceback__, ""
    while trace is not None:
        last, trace = trace.tb_frame.f_code.co_filename, trace.tb_next
    return last == TESTS


def _own_equality(value: Any) -> bool:
    """Whether comparing `value` would run code of the program."""
    methods = type.__dict__["__mro__"].__get__(type(value))
    return any("__eq__" in kind.__dict__ and getattr(kind, "__module__", "") in ("solution", "__main__") for kind in methods)


class Foreign(Exception):
    """The program returned an object that compares by rules of its own."""


def _guarded(function: Any) -> Any:
    """The program's function, returning exact built-in values: an object that lies about equality is not let through."""

    def call(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        try:
            return codec.value_of(codec.plain(value))
        except ValueError:
            if _own_equality(value):
                raise Foreign(f"returned a {_name(type(value))} with an __eq__ of its own") from None
            return value

    return call


def run_assert(child: Child, code: Any, job: dict[str, Any]) -> None:
    space = load(child, code, job)
    if space is None:
        return
    for index, test in enumerate(job["inputs"], job["first"]):
        error: Error | None = None
        answer: Any = None
        child.start_clock(index)
        start = _cpu()
        try:
            if "values" in test:
                answer = [codec.plain(eval(compile(text, TESTS, "eval", dont_inherit=True), space)) for text in test["values"]]
            else:
                answer = run_guarded(space, test, job)
        except BaseException as failure:
            error = called(failure)
        child.answer([index, _cpu() - start, _usage(0).ru_maxrss, answer, error])
        if error is not None and job["stop_at_first_error"]:
            return
    child.answer(["end"])


def run_guarded(space: dict[str, Any], test: dict[str, Any], job: dict[str, Any]) -> Any:
    """A statement that cannot be split: run with the original builtins; the answer is the word that only this job knows."""
    _BUILTINS.clear()
    _BUILTINS.update(_PRISTINE)
    names = {node.id for node in ast.walk(ast.parse(test["run"])) if isinstance(node, ast.Name)}
    guarded = dict(space)
    for name in names | {job.get("entry_point")}:
        if isinstance(space.get(name), types.FunctionType) and space[name].__code__.co_filename == PROGRAM:
            guarded[name] = _guarded(space[name])
    try:
        exec(compile(test["run"], TESTS, "exec", dont_inherit=True), guarded)
    except Foreign:
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
    child.provide(b"")
    open_streams()
    space = new_module("tests").__dict__
    child.answer(["compiled"])
    try:
        exec(compile(job["setup"], TESTS, "exec", dont_inherit=True), space)
    except Exception:
        # Set-up code that needs the program's own classes: what is left of it has to do.
        space.setdefault("__name__", "tests")
    child.answer(["loaded", None])
    for index, test in enumerate(job["inputs"], job["first"]):
        error: Error | None = None
        answer: Any = None
        child.start_clock(index)
        start = _cpu()
        try:
            values = _decoded(test["values"])
            answer = False
            if values is not None:
                space.update({f"_value_{position}": value for position, value in enumerate(values)})
                answer = bool(eval(compile(test["expression"], TESTS, "eval", dont_inherit=True), space))
        except Exception as failure:
            error = describe(failure)
        child.answer([index, _cpu() - start, _usage(0).ru_maxrss, answer, error])
    child.answer(["end"])


def main(child: Child, payload: bytes) -> NoReturn:
    """Run the job and leave; the exit status says nothing that the answers do not."""
    job = json.loads(payload)
    if job["kind"] == "evaluate":
        run_evaluate(child, job)
        _os_exit(0)
    try:
        code = compile(job.pop("source"), PROGRAM, "exec", dont_inherit=True)
    except BaseException as failure:
        described = describe(failure)
        child.answer(["refused", *described])
        _os_exit(0)
    child.answer(["compiled"])
    try:
        {"stdin": run_stdin, "call": run_call, "assert": run_assert}[job["kind"]](child, code, job)
    except MemoryError as failure:  # in the harness: the program left it no room
        failure.__traceback__ = None
        child.answer([child.test, 0.0, 0, None, ["memoryerror", "", None]])
    _os_exit(0)
