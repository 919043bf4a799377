"""The conformance suite: on every backend every program of the suites gets its outcome, and the next one does not notice.

The namespace backend is what test_sandbox.py and test_sandbox_attacks.py run on. Here the rest: `rehearsal`, which is everything
that happens inside a container (relay, walls without a process namespace) on a machine without an engine; `docker` (make
docker-test); `apptainer`, where there is one.
"""

# ruff: noqa: E501  (a program is one line)

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sandbox_programs import CALLS, DOUBLE, LEGAL, OK, PLAIN_ERRORS, Case, broken, failed, passed

from coderl.sandbox import Job, Limits, backends, container, judge_many

QUICK = Limits(cpu_seconds=0.25, wall_seconds=4, memory_mb=128, max_file_mb=16)
"""For what never ends."""
PATIENT = Limits(cpu_seconds=8, memory_mb=128, max_file_mb=16)

# How a program is refused what it may not do differs by nature: a file can be absent or forbidden, a process invisible or out of
# reach. Which of these errors it sees is no part of the outcome.
REFUSALS = {"permissionerror", "filenotfounderror", "oserror", "processlookuperror", "notadirectoryerror"}

# Other differences by nature, each with its reason.
DIFFERENT: dict[str, set[str]] = {
    # With a process namespace the parent is not there, and killing nobody is killing oneself; here it is there and out of reach.
    "kills its parent": {"permissionerror"},
    # SIGKILL to oneself looks like the kernel's for lack of memory where the count of those cannot be read (no control group).
    "kills itself": {"sigkill", "memoryerror"},
}

# Attacks on what programs share with their parent only inside a container.
_ZYGOTE = "import os, ctypes, signal, struct, fcntl, resource\nn = int(input())\np = os.getppid()\nc = ctypes.CDLL(None, use_errno=True)\n"
SHARED = [
    broken("stops its parent", _ZYGOTE + "os.kill(p, signal.SIGSTOP)", "permissionerror"),
    broken("signals the group of its parent", _ZYGOTE + "os.killpg(os.getpgid(p), 9)", None),
    passed(
        "signals to all low numbers",
        _ZYGOTE
        + "for i in range(1, 9):\n    if i in (os.getpid(), os.getpgrp()): continue\n    for s in (15, 19, 9):\n        for j in (i, -i):\n            if j == 1 and s == 9: continue\n            try: os.kill(j, s)\n            except OSError: pass\n            c.syscall(200, j, s); c.syscall(234, j, j, s)\nprint(n * 2)",
    ),
    passed(
        "owner of a descriptor",
        _ZYGOTE
        + "a, b = os.pipe()\nfor i in (p, -p, 1):\n    try:\n        fcntl.fcntl(a, fcntl.F_SETOWN, i)\n        fcntl.fcntl(a, 10, 9)\n        fcntl.fcntl(a, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)\n        os.write(b, b'x')\n        assert 0, 'owned'\n    except OSError: pass\nprint(n * 2)",
    ),
    passed(
        "limits of its parent",
        _ZYGOTE
        + "for i in (1, p):\n    try: resource.prlimit(i, resource.RLIMIT_CPU, (0, 0)); assert 0\n    except OSError: pass\nprint(n * 2)",
    ),
    passed("its own limits", _ZYGOTE + "resource.setrlimit(resource.RLIMIT_NOFILE, (50, 50))\nprint(n * 2)"),
    passed(
        "its own children",
        _ZYGOTE
        + "import time\nq = os.fork()\nif q == 0:\n    time.sleep(60)\nos.kill(q, 9)\nassert os.waitstatus_to_exitcode(os.waitpid(q, 0)[1]) == -9\nprint(n * 2)",
    ),
    passed(
        "leaves its group",
        _ZYGOTE
        + "import time\nfor _ in range(3):\n    if os.fork() == 0:\n        c.syscall(109 if os.uname().machine == 'x86_64' else 154, 0, 0, 0x67726F75)\n        time.sleep(60)\ntime.sleep(0.05)\nprint(n * 2)",
    ),
    passed(
        "memory of its parent",
        _ZYGOTE
        + "for i in (1, p):\n    for f, m in ('mem', 'rb'), ('mem', 'r+b'), ('environ', 'rb'), ('maps', 'rb'), ('fd/0', 'rb'), ('root/x', 'rb'), ('oom_score_adj', 'w'):\n        try: open(f'/proc/{i}/{f}', m).read(1); assert 0, f\n        except (OSError, ValueError): pass\nprint(n * 2)",
    ),
    passed("unreadable exchange files", _ZYGOTE + "for f in ('in', 'out', 'answers', 'job'): os.chmod('/io/' + f, 0)\nprint(n * 2)"),
    passed(
        "missing exchange files",
        _ZYGOTE
        + "for f in ('answers', 'in', 'out', 'job'):\n    try: os.rename('/io/' + f, '/io/x' + f); open('/io/' + f, 'w').close()\n    except OSError: pass\nprint(n * 2)",
    ),
    broken("message queue as a file", "open('/dev/mqueue/x', 'w')", None),
    failed("shared memory that stays", "import os\nopen('/dev/shm/x', 'a').write(input())\nprint(open('/dev/shm/x').read())"),
    passed(
        "shared memory that does not stay", "import os\nn = int(input())\nassert n != 21 or not os.path.exists('/dev/shm/x')\nprint(n * 2)"
    ),
    failed("files of the system", "import os\ntry: print(open('/etc/passwd').read())\nexcept OSError: print('no')"),
    broken("kills its parent, in a call", "import os\ndef f(x):\n    os.kill(os.getppid(), 9)", "permissionerror", CALLS),
]


def collect() -> list[tuple[str, str, Case]]:
    """(module, list, case) of every case in every module sandbox_*.py beside this one."""
    found: dict[int, tuple[str, str, Case]] = {}
    for path in sorted(Path(__file__).parent.glob("sandbox_*.py")):
        for name, value in vars(importlib.import_module(path.stem)).items():
            if isinstance(value, list) and value and all(isinstance(case, Case) for case in value):
                for case in value:
                    found.setdefault(id(case), (path.stem, name, case))
    return [*found.values(), *((__name__, "SHARED", case) for case in SHARED)]


SUITE = collect()
NAMES = [f"{module.removeprefix('sandbox_')}: {case.name}" for module, _, case in SUITE]


def limits_of(case: Case) -> Limits:
    return QUICK if case.error_class == "timeoutexception" else PATIENT


def check(case: Case, limits: Limits, backend: Any) -> None:
    jobs = [Job("case", case.program, case.tests, "f"), Job("next", OK, DOUBLE)]
    (_, found), (_, after) = judge_many(jobs, limits, backend=backend)
    assert (found.outcome, found.backend) == (case.outcome, backend), found
    allowed = DIFFERENT.get(case.name, {case.error_class} if case.error_class else {found.error_class})
    assert found.error_class in (allowed | REFUSALS if allowed & REFUSALS else allowed), found
    assert (found.n_passed == found.n_tests) == (case.outcome == "passed_test")
    assert after.outcome == "passed_test", f"the next program: {after}"


_EVERY = 8


def marks_of(number: int, name: str, case: Case) -> list[pytest.MarkDecorator]:
    """Each eighth case is run every time, of those that take no time; and all that attack what is shared in a container."""
    takes_its_time = name == "MEMORY" or case.error_class == "timeoutexception"
    return [] if name == "SHARED" or (number % _EVERY == 0 and not takes_its_time) else [pytest.mark.slow]


REHEARSED = [pytest.param(case, limits_of(case), marks=marks_of(number, name, case)) for number, (_, name, case) in enumerate(SUITE)]


@pytest.mark.parametrize(("case", "limits"), REHEARSED, ids=NAMES)
def test_rehearsal(case: Case, limits: Limits) -> None:
    check(case, limits, "rehearsal")


@pytest.mark.docker
@pytest.mark.parametrize(("case", "limits"), [(found[2], limits_of(found[2])) for found in SUITE], ids=NAMES)
def test_docker(case: Case, limits: Limits) -> None:
    check(case, limits, "docker")


def without_landlock(name: str) -> str:
    backends.BACKENDS[f"{name}, no Landlock"] = replace(backends.BACKENDS[name], name=f"{name}, no Landlock", landlock=False)
    return f"{name}, no Landlock"


@pytest.mark.parametrize("case", SHARED, ids=lambda case: case.name)
def test_rehearsal_on_a_kernel_without_landlock(case: Case) -> None:
    check(case, PATIENT, without_landlock("rehearsal"))


@pytest.mark.docker
@pytest.mark.parametrize("case", [case for case in SHARED if case.name != "message queue as a file"], ids=lambda case: case.name)
def test_docker_on_a_kernel_without_landlock(case: Case) -> None:
    check(case, PATIENT, without_landlock("docker"))


@pytest.mark.skipif(container.apptainer_refused() is not None, reason="not run: no Apptainer with an image here")
def test_apptainer() -> None:
    for found in SUITE:
        check(found[2], limits_of(found[2]), "apptainer")


def test_programs_without_isolation() -> None:
    # Not the attacks: without isolation they are not what it is for.
    cases = LEGAL + PLAIN_ERRORS
    jobs = [Job(number, case.program, case.tests, "f") for number, case in enumerate(cases)]
    found = judge_many(jobs, PATIENT, workers=2, unisolated=True)
    wrong = [(cases[number].name, outcome) for number, outcome in found if outcome.outcome != cases[number].outcome]  # type: ignore[index]
    assert wrong == []
