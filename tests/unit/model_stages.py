"""A base model through every stage that trains or samples, on made-up outcomes: for tests of what kinds of models fit.

Programs of random models pass no test, so outcomes are dealt out in turn, and in critical sampling by the program's length.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_run import outcome_row
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, RobertaTokenizer, T5Config, T5ForConditionalGeneration

from coderl import critical_sampling
from coderl.config import (
    CriticalSampleConfig,
    DecodingConfig,
    LengthsConfig,
    PolicyVariant,
    PromptConfig,
    RlFinetuneConfig,
    RunTestsConfig,
    SampleSetConfig,
    ScoreConfig,
    TrainCriticConfig,
    TrainingConfig,
    TrainRepairConfig,
    WarmStartConfig,
)
from coderl.critic import read_values, score, train_critic
from coderl.critical_sampling import critical_sample
from coderl.models import OutcomeCritic, load_actor
from coderl.pretraining import add_sentinels
from coderl.problems import InputOutputTests, Problem, write_problems
from coderl.records import OUTCOMES, Sample, read_samples, write_outcomes
from coderl.repair import train_repair
from coderl.rl import rl_finetune
from coderl.sampling import sample
from coderl.warm_start import warm_start

CODET5 = Path(__file__).resolve().parents[3] / "shared" / "data" / "codet5_tokenizer"

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def codet5_tokenizer() -> Any:
    """CodeT5's published tokenizer files, with the 100 sentinels that its models have (spec 1.2)."""
    if not CODET5.exists():
        pytest.skip("CodeT5's tokenizer is not beside the checkout")
    tokenizer = RobertaTokenizer(
        vocab=str(CODET5 / "codet5-vocab.json"), merges=str(CODET5 / "codet5-merges.txt"), clean_up_tokenization_spaces=False
    )  # fmt: skip
    return add_sentinels(tokenizer, 100)


def codet5(layers: int, d_model: int, d_ff: int, heads: int) -> T5ForConditionalGeneration:
    """Random weights in a shape of spec 1.6, with CodeT5's ids."""
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=32100, d_model=d_model, d_kv=64, d_ff=d_ff, num_layers=layers, num_heads=heads, dropout_rate=0.1,
            feed_forward_proj="relu", pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=0, tie_word_embeddings=True,
        )
    )  # fmt: skip


def chat_tokenizer() -> Any:
    """One token per byte, and an instruct model's special tokens and template; texts get no special tokens by themselves."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate([*special, *alphabet])}, [], unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", unk_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE, clean_up_tokenization_spaces=False,
    )  # fmt: skip


def stage_problems() -> list[Problem]:
    """Six problems on standard input, with references and both suites of tests."""
    tests = InputOutputTests("stdin", ["1\n"], ["1\n"])
    return [
        Problem(f"p/{i}", "custom", "train", "introductory", f"Print {i} times the number.", "", None, [f"print({i} * int(input()))\n"],
                tests, tests)
        for i in range(6)
    ]  # fmt: skip


def through_all_stages(
    base: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    style: str = "canonical",
    lengths: LengthsConfig,
    training: TrainingConfig,
    stop: list[str] | None = None,
) -> dict[str, Any]:
    """Every stage once; returns what the caller may look at further: folders, samples, values.

    Asserted here: sampled programs carry likelihoods, values fit the tokens, training moved the weights, and critical sampling
    refined and repaired.
    """
    problems = stage_problems()
    table = folder / "problems.jsonl"
    write_problems(table, problems)
    prompt, work = PromptConfig(style=style), folder / "work"
    decoding = DecodingConfig(temperature=1.0, top_p=1.0, stop=stop or [])
    sampling = SampleSetConfig(samples_per_problem=4, greedy=True, decoding=decoding, batch_problems=3)

    def model(name: str) -> Path:
        return folder / name

    warm_start(
        config=WarmStartConfig(prompt=prompt, lengths=lengths, training=training), problems=table, base_model=str(base), seed=1,
        output=model("actor"), work=work,
    )  # fmt: skip
    drawn = folder / "samples.jsonl.gz"
    sample(config=sampling, prompt=prompt, lengths=lengths, model=model("actor"), problems=table, shard=0, seed=1, output=drawn)
    samples = read_samples([drawn])
    assert len(samples) == 6 * 5
    assert all(np.isfinite(row.log_likelihood) and row.n_tokens for row in samples)

    hidden, references = folder / "hidden.jsonl.gz", folder / "references.jsonl.gz"
    write_outcomes(hidden, [outcome_row(row.task_id, row.sample_id, "hidden", OUTCOMES[row.sample_id % 4]) for row in samples])
    write_outcomes(references, [outcome_row(problem.task_id, 0, "hidden", "passed_test") for problem in problems])
    common: dict[str, Any] = {"problems": table, "samples": [drawn], "outcomes": [hidden], "seed": 1, "work": work}
    critic = TrainCriticConfig(prompt=prompt, lengths=lengths, training=training, validation_share=0.2)
    for name, classes in (("critic", 4), ("binary_critic", 2)):
        train_critic(
            config=critic, classes=classes, reference_outcomes=[references], base_model=str(model("actor")), output=model(name), **common
        )  # fmt: skip
    score(config=ScoreConfig(), critic=model("critic"), problems=table, samples=[drawn], output=folder / "values.parquet")
    values = read_values(folder / "values.parquet")
    assert set(values) == {(row.task_id, row.sample_id) for row in samples}
    assert all(np.allclose(each.sum(1), 1, atol=0.01) for each in values.values())
    train_repair(
        config=TrainRepairConfig(prompt=prompt, lengths=lengths, training=training), reference_outcomes=[references],
        base_model=str(model("actor")), output=model("repair"), **common,
    )  # fmt: skip
    rl = RlFinetuneConfig(prompt=prompt, lengths=lengths, variants={"rl": PolicyVariant(training=training)})
    rl_finetune(
        config=rl, variant="rl", actor=model("actor"), values=folder / "values.parquet", output=model("policy"), **common
    )  # fmt: skip
    start, end = (load_actor(model(name)).state_dict() for name in ("actor", "policy"))
    assert any(not start[name].equal(end[name]) for name in start)

    def judge(asked: list[Problem], rows: list[Sample], config: RunTestsConfig, *, suite: str) -> list[Any]:
        """Of even problems every other program passes; of odd ones none does, until it is repaired."""
        assert suite == "example"
        passing = [int(row.task_id[2:]) % 2 == 0 or row.kind == "repair" for row in rows]
        return [
            outcome_row(row.task_id, row.sample_id, "example", "passed_test" if good and row.sample_id % 2 else "runtime_error", 1)
            for row, good in zip(rows, passing, strict=True)
        ]

    monkeypatch.setattr(critical_sampling, "judge_samples", judge)
    critical_sample(
        config=CriticalSampleConfig(batch=4, repair_candidates=2, batch_problems=6, decoding=decoding, repair_decoding=decoding),
        prompt=prompt, lengths=lengths, repair_lengths=lengths, repair_prompt=prompt, run_tests=RunTestsConfig(), policy=model("policy"),
        critic=model("binary_critic"), repair_model=model("repair"), problems=table, shard=0, seed=1, output=folder / "critical.jsonl.gz",
    )  # fmt: skip
    critical = read_samples([folder / "critical.jsonl.gz"])
    kinds = {kind: {row.task_id for row in critical if row.kind == kind} for kind in ("sample", "repair", "refine")}
    assert len(kinds["sample"]) == len(kinds["refine"]) == 6
    assert kinds["repair"] == {"p/1", "p/3", "p/5"}
    assert OutcomeCritic.load(model("binary_critic")).settings.prompt_style == style
    assert json.loads((model("critic") / "metrics.json").read_text(encoding="utf-8"))
    return {"folder": folder, "samples": samples, "values": values, "critical": critical}
