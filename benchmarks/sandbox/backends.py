"""What a program costs on each backend of the sandbox: the same programs, in turns, in one run; every process counted.

    python benchmarks/sandbox/backends.py --problems mbpp.jsonl namespace namespace-without-landlock docker

`--problems` is MBPP's own file (task_id, code, test_list, ...). CPU time is that of this process and all below it; for docker also that of
the containers (control group) and of the engine's processes, so nothing else may use the engine meanwhile. Prints microseconds per
program, and ratios to the first backend over all rounds, with the middle half of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path

from coderl.problems import AssertTests
from coderl.sandbox import Job, Limits, backends, close_workers, judge_many

TICKS = os.sysconf("SC_CLK_TCK")
ENGINE = (b"dockerd", b"containerd")
LIMITS = Limits(cpu_seconds=10)


def processes() -> dict[int, tuple[int, float, bytes]]:
    """Parent, CPU seconds with those of reaped children, and name of every process."""
    found = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            data = Path(path).read_bytes()
        except OSError:
            continue
        name, fields = data[data.index(b"(") + 1 : data.rindex(b")")], data[data.rindex(b")") + 2 :].split()
        found[int(path.split("/")[2])] = (int(fields[1]), sum(map(int, fields[11:15])) / TICKS, name)
    return found


def cpu_seconds(docker: bool) -> float:
    """CPU time so far of everything that takes part."""
    table = processes()
    mine = [os.getpid()]
    for one in mine:
        mine += [process for process, (parent, _, _) in table.items() if parent == one]
    total = sum(table[process][1] for process in mine if process in table)
    if docker:
        total += sum(seconds for _, seconds, name in table.values() if name.startswith(ENGINE))
        for path in glob.glob("/sys/fs/cgroup/cpuacct/docker/*/cpuacct.usage"):
            total += int(Path(path).read_text()) / 1e9
        for path in glob.glob("/sys/fs/cgroup/system.slice/docker-*.scope/cpu.stat"):
            total += int(Path(path).read_text().split()[1]) / 1e6
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--size", type=int, default=100, help="programs per round")
    parser.add_argument("backends", nargs="+")
    given = parser.parse_args()
    backends.BACKENDS["namespace-without-landlock"] = replace(
        backends.BACKENDS["namespace"], name="namespace-without-landlock", landlock=False
    )
    rows = [json.loads(line) for line in given.problems.read_text(encoding="utf-8").splitlines()]
    # Task 123 takes seconds by itself and would drown the rest.
    jobs = [
        Job(row["task_id"], row["code"], AssertTests(row["test_list"], row["test_setup_code"])) for row in rows if row["task_id"] != 123
    ]
    cpu: dict[str, list[float]] = {name: [] for name in given.backends}
    wall: dict[str, list[float]] = {name: [] for name in given.backends}
    for name in given.backends:
        list(judge_many(jobs[:50], LIMITS, backend=name))
    for turn in range(given.rounds):
        start = turn * given.size % (len(jobs) - given.size)
        for name in given.backends if turn % 2 else given.backends[::-1]:
            before, began = cpu_seconds(name == "docker"), time.perf_counter()
            found = list(judge_many(jobs[start : start + given.size], LIMITS, backend=name))
            wall[name].append((time.perf_counter() - began) / given.size * 1e6)
            cpu[name].append((cpu_seconds(name == "docker") - before) / given.size * 1e6)
            assert all(outcome.outcome == "passed_test" for _, outcome in found)
    close_workers()
    print("backend                       CPU us   wall us   CPU ratio (middle half)   wall ratio (middle half)")
    for name in given.backends:
        line = f"{name:28} {statistics.mean(cpu[name]):7.0f} {statistics.mean(wall[name]):9.0f}"
        for costs in (cpu, wall):
            ratios = [one / other for one, other in zip(costs[name], costs[given.backends[0]], strict=True)]
            low, _, high = statistics.quantiles(ratios, n=4)
            line += f"   {sum(costs[name]) / sum(costs[given.backends[0]]):9.3f} ({low:.2f} to {high:.2f})"
        print(line)


if __name__ == "__main__":
    main()
