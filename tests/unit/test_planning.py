"""Plans: the arithmetic in closed form, the jobs against Snakemake's own plan, the times against a real mini run."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from coderl import cli, planning
from coderl.config import ConfigError, LengthsConfig, RunConfig, TrainingConfig, load_run
from coderl.planning import DEVICES, HUB_SHAPES, Cluster, Group, Shape, elapsed, groups, key_of, longest_chain, outlook

ROOT = Path(__file__).parents[2]
RUNS = ("smoke", "mini", "paper", "smollm2", "smollm2-cpu")
GPU, CORE = DEVICES["h100"], DEVICES["none"]


def run(name: str) -> RunConfig:
    return load_run(ROOT / f"config/runs/{name}.yaml")


# --------------------------------------------------------------------------------------------------- which jobs there are

JOBS = """
import json, sys
sys.path.insert(0, "workflow/scripts")
import dvc_stages
print(json.dumps([[job.rule.name, dict(job.wildcards.items()), [str(path) for path in job.input], [str(path) for path in job.output]]
                  for job in dvc_stages.jobs(json.loads(sys.argv[1]))]))
"""


def group_of(rule: str, wildcards: dict[str, str]) -> str:
    """The key of the group that a job of the DAG belongs to."""
    names = {
        "pretrain": "base", "warm_start": "actor", "train_repair": "repair", "corpus": "", "evaluate": "", "report": "", "tables": "",
        "train_critic": "{critic}", "rl_finetune": "{variant}", "sample": "{model}/{set}", "run_tests": "{model}/{set}/{suite}",
    }  # fmt: skip
    name = names.get(rule, "{set}").format(**wildcards)
    if rule == "critical_sample":
        name = wildcards["model"].removeprefix("critical").removeprefix("/") + f"/{name}"
        name = name.removeprefix("/")
    return f"{rule}/{name}" if name else rule


@pytest.fixture(scope="module")
def dags() -> dict[str, list[Any]]:
    """Jobs of each run as Snakemake plans them, in one process of its own."""
    done = subprocess.run([sys.executable, "-c", JOBS, json.dumps(RUNS)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[Any]] = {name: [] for name in RUNS}
    for job in json.loads(done.stdout.splitlines()[-1]):
        if job[0] != "collect":
            found[job[1]["run"]].append(job)
    return found


@pytest.mark.parametrize("name", RUNS)
def test_jobs_and_their_order_are_those_of_the_dag(name: str, dags: dict[str, list[Any]]) -> None:
    plan = groups(run(name), GPU)
    assert {key_of(group): group.jobs for group in plan} == Counter(group_of(rule, wildcards) for rule, wildcards, _, _ in dags[name])
    makers = {path: group_of(rule, wildcards) for rule, wildcards, _, outputs in dags[name] for path in outputs}
    real: dict[str, set[str]] = defaultdict(set)
    for rule, wildcards, inputs, _ in dags[name]:
        real[group_of(rule, wildcards)] |= {makers[path] for path in inputs if path in makers}
    needs = {key_of(group): set(group.needs) for group in plan}

    def before(key: str) -> set[str]:
        return needs[key] | {each for near in needs[key] for each in before(near)}

    for key in needs:
        assert needs[key] <= real[key], f"{key} does not wait for that"
        assert real[key] <= before(key), f"{key} waits for more"


def test_snakemake_plans_the_paper_run_within_ten_seconds() -> None:
    """CPU time, so that other work on the machine does not count; all shards included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "snakemake", "-n", "--config", "runs=[paper]", "--", "all"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    wanted = sum(group.jobs for group in groups(run("paper"), GPU)) + 2  # collect and all
    assert re.search(rf"^total +{wanted}$", done.stdout + done.stderr, re.MULTILINE)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 10


# --------------------------------------------------------------------------------------------------- how long they take


@pytest.mark.parametrize(("name", "millions"), [("codet5-small", 60.5), ("codet5-base", 222.9), ("codet5-large", 737.5)])
def test_parameters_are_those_of_the_released_models(name: str, millions: float) -> None:
    """Spec 1.6, which has them to a tenth of a million."""
    assert HUB_SHAPES[f"Salesforce/{name}"].parameters / 1e6 == pytest.approx(millions, abs=0.2)


def test_the_shape_of_a_folder_is_read_and_another_one_is_an_error(tmp_path: Path) -> None:
    config = {"num_layers": 2, "d_model": 8, "d_ff": 32, "num_heads": 2, "d_kv": 4, "vocab_size": 100}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert planning.shape_of(str(tmp_path), "k") == Shape(2, 2, 8, 32, 8, 100)
    for unlike in ([], {"model_type": "mamba"}, {"model_type": "llama"}):
        (tmp_path / "config.json").write_text(json.dumps(unlike))
        with pytest.raises(ConfigError, match="is not known"):
            planning.shape_of(str(tmp_path), "k")
    with pytest.raises(ConfigError, match=r"key 'warm_start.base_model': the shape of 'some/gpt' is not known"):
        planning.shape_of("some/gpt", "warm_start.base_model")


def test_a_model_that_another_run_is_still_to_make_has_its_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").symlink_to(ROOT / "config")
    monkeypatch.chdir(tmp_path)  # no results here
    base = planning.shape_of("results/mini/models/base", "k")
    assert 0.2e6 < base.parameters < 0.4e6
    for name in ("actor", "critic", "binary_critic", "repair", "policy/rl"):
        assert planning.shape_of(f"results/mini-ablations-seed2/models/{name}", "k") == base
    for name in ("results/mini/models/nothing", "results/nowhere/models/base"):
        with pytest.raises(ConfigError, match="is not known"):
            planning.shape_of(name, "k")


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt_neo", "gptj", "t5"])
def test_the_weights_of_a_shape_are_those_of_the_model(kind: str, tmp_path: Path) -> None:
    """But for norms, biases and position embeddings, which cost no multiplication."""
    from test_model_kinds import CAUSAL, tiny_llama, tiny_t5

    model = ({"llama": tiny_llama, "t5": tiny_t5} | CAUSAL)[kind]()
    model.config.save_pretrained(tmp_path)
    matrices = {name: tensor for name, tensor in model.named_parameters() if tensor.ndim == 2 and "wpe" not in name and "bias" not in name}
    assert planning.shape_of(str(tmp_path), "k").parameters == sum(tensor.numel() for tensor in matrices.values())


TINY = Shape(layers_encoder=1, layers_decoder=1, d_model=10, d_ff=40, inner=10, vocabulary=100)
"""1200 weights in the encoder, 1600 in the decoder, 1000 in the embeddings."""


def test_a_training_step_is_six_flops_per_weight_and_token() -> None:
    assert (TINY.encoder, TINY.decoder, TINY.parameters) == (1200, 1600, 3800)
    training = TrainingConfig(steps=7, batch_size=3)
    lengths = LengthsConfig(max_source_tokens=20, max_target_tokens=10)
    flops = 6 * 3 * (20 * 1200 + 10 * (1600 + 1000))
    launches = 2 * CORE.training_launch.value
    expected = 7 * (flops / CORE.fp32.value + launches)
    assert planning.training_seconds(training, TINY, lengths, 0.5, CORE) == pytest.approx(expected)
    again = training.model_copy(update={"gradient_checkpointing": True, "micro_batch_size": 1})
    expected = 7 * (4 / 3 * flops / CORE.fp32.value + 3 * launches)
    assert planning.training_seconds(again, TINY, lengths, 0.5, CORE) == pytest.approx(expected)
    by_tokens = TrainingConfig(steps=7, batch_tokens=100)
    flops = 6 * 90 * (0.25 * 1200 + 0.75 * 2600)
    assert planning.training_seconds(by_tokens, TINY, lengths, 0.25, CORE) == pytest.approx(7 * (flops / CORE.fp32.value + launches))


def test_a_gpu_hides_what_is_shorter_launching_or_work() -> None:
    lengths = LengthsConfig()
    small = TrainingConfig(steps=10, batch_size=1, precision="bf16")
    assert planning.training_seconds(small, TINY, lengths, 0.5, GPU) == pytest.approx(10 * 2 * GPU.training_launch.value)
    large, model = TrainingConfig(steps=10, batch_size=512, precision="bf16"), HUB_SHAPES["Salesforce/codet5-large"]
    flops = 6 * 512 * (600 * model.encoder + 512 * (model.decoder + 32100 * 1024))
    assert planning.training_seconds(large, model, lengths, 0.5, GPU) == pytest.approx(10 * flops / GPU.bf16.value)
    assert planning.training_seconds(large, model, lengths, 0.5, GPU, gpus=4) == pytest.approx(10 * flops / GPU.bf16.value / 4)


def test_decoding_reads_weights_per_step_and_the_cache_per_row() -> None:
    rows, tokens, prompt = 5, 30, 50
    steps = 90  # three times the mean
    launches = steps * 1 * CORE.launch.value
    weights = steps * 4 * 2600 / CORE.bandwidth.value
    per_row = (2 * 10 * 4) * (prompt + 15) / CORE.bandwidth.value + 2 * 2600 / CORE.decoding.value
    expected = 2 * (launches + weights + rows * tokens * 1.2 * per_row)
    assert planning.decoding_seconds(2, rows, tokens, prompt, 512, TINY, CORE) == pytest.approx(expected)
    cut = planning.decoding_seconds(1, 0, tokens, prompt, 40, TINY, CORE)
    assert cut == pytest.approx(40 / steps * (launches + weights)), "no step after the length limit"


def test_the_papers_warm_start_takes_about_what_the_paper_says() -> None:
    """Spec 2.5: 30 hours on one A100, without the gradient checkpointing that paper.yaml adds."""
    section = run("paper").warm_start
    training = section.training.model_copy(update={"gradient_checkpointing": False})
    seconds = planning.training_seconds(training, HUB_SHAPES[section.base_model or ""], section.lengths, 0.5, DEVICES["a100"])
    assert 20 < seconds / 3600 < 40


MEASURED = {
    "problems": 3.4, "corpus": 10.7, "pretrain": 229.2, "warm_start": 23.4, "sample": 191.4, "run_tests": 218.1, "train_critic": 127.4,
    "train_repair": 53.1, "score": 37.5, "rl_finetune": 239.4, "critical_sample": 60.5, "evaluate": 4.1, "report": 7.1,
}  # fmt: skip
"""Seconds of all jobs of a stage in the mini run of commit 45c818f (benchmark files; two cores, nothing else beside it)."""


def test_the_plan_of_mini_is_near_what_was_measured() -> None:
    planned: Counter[str] = Counter()
    for group in groups(run("mini"), CORE):
        planned[group.stage] += group.jobs * (group.seconds - planning.ENGINE_LOCAL.value)  # type: ignore[assignment]
    assert planned.keys() == set(MEASURED)
    for stage, seconds in MEASURED.items():
        assert 0.6 < planned[stage] / seconds < 1.7, f"{stage}: {planned[stage]:.0f} s planned, {seconds} s measured"


def test_ten_times_as_much_costs_ten_times_as_much() -> None:
    config = run("paper")
    once = {key_of(group): group for group in groups(config, GPU)}
    problems = {key_of(group): group for group in groups(config, GPU, problems=10)}
    samples = {key_of(group): group for group in groups(config, GPU, samples=10)}
    start = planning.START.value + planning.ENGINE_CLUSTER.value
    for each in (problems, samples):
        assert each["train_critic/critic"].seconds - start == pytest.approx(10 * (once["train_critic/critic"].seconds - start))
        for key in ("sample/actor/test", "run_tests/policy/rl/test/hidden", "critical_sample/test"):
            assert each[key].jobs == 10 * once[key].jobs, "shards grow, so that jobs do not"
        assert each["sample/actor/test"].storage == pytest.approx(10 * once["sample/actor/test"].storage)
    assert problems["sample/actor/test"].seconds == pytest.approx(once["sample/actor/test"].seconds)
    assert problems["warm_start/actor"].seconds - start == pytest.approx(10 * (once["warm_start/actor"].seconds - start))
    assert samples["warm_start/actor"] == once["warm_start/actor"], "it reads no samples"
    assert samples["sample/actor/test"].gpu_memory > 9 * once["sample/actor/test"].gpu_memory


def test_later_rounds_sample_and_judge_inside_the_job() -> None:
    config = run("mini")
    variant = config.rl_finetune.variants["rl"]
    twice = config.rl_finetune.model_copy(
        update={"variants": {**config.rl_finetune.variants, "rl": variant.model_copy(update={"rounds": 2})}}
    )
    one = {key_of(group): group for group in groups(config, CORE)}
    two = {key_of(group): group for group in groups(config.model_copy(update={"rl_finetune": twice}), CORE)}
    start = planning.START.value + planning.ENGINE_LOCAL.value
    assert two["rl_finetune/rl"].seconds > 2 * (one["rl_finetune/rl"].seconds - start) + start
    assert two["rl_finetune/ce"] == one["rl_finetune/ce"]


def test_a_set_of_unknown_size_is_an_error() -> None:
    config = run("mini")
    own = config.problems["train"].model_copy(update={"benchmark": "jsonl", "source": "mine.jsonl", "size": None})
    with pytest.raises(ConfigError, match=r"key 'problems.train.size' is null, and how many problems mine.jsonl holds"):
        groups(config.model_copy(update={"problems": {**config.problems, "train": own}}), CORE)


# --------------------------------------------------------------------------------------------------- a cluster


def job(name: str, seconds: float, *needs: str, jobs: int = 1, gpus: int = 0, cores: int = 1, **more: float) -> Group:
    return Group(name, "", jobs, seconds, gpus, cores, needs=needs, **more)


def test_the_longest_chain_is_the_longest_sum_of_jobs() -> None:
    plan = [job("a", 3), job("b", 10, jobs=50), job("c", 4, "a"), job("d", 1, "b", "c"), job("e", 2, "a")]
    seconds, chain = longest_chain(plan)
    assert (seconds, [group.stage for group in chain]) == (11, ["b", "d"])


@pytest.mark.parametrize(
    ("plan", "gpus", "cpus", "seconds"),
    [
        ([job("a", 10, jobs=4, gpus=1)], 2, 64, 20),
        ([job("a", 10, jobs=5, gpus=1)], 2, 64, 30),
        ([job("a", 10, jobs=4, cores=3)], 1, 7, 20),
        ([job("a", 10, jobs=2, gpus=1), job("b", 5, "a")], 1, 1, 25),
        ([job("short", 1), job("long", 9), job("end", 5, "short")], 1, 1, 15),
        ([job("a", 2), job("b", 2), job("c", 6, "b")], 1, 1, 10),
        ([job("a", 4, jobs=2), job("b", 6, "c"), job("c", 2)], 1, 2, 8),
    ],
)
def test_time_on_a_cluster_in_closed_form(plan: list[Group], gpus: int, cpus: int, seconds: float) -> None:
    assert elapsed(plan, Cluster(gpus, cpus)) == pytest.approx(seconds)


@pytest.mark.parametrize("name", RUNS)
def test_no_cluster_is_quicker_than_its_bounds(name: str) -> None:
    plan = groups(run(name), GPU)
    for cluster in (Cluster(1, 8), Cluster(8, 64), Cluster(10_000, 100_000)):
        found = outlook(plan, cluster, GPU)
        assert found.elapsed >= max(found.bounds.values()) * (1 - 1e-9)
    assert found.elapsed == pytest.approx(found.bounds["longest chain"]), "with a machine for every job only the chain is left"


def test_a_job_that_fits_nowhere_is_an_error() -> None:
    with pytest.raises(ConfigError, match="a job of train needs 4 GPUs and 1 cores; this cluster has 2 and 8"):
        elapsed([job("train", 1, gpus=4)], Cluster(2, 8))


@pytest.mark.parametrize(
    ("plan", "first"),
    [
        ([job("a", 100), job("b", 1, jobs=64)], "the longest chain, in it a (100 s a job)"),
        ([job("a", 100, jobs=64)], "cores: 13.3 min of the time"),
        ([job("a", 100, jobs=4, gpus=1)], "GPUs: 3.3 min of the time"),
        ([job("a", 1, memory=300e9)], "memory of a"),
        ([job("a", 1, gpus=1, gpu_memory=81e9)], "GPU memory of a"),
        ([job("a", 1, storage=11e12)], "storage"),
    ],
)
def test_the_first_bottleneck(plan: list[Group], first: str) -> None:
    assert outlook(plan, Cluster(2, 8), GPU).bottleneck == first


def test_many_jobs_are_a_warning() -> None:
    assert outlook([job("a", 1, jobs=3000)], Cluster(2, 8), GPU).warnings == []
    (warning,) = outlook([job("a", 1, jobs=9999)], Cluster(2, 8), GPU).warnings
    assert warning == "planning by Snakemake: `snakemake -n` takes about 30 s for 10000 jobs"


# --------------------------------------------------------------------------------------------------- printing


def test_every_constant_has_a_unit_and_a_source() -> None:
    found = planning.constants()
    assert len(found) > 50
    assert all(each.unit and len(each.source) > 3 for _, each in found)
    assert all(each.value >= 0 for _, each in found)


def test_the_verb_prints_stages_chain_and_scaling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    shown = CliRunner().invoke(cli.app, ["plan", "--run", "paper", "--gpus", "4"]).output
    for text in (
        "run paper on 4 x h100, 64 cores",
        "critical_sample",
        "longest chain: ",
        "100 x samples",
        "GPU memory of sample/actor/test",
    ):
        assert text in shown
    found = json.loads(CliRunner().invoke(cli.app, ["plan", "--run", "paper", "--gpus", "4", "--json"]).output)
    jobs = sum(group["jobs"] for group in found["groups"]) + 1
    assert found["outlooks"]["as it is"]["jobs"] == jobs
    held = sum(group["jobs"] * group["gpus"] * group["seconds"] for group in found["groups"])
    assert found["outlooks"]["as it is"]["gpu_hours"] == pytest.approx(held / 3600)
    assert CliRunner().invoke(cli.app, ["plan", "--constants"]).output.count("\n    ") == len(planning.constants())
