"""The training loop: exact resume, exact accumulation, whole batches."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
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

    def lengths(self, item: int) -> tuple[int, int]:
        return len(self.data[item][0]), len(self.data[item][1])

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


def test_a_batch_with_fewer_rows_than_parts_counts_each_row_once(tmp_path: Path) -> None:
    whole, split = tiny_model(), tiny_model()
    one = train(whole, Pairs(3), program_cross_entropy, settings(steps=2), settings="", seed=1, work=tmp_path / "a")
    two = train(
        split, Pairs(3), program_cross_entropy, settings(steps=2, micro_batch_size=1), settings="", seed=1, work=tmp_path / "b"
    )  # 8 parts
    torch.testing.assert_close(weights(whole), weights(split), rtol=1e-4, atol=1e-5)
    assert [row["loss"] for row in one] == pytest.approx([row["loss"] for row in two], rel=1e-4)


def test_metrics_are_means_over_the_logged_steps(tmp_path: Path) -> None:
    def loss(model: torch.nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        value, _ = program_cross_entropy(model, batch)
        return value, {"rows": torch.tensor(float(len(batch["prompt_ids"])))}

    log = train(tiny_model(), Pairs(), loss, settings(micro_batch_size=2), settings="", seed=1, work=tmp_path)
    assert [row["rows"] for row in log] == [8.0, 8.0, 8.0]


def test_plan_with_tokens_fills_batches_of_similar_lengths() -> None:
    """Also where a file is cut anywhere: its source is short or long, and what is padded is source and target apart."""
    rng = random.Random(1)
    lengths = [(source, max(1, size - source)) for size in (rng.randint(40, 120) for _ in range(4000)) if (source := rng.randint(4, size))]
    config = settings(batch_size=None, batch_tokens=1024)
    batches = plan_batches(lengths, config, 1, random.Random(0))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    padded = [(max(lengths[i][0] for i in batch) + max(lengths[i][1] for i in batch)) * len(batch) for batch in batches]
    assert all(size <= 1024 for size, batch in zip(padded, batches, strict=True) if len(batch) > 1)
    assert sum(map(sum, lengths)) / sum(padded) > 0.9


def test_plan_with_sizes_drops_an_incomplete_last_batch() -> None:
    batches = plan_batches([(1, 1)] * 20, settings(), 1, random.Random(0))
    assert [len(batch) for batch in batches] == [8, 8]
    assert [len(batch) for batch in plan_batches([(1, 1)] * 5, settings(), 1, random.Random(0))] == [5]


def test_the_learning_rate_may_stay_as_it_is(tmp_path: Path) -> None:
    """Spec 5.3: constant; the polynomial schedule of transformers refuses a decay to the first value."""
    rates = {}
    for ratio in (1.0, 0.5):
        config = settings(final_learning_rate_ratio=ratio, log_every=1)
        rows = train(tiny_model(), Pairs(), program_cross_entropy, config, settings="", seed=3, work=tmp_path / str(ratio))
        rates[ratio] = [row["learning_rate"] for row in rows]
    assert set(rates[1.0]) == {1e-2}
    assert rates[0.5][0] == 1e-2
    assert rates[0.5] == sorted(rates[0.5], reverse=True)
    assert rates[0.5][-1] < 6e-3


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


# ------------------------------------------------------------------------------------------------ several processes

# With 39 pairs one batch has one row, so that one of two processes has none there.
PARALLEL_SETTINGS = settings(batch_size=None, batch_tokens=60)
LAUNCH = Path(__file__).parents[2] / "workflow/scripts/launch.sh"
PARALLEL = """
import logging, sys
from pathlib import Path
import torch
from test_training import PARALLEL_SETTINGS, Pairs, tiny_model, weights
from coderl.training import first_process, from_first_process, program_cross_entropy, train, world_size
logging.basicConfig(level=logging.INFO if first_process() else logging.ERROR)
model = tiny_model()
rows = train(model, Pairs(39), program_cross_entropy, PARALLEL_SETTINGS, settings="", seed=1, work=Path(sys.argv[1]))
said = from_first_process(lambda: "first" if first_process() else "other")
torch.save({"weights": weights(model), "rows": rows, "world": world_size(), "said": said}, f"{sys.argv[2]}.{int(not first_process())}")
"""


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    """On CPUs by gloo. What Slurm says of its tasks does not matter: only launch.sh's number of devices does."""
    slurm = {"SLURM_NTASKS": "8", "SLURM_PROCID": "3", "SLURM_LOCALID": "3", "PMI_SIZE": "8", "PMI_RANK": "3"}
    folders = os.pathsep.join([str(Path(__file__).parent), str(LAUNCH.parents[2] / "src")])
    path = os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
    environment = os.environ | slurm | {"PYTHONPATH": folders, "PATH": path, "OMP_NUM_THREADS": "2"}
    command = [LAUNCH, "2", "1", sys.executable, "-c", PARALLEL, tmp_path / "work", tmp_path / "made"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.startswith("+ torchrun --standalone --nproc-per-node 2 --no-python ")
    one = tiny_model()
    rows = train(one, Pairs(39), program_cross_entropy, PARALLEL_SETTINGS, settings="", seed=1, work=tmp_path / "one")
    made = [torch.load(tmp_path / f"made.{rank}") for rank in (0, 1)]
    for each in made:
        assert each["world"] == 2
        assert each["said"] == "first"
        torch.testing.assert_close(each["weights"], weights(one), rtol=1e-4, atol=1e-5)
        for row, expected in zip(each["rows"], rows, strict=True):
            assert row == pytest.approx(expected, rel=1e-4)
    assert done.stderr.count("step 12/12") == 1, "one process speaks"


def test_slurm_tasks_are_not_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_NTASKS", "SLURM_NPROCS", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.setenv(name, "4")
    train(tiny_model(), Pairs(), program_cross_entropy, settings(steps=2), settings="", seed=1, work=tmp_path)
    assert training.world_size() == 1


def launch(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """launch.sh with stand-ins for the commands it starts."""
    answers = {
        "torchrun": 'echo "torchrun threads=$OMP_NUM_THREADS"',
        "srun": "echo srun",
        "squeue": "echo 'gpu[07-08]'",
        "scontrol": "case $1 in show) printf 'gpu07\\ngpu08\\n' ;; *) echo \"NodeName=$4 NodeAddr=10.0.0.7 NodeHostName=$4\" ;; esac",
    }
    for name, text in answers.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    known = {"PATH": f"{folder}:/usr/bin:/bin"} | environment
    return subprocess.run([LAUNCH, *words], env=known, capture_output=True, text=True, check=False)


def test_launch_starts_one_process_per_device(tmp_path: Path) -> None:
    for gpus in ("0", "1"):
        done = launch(tmp_path, gpus, "1", "echo", "a b")
        assert (done.stdout, done.stderr) == ("a b\n", ""), "no torchrun for one device"
    done = launch(tmp_path, "4", "1", "coderl", "pretrain", "--config", '{"a": 1}', OMP_NUM_THREADS="8")
    assert done.stderr == "+ torchrun --standalone --nproc-per-node 4 --no-python coderl pretrain --config '{\"a\": 1}'\n"
    assert done.stdout == "torchrun threads=2\n"
    done = launch(tmp_path, "8", "2", "coderl", "pretrain", SLURM_JOB_ID="20012")
    assert done.stderr == (
        "+ srun --nodes 2 --ntasks 2 --ntasks-per-node 1 torchrun --nnodes 2 --nproc-per-node 4 --rdzv-id 20012"
        " --rdzv-backend c10d --rdzv-endpoint 10.0.0.7:20012 --no-python coderl pretrain\n"
    )
    assert "3 GPUs cannot be spread evenly over 2 nodes" in launch(tmp_path, "3", "2", "coderl", SLURM_JOB_ID="1").stderr
    assert "2 nodes without a Slurm job; use --profile slurm" in launch(tmp_path, "2", "2", "coderl").stderr


def test_the_seal_of_a_model_names_its_content_and_not_its_hour(tmp_path: Path) -> None:
    for weights in ("first", "second", "first"):
        with model_folder(tmp_path / "model") as folder:
            (folder / "weights").write_text(weights)
            (folder / "weights").chmod(0o600)
            (folder / "provenance.json").write_text(os.urandom(8).hex())
        seal = (tmp_path / "model.sha256").read_text()
        assert seal == f"{hashlib.sha256(weights.encode()).hexdigest()}  model/weights\n"
        assert (tmp_path / "model/weights").stat().st_mode == (tmp_path / "model.sha256").stat().st_mode, "others may read it too"
