"""A plan on a cluster: its longest chain, how long it takes, and what stands in its way."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coderl.config import ConfigError
from coderl.planning.constants import ENGINE_PLAN, GB, Device
from coderl.planning.jobs import Group
from coderl.planning.units import duration, size


@dataclass(frozen=True)
class Cluster:
    """What jobs share. memory_gb: of one node."""

    gpus: int
    cpus: int
    memory_gb: float = 256
    disk_tb: float = 10


def key_of(group: Group) -> str:
    """The name by which other groups need this one."""
    return f"{group.stage}/{group.name}" if group.name else group.stage


def longest_chain(plan: Sequence[Group]) -> tuple[float, list[Group]]:
    """(seconds, groups in order) of the chain that decides how soon a run can end, had every job a machine at once."""
    by_key = {key_of(group): group for group in plan}
    best: dict[str, tuple[float, str | None]] = {}

    def finish(key: str) -> float:
        if key not in best:
            before = max(by_key[key].needs, key=finish, default=None)
            best[key] = (by_key[key].seconds + (finish(before) if before else 0.0), before)
        return best[key][0]

    last: str | None = max(by_key, key=finish)
    assert last is not None
    seconds, path = best[last][0], []
    while last is not None:
        path.append(by_key[last])
        last = best[last][1]
    return seconds, path[::-1]


def elapsed(plan: Sequence[Group], cluster: Cluster) -> float:
    """Seconds until the last job ends when free GPUs and cores take the ready job with the longest way to go first.

    Raises:
        ConfigError: a job that no node of the cluster can hold.
    """
    by_key = {key_of(group): group for group in plan}
    followers: dict[str, list[str]] = {key: [] for key in by_key}
    for key, group in by_key.items():
        for before in group.needs:
            followers[before].append(key)
        if group.gpus > cluster.gpus or group.cores > cluster.cpus:
            raise ConfigError(
                f"a job of {key} needs {group.gpus} GPUs and {group.cores} cores; this cluster has {cluster.gpus} and {cluster.cpus}"
            )
    rest: dict[str, float] = {}

    def remaining(key: str) -> float:
        if key not in rest:
            rest[key] = by_key[key].seconds + max((remaining(each) for each in followers[key]), default=0.0)
        return rest[key]

    waits = {key: len(set(group.needs)) for key, group in by_key.items()}
    to_start = {key: group.jobs for key, group in by_key.items()}
    to_end = dict(to_start)
    ready = sorted((key for key, count in waits.items() if count == 0), key=remaining, reverse=True)
    running: list[tuple[float, str, int]] = []  # (end, group, how many of its jobs)
    gpus, cpus, now = cluster.gpus, cluster.cpus, 0.0
    while ready or running:
        for key in list(ready):
            group = by_key[key]
            fitting = min(to_start[key], *([gpus // group.gpus] if group.gpus else []), cpus // group.cores)
            if fitting > 0:
                gpus, cpus, to_start[key] = gpus - fitting * group.gpus, cpus - fitting * group.cores, to_start[key] - fitting
                heapq.heappush(running, (now + group.seconds, key, fitting))
                if not to_start[key]:
                    ready.remove(key)
        now, key, count = heapq.heappop(running)
        gpus, cpus, to_end[key] = gpus + count * by_key[key].gpus, cpus + count * by_key[key].cores, to_end[key] - count
        if not to_end[key]:
            for each in dict.fromkeys(followers[key]):
                waits[each] -= 1
                if not waits[each]:
                    ready = sorted([*ready, each], key=remaining, reverse=True)
    return now


def gpu_seconds(plan: Iterable[Group]) -> float:
    """GPUs held x seconds."""
    return sum(group.jobs * group.seconds * group.gpus for group in plan)


def cpu_seconds(plan: Iterable[Group]) -> float:
    """Cores held x seconds."""
    return sum(group.jobs * group.seconds * group.cores for group in plan)


@dataclass(frozen=True)
class Outlook:
    """A plan on a cluster.

    bounds: what GPUs, cores and the longest chain alone would take, in seconds. limits: what no waiting lifts. warnings: what
    makes it tedious.
    """

    jobs: int
    gpu_hours: float
    cpu_hours: float
    storage: float
    scratch: float
    elapsed: float
    bounds: dict[str, float]
    chain: list[Group]
    limits: list[str]
    warnings: list[str]

    @property
    def bottleneck(self) -> str:
        """A limit that no waiting lifts, if there is one; else what the time goes to."""
        if self.limits:
            return self.limits[0].partition(": ")[0]
        name = max(self.bounds, key=lambda each: self.bounds[each])
        if name == "longest chain":
            slowest = max(self.chain, key=lambda group: group.seconds)
            return f"the longest chain, in it {key_of(slowest)} ({duration(slowest.seconds)} a job)"
        return f"{name}: {duration(self.bounds[name])} of the time"


def outlook(plan: Sequence[Group], cluster: Cluster, device: Device) -> Outlook:
    """Sums, time and limits of a plan on a cluster."""
    chain_seconds, chain = longest_chain(plan)
    bounds = {"longest chain": chain_seconds, "cores": cpu_seconds(plan) / cluster.cpus}
    if cluster.gpus:
        bounds["GPUs"] = gpu_seconds(plan) / cluster.gpus
    jobs = sum(group.jobs for group in plan) + 1  # and collect
    storage = sum(group.storage for group in plan)
    scratch = sum(group.scratch for group in plan)
    limits = []
    for group in sorted(plan, key=lambda each: -each.memory):
        if group.memory > cluster.memory_gb * GB:
            limits.append(f"memory of {key_of(group)}: {size(group.memory)} in one process, a node has {cluster.memory_gb:g} GB")
            break
    for group in sorted(plan, key=lambda each: -each.gpu_memory):
        if device.is_gpu and group.gpu_memory > device.memory_gb * GB:
            limits.append(
                f"GPU memory of {key_of(group)}: {size(group.gpu_memory)} for a whole batch, {device.name} {device.memory_gb:g} GB"
            )
            break
    if storage + scratch > cluster.disk_tb * 1e12:
        limits.append(f"storage: {size(storage + scratch)} with checkpoints; there are {cluster.disk_tb:g} TB")
    warnings = []
    if jobs * ENGINE_PLAN.value > 10:
        warnings.append(f"planning by Snakemake: `snakemake -n` takes about {duration(jobs * ENGINE_PLAN.value)} for {jobs} jobs")
    return Outlook(
        jobs, gpu_seconds(plan) / 3600, cpu_seconds(plan) / 3600, storage, scratch, elapsed(plan, cluster), bounds, chain, limits, warnings
    )
