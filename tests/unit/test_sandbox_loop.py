"""The compiled loop and the one in Python: the same outcomes; a build that does not fit is left alone, and said."""

from __future__ import annotations

import ctypes
import importlib
import importlib.machinery
import logging
import mmap
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sandbox_attacks import ATTACKS, MEMORY
from sandbox_programs import ASSERTS, CALLS, DOUBLE, OK

from coderl.problems import AssertTests, InputOutputTests
from coderl.sandbox import Job, Limits, close_workers, judge, judge_many, judging, worker
from coderl.sandbox.backends import BACKENDS
from coderl.sandbox.inside import parent
from coderl.sandbox.worker import LOOP

judge_module = importlib.import_module("coderl.sandbox.judge")
SANDBOX = Path(worker.__file__).parent
SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]
LIMITS = Limits(cpu_seconds=0.25, wall_seconds=5, memory_mb=128, max_file_mb=16)
COMPILED = (SANDBOX / "inside" / f"_loop{SUFFIX}").exists()

PROGRAMS = [
    Job("right", OK, DOUBLE),
    Job("wrong", "print(0)", DOUBLE),
    Job("no program", "print(", DOUBLE),
    Job("error", "1 / 0", DOUBLE),
    Job("status", "import os\nos._exit(3)", DOUBLE),
    Job("signal", "import ctypes\nctypes.string_at(0)", DOUBLE),
    Job("endless", "while True: pass", DOUBLE),
    Job(
        "endless in the second test",
        "n = int(input())\nwhile n == 4: pass\nprint(n * 2)",
        InputOutputTests("stdin", ["2", "4"], ["4", "8"]),
    ),
    Job("sleeps", "import time\ntime.sleep(100)", DOUBLE),
    Job("leaves files", "import os\nos.makedirs('a/b')\nopen('a/b/c', 'w').close()\nos.chmod('a', 0)\n" + OK, DOUBLE),
    Job("finds none", "import os\nassert not os.listdir()\n" + OK, DOUBLE),
    Job("leaves a process", "import os, time\nif not os.fork(): time.sleep(100)\n" + OK, DOUBLE),
    Job("closes everything", "import os\nprint(int(input()) * 2, flush=True)\nos.closerange(0, 100)", DOUBLE),
    Job("big", "#" * 200_000 + "\n" + OK, DOUBLE),
    Job("big input", "print(len(input()))", InputOutputTests("stdin", ["x" * 100_000, "y"], ["100000", "1"])),
    Job("call", "def f(x): return x * 2", CALLS, "f"),
    Job("assert", "def f(x): return x * 2", ASSERTS),
    Job("assert that is no expression", "def f(x): return x", AssertTests(["assert f(1) == 1", "assert f(yield) == 1"])),
    Job("random", "import random\nprint(random.random())", InputOutputTests("stdin", [""], ["0.8444218515250481"])),
    Job("after", OK, DOUBLE),
]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    close_workers()
    yield
    close_workers()


def verdicts(jobs: list[Job], loop: str, monkeypatch: pytest.MonkeyPatch, unisolated: bool = False) -> dict[object, tuple[object, ...]]:
    close_workers()
    monkeypatch.setenv(LOOP, loop)
    return {
        identity: (
            outcome.outcome,
            outcome.n_passed,
            outcome.first_failed_test,
            outcome.error_class,
            outcome.error_message,
            outcome.error_line,
        )
        for identity, outcome in judge_many(jobs, LIMITS, unisolated=unisolated)
    }


@pytest.mark.skipif(not COMPILED, reason="the compiled loop was not built")
@pytest.mark.parametrize("unisolated", [False, True])
def test_both_loops_find_the_same(unisolated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = verdicts(PROGRAMS, "compiled", monkeypatch, unisolated)
    assert compiled == verdicts(PROGRAMS, "python", monkeypatch, unisolated)
    passed = "right, leaves files, finds none, leaves a process, closes everything, big, big input, call, assert, random, after"
    assert [name for name, found in compiled.items() if found[0] == "passed_test"] == passed.split(", ")
    assert [compiled[name][3:5] for name in ("status", "signal", "endless", "sleeps")] == [
        ("systemexit", "exit status 3"),
        ("sigsegv", "Segmentation fault"),
        ("timeoutexception", "CPU time limit reached"),
        ("timeoutexception", "wall time limit reached"),
    ]
    assert compiled["endless in the second test"][1:3] == (1, 1)


VALUES = r"""
import collections, datetime, decimal, fractions, os, signal, sys
deep = 1
for _ in range(30): deep = [deep]
VALUES = [
    1, 0, -5, True, None, False, "a", "", 'q"\\\n\r\t\b\f\x00\x1f\x7f', "\u00e9\U0001f600", "\ud800", 1.5, -0.0, 1e16, 5e-324,
    float("nan"), float("inf"), 2**62, 2**63, -(2**63), 1 - 2**63, 2**70, [1, 2, [3, (4,)]], (), [], (1,), {}, {1: 2}, {1}, frozenset(),
    b"x", bytearray(b"y"), 1j, ([1.25], {"a": [1]}), collections.OrderedDict(a=1), range(3), deep, "x" * 100_000, list(range(30_000)),
    fractions.Fraction(1, 3), decimal.Decimal("1.5"), datetime.date(2020, 1, 1), collections.namedtuple("P", "x")(1),
    type("I", (int,), {})(3),
]
def f(i): return VALUES[i]
def stop(i): raise SystemExit(i)
def fail(i): raise ValueError("x" * i)
def interrupt(): os.kill(os.getpid(), signal.SIGINT)
def depth(n):
    try: return depth(n + 1)
    except RecursionError: return n
def close(): os.closerange(3, 200)
"""
ASKED = [*(f"f({i})" for i in range(44)), "stop(0)", "stop(3)", "fail(3)", "unknown", "interrupt()", "depth(1)", "close()", "f(0)"]
MODULES = [
    "1 / 0",
    "raise SystemExit",
    "raise SystemExit(3)",
    "import os, signal\nos.kill(os.getpid(), signal.SIGINT)",
    "import os\nos._exit(0)",
    "import os\nos.closerange(3, 200)\ndef f(i): return 3",
    "import os\nif os.fork(): os.wait()\ndef f(i): return 3",
    "import sys\nsys.setrecursionlimit(12)\ndef f(i): return f(i)",
]


@pytest.mark.skipif(not COMPILED, reason="the compiled loop was not built")
def test_both_loops_write_the_same_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and errors of assert tests, to the byte: the compiled loop has the harness for these once more."""
    written: dict[str, list[bytes]] = {"compiled": [], "python": []}
    read = judging.read_answers
    for loop, answers in written.items():
        close_workers()
        monkeypatch.setenv(LOOP, loop)
        monkeypatch.setattr(judging, "read_answers", lambda data, first, kept=answers: (kept.append(data), read(data, first))[1])
        outcome = judge(VALUES, AssertTests([f"assert {call} == 'nothing'" for call in ASKED]), LIMITS)
        assert outcome.error_class == "systemexit", outcome
        for module in MODULES:
            for first_only in (False, True):
                judge(module, AssertTests(["assert f(1) == 4", "assert f(2) == 3"]), LIMITS, stop_at_first_failure=first_only)
    assert written["compiled"] == written["python"]
    assert written["python"][0].count(b"\n") == len(ASKED) + 2
    assert written["python"][0].startswith(b'["loaded",null]\n[0, [1], null]\n')


@pytest.mark.parametrize("loop", ["compiled", "python"])
def test_what_is_right_everywhere_needs_no_reading(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge knows to the byte what a program writes that is right, so it does not have to parse it."""
    monkeypatch.setenv(LOOP, loop)
    monkeypatch.setattr(judging, "read_answers", lambda data, first: pytest.fail(f"read {data!r}"))
    expected = [3, -1.5, 'a\n"é', [1, (2, None)], {"a": True}, b"x", 10**30, ()]
    program = f"def f(i):\n    return {expected!r}[i]"
    tests = AssertTests([f"assert f({index}) == {value!r}" for index, value in enumerate(expected)])
    assert judge(program, tests, LIMITS).outcome == "passed_test"


def can_collapse() -> bool:
    """Whether this kernel makes a huge page when it is asked to (Linux 6.1)."""
    size = 2 << 20
    memory = mmap.mmap(-1, 2 * size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[:] = b"x" * len(memory)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return ctypes.CDLL(None).madvise(ctypes.c_void_p(-(-address // size) * size), ctypes.c_size_t(size), 25) == 0


@pytest.mark.skipif(not COMPILED, reason="the compiled loop was not built")
@pytest.mark.skipif(not can_collapse(), reason="this kernel makes no huge pages on demand")
def test_the_parent_is_a_few_huge_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fork() copies: with the loop in Python a hundred mappings and two thousand pages."""
    found = {}
    for loop in ("python", "compiled"):
        close_workers()
        monkeypatch.setenv(LOOP, loop)
        assert judge(OK, DOUBLE, LIMITS).outcome == "passed_test"
        launcher = judge_module._idle[0]._link._process.pid  # type: ignore[union-attr]
        serving = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()[0]
        lines = Path(f"/proc/{serving}/smaps").read_text().splitlines()
        huge = sum(int(line.split()[1]) for line in lines if line.startswith("AnonHugePages"))
        found[loop] = (sum(line.startswith("VmFlags") for line in lines), huge)
    assert found["compiled"][1] >= 4096 > found["python"][1]
    assert found["compiled"][0] < found["python"][0] / 2
    # Modules of C are still found and loaded behind it.
    program = "import _decimal, array, ctypes\nprint(2 * int(input()) if ctypes.string_at(b'x') == b'x' else 0)"
    assert judge(program, DOUBLE, LIMITS).outcome == "passed_test"


@pytest.mark.skipif(not COMPILED, reason="the compiled loop was not built")
def test_without_huge_pages_memory_stays_as_it_was() -> None:
    code = (
        "import ctypes; from coderl.sandbox import judge; from coderl.problems import AssertTests\n"
        "assert ctypes.CDLL(None).prctl(41, 1, 0, 0, 0) == 0\n"  # PR_SET_THP_DISABLE, which child processes inherit
        "print(judge('def f(x): return x', AssertTests(['assert f(1) == 1'])).outcome)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown == "passed_test\n"


@pytest.mark.parametrize("loop", ["compiled", "python"])
def test_an_interrupt_is_one_in_the_background_of_a_shell_too(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a shell has it ignored, which processes inherit."""
    monkeypatch.setenv(LOOP, loop)
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        outcome = judge("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n" + OK, DOUBLE, LIMITS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert outcome.error_class == "keyboardinterrupt"


def test_the_engine_runs_without_walls_to_be_measured(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = replace(BACKENDS["unisolated"], name="bare", own_processes=True, walls=False, landlock=False)
    monkeypatch.setitem(BACKENDS, "bare", bare)
    monkeypatch.setattr(worker, "announced", set())
    with caplog.at_level(logging.WARNING, "coderl.sandbox.worker"):
        found = [outcome.outcome for _, outcome in judge_many(PROGRAMS[:5], LIMITS, backend="bare")]  # type: ignore[arg-type]
    assert found == ["passed_test", "failed_test", "compile_error", "runtime_error", "runtime_error"]
    assert "THE SANDBOX IS OFF" in caplog.text


@pytest.mark.slow
@pytest.mark.skipif(not COMPILED, reason="the compiled loop was not built")
def test_both_loops_withstand_the_same_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = {case.name for case in MEMORY}
    jobs = [Job(case.name, case.program, case.tests, "f") for case in ATTACKS if case.name not in memory]
    found = [verdicts(jobs, loop, monkeypatch) for loop in ("compiled", "python")]
    # Messages name what was at hand when the limit came.
    assert {name: outcome[:4] for name, outcome in found[0].items()} == {name: outcome[:4] for name, outcome in found[1].items()}


def copy_with(folder: Path, name: str, content: bytes) -> Path:
    """The sandbox's sources with another file for the compiled loop."""
    shutil.copytree(SANDBOX, folder, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    (folder / "inside" / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        (f"_loop{SUFFIX}", b"no library" * 100, "invalid ELF header"),
        ("_loop.py", b"INTERFACE = 0", "built from other sources"),
        ("_loop.py", b"", "INTERFACE"),
        ("_none.py", b"", "_loop"),
    ],
)
def test_a_build_that_does_not_fit_is_left_alone_and_said(
    name: str, content: bytes, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    copy = copy_with(tmp_path / "sandbox", name, content)
    monkeypatch.delenv(LOOP, raising=False)
    monkeypatch.setattr(parent, "__file__", str(copy / "inside" / "parent.py"))
    monkeypatch.setattr(worker, "announced", set())
    with caplog.at_level(logging.INFO, "coderl.sandbox.worker"):
        assert judge(OK, DOUBLE, LIMITS).outcome == "passed_test"
    said = [record.getMessage() for record in caplog.records if "no compiled loop" in record.getMessage()]
    assert len(said) == 1
    assert problem in said[0]


@pytest.mark.skipif(not COMPILED, reason="the compiled loop was not built")
def test_the_compiled_loop_is_used(tmp_path: Path) -> None:
    """A parent whose loop is compiled runs no byte code between two programs: its loop() is never entered."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from inside import zygote; "
        "assert not zygote.COMPILED_LOOP_PROBLEM, zygote.COMPILED_LOOP_PROBLEM"
    )
    subprocess.run([sys.executable, "-s", "-S", "-P", "-B", "-c", code, str(SANDBOX)], check=True, env={**os.environ, "PYTHONPATH": ""})
    copy = copy_with(tmp_path / "sandbox", "_loop_is_beside_it", b"")
    shutil.copy(SANDBOX / "inside" / f"_loop{SUFFIX}", copy / "inside")
    source = (copy / "inside" / "zygote.py").read_text()
    broken = source.replace('"""The requests, one after the other."""', 'raise SystemError("the loop in Python")')
    assert broken != source
    (copy / "inside" / "zygote.py").write_text(broken)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(parent, "__file__", str(copy / "inside" / "parent.py"))
        monkeypatch.delenv(LOOP, raising=False)
        assert judge(OK, DOUBLE, LIMITS).outcome == "passed_test"
        close_workers()
        monkeypatch.setenv(LOOP, "python")
        with pytest.raises(Exception, match="the loop in Python"):
            judge(OK, DOUBLE, LIMITS)
