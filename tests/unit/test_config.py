"""Configuration: clear errors, runs that extend others, and the files that are generated from the models."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from coderl.config import (
    STAGES,
    ConfigError,
    CorpusConfig,
    RlFinetuneConfig,
    RunConfig,
    SampleConfig,
    TrainingConfig,
    WarmStartConfig,
    WorkflowConfig,
    load_run,
    load_section,
    read_yaml,
    run_schema,
    section_json,
    validate,
)

ROOT = Path(__file__).parents[2]
RUNS = sorted((ROOT / "config" / "runs").glob("*.yaml"))


def with_change(**changes: Any) -> dict[str, Any]:
    return {**load_run(ROOT / "config/runs/mini.yaml").model_dump(mode="json"), **changes}


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_every_run_file_loads_and_fits_the_schema(path: Path) -> None:
    whole = load_run(path).model_dump(mode="json", exclude_unset=True)  # with what it extends
    jsonschema.validate(whole, run_schema(), cls=jsonschema.Draft202012Validator)


def test_a_misspelt_key_names_the_file_and_the_nearest_key() -> None:
    data = with_change()
    data["warm_start"]["training"]["learning_rat"] = 1.0
    with pytest.raises(ConfigError, match=r"mini\.yaml: unknown key 'warm_start\.training\.learning_rat'; did you mean 'learning_rate'\?"):
        validate(RunConfig, data, "mini.yaml")
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, run_schema(), cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("section", "path", "key", "near"),
    [
        ("pretrain", ("phases", 0, "training"), "stepps", "steps"),
        ("rl_finetune", ("variants", "rl"), "loses", "losses"),
        ("problems", ("train",), "sizes", "size"),
    ],
)
def test_the_nearest_key_is_found_in_lists_and_mappings_too(section: str, path: tuple[Any, ...], key: str, near: str) -> None:
    data = with_change()
    node = data[section]
    for step in path:
        node = node[step]
    node[key] = 1
    with pytest.raises(ConfigError, match=f"did you mean '{near}'"):
        validate(RunConfig, data, "a run")


def test_a_missing_key_and_a_wrong_value_are_named() -> None:
    data = with_change()
    del data["warm_start"]["training"]["steps"]
    data["sample"]["sets"]["train"]["samples_per_problem"] = 0
    with pytest.raises(ConfigError) as caught:
        validate(RunConfig, data, "a run")
    assert "key 'warm_start.training.steps' is missing" in str(caught.value)
    assert "key 'sample.sets.train.samples_per_problem': Input should be greater than or equal to 1 (got 0)" in str(caught.value)


@pytest.mark.parametrize("sizes", [{}, {"batch_size": 1, "batch_tokens": 1}])
def test_a_training_has_one_batch_size(sizes: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="exactly one of batch_size and batch_tokens"):
        validate(TrainingConfig, {"steps": 1, **sizes}, "training")


def test_a_run_that_extends_another_changes_only_what_it_states() -> None:
    mini, smoke = load_run(ROOT / "config/runs/mini.yaml"), load_run(ROOT / "config/runs/smoke.yaml")
    assert smoke.problems["train"].size != mini.problems["train"].size
    assert smoke.problems["test"].difficulty_shares == mini.problems["test"].difficulty_shares
    assert smoke.warm_start.training.learning_rate == mini.warm_start.training.learning_rate


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evaluate": {"problem_set": "dev"}}, "evaluate.problem_set needs 'dev', which sample.sets does not have; there are train, test"),
        (
            {"evaluate": {"policies": ["rll"]}},
            "evaluate.policies needs 'rll', which rl_finetune.variants does not have; there are rl, published, ce",
        ),
        ({"critical_sample": {"policy": "rll"}}, "critical_sample.policy needs 'rll'"),
        ({"sample": {"sets": {"tset": {}}}}, "sample.sets needs 'tset', which problems does not have; there are train, test"),
        ({"pretrain": None}, "pretrain is null, so key 'warm_start.base_model' must name a model"),
        ({"corpus": None}, "pretrain needs the section 'corpus', which is null"),
    ],
)
def test_sections_have_to_fit_together(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "mini.yaml").write_text((ROOT / "config/runs/mini.yaml").read_text(encoding="utf-8"))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"extends": "mini", **change}))
    with pytest.raises(ConfigError) as caught:
        load_run(tmp_path / "mine.yaml")
    assert message in str(caught.value)
    assert len(str(caught.value)) < 300, "the message does not repeat the whole file"


def test_extending_in_a_circle_or_from_nowhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("extends: b\n")
    (tmp_path / "b.yaml").write_text("extends: a\n")
    with pytest.raises(ConfigError, match="circle: a -> b -> a"):
        load_run(tmp_path / "a.yaml")
    (tmp_path / "c.yaml").write_text("extends: nowhere\n")
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file; files there: a, b, c"):
        load_run(tmp_path / "c.yaml")


@pytest.mark.parametrize(("text", "message"), [("a: [", "not valid YAML"), ("- 1", "expected a mapping")])
def test_a_file_that_is_no_mapping_is_an_error(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_run(tmp_path / "x.yaml")


def test_a_section_comes_from_json_or_from_a_run_file() -> None:
    mini = ROOT / "config/runs/mini.yaml"
    from_file = load_section(WarmStartConfig, str(mini), "warm_start")
    assert load_section(WarmStartConfig, section_json(from_file), "warm_start") == from_file
    with pytest.raises(ConfigError, match="--config: not valid JSON"):
        load_section(WarmStartConfig, "{", "warm_start")
    with pytest.raises(ConfigError, match=r"--config \(sample\): unknown key 'set'; did you mean 'sets'"):
        load_section(SampleConfig, '{"set": {}}', "sample")


def test_a_null_section_is_an_error_where_its_stage_runs(tmp_path: Path) -> None:
    base_model = {"warm_start": {**with_change()["warm_start"], "base_model": "a-model"}}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(with_change(corpus=None, pretrain=None, **base_model)))
    with pytest.raises(ConfigError, match="section 'corpus' is null"):
        load_section(CorpusConfig, str(tmp_path / "x.yaml"), "corpus")


def test_section_json_does_not_depend_on_the_order_of_keys() -> None:
    data = with_change()["warm_start"]
    reverse = json.loads(json.dumps(dict(reversed(data.items()))))
    assert section_json(validate(WarmStartConfig, data, "")) == section_json(validate(WarmStartConfig, reverse, ""))


def test_active_runs_may_be_one_name_and_threads_name_stages() -> None:
    assert validate(WorkflowConfig, {"runs": "smoke"}, "").runs == ["smoke"]
    with pytest.raises(ConfigError, match="no stage 'pretrian'; did you mean 'pretrain'"):
        validate(WorkflowConfig, {"threads": {"pretrian": 2}}, "")
    with pytest.raises(ConfigError, match="'threads': pretrain: at least 1"):
        validate(WorkflowConfig, {"threads": {"pretrain": 0}}, "")
    with pytest.raises(ConfigError, match="did you mean 'runs'"):
        validate(WorkflowConfig, {"run": ["mini"]}, "config.yaml")


def test_the_stages_are_the_sections() -> None:
    assert STAGES[0] == "problems"
    assert STAGES[-1] == "report"
    assert len(STAGES) == 13


def test_the_schema_and_the_reference_are_up_to_date() -> None:
    text = (ROOT / "workflow/schemas/config.schema.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == json.loads(json.dumps(run_schema())), "run `make schema`"
    script = ROOT / "workflow/scripts/config_reference.py"
    done = subprocess.run([sys.executable, str(script), "--check"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --------------------------------------------------------------------------------------------------- values that cannot be meant


def changed(path: str, value: Any) -> dict[str, Any]:
    """The mini run with one key set."""
    data = with_change()
    *steps, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    node: Any = data
    for step in steps:
        node = node[step]
    node[last] = value
    return data


TRAINING = "warm_start/training"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("procedural/transforms", [], "at least 1 item"),
        ("procedural/depths", {}, "at least 1 item"),
        ("procedural/depths", {"interview": []}, "at least 1 item"),
        ("procedural/depths", {"interview": [0]}, "greater than or equal to 1"),
        ("problems/train/benchmark", "codenet", "'procedural', 'apps', 'mbpp', 'humaneval', 'leetcode' or 'jsonl'"),
        ("problems/train/source", "", "at least 1 character"),
        ("problems/train/difficulty_shares", {"interview": -0.1}, "greater than or equal to 0"),
        ("problems/train/difficulty_shares", {"interview": 0}, "give at least one difficulty a share above 0"),
        ("problems/train/difficulty_shares", {}, "at least 1 item"),
        ("corpus/sources", [], "at least 1 item"),
        ("corpus/stdlib_files", -1, "greater than or equal to 0"),
        ("corpus/licenses", [], "at least 1 item"),
        ("corpus/max_characters", 0, "greater than or equal to 1"),
        ("corpus/min_characters", -1, "greater than or equal to 0"),
        ("corpus/min_characters", 7000, "min_characters is 7000, more than max_characters, 6000"),
        ("corpus/max_line_length", 0, "greater than or equal to 1"),
        ("corpus/max_mean_line_length", 0, "greater than 0"),
        ("corpus/min_alphanumeric_fraction", 25, "less than or equal to 1"),
        ("pretrain/architecture/heads", 0, "greater than or equal to 1"),
        ("pretrain/architecture/d_model", 0, "greater than or equal to 1"),
        ("pretrain/architecture/d_ff", -1, "greater than or equal to 1"),
        ("pretrain/architecture/d_kv", 0, "greater than or equal to 1"),
        ("pretrain/architecture/encoder_layers", 0, "greater than or equal to 1"),
        ("pretrain/architecture/decoder_layers", 0, "greater than or equal to 1"),
        ("pretrain/architecture/dropout", 1, "less than 1"),
        ("pretrain/architecture/relative_attention_buckets", 2, "greater than or equal to 4"),
        ("pretrain/architecture/relative_attention_max_distance", 16, "give more than half of relative_attention_buckets, 32"),
        ("pretrain/tokenizer/vocabulary_size", 10, "greater than or equal to 262"),
        ("pretrain/tokenizer/vocabulary_size", 270, "20 sentinels beside bytes and special tokens need at least 281"),
        ("pretrain/tokenizer/min_frequency", 0, "greater than or equal to 1"),
        ("pretrain/phases", [], "at least 1 item"),
        ("pretrain/phases/0/objectives", {}, "at least 1 item"),
        ("pretrain/phases/0/objectives", {"msp": 1, "ntp": -1}, "greater than 0"),
        ("pretrain/mask_rate", 15, "less than 1"),
        ("pretrain/mask_rate", 0, "greater than 0"),
        ("pretrain/max_span", 0, "greater than or equal to 1"),
        ("pretrain/pivot_range", [0.9, 0.1], "the first share must not be above the second"),
        ("pretrain/pivot_range", [0.1, 1.5], "less than or equal to 1"),
        (f"{TRAINING}/learning_rate", float("inf"), "finite number"),
        (f"{TRAINING}/learning_rate", float("nan"), "finite number"),
        (f"{TRAINING}/steps", True, "needs a number; YAML reads yes"),
        (f"{TRAINING}/warmup_steps", 501, "warmup_steps is 501, more than steps, 500"),
        (f"{TRAINING}/micro_batch_size", 4, "micro_batch_size divides batch_size, which is null"),
        (f"{TRAINING}/adam_beta1", 1, "less than 1"),
        (f"{TRAINING}/adam_beta2", -0.1, "greater than or equal to 0"),
        ("warm_start/base_model", "", "at least 1 character"),
        ("warm_start/max_solutions_per_problem", 0, "greater than or equal to 1"),
        ("run_tests/cpu_seconds", float("inf"), "finite number"),
        ("train_critic/hidden_size", 0, "greater than or equal to 1"),
        ("score/batch_tokens", 0, "greater than or equal to 1"),
        (
            "rl_finetune/rewards",
            {"passed_test": 1},
            "give all four outcomes their return; missing: compile_error, runtime_error, failed_test",
        ),
        ("rl_finetune/rewards/passed_test", float("inf"), "finite number"),
        ("rl_finetune/rewards/passed_test", True, "needs a number; YAML reads yes"),
        ("procedural/depths", {"interview": [True]}, "needs a number; YAML reads yes"),
        ("seed", 2**63, "needs a number of at most 64 bits"),
        ("train_critic/base_model", "", "at least 1 character"),
        ("train_repair/base_model", "", "at least 1 character"),
        ("evaluate/pass_at", [], "at least 1 item"),
        ("evaluate/pass_at", [0], "greater than or equal to 1"),
        ("evaluate/pass_at", [1, 1], "pass_at has 1 twice"),
        ("evaluate/n_at", [[5, 1]], "n_at has [5, 1]: 5 programs cannot be submitted of 1"),
        ("evaluate/n_at", [[0, 1]], "greater than or equal to 1"),
        ("evaluate/policies", ["rl", "rl"], "policies has 'rl' twice"),
    ],
)
def test_a_value_out_of_its_range_names_the_key(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(RunConfig, changed(path, value), "mine.yaml")
    first = str(caught.value).splitlines()[0]
    assert first.startswith("mine.yaml: key '" + path.split("/")[0])
    assert message in first


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "evaluate/comparisons",
            [["rl_finetune/rll", "warm_start"]],
            "evaluate.comparisons: no row 'rl_finetune/rll' in the table; did you mean 'rl_finetune/rl'?",
        ),
        ("evaluate/pass_at", [1, 100], "evaluate.pass_at needs 100 programs per problem, but sample.sets.test.samples_per_problem is 36"),
        ("evaluate/n_at", [[1, 100]], "evaluate.n_at needs 100 programs per problem, but sample.sets.test.samples_per_problem is 36"),
        ("sample/sets/train/greedy", False, "rl_finetune.variants.published has returns: greedy_relative, which needs the greedy program"),
        ("problems/train/size", None, "problems.train.size is missing"),
        ("sample/sets/train/shards", 31, "sample.sets.train.shards is 31, but 1500 problems are 30 batches of 50; lower shards"),
        ("critical_sample/shards", 13, "critical_sample.shards is 13, but 300 problems are 4 batches of 75; lower shards"),
        ("problems/train/source", "file.jsonl", "problems.train.source: the procedural benchmark is generated"),
        ("problems/test/benchmark", "apps", "problems.test.source is missing: benchmark 'apps'"),
        ("problems/train/with_solutions", 0, "problems.train.with_solutions is 0: no reference solutions, but warm_start learns from them"),
        ("problems/test/with_solutions", 0, "problems.test.with_solutions is 0: no reference solutions, but the table has a row of them"),
        ("description", "\ud800", "holds half of a surrogate pair"),
        ("procedural/depths", {"interview": [2]}, "problems.train.difficulty_shares has introductory, which procedural.depths does not"),
        (
            "rl_finetune/variants/a.b",
            {"training": {"steps": 1, "batch_size": 1}},
            "rl_finetune.variants has 'a.b'; a name becomes part of a path",
        ),
    ],
)
def test_what_would_fail_at_a_late_stage_fails_when_the_run_is_read(path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(RunConfig, changed(path, value), "mine.yaml")
    assert str(caught.value).startswith("mine.yaml: " + message)
    assert len(str(caught.value)) < 300, "the message does not repeat the whole file"


def test_what_fits_together_is_accepted() -> None:
    data = changed(
        "evaluate/comparisons", [["critical", "policy/rl"], ["empty_program", "reference_solutions"], ["actor", "rl_finetune/ce"]]
    )
    data["sample"]["sets"]["train"]["greedy"] = False
    data["rl_finetune"]["variants"]["published"]["returns"] = "leave_one_out"
    validate(RunConfig, data, "a run")


def test_partial_rewards_are_an_error_as_json_too_and_complete_a_run_that_has_all() -> None:
    section = with_change()["rl_finetune"]
    with pytest.raises(ConfigError, match=r"--config \(rl_finetune\): key 'rewards': .*missing: runtime_error, failed_test"):
        load_section(RlFinetuneConfig, json.dumps({**section, "rewards": {"compile_error": -1, "passed_test": 1}}), "rl_finetune")


def test_one_reward_changes_a_run_that_states_all_four(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(with_change()))
    (tmp_path / "mine.yaml").write_text("extends: base\nrl_finetune: {rewards: {failed_test: 0}}\n")
    assert load_run(tmp_path / "mine.yaml").rl_finetune.rewards == {
        "compile_error": -1.0,
        "runtime_error": -0.6,
        "failed_test": 0.0,
        "passed_test": 1.0,
    }


# --------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"seed: 1\ndescription: \xff\n", r"x\.yaml: line 2: not UTF-8 .*save the file as UTF-8"),
        (
            b"seed: 1\nreport:\n  example_programs: 1\nseed: 2\n",
            r"x\.yaml: not valid YAML: key 'seed' stands in line 1 and again in line 4",
        ),
        (b"a: {b: 1, b: 2}\n", r"key 'b' stands in line 1 and again in line 1"),
        (b"seed: " + b"9" * 5000 + b"\n", r"x\.yaml: not valid YAML: "),
        (b"[" * 5000, r"x\.yaml: nested too deeply"),
        (b"a: &a {b: *a}\n", r"x\.yaml: holds a mapping or list that is part of itself"),
        (b"extends: [a]\n", r"x\.yaml: key 'extends' must be the name of another run"),
    ],
)
def test_a_run_file_that_cannot_be_read_names_file_and_line(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "x.yaml").write_bytes(text)
    with pytest.raises(ConfigError, match=message):
        load_run(tmp_path / "x.yaml")


def test_a_folder_in_place_of_a_run_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").mkdir()
    with pytest.raises(ConfigError, match=r"x\.yaml: cannot be read \(Is a directory\)"):
        load_run(tmp_path / "x.yaml")


def test_merged_keys_may_be_overridden_again_and_again(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("a: &a {k: 1, l: 1}\nb: &b {<<: *a, k: 2}\nc: {<<: *b, l: 3}\n")
    assert read_yaml(tmp_path / "x.yaml")["c"] == {"k": 2, "l": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"sets": {}, "sets": {}}', "an object has 'sets' twice"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ('{"a": NaN, ', "not valid JSON"),
    ],
)
def test_a_malformed_section_is_one_message(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_section(SampleConfig, text, "sample")


def test_a_run_is_active_once() -> None:
    with pytest.raises(ConfigError, match="runs has 'mini' twice"):
        validate(WorkflowConfig, {"runs": ["mini", "mini"]}, "config.yaml")
