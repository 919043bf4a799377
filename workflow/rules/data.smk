# Problems and pretraining data.


rule problems:
    input:
        raw=raw_problems,
        code=code("problems"),
    output:
        problems="results/{run}/problems/{set}.parquet",
    log:
        "logs/{run}/problems/{set}.log",
    benchmark:
        "results/{run}/benchmarks/problems/{set}.tsv"
    threads: threads_for("problems")
    resources:
        gpu=0,
        mem_mb=growing("mem_mb", 4000),
        runtime=growing("runtime", 60),
    params:
        problems=problems_section,
        procedural=section("procedural"),
    message:
        "problems of {wildcards.run}: {wildcards.set} ({log})"
    shell:
        "coderl problems --config {params.problems:q} --procedural-config {params.procedural:q}"
        " --output {output.problems} > {log} 2>&1"


rule corpus:
    input:
        decontaminate=held_out_problems,
        raw=lambda wildcards: raw(*run_config(wildcards.run).corpus.sources),
        code=code("corpus"),
    output:
        corpus="results/{run}/corpus/corpus.parquet",
        statistics=report("results/{run}/corpus/statistics.csv", caption="../report/corpus.rst", category="Data"),
    log:
        "logs/{run}/corpus/corpus.log",
    benchmark:
        "results/{run}/benchmarks/corpus/corpus.tsv"
    threads: threads_for("corpus")
    resources:
        gpu=0,
        mem_mb=growing("mem_mb", 16000),
        runtime=growing("runtime", 240),
    params:
        corpus=section("corpus"),
        procedural=section("procedural"),
        seed=base_seed,
    message:
        "corpus of {wildcards.run} ({log})"
    shell:
        "coderl corpus --config {params.corpus:q} --procedural-config {params.procedural:q} --seed {params.seed}"
        " --decontaminate {input.decontaminate} --output {output.corpus} --statistics {output.statistics} > {log} 2>&1"
