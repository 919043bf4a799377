"""The door: `judge` for one program, `judge_many` for a stream of them."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager

from coderl.problems import Tests
from coderl.records import DataError
from coderl.sandbox import backends
from coderl.sandbox.backends import BackendName
from coderl.sandbox.crew import Crew, JudgingProcess, cores_for
from coderl.sandbox.judging import judge_on
from coderl.sandbox.observing import observe_on
from coderl.sandbox.outcome import Checker, Job, Limits, Outcome, Prelude
from coderl.sandbox.worker import Worker

_IDLE_WORKERS = 4
_idle: list[Worker] = []
_idle_processes: list[JudgingProcess] = []
_lock = threading.Lock()


def _take(limits: Limits, backend: str) -> Worker:
    """An idle worker of the same backend with the same limits, or a new one."""
    wanted = backends.settled(backend)
    with _lock:
        for position, candidate in enumerate(_idle):
            if candidate.limits == limits and candidate.backend == wanted:
                return _idle.pop(position)
    return backends.open_worker(wanted, limits)


def _take_process(limits: Limits, backend: str, core: int | None) -> JudgingProcess:
    """An idle judging process with such a worker on that core, or a new one."""
    wanted = backends.settled(backend)
    with _lock:
        fitting = [one for one in _idle_processes if (one.limits, one.backend, one.core) == (limits, wanted, core)]
        for candidate in fitting:
            _idle_processes.remove(candidate)
            if candidate.lives():
                return candidate
    return JudgingProcess(limits, wanted, core)


def _keep(worker: Worker) -> None:
    """Put a worker that is in order aside for the next call."""
    with _lock:
        _idle.append(worker)
        surplus = _idle.pop(0) if len(_idle) > _IDLE_WORKERS else None
    if surplus is not None:
        surplus.close()


@contextmanager
def _worker(limits: Limits, backend: str) -> Iterator[Worker]:
    """A worker that is kept afterwards unless something went wrong with it."""
    worker = _take(limits, backend)
    try:
        yield worker
    except (DataError, GeneratorExit):
        _keep(worker)
        raise
    except BaseException:
        worker.close()
        raise
    _keep(worker)


def close_workers() -> None:
    """End the idle workers that `judge` and `judge_many` keep for their next call."""
    with _lock:
        closing, processes = list(_idle), list(_idle_processes)
        _forget()
    for worker in closing:
        worker.close()
    _end_processes(processes)


def _end_processes(processes: list[JudgingProcess]) -> None:
    for process in processes:
        process.leave()
    for process in processes:
        process.close()


def _forget() -> None:
    _idle.clear()
    _idle_processes.clear()


atexit.register(close_workers)
# A forked copy of this process must not talk to its parent's workers.
os.register_at_fork(after_in_child=_forget)


def judge(
    program: str | bytes,
    tests: Tests,
    limits: Limits = Limits(),  # noqa: B008
    *,
    checker: Checker = "strict",
    prelude: Prelude = "none",
    entry_point: str | None = None,
    stop_at_first_failure: bool = False,
    backend: BackendName = "auto",
    unisolated: bool = False,
) -> Outcome:
    """Run one program on its tests in the sandbox and say which of the four outcomes it has (docs/outcomes.md).

    Args:
        program: source code, whole and untouched.
        tests: of kind stdin, call or assert; what is expected never enters the process that runs the program.
        limits: per test.
        checker: how outputs are compared, see checkers.py; legacy also runs the program as the official checker did.
        prelude: apps = the imports that APPS solutions assume come before the program; legacy has them in any case.
        entry_point: for tests of kind call: the function, or the method of a class Solution.
        stop_at_first_failure: the first test that is not passed decides, the rest is not counted.
        backend: what keeps the program in (docs/outcomes.md): "namespace", "docker", "apptainer", or "auto", the first of them
            that this host allows.
        unisolated: none of them: run as this user, loudly logged. For programs that you trust.

    Raises:
        DataError: zero tests, or calls without an entry point.
        InfrastructureError: the judge failed, or this host does not allow isolation.
    """
    with _worker(limits, backends.resolve(backend, unisolated)) as worker:
        return judge_on(worker, Job(0, program, tests, entry_point), checker, stop_at_first_failure, prelude)


def judge_many(
    jobs: Iterable[Job],
    limits: Limits = Limits(),  # noqa: B008
    *,
    checker: Checker = "strict",
    prelude: Prelude = "none",
    workers: int = 1,
    stop_at_first_failure: bool = False,
    backend: BackendName = "auto",
    unisolated: bool = False,
) -> Iterator[tuple[Hashable, Outcome]]:
    """Judge a stream of programs; yields (id, outcome) in the order of `jobs`, in constant memory.

    Args:
        workers: jailed parents that judge at the same time; outcomes do not depend on it. More than one are in as many judging
            processes (crew.py): tests, limits, and backends that are not built in, then have to be picklable, with classes and
            functions from modules that can be imported, not from the script that is run (DataError). Ids can be anything.

    Arguments and errors otherwise as for `judge`.
    """
    name = backends.resolve(backend, unisolated)
    if workers == 1:
        with _worker(limits, name) as worker:
            for job in jobs:
                yield job.id, judge_on(worker, job, checker, stop_at_first_failure, prelude)
        return

    # What runs in Docker has the engine's cores.
    cores: list[int | None] = [None] * workers if name == "docker" else cores_for(workers)
    crew = Crew(lambda core: _take_process(limits, name, core), cores, (checker, stop_at_first_failure, prelude))
    try:
        yield from crew.run(jobs)
    except BaseException:
        crew.abort()
        raise
    with _lock:
        _idle_processes.extend(crew.members())
        surplus = [_idle_processes.pop(0) for _ in range(len(_idle_processes) - _IDLE_WORKERS)]
    _end_processes(surplus)


def observe_many(
    jobs: Iterable[Job],
    limits: Limits = Limits(),  # noqa: B008
    *,
    prelude: Prelude = "none",
    backend: BackendName = "auto",
    unisolated: bool = False,
) -> Iterator[tuple[Hashable, list[str]]]:
    """What each program answers on the inputs of its tests (observing.py), in the order of `jobs`; nothing is compared.

    Arguments and errors otherwise as for `judge`.
    """
    with _worker(limits, backends.resolve(backend, unisolated)) as worker:
        for job in jobs:
            yield job.id, observe_on(worker, job, prelude)
