"""What a run will cost, before anything is submitted: jobs, GPU-hours, CPU-hours, storage and the longest chain, per stage.

Which jobs there are follows from the configuration alone (tests compare them with Snakemake's own plan). How long they take
follows from the shapes of the models and the constants below, each with its source; most constants of GPUs are estimates,
so read a plan as "within a factor of two or three" until a benchmark of your cluster replaces them.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coderl.config import ConfigError, LengthsConfig, ProblemPart, RunConfig, TrainingConfig, load_run
from coderl.evaluation.paper_tables import TABLES as PAPER_TABLES

GB = 1e9

# --------------------------------------------------------------------------------------------------- constants


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
        Constant(2e10, "FLOP/s", "mini, 2026-11-24: pretrain, 5500 steps in 275 s on one core"),
        Constant(2e10, "FLOP/s", "mini, 2026-11-24: pretrain, 5500 steps in 275 s on one core"),
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


# --------------------------------------------------------------------------------------------------- models


@dataclass(frozen=True)
class Shape:
    """A T5 encoder-decoder (spec 1.6), or a causal model: no encoder, and a decoder that reads prompts too.

    FLOPs are 2 per weight and token (6 in training); attention scores (10 % at 600) are left out. inner: width of all heads of a
    layer; inner_kv: of its keys and of its values, where fewer. matrices: of the feed-forward part, 3 where it is gated.
    """

    layers_encoder: int
    layers_decoder: int
    d_model: int
    d_ff: int
    inner: int
    vocabulary: int
    inner_kv: int | None = None
    matrices: int = 2
    tied: bool = True

    @property
    def encoder(self) -> int:
        """Weights that a source token meets."""
        if not self.layers_encoder:
            return self.decoder
        return self.layers_encoder * (4 * self.d_model * self.inner + self.matrices * self.d_model * self.d_ff)

    @property
    def decoder(self) -> int:
        """Weights that a target token meets, without the output layer."""
        kv = self.inner_kv or self.inner
        attention = 8 * self.inner if self.layers_encoder else 2 * (self.inner + kv)
        return self.layers_decoder * self.d_model * (attention + self.matrices * self.d_ff)

    @property
    def parameters(self) -> int:
        """All weights; tied embeddings count once (spec 1.6)."""
        embeddings = self.vocabulary * self.d_model * (1 if self.tied else 2)
        return (self.encoder if self.layers_encoder else 0) + self.decoder + embeddings

    @property
    def cache_bytes(self) -> int:
        """Keys and values that one token leaves in the decoder, fp32."""
        return self.layers_decoder * 2 * (self.inner_kv or self.inner) * 4

    def forward(self, source: float, target: float) -> float:
        """FLOPs of a forward pass."""
        return 2 * (self.encoder * source + (self.decoder + self.vocabulary * self.d_model) * target)


_SMOLLM2 = Shape(0, 30, 576, 1536, 576, 49152, inner_kv=192, matrices=3)

HUB_SHAPES: dict[str, Shape] = {
    "Salesforce/codet5-small": Shape(6, 6, 512, 2048, 512, 32100),
    "Salesforce/codet5-base": Shape(12, 12, 768, 3072, 768, 32100),
    "Salesforce/codet5-large": Shape(24, 24, 1024, 4096, 1024, 32100),
    "Salesforce/codet5-large-ntp-py": Shape(24, 24, 1024, 4096, 1024, 32100),
    "HuggingFaceTB/SmolLM2-135M-Instruct": _SMOLLM2,
    "data/smollm2-135m-instruct": _SMOLLM2,  # the run smollm2 can be planned before its model is there
    "EleutherAI/gpt-neo-2.7B": Shape(0, 32, 2560, 10240, 2560, 50257),
    "EleutherAI/gpt-j-6b": Shape(0, 28, 4096, 16384, 4096, 50400, tied=False),
}
"""Spec 1.6, and the published config.json of the others."""


def _shape_from_config(config: Mapping[str, Any]) -> Shape:
    """The shape that a config.json describes; KeyError or TypeError for other architectures."""
    kind = config.get("model_type", "t5")
    if kind == "t5":
        return Shape(
            config["num_layers"],
            config.get("num_decoder_layers") or config["num_layers"],
            config["d_model"],
            config["d_ff"],
            config["num_heads"] * config["d_kv"],
            config["vocab_size"],
            matrices=3 if str(config.get("feed_forward_proj", "relu")).startswith("gated") else 2,
            tied=config.get("tie_word_embeddings", True),
        )
    if kind in ("llama", "mistral", "qwen2"):
        width, heads = config["hidden_size"], config["num_attention_heads"]
        size = config.get("head_dim") or width // heads
        return Shape(
            0,
            config["num_hidden_layers"],
            width,
            config["intermediate_size"],
            heads * size,
            config["vocab_size"],
            inner_kv=(config.get("num_key_value_heads") or heads) * size,
            matrices=3,
            tied=config.get("tie_word_embeddings", False),
        )
    if kind == "gpt_neo":
        width = config["hidden_size"]
        return Shape(0, config["num_layers"], width, config.get("intermediate_size") or 4 * width, width, config["vocab_size"])
    if kind in ("gpt2", "gptj"):
        width = config["n_embd"]
        tied = config.get("tie_word_embeddings", kind == "gpt2")
        return Shape(0, config["n_layer"], width, config.get("n_inner") or 4 * width, width, config["vocab_size"], tied=tied)
    raise KeyError(kind)


def shape_of(name: str, key: str) -> Shape:
    """The shape of a model folder or of a hub id that this table knows; `key` names it in the error.

    Raises:
        ConfigError: neither.
    """
    try:
        return _shape_from_config(json.loads((Path(name) / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        if name in HUB_SHAPES:
            return HUB_SHAPES[name]
        known = ", ".join(HUB_SHAPES)
        raise ConfigError(
            f"key '{key}': the shape of {name!r} is not known; it can be planned for a folder of a T5, Llama, Mistral, Qwen2, GPT-2, "
            f"GPT-Neo or GPT-J model (its config.json) or for {known}"
        ) from None


def _run_shapes(config: RunConfig) -> dict[str, Shape]:
    """The shapes of base, actor, critic and repair model."""
    if config.warm_start.base_model is not None:
        base = shape_of(config.warm_start.base_model, "warm_start.base_model")
    else:
        assert config.pretrain is not None
        form, words = config.pretrain.architecture, config.pretrain.tokenizer
        base = Shape(
            form.encoder_layers,
            form.decoder_layers,
            form.d_model,
            form.d_ff,
            form.heads * form.d_kv,
            words.vocabulary_size + words.sentinels,
        )
    shapes = {"base": base, "actor": base}
    for name, section in (("critic", config.train_critic), ("repair", config.train_repair)):
        shapes[name] = base if section.base_model is None else shape_of(section.base_model, f"train_{name}.base_model")
    return shapes


# --------------------------------------------------------------------------------------------------- jobs


@dataclass(frozen=True)
class Group:
    """Jobs of one stage that are alike.

    seconds: wall time of one job. cores: held by one job. storage: bytes that all jobs leave. memory, gpu_memory: bytes that
    one job needs. needs: names of the groups that must have ended. scratch: bytes of checkpoints while a job runs.
    """

    stage: str
    name: str
    jobs: int
    seconds: float
    gpus: int = 0
    cores: int = 1
    storage: float = 0.0
    memory: float = 0.0
    gpu_memory: float = 0.0
    scratch: float = 0.0
    needs: tuple[str, ...] = ()


def training_seconds(training: TrainingConfig, shape: Shape, lengths: LengthsConfig, share: float, device: Device, gpus: int = 1) -> float:
    """Wall time of a training: steps x (launches, FLOPs / rate; see _together), FLOPs = 6 x weights x tokens.

    `batch_size` batches are padded to the limits, as spec 2.3 pads them; `batch_tokens` batches are filled to 90 %.

    Args:
        share: of source tokens among all tokens, for batch_tokens.
        gpus: that share each step (data parallel, linear).
    """
    if training.batch_tokens is not None:
        tokens = training.batch_tokens * FILL.value
        source, target, passes = tokens * share, tokens * (1 - share), 1
    else:
        assert training.batch_size is not None
        source = float(training.batch_size * lengths.max_source_tokens)
        target = float(training.batch_size * lengths.max_target_tokens)
        passes = math.ceil(training.batch_size / (training.micro_batch_size * gpus)) if training.micro_batch_size else 1
    rate = device.bf16.value if training.precision == "bf16" else device.fp32.value
    again = (4 / 3 if training.gradient_checkpointing else 1.0) * (2 / 3 if training.lora else 1.0)  # adapters: no gradients of weights
    layers = shape.layers_encoder + shape.layers_decoder
    launches = passes * layers * device.training_launch.value
    return training.steps * _together(device, launches, again * 3 * shape.forward(source, target) / (rate * gpus))


def _together(device: Device, launches: float, work: float) -> float:
    """Seconds of launching kernels and of what they do: a GPU works while the next ones are launched, a core does not."""
    return max(launches, work) if device.is_gpu else launches + work


def decoding_seconds(batches: float, rows: float, tokens: float, prompt: float, limit: int, shape: Shape, device: Device) -> float:
    """Wall time of drawing `batches` batches of `rows` programs of `tokens` tokens on average.

    Each step launches every decoder layer and reads the weights; each row-step reads its cache and multiplies.
    """
    steps = min(float(limit), LONGEST.value * tokens)
    weights = 4 * (shape.decoder + shape.vocabulary * shape.d_model)
    launches = shape.layers_decoder * device.launch.value
    per_row = shape.cache_bytes * (prompt + tokens / 2) / device.bandwidth.value + shape.forward(0, 1) / device.decoding.value
    work = steps * weights / device.bandwidth.value + rows * tokens * KEPT_ROWS.value * per_row
    return batches * _together(device, steps * launches, work)


def _judging_seconds(facts: Facts, suite: str, config: RunConfig) -> float:
    """CPU seconds of one program in run_tests, with time-outs at the limit (exact) or twice the short one (adaptive)."""
    tests = config.run_tests
    limit = tests.cpu_seconds if tests.time_policy == "exact" or suite == "example" else min(tests.cpu_seconds, 2 * tests.short_cpu_seconds)
    plain = facts.hidden_seconds if suite == "hidden" else facts.example_seconds
    return plain.value + facts.timeouts.value * limit


def groups(config: RunConfig, device: Device, *, problems: float = 1, samples: float = 1, training_gpus: int = 1) -> list[Group]:
    """Every job that the workflow has for a run, the tables of which are wanted (`rule all` without `collect`).

    Args:
        config: of the run.
        device: that models run on.
        problems: times as many problems in every set; passes over the data stay, so training steps grow with it, and so do
            shards, so that jobs stay as long as they are.
        samples: times as many samples per problem; likewise.
        training_gpus: GPUs of one training job.

    Raises:
        ConfigError: a model of unknown shape, or a problem set of unknown size.
    """
    shapes = _run_shapes(config)
    test = config.evaluate.problem_set
    own = config.pretrain is not None and config.warm_start.base_model is None
    also = config.evaluate.also
    held_out = [name for name, each in config.problems.items() if each.split != "train" or name in (test, *also)]  # of the corpus
    sets = list(dict.fromkeys(["train", test, *also, *(held_out if own else [])]))
    facts = {name: _facts(config, name) for name in sets}
    sizes = {name: _size(config, name) * problems for name in sets}
    engine = (ENGINE_CLUSTER if device.is_gpu else ENGINE_LOCAL).value
    start, plain = START.value + engine, START_PLAIN.value + engine
    gpu = 1 if device.is_gpu else 0
    work = problems * samples
    found: dict[str, Group] = {}

    def add(group: Group) -> str:
        key = f"{group.stage}/{group.name}" if group.name else group.stage
        found[key] = group
        return key

    def train(stage: str, name: str, training: TrainingConfig, form: Shape, lengths: LengthsConfig, times: float, **more: Any) -> str:
        fact = facts["train"]
        share = fact.prompt_tokens.value / (fact.prompt_tokens.value + fact.program_tokens.value)
        more.setdefault("seconds", training_seconds(training, form, lengths, share, device, training_gpus if gpu else 1) * times)
        seconds = more.pop("seconds") + start
        return add(
            Group(
                stage, name, 1, seconds, gpus=training_gpus * gpu, storage=4 * form.parameters,
                scratch=CHECKPOINT_BYTES.value * form.parameters, gpu_memory=STATE_BYTES.value * form.parameters * gpu,
                memory=PROCESS_MEMORY.value + 4 * form.parameters + more.pop("rows", 0.0), **more,
            )
        )  # fmt: skip

    made = {
        name: add(Group("problems", name, 1, plain + 0.0005 * sizes[name], storage=sizes[name] * facts[name].problem_bytes.value))
        for name in sets
    }
    problem = {name: (key,) for name, key in made.items()}

    # Models up to the actor.
    base: tuple[str, ...] = ()
    if own:
        assert config.corpus is not None
        assert config.pretrain is not None
        files = config.corpus.procedural_files + (config.corpus.stdlib_files or 0)
        apart = tuple(key for name in held_out for key in problem[name])
        corpus = add(
            Group("corpus", "", 1, plain + files * FILE_SECONDS.value, storage=files * FILE_BYTES.value, memory=1000.0 * files, needs=apart)
        )
        seconds = sum(
            training_seconds(phase.training, shapes["base"], config.pretrain.lengths, 0.5, device, training_gpus if gpu else 1)
            for phase in config.pretrain.phases
        )
        needs = (corpus, *problem["train"])
        form = shapes["base"]
        base = (
            train(
                "pretrain", "base", config.pretrain.phases[0].training, form, config.pretrain.lengths, 1,
                seconds=seconds, needs=needs,
            ),
        )  # fmt: skip
    start_section = config.warm_start
    actor = train(
        "warm_start", "actor", start_section.training, shapes["actor"], start_section.lengths, problems, needs=(*base, *problem["train"])
    )

    def shards(count: int) -> int:
        return max(1, round(count * work))

    def sampled(model: str, name: str, needs: tuple[str, ...], per_problem: float, count: int, batch: int) -> str:
        fact, form = facts[name], shapes["actor"]
        at_once = min(per_problem, (config.sample.sets[name].batch_programs or per_problem) * samples)
        rows = batch * at_once
        lengths = config.sample.lengths
        prompt = min(fact.prompt_tokens.value, lengths.max_source_tokens)
        seconds = decoding_seconds(
            sizes[name] / batch * per_problem / at_once, rows, fact.program_tokens.value, prompt, lengths.max_target_tokens, form, device
        )  # fmt: skip
        row = form.cache_bytes * (lengths.max_source_tokens + lengths.max_target_tokens)
        return add(
            Group(
                "sample", f"{model}/{name}", shards(count), start + seconds / shards(count), gpus=gpu,
                storage=sizes[name] * per_problem * fact.sample_bytes.value, gpu_memory=(4 * form.parameters + rows * row) * gpu,
                memory=PROCESS_MEMORY.value + 4 * form.parameters, needs=(*needs, *problem[name]),
            )
        )  # fmt: skip

    def judged(model: str, name: str, suite: str, needs: tuple[str, ...], per_problem: float, count: int) -> str:
        programs = sizes[name] * per_problem
        workers = config.run_tests.workers
        jobs = 1 if model in ("reference", "empty") else shards(count)
        seconds = programs * _judging_seconds(facts[name], suite, config) / jobs / workers
        return add(
            Group(
                "run_tests", f"{model}/{name}/{suite}", jobs, plain + seconds, cores=workers,
                storage=programs * facts[name].outcome_bytes.value,
                memory=0.2 * GB + programs / jobs * SAMPLE_MEMORY.value, needs=(*needs, *problem[name]),
            )
        )  # fmt: skip

    def drawn(name: str) -> float:
        entry = config.sample.sets[name]
        return entry.samples_per_problem * samples + entry.greedy

    # The actor's programs for the train problems, and what learns from them.
    learn = config.sample.sets["train"]
    rows = sizes["train"] * drawn("train")
    tokens = facts["train"].program_tokens.value
    actor_samples = sampled("actor", "train", (actor,), drawn("train"), learn.shards, learn.batch_problems)
    judged_actor = judged("actor", "train", "hidden", (actor_samples,), drawn("train"), learn.shards)
    with_references = _size(config, "train") if config.problems["train"].with_solutions is None else config.problems["train"].with_solutions
    solutions = facts["train"].solutions.value * with_references / _size(config, "train")
    references = judged("reference", "train", "hidden", (), solutions, 1)
    experience = (actor_samples, judged_actor, *problem["train"])
    programs = rows * (SAMPLE_MEMORY.value + ID_MEMORY.value * tokens)
    critics = {
        name: train(
            "train_critic", name, config.train_critic.training, shapes["critic"], config.train_critic.lengths, work,
            rows=programs, needs=(*experience, references, *((actor,) if config.train_critic.base_model is None else ())),
        )
        for name in ("critic", "binary_critic")
    }  # fmt: skip
    repair = train(
        "train_repair", "repair", config.train_repair.training, shapes["repair"], config.train_repair.lengths, work,
        rows=programs, needs=(*experience, references, *((actor,) if config.train_repair.base_model is None else ())),
    )  # fmt: skip
    beside = [policy for each in also.values() for policy in each.policies]
    policies = list(dict.fromkeys([*config.evaluate.policies, config.critical_sample.policy, *beside]))
    variants = {name: config.rl_finetune.variants[name] for name in policies}
    prompt = facts["train"].prompt_tokens.value
    scoring = rows * shapes["critic"].forward(prompt, tokens) / device.fp32.value
    values: tuple[str, ...] = ()
    if any(variant.values == "critic" for variant in variants.values()):
        values = (
            add(
                Group(
                    "score", "train", 1, start + scoring, gpus=gpu, storage=rows * tokens * VALUE_BYTES.value,
                    memory=PROCESS_MEMORY.value + rows * SAMPLE_MEMORY.value, needs=(critics["critic"], actor_samples, *problem["train"]),
                )
            ),
        )  # fmt: skip
    trained = {}
    for name, variant in variants.items():
        again = variant.rounds - 1
        if again:  # rounds after the first sample, judge and score inside the job
            limits = config.rl_finetune.lengths
            batches = sizes["train"] / learn.batch_problems
            drawing = decoding_seconds(
                batches, learn.batch_problems * drawn("train"), tokens, prompt, limits.max_target_tokens, shapes["actor"], device
            )
            judging = rows * _judging_seconds(facts["train"], "hidden", config) / config.run_tests.workers
            extra = drawing + judging + (scoring if variant.values == "critic" else 0.0)
        else:
            extra = 0.0
        limits = config.rl_finetune.lengths
        share = prompt / (prompt + tokens)
        once = training_seconds(variant.training, shapes["actor"], limits, share, device, training_gpus if gpu else 1) * work
        needed = [actor, *experience]
        if variant.values == "critic":
            needed += [*values, *([critics["critic"]] if again else [])]
        trained[name] = train(
            "rl_finetune", name, variant.training, shapes["actor"], limits, work, seconds=variant.rounds * once + again * extra,
            rows=rows * (SAMPLE_MEMORY.value + TOKEN_MEMORY.value * tokens), needs=tuple(needed),
        )  # fmt: skip

    # Programs for the evaluated problems.
    entry = config.sample.sets[test]
    judgements = [judged(each, test, suite, (), 1, 1) for each in ("reference", "empty") for suite in ("hidden", "example")]
    drawn_files = []
    models = {"actor": actor, **{f"policy/{name}": trained[name] for name in config.evaluate.policies}}
    for model, key in models.items():
        drawn_files.append(sampled(model, test, (key,), drawn(test), entry.shards, entry.batch_problems))
        judgements += [judged(model, test, suite, (drawn_files[-1],), drawn(test), entry.shards) for suite in ("hidden", "example")]
    refined = []
    fact, form = facts[test], shapes["actor"]
    limits = config.sample.lengths
    row = form.cache_bytes * (limits.max_source_tokens + limits.max_target_tokens)
    each = 0.0
    for changed in (None, *config.evaluate.critical):
        critical = config.critical_sample.variant(changed)
        rounds = CRITICAL_ROUNDS.value if critical.refine else 1 + REPAIR_ROUNDS.value
        rounds += FURTHER_ROUNDS.value * critical.rounds
        each = rounds * critical.batch * critical.batches * samples
        drawing = decoding_seconds(
            rounds * critical.batches * samples * sizes[test] / critical.batch_problems,
            critical.batch_problems * critical.batch,
            fact.program_tokens.value, fact.prompt_tokens.value, limits.max_target_tokens, form, device,
        )  # fmt: skip
        judging = sizes[test] * each * _judging_seconds(fact, "example", config) / config.run_tests.workers
        rating = sizes[test] * each * shapes["critic"].forward(fact.prompt_tokens.value, fact.program_tokens.value) / device.fp32.value
        jobs = shards(critical.shards)
        model = "critical" if changed is None else f"critical/{changed}"
        refined.append(
            add(
                Group(
                    "critical_sample", test if changed is None else f"{changed}/{test}", jobs, start + (drawing + judging + rating) / jobs,
                    gpus=gpu, storage=sizes[test] * each * fact.sample_bytes.value, memory=PROCESS_MEMORY.value + 12 * form.parameters,
                    gpu_memory=gpu * (
                        4 * (2 * form.parameters + shapes["critic"].parameters)
                        + critical.batch_problems * critical.batch * row
                    ),
                    needs=(trained[critical.policy], critics["binary_critic"], repair, *problem[test]),
                )
            )
        )  # fmt: skip
        judgements += [judged(model, test, suite, (refined[-1],), each, critical.shards) for suite in ("hidden", "example")]

    # Tables.
    counted = sizes[test] * (drawn(test) * len(models) + each * len(refined))
    table = add(
        Group(
            "evaluate", "", 1, plain + 2 * counted * ROW_SECONDS.value,
            memory=0.2 * GB + sizes[test] * max(drawn(test), each) * SAMPLE_MEMORY.value,
            needs=(*judgements, *drawn_files, *refined, critics["critic"], *problem[test]),
        )
    )  # fmt: skip
    shown = [trained[name] for name in dict.fromkeys([*config.evaluate.policies, config.critical_sample.policy])]
    page = plain + REPORT_SECONDS.value + counted * ROW_SECONDS.value
    add(Group("report", "", 1, page, memory=0.2 * GB + sizes[test] * drawn(test) * SAMPLE_MEMORY.value, needs=(table, *shown)))

    # Further problem sets, sampled plainly, and the paper's tables.
    sheets = [table]
    for name, own_set in also.items():
        entry = config.sample.sets[name]
        judgements = [judged(each_model, name, suite, (), 1, 1) for each_model in ("reference", "empty") for suite in ("hidden", "example")]
        programs_of = []
        for model, key in {"actor": actor, **{f"policy/{policy}": trained[policy] for policy in own_set.policies}}.items():
            programs_of.append(sampled(model, name, (key,), drawn(name), entry.shards, entry.batch_problems))
            judgements += [judged(model, name, suite, (programs_of[-1],), drawn(name), entry.shards) for suite in ("hidden", "example")]
        seconds = plain + 2 * sizes[name] * drawn(name) * len(programs_of) * ROW_SECONDS.value
        memory = 0.2 * GB + sizes[name] * drawn(name) * SAMPLE_MEMORY.value
        sheets.append(add(Group("evaluate_set", name, 1, seconds, memory=memory, needs=(*judgements, *programs_of, *problem[name]))))
    if config.evaluate.over_seeds is None:  # tables over seeds need other runs too
        add(Group("tables", "", len(PAPER_TABLES), plain, needs=tuple(sheets)))
    return list(found.values())


def _facts(config: RunConfig, name: str) -> Facts:
    """Means of a set's benchmark; of several, those of the one with the most problems."""
    parts = config.problems[name].parts or [config.problems[name]]
    largest = max(parts, key=lambda part: _part_size(part) or 0)
    return FACTS.get(largest.benchmark, FACTS["apps"])


def _part_size(part: ProblemPart) -> int | None:
    known = FACTS[part.benchmark].problems.get(part.split) if part.benchmark in FACTS else None
    return part.size if known is None else min(part.size or known, known)


def _size(config: RunConfig, name: str) -> int:
    """Problems of a set, from the configuration or the benchmark.

    Raises:
        ConfigError: neither says.
    """
    total = 0
    for part in config.problems[name].parts or [config.problems[name]]:
        size = _part_size(part)
        if size is None:
            raise ConfigError(
                f"key 'problems.{name}.size' is null, and how many problems {part.source} holds is not known before it is read"
            )
        total += size
    return total


# --------------------------------------------------------------------------------------------------- a cluster


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


# --------------------------------------------------------------------------------------------------- reading and printing


def run_file(run: str) -> Path:
    """The file of a run, given by name or path."""
    return Path(run) if run.endswith((".yaml", ".yml")) else Path("config/runs") / f"{run}.yaml"


def duration(seconds: float) -> str:
    """For a reader."""
    for length, name in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {name}"
    return f"{seconds:.0f} s"


def size(count: float) -> str:
    """Bytes for a reader."""
    for length, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if count >= length:
            return f"{count / length:.1f} {name}"
    return f"{count / 1e3:.0f} kB"


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
    notes.append(
        "times are estimates from the constants of src/coderl/planning.py; `coderl plan --constants` prints them with their sources"
    )
    return "\n".join([*lines, "", *notes])


def constants_text() -> str:
    """Every constant, its value and its source."""
    return "\n".join(f"{name}: {each.value:.4g} {each.unit}\n    {each.source}" for name, each in constants())
