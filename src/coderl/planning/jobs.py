"""The jobs of a run and what each one takes, from its configuration alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from coderl.config import ConfigError, LengthsConfig, ProblemPart, RunConfig, TrainingConfig
from coderl.evaluation.paper_tables import TABLES as PAPER_TABLES
from coderl.planning.constants import (
    CHECKPOINT_BYTES,
    CRITICAL_ROUNDS,
    ENGINE_CLUSTER,
    ENGINE_LOCAL,
    FACTS,
    FILE_BYTES,
    FILE_SECONDS,
    FILL,
    FURTHER_ROUNDS,
    GB,
    ID_MEMORY,
    KEPT_ROWS,
    LONGEST,
    PROCESS_MEMORY,
    REPAIR_ROUNDS,
    REPORT_SECONDS,
    ROW_SECONDS,
    SAMPLE_MEMORY,
    START,
    START_PLAIN,
    STATE_BYTES,
    TOKEN_MEMORY,
    VALUE_BYTES,
    Device,
    Facts,
)
from coderl.planning.shapes import Shape, run_shapes


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
    shapes = run_shapes(config)
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
