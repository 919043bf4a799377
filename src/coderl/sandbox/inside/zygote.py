"""The parent of all programs: started once per worker, warmed, jailed, then one forked child per request.

    judge outside  --SOCK_SEQPACKET: length, tests, CPU and wall limits-->  this process  --clone-->  child = one program
                   <--status, cause, CPU seconds, memory------------------

The job itself, the program's standard output and its answers are files that the judge outside holds open: this process
never reads what a program wrote, apart from two clock readings that can only shorten or bound the program's own time.
"""

from __future__ import annotations

import _socket
import gc
import importlib
import importlib.machinery
import json
import marshal
import mmap
import os
import select
import signal
import struct
import sys
import time
import types
from typing import Any, NoReturn

from . import child as world
from . import contained, harness, jail, syscalls

_INTERFACE = 2
_compiled_loop: Any = None
try:
    from . import _loop as _compiled_loop  # type: ignore[attr-defined,no-redef]

    COMPILED_LOOP_PROBLEM = "" if _compiled_loop.INTERFACE == _INTERFACE else "it was built from other sources than these"
except Exception as error:  # no compiler at installation, another machine's or another Python's build
    COMPILED_LOOP_PROBLEM = str(error)
"""Why the loop runs in Python where it could run compiled; empty if it need not."""

REQUEST = struct.Struct("<QIdd")
"""Bytes of the job, number of tests, CPU seconds and wall seconds per test."""
REPLY = struct.Struct("<iBBddQ")
"""Wait status, cause (0 own end, 1 CPU limit, 2 wall limit), whether the box could not be emptied, CPU s, wall s, max RSS in KB."""
_STAMPS = struct.Struct("<dd")
_LONGEST_NAP = 0.25
_KNOWN_TESTS = 1000
_POOL, _LARGEST_BLOCK, _BYTES_HEADER, _GAPS = 16384, 512, sys.getsizeof(b""), 20_000
"""CPython's allocator: bytes of a pool and of its biggest block; and a bound in case that it is another one."""
MAPS = 255
"""Descriptor of /proc/self/maps, the highest that is allowed (jail.limit)."""
MAX_MESSAGE = 100_000
"""Bytes of source or code that one socket message carries; longer programs are compiled in their child."""

PRELOADED = "bisect collections copy functools heapq itertools math operator random re string sys time threading typing _sitebuiltins"
"""What most programs import. Every further module makes the parent bigger and with it every fork slower; others load on demand."""
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

    for name in PRELOADED.split():
        importlib.import_module(name)
    import _sitebuiltins

    builtins.exit = _sitebuiltins.Quitter("exit", "Ctrl-D (i.e. EOF)")
    builtins.quit = _sitebuiltins.Quitter("quit", "Ctrl-D (i.e. EOF)")
    sys.set_int_max_str_digits(0)
    for _ in range(3):
        exec(compile(_WARM_UP, "warm.py", "exec", dont_inherit=True), {"__name__": "warm"})


def _load_numpy(folders: list[str], isolated: bool) -> None:
    """Load the package before the walls stand, and tell its modules where behind them they find what they import later."""
    import importlib

    outside = os.path.dirname(folders[0])
    sys.path.append(outside)
    importlib.import_module("numpy.random").seed(0)
    if not isolated:
        return
    sys.path[-1] = jail.PACKAGES
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "numpy" and getattr(module, "__file__", None):
            module.__file__ = module.__file__.replace(outside, jail.PACKAGES, 1)  # type: ignore[union-attr]
            if hasattr(module, "__path__"):
                module.__path__ = [path.replace(outside, jail.PACKAGES, 1) for path in module.__path__]


class _Kept:
    """Imports this package's modules from their code, kept while the files could still be read."""

    def __init__(self) -> None:
        modules: dict[str, Any] = {name: module for name, module in sys.modules.items() if name.startswith("inside.")}
        sources = {name: module for name, module in modules.items() if module.__file__.endswith(".py")}
        self.code = {name: marshal.dumps(module.__spec__.loader.get_code(name)) for name, module in sources.items()}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """As importlib asks every finder."""
        return importlib.machinery.ModuleSpec(name, self) if name in self.code else None  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> None:
        """The usual kind of module."""

    def exec_module(self, module: Any) -> None:
        """Run the kept code."""
        exec(marshal.loads(self.code[module.__name__]), module.__dict__)


def _fill_gaps() -> list[object]:
    """Objects for all the gaps in the allocator's pools: what comes next begins a new pool of its size."""
    filling: list[object] = []
    for size in range(48, _LARGEST_BLOCK + 1, 16):
        for _ in range(_GAPS):
            filling.append(bytes(size - _BYTES_HEADER))
            if len(filling) > 2 and id(filling[-3]) % _POOL < 64 and id(filling[-1]) - id(filling[-3]) == 2 * size:  # a new pool
                del filling[-3:]
                break
    return filling


def _move_together(kept: _Kept) -> list[object]:
    """Make the objects of the harness anew, one beside the other: what a child touches is copied by the page.

    Python's allocator first hands out the gaps that start-up left all over its pools. They are filled (the caller keeps what
    fills them), then the modules are imported again, and what children allocate later comes to lie beside them too.
    """
    for name in kept.code:
        del sys.modules[name]
        sys.modules["inside"].__dict__.pop(name.partition(".")[2], None)
    globals().update(world=None, harness=None)
    gc.collect()
    filling = _fill_gaps()
    sys.meta_path.insert(0, kept)
    globals().update(harness=importlib.import_module("inside.harness"), world=importlib.import_module("inside.child"))
    del sys.meta_path[0]
    return filling


def compile_sources(requests: _socket.socket) -> NoReturn:
    """A long-lived process that compiles and never executes: warm it takes a tenth of the time that it takes in a fresh child.

    Request: marshalled (source, (expressions of one test, ...)). Reply: b"c" and, marshalled, (code, [codes of one test or None,
    ...]); b"C" where none of them is None; b"e" and [class, message, line] as JSON; or b"?" when the child has to compile itself. A
    source that hangs or kills this process costs the judge a new worker; then it too is compiled in a child, where limits hold.
    """
    known: dict[tuple[str, ...], tuple[types.CodeType, ...] | None] = {}
    gc.freeze()
    while True:
        request = requests.recv(MAX_MESSAGE)
        if not request:
            os._exit(0)
        source, tests = marshal.loads(request)
        try:
            code = compile(source, world.PROGRAM, "exec", dont_inherit=True)
            if len(known) > _KNOWN_TESTS:
                known.clear()
            for test in tests:
                if test not in known:
                    known[test] = _compile_test(test)
            codes = [known[test] for test in tests]
            reply = (b"c" if None in codes else b"C") + marshal.dumps((code, codes))
        except (MemoryError, RecursionError):
            reply = b"?"
        except Exception as error:
            reply = b"e" + json.dumps(world.describe(error)).encode()
        requests.send(reply if len(reply) <= MAX_MESSAGE else b"?")


def _compile_test(expressions: tuple[str, ...]) -> tuple[types.CodeType, ...] | None:
    try:
        return tuple(compile(text, harness.TESTS, "eval", dont_inherit=True) for text in expressions)
    except Exception:  # its error belongs to the test, and is raised there
        return None


class Zygote:
    """State of the serving process."""

    def __init__(self, control: _socket.socket, settings: dict[str, Any], folder: str, box: str, program_id: int) -> None:
        self.control, self.settings, self.folder, self.box, self.program_id = control, settings, folder, box, program_id
        self.waiting = select.poll()
        self.control_file = control.fileno()
        self.job = os.open(folder + "/job", os.O_RDONLY)
        self.maps = MAPS
        try:
            os.fstat(MAPS)
        except OSError:
            self.maps = -1
        self.filling: list[object] = []
        self.page = mmap.mmap(-1, mmap.PAGESIZE)
        self.shared = None if settings["own_processes"] else contained.SharedWalls(folder, settings["landlock"])
        self.flags = signal.SIGCHLD | (syscalls.CLONE_NEWPID if settings["own_processes"] and settings["walls"] else 0)

    def start_compiler(self, requests: _socket.socket) -> None:
        """Fork the compiling process, as powerless as a program."""
        # Where orphans of programs come to us, it is our brother: a child that is left belongs to a program.
        compiler = syscalls.clone(self.flags | (syscalls.CLONE_PARENT if self.shared else 0))
        if compiler == 0:
            try:
                self.become_program()
                self.close_maps()
                if self.settings["walls"]:
                    syscalls.install_filter()
                compile_sources(requests)
            finally:
                os._exit(1)
        requests.close()
        if self.shared:
            contained.adopt_orphans()
            syscalls.install_shared_filter([os.getpid(), compiler, *self.settings["protected"]], os.getpgrp())

    def close_maps(self) -> None:
        """Only the compiled loop looks at the mappings."""
        if self.maps >= 0:
            os.close(self.maps)

    def warm(self) -> None:
        """Run the harness here a few times: the interpreter specialises its byte code now, and not again in every child."""
        child = world.Child(self.folder, self.page, *self.new_files())
        harness.warm(child)
        child.close()

    def serve(self) -> NoReturn:
        """Fork one child per request until the judge closes the socket."""
        try:
            if self.settings["compiled_loop"] and not COMPILED_LOOP_PROBLEM:
                self.compiled_loop()
            self.loop()
        except BaseException:
            import traceback

            self.control.send(traceback.format_exc()[-4000:].encode())
            os._exit(1)

    def loop(self) -> NoReturn:
        """The requests, one after the other."""
        self.close_maps()
        gc.collect()
        gc.freeze()
        while True:
            message = self.control.recv(REQUEST.size)
            if len(message) != REQUEST.size:
                os._exit(0)
            length, tests, cpu_limit, wall_limit = REQUEST.unpack(message)
            # Everything that can be made ready before the fork is: here its pages are warm, in the child every page that is
            # touched for the first time costs a fault. Open files are new ones, because flags and offsets belong to the opening.
            payload = os.pread(self.job, length, 0)
            while len(payload) < length:
                payload += os.pread(self.job, length - len(payload), len(payload))
            job = marshal.loads(payload)
            del payload
            child = world.Child(self.folder, self.page, *self.new_files())
            _STAMPS.pack_into(self.page, 0, 0.0, 0.0)
            started = time.monotonic()
            process = syscalls.clone(self.flags)
            if process == 0:
                try:
                    self.become_program()
                    harness.main(child, job)
                finally:
                    os._exit(70)
            # Little happens here before the child has ended: until then every page that is written to has to be copied.
            status, cause, usage = self.watch(process, started, tests, cpu_limit, wall_limit)
            del job
            child.close()
            dirty = self.empty_box()
            wall = time.monotonic() - started
            self.control.send(REPLY.pack(status, cause, dirty, usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss))
            if dirty:
                os._exit(0)

    def compiled_loop(self) -> NoReturn:
        """The same by _loop.c, with fewer of this process's pages touched between two forks, and so fewer copied."""
        paths = tuple(f"{self.folder}/{name}" for name in ("answers", "in", "out"))
        child = world.Child(self.folder, self.page, *self.new_files())
        child.close()
        child.stamp = _compiled_loop.stamp
        files = (child.answers, child.given, child.shown)
        shared = self.shared is not None
        _compiled_loop.prepare(
            self.control_file, self.job, self.maps, self.page, paths, files, self.box, self.flags, self.program_id,
            shared, self.become_program, self.ended, self.empty_box, child, harness.failed, child.encoded,
        )  # fmt: skip
        serve, main, leave = _compiled_loop.serve, harness.main, os._exit
        gc.collect()
        self.filling += _fill_gaps()
        gc.freeze()
        job = serve()
        try:  # in the child
            main(child, job)
        finally:
            leave(70)

    def new_files(self) -> tuple[int, int, int]:
        """Descriptors of empty files for answers, standard input and standard output; the last two are also 0 and 1."""
        answers = os.open(self.folder + "/answers", os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
        given = os.open(self.folder + "/in", os.O_RDWR | os.O_TRUNC)
        shown = os.open(self.folder + "/out", os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
        os.dup2(given, 0)
        os.dup2(shown, 1)
        if not self.program_id:  # the program before owned them
            for file in (answers, given, shown):
                os.fchmod(file, 0o666)
        return answers, given, shown

    def become_program(self) -> None:
        """In the child: no way back to the judge, no rights."""
        os.close(self.control_file)
        os.close(self.job)
        if self.program_id:  # leaving user 0 gives up all capabilities
            os.setresgid(self.program_id, self.program_id, self.program_id)
            os.setresuid(self.program_id, self.program_id, self.program_id)
        elif self.shared:
            self.shared.become_program()
        else:
            syscalls.drop_capabilities()

    def watch(self, child: int, started: float, tests: int, cpu_limit: float, wall_limit: float) -> tuple[int, int, Any]:
        """Wait for the child; kill it, and with it everything in its namespace, when a limit is reached."""
        clock = (~child << 3) | 2  # CPU clock of another process
        cause = 0
        nap = min(cpu_limit, wall_limit, _LONGEST_NAP)
        ended = os.pidfd_open(child)
        waiting = self.waiting
        waiting.register(ended, select.POLLIN)
        while True:
            if waiting.poll(nap * 1000):
                _, status, usage = os.wait4(child, 0)
                break
            try:
                cpu = time.clock_gettime(clock)
            except OSError:  # it has just ended
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
        waiting.unregister(ended)
        os.close(ended)
        if self.shared:
            self.ended(child)
        return status, cause, usage

    def ended(self, child: int) -> None:
        """After a program without a process namespace: end what it left running."""
        if self.shared:
            self.shared.end(child)

    def kill(self, child: int) -> None:
        """End the program; with it the kernel ends everything in its process namespace."""
        try:
            os.kill(-child if self.shared else child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return

    def empty_box(self) -> bool:
        """Remove what the program left behind; True when that failed and this worker must not be used again."""
        try:
            for folder in (self.box, *self.settings["scratch"]):
                if folder == self.box:
                    os.chmod(folder, 0o777)
                with os.scandir(folder) as entries:
                    left = list(entries)
                for entry in left:
                    _remove(entry)
        except (OSError, RecursionError):
            return True
        return self.shared is not None and not self.shared.restore()


def _remove(entry: os.DirEntry[str]) -> None:
    # shutil.rmtree would bring three compression libraries along.
    if not entry.is_dir(follow_symlinks=False):
        os.unlink(entry.path)
        return
    os.chmod(entry.path, 0o777)
    with os.scandir(entry.path) as entries:
        for inner in list(entries):
            _remove(inner)
    os.rmdir(entry.path)


def _guard_launcher(child: int, alive: int, shared: bool) -> NoReturn:
    """Outside of the inner process namespace: end when the judge ends or when the zygote does."""
    waiting = select.poll()
    waiting.register(alive, select.POLLHUP)
    waiting.register(os.pidfd_open(child), select.POLLIN)
    waiting.poll()
    try:
        os.kill(child, signal.SIGKILL)
    except ProcessLookupError:
        os._exit(0)
    os.waitpid(child, 0)  # so that the CPU time of every program is accounted to the judge
    if shared:
        contained.end_children()
    os._exit(0)


def _fork_from_launcher(control: _socket.socket, compiler: _socket.socket, alive: int, shared: bool = False) -> None:
    """Go on in a new process, which the old one guards."""
    child = os.fork()
    if child:
        control.close()
        compiler.close()
        _guard_launcher(child, alive, shared)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)


def _keep_maps(proc: int) -> None:
    """Open the list of this process's mappings, which behind the walls cannot be had, out of the way of other descriptors."""
    try:
        maps = os.open("self/maps", os.O_RDONLY, dir_fd=proc)
        try:
            os.dup2(maps, MAPS)
        finally:
            os.close(maps)
    except OSError:  # the loop does without
        pass
    finally:
        os.close(proc)


def _open_files(control: _socket.socket, folder: str, layers: dict[str, Any]) -> None:
    """Hand the judge its own descriptors of the exchange files, which no program ever shares."""
    files = [os.open(f"{folder}/{name}", os.O_RDWR) for name in ("job", "out", "answers")]
    ancillary = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack(f"{len(files)}i", *files))
    control.sendmsg([json.dumps(layers).encode()], [ancillary])
    for file in files:
        os.close(file)


def main() -> None:
    """Arguments: settings as JSON; descriptors: control socket, socket of the compiler, pipe that closes when the judge ends."""
    settings = json.loads(sys.argv[1])
    control = _socket.socket(fileno=int(sys.argv[2]))
    compiler = _socket.socket(fileno=int(sys.argv[3]))
    alive = int(sys.argv[4])
    _warm()
    if settings["packages"]:
        _load_numpy(settings["packages"], isolated=settings["build"])
    base = jail.memory_in_use()
    proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY) if os.path.isdir("/proc/self") else -1
    kept = _Kept()

    def ask_for_ids() -> int:
        control.send(json.dumps({"map": os.getpid()}).encode())
        return int(control.recv(64))

    program_id, folder, box = 0, settings["folder"], settings["box"]
    shared = not settings["own_processes"]
    settings["scratch"] = [path for path in settings["scratch"] if os.path.isdir(path) and os.access(path, os.W_OK)]
    try:
        if not syscalls.supported():
            raise jail.JailError(f"machine {syscalls.MACHINE}: only x86_64 and aarch64 are known")
        if settings["build"]:
            program_id = jail.enter(settings, ask_for_ids)
    except jail.JailError as error:
        control.send(json.dumps({"error": str(error)}).encode())
        return
    sys.stdout.flush()
    if shared:
        settings["protected"] = [os.getppid(), os.getpid()]
        if settings["build"]:  # a rehearsal of a container, which has a process 1 of the programs' own user
            _fork_from_launcher(control, compiler, alive)
            contained.rehearse(program_id)
            program_id, settings["protected"] = 0, [1]
        contained.hide()
        contained.adopt_orphans()
    _fork_from_launcher(control, compiler, alive, shared)
    if proc >= 0:
        _keep_maps(proc)
    os.close(alive)
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
    landlock = settings["landlock"] = syscalls.landlock_version() if settings["landlock"] else 0
    layers = {
        "interpreter_mb": base,
        "own_user": bool(program_id),
        "landlock": landlock,
        "compiled_loop_problem": COMPILED_LOOP_PROBLEM if settings["compiled_loop"] else "",
    }
    _open_files(control, folder, layers)
    filling = _move_together(kept)
    del kept
    for name in [name for name in sys.modules if name == "inside" or name.startswith("inside.")]:
        del sys.modules[name]
    for standard, name in ((0, "in"), (1, "out")):
        os.dup2(os.open(f"{folder}/{name}", os.O_RDWR), standard)
    world.prepare(box)
    zygote = Zygote(control, settings, folder, box, program_id)
    zygote.filling = filling
    try:
        zygote.warm()
        syscalls.die_by_signals()
        if landlock:
            syscalls.landlock(jail.rules(settings, folder, box), landlock)
        zygote.start_compiler(compiler)
        if settings["walls"]:
            syscalls.install_filter()
    except OSError as error:
        control.send(f"cannot lock itself in: {error}".encode())
        os._exit(1)
    zygote.serve()
