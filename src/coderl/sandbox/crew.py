"""Judging processes, one per worker: what is outside of a worker is Python too, and two workers in one process wait for its lock.

A judging process holds one worker and judges on it what it is sent. Whoever wants programs judged (`Crew`) hands out jobs, keeps their
order and their ids, and collects outcomes; programs that take a millisecond travel a few at a time. The processes are interpreters
started afresh: a fork would carry threads, descriptors and memory of its parent along. They end with whoever started them, after
kill -9 too, and every process of their worker with them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import marshal
import os
import pickle
import select
import socket
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from coderl.records import DataError
from coderl.sandbox import backends, judging, worker
from coderl.sandbox.judging import judge_on
from coderl.sandbox.outcome import Checker, InfrastructureError, Job, Limits, Outcome, Prelude
from coderl.sandbox.worker import Worker

_BOOTSTRAP = (
    "import signal, sys, json\n"
    # Ctrl-C at a terminal reaches this process too. Who started it decides what ends; what it starts itself is as it would be there.
    "if signal.getsignal(signal.SIGINT) is signal.default_int_handler: signal.signal(signal.SIGINT, lambda *_: None)\n"
    "sys.path[:] = json.loads(sys.argv[1])\n"
    "from coderl.sandbox.crew import main\n"
    "main()"
)
_SIZE = struct.Struct("<Q")
_AHEAD = 40
"""Jobs per worker that are taken from the iterator before their results are asked for: others go on beside a slow program."""
_TOGETHER = 12
"""Jobs that travel together at most. A message costs 50 us, a twentieth of a small program (benchmarks/README.md)."""
_MESSAGE_SECONDS = 0.02
"""Judging that is worth a message."""
_QUEUE_SECONDS = 0.02
"""Programs that take less find the next ones waiting behind them; others are for whoever is free first."""
_LOOK_SECONDS = 0.001
"""How often answers are read while jobs come: a look is a system call, which programs that take a millisecond need not pay each."""
_END_SECONDS = 30.0
"""What a judging process gets to end its worker in order."""

_MESSAGE = "a program, the name of its function, or the checker"

Settings = tuple[Checker, bool, Prelude]
"""As judge_on takes them."""


@dataclass(slots=True)
class _Asked:
    """A job on its way to its outcome."""

    id: Hashable
    job: Job | None
    """None once the outcome is there."""
    found: Outcome | BaseException | None = None
    lost: int = 0
    """Judging processes that ended while they had it."""


class _Named:
    """Stands for an id, or a part of one, in messages of errors."""

    def __init__(self, identity: object) -> None:
        self.shown, self.said = repr(identity), str(identity)

    def __repr__(self) -> str:
        return self.shown

    def __str__(self) -> str:
        return self.said


class _NamedTuple(tuple[Any, ...]):
    """Stands for an id that is a tuple: the judge takes what its first part says for the name of the problem."""

    shown = ""

    def __repr__(self) -> str:
        return self.shown


def _is_plain(identity: object) -> bool:
    kind = type(identity)
    return kind is str or kind is int or (kind is tuple and all(map(_is_plain, identity)))  # type: ignore[call-overload]


def _travelling(identity: Hashable) -> Hashable:
    """What a judging process gets for an id: never an object whose class it may not have, as those of a script that is run."""
    if _is_plain(identity):
        return identity
    if not isinstance(identity, tuple):
        return _Named(identity)
    named = _NamedTuple(part if _is_plain(part) else _Named(part) for part in identity)
    named.shown = repr(identity)
    return named


def _packed(what: str, value: object) -> bytes:
    try:
        return pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:
        raise _no_travel(what, error) from error


def _unpacked(what: str, packed: bytes) -> Any:
    try:
        return pickle.loads(packed)
    except Exception as error:
        raise _no_travel(what, error) from None


def _no_travel(what: str, error: Exception) -> DataError:
    return DataError(
        f"{what} cannot be sent to a judging process ({type(error).__name__}: {error}): give it objects whose classes and functions are "
        "in a module that can be imported, not in the script that is run, or use one worker (workers=1)"
    )


class JudgingProcess:
    """A started judging process; `close` ends it.

    Raises InfrastructureError where none can be started, DataError for limits or a backend that cannot be pickled.
    """

    def __init__(self, limits: Limits, backend: str, core: int | None = None) -> None:
        self.limits, self.backend, self.core = limits, backend, core
        self.sent: deque[list[_Asked]] = deque()
        """What it has not answered yet."""
        self._incoming = bytearray()
        self._last_tests: Any = None
        """It has them, and keeps them; None when that is not known."""
        self._said_start = False
        known = {name: kind for name, kind in backends.BACKENDS.items() if name == backend}
        first = _framed(_packed("limits or backend", (limits, backend, core, known, sorted(worker.announced))))
        self._outgoing: deque[memoryview] = deque([memoryview(first)])
        """Messages, of the first one what has not been sent; views, because tests can have tens of MB and a connection takes little."""
        ours, theirs = socket.socketpair()
        # Nothing is ever sent through the second pair: its end says that this process, or its interest, has ended.
        self._alive, watched = socket.socketpair()
        self.connection = ours
        gate = judging.ALONE.shared_file()
        numbers = [theirs.fileno(), watched.fileno(), gate]
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOTSTRAP, json.dumps(sys.path), *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=numbers,
            )
        except OSError as error:
            ours.close()
            self._alive.close()
            raise InfrastructureError(f"cannot start a judging process: {error}") from None
        finally:
            theirs.close()
            watched.close()
        ours.setblocking(False)

    def ask(self, asked: list[_Asked], settings: Settings) -> None:
        """Queue jobs for it; `flush` sends them. Raises DataError for what cannot be pickled."""
        last = self._last_tests
        rows: list[tuple[Hashable, str | bytes, bytes | None, str | None]] = []
        for one in asked:
            job = one.job
            assert job is not None
            # The samples of a problem come one after the other: its tests travel once. By themselves, so that they alone can be refused.
            tests = None
            if job.tests is not last or last is None:
                tests = _packed(f"job {job.id!r}: its tests", job.tests)
            rows.append((_travelling(job.id), job.program, tests, job.entry_point))
            last = job.tests
        message = _packed(_MESSAGE, (settings, rows))
        self._last_tests = last
        self.sent.append(asked)
        self._outgoing.append(memoryview(_framed(message)))

    def flush(self) -> bool:
        """Send what the connection takes; returns whether that was all. Raises OSError when the process has ended."""
        with contextlib.suppress(BlockingIOError):
            while self._outgoing:
                message = self._outgoing[0]
                done = self.connection.send(message)
                if done == len(message):
                    self._outgoing.popleft()
                else:
                    self._outgoing[0] = message[done:]
        return not self._outgoing

    def receive(self) -> list[tuple[list[_Asked], float]]:
        """The answers that have come, each as what was asked together, outcomes filled in, and the seconds it took.

        Raises OSError when the process has ended.
        """
        try:
            data = self.connection.recv(1 << 18)
        except BlockingIOError:
            return []
        if not data:
            raise ConnectionResetError("it ended")
        self._incoming += data
        answered: list[tuple[list[_Asked], float]] = []
        while len(self._incoming) >= _SIZE.size:
            end = _SIZE.size + _SIZE.unpack_from(self._incoming)[0]
            if len(self._incoming) < end:
                break
            message = bytes(self._incoming[_SIZE.size : end])
            del self._incoming[:end]
            if not self._said_start and message[:1] == b"s":
                self._started(*pickle.loads(message[1:]))
                continue
            seconds, rows, error = marshal.loads(message)
            asked = self.sent.popleft()
            for one, row in zip(asked, rows, strict=False):
                one.found, one.job = Outcome(*row), None
            if error is not None:
                failed = asked[len(rows)]
                failed.found, failed.job = pickle.loads(error), None
                self._last_tests = None
            answered.append((asked, seconds))
        return answered

    def _started(self, backend: str, records: list[tuple[str, int, str]]) -> None:
        """What it says at its start is said here: once, whoever of several was first."""
        self._said_start = True
        settled = backends.settle(self.backend, backend)
        for name, level, text in records:
            if name == backends.LOG.name and not settled:
                continue
            if name == worker.LOG.name and backend in worker.announced:
                continue
            logging.getLogger(name).log(level, "%s", text)
        worker.announced.add(backend)
        self.backend = backend

    def lives(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def leave(self) -> None:
        """Have it end as soon as it can; `close` waits for that."""
        self._alive.close()
        self.connection.close()

    def close(self) -> int:
        """End it and every process of its worker; returns its exit status."""
        self.leave()
        try:
            return self._process.wait(_END_SECONDS + 10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def cores_for(workers: int) -> list[int | None]:
    """A core for each of so many workers, None for any: only when they fill the cores that this process may use.

    The processes of a worker wake each other several times a program and never compute at once. Kept on one core they do not wait
    behind other work on the next one (on a busy machine twice the speed), but which core is free is not known for fewer workers.
    """
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if not allowed or workers < len(allowed):
        return [None] * workers
    return [allowed[number % len(allowed)] for number in range(workers)]


def _framed(message: bytes) -> bytes:
    return _SIZE.pack(len(message)) + message


class Crew:
    """Several judging processes at work on one stream of jobs."""

    def __init__(self, take: Callable[[int | None], JudgingProcess], cores: list[int | None], settings: Settings) -> None:
        """`take` gives a judging process on a core, idle or new; one for each of `cores` is taken as they are needed."""
        self._take, self._workers, self._settings = take, len(cores), settings
        self._cores = deque(cores)
        """Of those that are not there yet."""
        self._crew: dict[int, JudgingProcess] = {}
        """By the number of their connection."""
        self._poll = select.poll()
        self._unsent: deque[_Asked] = deque()
        self._seconds: float | None = None
        """Of a program, the mean of the last ones."""
        self._looked = 0.0
        """When answers were last read."""
        self._away = 0.0
        """Seconds between two results that whoever wants them is busy with something else."""

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Hashable, Outcome]]:
        """Outcomes in the order of the jobs; raises what came instead of one, and then nothing is judged any more."""
        pending: deque[_Asked] = deque()
        for job in jobs:
            asked = _Asked(job.id, job)
            pending.append(asked)
            self._unsent.append(asked)
            if time.monotonic() - self._looked > _LOOK_SECONDS:  # who has answered is free, however slowly jobs come
                self._exchange(0)
            self._hand_out()
            if len(pending) >= self._workers * _AHEAD:
                yield from self._first(pending)
        while pending:
            yield from self._first(pending)

    def _first(self, pending: deque[_Asked]) -> Iterator[tuple[Hashable, Outcome]]:
        first = pending.popleft()
        while first.found is None:
            self._exchange()
            self._hand_out()  # before the result is looked at, which may take long
        if isinstance(first.found, BaseException):
            raise first.found
        left = time.monotonic()
        yield first.id, first.found
        self._away += (time.monotonic() - left - self._away) / 16

    def members(self) -> list[JudgingProcess]:
        """The processes; idle at the end of the stream."""
        return list(self._crew.values())

    def abort(self) -> None:
        """End every process, whatever it does."""
        for process in self._crew.values():
            process.leave()
        for process in self._crew.values():
            process.close()

    def _hand_out(self) -> None:
        """Give jobs to processes that have room for them; start processes while there are fewer than wanted and work for them."""
        seconds = self._seconds or 1.0  # nothing travels together until it is known
        size = max(1, min(_TOGETHER, int(_MESSAGE_SECONDS / seconds)))
        room = 2 if seconds < _QUEUE_SECONDS or self._away > seconds / 20 else 1
        while self._unsent:
            process = min(self._crew.values(), key=lambda one: len(one.sent), default=None)
            if process is None or (process.sent and len(self._crew) < self._workers):
                process = self._take(self._cores[0])
                self._cores.popleft()
                self._crew[process.connection.fileno()] = process
                self._poll.register(process.connection, select.POLLIN)
            busy = len(process.sent)
            if busy and (busy >= room or self._unsent[0].lost or len(self._unsent) < size):
                return
            # What a process ended with travels alone: only the program that did it can do it twice.
            together = [self._unsent.popleft()]
            while not together[0].lost and self._unsent and len(together) < size and not self._unsent[0].lost:
                together.append(self._unsent.popleft())
            process.ask(together, self._settings)
            self._send(process)

    def _send(self, process: JudgingProcess) -> None:
        """Send all that is for it; answers are read meanwhile, so that neither waits for the other."""
        number = process.connection.fileno()
        try:
            while not process.flush():
                self._poll.modify(number, select.POLLIN | select.POLLOUT)
                self._exchange()
                if self._crew.get(number) is not process:
                    return
                self._poll.modify(number, select.POLLIN)
        except OSError:
            self._lost(process)

    def _exchange(self, milliseconds: int | None = None) -> None:
        """Wait until a process can be read (or written to, where that was asked for), so long at most, and read what is there."""
        ready = self._poll.poll(milliseconds)
        self._looked = time.monotonic()
        for number, events in ready:
            process = self._crew.get(number)
            if process is None or not events & ~select.POLLOUT:
                continue
            try:
                for asked, seconds in process.receive():
                    mean = seconds / len(asked)
                    self._seconds = mean if self._seconds is None else self._seconds + (mean - self._seconds) / 16
            except OSError:
                self._lost(process)

    def _lost(self, process: JudgingProcess) -> None:
        """A process has ended, and no program was the reason that it knows of: what it had is judged by another one."""
        number = process.connection.fileno()
        self._poll.unregister(number)
        del self._crew[number]
        self._cores.append(process.core)
        status = process.close()
        for asked in reversed([one for together in process.sent for one in together if one.found is None]):
            asked.lost += 1
            if asked.lost > 1:
                how = f"by signal {-status}" if status < 0 else f"with status {status}"
                asked.found = InfrastructureError(f"job {asked.id!r}: two judging processes ended ({how}); see the kernel's log")
            else:
                self._unsent.appendleft(asked)


# ------------------------------------------------------------------------------------------- inside a judging process


class _Records(logging.Handler):
    """Keeps what is logged for who started this process."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.kept: list[tuple[str, int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append((record.name, record.levelno, record.getMessage()))


class _Held:
    """The worker of this process, which ends when the process that started this one ends or wants it to."""

    def __init__(self, watched: int) -> None:
        self.worker: Worker | None = None
        self.over = False
        self._watched = watched
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        with contextlib.suppress(OSError):
            os.read(self._watched, 1)
        self.over = True
        if self.worker is not None:
            self.worker.abort()
        time.sleep(_END_SECONDS)
        os._exit(1)  # its pipes close with it, and what is jailed sees that

    def open(self, limits: Limits, name: str) -> Worker:
        self.worker = backends.open_worker(name, limits)
        if self.over:
            raise InfrastructureError("the judge is closing")
        return self.worker

    def close(self) -> None:
        if self.worker is not None:
            self.worker.close()


def main() -> None:
    """A judging process: arguments are, after the search path, its connection, its starter's life line and the gate (judging.py)."""
    connection, watched, gate = map(int, sys.argv[2:5])
    judging.ALONE.share(gate)
    stream = socket.socket(fileno=connection)
    held = _Held(watched)
    try:
        _serve(stream, held)
    except (ConnectionError, EOFError):  # nobody waits for an answer any more
        pass
    finally:
        held.close()


def _serve(stream: socket.socket, held: _Held) -> None:
    reader = stream.makefile("rb", buffering=1 << 16)

    def read() -> bytes:
        head = reader.read(_SIZE.size)
        if len(head) < _SIZE.size:
            raise EOFError
        body: bytes = reader.read(_SIZE.unpack(head)[0])
        return body

    def answer(seconds: float, found: list[tuple[Any, ...]], failure: bytes | None) -> None:
        stream.sendall(_framed(marshal.dumps((seconds, found, failure))))

    def refuse(error: DataError) -> NoReturn:
        """What cannot be read here is an error of whoever asks, not an end that another process could do better."""
        while True:
            read()
            answer(0.0, [], _pickled(error))

    try:
        limits, name, core, known, announced = _unpacked("limits or backend", read())
    except DataError as error:
        refuse(error)
    if core is not None:
        with contextlib.suppress(OSError):  # it may have been taken from us meanwhile
            os.sched_setaffinity(0, {core})
    backends.BACKENDS.update(known)
    worker.announced.update(announced)
    records = _Records()
    logger = logging.getLogger("coderl.sandbox")
    logger.addHandler(records)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    tests: Any = None
    packed: bytes | None = None
    """The last tests that came, until a row asks for them."""
    while True:
        try:
            settings, rows = _unpacked(_MESSAGE, read())
        except DataError as error:
            answer(0.0, [], _pickled(error))
            refuse(error)
        started = time.monotonic()
        found: list[tuple[Any, ...]] = []
        failure: bytes | None = None
        for identity, program, given, entry_point in rows:
            if given is not None:
                packed = given
            try:
                if packed is not None:
                    tests, packed = _unpacked(f"job {identity!r}: its tests", packed), None
                on = held.worker
                if on is None:
                    on = held.open(limits, name)
                    stream.sendall(_framed(b"s" + pickle.dumps((on.backend, records.kept))))
                found.append(tuple(vars(judge_on(on, Job(identity, program, tests, entry_point), *settings)).values()))
            except Exception as error:
                failure = _pickled(error)
                # What is under way already counts on the tests of the last row of this message.
                packed = next((row[2] for row in reversed(rows) if row[2] is not None), packed)
                break
        answer(time.monotonic() - started, found, failure)


def _pickled(error: Exception) -> bytes:
    if not isinstance(error, DataError | InfrastructureError):  # a bug: where it was is lost on the way
        error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}\n{traceback.format_exc()}")
    return pickle.dumps(error)
