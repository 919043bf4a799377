# CodeRL from problems to results/apps_eval.csv. This file names the targets; the stages are in workflow/rules, in the order
# of the pipeline. `rule all` has to stand here: a top file that only includes another one silently does nothing.
from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"


report: "workflow/report/workflow.rst"


# Used with `--sdm apptainer` only; otherwise jobs run in the environment that snakemake runs in.
container: "workflow/containers/coderl.sif"


include: "workflow/rules/common.smk"


rule all:
    default_target: True
    input:
        "results/apps_eval.csv",
        "results/differences.csv",
        expand("results/{run}/report.html", run=ACTIVE_RUNS),
        [path for run in ACTIVE_RUNS for path in tables_in_all(run)],


include: "workflow/rules/cluster.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/programs.smk"
include: "workflow/rules/results.smk"
