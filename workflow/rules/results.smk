# Tables and pages.


rule evaluate:
    input:
        problems=lambda wildcards: f"results/{wildcards.run}/problems/{run_config(wildcards.run).evaluate.problem_set}.parquet",
        programs=evaluated_files,
        critic=ancient("results/{run}/models/critic"),
        binary_critic=ancient("results/{run}/models/binary_critic"),
        seals=expand("results/{{run}}/models/{critic}.sha256", critic=["critic", "binary_critic"]),
        code=code("evaluate"),
    output:
        table=report("results/{run}/apps_eval.csv", caption="../report/apps_eval.rst", category="Results"),
        differences=report("results/{run}/differences.csv", caption="../report/differences.rst", category="Results"),
        metrics="results/{run}/metrics.json",
        per_problem="results/{run}/per_problem.parquet",
        provenance="results/{run}/apps_eval.csv.provenance.json",
        pass_at_k="results/{run}/pass_at_k.csv",
    log:
        "logs/{run}/evaluate/evaluate.log",
    benchmark:
        "results/{run}/benchmarks/evaluate/evaluate.tsv"
    threads: threads_for("evaluate")
    resources:
        gpu=0,
        mem_mb=evaluate_memory,
        runtime=growing("runtime", 60),
    params:
        evaluate=evaluate_section,
        critical_sample=section("critical_sample"),
        programs=lambda wildcards: json.dumps(evaluated_programs(wildcards), separators=(",", ":")),
        config_hash=lambda wildcards: config_hash(wildcards.run),
        seed=seed,
    message:
        "evaluate {wildcards.run} ({log})"
    shell:
        "coderl evaluate --run {wildcards.run} --problems {input.problems} --programs {params.programs:q}"
        " --critic-metrics {input.critic}/metrics.json --binary-critic-metrics {input.binary_critic}/metrics.json"
        " --critical-sample-config {params.critical_sample:q}"
        " --config {params.evaluate:q} --config-hash {params.config_hash} --seed {params.seed} --output {output.table}"
        " --differences {output.differences} --metrics {output.metrics} --per-problem {output.per_problem}"
        " --pass-at-k {output.pass_at_k} > {log} 2>&1"


# Further problem sets, each with a table of its own: MBPP zero-shot, the ablations.
rule evaluate_set:
    input:
        problems="results/{run}/problems/{set}.parquet",
        programs=files_of_set,
        code=code("evaluate"),
    output:
        table=report("results/{run}/{set}_eval.csv", caption="../report/apps_eval.rst", category="Results"),
        per_problem="results/{run}/{set}_per_problem.parquet",
    log:
        "logs/{run}/evaluate_set/{set}.log",
    benchmark:
        "results/{run}/benchmarks/evaluate_set/{set}.tsv"
    wildcard_constraints:
        set=r"(?!apps_eval\.)[A-Za-z0-9_-]+",  # that one is rule evaluate's
    threads: threads_for("evaluate")
    resources:
        gpu=0,
        mem_mb=evaluate_memory,
        runtime=growing("runtime", 60),
    params:
        evaluate=evaluate_section_of_set,
        programs=lambda wildcards: json.dumps(programs_of_set(wildcards), separators=(",", ":")),
        config_hash=lambda wildcards: config_hash(wildcards.run),
        seed=seed,
    message:
        "evaluate {wildcards.run} on {wildcards.set} ({log})"
    shell:
        "coderl evaluate --run {wildcards.run} --set {wildcards.set} --problems {input.problems} --programs {params.programs:q}"
        " --config {params.evaluate:q} --config-hash {params.config_hash} --seed {params.seed} --output {output.table}"
        " --per-problem {output.per_problem} > {log} 2>&1"


# The paper's tables in its own layout, ours beside: of the run, or small versions over the seeds of `evaluate.over_seeds`.
rule tables:
    input:
        tables=tidy_tables,
        others=lambda wildcards: list(tables_of_others(wildcards).values()),
        values=lambda wildcards: [path for paths in seed_values(wildcards).values() for path in paths],
        code=code("tables"),
    output:
        table="results/{run}/tables/{table}.csv",
        page="results/{run}/tables/{table}.md",
    log:
        "logs/{run}/tables/{table}.log",
    benchmark:
        "results/{run}/benchmarks/tables/{table}.tsv"
    threads: 1
    resources:
        gpu=0,
        mem_mb=growing("mem_mb", 4000),
        runtime=growing("runtime", 60),
    params:
        evaluate=evaluate_section,
        tables=lambda wildcards, input: f"--tables {input.tables}" if input.tables else "",
        others=lambda wildcards: json.dumps(tables_of_others(wildcards), separators=(",", ":")),
        values=lambda wildcards: json.dumps(seed_values(wildcards), separators=(",", ":")),
    message:
        "{wildcards.table} of {wildcards.run} ({log})"
    shell:
        "coderl tables --table {wildcards.table} {params.tables} --others {params.others:q} --over-seeds {params.values:q}"
        " --config {params.evaluate:q} --output {output.table} --page {output.page} > {log} 2>&1"


rule figure:
    input:
        table="results/{run}/tables/figure8.csv",
        code=code("figure"),
    output:
        figure="results/{run}/tables/figure8.svg",
    log:
        "logs/{run}/figure/figure8.log",
    benchmark:
        "results/{run}/benchmarks/figure/figure8.tsv"
    threads: 1
    resources:
        gpu=0,
        mem_mb=growing("mem_mb", 4000),
        runtime=growing("runtime", 60),
    message:
        "figure 8 of {wildcards.run} ({log})"
    shell:
        "coderl figure --table {input.table} --output {output.figure} > {log} 2>&1"


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
        mem_mb=growing("mem_mb", 4000),
        runtime=growing("runtime", 60),
    params:
        evaluate=main_evaluate_section(ACTIVE_RUNS[0]),
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
        models=ancient(lambda wildcards: list(trained_models(wildcards).values())),
        seals=lambda wildcards: seals(*trained_models(wildcards).values()),
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
        mem_mb=growing("mem_mb", 4000),
        runtime=growing("runtime", 60),
    params:
        report=section("report"),
        critical_sample=section("critical_sample"),
        programs=lambda wildcards: json.dumps(evaluated_programs(wildcards), separators=(",", ":")),
        models=lambda wildcards: json.dumps(trained_models(wildcards), separators=(",", ":")),
        corpus=lambda wildcards, input: f"--corpus-statistics {input.corpus}" if input.corpus else "",
        config_hash=lambda wildcards: config_hash(wildcards.run),
        seed=seed,
    message:
        "report of {wildcards.run} ({log})"
    shell:
        "coderl report --run {wildcards.run} --table {input.table} --differences {input.differences} --problems {input.problems}"
        " --programs {params.programs:q} --models {params.models:q} {params.corpus}"
        " --critical-sample-config {params.critical_sample:q} --config {params.report:q} --config-hash {params.config_hash}"
        " --seed {params.seed} --output {output.page} > {log} 2>&1"
