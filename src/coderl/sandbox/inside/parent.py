"""A started parent of programs (zygote.py), from the side that started it: the judge, or the relay in a container.

It carries bytes and understands none of them: sources to compile, jobs and requests to run, and what a child left.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from .zygote import MAX_MESSAGE, REPLY

_BOOTSTRAP = "import sys; sys.path.insert(0, sys.argv.pop(1)); from inside.zygote import main; del sys.path[0]; main()"
MAX_ANSWERS = 64 << 20
_SMALL = 16384
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""For numpy in the parent: what forks has one thread, and a program's CPU time is that of one core."""
START_SECONDS = 60.0


class WorkerDiedError(Exception):
    """The jailed process ended or did not answer; the program in it is judged again by a new one."""


class StartError(Exception):
    """The parent did not start; `isolation` is set where this host refuses a wall."""

    def __init__(self, message: str, isolation: bool = False) -> None:
        super().__init__(message)
        self.isolation = isolation


class Left(NamedTuple):
    """What a child left behind."""

    reply: bytes
    """zygote.REPLY"""
    answers: bytes
    output_size: int


class Exchange:
    """Sockets and files that lead to a parent of programs, whoever started it."""

    def __init__(self, control: socket.socket | None = None, compiler: socket.socket | None = None, files: Sequence[int] = ()) -> None:
        self.control, self.compiler = control, compiler
        self.files = list(files)
        """Job, output, answers."""
        self.job_size = _SMALL + 1
        self.patience: dict[socket.socket, float] = {}
        """Seconds that the kernel waits for a message."""

    def compile(self, source: bytes, seconds: float) -> bytes:
        """The reply of zygote.compile_sources; empty: it hangs or is dead, and a new parent is needed."""
        assert self.compiler is not None
        try:
            self._wait_at_most(self.compiler, seconds)
            self.compiler.send(source)
            return self.compiler.recv(MAX_MESSAGE)
        except OSError:
            return b""

    def begin(self, job: bytes, request: bytes) -> None:
        """Let a child start on `job`; raises WorkerDiedError."""
        assert self.control is not None
        try:
            if self.job_size > _SMALL:
                os.ftruncate(self.files[0], 0)
            self.job_size = len(job)
            written = os.pwrite(self.files[0], job, 0)
            while written < len(job):
                written += os.pwrite(self.files[0], job[written:], written)
            self.control.send(request)
        except OSError as error:
            raise WorkerDiedError(f"no answer: {error}") from None

    def finish(self, seconds: float) -> Left:
        """Wait for the child that was begun; raises WorkerDiedError."""
        assert self.control is not None
        try:
            self._wait_at_most(self.control, seconds)
            reply = self.control.recv(8192)
        except OSError as error:
            raise WorkerDiedError(f"no answer: {error}") from None
        if len(reply) != REPLY.size:
            raise WorkerDiedError(f"it ended {reply.decode('utf-8', 'replace')}".rstrip())
        answers = os.pread(self.files[2], _SMALL, 0)
        if len(answers) == _SMALL:
            answers = os.pread(self.files[2], min(os.fstat(self.files[2]).st_size, MAX_ANSWERS), 0)
        return Left(reply, answers, os.lseek(self.files[1], 0, os.SEEK_END))

    def run(self, job: bytes, request: bytes, seconds: float) -> Left:
        """`begin` and `finish`."""
        self.begin(job, request)
        return self.finish(seconds)

    def output(self, start: int, end: int) -> bytes:
        """Standard output of the last child from byte `start` to `end`."""
        return os.pread(self.files[1], max(0, end - start), start) if end > start else b""

    def _wait_at_most(self, connection: socket.socket, seconds: float) -> None:
        """Have the kernel end a wait for a message: one system call less per message than a time-out of Python's."""
        if self.patience.get(connection) != seconds:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(seconds), max(1, int(seconds % 1 * 1e6))))
            self.patience[connection] = seconds

    def close(self) -> None:
        """Close all of it."""
        for file in self.files:
            os.close(file)
        self.files = []
        for connection in (self.control, self.compiler):
            if connection is not None:
                connection.close()
        self.control = self.compiler = None
        self.patience.clear()


class Parent(Exchange):
    """Starts at once; raises StartError. `close` ends every process of it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        self.settings = settings
        self.layers: dict[str, Any] = {}
        self._alive: int | None = None
        self._errors: IO[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: str | None = None
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        settings = self.settings
        if not settings["build"]:
            if not settings["folder"]:
                self._folder = tempfile.mkdtemp(prefix="coderl-unisolated-")
                settings = {**settings, "folder": self._folder, "box": os.path.join(self._folder, "box")}
                os.mkdir(settings["box"])
            for name, mode in (("job", 0o600), ("in", 0o666), ("out", 0o666), ("answers", 0o666)):
                path = Path(settings["folder"], name)
                path.touch()
                path.chmod(mode)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control = ours
        ours.settimeout(START_SECONDS)
        self.compiler, compiler = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        read_end, self._alive = os.pipe()
        self._errors = open(os.memfd_create("errors"), "w+b")  # noqa: SIM115
        source = str(Path(__file__).parents[1])
        arguments = [source, json.dumps(settings), str(theirs.fileno()), str(compiler.fileno()), str(read_end)]
        try:
            # -P, -S, -s, -B and an environment of our own: nothing of the user's Python reaches the programs; a fixed hash seed
            # makes the order of sets, and with it the verdict, the same every time (-I would ignore the seed).
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-S", "-P", "-B", "-X", "utf8", "-c", _BOOTSTRAP, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                pass_fds=(theirs.fileno(), compiler.fileno(), read_end),
                # LD_BIND_NOW: a function bound at its first call would be looked up again in every child.
                env={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "LD_BIND_NOW": "1", **_ONE_THREAD, **_library_path()},
                cwd="/",
            )
        except OSError as error:
            raise StartError(f"cannot start {sys.executable}: {error}") from None
        finally:
            theirs.close()
            compiler.close()
            os.close(read_end)
        message: dict[str, Any] = {}
        try:
            if settings["build"]:
                message = json.loads(ours.recv(4096) or b"{}")
            if "map" in message:
                ours.send(str(_map_ids(message["map"])).encode())
            if "error" not in message:
                data, self.files, _flags, _address = socket.recv_fds(ours, 4096, 3)
                message = json.loads(data or b"{}")
        except (OSError, ValueError) as error:
            raise StartError(f"{error}\n{self.said()}".rstrip()) from None
        if "error" in message:
            raise StartError(message["error"], isolation=True)
        if len(self.files) != 3:
            raise StartError(f"it ended while starting\n{self.said()}".rstrip())
        ours.settimeout(None)
        self.layers = message

    def said(self) -> str:
        """The end of what it wrote to standard error."""
        if self._errors is None:
            return ""
        self._errors.seek(0)
        return self._errors.read()[-2000:].decode("utf-8", "replace").strip()

    def kill(self) -> None:
        """From another thread: end it now, and let whoever waits for it see that."""
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End every process."""
        super().close()
        if self._alive is not None:
            os.close(self._alive)
        if self._process is not None:
            try:
                self._process.wait(10)  # the launcher sees the pipe close, ends the jail and itself
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._errors is not None:
            self._errors.close()
        self._alive = self._process = self._errors = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def _library_path() -> dict[str, str]:
    found = os.environ.get("LD_LIBRARY_PATH")
    return {"LD_LIBRARY_PATH": found} if found else {}


def _map_ids(process: int) -> int:
    """Write the id maps of a new user namespace; returns how many ids it has.

    With the right to (root), programs get an id of their own, which is nobody outside. Else the one id is our own, and programs
    share it with their parent but have no capabilities.
    """
    folder = f"/proc/{process}"
    user, group = os.geteuid(), os.getegid()
    try:
        Path(folder, "uid_map").write_text(f"0 {user} 1\n1000 65534 1\n")
        Path(folder, "gid_map").write_text(f"0 {group} 1\n1000 65534 1\n")
        return 2
    except OSError:
        pass
    with contextlib.suppress(OSError):
        Path(folder, "setgroups").write_text("deny")
    Path(folder, "uid_map").write_text(f"0 {user} 1\n")
    Path(folder, "gid_map").write_text(f"0 {group} 1\n")
    return 1
