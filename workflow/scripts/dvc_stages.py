"""Write dvc.yaml from the Snakemake rules: `dvc repro` decides what has changed, Snakemake how to run it.

One DVC stage per pipeline stage and active run; `sample` and `run_tests`, which happen to several models at different times,
are one stage per model. Each stage calls Snakemake for exactly its rule and its targets. One stage more, `dvc_yaml`, makes
nothing: it fails when the rules, the run files or the imports have moved and dvc.yaml has not.

DVC deletes the outputs of a stage before it runs it; common.smk puts back those of finished jobs, and Snakemake decides which are
stale. Not `persist: true` instead: it switches DVC's run cache off. Source files are dependencies in both engines, so that they
never agree on a stale result.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, DAGSettings, OutputSettings, Quietness, ResourceSettings

from coderl.config import RunConfig, load_run, read_yaml
from coderl.evaluation.programs import row_name

COMMAND = "snakemake"
UNHASHED = {"description", "report", "seed"}
"""Keys of a run file that provenance.run_hash, which tables name, leaves out."""
HEADER = "# Made by `make dvc` from the Snakemake rules and the active runs of config/config.yaml; not edited by hand.\n"


@dataclass
class Stage:
    """What the jobs of one DVC stage have in common."""

    rule: str
    run: str | None
    rule_file: str
    targets: set[str] = field(default_factory=set)
    inputs: set[str] = field(default_factory=set)
    outputs: set[str] = field(default_factory=set)
    sections: set[str] = field(default_factory=set)
    programs: set[str] = field(default_factory=set)


def jobs(runs: list[str] | None, targets: Iterable[str] = ("all",)) -> list[Any]:
    """All jobs of Snakemake's plan for `rule all`, or for other targets, whether they are up to date or not."""
    config = {} if runs is None else {"runs": runs}
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api, contextlib.redirect_stdout(io.StringIO()):
        workflow = api.workflow(
            resource_settings=ResourceSettings(cores=1),
            config_settings=ConfigSettings(config=config),
            snakefile=Path("Snakefile"),
        )
        # summary() is the public call that builds the plan and runs nothing.
        workflow.dag(dag_settings=DAGSettings(targets=set(targets), forceall=True)).summary()
        return [job for job in workflow._workflow.dag.jobs if job.rule.name != "all"]


def shard_folder(path: str) -> str:
    """A folder in place of its shards: `of-16/3.jsonl.gz` -> `of-16`. The count is in the name, so there are no orphans."""
    return re.sub(r"(/of-\d+)/\d+\.jsonl\.gz$", r"\1", path)


def stages(planned: Iterable[Any]) -> dict[str, Stage]:
    """DVC stages by name, in the order of their names."""
    found: dict[str, Stage] = {}
    for job in planned:
        wildcards = dict(job.wildcards.items())
        run, model = wildcards.get("run"), wildcards.get("model")
        name = "-".join(part.replace("/", "-") for part in (job.rule.name, run, model) if part)
        rule_file = Path(str(job.rule.snakefile)).relative_to(Path.cwd()).as_posix()
        stage = found.setdefault(name, Stage(rule=job.rule.name, run=run, rule_file=rule_file))
        stage.targets.add(str(job.output[0]))
        stage.outputs.update(shard_folder(str(path)) for path in job.output)
        stage.inputs.update(raw_folder(shard_folder(str(path)), run) for path in job.input)
        params = dict(job.params._allitems())
        stage.sections |= params.keys() & RunConfig.model_fields.keys()
        if "config_hash" in params:
            stage.sections |= RunConfig.model_fields.keys() - UNHASHED
        stage.programs |= set(json.loads(params["programs"])) if "programs" in params else set()
    return dict(sorted(found.items()))


@cache
def raw_folders(run: str) -> tuple[str, ...]:
    """Folders of raw inputs that the run names."""
    config = load_run(Path("config/runs") / f"{run}.yaml")
    named = [each.source for each in config.problems.values()] + (config.corpus.sources if config.corpus else [])
    named += [stage.base_model for stage in (config.warm_start, config.train_critic, config.train_repair)]
    return tuple(Path(name).as_posix() for name in named if name and Path(name).is_dir())


def raw_folder(path: str, run: str | None) -> str:
    """A folder of raw inputs in place of its files, or of the hash that `dvc add` keeps of it: DVC looks into folders itself."""
    for folder in raw_folders(run) if run else ():
        if path == f"{folder}.dvc" or Path(folder) in Path(path).parents:
            return folder
    return path


def run_files(run: str) -> list[Path]:
    """The run's file and those that it extends."""
    files = [Path("config/runs") / f"{run}.yaml"]
    while parent := read_yaml(files[-1]).get("extends"):
        files.append(files[-1].with_name(f"{parent}.yaml"))
    return files


def as_dvc(stage: Stage, made: set[str], active: list[str]) -> dict[str, Any]:
    """The stage as in dvc.yaml. `made`: outputs of all stages; a missing input that nothing makes is an error of the rules.

    The command names the runs, because a profile (`SNAKEMAKE_PROFILE=slurm dvc repro`) may choose others.
    """
    deps = sorted({*stage.inputs, stage.rule_file, "workflow/rules/common.smk"})
    for path in deps:
        if path not in made and not Path(path).exists():
            raise SystemExit(f"error: rule {stage.rule} reads {path}, which no stage makes and which does not exist")
    params = []
    for file in run_files(stage.run) if stage.run else []:
        stated = sorted(stage.sections & set(read_yaml(file)))
        if stated:
            params.append({file.as_posix(): stated})
    outs = [path for path in sorted(stage.outputs) if Path(path).name != "metrics.json"]
    metrics = [path for path in sorted(stage.outputs) if Path(path).name == "metrics.json"]
    runs = stage.run or ",".join(active)
    content = {
        "cmd": f"{COMMAND} --config 'runs=[{runs}]' --allowed-rules {stage.rule} -- {' '.join(sorted(stage.targets))}",
        "deps": deps,
        "params": params,
        "outs": outs,
        "metrics": metrics,
    }
    return {key: value for key, value in content.items() if value}


def plots(found: Iterable[Stage]) -> list[dict[str, Any]]:
    """The loss of every model that is trained, and pass@k of every model that is evaluated."""
    drawn = []
    for stage in found:
        for path in sorted(stage.outputs):
            if "/models/" in path and not Path(path).suffix:
                log = f"{path}/training_log.csv"
                drawn.append({f"{path}: loss": {"x": "step", "y": {log: "loss"}, "title": f"{path}: loss", "x_label": "step"}})
            elif Path(path).name == "pass_at_k.csv":
                models = [row_name(name) for name in sorted(stage.programs - {"reference", "empty"})]
                title = f"{stage.run}: pass@k in percent"
                drawn.append({f"{stage.run}: pass@k": {"x": "k", "y": {path: models}, "title": title, "x_label": "k"}})
    return drawn


def check_stage(runs: Iterable[str]) -> dict[str, Any]:
    """The stage that fails when dvc.yaml is not what the rules say. `dvc repro` would miss, say, a section that is new in a run file."""
    settings = {file.as_posix() for run in runs for file in run_files(run)} | {"config/config.yaml"}
    deps = sorted({*settings, "Snakefile", "src/coderl", "workflow/rules", "workflow/scripts/dvc_stages.py"})
    return {"cmd": "python workflow/scripts/dvc_stages.py --check", "deps": deps}


def render(runs: list[str] | None = None) -> str:
    """The text of dvc.yaml for the active runs, or for `runs`."""
    found = stages(jobs(runs))
    made = {path for stage in found.values() for path in stage.outputs}
    active = sorted({stage.run for stage in found.values() if stage.run})
    mirrored = {name: as_dvc(stage, made, runs or active) for name, stage in found.items()}
    content = {"stages": {**mirrored, "dvc_yaml": check_stage(active)}, "plots": plots(found.values())}
    return HEADER + str(yaml.safe_dump(content, sort_keys=False, width=10_000))


def main() -> None:
    """Write dvc.yaml, or compare with it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; fail when dvc.yaml has drifted")
    parser.add_argument("--runs", nargs="+", help="in place of the active runs")
    arguments = parser.parse_args()
    file = Path("dvc.yaml")
    text = render(arguments.runs)
    if not arguments.check:
        file.write_text(text, encoding="utf-8")
        return
    present = file.read_text(encoding="utf-8") if file.exists() else ""
    if present != text:
        sys.stdout.writelines(difflib.unified_diff(present.splitlines(True), text.splitlines(True), "dvc.yaml", "from the rules"))
        raise SystemExit("error: dvc.yaml has drifted from the rules; run `make dvc`")


if __name__ == "__main__":
    main()
