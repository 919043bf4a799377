"""Speed of coderl.training beside transformers' Trainer: same model, examples, optimiser and tokens a step, one process.

    OMP_NUM_THREADS=1 python benchmarks/training/training_speed.py

Prints real tokens (source and target, without padding) trained per CPU second: ours, the Trainer with batches of one length
(`group_by_length`, which sorts by the length of the source) and the Trainer as it comes. Examples are those of the mini run's pretraining.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from coderl.config import TrainingConfig, load_run
from coderl.corpus.stage import make_corpus
from coderl.objectives import IGNORED
from coderl.pretraining import PretrainingExamples, make_windows, new_model, train_tokenizer
from coderl.records import read_rows
from coderl.training import program_cross_entropy, train

ROOT = Path(__file__).parents[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    run = load_run(ROOT / "config/runs/mini.yaml")
    assert run.corpus is not None
    assert run.pretrain is not None
    config = run.pretrain
    with tempfile.TemporaryDirectory() as folder:
        corpus = run.corpus.model_copy(update={"procedural_files": arguments.files, "sources": ["procedural"]})
        path = Path(folder) / "corpus.parquet"
        make_corpus(config=corpus, procedural=run.procedural, decontaminate=[], seed=1, output=path, statistics=Path(folder) / "s.csv")
        texts = [str(row["text"]) for _, row in read_rows(path)]
        tokenizer = train_tokenizer(iter(texts), config.tokenizer)
        size = config.lengths.max_source_tokens + config.lengths.max_target_tokens - 4
        windows = {"msp": make_windows(texts, tokenizer, config.lengths.max_source_tokens - 2, config.pack)}
        windows["ntp"] = make_windows(texts, tokenizer, size, False)
        training = config.phases[0].training.model_copy(update={"steps": arguments.steps, "checkpoint_every": 10**6})
        seen = {"tokens": 0}

        examples = PretrainingExamples(windows, tokenizer, config.phases[0], config, seed=1)

        def counted(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            # In the loss, not where batches are made: the first ones are also made to recognise a checkpoint.
            seen["tokens"] += int(batch["prompt_mask"].sum()) + int((batch["program_ids"] != IGNORED).sum())
            return program_cross_entropy(model, batch)

        def ours() -> None:
            with tempfile.TemporaryDirectory() as work:
                model = new_model(config.architecture, tokenizer)
                train(model, examples, counted, training, settings="", seed=1, work=Path(work) / "work")

        def theirs(strategy: str, programs: int) -> Callable[[], None]:
            return lambda: _with_trainer(new_model(config.architecture, tokenizer), examples, tokenizer, training, strategy, programs, seen)

        batches = arguments.steps
        ours()  # warm, and how many programs our steps hold
        per_item = statistics.mean(sum(examples.lengths(item)) for item in examples.epoch(0)[:2000])
        programs = max(1, round(seen["tokens"] / batches / per_item))
        kinds = {"ours": ours, "group_by_length": theirs("group_by_length", programs), "random": theirs("random", programs)}
        rates: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(arguments.rounds):
            for name, run_once in kinds.items():
                seen["tokens"] = 0
                started = time.process_time()
                run_once()
                rates[name].append(seen["tokens"] / (time.process_time() - started))
    print(f"{programs} programs of {per_item:.0f} tokens a step; real tokens trained per CPU second, median (range) of {arguments.rounds}:")
    for name, found in rates.items():
        ratio = statistics.median(a / b for a, b in zip(rates["ours"], found, strict=True))
        print(f"  {name}: {statistics.median(found):.0f} ({min(found):.0f} to {max(found):.0f}); ours is {ratio:.2f} times this")


def _with_trainer(
    model: Any, examples: PretrainingExamples, tokenizer: Any, training: TrainingConfig, strategy: str, programs: int, seen: dict[str, int]
) -> None:
    """As many steps by transformers' Trainer, with its own seq2seq collator."""
    pairs = [examples.pair(item) for item in examples.epoch(0)]
    rows = [{"input_ids": source, "attention_mask": [1] * len(source), "labels": target} for source, target in pairs]
    pad = DataCollatorForSeq2Seq(tokenizer, model=model)

    def counted(features: list[dict[str, Any]]) -> Any:
        batch = pad(features)
        seen["tokens"] += int(batch["attention_mask"].sum()) + int((batch["labels"] != IGNORED).sum())
        return batch

    with tempfile.TemporaryDirectory() as work:
        arguments = TrainingArguments(
            output_dir=work, max_steps=training.steps, per_device_train_batch_size=programs, learning_rate=training.learning_rate,
            weight_decay=training.weight_decay, adam_beta2=training.adam_beta2, max_grad_norm=training.max_grad_norm,
            optim="adamw_torch_fused", train_sampling_strategy=strategy, save_strategy="no", report_to=[], disable_tqdm=True,
            logging_steps=training.log_every, use_cpu=True,
        )  # fmt: skip
        Trainer(model=model, args=arguments, train_dataset=rows, data_collator=counted).train()  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
