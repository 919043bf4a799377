"""The compiled loop and the one in Python: the same outcomes; a build that does not fit is left alone, and said."""

from __future__ import annotations

import importlib.machinery
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sandbox_attacks import ATTACKS, MEMORY
from sandbox_programs import ASSERTS, CALLS, DOUBLE, OK

from coderl.problems import AssertTests, InputOutputTests
from coderl.sandbox import Job, Limits, close_workers, judge, judge_many, worker
from coderl.sandbox.worker import LOOP

SANDBOX = Path(worker.__file__).parent
SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]
LIMITS = Limits(cpu_seconds=0.25, wall_seconds=2, memory_mb=128, max_file_mb=16)
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
    monkeypatch.setattr(worker, "__file__", str(copy / "worker.py"))
    monkeypatch.setattr(worker, "_announced", set())
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
        monkeypatch.setattr(worker, "__file__", str(copy / "worker.py"))
        assert judge(OK, DOUBLE, LIMITS).outcome == "passed_test"
        close_workers()
        monkeypatch.setenv(LOOP, "python")
        with pytest.raises(Exception, match="the loop in Python"):
            judge(OK, DOUBLE, LIMITS)
