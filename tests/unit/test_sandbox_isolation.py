"""The walls themselves: what is active, who may use it, what is refused, and what is left when the judge is killed."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_programs import DOUBLE, OK

from coderl.problems import InputOutputTests
from coderl.sandbox import InfrastructureError, Job, Limits, close_workers, judge, judge_many, worker
from coderl.sandbox.backends import UNISOLATED
from coderl.sandbox.inside import parent
from coderl.sandbox.worker import Worker, WorkerDiedError

LIMITS = Limits(cpu_seconds=1, memory_mb=128)
SOURCE = Path(worker.__file__).parents[2]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    close_workers()
    yield
    close_workers()


def test_layers_are_announced_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "announced", set())
    with caplog.at_level(logging.INFO, "coderl.sandbox"):
        judge(OK, DOUBLE, LIMITS)
        close_workers()
        judge(OK, DOUBLE, LIMITS)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    for layer in ("user, process, mount, network", "read-only root", "seccomp", "no_new_privs", "capabilities"):
        assert layer in lines[0]


LOOK = """
import os
seen = [os.getpid(), os.getppid(), sorted(os.listdir("/")), os.getcwd(), os.listdir("."), sorted(os.environ), os.getgroups()]
raise ValueError(repr(seen))
"""


def test_what_a_program_sees() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("API_TOKEN", "secret")
        found = judge(LOOK, InputOutputTests("stdin", [""], [""]), LIMITS)
    assert found.error_message is not None
    pid, parent, root, folder, files, environment, groups = eval(found.error_message)
    assert (pid, parent, folder, files) == (1, 0, "/box", [])
    assert set(root) <= {"box", "dev", "etc", "io", "lib", "lib64", "proc", "tmp", "usr", *Path(sys.base_prefix).parts}
    assert environment == ["HOME", "LANG", "PATH", "TMPDIR", "TZ"]
    assert groups == [] or os.geteuid() != 0


def refuse_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    code = parent._BOOTSTRAP.replace("main()", "import inside.syscalls as s; s.unshare = refuse; main()")
    refuse = "def refuse(flags):\n    raise PermissionError(1, 'Operation not permitted')\n"
    monkeypatch.setattr(parent, "_BOOTSTRAP", "\n".join([refuse, *code.split("; ")]))


def test_refused_without_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    # A user namespace limit of 0 is what a hardened host looks like: made here by a worker that may not unshare.
    refuse_namespaces(monkeypatch)
    with pytest.raises(InfrastructureError, match="max_user_namespaces.*" + UNISOLATED):
        judge(OK, DOUBLE, LIMITS, backend="namespace")


def test_unisolated_is_an_explicit_loud_choice(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "announced", set())
    with caplog.at_level(logging.WARNING, "coderl.sandbox"):
        found = judge(OK, DOUBLE, LIMITS, unisolated=True)
    assert (found.outcome, found.backend) == ("passed_test", "unisolated")
    assert "THE SANDBOX IS OFF" in caplog.text
    assert judge("while True: pass", DOUBLE, Limits(cpu_seconds=0.3), unisolated=True).error_class == "timeoutexception"
    folders = set(Path(tempfile.gettempdir()).glob("coderl-unisolated-*"))
    close_workers()
    assert folders
    assert not any(folder.exists() for folder in folders)
    monkeypatch.setenv(UNISOLATED, "1")
    assert judge(OK, DOUBLE, LIMITS).backend == "unisolated"


def readable_python() -> str | None:
    for candidate in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            code = "import sys; sys.exit(sys.version_info < (3, 11))"
            if subprocess.run([candidate, "-c", code], user=65534, group=65534, extra_groups=[], capture_output=True).returncode == 0:
                return candidate
        except (OSError, subprocess.SubprocessError):
            continue
    return None


AS_NOBODY = """
import os
from coderl.problems import InputOutputTests
from coderl.sandbox import Limits, judge
T = InputOutputTests("stdin", ["21", "4"], ["42", "8"])
L = Limits(cpu_seconds=0.5, wall_seconds=2, memory_mb=128)
assert os.getuid() == 65534
def check(program, outcome, error=None):
    found = judge(program, T, L)
    assert (found.outcome, found.error_class) == (outcome, error or found.error_class), (program, found)
OK = "print(int(input()) * 2)"
check(OK, "passed_test")
check("while True: pass", "runtime_error", "timeoutexception")
check("import os\\nwhile True: os.fork()", "runtime_error", "blockingioerror")
check("import socket\\nsocket.socket()", "runtime_error", "permissionerror")
check("import os\\nfor n in ('in', 'out', 'answers', 'job'): os.chmod('/io/' + n, 0)\\nos.chmod('/box', 0)", "failed_test")
check(OK, "passed_test")
check("import os\\nos.rename('/io/out', '/io/x')", "runtime_error", "oserror")
check("import os\\nos.setuid(0)\\nopen('/x', 'w')", "runtime_error")
check("import ctypes\\nprint(ctypes.CDLL(None).mount(b'n', b'/box', b'tmpfs', 0, None))", "failed_test")
check("import os\\nos.makedirs('a/b')\\nos.chmod('a', 0)\\nos.kill(-1, 9)", "runtime_error")
check("import os\\nprint(int(input()) * 2 if not os.path.exists('a') else 0)", "passed_test")
print("fine")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become nobody; an ordinary user runs all other tests as it is")
def test_as_an_ordinary_user() -> None:
    python = readable_python()
    if python is None:
        pytest.skip("no Python 3.11 that the user nobody can read")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        subprocess.run(["cp", "-r", str(SOURCE), folder], check=True)
        subprocess.run(["chmod", "-R", "a+rX", folder], check=True)
        done = subprocess.run(
            [python, "-B", "-c", AS_NOBODY],
            user=65534,
            group=65534,
            extra_groups=[],
            env={"PYTHONPATH": folder + "/src"},
            cwd="/",
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert done.stdout == "fine\n", done.stderr


def processes() -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if b"inside.zygote" in (path / "cmdline").read_bytes():
                found.add(int(path.name))
        except OSError:
            continue
    return found


def descendants(process: int) -> set[int]:
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(path.name)] = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
    found = {process}
    while True:
        more = {child for child, parent in parents.items() if parent in found} | found
        if more == found:
            return found - {process}
        found = more


def test_nothing_is_left_when_the_judge_is_killed() -> None:
    script = """
        from coderl.problems import InputOutputTests
        from coderl.sandbox import Limits, judge
        print("start", flush=True)
        judge("import os\\nos.fork()\\nos.fork()\\nwhile True: pass", InputOutputTests("stdin", [""], [""]), Limits(cpu_seconds=60))
    """
    judging = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(SOURCE)}
    )
    assert judging.stdout is not None
    judging.stdout.readline()
    deadline = time.monotonic() + 20
    started: set[int] = set()  # other judges on this machine are none of ours
    while len(started) < 6 and time.monotonic() < deadline:
        time.sleep(0.05)
        started = descendants(judging.pid) & processes()
    assert len(started) >= 6  # launcher, zygote, compiler and the program's four
    judging.send_signal(signal.SIGKILL)
    judging.wait()
    while processes() & started and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes() & started == set()
    judging.stdout.close()


def test_a_dead_worker_is_replaced_and_two_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    deaths: list[int] = []
    real = Worker.run

    def dies(self: Worker, job: dict[str, object], tests: int) -> object:
        if "inputs" in job and job["inputs"] == [b"9"] and len(deaths) < limit:
            deaths.append(1)
            raise WorkerDiedError("killed")
        return real(self, job, tests)

    monkeypatch.setattr(Worker, "run", dies)
    tests = InputOutputTests("stdin", ["9"], ["18"])
    limit = 1
    assert judge(OK, tests, LIMITS).outcome == "passed_test"
    deaths.clear()
    limit = 2
    with pytest.raises(InfrastructureError, match="died twice"):
        judge(OK, tests, LIMITS)


def test_a_killed_worker_is_noticed() -> None:
    before = processes()  # those of other judges on this machine are not ours to kill
    judge(OK, DOUBLE, LIMITS)
    for process in (processes() - before) & descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    assert judge(OK, DOUBLE, LIMITS).outcome == "passed_test"


def test_a_source_that_kills_the_compiler_is_judged_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_COMPILE_SECONDS", 1e-6)  # as if it hung
    assert judge(OK, DOUBLE, LIMITS).outcome == "passed_test"
    assert judge("print(", DOUBLE, LIMITS).outcome == "compile_error"


def test_outcomes_do_not_depend_on_load_or_workers() -> None:
    programs = [
        OK,
        "print(0)",
        "while True: pass",
        "import time\nt = time.process_time()\nwhile time.process_time() < t + 0.25: pass\n" + OK,
        "print(",
        "1/0",
    ]
    jobs = [Job(number, programs[number % len(programs)], InputOutputTests("stdin", ["2"], ["4"])) for number in range(12)]
    limits = Limits(cpu_seconds=0.5)

    def verdicts(workers: int) -> list[tuple[object, str, str | None]]:
        return [(identity, outcome.outcome, outcome.error_class) for identity, outcome in judge_many(jobs, limits, workers=workers)]

    idle = verdicts(2)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4)]
    try:
        assert verdicts(3) == idle
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert [outcome for _, outcome, _ in idle[:6]] == [
        "passed_test",
        "failed_test",
        "runtime_error",
        "passed_test",
        "compile_error",
        "runtime_error",
    ]
