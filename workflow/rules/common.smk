# What the rules share: the active runs, their configuration, and the paths that follow from it.
import json
import os
import shlex
import shutil
import sys
from functools import cache
from itertools import islice
from pathlib import Path

from snakemake.exceptions import WorkflowError

try:
    from coderl.config import ConfigError, WorkflowConfig, load_run, read_yaml, section_json, validate
    from coderl.evaluation.seed_tables import SEED_TABLES, run_and_set
    from coderl.provenance import code_files, run_hash
    from coderl.records import second_name
except ImportError as error:
    raise WorkflowError(
        f"{error}. The workflow needs coderl in the environment of snakemake: "
        "run `make install` and `. .venv/bin/activate`."
    ) from None

# `coderl` in a command is the one beside the running interpreter, also when the environment was not activated.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]))

# Every finished output has a second name there, also those of a stage that was killed (records.keep).
KEPT = Path("work/keep")
os.environ.update(CODERL_KEEP=KEPT.as_posix())

SOURCE = Path("src")
PAPER_TABLES = [f"table{name}" for name in ["1a", "1b", "2", "3", "4", "5", "_mbpp"]]
MANY = 1000  # files


def put_back(stage):
    """Bring back what DVC has deleted of a stage's outputs, so that finished jobs of a killed stage do not run again.

    With their old time stamps and Snakemake's own record of how they were made: Snakemake decides which of them are stale.
    """
    for output in [*stage.get("outs", []), *stage.get("metrics", [])]:
        kept = KEPT / output
        for file in kept.rglob("*") if kept.is_dir() else [kept]:
            target = file.relative_to(KEPT)
            if file.is_file() and file.suffix != ".partial" and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                second_name(file, target)
        if kept.is_dir():
            shutil.copystat(kept, output)


if workflow.is_main_process and os.environ.get("DVC_STAGE") and Path("dvc.yaml").exists():
    put_back(read_yaml(Path("dvc.yaml"))["stages"].get(os.environ.get("DVC_STAGE"), {}))


wildcard_constraints:
    run="[A-Za-z0-9][A-Za-z0-9_-]*",
    set="[A-Za-z0-9_-]+",
    variant="[A-Za-z0-9_-]+",
    model="actor|policy/[A-Za-z0-9_-]+|critical(/[A-Za-z0-9_-]+)?|reference|empty",
    critic="critic|binary_critic",
    suite="hidden|example",
    n="[0-9]+",
    shard="[0-9]+",
    table="|".join(dict.fromkeys([*PAPER_TABLES, *SEED_TABLES])),


def checked(build, *arguments):
    """`build(*arguments)`, with coderl's one clear message in place of a traceback."""
    try:
        return build(*arguments)
    except ConfigError as error:
        raise WorkflowError(str(error)) from None


@cache
def run_config(run):
    return checked(load_run, Path("config/runs") / f"{run}.yaml")


@cache
def config_hash(run):
    """Of all that decides the run's numbers but its seeds, for the tables' rows."""
    return checked(run_hash, run_config(run))


WORKFLOW = checked(validate, WorkflowConfig, dict(config), "config/config.yaml")
ACTIVE_RUNS = WORKFLOW.runs
for active in ACTIVE_RUNS:
    run_config(active)


def chosen(run, key, values, name):
    """values[name], or one message that names the run file and the key."""
    if name not in values:
        known = ", ".join(values) or "none"
        raise WorkflowError(f"config/runs/{run}.yaml: key '{key}' has no '{name}'; there are {known}")
    return values[name]


# Parameters. Their names are those of the sections they hold, so that a change of one key reruns what depends on it.


def section(name):
    """Params function: the section as JSON, which the verb takes as --config."""

    def value(wildcards):
        found = getattr(run_config(wildcards.run), name)
        if found is None:
            raise WorkflowError(
                f"config/runs/{wildcards.run}.yaml: section '{name}' is null, so this stage has nothing to do"
            )
        return section_json(found)

    return value


def seed(wildcards):
    return run_config(wildcards.run).seed


def base_seed(wildcards):
    """Of corpus and base model, which runs that differ in the seed may have in common."""
    config = run_config(wildcards.run)
    own = config.pretrain.seed if config.pretrain else None
    return config.seed if own is None else own


def problems_section(wildcards):
    sets = run_config(wildcards.run).problems
    return section_json(chosen(wildcards.run, "problems", sets, wildcards.set))


def sample_section(*names, shards=None):
    """Section `sample` as JSON, with these sets only: another set's settings are not this job's."""

    def value(wildcards):
        sample = run_config(wildcards.run).sample
        sets = {}
        for name in names:
            name = name.format(**dict(wildcards.items()))
            sets[name] = chosen(wildcards.run, "sample.sets", sample.sets, name)
            if shards:  # the path says how many
                count = int(getattr(wildcards, shards))
                sets[name] = sets[name].model_copy(update={"shards": count})
        return section_json(sample.model_copy(update={"sets": sets}))

    return value


def critical_sample_section(wildcards):
    """Of one variant, `critical/<variant>`, or of the section as it stands: another variant is not this job's."""
    critical = run_config(wildcards.run).critical_sample
    name = wildcards.model.partition("/")[2]
    if name:
        chosen(wildcards.run, "critical_sample.variants", critical.variants, name)
    return section_json(critical.variant(name or None).model_copy(update={"shards": int(wildcards.n)}))


def policy_variant(wildcards):
    variants = run_config(wildcards.run).rl_finetune.variants
    return chosen(wildcards.run, "rl_finetune.variants", variants, wildcards.variant)


def rounds_only(flag, value):
    """`flag value`, for policies with rounds > 1 only: they sample and judge again."""
    return lambda wildcards: f"{flag} {shlex.quote(value(wildcards))}" if policy_variant(wildcards).rounds > 1 else ""


def rl_finetune_section(wildcards):
    stage = run_config(wildcards.run).rl_finetune
    variants = {wildcards.variant: policy_variant(wildcards)}
    return section_json(stage.model_copy(update={"variants": variants}))


# Inputs.


def code(stage):
    """The source files that decide what the stage computes: an edit of one reruns it, a touch does not."""
    return [str(path) for path in code_files(stage, SOURCE)]


def raw(*sources):
    """The files of raw inputs that are here: an edit of one reruns what reads it. A hub id or "procedural" is no file.

    A folder stands for its files, or, when it has many, for the hash that `dvc add` wrote beside it: looking at every file of a
    corpus on each call would be slow.
    """
    found = []
    for source in map(Path, sources):
        tracked = source.with_name(f"{source.name}.dvc")
        if source.is_file():
            found.append(source.as_posix())
        elif tracked.exists() and not source.exists():
            raise WorkflowError(f"{source} is not here, but {tracked} is; run `dvc pull {tracked}`")
        elif source.is_dir() and tracked.exists():
            found.append(tracked.as_posix())
        elif source.is_dir():
            files = list(islice((path.as_posix() for path in source.rglob("*") if path.is_file()), MANY + 1))
            if len(files) > MANY:
                raise WorkflowError(
                    f"{source} has more than {MANY} files; run `dvc add {source}`, so that one hash stands for them"
                )
            found += sorted(files)
    return found


def raw_problems(wildcards):
    sets = run_config(wildcards.run).problems
    source = chosen(wildcards.run, "problems", sets, wildcards.set).source
    return raw(source) if source else []


# What a job asks for. A cluster's account and partitions are in its profile.


def threads_for(stage):
    return WORKFLOW.threads.get(stage, gpus_for(stage))


def gpus_for(stage):
    return WORKFLOW.gpus.get(stage, 1)


def devices_for(stage):
    """Resources of a trained stage; launch.sh starts as many processes as this gives GPUs."""
    nodes = WORKFLOW.nodes.get(stage, 1)
    devices = {"gpu": gpus_for(stage), "nodes": nodes}
    if nodes > 1:  # the Slurm plugin leaves it to the command to start its tasks: here one per node
        devices |= {"mpi": "srun", "tasks": nodes, "tasks_per_gpu": 0, "cpus_per_task": -(-threads_for(stage) // nodes)}
    return devices


def growing(name, amount):
    """Resource function: `amount` of mem_mb or runtime, twice at the second attempt and so on, up to config.yaml's limit."""
    return lambda wildcards, attempt: min(amount * attempt, getattr(WORKFLOW.limits, name))


def held_out_problems(wildcards):
    """Problem files that the corpus must not overlap with."""
    config = run_config(wildcards.run)
    evaluated = [config.evaluate.problem_set, *config.evaluate.also]
    held_out = [name for name, each in config.problems.items() if each.split != "train" or name in evaluated]
    return [f"results/{wildcards.run}/problems/{name}.parquet" for name in held_out]


def seals(*folders):
    """The hashes of model folders, which decide whether what reads the models is stale; of no folder, none."""
    return [f"{folder}.sha256" for folder in folders if folder]


def base_model(stage):
    """Input functions (folder, seal) and params function of the model that `stage` starts from: this run's own one, another
    run's (results/<run>/models/<name>), which is made first, or one from elsewhere, whose files are raw inputs."""

    def own(wildcards):
        named = getattr(run_config(wildcards.run), stage).base_model
        if named is not None:
            return named if named.startswith("results/") else None
        return f"results/{wildcards.run}/models/" + ("base" if stage == "warm_start" else "actor")

    def folder(wildcards):
        return own(wildcards) or []

    def seal(wildcards):
        return seals(own(wildcards)) or raw(name(wildcards))

    def name(wildcards):
        return own(wildcards) or getattr(run_config(wildcards.run), stage).base_model

    return folder, seal, name


def shard_names(run, model, set):
    """`of-<n>/<shard>.jsonl.gz` of a model's programs."""
    config = run_config(run)
    if model in ("reference", "empty"):
        n = 1
    elif Path(model).parts[0] == "critical":
        n = config.critical_sample.shards
    else:
        n = chosen(run, "sample.sets", config.sample.sets, set).shards
    return [f"of-{n}/{shard}.jsonl.gz" for shard in range(n)]


def sample_shards(run, model, set):
    """Files of a model's programs; of the reference solutions and the empty program there are none."""
    if model in ("reference", "empty"):
        return []
    return [f"results/{run}/samples/{model}/{set}/{name}" for name in shard_names(run, model, set)]


def outcome_shards(run, model, set, suite):
    """Files of the outcomes of a model's programs."""
    return [f"results/{run}/outcomes/{model}/{set}/{suite}/{name}" for name in shard_names(run, model, set)]


def samples_of(model, set):
    return lambda wildcards: sample_shards(wildcards.run, model, set)


def outcomes_of(model, set):
    return lambda wildcards: outcome_shards(wildcards.run, model, set, "hidden")


def token_values(wildcards):
    """Values of the actor's programs, for policies that weight tokens by the critic."""
    if policy_variant(wildcards).values != "critic":
        return []
    return f"results/{wildcards.run}/values/train.parquet"


def values_critic(wildcards):
    """The critic itself, which later rounds need for the values of new programs."""
    variant = policy_variant(wildcards)
    if variant.values != "critic" or variant.rounds == 1:
        return []
    return f"results/{wildcards.run}/models/critic"


def critical_policy(wildcards):
    """The policy that critical sampling draws from."""
    return f"results/{wildcards.run}/models/policy/{run_config(wildcards.run).critical_sample.policy}"


def judged_samples(wildcards):
    """What one job of run_tests executes: one shard of programs, or nothing for reference and empty."""
    if wildcards.model in ("reference", "empty"):
        return []
    return "results/{run}/samples/{model}/{set}/of-{n}/{shard}.jsonl.gz".format(**dict(wildcards.items()))


def evaluated_programs(wildcards):
    """The files of every model in the table, by the names that `coderl evaluate` knows."""
    evaluated = run_config(wildcards.run).evaluate
    policies = [f"policy/{policy}" for policy in evaluated.policies]
    variants = [f"critical/{variant}" for variant in evaluated.critical]
    models = ["reference", "empty", "actor", *policies, "critical", *variants]
    return program_files(wildcards.run, evaluated.problem_set, models)


def program_files(run, set, models):
    return {
        model: {
            "samples": sample_shards(run, model, set),
            "hidden": outcome_shards(run, model, set, "hidden"),
            "example": outcome_shards(run, model, set, "example"),
        }
        for model in models
    }


def programs_of_set(wildcards):
    """The same for one of `evaluate.also`, which is sampled plainly."""
    also = chosen(wildcards.run, "evaluate.also", run_config(wildcards.run).evaluate.also, wildcards.set)
    policies = [f"policy/{policy}" for policy in also.policies]
    return program_files(wildcards.run, wildcards.set, ["reference", "empty", "actor", *policies])


def files_of_set(wildcards):
    programs = programs_of_set(wildcards).values()
    return [path for files in programs for paths in files.values() for path in paths]


def evaluate_memory(wildcards, attempt):
    """Programs of one model are in memory at a time: 2 kB each, of up to 5,000 problems."""
    config = run_config(wildcards.run)
    critical = 2.1 * config.critical_sample.batch * config.critical_sample.batches
    drawn = max(each.samples_per_problem for each in config.sample.sets.values())
    return growing("mem_mb", max(8000, int(12 * max(critical, drawn))))(wildcards, attempt)


def main_evaluate_section(run):
    """Section `evaluate` of the main table: what is evaluated beside it is not its job's."""
    evaluated = run_config(run).evaluate
    return section_json(evaluated.model_copy(update={"also": {}, "other_runs": {}, "over_seeds": None}))


def evaluate_section(wildcards):
    return main_evaluate_section(wildcards.run)


def evaluate_section_of_set(wildcards):
    evaluated = run_config(wildcards.run).evaluate
    also = {wildcards.set: chosen(wildcards.run, "evaluate.also", evaluated.also, wildcards.set)}
    return section_json(evaluated.model_copy(update={"also": also, "other_runs": {}, "over_seeds": None}))


def over_seeds(run, table):
    """{row of a table over seeds: [(run, set) of each seed]}; empty where the table is the paper's own, of the run alone."""
    found = run_config(run).evaluate.over_seeds
    if table not in SEED_TABLES or (found is None and table in PAPER_TABLES):
        return {}
    sources = {
        name: [run_and_set(each) for each in chosen(run, "evaluate.over_seeds", found or {}, name)]
        for name in SEED_TABLES[table].sources
    }
    first, firsts = next(iter(sources.items()))
    for name, members in sources.items():
        one_design(run, name, members)
        if len(members) != len(firsts):
            raise WorkflowError(
                f"config/runs/{run}.yaml: evaluate.over_seeds: {first} names {len(firsts)} runs and {name} {len(members)}; one for each seed"
            )
        for (other, set), (against, other_set) in zip(members, firsts):
            if design(other, set) != design(against, other_set):
                raise WorkflowError(
                    f"config/runs/{run}.yaml: evaluate.over_seeds: {other}/{set} ({name}) and {against}/{other_set} ({first}) stand side by side, "
                    "but differ in seed, procedural.seed or problems"
                )
    return sources


def one_design(run, name, members):
    """Refuse a row of runs that are not one design with a seed each, whose mean would say nothing."""
    seeds = {}
    for other, _ in members:
        own = run_config(other).seed
        if own in seeds:
            raise WorkflowError(
                f"config/runs/{run}.yaml: evaluate.over_seeds: {seeds[own]} and {other} ({name}) both have seed {own}; "
                "name one run for each seed"
            )
        seeds[own] = other
    first = members[0][0]
    for other in seeds.values():
        if config_hash(other) != config_hash(first):
            raise WorkflowError(
                f"config/runs/{run}.yaml: evaluate.over_seeds: {first} and {other} ({name}) differ in more than their seeds; "
                "let one extend the other and state its seeds only"
            )


def design(run, set):
    """What runs that are compared problem by problem have in common."""
    found = run_config(run)
    problems = found.evaluate.problem_set if set == "apps" else set
    return found.seed, found.procedural, chosen(run, "problems", found.problems, problems)


def tables_in_all(run):
    """The tables that `all` makes for a run: the paper's, or those over seeds of which every run is active."""
    found = run_config(run).evaluate.over_seeds
    if found is None:
        return [f"results/{run}/tables/{table}.md" for table in PAPER_TABLES]
    here = [
        name
        for name, table in SEED_TABLES.items()
        if set(table.sources) <= set(found)
        and all(run_and_set(member)[0] in ACTIVE_RUNS for source in table.sources for member in found[source])
        and run_and_set(found.get("main", found[table.sources[0]])[0])[0] == run
    ]
    return [f"results/{run}/tables/{table}.md" for table in here] + [
        f"results/{run}/tables/{table}.svg" for table in here if table == "figure8"
    ]


def tidy_tables(wildcards):
    """Every tidy table that a table of the paper is made of: the run's own first; of a table over seeds, those of each seed whose notes
    or critics it shows."""
    sources = over_seeds(wildcards.run, wildcards.table)
    if sources:
        return [
            f"results/{run}/{set}_eval.csv"
            for source in SEED_TABLES[wildcards.table].tidy_sources
            for run, set in sources[source]
        ]
    sets = run_config(wildcards.run).evaluate.also
    return [f"results/{wildcards.run}/{name}_eval.csv" for name in ["apps", *sets]]


def seed_values(wildcards):
    """{row of a table over seeds: per-problem values of each seed}."""
    return {
        name: [f"results/{run}/{'' if set == 'apps' else f'{set}_'}per_problem.parquet" for run, set in members]
        for name, members in over_seeds(wildcards.run, wildcards.table).items()
    }


def tables_of_others(wildcards):
    """row of the paper's tables -> table of the run that it comes from, as far as these have run: the others are "not run"."""
    found = {}
    if over_seeds(wildcards.run, wildcards.table):
        return found
    for row, name in run_config(wildcards.run).evaluate.other_runs.items():
        run, _, set = name.partition("/")
        checked(run_config, run)
        chosen(run, "evaluate.also", run_config(run).evaluate.also, set)
        path = f"results/{run}/{set}_eval.csv"
        if Path(path).exists():
            found[row] = path
    return found


def evaluated_files(wildcards):
    programs = evaluated_programs(wildcards).values()
    return [path for files in programs for paths in files.values() for path in paths]


def trained_models(wildcards):
    """Folders of all models of a run, in the order in which they are trained."""
    config = run_config(wildcards.run)
    own = config.pretrain is not None and config.warm_start.base_model is None
    policies = dict.fromkeys([*config.evaluate.policies, config.critical_sample.policy])
    names = [*(["base"] if own else []), "actor", "critic", "binary_critic", "repair"]
    names += [f"policy/{policy}" for policy in policies]
    return {name: f"results/{wildcards.run}/models/{name}" for name in names}


def corpus_statistics(wildcards):
    models = trained_models(wildcards)
    return f"results/{wildcards.run}/corpus/statistics.csv" if "base" in models else []
