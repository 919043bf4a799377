"""The parent of all programs: started once per worker, warmed, jailed, then one forked child per request.

    judge outside  --SOCK_SEQPACKET: length, tests, CPU and wall limits-->  this process  --clone-->  child = one program
                   <--status, cause, CPU seconds, memory------------------

The job itself, the program's standard output and its answers are files that the judge outside holds open: this process
never reads what a program wrote, apart from two clock readings that can only shorten or bound the program's own time.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import resource
import select
import shutil
import signal
import socket
import struct
import sys
import time
from typing import Any, NoReturn

from . import harness, jail, syscalls

REQUEST = struct.Struct("<QIdd")
"""Bytes of the job, number of tests, CPU seconds and wall seconds per test."""
REPLY = struct.Struct("<iBBddQ")
"""Wait status, cause (0 own end, 1 CPU limit, 2 wall limit), whether the box could not be emptied, CPU s, wall s, max RSS in KB."""
_STAMPS = struct.Struct("<dd")
_LONGEST_NAP = 0.25

PRELOADED = (
    "abc bisect calendar cmath collections collections.abc contextlib copy dataclasses datetime decimal enum fractions functools "
    "hashlib heapq io itertools json math numbers operator os queue random re statistics string struct sys textwrap threading "
    "time traceback types typing array warnings __future__ _sitebuiltins encodings.utf_8 concurrent"
)
_WARM_UP = """
import sys, math, collections, heapq
from functools import lru_cache
class A:
    def f(self, x, *args, k=1, **kw): return [y for y in x if y % 2] + [sum(args)]
def main():
    data = {i: str(i) for i in range(9)}
    with open(0) as lines: rows = [list(map(int, line.split())) for line in lines]
    try: print(*sorted(data, key=lambda i: -i), sep=",", file=sys.stderr)
    except ValueError as error: raise SystemExit(f"{error!r:>9}")
    while rows and not all(rows): rows.pop()
    return max(len(r) for r in rows) if rows else None
"""


def _warm() -> None:
    import builtins
    import importlib

    for name in PRELOADED.split():
        importlib.import_module(name)
    import _sitebuiltins

    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D (i.e. EOF)")
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D (i.e. EOF)")
    sys.set_int_max_str_digits(0)
    for _ in range(3):
        exec(compile(_WARM_UP, "warm.py", "exec", dont_inherit=True), {"__name__": "warm"})


class Zygote:
    """State of the serving process."""

    def __init__(self, control: socket.socket, settings: dict[str, Any], folder: str, box: str, program_id: int) -> None:
        self.control, self.settings, self.folder, self.box, self.program_id = control, settings, folder, box, program_id
        self.page = mmap.mmap(-1, mmap.PAGESIZE)
        self.flags = signal.SIGCHLD | (0 if settings["unisolated"] else syscalls.CLONE_NEWPID)

    def serve(self) -> NoReturn:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        gc.collect()
        gc.freeze()
        while True:
            message = self.control.recv(REQUEST.size)
            if len(message) != REQUEST.size:
                os._exit(0)
            length, tests, cpu_limit, wall_limit = REQUEST.unpack(message)
            _STAMPS.pack_into(self.page, 0, 0.0, 0.0)
            started = time.monotonic()
            child = syscalls.clone(self.flags)
            if child == 0:
                try:
                    self.become_program(length, tests, cpu_limit)
                finally:
                    os._exit(70)
            status, cause, usage = self.watch(child, started, tests, cpu_limit, wall_limit)
            dirty = self.empty_box()
            wall = time.monotonic() - started
            self.control.send(REPLY.pack(status, cause, dirty, usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss))
            if dirty:
                os._exit(0)

    def become_program(self, length: int, tests: int, cpu_limit: float) -> NoReturn:
        """In the child: own files, no way back to the judge, no rights, then the harness."""
        folder = self.folder
        job = os.open(folder + "/job", os.O_RDONLY)
        payload = os.pread(job, length, 0)
        while len(payload) < length:
            payload += os.pread(job, length - len(payload), len(payload))
        os.close(job)
        os.close(self.control.fileno())
        answers = os.open(folder + "/answers", os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
        given = os.open(folder + "/in", os.O_RDWR | os.O_TRUNC)
        shown = os.open(folder + "/out", os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
        if self.settings["unisolated"]:
            os.setpgid(0, 0)
        # A process's CPU time only; for the children of the program, which the clock outside does not see until they end.
        seconds = int(cpu_limit * tests) + 2
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        if self.program_id:
            os.setresgid(self.program_id, self.program_id, self.program_id)
            os.setresuid(self.program_id, self.program_id, self.program_id)
        if not self.settings["unisolated"]:
            syscalls.drop_capabilities()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        harness.main(harness.Child(folder, self.page, answers, given, shown), payload)

    def watch(self, child: int, started: float, tests: int, cpu_limit: float, wall_limit: float) -> tuple[int, int, Any]:
        """Wait for the child; kill it, and with it everything in its namespace, when a limit is reached."""
        clock = (~child << 3) | 2  # CPU clock of another process
        cause = 0
        nap = min(cpu_limit, wall_limit, _LONGEST_NAP)
        while True:
            signal.sigtimedwait({signal.SIGCHLD}, nap)
            reaped, status, usage = os.wait4(child, os.WNOHANG)
            if reaped:
                break
            try:
                cpu = time.clock_gettime(clock)
            except OSError:  # it has just ended
                nap = 0.01
                continue
            now = time.monotonic()
            test_cpu, test_started = _STAMPS.unpack_from(self.page)
            # The child wrote these two: whatever they say, a program gets its number of tests times the limit at most.
            test_cpu = test_cpu if 0 <= test_cpu <= cpu else cpu
            test_started = test_started if started <= test_started <= now else started
            cpu_left = min(cpu_limit - (cpu - test_cpu), cpu_limit * (tests + 1) - cpu)
            wall_left = min(wall_limit - (now - test_started), wall_limit * (tests + 1) - (now - started))
            if cpu_left <= 0 or wall_left <= 0:
                cause = 1 if cpu_left <= 0 else 2
                self.kill(child)
                _, status, usage = os.wait4(child, 0)
                break
            nap = max(0.005, min(cpu_left, wall_left, _LONGEST_NAP))
        if self.settings["unisolated"]:
            self.kill(child)
        return status, cause, usage

    def kill(self, child: int) -> None:
        try:
            if self.settings["unisolated"]:
                os.killpg(child, signal.SIGKILL)
            else:
                os.kill(child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return

    def empty_box(self) -> bool:
        """Remove what the program left behind; True when that failed and this worker must not be used again."""
        try:
            os.chmod(self.box, 0o777)
            with os.scandir(self.box) as entries:
                left = list(entries)
            for entry in left:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)
        except (OSError, RecursionError):
            return True
        return False


def _guard_launcher(child: int, alive: int) -> NoReturn:
    """Outside of the inner process namespace: end when the judge ends or when the zygote does."""
    waiting = select.poll()
    waiting.register(alive, select.POLLHUP)
    waiting.register(os.pidfd_open(child), select.POLLIN)
    waiting.poll()
    try:
        os.kill(child, signal.SIGKILL)
    except ProcessLookupError:
        pass
    os._exit(0)


def _open_files(control: socket.socket, folder: str, layers: dict[str, Any]) -> None:
    """Hand the judge its own descriptors of the exchange files, which no program ever shares."""
    files = [os.open(f"{folder}/{name}", os.O_RDWR) for name in ("job", "out", "answers")]
    socket.send_fds(control, [json.dumps(layers).encode()], files)
    for file in files:
        os.close(file)


def main() -> None:
    """Arguments: settings as JSON, descriptor of the control socket, descriptor that closes when the judge ends."""
    settings = json.loads(sys.argv[1])
    control = socket.socket(fileno=int(sys.argv[2]))
    alive = int(sys.argv[3])
    _warm()
    base = jail.memory_in_use()

    def ask_for_ids() -> int:
        control.send(json.dumps({"map": os.getpid()}).encode())
        return int(control.recv(64))

    program_id, folder, box = 0, settings.get("folder", ""), settings.get("folder", "")
    try:
        if not syscalls.supported():
            raise jail.JailError(f"machine {syscalls.MACHINE}: only x86_64 and aarch64 are known")
        if settings["unisolated"]:
            box = os.path.join(folder, "box")
        else:
            program_id = jail.enter(settings, ask_for_ids)
            folder, box = jail.FILES, jail.BOX
    except jail.JailError as error:
        control.send(json.dumps({"error": str(error)}).encode())
        return
    sys.stdout.flush()
    child = os.fork()
    if child:
        control.close()
        _guard_launcher(child, alive)
    os.close(alive)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
    jail.limit(settings, base)
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)
    for name in list(os.environ):
        del os.environ[name]
    os.environ.update({"HOME": box, "TMPDIR": box, "LANG": "C.UTF-8", "PATH": "/usr/bin:/bin", "TZ": "UTC"})
    time.tzset()
    os.chdir(box)
    os.umask(0o022)
    import random

    random.seed(0)
    layers = {"interpreter_mb": base, "own_user": bool(program_id)}
    _open_files(control, folder, layers)
    syscalls.install_filter()
    for name in [name for name in sys.modules if name == "inside" or name.startswith("inside.")]:
        del sys.modules[name]
    settings["box"] = box
    Zygote(control, settings, folder, box, program_id).serve()
