"""The training loop: exact resume, exact accumulation, whole batches."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration, TrainerCallback

import coderl.training as training
from coderl.config import TrainingConfig
from coderl.models import collate_pairs
from coderl.objectives import IGNORED
from coderl.records import DataError
from coderl.training import model_folder, plan_batches, program_cross_entropy, read_log, train, write_log


class Pairs:
    """Random prompts and programs of unequal length."""

    def __init__(self, count: int = 40) -> None:
        rng = random.Random(0)
        self.data = [
            ([rng.randrange(5, 30) for _ in range(rng.randint(3, 9))], [rng.randrange(5, 30) for _ in range(rng.randint(2, 8))])
            for _ in range(count)
        ]

    def epoch(self, epoch: int) -> list[int]:
        return list(range(len(self.data)))

    def length(self, item: int) -> int:
        return len(self.data[item][0]) + len(self.data[item][1])

    def collate(self, items: list[int]) -> dict[str, Tensor]:
        batch = collate_pairs([self.data[i][0] for i in items], [self.data[i][1] for i in items], 0)
        batch["normaliser"] = (batch["program_ids"] != IGNORED).sum()
        return batch


def tiny_model(dropout: float = 0.0) -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    config = T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=32, num_heads=2, num_layers=1, dropout_rate=dropout, decoder_start_token_id=0)
    return T5ForConditionalGeneration(config)


def weights(model: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def settings(**changes: Any) -> TrainingConfig:
    base: dict[str, Any] = {"steps": 12, "batch_size": 8, "learning_rate": 1e-2, "checkpoint_every": 5, "log_every": 4}
    base |= changes
    return TrainingConfig(**base)


@pytest.mark.parametrize("size", [{"batch_size": 8}, {"batch_size": None, "batch_tokens": 60}])
def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: dict[str, Any]) -> None:
    config = settings(**size)
    straight = tiny_model(dropout=0.1)
    log = train(straight, Pairs(), program_cross_entropy, config, settings="", seed=3, work=tmp_path / "straight")

    class Killed(Exception):
        pass

    class KillAtSeven(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 7:
                raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training, "_PlainLines", KillAtSeven)
        with pytest.raises(Killed):
            train(tiny_model(dropout=0.1), Pairs(), program_cross_entropy, config, settings="", seed=3, work=tmp_path / "killed")
    resumed = tiny_model(dropout=0.1)
    resumed_log = train(resumed, Pairs(), program_cross_entropy, config, settings="", seed=3, work=tmp_path / "killed")
    assert torch.equal(weights(straight), weights(resumed))
    assert log[-1]["loss"] == pytest.approx(resumed_log[-1]["loss"])
    assert [row["step"] for row in log] == [4, 8, 12]


@pytest.mark.parametrize("change", ["settings", "data"])
def test_a_checkpoint_of_other_settings_or_data_is_not_used(tmp_path: Path, change: str) -> None:
    def run(work: Path, changed: bool) -> Tensor:
        model, pairs = tiny_model(), Pairs()
        if changed and change == "data":
            for _, program in pairs.data:
                program[0] += 1  # the same lengths
        text = "negative_returns: bounded" if changed and change == "settings" else ""
        train(model, pairs, program_cross_entropy, settings(steps=7), settings=text, seed=3, work=work)
        return weights(model)

    run(tmp_path / "shared", False)
    kept = (tmp_path / "shared" / "identity").read_text()
    after = run(tmp_path / "shared", True)
    assert (tmp_path / "shared" / "identity").read_text() != kept
    assert torch.equal(after, run(tmp_path / "fresh", True))


@pytest.mark.parametrize("lost", ["trainer_state.json", "model.safetensors", "optimizer.pt", "scheduler.pt", "all of it"])
def test_a_checkpoint_that_was_not_written_to_its_end_is_not_used(tmp_path: Path, lost: str) -> None:
    straight = tiny_model()
    train(straight, Pairs(), program_cross_entropy, settings(), settings="", seed=3, work=tmp_path / "straight")
    train(tiny_model(), Pairs(), program_cross_entropy, settings(), settings="", seed=3, work=tmp_path / "killed")
    last = tmp_path / "killed" / "checkpoint-10"
    (last / "whole").unlink()
    for file in last.iterdir():
        if file.name == lost or lost == "all of it":
            file.unlink()
    resumed = tiny_model()
    train(resumed, Pairs(), program_cross_entropy, settings(), settings="", seed=3, work=tmp_path / "killed")
    assert torch.equal(weights(straight), weights(resumed))


def test_a_checkpoint_of_another_training_is_not_used(tmp_path: Path) -> None:
    train(tiny_model(), Pairs(), program_cross_entropy, settings(), settings="", seed=3, work=tmp_path)
    other = tiny_model()
    train(other, Pairs(), program_cross_entropy, settings(learning_rate=1e-3), settings="", seed=3, work=tmp_path)
    fresh = tiny_model()
    train(fresh, Pairs(), program_cross_entropy, settings(learning_rate=1e-3), settings="", seed=3, work=tmp_path / "fresh")
    assert torch.equal(weights(other), weights(fresh))


def test_accumulation_changes_nothing(tmp_path: Path) -> None:
    """1 x 8 and 4 x 2 sequences are one optimiser step, although their tokens differ in number."""
    whole, split = tiny_model(), tiny_model()
    first = train(whole, Pairs(), program_cross_entropy, settings(steps=3), settings="", seed=1, work=tmp_path / "a")
    second = train(split, Pairs(), program_cross_entropy, settings(steps=3, micro_batch_size=2), settings="", seed=1, work=tmp_path / "b")
    torch.testing.assert_close(weights(whole), weights(split), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(weights(whole), weights(tiny_model()))
    assert [row["loss"] for row in first] == pytest.approx([row["loss"] for row in second], rel=1e-4)


def test_metrics_are_means_over_the_logged_steps(tmp_path: Path) -> None:
    def loss(model: torch.nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        value, _ = program_cross_entropy(model, batch)
        return value, {"rows": torch.tensor(float(len(batch["prompt_ids"])))}

    log = train(tiny_model(), Pairs(), loss, settings(micro_batch_size=2), settings="", seed=1, work=tmp_path)
    assert [row["rows"] for row in log] == [8.0, 8.0, 8.0]


def test_plan_with_tokens_fills_batches_of_similar_length() -> None:
    lengths = [random.Random(1).randint(5, 60) for _ in range(500)] + list(range(5, 60))
    config = settings(batch_size=None, batch_tokens=256)
    batches = plan_batches(lengths, config, 1, random.Random(0))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(max(lengths[i] for i in batch) * len(batch) <= 256 for batch in batches if len(batch) > 1)
    used = sum(lengths) / sum(max(lengths[i] for i in batch) * len(batch) for batch in batches)
    assert used > 0.9


def test_plan_with_sizes_drops_an_incomplete_last_batch() -> None:
    batches = plan_batches([1] * 20, settings(), 1, random.Random(0))
    assert [len(batch) for batch in batches] == [8, 8]
    assert [len(batch) for batch in plan_batches([1] * 5, settings(), 1, random.Random(0))] == [5]


def test_nothing_to_train_on_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="examples of this stage are empty"):
        train(tiny_model(), Pairs(0), program_cross_entropy, settings(), settings="", seed=1, work=tmp_path)


def test_a_failed_stage_leaves_no_folder(tmp_path: Path) -> None:
    def stage() -> None:
        with model_folder(tmp_path / "model") as folder:
            (folder / "config.json").write_text("{}")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stage()
    assert list(tmp_path.iterdir()) == []


def test_log_round_trip(tmp_path: Path) -> None:
    rows = [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "share": 1.0}]
    write_log(tmp_path, rows)
    assert read_log(tmp_path) == rows


def test_the_seal_of_a_model_names_its_content_and_not_its_hour(tmp_path: Path) -> None:
    for weights in ("first", "second", "first"):
        with model_folder(tmp_path / "model") as folder:
            (folder / "weights").write_text(weights)
            (folder / "weights").chmod(0o600)
            (folder / "provenance.json").write_text(os.urandom(8).hex())
        seal = (tmp_path / "model.sha256").read_text()
        assert seal == f"{hashlib.sha256(weights.encode()).hexdigest()}  model/weights\n"
        assert (tmp_path / "model/weights").stat().st_mode == (tmp_path / "model.sha256").stat().st_mode, "others may read it too"
