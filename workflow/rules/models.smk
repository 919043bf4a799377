# Everything that is trained. A model is a folder that appears when training has ended; checkpoints are in work/, which is no
# rule's output, because Snakemake deletes the outputs of a failed job. Its seal, beside it, holds the hashes of its files: of a
# folder Snakemake knows the time only, so what reads a model takes the folder as `ancient` and the seal as what decides.


rule pretrain:
    input:
        corpus="results/{run}/corpus/corpus.parquet",
        problems="results/{run}/problems/train.parquet",
        code=code("pretrain"),
    output:
        model=directory("results/{run}/models/base"),
        seal="results/{run}/models/base.sha256",
    log:
        "logs/{run}/pretrain/base.log",
    benchmark:
        "results/{run}/benchmarks/pretrain/base.tsv"
    threads: threads_for("pretrain")
    resources:
        **devices_for("pretrain"),
        mem_mb=growing("mem_mb", 32000),
        runtime=growing("runtime", 1440),
    params:
        pretrain=section("pretrain"),
        seed=base_seed,
    message:
        "pretrain the base model of {wildcards.run} ({log})"
    shell:
        "workflow/scripts/launch.sh {resources.gpu} {resources.nodes}"
        " coderl pretrain --corpus {input.corpus} --problems {input.problems} --config {params.pretrain:q}"
        " --seed {params.seed} --output {output.model} --work work/{wildcards.run}/pretrain > {log} 2>&1"


rule warm_start:
    input:
        base_model=ancient(base_model("warm_start")[0]),
        seal=base_model("warm_start")[1],
        problems="results/{run}/problems/train.parquet",
        code=code("warm_start"),
    output:
        model=directory("results/{run}/models/actor"),
        seal="results/{run}/models/actor.sha256",
    log:
        "logs/{run}/warm_start/actor.log",
    benchmark:
        "results/{run}/benchmarks/warm_start/actor.tsv"
    threads: threads_for("warm_start")
    resources:
        **devices_for("warm_start"),
        mem_mb=growing("mem_mb", 32000),
        runtime=growing("runtime", 1440),
    params:
        warm_start=section("warm_start"),
        base_model=base_model("warm_start")[2],
        seed=seed,
    message:
        "warm start of {wildcards.run} ({log})"
    shell:
        "workflow/scripts/launch.sh {resources.gpu} {resources.nodes}"
        " coderl warm-start --base-model {params.base_model:q} --problems {input.problems} --config {params.warm_start:q}"
        " --seed {params.seed} --output {output.model} --work work/{wildcards.run}/warm_start > {log} 2>&1"


# The two critics of the paper: of the four outcomes for RL, of passed or not for critical sampling.
rule train_critic:
    input:
        base_model=ancient(base_model("train_critic")[0]),
        seal=base_model("train_critic")[1],
        problems="results/{run}/problems/train.parquet",
        samples=samples_of("actor", "train"),
        outcomes=outcomes_of("actor", "train"),
        reference_outcomes=outcomes_of("reference", "train"),
        code=code("train_critic"),
    output:
        model=directory("results/{run}/models/{critic}"),
        seal="results/{run}/models/{critic}.sha256",
    log:
        "logs/{run}/train_critic/{critic}.log",
    benchmark:
        "results/{run}/benchmarks/train_critic/{critic}.tsv"
    threads: threads_for("train_critic")
    resources:
        **devices_for("train_critic"),
        mem_mb=growing("mem_mb", 32000),
        runtime=growing("runtime", 1440),
    params:
        train_critic=section("train_critic"),
        base_model=base_model("train_critic")[2],
        classes=lambda wildcards: 2 if wildcards.critic == "binary_critic" else 4,
        seed=seed,
    message:
        "train the {wildcards.critic} of {wildcards.run} ({log})"
    shell:
        "workflow/scripts/launch.sh {resources.gpu} {resources.nodes}"
        " coderl train-critic --classes {params.classes} --base-model {params.base_model:q} --problems {input.problems}"
        " --samples {input.samples} --outcomes {input.outcomes} --reference-outcomes {input.reference_outcomes}"
        " --config {params.train_critic:q} --seed {params.seed}"
        " --output {output.model} --work work/{wildcards.run}/train_critic/{wildcards.critic} > {log} 2>&1"


rule train_repair:
    input:
        base_model=ancient(base_model("train_repair")[0]),
        seal=base_model("train_repair")[1],
        problems="results/{run}/problems/train.parquet",
        samples=samples_of("actor", "train"),
        outcomes=outcomes_of("actor", "train"),
        reference_outcomes=outcomes_of("reference", "train"),
        code=code("train_repair"),
    output:
        model=directory("results/{run}/models/repair"),
        seal="results/{run}/models/repair.sha256",
    log:
        "logs/{run}/train_repair/repair.log",
    benchmark:
        "results/{run}/benchmarks/train_repair/repair.tsv"
    threads: threads_for("train_repair")
    resources:
        **devices_for("train_repair"),
        mem_mb=growing("mem_mb", 32000),
        runtime=growing("runtime", 1440),
    params:
        train_repair=section("train_repair"),
        base_model=base_model("train_repair")[2],
        seed=seed,
    message:
        "train the repair model of {wildcards.run} ({log})"
    shell:
        "workflow/scripts/launch.sh {resources.gpu} {resources.nodes}"
        " coderl train-repair --base-model {params.base_model:q} --problems {input.problems}"
        " --samples {input.samples} --outcomes {input.outcomes} --reference-outcomes {input.reference_outcomes}"
        " --config {params.train_repair:q} --seed {params.seed}"
        " --output {output.model} --work work/{wildcards.run}/train_repair > {log} 2>&1"


rule rl_finetune:
    input:
        actor=ancient("results/{run}/models/actor"),
        seal="results/{run}/models/actor.sha256",
        problems="results/{run}/problems/train.parquet",
        samples=samples_of("actor", "train"),
        outcomes=outcomes_of("actor", "train"),
        values=token_values,
        critic=ancient(values_critic),
        critic_seal=lambda wildcards: seals(values_critic(wildcards)),
        code=code("rl_finetune"),
    output:
        model=directory("results/{run}/models/policy/{variant}"),
        seal="results/{run}/models/policy/{variant}.sha256",
    log:
        "logs/{run}/rl_finetune/{variant}.log",
    benchmark:
        "results/{run}/benchmarks/rl_finetune/{variant}.tsv"
    threads: threads_for("rl_finetune")
    resources:
        **devices_for("rl_finetune"),
        mem_mb=growing("mem_mb", 32000),
        runtime=growing("runtime", 1440),
    params:
        rl_finetune=rl_finetune_section,
        sample=rounds_only("--sample-config", sample_section("train")),
        run_tests=rounds_only("--run-tests-config", section("run_tests")),
        values=lambda wildcards, input: f"--values {input.values}" if input.values else "",
        critic=lambda wildcards, input: f"--critic {input.critic}" if input.critic else "",
        seed=seed,
    message:
        "RL fine-tuning of {wildcards.run}: {wildcards.variant} ({log})"
    shell:
        "workflow/scripts/launch.sh {resources.gpu} {resources.nodes}"
        " coderl rl-finetune --variant {wildcards.variant} --actor {input.actor} --problems {input.problems}"
        " --samples {input.samples} --outcomes {input.outcomes} {params.values} {params.critic}"
        " --config {params.rl_finetune:q} {params.sample} {params.run_tests}"
        " --seed {params.seed} --output {output.model}"
        " --work work/{wildcards.run}/rl_finetune/{wildcards.variant} > {log} 2>&1"
