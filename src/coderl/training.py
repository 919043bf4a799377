"""One training loop for every model: the Trainer of transformers, fed with whole optimiser steps.

A step's batch is a pure function of (seed, step). That makes three things exact: a killed training resumes with the batches
it would have seen, the loss of a step does not depend on how it is split into micro-batches or over devices, and the same
seed gives the same weights. Checkpoints go to a work folder that is no output of the workflow, because engines delete the
outputs of a failed job.

Under torchrun the processes share each step's batch. They are told apart by what torchrun sets (RANK, WORLD_SIZE) and by
nothing else; the first one alone writes checkpoints, logs and models.
Whole copies per device are the default; `fsdp` and `deepspeed` put models into shards that one device cannot hold.
"""

from __future__ import annotations

import atexit
import copy
import csv
import hashlib
import importlib.util
import logging
import math
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.utils.data import Dataset, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments, set_seed

from coderl.config import ConfigError, LoraConfig, TrainingConfig, section_json
from coderl.models import program_logits
from coderl.objectives import cross_entropy_sum
from coderl.records import DataError, atomic_path, keep
from coderl.seeds import derived_seed

logger = logging.getLogger(__name__)

T = TypeVar("T")

_WHOLE = "whole"
"""File in a checkpoint of which nothing is missing."""
_STEPS_IN_IDENTITY = 16
_BANDS = 12
"""Bands of target lengths, and about as many batches in each, among which items are sorted by length."""

Loss = Callable[[nn.Module, dict[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]
"""(model, micro-batch) -> (its share of the step's loss, its shares of the step's metrics); shares sum to the whole."""


class Examples(Protocol):
    """What a model learns from."""

    def epoch(self, epoch: int) -> list[Any]:
        """The items of one pass; the same list for the same number."""

    def lengths(self, item: Any) -> tuple[int, int]:
        """Source and target tokens of an item, for bucketing: each of the two is padded to the longest of a batch."""

    def collate(self, items: list[Any]) -> dict[str, Tensor]:
        """Tensors with one row per item; a key that starts with "normaliser" is a 0-dim tensor of the whole step."""


def world_size() -> int:
    """Number of processes that train together: what torchrun says, 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def first_process() -> bool:
    """Whether this process is the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def from_first_process(make: Callable[[], T]) -> T:
    """`make()` of the first process, in all of them: for what must be the same and is made from files, clocks or chance."""
    if world_size() == 1:
        return make()
    group = _patient_group()
    made: list[Any] = [make() if first_process() else None]
    distributed.broadcast_object_list(made, src=0, group=group)
    return made[0]


@cache
def _patient_group() -> Any:
    """All processes, for waits as long as it takes: between devices a wait of half an hour is taken for a failure."""
    if not distributed.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(distributed.destroy_process_group)
    return distributed.new_group(backend="gloo", timeout=timedelta(days=30))


def plan_batches(lengths: Sequence[tuple[int, int]], config: TrainingConfig, parts: int, rng: random.Random) -> list[list[int]]:
    """Indices of the items of each optimiser step of one epoch; `lengths` are the items' source and target tokens.

    With `batch_size`: that many items, shuffled; an incomplete last batch is dropped unless it is the only one (spec 2.5).
    With `batch_tokens`: batches of items of similar lengths whose padded size stays below it, in random order. A batch holds
    at least `parts` items (devices x micro-batches), or those that were left.
    """
    order = list(range(len(lengths)))
    rng.shuffle(order)
    if config.batch_size is not None:
        size = config.batch_size
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        return batches[:-1] if len(batches) > 1 and len(batches[-1]) < size else batches
    assert config.batch_tokens is not None
    mean = max(1.0, sum(map(sum, lengths)) / len(lengths))
    pool = max(parts, int(_BANDS**2 * config.batch_tokens / mean))  # sorting within pools keeps the mix of an epoch random
    batches = []
    for start in range(0, len(order), pool):
        batch: list[int] = []
        source = target = 0  # longest of the batch
        for index in _side_by_side(order[start : start + pool], lengths):
            source, target = max(source, lengths[index][0]), max(target, lengths[index][1])
            if len(batch) >= parts and (source + target) * (len(batch) + 1) > config.batch_tokens:
                batches.append(batch)
                batch, (source, target) = [], lengths[index]
            batch.append(index)
        if batch:
            batches.append(batch)
    rng.shuffle(batches)
    return batches


def _side_by_side(items: list[int], lengths: Sequence[tuple[int, int]]) -> list[int]:
    """The items so that neighbours have similar sources and similar targets: bands of targets, each run through by source.

    Sorted by the sum alone, a cut file's short source meets another's long one, and two fifths of a batch are padding (docs/log.md).
    """
    by_target = sorted(items, key=lambda i: (lengths[i][1], lengths[i][0]))
    width = math.ceil(len(items) / _BANDS)
    bands = [by_target[start : start + width] for start in range(0, len(items), width)]
    return [i for number, band in enumerate(bands) for i in sorted(band, key=lambda i: lengths[i][0], reverse=number % 2 == 1)]


class _StepBatches(Dataset[dict[str, Tensor]]):
    """Item i is part i % parts of the batch of step i // parts."""

    def __init__(self, examples: Examples, config: TrainingConfig, parts: int, seed: int) -> None:
        self.examples, self.config, self.parts, self.seed = examples, config, parts, seed
        self.first_steps = [0]  # first step of each planned epoch
        self.items: list[Any] = []
        self.batches: list[list[int]] = []
        self._plan(0)
        self.cached: tuple[int, dict[str, Tensor]] | None = None

    def _plan(self, epoch: int) -> None:
        self.current = epoch
        self.items = self.examples.epoch(epoch)
        if not self.items:
            raise DataError("nothing to train on: the examples of this stage are empty; are there programs with outcomes, or solutions?")
        # For batches of so many items only their number counts, and lengths may cost as much as the items.
        by_tokens = self.config.batch_tokens is not None
        lengths = [self.examples.lengths(item) if by_tokens else (1, 1) for item in self.items]
        rng = random.Random(derived_seed(self.seed, "batches", epoch))
        self.batches = plan_batches(lengths, self.config, self.parts, rng)

    def __len__(self) -> int:
        return self.config.steps * self.parts

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        step, part = divmod(index, self.parts)
        while step >= self.first_steps[self.current] + len(self.batches):
            if len(self.first_steps) == self.current + 1:
                self.first_steps.append(self.first_steps[self.current] + len(self.batches))
            self._plan(self.current + 1)
        if self.cached is None or self.cached[0] != step:
            chosen = self.batches[step - self.first_steps[self.current]]
            self.cached = (step, self.examples.collate([self.items[i] for i in chosen]))
        batch = self.cached[1]
        # A batch with fewer rows than parts: a part without rows takes the first one and counts for nothing, because every device
        # has to go through the model.
        rows = len(batch["prompt_ids"])
        chosen_rows = slice(part, None, self.parts) if part < rows else slice(0, 1)
        item = {key: value if key.startswith("normaliser") else value[chosen_rows] for key, value in batch.items()}
        return item | {"counts": torch.tensor(float(part < rows))}


class _Trainer(Trainer):
    """The Trainer with our loss, our order of batches and our metrics in its log."""

    def __init__(self, *, loss: Loss, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss = loss
        self.loss_is_scaled_for_ga = True  # micro-batches already sum to the step: never divide again
        self.sums: dict[str, Tensor] = {}
        self.logged_step: int | None = None  # the step after which `sums` began; a resumed training does not begin at 0

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], **_: Any) -> Tensor:
        if self.logged_step is None:
            self.logged_step = self.state.global_step
        counts = inputs.pop("counts")
        value, metrics = self.loss(model, inputs)
        for key, metric in metrics.items():
            self.sums[key] = self.sums.get(key, torch.zeros((), device=metric.device)) + metric.detach() * counts
        return value * counts * self.args.world_size  # data parallelism averages over devices, we want the sum

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs:
            steps = max(1, self.state.global_step - (self.logged_step or 0))
            for key in sorted(self.sums):  # each process has the shares of its part of the batches
                if self.args.world_size > 1:
                    self.sums[key] = self.sums[key].float()
                    distributed.all_reduce(self.sums[key])
                logs[key] = self.sums[key].item() / steps
            self.sums, self.logged_step = {}, self.state.global_step
        super().log(logs, *args, **kwargs)


class _PlainLines(TrainerCallback):
    """One line per log entry where no terminal shows a bar."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs and state.is_world_process_zero:
            shown = "  ".join(f"{key} {value:.4g}" for key, value in logs.items() if isinstance(value, float) and key != "epoch")
            logger.info("step %d/%d  %s", state.global_step, state.max_steps, shown)


def train(
    model: nn.Module, examples: Examples, loss: Loss, config: TrainingConfig, *, settings: str, seed: int, work: Path
) -> list[dict[str, float]]:
    """Train `model` in place; returns the rows of its log (step, loss, learning_rate, grad_norm and the loss's metrics).

    Checkpoints every `config.checkpoint_every` steps in `work`; called again with the same arguments after a kill, it goes
    on from the last whole one and ends with the same weights as an uninterrupted run. A checkpoint of other settings, seed,
    first model or data is deleted, not used. The caller removes `work` when the model is saved.

    With `config.lora` only adapters are trained, and merged into the weights at the end. With shards (fsdp, deepspeed) the
    weights are gathered into `model` on the first process alone, which is the one that saves.

    Args:
        model: on any device.
        examples: what it learns from.
        loss: of a micro-batch.
        config: steps, batches, optimiser.
        settings: whatever else decides the loss, as text: the stage's whole section. Part of a checkpoint's identity.
        seed: of order and dropout.
        work: folder for checkpoints.

    Raises:
        ConfigError: shards in a single process, or a package that the configuration needs and that is not there.
        DataError: no examples.
    """
    set_seed(derived_seed(seed, "training") % 2**32)
    adapters = _add_adapters(model, config.lora) if config.lora is not None else None
    world = world_size()
    accumulation = 1
    if config.batch_size is not None and config.micro_batch_size is not None:
        accumulation = max(1, math.ceil(config.batch_size / (config.micro_batch_size * world)))
    batches = _StepBatches(examples, config, world * accumulation, seed)
    arguments = training_arguments(config, accumulation, world, seed, work)
    arguments._n_gpu = min(1, arguments.n_gpu)  # one process, one device: DataParallel would take several steps' batches for one
    if arguments.world_size != world:
        raise RuntimeError(f"{arguments.world_size} processes by the Trainer's count, but torchrun says WORLD_SIZE={world}")
    identity = _identity(model, batches, config, settings, seed, world)

    def last_checkpoint() -> Path | None:
        keep_own_work(work, identity)
        return _last_whole_checkpoint(work)

    checkpoint = from_first_process(last_checkpoint)
    sharded = config.fsdp is not None or config.deepspeed is not None
    trainer = _Trainer(
        model=copy.deepcopy(model) if sharded else model,  # shards replace the weights of what is trained
        args=arguments,
        train_dataset=batches,
        data_collator=lambda parts: parts[0],
        loss=loss,
        callbacks=[_PlainLines(), _MarkWhole()],
    )
    trainer.remove_callback(PrinterCallback)
    if checkpoint:
        logger.info("resuming from %s", checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if sharded:
        state = trainer.accelerator.get_state_dict(trainer.model_wrapped)  # every process takes part, the first one gets it
        if first_process():
            model.load_state_dict(state)
    if adapters is not None:
        _merge_adapters(model, adapters)
    keys_out = ("epoch", "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos", "train_loss")
    return [{key: value for key, value in row.items() if key not in keys_out} for row in trainer.state.log_history if "loss" in row]


def training_arguments(config: TrainingConfig, accumulation: int, world: int, seed: int, work: Path) -> TrainingArguments:
    """What the Trainer of each of `world` processes is told.

    Raises:
        ConfigError: shards in a single process, or without DeepSpeed where it is asked for.
    """
    if config.fsdp is not None and world == 1:
        raise ConfigError(
            "training.fsdp puts a model into shards over several processes, but there is one; "
            "give the stage more than one in `gpus` of config/config.yaml (or start it by torchrun), or remove fsdp"
        )
    if config.deepspeed is not None and not importlib.util.find_spec("deepspeed"):
        raise ConfigError("training.deepspeed needs the package deepspeed: pip install deepspeed")
    shards: dict[str, Any] = {}
    if config.fsdp is not None:
        shards = {"fsdp": True, "fsdp_config": dict(config.fsdp)}
    elif config.deepspeed is not None:
        shards = {"deepspeed": copy.deepcopy(config.deepspeed)}
    for name in ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"):
        os.environ.pop(name, None)  # on CPUs accelerate would take the tasks of a job for processes of this training
    return TrainingArguments(
        output_dir=str(work),
        max_steps=config.steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=accumulation,
        learning_rate=config.learning_rate,
        **_schedule(config),
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        adam_beta1=config.adam_beta1,
        adam_beta2=config.adam_beta2,
        max_grad_norm=config.max_grad_norm,
        bf16=config.precision == "bf16",
        activation_checkpointing=config.gradient_checkpointing,
        dataloader_pin_memory=torch.cuda.is_available(),
        optim="adamw_torch_fused",
        logging_steps=config.log_every,
        save_strategy="steps",
        save_steps=config.checkpoint_every,
        save_total_limit=2,  # the one before stays until the new one is whole
        report_to=[],
        remove_unused_columns=False,
        dataloader_num_workers=0,
        disable_tqdm=not sys.stderr.isatty(),
        seed=derived_seed(seed, "training") % 2**32,
        use_cpu=not torch.cuda.is_available(),  # without it, processes on CPUs would each train alone, and bf16 be refused
        **shards,
    )


def _schedule(config: TrainingConfig) -> dict[str, Any]:
    """Warm-up, then polynomial decay to the last learning rate; the library has another name for a decay to the first one."""
    if config.final_learning_rate_ratio == 1:
        return {"lr_scheduler_type": "constant_with_warmup"}
    last = config.learning_rate * config.final_learning_rate_ratio
    return {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": last, "power": config.decay_power}}


def _adapted(model: nn.Module) -> nn.Module:
    """The part of a model that gets adapters: all of a language model, the backbone of a critic, whose new head is trained whole."""
    backbone = getattr(model, "backbone", None)
    return backbone if isinstance(backbone, nn.Module) else model


def _add_adapters(model: nn.Module, config: LoraConfig) -> Any:
    """Put low-rank adapters beside the linear layers of `model`, in place; they alone are trained, and a critic's head."""
    try:
        from peft import LoraConfig as Settings
        from peft import LoraModel
    except ImportError:
        raise ConfigError("training.lora needs the package peft: pip install 'coderl[lora]'") from None
    settings = Settings(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=config.modules or "all-linear", bias="none"
    )  # fmt: skip
    try:
        adapters = LoraModel(_adapted(model), {"default": settings}, "default")
    except ValueError as error:
        raise ConfigError(f"training.lora: {' '.join(str(error).split()):.300}") from None
    counts = [sum(p.numel() for p in model.parameters() if p.requires_grad), sum(p.numel() for p in model.parameters())]
    logger.info("adapters: %d of %d weights are trained", *counts)
    return adapters


def _merge_adapters(model: nn.Module, adapters: Any) -> None:
    """Add the adapters' products to the weights and take the adapters out, in place."""
    adapters.merge_and_unload()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    if hasattr(_adapted(model), "peft_config"):
        del _adapted(model).peft_config


class _MarkWhole(TrainerCallback):
    """Marks a checkpoint when all of it is written: a process killed while it writes leaves one that must not be used."""

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.barrier()
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / _WHOLE).touch()


def _last_whole_checkpoint(work: Path) -> Path | None:
    found = {int(path.parent.name.rpartition("-")[2]): path.parent for path in work.glob(f"checkpoint-*/{_WHOLE}")}
    return found[max(found)] if found else None


def _identity(model: nn.Module, batches: _StepBatches, config: TrainingConfig, settings: str, seed: int, world: int) -> str:
    """What a checkpoint must have been made from to be continued: settings, seed, first weights and data.

    Of the data: how many examples there are, the lengths of up to ten thousand, and all that the first steps learn from.
    """
    digest = hashlib.sha256(f"{section_json(config)} {settings} {seed} {world}".encode())
    for parameter in model.parameters():
        digest.update(parameter.detach().float().cpu().numpy().tobytes())
    some = batches.items[:: max(1, len(batches.items) // 10_000)]
    digest.update(repr([len(batches.items), *(batches.examples.lengths(item) for item in some)]).encode())
    for chosen in batches.batches[:_STEPS_IN_IDENTITY]:
        for key, value in sorted(batches.examples.collate([batches.items[i] for i in chosen]).items()):
            digest.update(f"{key} {tuple(value.shape)}".encode() + value.numpy().tobytes())
    return digest.hexdigest()


def keep_own_work(work: Path, identity: str) -> None:
    """Make `work`, and empty it first if what is in it was made from something else than `identity` says."""
    mark = work / "identity"
    if work.exists() and (not mark.exists() or mark.read_text() != identity):
        shutil.rmtree(work)
    work.mkdir(parents=True, exist_ok=True)
    mark.write_text(identity)


def program_cross_entropy(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """The Loss of supervised stages: cross entropy of program_ids, mean over the tokens of the step (spec 2.3)."""
    logits = program_logits(model, batch["prompt_ids"], batch["prompt_mask"], batch["program_ids"])
    return cross_entropy_sum(logits, batch["program_ids"]) / batch["normaliser"], {}


@contextmanager
def model_folder(output: Path, work: Path | None = None) -> Iterator[Path]:
    """A temporary folder that becomes `output` when the block ends well; nothing half-written is ever seen there.

    `work`, the folder of checkpoints, is removed then. Of several processes only the first one comes here.
    `<output>.sha256` beside it lists the hashes of its files, as sha256sum
    does: engines that see only the time of a folder decide by this file whether the model is another one.
    """
    temporary = output.with_name(f".{output.name}.{os.getpid()}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if output.exists():
            shutil.rmtree(output)
        _readable(temporary)
        temporary.rename(output)
        keep(output)
        _seal(output)
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _readable(folder: Path) -> None:
    """The permissions that other files get: weights are written through a temporary file, which is its owner's alone."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(0o666 & ~mask)


def _seal(folder: Path) -> None:
    """Write <folder>.sha256. Left out: provenance.json, which names the hour and not the model."""
    lines = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "provenance.json"):
        with open(path, "rb") as content:
            lines.append(f"{hashlib.file_digest(content, 'sha256').hexdigest()}  {path.relative_to(folder.parent).as_posix()}\n")
    with atomic_path(folder.with_name(f"{folder.name}.sha256")) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def write_log(folder: Path, rows: Sequence[dict[str, float]]) -> None:
    """The training log as `training_log.csv`, one row per logged step."""
    columns = ["step", *sorted({key for row in rows for key in row} - {"step"})]
    with open(folder / "training_log.csv", "w", newline="", encoding="utf-8") as out:
        writer = csv.DictWriter(out, columns, restval="")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()})


def read_log(folder: Path) -> list[dict[str, float]]:
    """The rows that `write_log` wrote."""
    with open(folder / "training_log.csv", newline="", encoding="utf-8") as lines:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(lines)]
