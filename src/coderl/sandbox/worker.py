"""One worker, seen from the trusted side: starts the jailed parent of programs, sends it jobs, reads what children left."""

from __future__ import annotations

import contextlib
import json
import logging
import marshal
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from coderl.sandbox.inside.zygote import MAX_MESSAGE, REPLY, REQUEST
from coderl.sandbox.outcome import InfrastructureError, Limits

LOG = logging.getLogger(__name__)

UNISOLATED = "CODERL_SANDBOX_UNISOLATED"
"""Environment variable that lets programs run without isolation (value 1)."""
LOOP = "CODERL_SANDBOX_LOOP"
"""Environment variable: `python` keeps the parent of the programs from using its compiled loop. Verdicts are the same."""
_BOOTSTRAP = "import sys; sys.path.insert(0, sys.argv.pop(1)); from inside.zygote import main; del sys.path[0]; main()"
_STACK_ROOM_MB = 1024
_MAX_FILES = 2048
_MAX_ANSWERS = 64 << 20
_SMALL = 16384
_START_SECONDS = 60.0
_SLACK_SECONDS = 60.0
_COMPILE_SECONDS = 3.0
_LAYERS = (
    "user, process, mount, network, IPC and host name namespaces; a process namespace per program; read-only root; "
    "no capabilities; no_new_privs; seccomp allow list; limits on CPU time, memory, processes, output, files"
)
_HINT = (
    "programs of a model are not run without isolation. Unprivileged user namespaces must be enabled: as root "
    "`sysctl -w user.max_user_namespaces=10000` (Debian: kernel.unprivileged_userns_clone=1; Ubuntu: "
    "kernel.apparmor_restrict_unprivileged_userns=0); in a container allow them (docker run --security-opt seccomp=unconfined). "
    f"Only for programs that you trust: {UNISOLATED}=1"
)
_announced: set[str] = set()


class WorkerDiedError(Exception):
    """The jailed process ended or did not answer; the program in it is judged again by a new one."""


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

    Raises:
        InfrastructureError: when isolation is not to be had and was not waived; the message says what to do.
    """

    def __init__(self, limits: Limits, unisolated: bool = False) -> None:
        self.limits = limits
        self.asked_unisolated = unisolated
        self.unisolated = unisolated or os.environ.get(UNISOLATED, "") == "1"
        self.backend = "unisolated" if self.unisolated else "namespace"
        self.memory_base = 0.0
        self._dirty = self._aborted = False
        self._job_size = 0
        self._files: list[int] = []
        self._folder: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._compiler: socket.socket | None = None
        self._alive: int | None = None
        self._errors: IO[bytes] | None = None
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _settings(self) -> dict[str, Any]:
        settings: dict[str, Any] = {
            "memory_mb": self.limits.memory_mb,
            "max_processes": self.limits.max_processes,
            "max_output_mb": self.limits.max_output_mb,
            "max_file_mb": self.limits.max_file_mb,
            "max_files": _MAX_FILES,
            "stack_room_mb": _STACK_ROOM_MB,
            "unisolated": self.unisolated,
            "compiled_loop": os.environ.get(LOOP, "") != "python",
        }
        if self.unisolated:
            self._folder = tempfile.mkdtemp(prefix="coderl-unisolated-")
            os.mkdir(os.path.join(self._folder, "box"))
            for name in ("job", "in", "out", "answers"):
                Path(self._folder, name).touch()
            settings["folder"] = self._folder
        return settings

    def _start(self) -> None:
        if not sys.platform.startswith("linux"):
            raise InfrastructureError("the sandbox needs Linux: it is made of namespaces, seccomp and resource limits")
        settings = self._settings()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control = ours
        ours.settimeout(_START_SECONDS)
        self._compiler, compiler = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        read_end, self._alive = os.pipe()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        source = str(Path(__file__).parent)
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
                env={"PYTHONHASHSEED": "0", "LANG": "C.UTF-8", "LD_BIND_NOW": "1", **_library_path()},
                cwd="/",
            )
        except OSError as error:
            raise InfrastructureError(f"cannot start the worker {sys.executable}: {error}") from None
        finally:
            theirs.close()
            compiler.close()
            os.close(read_end)
        message: dict[str, Any] = {}
        try:
            if not self.unisolated:
                message = json.loads(ours.recv(4096) or b"{}")
            if "map" in message:
                ours.send(str(_map_ids(message["map"])).encode())
        except (OSError, ValueError) as error:
            raise self._failed(str(error)) from None
        if "error" in message:
            raise InfrastructureError(f"the sandbox cannot isolate programs on this host ({message['error']}): {_HINT}")
        try:
            data, self._files, _flags, _address = socket.recv_fds(ours, 4096, 3)
            message = json.loads(data or b"{}")
        except (OSError, ValueError) as error:
            raise self._failed(str(error)) from None
        if "error" in message:
            raise InfrastructureError(f"the sandbox cannot isolate programs on this host ({message['error']}): {_HINT}")
        if len(self._files) != 3:
            raise self._failed("it ended while starting")
        ours.settimeout(None)
        _wait_at_most(self._compiler, _COMPILE_SECONDS)
        _announce(self.backend, bool(message.get("own_user")))
        if settings["compiled_loop"] and message.get("compiled_loop_problem"):
            _announce_python_loop(message["compiled_loop_problem"])
        self._measure_base()

    def _failed(self, reason: str) -> InfrastructureError:
        said = ""
        if self._errors is not None:
            self._errors.seek(0)
            said = self._errors.read()[-2000:].decode("utf-8", "replace").strip()
        return InfrastructureError(f"the sandbox worker did not start: {reason}\n{said}".rstrip())

    def _measure_base(self) -> None:
        """Memory of a program that does nothing; and proof that a pass is possible at all."""
        job = {"kind": "stdin", "source": "print(6 * 7)", "inputs": [b""], "first": 0, "stop_at_first_error": False}
        try:
            run = self.run(job, 1)
        except WorkerDiedError as error:
            raise self._failed(str(error)) from None
        if run.status or self.output(0, run.output_size) != b"42\n":
            raise self._failed(f"its first program ended with status {run.status} and {run.answers[:500]!r}")
        self.memory_base = run.memory_mb

    def compile(self, source: str, tests: Sequence[tuple[str, ...]] = ()) -> bytes | list[Any] | None:
        """The marshalled code; or the compiler's error; or None: the source has to be compiled in a child of its own.

        `tests` are the expressions of every test, compiled with it.
        """
        encoded = marshal.dumps((source, tuple(tests)))
        if len(encoded) > MAX_MESSAGE:
            return None
        if self._dirty:
            self.restart()
        assert self._compiler is not None
        try:
            self._compiler.send(encoded)
            reply = self._compiler.recv(MAX_MESSAGE)
        except OSError:
            reply = b""
        if reply[:1] == b"c":
            return reply[1:]
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
        assert self._control is not None
        payload = marshal.dumps(job, 2)  # the version that does not ask the reader to look every key up among its interned strings
        wall = self.limits.wall
        try:
            if self._job_size > _SMALL:
                os.ftruncate(self._files[0], 0)
            self._job_size = len(payload)
            written = os.pwrite(self._files[0], payload, 0)
            while written < len(payload):
                written += os.pwrite(self._files[0], payload[written:], written)
            _wait_at_most(self._control, wall * (tests + 1) + _SLACK_SECONDS)
            self._control.send(REQUEST.pack(len(payload), tests, self.limits.cpu_seconds, wall))
            reply = self._control.recv(8192)
        except OSError as error:
            raise WorkerDiedError(f"no answer: {error}") from None
        if len(reply) != REPLY.size:
            raise WorkerDiedError(f"it ended {reply.decode('utf-8', 'replace')}".rstrip())
        status, cause, dirty, cpu, seconds, peak = REPLY.unpack(reply)
        answers = os.pread(self._files[2], _SMALL, 0)
        if len(answers) == _SMALL:
            answers = os.pread(self._files[2], min(os.fstat(self._files[2]).st_size, _MAX_ANSWERS), 0)
        run = Run(
            status=os.waitstatus_to_exitcode(status),
            cause=cause,
            cpu_seconds=cpu,
            wall_seconds=seconds,
            memory_mb=peak / 1024,
            answers=answers,
            output_size=os.lseek(self._files[1], 0, os.SEEK_END),
        )
        self._dirty = bool(dirty)
        return run

    def output(self, start: int, end: int) -> bytes:
        """Standard output of the last run from byte `start` to `end`."""
        return os.pread(self._files[1], max(0, end - start), start) if end > start else b""

    def restart(self) -> None:
        """End this worker's processes and start new ones; raises InfrastructureError."""
        if self._aborted:
            raise InfrastructureError("the judge is closing")
        self._end()
        self._dirty = False
        self._start()

    def _end(self) -> None:
        for file in self._files:
            os.close(file)
        self._files = []
        for connection in (self._control, self._compiler):
            if connection is not None:
                connection.close()
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
        self._control = self._compiler = self._alive = self._process = self._errors = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def abort(self) -> None:
        """From another thread: kill the program that is running and let its judging fail."""
        self._aborted = True
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End every process of this worker."""
        self._end()


def _wait_at_most(connection: socket.socket, seconds: float) -> None:
    """Have the kernel end a wait for a message: one system call less per message than a time-out of Python's."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(seconds), max(1, int(seconds % 1 * 1e6))))


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


def _announce_python_loop(problem: str) -> None:
    if problem not in _announced:
        _announced.add(problem)
        LOG.info("sandbox: no compiled loop (%s), so programs are forked by Python, a quarter slower; `make install` builds it", problem)


def _announce(backend: str, own_user: bool) -> None:
    if backend in _announced:
        return
    _announced.add(backend)
    if backend == "unisolated":
        LOG.warning(
            "THE SANDBOX IS OFF: programs run as this user, with this user's files and network (%s=1). "
            "Active: seccomp allow list, limits on CPU time, memory, output and files. Never do this with programs you do not trust.",
            UNISOLATED,
        )
    else:
        own = "; a user of their own" if own_user else "; NOT active: a user of their own (only root can map one)"
        LOG.info("sandbox: active isolation layers: %s%s", _LAYERS, own)
