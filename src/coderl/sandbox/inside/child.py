"""The world of one program inside its child: exchange files, standard streams, modules, errors as plain data.

Everything that the harness uses is bound here before a program runs, and functions look builtins up in a copy: a program that
patches modules or builtins does not change its harness.
"""

from __future__ import annotations

import atexit
import builtins
import io
import json
import os
import struct
import sys
import threading
import time
import types
from typing import Any

from .codec import plain

globals()["__builtins__"] = dict(builtins.__dict__)

PROGRAM = "solution.py"
MAX_MESSAGE = 500

Error = list[Any]
_Text, _Reader, _Writer, _File = io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.FileIO
_cpu, _wall, _join = time.process_time, time.monotonic, "".join
_pack, _os_open, _close, _lseek = struct.pack_into, os.open, os.close, os.lseek
_write, _pwrite, _truncate, _dup2, _shutdown = os.write, os.pwrite, os.ftruncate, os.dup2, threading._shutdown  # type: ignore[attr-defined]
_threads, _callbacks, _run_callbacks = threading._active, atexit._ncallbacks, atexit._run_exitfuncs  # type: ignore[attr-defined]
_getpid, _os_exit = os.getpid, os._exit
_stderr, modules, _restore_limit, _chdir = sys.stderr, sys.modules, sys.setrecursionlimit, os.chdir
_json: Any = json.encoder
_encode: Any = json.JSONEncoder().iterencode
if _json.c_make_encoder is not None:
    # What json.dumps makes anew every time. codec.plain writes no cycles, so none are looked for.
    _encode = _json.c_make_encoder(None, None, _json.encode_basestring_ascii, None, ": ", ", ", False, False, True)
PRISTINE: dict[str, Any] = {}
"""The builtins before the program."""


class Child:
    """The files of one child: answers, standard input and output, and the page that its parent's clock reads."""

    def __init__(self, folder: str, page: Any, answers: int, given: int, shown: int) -> None:
        self.folder, self.page, self.answers, self.given, self.shown = folder, page, answers, given, shown
        self.test = self.length = 0
        self.process = 0
        self.stamp: Any = self.stamp_page

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
        self.write(_join(_encode(row, 0)).encode() + b"\n")

    def encoded(self, value: Any) -> bytes:
        """A value as it stands in answers."""
        return _join(_encode(plain(value), 0)).encode()

    def result(self, test: int, value: Any, error: Error | None) -> None:
        """The line of one test."""
        if error is None and type(value) is int and -(1 << 60) < value < 1 << 60:
            self.write(b"[%d,%d,null]\n" % (test, value))
        else:
            self.answer([test, value, error])

    def leave_if_copy(self) -> None:
        """A copy of the program that it forked and let run on ends here; only the original answers."""
        if _getpid() != self.process:
            _os_exit(0)

    def write_source(self, text: str) -> None:
        """The program's own file, for programs that look at themselves."""
        with open(PROGRAM, "w", encoding="utf-8", newline="") as file:
            file.write(text)

    def start_clock(self, test: int = 0) -> None:
        """The time limit counts from here."""
        self.test = test
        if not self.process:
            self.process = _getpid()
        self.stamp()

    def stamp_page(self) -> None:
        """Write the clocks down where the parent reads them."""
        _pack("<dd", self.page, 0, _cpu(), _wall())

    def provide(self, text: bytes) -> None:
        """Files 0 and 1 for the next test."""
        try:
            if text:
                _pwrite(self.given, text, 0)
            if len(text) < self.length:
                _truncate(self.given, len(text))
            self.length = len(text)
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
    modules["__main__"] = module
    return space


_CODE = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)


def discard(space: dict[str, Any]) -> None:
    """Empty a namespace at the end of a program: its data first, so that destructors still find functions, classes and modules."""
    for name in list(space):
        if type(name) is str and name[:2] != "__" and not issubclass(type(space.get(name)), _CODE):
            space[name] = None
    space.clear()


def _standard_input() -> Any:
    return _Text(_Reader(_File(0, "r", closefd=False), 8192), "utf-8", "strict")


def _standard_output() -> Any:
    return _Text(_Writer(_File(1, "w", closefd=False), 8192), "utf-8", "strict")


class World:
    """What the parent makes once and its children take over: the first pair of streams, the directory."""

    box = ""
    given: Any = None
    shown: Any = None


def prepare(box: str) -> None:
    """Before the first fork: `box` is the directory of the programs; files 0 and 1 are the exchange files."""
    PRISTINE.update(builtins.__dict__)
    World.box, World.given, World.shown = box, _standard_input(), _standard_output()
    for name, module in (("<stdin>", World.given), ("<stdout>", World.shown)):
        module.buffer.raw.name = name
    sys.argv = [PROGRAM]
    sys.path[:0] = [] if box in sys.path else [box]  # as the folder of a script is
    install_streams(World.given, World.shown)


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
        quietly(lambda: _chdir(World.box))
    return shown


def quietly(function: Any) -> None:
    """Failures in threads and exit callbacks leave the exit status of an interpreter at 0."""
    try:
        function()
    except BaseException:
        return


def finish(shown: Any) -> tuple[Error | None, bool]:
    """What the interpreter does at exit: wait for threads, run callbacks, flush. Returns (error, whether state stays behind)."""
    stays = False
    if len(_threads) > 1 or "concurrent.futures.thread" in modules:
        stays = True
        quietly(_shutdown)
    if _callbacks():
        stays = True  # whoever registered one has said good-bye for ever: multiprocessing works only once
        quietly(_run_callbacks)
    return flush(shown), stays


def flush(shown: Any) -> Error | None:
    """Write out what standard output holds back; returns the first error."""
    error: Error | None = None
    for stream in (shown,) if sys.stdout is shown else (sys.stdout, shown):
        try:
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()
        except BaseException as failure:
            error = error or describe(failure)
    return error
