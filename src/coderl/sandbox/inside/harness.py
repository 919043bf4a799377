"""One program in one forked child: compile it, run it once per test, write down what it did. Never told what is right.

A standard-input program runs as `__main__` once per test, each time in a new namespace with files 0 and 1 re-opened; a
program that is called or asserted on is loaded once. Every test ends with one line of JSON in the file of answers:

    ["compiled"]                          the source compiled
    ["refused", class, message, line]     it did not
    ["loaded", error]                     module executed (call and assert)
    [index, memory, answer, error]        a test: peak so far in KB; end of its output (stdin) or a value (call, assert); error
    ["fresh"]                             the rest needs a fresh child
    ["end"]                               all tests were run

A program can write such lines too; all it wins is to state its own answers, which the judge outside compares.
"""

from __future__ import annotations

import builtins

# Functions below look builtins up in a copy: a program that patches the real ones does not change its harness.
globals()["__builtins__"] = dict(builtins.__dict__)

import atexit
import io
import json
import marshal
import os
import resource
import struct
import sys
import threading
import time
import types
from typing import Any, NoReturn

from . import codec

PROGRAM = "solution.py"
TESTS = "tests.py"
MAX_MESSAGE = 500
OUTPUT_OF_ONE_CHILD = 4 << 20
"""Bytes of output after which the rest of the tests gets a fresh child, so that many legal outputs fit the file limit."""

Error = list[Any]
_Text, _Reader, _Writer, _File = io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.FileIO
_dump, _unmarshal, _cpu, _wall, _usage = json.dumps, marshal.loads, time.process_time, time.monotonic, resource.getrusage
_pack, _os_open, _close, _os_exit, _lseek = struct.pack_into, os.open, os.close, os._exit, os.lseek
_write, _pwrite, _truncate, _dup2, _shutdown = os.write, os.pwrite, os.ftruncate, os.dup2, threading._shutdown  # type: ignore[attr-defined]
_threads, _callbacks, _run_callbacks = threading._active, atexit._ncallbacks, atexit._run_exitfuncs  # type: ignore[attr-defined]
_stderr, _modules, _restore_limit, _chdir = sys.stderr, sys.modules, sys.setrecursionlimit, os.chdir
_BUILTINS = builtins.__dict__
_PRISTINE: dict[str, Any] = {}


class Child:
    """The files of one child: answers, standard input and output, and the page that its parent's clock reads."""

    def __init__(self, folder: str, page: Any, answers: int, given: int, shown: int) -> None:
        self.folder, self.page, self.answers, self.given, self.shown = folder, page, answers, given, shown
        self.test = 0

    def close(self) -> None:
        """Close the files (in the parent)."""
        for file in (self.answers, self.given, self.shown):
            _close(file)

    def write(self, line: bytes) -> None:
        """One line of answers."""
        try:
            _write(self.answers, line)
        except OSError:  # the program closed it
            self.answers = _os_open(self.folder + "/answers", os.O_WRONLY | os.O_APPEND)
            _write(self.answers, line)

    def answer(self, row: list[Any]) -> None:
        """One line of answers as JSON."""
        self.write(_dump(row).encode() + b"\n")

    def result(self, test: int, value: Any, error: Error | None) -> None:
        """The line of one test."""
        memory = _usage(0).ru_maxrss
        if error is None and type(value) is int and -(1 << 60) < value < 1 << 60:
            self.write(b"[%d,%d,%d,null]\n" % (test, memory, value))
        else:
            self.answer([test, memory, value, error])

    def start_clock(self, test: int = 0) -> None:
        """The time limit counts from here."""
        self.test = test
        _pack("<dd", self.page, 0, _cpu(), _wall())

    def provide(self, text: bytes) -> None:
        """Files 0 and 1 for the next test."""
        try:
            if text:
                _pwrite(self.given, text, 0)
            _truncate(self.given, len(text))  # after the writing: the page stays
        except OSError:
            self.given = _os_open(self.folder + "/in", os.O_RDWR | os.O_TRUNC)
            _pwrite(self.given, text, 0)
        _lseek(self.given, 0, 0)
        _dup2(self.given, 0)
        try:
            _dup2(self.shown, 1)
        except OSError:
            self.shown = _os_open(self.folder + "/out", os.O_WRONLY | os.O_APPEND)
            _dup2(self.shown, 1)

    def output_end(self) -> int:
        """Bytes of standard output so far."""
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


def new_module(name: str) -> dict[str, Any]:
    """The namespace of a new module that stands as `__main__`."""
    module = types.ModuleType(name)
    space = module.__dict__
    space["__builtins__"] = builtins
    space["__file__"] = PROGRAM
    space["__annotations__"] = {}
    _modules["__main__"] = module
    return space


def _standard_input() -> Any:
    return _Text(_Reader(_File(0, "r", closefd=False), 1 << 16), "utf-8", "strict")


def _standard_output() -> Any:
    return _Text(_Writer(_File(1, "w", closefd=False), 1 << 16), "utf-8", "strict")


class _World:
    """What the parent makes once and its children take over: the first pair of streams, the directory."""

    box = ""
    given: Any = None
    shown: Any = None


def prepare(box: str) -> None:
    """Before the first fork: `box` is the directory of the programs; files 0 and 1 are the exchange files."""
    _PRISTINE.update(_BUILTINS)
    _World.box, _World.given, _World.shown = box, _standard_input(), _standard_output()
    for name, module in (("<stdin>", _World.given), ("<stdout>", _World.shown)):
        module.buffer.raw.name = name
    sys.argv = [PROGRAM]
    install_streams(_World.given, _World.shown)


def install_streams(given: Any, shown: Any) -> None:
    """Make two streams the standard ones."""
    streams: Any = sys
    streams.stdin = streams.__stdin__ = given
    streams.stdout = streams.__stdout__ = shown
    streams.stderr = streams.__stderr__ = _stderr


def next_test(shown: Any, code: Any) -> Any:
    """The world of a further test: a new standard input; the old standard output if it is as good as new. Returns that."""
    if shown.closed or shown.__dict__:
        shown = _standard_output()
    install_streams(_standard_input(), shown)
    sys.argv = [PROGRAM]
    if sys.getrecursionlimit() != 1000:
        _restore_limit(1000)
    if "os" in code.co_names or "chdir" in code.co_names:
        _chdir(_World.box)
    return shown


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
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
        except BaseException as failure:
            error = error or describe(failure)
    return error, stays


def run_stdin(child: Child, code: Any, job: dict[str, Any]) -> None:
    """A script, once per test, as `__main__` in a new namespace."""
    shown = _World.shown
    for index, text in enumerate(job["inputs"], job["first"]):
        child.provide(text)
        if index > job["first"]:
            shown = next_test(shown, code)
        space = new_module("__main__")
        error: Error | None = None
        child.start_clock(index)
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
    _modules["solution"] = _modules["__main__"]
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
    child.write(b'["loaded",null]\n')
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
        try:
            if function is None:
                function = entry(space, job["entry_point"])
            answer = codec.plain(function(*codec.value_of(arguments)))
        except BaseException as failure:
            error = called(failure)
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
        try:
            if "values" in test:
                answer = [codec.plain(eval(compile(text, TESTS, "eval", dont_inherit=True), space)) for text in test["values"]]
            else:
                answer = run_guarded(space, test, job)
        except BaseException as failure:
            error = called(failure)
        child.result(index, answer, error)
        if error is not None and job["stop_at_first_error"]:
            return
    child.write(b'["end"]\n')


def run_guarded(space: dict[str, Any], test: dict[str, Any], job: dict[str, Any]) -> Any:
    """A statement that cannot be split: run with the original builtins; the answer is the word that only this job knows."""
    import ast

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
    space = new_module("tests")
    child.write(b'["compiled"]\n')
    try:
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
            values = _decoded(test["values"])
            answer = False
            if values is not None:
                space.update({f"_value_{position}": value for position, value in enumerate(values)})
                answer = bool(eval(compile(test["expression"], TESTS, "eval", dont_inherit=True), space))
        except Exception as failure:
            error = describe(failure)
        child.result(index, answer, error)
    child.write(b'["end"]\n')


def warm(child: Child) -> None:
    """Run trusted programs of every kind (in the parent)."""
    kinds: list[tuple[Any, str, dict[str, Any]]] = [
        (run_stdin, "n = int(input())\nprint(n, *map(int, input().split()))", {"inputs": [b"1\n2 3\n"] * 12}),
        (run_stdin, "import sys\nsys.stdout.write(sys.stdin.read())\nraise SystemExit(0)", {"inputs": [b"1\n"] * 4}),
        (run_stdin, "print(unknown)", {"inputs": [b""] * 4}),
        (run_call, "def f(x):\n    return [x, (1, {2: 3.5})]", {"inputs": [[1]] * 8, "entry_point": "f"}),
        (run_assert, "def f(x):\n    return x", {"inputs": [{"values": ["f(1)"]}] * 4, "setup": ""}),
    ]
    for _ in range(4):
        for run, source, job in kinds:
            run(child, compile(source, PROGRAM, "exec", dont_inherit=True), {"first": 0, "stop_at_first_error": False, **job})
    del _modules["solution"]
    prepare(_World.box)


def main(child: Child, job: dict[str, Any]) -> NoReturn:
    """Do the job and leave; the exit status says nothing that the answers do not."""
    if job["kind"] == "evaluate":
        run_evaluate(child, job)
        _os_exit(0)
    try:
        code = _unmarshal(job["code"]) if "code" in job else compile(job["source"], PROGRAM, "exec", dont_inherit=True)
    except BaseException as failure:
        child.answer(["refused", *describe(failure)])
        _os_exit(0)
    child.write(b'["compiled"]\n')
    try:
        {"stdin": run_stdin, "call": run_call, "assert": run_assert}[job["kind"]](child, code, job)
    except MemoryError as failure:  # in the harness: the program left it no room
        failure.__traceback__ = None
        child.result(child.test, None, ["memoryerror", "", None])
    _os_exit(0)
