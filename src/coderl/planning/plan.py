"""A run read, planned and printed: verb `plan`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from coderl.config import ConfigError, load_run
from coderl.planning.cluster import Cluster, Outlook, cpu_seconds, gpu_seconds, key_of, outlook
from coderl.planning.constants import DEVICES, Device, constants
from coderl.planning.jobs import Group, groups
from coderl.planning.shapes import run_file
from coderl.planning.units import duration, size

SCALES: tuple[tuple[str, float, float], ...] = (
    ("as it is", 1, 1),
    ("10 x problems", 10, 1),
    ("100 x problems", 100, 1),
    ("10 x samples", 1, 10),
    ("100 x samples", 1, 100),
)


@dataclass(frozen=True)
class Plan:
    """A run on a cluster, as it is and larger."""

    run: str
    device: Device
    cluster: Cluster
    groups: list[Group]
    outlooks: dict[str, Outlook]


def make_plan(run: str, device: str, cluster: Cluster, training_gpus: int = 1) -> Plan:
    """Read the run and plan it.

    Raises:
        ConfigError: a bad run file, an unknown device, or what `groups` and `elapsed` raise.
    """
    if device not in DEVICES:
        raise ConfigError(f"--gpu {device}: not known; there are {', '.join(DEVICES)}")
    chosen = DEVICES[device]
    if not chosen.is_gpu:
        cluster = replace(cluster, gpus=0)
    path = run_file(run)
    config = load_run(path)
    plans = {name: groups(config, chosen, problems=p, samples=s, training_gpus=training_gpus) for name, p, s in SCALES}
    outlooks = {name: outlook(plan, cluster, chosen) for name, plan in plans.items()}
    return Plan(path.stem, chosen, cluster, plans[SCALES[0][0]], outlooks)


def as_json(plan: Plan) -> dict[str, Any]:
    """For machines; seconds, hours and bytes."""

    def row(each: Outlook) -> dict[str, Any]:
        shown = {name: value for name, value in vars(each).items() if name != "chain"}
        return {**shown, "chain": [key_of(group) for group in each.chain], "bottleneck": each.bottleneck}

    return {
        "run": plan.run,
        "gpu": plan.device.name,
        "cluster": vars(plan.cluster),
        "groups": [vars(group) for group in plan.groups],
        "outlooks": {name: row(each) for name, each in plan.outlooks.items()},
    }


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns side by side, numbers to the right."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))) for row in cells
    ]


def as_text(plan: Plan) -> str:
    """For a reader: stages, chain, scaling, and what is not right yet."""
    now = plan.outlooks[SCALES[0][0]]
    place = f"{plan.cluster.gpus} x {plan.device.name}, " if plan.device.is_gpu else "no GPU, "
    lines = [f"run {plan.run} on {place}{plan.cluster.cpus} cores", ""]
    stages: dict[str, list[Group]] = {}
    for group in plan.groups:
        stages.setdefault(group.stage, []).append(group)
    rows = []
    for stage, members in stages.items():
        longest = max(group.seconds for group in members)
        row = [stage, str(sum(group.jobs for group in members)), f"{gpu_seconds(members) / 3600:.2f}", f"{cpu_seconds(members) / 3600:.2f}"]
        memory = max(group.memory for group in members)
        rows.append([*row, size(sum(group.storage for group in members)), size(memory), duration(longest)])
    rows.append(["collect", "1", "0.00", "0.00", "0 kB", "0 kB", "1 s"])
    rows.append(["all", str(now.jobs), f"{now.gpu_hours:.2f}", f"{now.cpu_hours:.2f}", size(now.storage), "", ""])
    lines += _table(["stage", "jobs", "GPU-hours", "CPU-hours", "storage", "memory", "longest job"], rows)
    lines += ["", f"checkpoints while models train: up to {size(now.scratch)} more", ""]
    lines.append(f"longest chain: {duration(now.bounds['longest chain'])}")
    lines += [f"  {key_of(group)}  {duration(group.seconds)}" for group in now.chain]
    bounds = ", ".join(f"{name} {duration(value)}" for name, value in now.bounds.items())
    lines += ["", f"time on this cluster: about {duration(now.elapsed)} (each alone: {bounds})", ""]
    head = ["", "jobs", "GPU-hours", "CPU-hours", "storage", "time", "first bottleneck"]
    scaled = [
        [
            name,
            str(each.jobs),
            f"{each.gpu_hours:.0f}",
            f"{each.cpu_hours:.0f}",
            size(each.storage),
            duration(each.elapsed),
            each.bottleneck,
        ]
        for name, each in plan.outlooks.items()
    ]
    lines += _table(head, scaled)
    long_shards = [group for group in plan.groups if group.jobs > 1 and group.seconds > 3600]
    notes = [f"{name}: {text}" for name, each in plan.outlooks.items() for text in [*each.limits, *each.warnings]]
    notes += [f"{key_of(group)}: a shard takes {duration(group.seconds)}; use more shards" for group in long_shards]
    notes.append("times are estimates from the constants of `coderl plan --constants`, which prints them with their sources")
    return "\n".join([*lines, "", *notes])


def constants_text() -> str:
    """Every constant, its value and its source."""
    return "\n".join(f"{name}: {each.value:.4g} {each.unit}\n    {each.source}" for name, each in constants())
