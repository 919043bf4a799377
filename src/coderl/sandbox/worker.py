"""One worker, seen from the trusted side: a started parent of programs, the jobs sent to it, what children left."""

from __future__ import annotations

import importlib.util
import json
import logging
import marshal
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from coderl.sandbox.inside.parent import Left, WorkerDiedError
from coderl.sandbox.inside.zygote import MAX_MESSAGE, REPLY, REQUEST
from coderl.sandbox.outcome import InfrastructureError, Limits

__all__ = ["Backend", "Link", "Run", "Worker", "WorkerDiedError"]

LOG = logging.getLogger(__name__)

LOOP = "CODERL_SANDBOX_LOOP"
"""Environment variable: `python` keeps the parent of the programs from using its compiled loop. Verdicts are the same."""
_STACK_ROOM_MB = 1024
_MAX_FILES = 2048
_MARSHAL = 2
"""The form that every Python reads (a container may have another one), and whose reader does not look every key up."""
_SLACK_SECONDS = 60.0
_COMPILE_SECONDS = 3.0
announced: set[str] = set()
"""Backends whose layers this process has logged."""


class IsolationError(InfrastructureError):
    """This host does not allow the backend's walls: no second try will."""


class Link(Protocol):
    """The way to a started parent of programs: inside.parent.Parent on this host, container.StreamLink into a container."""

    layers: dict[str, Any]

    def compile(self, source: bytes, seconds: float) -> bytes:
        """The compiler's reply; empty when it died."""

    def run(self, job: bytes, request: bytes, seconds: float) -> Left:
        """Run one child; raises WorkerDiedError."""

    def output(self, start: int, end: int) -> bytes:
        """Standard output of the last child; raises WorkerDiedError."""

    def said(self) -> str:
        """What the far side wrote to standard error."""

    def kill(self) -> None:
        """From another thread: end it now."""

    def close(self) -> None:
        """End every process of it."""


@dataclass(frozen=True)
class Backend:
    """How programs are kept in: settings of their parent, the way to it, and words for the log."""

    name: str
    start: Callable[[dict[str, Any], Limits], Link]
    """Raises InfrastructureError."""
    layers: str
    """The active ones, apart from those that the parent finds out."""
    own_processes: bool = False
    """A process namespace per program; else the walls of inside/contained.py."""
    build: bool = False
    """The parent makes its namespaces and its root; else it was put into them."""
    folder: str = "/io"
    """Of the exchange files; empty: a new one."""
    box: str = "/box"
    scratch: tuple[str, ...] = ()
    """Further folders that programs can write to, emptied after each."""
    foreign: tuple[str, ...] = ()
    """Folders of others that programs need to write to: let be."""
    other_processes: int = 4096
    """What counts along in the limit on processes; many where everything that the user runs does."""
    landlock: bool = True
    """Where the kernel has it. False: without, to test and to measure the rest."""
    trusted: bool = False
    """No isolation: for programs that one trusts."""
    numpy: bool = False
    """Programs can be given this installation's numpy."""
    walls: bool = True
    """False: no namespaces, no filter, no user of their own, only limits. With `own_processes` set what is left is the same engine on
    the same way, so that what the walls cost can be measured; a program's own children then outlive it."""

    def settings(self, limits: Limits) -> dict[str, Any]:
        """What zygote.main is told."""
        return {
            "memory_mb": limits.memory_mb,
            "max_processes": limits.max_processes,
            "max_output_mb": limits.max_output_mb,
            "max_file_mb": limits.max_file_mb,
            "max_files": _MAX_FILES,
            "stack_room_mb": _STACK_ROOM_MB,
            "own_processes": self.own_processes,
            "build": self.build,
            "folder": self.folder,
            "box": self.box,
            "scratch": self.scratch,
            "foreign": self.foreign,
            "landlock": self.landlock,
            "walls": self.walls,
            "other_processes": self.other_processes,
            "packages": [],
            "compiled_loop": os.environ.get(LOOP, "") != "python",
        }


class Compiled(NamedTuple):
    """Marshalled code of a program and of its tests."""

    code: bytes
    tests: bool
    """The tests' is complete."""


@dataclass(slots=True)
class Run:
    """What one child did: its end, its costs, and the answers it left."""

    status: int
    """Exit status, or minus the signal."""
    cause: int
    """0 = its own end, 1 = killed at the CPU limit, 2 = killed at the wall limit."""
    cpu_seconds: float
    wall_seconds: float
    memory_mb: float
    answers: bytes
    output_size: int


class Worker:
    """A started worker. Not safe for two threads at once; `close` ends every process of it.

    With `numpy` the package of this installation is loaded in the parent of the programs and visible in their world. That makes every
    fork slower (docs/outcomes.md), so such a worker is a second one, for the programs that need it: `with_numpy`.

    Raises:
        InfrastructureError: when the backend does not start; the message says what to do.
    """

    def __init__(self, limits: Limits, kind: Backend, numpy: bool = False) -> None:
        self.limits = limits
        self.kind = kind
        self.numpy = numpy
        self._second: Worker | None = None
        self.backend = kind.name
        self.memory_base = 0.0
        self._dirty = self._aborted = False
        self._link: Link | None = None
        try:
            self._start_twice()
        except BaseException:
            self.close()
            raise

    def _start_twice(self) -> None:
        """Start; once more if it fails, because what fails once (no process, no memory, no descriptor to be had) may not last."""
        try:
            self._start()
        except IsolationError:
            raise
        except (InfrastructureError, OSError):
            self._end()
            try:
                self._start()
            except OSError as error:
                raise InfrastructureError(f"cannot start a sandbox worker: {error}") from None

    def _start(self) -> None:
        if not sys.platform.startswith("linux") and self.kind.name != "docker":
            raise InfrastructureError("the sandbox needs Linux: it is made of namespaces, seccomp and resource limits; or backend docker")
        settings = self.kind.settings(self.limits)
        if self.numpy:
            settings["packages"] = _numpy_folders()
        self._link = self.kind.start(settings, self.limits)
        _announce(self.kind, self._link.layers)
        self._measure_base()

    def _failed(self, reason: str) -> InfrastructureError:
        said = self._link.said() if self._link is not None else ""
        return InfrastructureError(f"the sandbox worker did not start: {reason}\n{said}".rstrip())

    def _measure_base(self) -> None:
        """Memory of a program that does nothing; and proof that a pass is possible at all."""
        self.memory_base = self._canary().memory_mb

    def works(self) -> bool:
        """Whether a program that does nothing wrong still runs as it should."""
        try:
            self._canary()
        except InfrastructureError:
            return False
        return True

    def _canary(self) -> Run:
        job = {"kind": "stdin", "source": "print(6 * 7)", "inputs": [b""], "first": 0, "stop_at_first_error": False}
        try:
            run = self.run(job, 1)
            shown = self.output(0, run.output_size)
        except WorkerDiedError as error:
            raise self._failed(str(error)) from None
        if run.status or shown != b"42\n":
            raise self._failed(f"its first program ended with status {run.status} and {run.answers[:500]!r}")
        return run

    def compile(self, source: str, tests: Sequence[tuple[str, ...]] = ()) -> Compiled | list[Any] | None:
        """The code; or the compiler's error; or None: the source has to be compiled in a child of its own.

        `tests` are the expressions of every test, compiled with it.
        """
        encoded = marshal.dumps((source, tuple(tests)), _MARSHAL)
        if len(encoded) > MAX_MESSAGE:
            return None
        if self._dirty:
            self.restart()
        assert self._link is not None
        reply = self._link.compile(encoded, _COMPILE_SECONDS)
        if reply[:1] in (b"c", b"C"):
            return Compiled(reply[1:], reply[:1] == b"C")
        if reply[:1] == b"e":
            error: list[Any] = json.loads(reply[1:])
            return error
        if not reply:  # it hangs or is dead
            self.restart()
        return None

    def run(self, job: dict[str, Any], tests: int) -> Run:
        """Run one child on `job` (see inside/harness.py); raises WorkerDiedError."""
        if self._dirty:  # the last program's directory could not be emptied
            self.restart()
        assert self._link is not None
        wall = self.limits.wall
        request = (tests, self.limits.cpu_seconds, wall)
        payload = marshal.dumps(job, _MARSHAL)
        left = self._link.run(payload, REQUEST.pack(len(payload), *request), wall * (tests + 1) + _SLACK_SECONDS)
        status, cause, dirty, cpu, seconds, peak = REPLY.unpack(left.reply)
        self._dirty = bool(dirty)
        return Run(
            status=os.waitstatus_to_exitcode(status),
            cause=cause,
            cpu_seconds=cpu,
            wall_seconds=seconds,
            memory_mb=peak / 1024,
            answers=left.answers,
            output_size=left.output_size,
        )

    def output(self, start: int, end: int) -> bytes:
        """Standard output of the last run from byte `start` to `end`; raises InfrastructureError."""
        assert self._link is not None
        try:
            return self._link.output(start, end)
        except WorkerDiedError as error:
            raise InfrastructureError(f"the sandbox worker died while its output was read: {error}") from None

    def with_numpy(self) -> Worker | None:
        """This worker's twin whose programs can import numpy; None where there is none for them. Started at the first call."""
        if self.numpy:
            return self
        if self._second is None and self.kind.numpy and _numpy_folders():
            if self._aborted:
                raise InfrastructureError("the judge is closing")
            self._second = Worker(self.limits, self.kind, numpy=True)
        return self._second

    def restart(self) -> None:
        """End this worker's processes and start new ones; raises InfrastructureError."""
        if self._aborted:
            raise InfrastructureError("the judge is closing")
        self._end()
        self._dirty = False
        self._start_twice()

    def abort(self) -> None:
        """From another thread: kill the program that is running and let its judging fail."""
        self._aborted = True
        if self._second is not None:
            self._second.abort()
        if self._link is not None:
            self._link.kill()

    def close(self) -> None:
        """End every process of this worker."""
        if self._second is not None:
            self._second.close()
            self._second = None
        self._end()

    def _end(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()


@lru_cache(maxsize=1)
def _numpy_folders() -> list[str]:
    """The folders of the installed numpy (and of its own libraries, in a wheel beside it); empty where it is not installed."""
    found = importlib.util.find_spec("numpy")
    if found is None or not found.submodule_search_locations:
        return []
    package = os.path.realpath(found.submodule_search_locations[0])
    beside = os.path.join(os.path.dirname(package), "numpy.libs")
    return [package, *([beside] if os.path.isdir(beside) else [])]


def _announce(kind: Backend, found: dict[str, Any]) -> None:
    if kind.name in announced:
        return
    announced.add(kind.name)
    version = found.get("landlock")
    landlock = f"; Landlock (version {version})" if version else "; NOT active: Landlock (this kernel, or the container's filter, has none)"
    if kind.trusted:
        LOG.warning("THE SANDBOX IS OFF: %s%s. Never do this with programs you do not trust.", kind.layers, landlock)
        return
    problem = found.get("compiled_loop_problem")
    if problem:
        LOG.info("sandbox: no compiled loop (%s), so programs are forked by Python, at half the speed; `make install` builds it", problem)
    own = ""
    if kind.own_processes:
        own = "; a user of their own" if found.get("own_user") else "; NOT active: a user of their own (only root can map one)"
    LOG.info("sandbox: backend %s, active isolation layers: %s%s%s", kind.name, kind.layers, landlock, own)
