"""What a plan rests on: rates of devices, means of benchmarks, costs of processes, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

GB = 1e9


@dataclass(frozen=True)
class Constant:
    """A number that the plan rests on, and where it comes from."""

    value: float
    unit: str
    source: str


@dataclass(frozen=True)
class Device:
    """What a model runs on: one GPU, or one CPU core.

    Rates are what arrives, not peaks: floating-point operations per second in training (bf16 and fp32) and in decoding (fp32,
    as models are loaded for sampling), bytes per second from memory, seconds that launching one layer costs per forward
    pass of decoding (`launch`) and per training step (`training_launch`).
    """

    name: str
    is_gpu: bool
    bf16: Constant
    fp32: Constant
    decoding: Constant
    bandwidth: Constant
    launch: Constant
    training_launch: Constant
    memory_gb: float


_PAPER = "9 % of peak; spec 1.5 and 2.5 give 8.3 % (CSN), 10.6 % (GCPY), 9.0 % (NTP), 8.4 % (warm start) of an A100, by the FLOPs below"
_FP32 = "estimated: half of the data sheet's fp32 peak"
_MEMORY = "estimated: 60 % of the data sheet's bandwidth"
_LAUNCH = Constant(0.0008, "s", "estimated: about 35 kernels a layer, launched from Python")
_STEP = Constant(0.003, "s", "estimated from mini's steps of 50 ms (4 layers, two jobs side by side), 2026-11-24")

_TRAINED = "mini, 2026-11-25: between pretrain (6000 steps in 229 s on one core) and rl_finetune (2000 in 95 s)"

DEVICES: dict[str, Device] = {
    "a100": Device(
        "a100", True, Constant(0.09 * 312e12, "FLOP/s", _PAPER), Constant(9.7e12, "FLOP/s", _FP32), Constant(9.7e12, "FLOP/s", _FP32),
        Constant(0.6 * 1.555e12, "B/s", _MEMORY), _LAUNCH, _STEP, 40,
    ),
    "h100": Device(
        "h100", True, Constant(0.09 * 989e12, "FLOP/s", _PAPER), Constant(33e12, "FLOP/s", _FP32), Constant(33e12, "FLOP/s", _FP32),
        Constant(0.6 * 3.35e12, "B/s", _MEMORY), _LAUNCH, _STEP, 80,
    ),
    "h200": Device(
        "h200", True, Constant(0.09 * 989e12, "FLOP/s", _PAPER), Constant(33e12, "FLOP/s", _FP32), Constant(33e12, "FLOP/s", _FP32),
        Constant(0.6 * 4.8e12, "B/s", _MEMORY), _LAUNCH, _STEP, 141,
    ),
    "none": Device(
        "none", False,
        Constant(2.2e10, "FLOP/s", _TRAINED),
        Constant(2.2e10, "FLOP/s", _TRAINED),
        Constant(1e10, "FLOP/s", "mini, 2026-11-24: 12k tokens/s sampled (benchmarks/README.md)"),
        Constant(1e10, "B/s", "estimated: one core's share of the memory"),
        Constant(0.0005, "s", "estimated: 0.5 ms a layer on a CPU"),
        _STEP, 0,
    ),
}  # fmt: skip
"""By the name that --gpu takes; "none" trains on CPU cores."""


@dataclass(frozen=True)
class Facts:
    """Means of a benchmark that decide cost; tokens are those of its prompts, programs and samples as the models read them."""

    problems: Mapping[str, int]
    prompt_tokens: Constant
    program_tokens: Constant
    solutions: Constant
    hidden_seconds: Constant
    example_seconds: Constant
    timeouts: Constant
    problem_bytes: Constant
    sample_bytes: Constant
    outcome_bytes: Constant


_MINI = "mini, 2026-11-24"
_APPS = "99 APPS train problems with CodeT5's tokenizer, cut at 600 and 512"

FACTS: dict[str, Facts] = {
    "procedural": Facts(
        problems={},
        prompt_tokens=Constant(95, "tokens", _MINI),
        program_tokens=Constant(42, "tokens", "benchmarks/README.md"),
        solutions=Constant(3, "programs", "procedural.solutions"),
        hidden_seconds=Constant(0.0017, "CPU s", f"{_MINI}: 18,000 programs in 28 to 41 s, one worker per job"),
        example_seconds=Constant(0.0017, "CPU s", f"{_MINI}: 18,000 programs in 28 to 32 s, one worker per job"),
        timeouts=Constant(0.0, "share", f"{_MINI}: in the seconds above"),
        problem_bytes=Constant(200, "B", _MINI),
        sample_bytes=Constant(15, "B", _MINI),
        outcome_bytes=Constant(5, "B", _MINI),
    ),
    "apps": Facts(
        problems={"train": 5000, "test": 5000},
        prompt_tokens=Constant(530, "tokens", _APPS),
        program_tokens=Constant(200, "tokens", _APPS),
        solutions=Constant(23.2, "programs", "spec 2.1"),
        hidden_seconds=Constant(0.013, "CPU s", "3.3 ms for 5.2 tests (references of 99 APPS train problems), times 21.2 tests (spec 2.1)"),
        example_seconds=Constant(0.0025, "CPU s", "3.3 ms for 5.2 tests, times 2 tests (spec 7.6), and a start"),
        timeouts=Constant(0.017, "share", "spec 8.9: 5 % of the 34 % runtime errors"),
        problem_bytes=Constant(40_000, "B", "estimated from the hub's files (1.4 GB for 10,000 problems), compressed"),
        sample_bytes=Constant(130, "B", "references of 99 APPS train problems, gzip"),
        outcome_bytes=Constant(10, "B", "references of 99 APPS train problems, gzip, and messages"),
    ),
    "humaneval": Facts(
        problems={"test": 164},
        prompt_tokens=Constant(180, "tokens", "estimated: signature and docstring"),
        program_tokens=Constant(90, "tokens", "estimated: the prompt's code and 6 to 7 lines"),
        solutions=Constant(1, "programs", "HumanEval.jsonl.gz"),
        hidden_seconds=Constant(0.016, "CPU s", "problems-report, 2026-11-24: 164 references in 2.8 s, one worker"),
        example_seconds=Constant(0.006, "CPU s", "problems-report, 2026-11-24: 68 references in 0.4 s, one worker"),
        timeouts=Constant(0.017, "share", "as APPS"),
        problem_bytes=Constant(270, "B", "HumanEval.jsonl.gz"),
        sample_bytes=Constant(60, "B", "estimated"),
        outcome_bytes=Constant(10, "B", "as APPS"),
    ),
    "mbpp": Facts(
        problems={"train": 374, "validation": 90, "test": 500},
        prompt_tokens=Constant(120, "tokens", "estimated: description and three asserts"),
        program_tokens=Constant(70, "tokens", "estimated: 6 to 7 lines"),
        solutions=Constant(1, "programs", "spec 8.8"),
        hidden_seconds=Constant(0.0025, "CPU s", "as two tests of APPS"),
        example_seconds=Constant(0.0025, "CPU s", "as two tests of APPS"),
        timeouts=Constant(0.017, "share", "as APPS"),
        problem_bytes=Constant(300, "B", "mbpp.jsonl, compressed"),
        sample_bytes=Constant(60, "B", "estimated"),
        outcome_bytes=Constant(10, "B", "as APPS"),
    ),
}
"""By benchmark; others are planned as APPS."""

START = Constant(4.0, "s", f"{_MINI}: interpreter, torch, transformers")
START_PLAIN = Constant(0.8, "s", f"{_MINI}: interpreter, pandas, pyarrow; 1.1 s with the sandbox")
ENGINE_CLUSTER = Constant(5.0, "s", "a job through Slurm costs 3 to 8 s (two interpreters of Snakemake)")
ENGINE_LOCAL = Constant(0.1, "s", "45 trivial jobs against 5, 2026-11-24: 17 ms of CPU time a job, 94 ms passed with other work beside it")
ENGINE_PLAN = Constant(0.003, "s", "`snakemake -n`: 3.8 CPU s for the 638 jobs of paper, 2.0 for the 37 of smoke (docs/planning.md)")
LONGEST = Constant(3.0, "x", "estimated: the longest program of a batch is three times the mean, at most max_target_tokens")
KEPT_ROWS = Constant(1.2, "x", "sampling/generation.py: ended rows leave a batch when 30 % have ended")
FILL = Constant(0.9, "share", "length-bucketed batches: tokens that are no padding limit, training.plan_batches")
CRITICAL_ROUNDS = Constant(2.1, "x N", f"{_MINI}: 41.9 programs per problem at N = 20; 3 at most")
REPAIR_ROUNDS = Constant(0.2, "x N", "the mini run without refinement: repair was tried on 63 of 300 problems")
FURTHER_ROUNDS = Constant(0.25, "share", "the same: 34.8 programs per problem at N = 10, 9 further rounds at most and a repair")
FILE_SECONDS = Constant(0.00033, "s", f"{_MINI}: 24,000 generated files in 8 s")
FILE_BYTES = Constant(37, "B", f"{_MINI}: generated files, compressed")
ROW_SECONDS = Constant(0.000035, "s", f"{_MINI}: evaluate, 5 s for 140,000 outcomes; report about the same per program")
REPORT_SECONDS = Constant(6.0, "s", f"{_MINI}: the page's charts")
VALUE_BYTES = Constant(4.2, "B/token", f"{_MINI}: values/train.parquet")
SAMPLE_MEMORY = Constant(2000, "B/program", "estimated: a program and its outcome as Python objects")
TOKEN_MEMORY = Constant(90, "B/token", "estimated: token ids and values as Python lists, in rl_finetune")
ID_MEMORY = Constant(36, "B/token", "estimated: token ids as Python lists, in train_critic and train_repair")
PROCESS_MEMORY = Constant(0.6 * GB, "B", f"{_MINI}: resident memory of a job with torch")
STATE_BYTES = Constant(16, "B/parameter", "weights, gradients and Adam's two moments in fp32")
CHECKPOINT_BYTES = Constant(24, "B/parameter", "two checkpoints (training.py): weights and Adam's two moments in fp32")


def constants() -> list[tuple[str, Constant]]:
    """Every constant with the name it has here."""
    found = [(name, value) for name, value in globals().items() if isinstance(value, Constant) and not name.startswith("_")]
    for group, entries in (("gpu", DEVICES), ("benchmark", FACTS)):
        for name, entry in entries.items():
            found += [(f"{group} {name}: {key}", value) for key, value in vars(entry).items() if isinstance(value, Constant)]
    return found
