"""Judging processes: what several workers judge is what one judges, whatever becomes of the processes."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from sandbox_programs import DOUBLE, OK

from coderl.problems import InputOutputTests
from coderl.records import DataError
from coderl.sandbox import InfrastructureError, Job, Limits, backends, close_workers, crew, judge_many, judging, worker
from coderl.sandbox import judge as judge_function
from coderl.sandbox.judge import _idle_processes

LIMITS = Limits(cpu_seconds=1, memory_mb=128)
SOURCE = Path(__file__).parents[2] / "src"
ONE = InputOutputTests("stdin", ["1"], ["2"])
SLEEPY = "import time\ntime.sleep(0.2)\n" + OK


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    close_workers()
    yield
    close_workers()


def below(process: int) -> set[int]:
    """Processes that it started, directly or not."""
    found: set[int] = set()
    try:
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            found |= {int(child)} | below(int(child))
    except OSError:
        pass
    return found


def alive(processes: set[int]) -> set[int]:
    """Those that are still there, other than as zombies of an init that waits for nobody."""
    left = set()
    for process in processes:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX":
                left.add(process)
        except OSError:
            pass
    return left


def judging_processes() -> list[int]:
    """Those of this process."""
    found = []
    for process in below(os.getpid()):
        try:
            if b"coderl.sandbox.crew" in Path(f"/proc/{process}/cmdline").read_bytes():
                found.append(process)
        except OSError:
            pass
    return found


def test_outcomes_and_order_are_those_of_one_worker() -> None:
    programs = [OK, "print(0)", "print(", "1/0", "import sys; sys.exit(3)", OK.encode(), b"\xff", "x" * (3 << 20)]
    jobs = [
        Job(("job", number), programs[number % len(programs)], InputOutputTests("stdin", [str(number)] * 3, [str(2 * number)] * 3))
        for number in range(100)
    ]

    def verdicts(workers: int) -> list[Any]:
        return [(one, replace(found, cpu_seconds=0.0, memory_mb=0.0)) for one, found in judge_many(iter(jobs), LIMITS, workers=workers)]

    alone = verdicts(1)
    assert [identity for identity, _ in alone] == [job.id for job in jobs]
    assert verdicts(2) == alone
    assert len(judging_processes()) == 2


def test_processes_are_kept_for_calls_with_the_same_limits() -> None:
    jobs = [Job(number, OK, DOUBLE) for number in range(30)]
    first = list(judge_many(jobs, LIMITS, workers=2))
    before = set(judging_processes())
    assert list(judge_many(jobs, LIMITS, workers=2, stop_at_first_failure=True)) != []
    assert set(judging_processes()) == before
    found = dict(judge_many([Job(1, "print(" + "1" * 9 + ")", DOUBLE)], LIMITS, workers=2, stop_at_first_failure=True))
    assert (found[1].n_tests, found[1].n_passed) == (3, 0)  # what a call asks for is no matter of the process
    list(judge_many(jobs, Limits(cpu_seconds=2), workers=2))
    assert len(judging_processes()) == 4
    list(judge_many(jobs, Limits(cpu_seconds=3), workers=2))
    assert len(judging_processes()) == 4
    for process in _idle_processes:
        os.kill(process._process.pid, signal.SIGKILL)
        process._process.wait()
    assert [found.outcome for _, found in judge_many(jobs, LIMITS, workers=2)] == [found.outcome for _, found in first]
    everything = below(os.getpid())
    close_workers()
    assert alive(everything) == set()


def test_what_a_killed_process_had_is_judged_by_another() -> None:
    jobs = [Job(number, SLEEPY if number % 3 else OK, ONE) for number in range(24)]
    seen = []
    for identity, outcome in judge_many(jobs, LIMITS, workers=3):
        seen.append((identity, outcome.outcome))
        if len(seen) == 4:
            for process in judging_processes():
                os.kill(process, signal.SIGKILL)
    assert seen == [(number, "passed_test") for number in range(24)]


def test_a_program_that_two_processes_end_with_is_an_error() -> None:
    jobs = [Job(number, SLEEPY.replace("0.2", "30") if number == 2 else OK, ONE) for number in range(6)]
    over = threading.Event()

    def kill() -> None:
        while not over.wait(1):
            for process in judging_processes() if len(seen) == 2 else []:
                os.kill(process, signal.SIGKILL)

    seen: list[Any] = []
    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(InfrastructureError, match=r"job 2: two judging processes ended \(by signal 9\)"):  # noqa: PT012
            for identity, _ in judge_many(jobs, LIMITS, workers=2):
                seen.append(identity)
    finally:
        over.set()
        killer.join()
    assert seen == [0, 1]


def refuses(settings: dict[str, Any], limits: Limits) -> Any:
    raise InfrastructureError("no room for a worker")


def test_errors_arrive_as_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    special = InputOutputTests("stdin", ["1"], ["2"], "def accepts(input, output, expected): return 1 / 0")
    with pytest.raises(DataError, match="job: the special judge failed on test 0: zerodivisionerror"):
        list(judge_many([Job(("job", 1), OK, special)], LIMITS, workers=2))
    with pytest.raises(TypeError) as caught:  # a bug, or tests of no known kind: it keeps its place in the source
        list(judge_many([Job(1, OK, 7)], LIMITS, workers=2))  # type: ignore[arg-type]
    assert "judging.py" in caught.value.__notes__[0]
    monkeypatch.setitem(backends.BACKENDS, "broken", replace(backends.BACKENDS["namespace"], name="broken", start=refuses))
    with pytest.raises(InfrastructureError, match="no room for a worker"):
        list(judge_many([Job(1, OK, DOUBLE)], LIMITS, workers=2, backend="broken"))  # type: ignore[arg-type]
    monkeypatch.setattr(crew.sys, "executable", "/nowhere/python")
    with pytest.raises(InfrastructureError, match=r"cannot start a judging process.*nowhere"):
        list(judge_many([Job(1, OK, DOUBLE)], LIMITS, workers=2))
    assert judging_processes() == []


class Key(NamedTuple):
    problem: str
    number: int


class Colour(Enum):
    RED = 1


@dataclass(frozen=True)
class Place:
    name: str


class Text(str):
    pass


@dataclass(frozen=True)
class OwnLimits(Limits):
    pass


OF_A_SCRIPT: tuple[type, ...] = (Key, Colour, Place, Text, OwnLimits)


@pytest.fixture
def _script(monkeypatch: pytest.MonkeyPatch) -> None:
    """These classes are of the script that is run: pickled here, but a judging process has another __main__."""
    for kind in OF_A_SCRIPT:
        monkeypatch.setattr(kind, "__module__", "__main__")
        monkeypatch.setattr(sys.modules["__main__"], kind.__name__, kind, raising=False)


@pytest.mark.usefixtures("_script")
def test_ids_of_a_script_come_back_and_are_named_as_with_one_worker() -> None:
    ids = [Key("apps/1", 2), Colour.RED, Place("here"), Text("a"), (Colour.RED, 1), (Text("b"), Place("there")), ("a", (1, 2)), None, ()]
    assert [pickle.loads(pickle.dumps(one)) for one in ids] == ids
    found = [identity for identity, _ in judge_many([Job(one, OK, DOUBLE) for one in ids], LIMITS, workers=2)]
    assert all(one is wanted for one, wanted in zip(found, ids, strict=True))
    for identity in ids:
        sent = pickle.dumps(crew._travelling(identity))
        assert b"__main__" not in sent
        there = pickle.loads(sent)
        assert (repr(there), str(there)) == (repr(identity), str(identity))
        assert isinstance(there, tuple) == isinstance(identity, tuple)
        if isinstance(identity, tuple):
            assert [str(part) for part in there] == [str(part) for part in identity]
    special = InputOutputTests("stdin", ["1"], ["2"], "def accepts(input, output, expected): return 1 / 0")
    with pytest.raises(DataError, match=r"^apps/1: the special judge"):
        list(judge_many([Job(ids[0], OK, special)], LIMITS, workers=2))


@pytest.mark.usefixtures("_script")
@pytest.mark.parametrize(
    ("job", "limits", "named"),
    [
        (Job(7, OK, InputOutputTests("call", [[Place("x")]], [1]), "f"), LIMITS, r"job 7: its tests cannot .*Place"),
        (Job(7, OK, InputOutputTests("call", [[lambda: 1]], [1]), "f"), LIMITS, r"job 7: its tests cannot .*lambda"),
        (Job(7, Text(OK), ONE), LIMITS, r"a program, the name of its function, or the checker cannot .*Text"),
        (Job(7, OK, ONE), OwnLimits(), r"limits or backend cannot .*OwnLimits"),
    ],
    ids=["tests", "tests that cannot be pickled", "program", "limits"],
)
def test_what_a_judging_process_cannot_have_is_one_clear_error(job: Job, limits: Limits, named: str) -> None:
    with pytest.raises(DataError, match=named + ".*module that can be imported"):
        list(judge_many([Job(1, OK, DOUBLE)] * 3 + [job, Job(8, OK, job.tests)], limits, workers=2))
    assert judging_processes() == []


def settle(process: crew.JudgingProcess) -> None:
    """Send what is to be sent and wait for all answers."""
    process.connection.setblocking(True)
    process.flush()
    while process.sent:
        process.receive()


@pytest.mark.parametrize("under_way", [True, False], ids=["sent before the error came", "sent after it"])
def test_both_sides_know_the_last_tests_after_an_error(under_way: bool) -> None:
    """Tests of a row that a judging process did not reach are those that the next row counts on."""
    broken = InputOutputTests("stdin", ["1"], [])
    same = InputOutputTests("stdin", ["5"], ["10"])
    process = crew.JudgingProcess(LIMITS, "namespace")
    first, failing, unreached, later = (
        crew._Asked(number, Job(number, OK, tests)) for number, tests in enumerate([DOUBLE, broken, same, same])
    )
    try:
        process.ask([first, failing, unreached], ("strict", False, "none"))
        if not under_way:
            settle(process)
        process.ask([later], ("strict", False, "none"))
        settle(process)
    finally:
        process.close()
    assert [isinstance(one.found, crew.Outcome) for one in (first, failing, unreached, later)] == [True, False, False, True]
    assert str(failing.found) == "job 1: 1 inputs but 0 outputs"
    assert unreached.found is None
    assert (later.found.outcome, later.found.n_tests) == ("passed_test", 1)  # type: ignore[union-attr]


def test_an_id_can_be_anything() -> None:
    names = [lambda: 1, lambda: 2, object()]
    jobs = [Job(name, OK, DOUBLE) for name in names]
    assert [identity for identity, _ in judge_many(jobs, LIMITS, workers=2)] == names
    with pytest.raises(DataError, match=r"job <function .*: no tests"):
        list(judge_many([Job(names[0], OK, InputOutputTests("stdin", [], []))], LIMITS, workers=2))


def test_sending_costs_what_there_is_to_send() -> None:
    """However little a connection takes at once, what is left is not copied."""

    class Narrow:
        def __init__(self) -> None:
            self.got, self.full = bytearray(), False

        def send(self, data: bytes | memoryview) -> int:
            self.full = not self.full
            if self.full:
                raise BlockingIOError
            self.got += data[:4096]
            return len(data[:4096])

    process = crew.JudgingProcess(LIMITS, "namespace")
    connection = process.connection
    process.connection = narrow = Narrow()  # type: ignore[assignment]
    try:
        big = InputOutputTests("stdin", ["x" * (16 << 20)], ["2"])
        process.ask([crew._Asked(1, Job(1, OK, big))], ("strict", False, "none"))
        process.ask([crew._Asked(2, Job(2, OK, big))], ("strict", False, "none"))
        started = time.process_time()
        while not process.flush():
            pass
        assert time.process_time() - started < 1  # copied at every turn it is 32 GB
    finally:
        process.connection = connection
        process.close()
    messages = []
    at = 0
    while at < len(narrow.got):
        (size,) = crew._SIZE.unpack_from(narrow.got, at)
        messages.append(bytes(narrow.got[at + crew._SIZE.size : at + crew._SIZE.size + size]))
        at += crew._SIZE.size + size
    assert len(messages) == 3
    assert [len(message) > 16 << 20 for message in messages] == [False, True, False]  # its tests travel once


def test_layers_are_announced_once_and_here(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "announced", set())
    monkeypatch.setattr(backends, "_auto", [])
    with caplog.at_level(logging.INFO, "coderl.sandbox"):
        list(judge_many([Job(number, OK, DOUBLE) for number in range(9)], LIMITS, workers=3))
        list(judge_many([Job(number, OK, DOUBLE) for number in range(9)], Limits(), workers=2))
        judge_function(OK, DOUBLE, LIMITS)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("coderl.sandbox.worker", "INFO")
    assert "backend namespace, active isolation layers" in record.getMessage()
    assert backends.settled("auto") == "namespace"


def test_workers_that_fill_the_machine_have_a_core_each(monkeypatch: pytest.MonkeyPatch) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    assert crew.cores_for(len(allowed)) == allowed
    assert crew.cores_for(len(allowed) + 1) == [*allowed, allowed[0]]
    list(judge_many([Job(number, OK, DOUBLE) for number in range(8 * len(allowed))], LIMITS, workers=max(2, len(allowed))))
    held = {}
    for process in judging_processes():
        (held[process],) = {tuple(os.sched_getaffinity(one)) for one in {process} | below(process)}  # one for it and its worker
    assert {core for (core,) in held.values()} == set(allowed)
    monkeypatch.setattr(crew.os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert crew.cores_for(3) == [None, None, None]


def test_jobs_go_on_while_results_are_not_asked_for() -> None:
    """Long programs do not queue behind each other, and a slow reader does not leave the processes idle."""
    found = judge_many([Job(number, SLEEPY, ONE) for number in range(8)], LIMITS, workers=2)
    for number in range(4):
        assert next(found)[0] == number
    time.sleep(0.6)
    started = time.monotonic()
    assert [next(found)[0] for _ in range(2)] == [4, 5]
    assert time.monotonic() - started < 0.2
    found.close()  # type: ignore[attr-defined]
    assert judging_processes() == []


def test_jobs_that_come_slowly_are_judged_as_they_come() -> None:
    """A process that has answered gets the next job when it comes, not when results are asked for."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        Path(folder).chmod(0o777)
        mark = f"open({folder!r} + '/' + input(), 'w').close()\n"
        judged: list[int] = []

        def jobs() -> Iterator[Job]:
            for number in range(8):
                yield Job(number, mark, InputOutputTests("stdin", [str(number)], [""]))
                # Taken one by one, far fewer than what is taken ahead: each is judged before the next one comes.
                deadline = time.monotonic() + 5
                while not Path(folder, str(number)).exists() and time.monotonic() < deadline:
                    time.sleep(0.01)
                time.sleep(0.15)  # its answer arrives
                judged.append(len(list(Path(folder).iterdir())))

        outcomes = dict(judge_many(jobs(), LIMITS, workers=2, unisolated=True))
    assert {outcome.outcome for outcome in outcomes.values()} == {"passed_test"}
    assert judged == list(range(1, 9))


def test_a_starved_program_runs_again_alone() -> None:
    """The backstop kills a program that had computed: its second run starts when no child of any judging process runs."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        log = Path(folder, "log")
        log.touch()
        log.chmod(0o666)
        Path(folder).chmod(0o777)
        note = f"import time\ndef note(what):\n    with open({str(log)!r}, 'a') as log: log.write(f'{{what}} {{time.monotonic()}}\\n')\n"
        other = note + "x = int(input())\nnote(f'start {x}')\ntime.sleep(0.15)\nprint(x * 2)\nnote(f'end {x}')\n"
        starved = note + "note('starved 0')\nwhile time.process_time() < 0.3: pass\ntime.sleep(60)\n"
        jobs = [
            Job(number, starved if number == 6 else other, InputOutputTests("stdin", [str(number)], [str(2 * number)]))
            for number in range(40)
        ]
        limits = Limits(cpu_seconds=1, wall_seconds=1.0)
        outcomes = dict(judge_many(jobs, limits, workers=3, unisolated=True))
        rows = [(what, number, float(at)) for what, number, at in (line.split() for line in log.read_text().splitlines())]
    assert [number for number, outcome in outcomes.items() if outcome.outcome != "passed_test"] == [6]
    assert outcomes[6].error_class == "timeoutexception"
    first, second = (at for what, _, at in rows if what == "starved")
    starts = {number: at for what, number, at in rows if what == "start"}
    ends = {number: at for what, number, at in rows if what == "end"}

    def beside(begin: float) -> list[str]:
        return [number for number in ends if starts[number] < begin + 0.9 and ends[number] > begin]

    assert beside(first) != []
    assert beside(second) == []


def test_the_gate_between_processes_and_threads() -> None:
    """Who wants to be alone gets its turn although another process has always somebody inside."""
    gate = judging.Gate()
    file = gate.shared_file()
    ours, theirs = os.pipe()
    gate.enter(False)
    child = os.fork()
    if child == 0:
        other = judging.Gate()
        other.share(file)
        other.enter(True)
        os.write(theirs, b"begin,")
        time.sleep(0.3)
        os.write(theirs, b"end")
        other.leave(True)
        os._exit(0)
    waiting = []

    def enter() -> None:
        gate.enter(False)
        waiting.append(os.read(ours, 99))
        gate.leave(False)

    try:
        time.sleep(0.3)  # it waits for us now
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()  # a second one would have kept it out
        assert waiting == []
        gate.leave(False)
        thread.join(10)
        assert waiting == [b"begin,end"]
    finally:
        os.waitpid(child, 0)
        for number in (ours, theirs, file):
            os.close(number)


LONG = """
    import signal
    from coderl.problems import InputOutputTests
    from coderl.sandbox import Job, Limits, judge_many
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in its background ignores it
    tests = InputOutputTests("stdin", [""], [""])
    print("start", flush=True)
    jobs = (Job(number, "import os\\nos.fork()\\nwhile True: pass", tests) for number in range(100))
    list(judge_many(jobs, Limits(cpu_seconds=60), workers=2))
"""


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda ending: ending.name)
def test_nothing_is_left_when_the_judge_is_ended(ending: signal.Signals) -> None:
    judging = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LONG)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        start_new_session=True,
    )
    assert judging.stdout is not None
    judging.stdout.readline()
    deadline = time.monotonic() + 30
    started: set[int] = set()
    while len(started) < 12 and time.monotonic() < deadline:  # of each: itself, launcher, zygote, compiler and two of the program
        time.sleep(0.05)
        started = below(judging.pid)
    assert len(started) >= 12
    if ending == signal.SIGINT:  # Ctrl-C reaches all who sit at the terminal
        os.killpg(judging.pid, ending)
    else:
        judging.send_signal(ending)
    _, said = judging.communicate(timeout=60)
    assert judging.returncode == -ending
    while alive(started) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive(started) == set()
    assert said.count(b"Traceback") == (1 if ending == signal.SIGINT else 0)
