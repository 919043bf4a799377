"""What large models need of training: adapters, several processes, shards. Numbers of several GPUs are not run yet."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import Pairs
from tiny_models import save_tiny, tiny_llama, tiny_t5

from coderl.config import ConfigError, LoraConfig, PolicyVariant, TrainCriticConfig, TrainingConfig, validate
from coderl.critic import critic_objective
from coderl.models import CriticSettings, OutcomeCritic, load_actor
from coderl.problems import Problem, write_problems
from coderl.training import program_cross_entropy, train, training_arguments

torch.set_num_threads(1)

MODELS = {"t5": tiny_t5, "llama": tiny_llama}


def settings(**changes: Any) -> TrainingConfig:
    given = {"steps": 4, "batch_size": 4, "learning_rate": 1e-2, "weight_decay": 0.0, "checkpoint_every": 2, "log_every": 1}
    return TrainingConfig(**(given | changes))


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


# --------------------------------------------------------------------------------------------------- adapters


@pytest.mark.parametrize("kind", MODELS)
def test_adapters_are_merged_into_an_ordinary_model_that_has_learnt(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    model = MODELS[kind]()
    before = weights(model)
    log = train(
        model, Pairs(), program_cross_entropy, settings(steps=12, lora=LoraConfig(rank=4, alpha=8)), settings="", seed=1, work=tmp_path
    )  # fmt: skip
    after = weights(model)
    assert list(after) == list(before)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not [name for name in moved if "norm" in name or "embed" in name or "shared" in name], "adapters go beside linear layers"
    assert log[-1]["loss"] < log[0]["loss"]
    folder = save_tiny(tmp_path / "saved", model)
    assert all(torch.equal(tensor, after[name]) for name, tensor in weights(load_actor(folder)).items())


def test_a_killed_training_of_adapters_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    config = settings(lora=LoraConfig(rank=2, dropout=0.1))
    whole = tiny_llama()
    train(whole, Pairs(), program_cross_entropy, config, settings="", seed=1, work=tmp_path / "whole")

    class KilledError(Exception):
        pass

    calls = []

    def killed(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KilledError
        return program_cross_entropy(model, batch)

    with pytest.raises(KilledError):
        train(tiny_llama(), Pairs(), killed, config, settings="", seed=1, work=tmp_path / "work")
    assert list((tmp_path / "work").glob("checkpoint-2"))
    resumed = tiny_llama()
    train(resumed, Pairs(), program_cross_entropy, config, settings="", seed=1, work=tmp_path / "work")
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name]), name


def test_a_critic_trains_its_head_whole_and_adapters_in_its_backbone(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    critic = OutcomeCritic(tiny_llama(), CriticSettings.from_config(TrainCriticConfig(training=settings()), 2))
    before = weights(critic)

    class Labelled(Pairs):
        def collate(self, items: list[Any]) -> dict[str, torch.Tensor]:
            rows = len(items)
            ones = {"weights": torch.ones(rows), "normaliser": torch.tensor(float(rows)), "normaliser_programs": torch.tensor(rows)}
            return super().collate(items) | {"labels": torch.tensor([i % 2 for i in range(rows)])} | ones

    train(critic, Labelled(), critic_objective, settings(lora=LoraConfig(rank=2)), settings="", seed=1, work=tmp_path)
    moved = {name for name, tensor in weights(critic).items() if not torch.equal(before[name], tensor)}
    assert {"head.weight", "head.bias"} <= moved
    assert any("q_proj" in name for name in moved)
    assert not any("norm" in name for name in moved)


def test_an_adapter_for_a_layer_that_is_not_there_is_named(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    with pytest.raises(ConfigError, match="nowhere"):
        train(
            tiny_t5(), Pairs(), program_cross_entropy, settings(lora=LoraConfig(modules=["nowhere"])), settings="", seed=1, work=tmp_path
        )  # fmt: skip


def test_without_peft_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"pip install 'coderl\[lora\]'"):
        train(tiny_t5(), Pairs(), program_cross_entropy, settings(lora=LoraConfig()), settings="", seed=1, work=tmp_path)


# --------------------------------------------------------------------------------------------------- several processes

PROBLEMS = [
    Problem(f"t/{i}", "custom", "train", "introductory", f"Print {i} and {i + 1}.", "", None, [f"print({i}, {i + 1})\n"], None, None)
    for i in range(8)
]


def warm_start(folder: Path, name: str, *launcher: str, training: str) -> Path:
    """The stage in a process of its own, by the verb that users and rules call."""
    output = folder / name
    words = ["warm-start", "--base-model", folder / "base", "--problems", folder / "problems.jsonl", "--output", output, "--work"]
    section = f'{{"lengths": {{"max_source_tokens": 64, "max_target_tokens": 32}}, "training": {training}}}'
    command = [sys.executable, *launcher, "-m", "coderl", *map(str, words), str(folder / f"work-{name}"), "--config", section]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return output


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    """torchrun with the gloo backend: the same steps in two halves, one output folder, one record."""
    save_tiny(tmp_path / "base", tiny_t5())
    write_problems(tmp_path / "problems.jsonl", PROBLEMS)
    training = '{"steps": 3, "batch_size": 4, "micro_batch_size": %d, "learning_rate": 0.01, "checkpoint_every": 2}'
    one = warm_start(tmp_path, "one", training=training % 4)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    two = warm_start(tmp_path, "two", *launcher, training=training % 2)
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in two.iterdir())
    assert not (tmp_path / "work-two").exists()
    assert not list(tmp_path.glob(".*.partial"))
    start, expected, found = (weights(load_actor(folder)) for folder in (tmp_path / "base", one, two))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5)
    assert any(not torch.equal(start[name], tensor) for name, tensor in expected.items())


# --------------------------------------------------------------------------------------------------- shards


def test_settings_of_shards_reach_the_trainer_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coderl import training

    given: dict[str, Any] = {}
    monkeypatch.setattr(training, "TrainingArguments", lambda **arguments: given.update(arguments))
    shards = {"transformer_layer_cls_to_wrap": ["T5Block"], "cpu_offload": True}
    training_arguments(settings(fsdp=shards, precision="bf16", gradient_checkpointing=True), 2, 2, 1, tmp_path)
    assert (given["fsdp"], given["fsdp_config"]) == (True, shards)
    assert given["bf16"]
    assert given["activation_checkpointing"]
    assert "deepspeed" not in given
    given.clear()
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: name)
    zero = {"zero_optimization": {"stage": 3}, "train_micro_batch_size_per_gpu": "auto"}
    training_arguments(settings(deepspeed=zero), 1, 2, 1, tmp_path)
    assert given["deepspeed"] == zero
    assert "fsdp" not in given


def test_shards_in_one_process_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"`gpus` of config/config\.yaml"):
        training_arguments(settings(fsdp={}), 1, 1, 1, tmp_path)


def test_later_rounds_need_whole_models() -> None:
    with pytest.raises(ConfigError, match="rounds is 2"):
        validate(PolicyVariant, {"rounds": 2, "training": {"steps": 1, "batch_size": 1, "fsdp": {}}}, "here")


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"fsdp": {}, "deepspeed": {}}, "fsdp or deepspeed, not both"), ({"fsdp": {}, "lora": {}}, "lora trains few weights")],
)
def test_what_does_not_go_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(TrainingConfig, {"steps": 1, "batch_size": 1, **changes}, "here")
