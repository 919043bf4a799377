# Programs: drawn, judged, valued. Sharded by `of-<n>/<shard>`; the number of shards never changes a program.


rule sample:
    input:
        model=ancient("results/{run}/models/{model}"),
        seal="results/{run}/models/{model}.sha256",
        problems="results/{run}/problems/{set}.parquet",
        code=code("sample"),
    output:
        samples="results/{run}/samples/{model}/{set}/of-{n}/{shard}.jsonl.gz",
    log:
        "logs/{run}/sample/{model}/{set}/of-{n}/{shard}.log",
    benchmark:
        "results/{run}/benchmarks/sample/{model}/{set}/of-{n}/{shard}.tsv"
    wildcard_constraints:
        model="actor|policy/[A-Za-z0-9_-]+",
    threads: threads_for("sample")
    resources:
        gpu=1,
        mem_mb=growing("mem_mb", 16000),
        runtime=growing("runtime", 240),
    params:
        sample=sample_section("{set}", shards="n"),
        seed=seed,
    message:
        "sample {wildcards.set} from {wildcards.model} of {wildcards.run}, shard {wildcards.shard} of {wildcards.n} ({log})"
    shell:
        "coderl sample --model {input.model} --problems {input.problems} --set {wildcards.set} --shard {wildcards.shard}"
        " --config {params.sample:q} --seed {params.seed} --output {output.samples}"
        " --work work/{wildcards.run}/sample/{wildcards.model}/{wildcards.set} > {log} 2>&1"


rule run_tests:
    input:
        problems="results/{run}/problems/{set}.parquet",
        samples=judged_samples,
        code=code("run_tests"),
    output:
        outcomes="results/{run}/outcomes/{model}/{set}/{suite}/of-{n}/{shard}.jsonl.gz",
    log:
        "logs/{run}/run_tests/{model}/{set}/{suite}/of-{n}/{shard}.log",
    benchmark:
        "results/{run}/benchmarks/run_tests/{model}/{set}/{suite}/of-{n}/{shard}.tsv"
    threads: lambda wildcards: run_config(wildcards.run).run_tests.workers
    resources:
        gpu=0,
        mem_mb=growing("mem_mb", 8000),
        runtime=growing("runtime", 240),
    params:
        run_tests=section("run_tests"),
        samples=lambda wildcards, input: input.samples or wildcards.model,
    message:
        "run the {wildcards.suite} tests on {wildcards.model}, {wildcards.set} of {wildcards.run}, shard {wildcards.shard} of {wildcards.n} ({log})"
    shell:
        "coderl run-tests --problems {input.problems} --samples {params.samples} --suite {wildcards.suite}"
        " --config {params.run_tests:q} --output {output.outcomes} > {log} 2>&1"


rule score:
    input:
        critic=ancient("results/{run}/models/critic"),
        seal="results/{run}/models/critic.sha256",
        problems="results/{run}/problems/{set}.parquet",
        samples=lambda wildcards: sample_shards(wildcards.run, "actor", wildcards.set),
        code=code("score"),
    output:
        values="results/{run}/values/{set}.parquet",
    log:
        "logs/{run}/score/{set}.log",
    benchmark:
        "results/{run}/benchmarks/score/{set}.tsv"
    threads: threads_for("score")
    resources:
        gpu=1,
        mem_mb=growing("mem_mb", 16000),
        runtime=growing("runtime", 240),
    params:
        score=section("score"),
    message:
        "score the {wildcards.set} programs of {wildcards.run} ({log})"
    shell:
        "coderl score --critic {input.critic} --problems {input.problems} --samples {input.samples}"
        " --config {params.score:q} --output {output.values} > {log} 2>&1"


rule critical_sample:
    input:
        policy=ancient(critical_policy),
        critic=ancient("results/{run}/models/binary_critic"),
        repair=ancient("results/{run}/models/repair"),
        seals=lambda wildcards: [
            *seals(critical_policy(wildcards)),
            f"results/{wildcards.run}/models/binary_critic.sha256",
            f"results/{wildcards.run}/models/repair.sha256",
        ],
        problems="results/{run}/problems/{set}.parquet",
        code=code("critical_sample"),
    output:
        samples="results/{run}/samples/{model}/{set}/of-{n}/{shard}.jsonl.gz",
    log:
        "logs/{run}/critical_sample/{model}/{set}/of-{n}/{shard}.log",
    benchmark:
        "results/{run}/benchmarks/critical_sample/{model}/{set}/of-{n}/{shard}.tsv"
    wildcard_constraints:
        model="critical(/[A-Za-z0-9_-]+)?",
    threads: threads_for("critical_sample")
    resources:
        gpu=1,
        mem_mb=growing("mem_mb", 16000),
        runtime=growing("runtime", 480),
    params:
        critical_sample=critical_sample_section,
        sample=sample_section(),
        run_tests=section("run_tests"),
        train_repair=section("train_repair"),
        seed=seed,
    message:
        "{wildcards.model} sampling on {wildcards.set} of {wildcards.run}, shard {wildcards.shard} of {wildcards.n} ({log})"
    shell:
        "coderl critical-sample --policy {input.policy} --critic {input.critic} --repair-model {input.repair}"
        " --problems {input.problems} --shard {wildcards.shard} --config {params.critical_sample:q}"
        " --sample-config {params.sample:q} --run-tests-config {params.run_tests:q}"
        " --train-repair-config {params.train_repair:q} --seed {params.seed}"
        " --output {output.samples} --work work/{wildcards.run}/critical_sample/{wildcards.model}/{wildcards.set} > {log} 2>&1"
