# Tables and pages.


rule evaluate:
    input:
        problems=lambda wildcards: f"results/{wildcards.run}/problems/{run_config(wildcards.run).evaluate.problem_set}.parquet",
        programs=evaluated_files,
        critic="results/{run}/models/critic",
        binary_critic="results/{run}/models/binary_critic",
        code=code("evaluate"),
    output:
        table=report("results/{run}/apps_eval.csv", caption="../report/apps_eval.rst", category="Results"),
        differences=report("results/{run}/differences.csv", caption="../report/differences.rst", category="Results"),
        metrics="results/{run}/metrics.json",
        per_problem="results/{run}/per_problem.parquet",
        provenance="results/{run}/apps_eval.csv.provenance.json",
    log:
        "logs/{run}/evaluate/evaluate.log",
    benchmark:
        "results/{run}/benchmarks/evaluate/evaluate.tsv"
    threads: threads_for("evaluate")
    resources:
        gpu=0,
        mem_mb=8000,
        runtime=60,
    params:
        evaluate=section("evaluate"),
        critical_sample=section("critical_sample"),
        programs=lambda wildcards: json.dumps(evaluated_programs(wildcards), separators=(",", ":")),
        config_hash=lambda wildcards: run_hash(run_config(wildcards.run)),
        seed=seed,
    message:
        "evaluate {wildcards.run} ({log})"
    shell:
        "coderl evaluate --run {wildcards.run} --problems {input.problems} --programs {params.programs:q}"
        " --critic-metrics {input.critic}/metrics.json --binary-critic-metrics {input.binary_critic}/metrics.json"
        " --critical-sample-config {params.critical_sample:q}"
        " --config {params.evaluate:q} --config-hash {params.config_hash} --seed {params.seed} --output {output.table}"
        " --differences {output.differences} --metrics {output.metrics} --per-problem {output.per_problem} > {log} 2>&1"


rule collect:
    input:
        tables=expand("results/{run}/apps_eval.csv", run=ACTIVE_RUNS),
        differences=expand("results/{run}/differences.csv", run=ACTIVE_RUNS),
        per_problem=expand("results/{run}/per_problem.parquet", run=ACTIVE_RUNS),
        code=code("collect"),
    output:
        table=report("results/apps_eval.csv", caption="../report/apps_eval.rst", category="Results"),
        differences=report("results/differences.csv", caption="../report/differences.rst", category="Results"),
        provenance="results/apps_eval.csv.provenance.json",
    log:
        "logs/collect/collect.log",
    benchmark:
        "logs/collect/collect.tsv"
    threads: 1
    resources:
        gpu=0,
        mem_mb=4000,
        runtime=60,
    params:
        evaluate=section_json(run_config(ACTIVE_RUNS[0]).evaluate),
    message:
        "collect the tables of the active runs ({log})"
    shell:
        "coderl collect --tables {input.tables} --differences {input.differences} --per-problem {input.per_problem}"
        " --config {params.evaluate:q} --output {output.table} --output-differences {output.differences} > {log} 2>&1"


rule report:
    input:
        table="results/{run}/apps_eval.csv",
        differences="results/{run}/differences.csv",
        problems=lambda wildcards: f"results/{wildcards.run}/problems/{run_config(wildcards.run).evaluate.problem_set}.parquet",
        programs=evaluated_files,
        models=lambda wildcards: list(trained_models(wildcards).values()),
        corpus=corpus_statistics,
        code=code("report"),
    output:
        page=report("results/{run}/report.html", caption="../report/report.rst", category="Results"),
    log:
        "logs/{run}/report/report.log",
    benchmark:
        "results/{run}/benchmarks/report/report.tsv"
    threads: threads_for("report")
    resources:
        gpu=0,
        mem_mb=4000,
        runtime=60,
    params:
        report=section("report"),
        critical_sample=section("critical_sample"),
        programs=lambda wildcards: json.dumps(evaluated_programs(wildcards), separators=(",", ":")),
        models=lambda wildcards: json.dumps(trained_models(wildcards), separators=(",", ":")),
        corpus=lambda wildcards, input: f"--corpus-statistics {input.corpus}" if input.corpus else "",
        config_hash=lambda wildcards: run_hash(run_config(wildcards.run)),
        seed=seed,
    message:
        "report of {wildcards.run} ({log})"
    shell:
        "coderl report --run {wildcards.run} --table {input.table} --differences {input.differences} --problems {input.problems}"
        " --programs {params.programs:q} --models {params.models:q} {params.corpus}"
        " --critical-sample-config {params.critical_sample:q} --config {params.report:q} --config-hash {params.config_hash}"
        " --seed {params.seed} --output {output.page} > {log} 2>&1"
