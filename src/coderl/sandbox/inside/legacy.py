"""One program under the pipeline of the official CodeRL checker (spec 4.2), in the same forked child as any other program.

The judge outside has already rewritten the source (sandbox/legacy.py); here it is loaded and called in the world which that checker
gave it: standard input and output are replaced by StringIO, `open` returns the input, and the module is called tmp_sol. A module is
loaded once and keeps its state from test to test. The lines of answers are those of harness.py; a test of a call answers
[value, rows], where rows are the lists that the checker makes of a sequence of tuples.
"""

from __future__ import annotations

import builtins
import io
import os
import sys
import types
from typing import Any

from . import codec, prelude
from .child import Child, Error, World, describe, modules, new_module

globals()["__builtins__"] = dict(builtins.__dict__)

MODULE = "tmp_sol"
OUTPUT_OF_ONE_CHILD = 4 << 20
"""Bytes of output after which the rest of the tests gets a fresh child, so that many legal outputs fit the file limit."""
_StringIO, _os_open, _os_write, _dup2 = io.StringIO, os.open, os.write, os.dup2
_builtins: Any = builtins
_open = builtins.open


def load(child: Child, code: Any, job: dict[str, Any]) -> Any:
    """Load the module and find what is called; None when that failed and the failure was written down.

    Whatever is raised here is the official checker's compile error, and so is a missing function (spec 4.6: it left the checker by
    an unguarded getattr; upstream APPS returns -2).
    """
    null = _os_open("/dev/null", os.O_RDWR)  # what the checker's own process has: no input, and output that nobody reads
    _dup2(null, 0)
    _dup2(null, 1)
    new_module("__main__")
    # As pyext did it: executed in a fresh dict without a name, so that `__name__` is found in the builtins and no main guard opens.
    space: dict[str, Any] = {"__builtins__": builtins}
    child.start_clock()
    try:
        prelude.run(job["prelude"], space)
        exec(code, space)
        module = types.ModuleType(MODULE, "")
        module.__dict__.update({name: value for name, value in space.items() if name not in ("__builtins__", "__doc__")})
        module.__file__ = "<runtime_module>"
        modules[MODULE] = module
        names: Any = module
        method = getattr(names.Solution() if job["solution"] else names, job["entry_point"])
    except BaseException as failure:
        child.answer(["loaded", describe(failure)])
        return None
    child.write(b'["loaded",null]\n')
    return method


def _lend(given: Any, text: str) -> None:
    """Let the checker's own standard input, which a program binds with `from sys import stdin`, read the test by three methods.

    So it was: the patches of these methods found that stream and not the StringIO. Lines come without their ends, and after the last
    one there is StopIteration.
    """
    lines = iter(text.split("\n"))
    given.read = lambda *args: text
    given.readlines = lambda *args: text.split("\n")
    given.readline = lambda *args: next(lines)


class _Opened:
    """What `open` returns during a test: one handle for all files, which reads the test from its beginning since the last `open`.

    It does what `unittest.mock.mock_open` does where programs use it; for anything else the standard library's mock is made, whose
    import takes longer than most programs.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._stream: Any = None
        self._lines: Any = None
        self._mock: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> _Opened:
        self._stream = _StringIO(self._text)
        self._lines = iter(self._stream)
        return self

    def read(self, *args: Any) -> Any:
        return self._stream.read(*args)

    def readline(self, *args: Any) -> Any:
        # The size counts only after the last line (sic).
        return next(self._lines, None) or self._stream.readline(*args)

    def readlines(self, *args: Any) -> Any:
        return self._stream.readlines(*args)

    def write(self, *args: Any) -> None:
        return None

    close = flush = seek = writelines = write

    def __iter__(self) -> Any:
        yield from self._stream

    def __next__(self) -> Any:
        return next(self._stream)

    def __enter__(self) -> _Opened:
        return self

    def __exit__(self, *args: Any) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        if self._mock is None:
            _builtins.open = _open
            from unittest.mock import mock_open

            self._mock = mock_open(read_data=self._text)()
            _builtins.open = self
        return getattr(self._mock, name)


def _show(child: Child, text: str) -> None:
    """Write captured output to the file of outputs; what is over the limit on files is over the limit on output too."""
    child.output_end()  # opens the file again if the program closed it
    left = memoryview(text.encode("utf-8", "surrogatepass"))
    try:
        while left:
            left = left[_os_write(child.shown, left) :]
    except OSError:
        return


def run_stdin(child: Child, code: Any, job: dict[str, Any]) -> None:
    """A script that became the function `code`, called once per test with its streams replaced."""
    method = load(child, code, job)
    if method is None:
        return
    streams: Any = sys
    given, shown = World.given, World.shown
    for index, text in enumerate(job["inputs"], job["first"]):
        error: Error | None = None
        captured: Any = _StringIO()
        captured.close = lambda x: 1  # sic: closing the output is a TypeError
        _lend(given, text)
        streams.stdin, streams.stdout, _builtins.open = _StringIO(text), captured, _Opened(text)
        child.start_clock(index)
        try:
            method()
        except SystemExit:
            error = None
        except BaseException as failure:
            error = describe(failure)
        streams.stdin, streams.stdout, _builtins.open = given, shown, _open
        if error is None:
            _show(child, _StringIO.getvalue(captured))
        end = child.output_end()
        child.result(index, end, error)
        if error is not None:
            return
        if end > OUTPUT_OF_ONE_CHILD:
            child.answer(["fresh"])
            return
    child.write(b'["end"]\n')


def _rows(value: Any) -> Any:
    """[list(x) for x in value] where the first element of a sequence is a tuple; None where there is no such thing."""
    try:
        if isinstance(value[0], tuple):
            return codec.plain([list(part) for part in value], believe=True)
    except BaseException:
        return None
    return None


def run_call(child: Child, code: Any, job: dict[str, Any]) -> None:
    """A function or a method of Solution, called once per test, until one raises."""
    method = load(child, code, job)
    if method is None:
        return
    for index, arguments in enumerate(job["inputs"], job["first"]):
        error: Error | None = None
        answer: Any = None
        child.start_clock(index)
        try:
            value = method(*codec.value_of(arguments))
            if isinstance(value, tuple):
                value = list(value)
            if codec.is_numpy(value, "ndarray"):
                raise ValueError("the truth value of an array is ambiguous")
            answer = [codec.plain(value, believe=True), _rows(value)]
        except SystemExit as stop:
            error = ["systemexit", "the program ended before it answered", describe(stop)[2]]
        except BaseException as failure:
            error = describe(failure)
        child.result(index, answer, error)
        if error is not None:
            return
    child.write(b'["end"]\n')
