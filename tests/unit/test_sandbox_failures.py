"""The judge's own failures are never verdicts; bad input has one defined outcome or one clear error."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sandbox_programs import CALLS, DOUBLE, OK

from coderl.problems import AssertTests, InputOutputTests
from coderl.records import DataError
from coderl.sandbox import InfrastructureError, Job, Limits, backends, close_workers, judge, judge_many, judging, worker
from coderl.sandbox.inside.parent import Parent
from coderl.sandbox.worker import Run, Worker

LIMITS = Limits(cpu_seconds=1, memory_mb=128)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    close_workers()
    yield
    close_workers()


def test_a_start_that_fails_once_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real, tries = Worker._start, []

    def start(self: Worker) -> None:
        tries.append(1)
        if len(tries) < 2:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        real(self)

    monkeypatch.setattr(Worker, "_start", start)
    assert judge(OK, DOUBLE, LIMITS).outcome == "passed_test"
    assert len(tries) == 2


def test_no_descriptors_for_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> Any:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(worker.os, "pipe", none_left)
    with pytest.raises(InfrastructureError, match="Too many open files"):
        judge(OK, DOUBLE, LIMITS)


def test_a_disk_that_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    judge(OK, DOUBLE, LIMITS)

    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(worker.os, "pwrite", full)
    with pytest.raises(InfrastructureError, match="No space left"):
        judge(OK, DOUBLE, LIMITS)


def test_a_jail_that_runs_nothing_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Worker.run

    def broken(self: Worker, job: dict[str, Any], tests: int) -> Run:
        run = real(self, job, tests)
        return Run(70, 0, 0.0, 0.0, 0.0, b"", 0) if armed else run

    armed = False
    monkeypatch.setattr(Worker, "run", broken)
    judge(OK, DOUBLE, LIMITS)
    armed = True
    with pytest.raises(InfrastructureError, match="first program ended with status 70"):
        judge(OK, DOUBLE, LIMITS)


def test_a_worker_killed_while_a_program_runs_is_replaced() -> None:
    with_worker = judging.Judging
    held = Worker(LIMITS, backends.BACKENDS["namespace"])
    assert isinstance(held._link, Parent)
    assert held._link._process is not None
    process = held._link._process.pid
    threading.Timer(0.3, os.kill, (process, signal.SIGKILL)).start()
    program = "import time\ntime.sleep(1)\n" + OK
    outcome = with_worker(held, Job(1, program, InputOutputTests("stdin", ["21"], ["42"])), "strict", False).judge()
    held.close()
    assert outcome.outcome == "passed_test"


def test_an_error_in_the_stream_comes_after_the_results_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [Job(number, OK, DOUBLE if number != 5 else InputOutputTests("stdin", [], [])) for number in range(9)]
    for workers in (1, 3):
        seen = []
        with pytest.raises(DataError, match="job 5: no tests"):  # noqa: PT012
            for identity, _ in judge_many(jobs, LIMITS, workers=workers):
                seen.append(identity)
        assert seen == [0, 1, 2, 3, 4]


def test_slow_programs_keep_their_place() -> None:
    jobs = [
        Job(("job", number), f"import time\ntime.sleep({0.3 if number % 4 == 0 else 0})\n" + OK, InputOutputTests("stdin", ["1"], ["2"]))
        for number in range(12)
    ]
    assert [identity for identity, outcome in judge_many(jobs, LIMITS, workers=3) if outcome.outcome == "passed_test"] == [
        job.id for job in jobs
    ]


def test_a_starved_program_runs_again_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backstop kills a program that had computed: the second run starts when no other child of this process runs."""
    real = Worker.run
    running: list[str] = []
    company: list[list[str]] = []
    lock = threading.Lock()

    def run(self: Worker, job: dict[str, Any], tests: int) -> Run:
        name = str(job["inputs"][0]) if job.get("inputs") else "other"
        with lock:
            running.append(name)
            if name == "b'7'":
                company.append(list(running))
        try:
            found = real(self, job, tests)
            if name == "b'7'" and len(company) == 1:
                return Run(-9, 2, 0.6, 10.0, 5.0, found.answers, found.output_size)
            return found
        finally:
            with lock:
                running.remove(name)

    monkeypatch.setattr(Worker, "run", run)
    sleepy = "import time\ntime.sleep(0.05)\n" + OK
    jobs = [Job(n, sleepy, InputOutputTests("stdin", ["7" if n == 10 else "1"], ["14" if n == 10 else "2"])) for n in range(30)]
    with ThreadPoolExecutor(4) as threads:  # judging processes have the same gate: test_sandbox_crew.py
        outcomes = set(threads.map(lambda job: judge(job.program, job.tests, LIMITS).outcome, jobs))
    assert outcomes == {"passed_test"}
    assert len(company) == 2
    assert company[1] == ["b'7'"]


def test_a_program_that_only_waits_is_not_run_again() -> None:
    started = time.monotonic()
    found = judge("import time\ntime.sleep(100)", InputOutputTests("stdin", [""], [""]), Limits(cpu_seconds=1, wall_seconds=1.5))
    assert found.error_class == "timeoutexception"
    assert time.monotonic() - started < 60
    assert found.cpu_seconds < 0.5


@pytest.mark.parametrize(
    ("program", "error_class"),
    [
        (b"\xff\xfe", "unicodedecodeerror"),
        (OK.encode("utf-16"), "unicodedecodeerror"),
        (b"\xef\xbb\xbf\xef\xbb\xbf" + OK.encode(), "syntaxerror"),
        (OK.encode() + b"\0", "syntaxerror"),
        ("\0" * 1000, "syntaxerror"),
        ("x = '\udfff'", "unicodeencodeerror"),
        ("(" * 10_000_000, "syntaxerror"),
    ],
)
def test_sources_that_are_none(program: str | bytes, error_class: str) -> None:
    found = judge(program, DOUBLE, Limits(cpu_seconds=10))
    assert (found.outcome, found.error_class, found.n_passed, found.n_tests) == ("compile_error", error_class, 0, 3)


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        (InputOutputTests("stdin", ["1", "2"], ["1"]), "job 0: 2 inputs but 1 outputs"),
        (InputOutputTests("call", [[1]], []), "job 0: 1 inputs but 0 outputs"),
        (InputOutputTests("stdin", [], []), "no tests"),
        (AssertTests([]), "no tests"),
        (InputOutputTests("stdin", ["x" * (40 << 20)], ["1"]), "input 0 has 40 MB; raise max_file_mb"),
    ],
)
def test_tests_that_are_none(tests: Any, message: str) -> None:
    for program in (OK, "print("):
        with pytest.raises(DataError, match=message):
            judge(program, tests, LIMITS, entry_point="f")


def test_messages_are_text_that_files_can_hold() -> None:
    found = judge("raise ValueError('\\ud800 \\0 \\n')", DOUBLE, LIMITS)
    assert found.error_message == "? \0 \n"
    weird = judge("raise type('a b', (Exception,), {})", DOUBLE, LIMITS)
    assert weird.error_class == "exception"
    assert judge("def f(x): raise ValueError(x)", CALLS, LIMITS, entry_point="f").error_message == "21"
