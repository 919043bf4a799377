"""Configuration: one pydantic model per stage, the file `config/runs/<run>.yaml` read into them.

Every key has a default with a source: a section of the CodeRL specification ("spec", see docs/paper_index.md) or
"ours" with a reason. An unknown key is an error that names the nearest valid one. The JSON schema in
`workflow/schemas/` is generated from these models, so that editors complete the YAML.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

Difficulty = Literal["introductory", "interview", "competition"]
DIFFICULTIES: tuple[str, ...] = ("introductory", "interview", "competition")


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the file, the key and what to write instead."""


Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0)]
Name = Annotated[str, Field(min_length=1)]


def _leaves(annotation: Any) -> Iterator[Any]:
    """The types inside a type such as `dict[str, list[int]] | None`."""
    parts = get_args(annotation)
    if not parts:
        yield annotation
    for part in parts:
        yield from _leaves(part)


def _scalars(value: Any) -> Iterator[Any]:
    """What a value of lists and mappings holds."""
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _scalars(item)
    else:
        yield value


class Section(BaseModel):
    """A configuration section: immutable; unknown keys are errors, and so are numbers that are infinite, true or beyond 64 bits."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        leaves = list(_leaves(cls.model_fields[str(info.field_name)].annotation))
        if bool in leaves or any(isinstance(leaf, type) and issubclass(leaf, BaseModel) for leaf in leaves):
            return value  # a section checks its own
        for item in _scalars(value):
            if isinstance(item, bool) and (int in leaves or float in leaves):
                raise ValueError("needs a number; YAML reads yes, no, on and off as true or false")
            if isinstance(item, int | float) and int in leaves and abs(item) >= 2**63:
                raise ValueError("needs a number of at most 64 bits")
        return value


def _distinct(key: str, values: Iterable[Any]) -> None:
    seen = []
    for value in values:
        if value in seen:
            raise ValueError(f"{key} has {value!r} twice; remove one")
        seen.append(value)


# --------------------------------------------------------------------------------------------------- data


class ProceduralConfig(Section):
    """The procedural benchmark: lists of integers through 1 to 3 (or more) transforms and one output."""

    seed: int = Field(0, description="Draw of the benchmark; independent of how many problems are drawn.")
    transforms: list[str] | None = Field(None, min_length=1, description="Names of the transforms in use; null = all of them.")
    outputs: list[str] | None = Field(None, min_length=1, description="Names of the output operations in use; null = all of them.")
    depths: dict[Difficulty, Annotated[list[Count], Field(min_length=1)]] = Field(
        default={"introductory": [1], "interview": [2], "competition": [3]},
        min_length=1,
        description="Number of transforms per difficulty.",
    )
    phrasings: int = Field(2, ge=1, description="Phrasings per operation in the statements.")
    call_based_share: float = Field(0.3, ge=0, le=1, description="Share of problems that ask for a function.")
    example_tests: int = Field(2, ge=1, description="Tests printed in the statement.")
    hidden_tests: int = Field(10, ge=1, description="Tests that decide the outcome.")
    solutions: int = Field(3, ge=1, description="Distinct reference solutions per problem.")
    held_out_share: float = Field(0.2, gt=0, lt=1, description="Share of compositions reserved for test problems.")


class ProblemPart(Section):
    """Problems of one benchmark and split."""

    benchmark: Literal["procedural", "apps", "mbpp", "humaneval", "leetcode", "jsonl"] = Field(
        "procedural", description="jsonl = rows of your own; docs/problem_rows.md has all of them."
    )
    source: Name | None = Field(
        None,
        description="File or folder of the raw problems, relative to the working directory, or a parquet data set of the hub, "
        "owner/name[:configuration][@revision]. Not for procedural.",
    )
    split: Literal["train", "validation", "test"] = "train"
    size: int | None = Field(None, ge=1, description="Number of problems; null = all (required for procedural).")
    with_solutions: int | None = Field(
        None,
        ge=0,
        description="Only the first N problems keep their reference solutions; null = all. APPS too has problems with tests only.",
    )
    shown_asserts: int | None = Field(
        None,
        ge=1,
        description="mbpp: how many of a problem's asserts its statement shows; these are its example tests then. null = it shows all "
        "of them (spec 8.8), so that there are no example tests: they would be the hidden ones. Ours.",
    )


class ProblemSetConfig(ProblemPart):
    """One file of problems, `problems/<name>.parquet`."""

    parts: list[ProblemPart] = Field(
        default=[], description="Several benchmarks as one set, one after the other, in place of benchmark, source, split and size. Ours."
    )
    difficulty_shares: dict[Difficulty, Share] = Field(
        default={"introductory": 0.4, "interview": 0.4, "competition": 0.2},
        min_length=1,
        description="Shares of the difficulties; procedural only.",
    )

    skip_bad_rows: bool = Field(False, description="Leave out rows that cannot be read, and list them in the log; false = an error.")

    @field_validator("difficulty_shares")
    @classmethod
    def _some_share(cls, value: dict[Difficulty, float]) -> dict[Difficulty, float]:
        if not sum(value.values()):
            raise ValueError("give at least one difficulty a share above 0")
        return value


class CorpusConfig(Section):
    """Pretraining data. Licences: spec 1.1; the quality filters are named and optional (spec 1.1, ours)."""

    sources: list[Name] = Field(
        default=["procedural", "stdlib"],
        min_length=1,
        description="'procedural' (generated files), 'stdlib' (of the running interpreter), or paths: folders of .py, .jsonl, .parquet.",
    )
    procedural_files: int = Field(24000, ge=0, description="Generated files; never a held-out composition, never in statement form.")
    stdlib_files: int | None = Field(None, ge=0, description="At most this many files of the standard library; null = all.")
    licenses: list[Name] = Field(
        default=["mit", "apache-2.0", "bsd-3-clause", "bsd-2-clause", "cc0-1.0", "unlicense", "isc"],
        min_length=1,
        description="Allow-list, spec 1.1; compared in lower case. The mini run adds psf-2.0, of the standard library.",
    )
    default_license: Name | None = Field(None, description="Licence of files in folders, which carry no licence column.")
    max_characters: int = Field(100_000, ge=1, description="Longer files are dropped.")
    min_characters: int = Field(20, ge=0, description="Shorter files are dropped.")
    max_line_length: int = Field(1000, ge=1, description="codeparrot-clean's filter, spec 1.1.")
    max_mean_line_length: float = Field(100.0, gt=0, description="github-code-clean's filter, spec 1.1.")
    min_alphanumeric_fraction: float = Field(0.25, ge=0, le=1, description="github-code-clean's filter, spec 1.1.")
    drop_autogenerated: bool = Field(True, description="Drop files whose first lines say that they are generated, spec 1.1.")
    must_parse: bool = Field(True, description="Drop files that Python 3 cannot parse; ours: broken code teaches broken code.")
    near_duplicates: bool = Field(
        True, description="MinHash deduplication of files from real sources; ours (spec 1.1 states none beyond exact)."
    )
    near_duplicate_threshold: float = Field(0.85, gt=0, le=1, description="Estimated Jaccard similarity of token 5-shingles.")
    decontaminate_ngram: int = Field(
        16,
        ge=4,
        description="A file that shares this many consecutive code tokens with a test problem's solution or statement is dropped; ours.",
    )

    @model_validator(mode="after")
    def _some_length_is_allowed(self) -> CorpusConfig:
        if self.min_characters > self.max_characters:
            raise ValueError(f"min_characters is {self.min_characters}, more than max_characters, {self.max_characters}")
        return self


# --------------------------------------------------------------------------------------------------- training


class LoraConfig(Section):
    """Low-rank adapters in place of full fine-tuning (peft); merged into the weights when training ends, so that later stages see none."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, gt=0, description="The adapters' product counts alpha / rank times.")
    dropout: float = Field(0.0, ge=0, lt=1)
    modules: list[Name] | None = Field(
        None, min_length=1, description="Names of layers that get one; null = all linear ones but the output's."
    )


class TrainingConfig(Section):
    """How one model is trained: shared by all training stages."""

    steps: int = Field(..., ge=1, description="Optimiser steps.")
    batch_size: int | None = Field(None, ge=1, description="Sequences per optimiser step over all devices; this or batch_tokens.")
    batch_tokens: int | None = Field(
        None, ge=1, description="Padded source + target tokens per optimiser step, length-bucketed; this or batch_size."
    )
    micro_batch_size: int | None = Field(None, ge=1, description="Sequences per forward pass and device; null = the whole step at once.")
    learning_rate: float = Field(2e-5, gt=0, description="Peak; spec 2.5.")
    warmup_steps: int = Field(0, ge=0)
    final_learning_rate_ratio: float = Field(0.1, ge=0, le=1, description="Learning rate at the last step over the peak.")
    decay_power: float = Field(1.0, gt=0, description="Polynomial decay; 0.5 in spec 2.5, 1 = linear.")
    weight_decay: float = Field(0.05, ge=0, description="Spec 0.2.")
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.98, ge=0, lt=1)
    max_grad_norm: float = Field(1.0, gt=0, description="Spec 6.3.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="No fp16: T5 overflows in it, spec 1.6.")
    gradient_checkpointing: bool = False
    lora: LoraConfig | None = Field(None, description="null = all weights are trained. Needs the extra `lora`. Ours.")
    fsdp: dict[str, Any] | None = Field(
        None,
        description="Weights, gradients and optimiser in shards over the processes of torchrun: `fsdp_config` of transformers' "
        "TrainingArguments, passed on as it is; {} = its defaults. null = every process holds all of them. Ours.",
    )
    deepspeed: dict[str, Any] | None = Field(
        None, description="The same by DeepSpeed: its configuration, passed on as it is; 'auto' values are filled in. Ours."
    )
    checkpoint_every: int = Field(500, ge=1, description="Steps between checkpoints from which a killed run resumes.")
    log_every: int = Field(50, ge=1)

    @model_validator(mode="after")
    def _one_batch_size(self) -> TrainingConfig:
        if (self.batch_size is None) == (self.batch_tokens is None):
            raise ValueError("give exactly one of batch_size and batch_tokens")
        if self.batch_size is None and self.micro_batch_size is not None:
            raise ValueError("micro_batch_size divides batch_size, which is null; batch_tokens is not divided")
        return self

    @model_validator(mode="after")
    def _one_kind_of_shards(self) -> TrainingConfig:
        if self.fsdp is not None and self.deepspeed is not None:
            raise ValueError("give fsdp or deepspeed, not both")
        if self.lora is not None and (self.fsdp is not None or self.deepspeed is not None):
            raise ValueError("lora trains few weights and needs no shards: remove fsdp or deepspeed, or lora")
        return self

    @model_validator(mode="after")
    def _warm_up_ends(self) -> TrainingConfig:
        if self.warmup_steps > self.steps:
            raise ValueError(f"warmup_steps is {self.warmup_steps}, more than steps, {self.steps}")
        return self


class LengthsConfig(Section):
    """Token limits, special tokens included (spec 0.2)."""

    max_source_tokens: int = Field(600, ge=8)
    max_target_tokens: int = Field(512, ge=8)


class PromptConfig(Section):
    """The one prompt builder's form (spec 2.2)."""

    style: Literal["canonical", "chat", "legacy_train", "legacy_generation"] = Field(
        "canonical",
        description="canonical = the same string in training, sampling and scoring; chat (ours) = the statement inside the chat template "
        "of an instruct model, the answer opened as a block of code; the legacy forms are CodeRL's two, byte for byte.",
    )


class ArchitectureConfig(Section):
    """A T5 encoder-decoder from scratch (spec 1.6); for a pretrained model use `base_model` instead."""

    d_model: int = Field(64, ge=1)
    d_ff: int = Field(256, ge=1)
    heads: int = Field(4, ge=1)
    d_kv: int = Field(16, ge=1)
    encoder_layers: int = Field(2, ge=1)
    decoder_layers: int = Field(2, ge=1)
    dropout: float = Field(0.0, ge=0, lt=1)
    relative_attention_buckets: int = Field(32, ge=4)
    relative_attention_max_distance: int = Field(128, ge=3, description="Above half of relative_attention_buckets: nearer ones are exact.")

    @model_validator(mode="after")
    def _far_buckets_have_room(self) -> ArchitectureConfig:
        if self.relative_attention_max_distance <= self.relative_attention_buckets // 2:
            raise ValueError(
                f"relative_attention_max_distance is {self.relative_attention_max_distance}; "
                f"give more than half of relative_attention_buckets, {self.relative_attention_buckets}"
            )
        return self


SMALLEST_VOCABULARY = 256 + 5
"""Bytes and special tokens: what a byte-level vocabulary has before anything is learnt."""


class TokenizerConfig(Section):
    """Byte-level BPE as CodeT5's (spec 1.2), trained on the corpus and the train prompts, or loaded."""

    path: Name | None = Field(None, description="Folder or hub id of a tokenizer to load instead of training one.")
    vocabulary_size: int = Field(
        32000, ge=SMALLEST_VOCABULARY + 1, description="All entries: 256 bytes, 5 special tokens, sentinels, merges."
    )
    min_frequency: int = Field(3, ge=1)
    sentinels: int = Field(100, ge=1, description="Number of <extra_id_*> tokens.")

    @model_validator(mode="after")
    def _bytes_fit(self) -> TokenizerConfig:
        if self.path is None and self.vocabulary_size < SMALLEST_VOCABULARY + self.sentinels:
            raise ValueError(
                f"vocabulary_size is {self.vocabulary_size}; {self.sentinels} sentinels beside bytes and special tokens need at least "
                f"{SMALLEST_VOCABULARY + self.sentinels}"
            )
        return self


class PretrainPhase(Section):
    """One stretch of pretraining; the paper's are msp, then ntp (spec 1.5). Several objectives = mixed by weight."""

    objectives: dict[Literal["msp", "ntp"], Annotated[float, Field(gt=0)]] = Field(
        ..., min_length=1, description="Weights of the objectives; one that is not named is not trained."
    )
    training: TrainingConfig


class PretrainConfig(Section):
    """Masked span prediction and next-token prediction (spec 1.3, 1.4)."""

    seed: int | None = Field(
        None,
        ge=0,
        description="Of the corpus, the tokenizer and the base model; null = the run's own. Runs that name the same one, and are alike "
        "in these sections, start from the same base model (ours).",
    )
    architecture: ArchitectureConfig = ArchitectureConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    lengths: LengthsConfig = LengthsConfig(max_source_tokens=768, max_target_tokens=600)
    pack: bool = Field(True, description="Join short files to full windows for masked span prediction, spec 1.1.")
    mask_rate: float = Field(0.15, gt=0, lt=1, description="Share of the tokens, spec 1.3.")
    max_span: int = Field(5, ge=1, description="Span length uniform in 1..max_span words, spec 1.3.")
    pivot_range: tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]] = Field(
        (0.1, 0.9), description="From and to, as shares of the length; spec 1.4."
    )
    pivot_at_line_end: float = Field(
        0.0, ge=0, le=1, description="Share of next-token pivots moved to a line end; 0 = spec 1.4, the mini run uses 0.6."
    )
    pivot_after_comment: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of next-token pivots put behind a docstring or comment, where there is one, so that the source tells what the "
        "target does, as in CodeT5's text-to-code generation; 0 = spec 1.4. Ours.",
    )
    phases: list[PretrainPhase] = Field(..., min_length=1, description="One after the other; spec 1.5.")

    @field_validator("pivot_range")
    @classmethod
    def _in_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError("the first share must not be above the second")
        return value


class WarmStartConfig(Section):
    """Cross entropy on (problem, solution), spec 2."""

    base_model: Name | None = Field(None, description="Hub id or folder; null = the run's own pretrained model.")
    prompt: PromptConfig = PromptConfig()
    lengths: LengthsConfig = LengthsConfig()
    sampling: Literal["per_problem", "per_solution"] = Field("per_problem", description="Spec 2.4: uniform_prob or uniform_sol.")
    max_solutions_per_problem: int | None = Field(None, ge=1, description="null = all.")
    training: TrainingConfig


# --------------------------------------------------------------------------------------------------- sampling and tests


class DecodingConfig(Section):
    """How tokens are drawn (spec 0.2, 3)."""

    temperature: float = Field(0.6, ge=0, description="0 = greedy.")
    top_p: float = Field(0.95, gt=0, le=1)
    top_k: int = Field(0, ge=0, description="0 = off. CodeRL's generate.py had an implicit 50, spec 3.")
    stop: list[Name] = Field(
        default=[],
        description="A program ends before the first of these texts; ours, for models that write on: '```' closes a chat answer's code.",
    )
    drop_cut_line: bool = Field(
        False, description="A program cut by the length limit loses its last line, which is a part of one; ours, for models that write on."
    )


class SampleSetConfig(Section):
    """Programs drawn for one problem set."""

    samples_per_problem: int = Field(20, ge=1, description="Spec 3: about 20 for train problems.")
    greedy: bool = Field(False, description="One greedy program more per problem: the baseline of spec 6.1.")
    decoding: DecodingConfig = DecodingConfig()
    batch_problems: int = Field(16, ge=1, description="Problems per batch; batches never depend on the number of shards.")
    batch_programs: int | None = Field(
        None,
        ge=1,
        description="Programs of one problem that are drawn at once, for memory; null = all. The greedy one comes beside the last.",
    )
    shards: int = Field(1, ge=1)


class SampleConfig(Section):
    """Programs per problem set; keys are names of problem sets."""

    prompt: PromptConfig = PromptConfig()
    lengths: LengthsConfig = LengthsConfig()
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="Of the weights in sampling, also critical sampling's; bf16 halves the memory. No fp16, spec 1.6."
    )
    sets: dict[str, SampleSetConfig]


class RunTestsConfig(Section):
    """Limits and checker of the sandbox (spec 4; docs/outcomes.md)."""

    checker: Literal["strict", "legacy"] = "strict"
    prelude: Literal["none", "apps"] = Field(
        "none", description="apps = the imports that APPS solutions assume come before every program, spec 4.2; legacy always has them."
    )
    legacy_samples: int = Field(
        0,
        ge=0,
        description="Programs per problem whose hidden tests the legacy checker judges as well, spec 4.8: the first of each problem, "
        "greedy ones aside. For checker strict.",
    )
    behaviour_inputs: int = Field(
        0,
        ge=0,
        description="Inputs made from those of a problem's example tests, on which the programs that pass these are run as well and "
        "grouped by their answers, spec 10.5 (AlphaCode, CodeT); for submission by agreement in the table. 0 = off.",
    )
    backend: Literal["auto", "namespace", "docker", "apptainer"] = Field(
        "auto", description="What keeps programs in; ours: auto = the first that the host allows (docs/outcomes.md)."
    )
    cpu_seconds: float = Field(4.0, gt=0, description="CPU time per test, spec 0.2; wall time is only a backstop.")
    time_policy: Literal["adaptive", "exact"] = Field(
        "adaptive",
        description="exact = cpu_seconds for every program. adaptive (ours, docs/outcomes.md) = less where the problem's own references "
        "are quick, hidden tests only; how many outcomes that changes is measured and in the table.",
    )
    short_cpu_seconds: float = Field(
        0.5, gt=0, description="adaptive: CPU time per test of the first pass. ours: a hundred times what most references need."
    )
    reference_factor: float = Field(
        10.0, ge=1, description="adaptive: times the CPU time that the slowest passing reference needs for all tests. ours."
    )
    exact_checks: int = Field(10, ge=0, description="adaptive: programs per job that were cut and run again with cpu_seconds.")
    memory_mb: int = Field(512, ge=64)
    max_processes: int = Field(16, ge=1)
    max_output_mb: int = Field(10, ge=1)
    max_file_mb: int = Field(32, ge=1)
    stop_at_first_failure: bool = Field(False, description="False = every test runs, so that the share of passed tests is known.")
    workers: int = Field(1, ge=1, description="Judging processes per shard.")

    @model_validator(mode="after")
    def _two_checkers(self) -> RunTestsConfig:
        if self.legacy_samples and self.checker == "legacy":
            raise ValueError("legacy_samples compares the legacy checker with checker 'strict'; set it to 0 or the checker to 'strict'")
        return self


# --------------------------------------------------------------------------------------------------- critic, repair, RL


class TrainCriticConfig(Section):
    """The outcome critic (spec 5)."""

    base_model: Name | None = Field(None, description="Hub id or folder; null = start from the actor.")
    prompt: PromptConfig = PromptConfig()
    lengths: LengthsConfig = LengthsConfig()
    head: Literal["linear", "mlp"] = Field(
        "linear", description="Spec 5.1: paper = linear after pooling; code = two-layer MLP before pooling."
    )
    pooling: Literal["max_hidden", "max_logits", "mean_hidden", "last"] = Field(
        "max_hidden", description="Spec 5.1; pads are always masked (5.2)."
    )
    alignment: Literal["paper", "code"] = Field(
        "paper", description="Value of token t read after (paper) or before (code) the token, spec 5.2."
    )
    hidden_size: int = Field(128, ge=1, description="Of the MLP head, spec 5.1.")
    balance: Literal["none", "class_weights", "within_problem"] = Field(
        "within_problem", description="ours: equal passing and failing programs per problem; spec 5.3 describes none."
    )
    pairwise_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of -log sigmoid(s(passing) - s(failing)) beside the cross entropy, s = log-odds of passing, over the pairs "
        "of one problem (RankNet; ours): cross entropy alone learns which problems are hard. Needs balance within_problem.",
    )
    likelihood: bool = Field(
        False,
        description="The critic also reads what its own backbone, as a language model, gives each token; started from the actor this is "
        "the actor's likelihood (ours). Needs alignment paper.",
    )
    generation_weight: float = Field(
        0.0,
        ge=0,
        description="Weight, beside the loss of the outcomes, of the cross entropy of the passing programs' tokens under the critic's own "
        "backbone: what it takes for likely becomes what passes (ours). Needs likelihood.",
    )
    foreign_programs: int = Field(
        0,
        ge=0,
        description="Per problem, this many programs that pass another problem of a similar statement, as FailedTest examples (ours): "
        "they can only be told by reading the statement. Not executed; a text that passes this problem too is left out.",
    )
    include_references: bool = Field(True, description="Reference solutions that pass are PassedTest examples, spec 5.3.")
    validation_share: float = Field(0.1, gt=0, lt=1, description="Problems (never samples) held out for the metrics.")
    training: TrainingConfig

    @model_validator(mode="after")
    def _options_fit(self) -> TrainCriticConfig:
        if self.pairwise_weight and self.balance != "within_problem":
            raise ValueError("pairwise_weight compares programs of one problem; it needs balance: within_problem")
        if self.likelihood and self.alignment != "paper":
            raise ValueError("likelihood tells of the token that was read; alignment: code values a token before it is read")
        if self.generation_weight and not self.likelihood:
            raise ValueError("generation_weight trains the likelihood that the critic reads; it needs likelihood: true")
        return self


class ScoreConfig(Section):
    """Token values: probabilities of each outcome after every token (spec 5.5)."""

    batch_tokens: int = Field(16384, ge=1)


class TrainRepairConfig(Section):
    """The repair model (spec 7.3)."""

    base_model: Name | None = Field(None, description="Hub id or folder; null = start from the actor.")
    prompt: PromptConfig = Field(PromptConfig(), description="Style chat for instruct models; the other styles are one template here.")
    lengths: LengthsConfig = LengthsConfig(max_source_tokens=800, max_target_tokens=512)
    pairing: Literal["nearest", "random", "all"] = Field(
        "nearest", description="Which correct program is the target: by edit distance (ours), at random, all (RLTF)."
    )
    targets: Literal["references", "references_and_passing"] = Field(
        "references_and_passing", description="Passing samples are correct programs too; needed where problems have tests only (ours)."
    )
    include_message: bool = Field(False, description="Error message in the input beside the subtype, spec 7.3.")
    training: TrainingConfig


PUBLISHED_RECIPE: dict[str, Any] = {
    "losses": "ce+rl",
    "returns": "greedy_relative",
    "values": "critic",
    "token_reduction": "mean",
    "negative_returns": "unbounded",
    "rl_weight": 1.0,
    "ce_on_passing_samples": False,
    "failed_return": "constant",
    "fine_weight": 0.0,
    "clip": None,
    "kl_weight": 0.0,
    "rounds": 1,
}
"""The objective as CodeRL's code has it (spec 6.2, 6.3, 11)."""


class PolicyVariant(Section):
    """One policy: the objective of spec 6 with every open choice a key."""

    recipe: Literal["ours", "published"] = Field(
        "ours", description="published = CodeRL's own value for every key of the objective that is not given (spec 6.2, 6.3)."
    )
    losses: Literal["ce", "rl", "ce+rl", "ce_on_samples"] = Field(
        "ce+rl", description="Spec 6.5; ce_on_samples = CE on samples as if correct."
    )
    returns: Literal["absolute", "greedy_relative", "leave_one_out", "group_normalised"] = Field(
        "greedy_relative", description="Spec 6.2; leave_one_out (RLOO) and group_normalised (GRPO): spec 10.4."
    )
    failed_return: Literal["constant", "share_of_tests"] = Field(
        "constant",
        description="share_of_tests: a FailedTest program returns r(failed) + (r(passed) - r(failed)) * share of passed tests; RLTF's "
        "adaptive feedback, spec 10.2. Needs run_tests.stop_at_first_failure: false.",
    )
    values: Literal["none", "distance", "critic"] = Field("critic", description="q of spec 6.1, 6.5.")
    token_reduction: Literal["sum", "mean", "program_mean"] = Field(
        "program_mean",
        description="Spec 11: the paper sums over a program's tokens, the code averages over all tokens of the step (mean); "
        "program_mean (ours) averages within each program.",
    )
    negative_returns: Literal["unbounded", "bounded"] = Field(
        "bounded",
        description="bounded: for negative returns the gradient of p, not of log p; the published form destroys small models (spec 6.4).",
    )
    negative_weight: float = Field(0.2, ge=0, description="Factor on negative returns when bounded; ours, from the mini recipe.")
    rl_weight: float = Field(1.0, ge=0, description="Weight of L_rl beside L_ce; 1 in spec 6.1.")
    fine_weight: float = Field(
        0.0,
        ge=0,
        description="Weight of RLTF's fine-grained feedback, spec 10.2: return -0.3 on the tokens of the line where an error arose "
        "(all of them for time, recursion and truncation), times length / length of the line.",
    )
    clip: float | None = Field(None, gt=0, lt=1, description="Epsilon of PPO's clipped ratio, spec 10.1, 10.4; null = no ratio, spec 6.3.")
    kl_weight: float = Field(
        0.0, ge=0, description="Weight of the KL to the policy that drew the programs (with rounds: 1 the actor), spec 10.4; 0 in spec 6.3."
    )
    ce_on_passing_samples: bool = Field(
        True, description="CE also on the actor's own passing programs of problems without references; ours."
    )
    rounds: int = Field(1, ge=1, description="1 = offline as published (spec 0.4); more = resample with the last policy.")
    training: TrainingConfig

    @model_validator(mode="after")
    def _later_rounds_sample_in_one_process(self) -> PolicyVariant:
        if self.rounds > 1 and (self.training.fsdp is not None or self.training.deepspeed is not None):
            raise ValueError(
                f"rounds is {self.rounds}, but a model in shards (fsdp, deepspeed) cannot sample inside the job; use rounds: 1"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _published(cls, data: Any) -> Any:
        return {**PUBLISHED_RECIPE, **data} if isinstance(data, dict) and data.get("recipe") == "published" else data

    @model_validator(mode="after")
    def _ratio_or_bound(self) -> PolicyVariant:
        if self.clip is not None and self.negative_returns == "bounded":
            raise ValueError("clip bounds the ratio of every token; set negative_returns: unbounded beside it")
        return self


class RlFinetuneConfig(Section):
    """RL fine-tuning: named policies that share everything upstream."""

    prompt: PromptConfig = PromptConfig()
    lengths: LengthsConfig = LengthsConfig()
    rewards: dict[Literal["compile_error", "runtime_error", "failed_test", "passed_test"], float] = Field(
        default={"compile_error": -1.0, "runtime_error": -0.6, "failed_test": -0.3, "passed_test": 1.0},
        description="Return of each outcome; all four or none. Spec 4.1.",
    )
    variants: dict[str, PolicyVariant]

    @field_validator("rewards")
    @classmethod
    def _every_outcome(cls, value: dict[str, float]) -> dict[str, float]:
        missing = [name for name in ("compile_error", "runtime_error", "failed_test", "passed_test") if name not in value]
        if missing:
            raise ValueError(f"give all four outcomes their return; missing: {', '.join(missing)}")
        return value


class CriticalVariant(Section):
    """What a variant of critical sampling changes; null = as in the section."""

    batch: int | None = Field(None, ge=1)
    rounds: int | None = Field(None, ge=0)
    enough: int | None = Field(None, ge=1)
    refine: bool | None = None
    repair_candidates: int | None = Field(None, ge=0)
    seed_mode: Literal["argmax", "sample"] | None = None
    seed_values: Literal["token", "prefix"] | None = None


class CriticalSampleConfig(Section):
    """Critical sampling (spec 7; the defaults are those of 7.2 and 7.4)."""

    policy: str = Field("rl", description="Name of the policy variant it runs on.")
    batch: int = Field(200, ge=1, description="N: programs of the first round and of every later one.")
    batches: int = Field(1, ge=1, description="1000 samples = 5 batches of 200 (spec 7.4).")
    rounds: int = Field(
        0,
        ge=0,
        description="Further rounds of N programs of the policy where fewer than `enough` pass the example tests, before any repair: "
        "the budget goes to problems that are not solved yet (ours). 0 = spec 7.1.",
    )
    enough: int = Field(1, ge=1, description="Passing programs with which a problem gets no further round; ours.")
    repair_candidates: int = Field(1, ge=0, description="M: failed programs that are repaired; 0 = no repair.")
    refine: bool = True
    decoding: DecodingConfig = DecodingConfig()
    repair_decoding: DecodingConfig = DecodingConfig()
    seed_mode: Literal["argmax", "sample"] = "argmax"
    seed_values: Literal["token", "prefix"] = Field("token", description="Per-position logits, or logits max-pooled over the prefix.")
    drop_bad_token: bool = True
    min_seed_tokens: int = Field(1, ge=1)
    no_examples: Literal["first_round"] = Field("first_round", description="Problems without example tests keep the first round, spec 7.4.")
    batch_problems: int = Field(16, ge=1)
    shards: int = Field(1, ge=1)
    variants: dict[str, CriticalVariant] = Field(
        default={}, description="Other ways through the same models, spec 8.6; one costs nothing until evaluate.critical names it."
    )

    def variant(self, name: str | None) -> CriticalSampleConfig:
        """The section as a variant has it (null: as it stands), without the other variants."""
        changes = {} if name is None else self.variants[name].model_dump(exclude_none=True)
        return self.model_copy(update={**changes, "variants": {}})


# --------------------------------------------------------------------------------------------------- evaluation


class EvaluationSet(Section):
    """A further problem set that is evaluated by plain sampling, with a table of its own: `<set>_eval.csv`."""

    policies: list[str] = Field(default=[], description="Policy variants in its table, beside the actor.")
    pass_at: list[Count] = Field(default=[1, 5], min_length=1, description="k of pass@k, at most the programs of a problem.")
    n_at: list[tuple[Count, Count]] = Field(default=[], description="n and k of n@k, for sets that have example tests.")

    @model_validator(mode="after")
    def _can_be_measured(self) -> EvaluationSet:
        for key in ("policies", "pass_at", "n_at"):
            _distinct(key, getattr(self, key))
        for n, k in self.n_at:
            if n > k:
                raise ValueError(f"n_at has [{n}, {k}]: {n} programs cannot be submitted of {k}; n comes first")
        return self


OverSeeds = Literal["main", "ablation", "critical", "codet5_small", "codet5_base", "codet5_large", "codet5_large_gcpy", "codet5_large_ntp"]
"""Rows of the tables over seeds: the run itself, policies under other objectives, ways of critical sampling, and the models that stand
where the paper's table 5 has these."""


class EvaluateConfig(Section):
    """The table: which models, which k (spec 8)."""

    problem_set: str = "test"
    also: dict[str, EvaluationSet] = Field(
        default={},
        description="Further problem sets, such as MBPP zero-shot or the ablations with fewer programs (spec 8.4, 8.5, 8.8). Keys are "
        "names of problems and sample.sets.",
    )
    other_runs: dict[Literal["codet5_small", "codet5_base", "codet5_large", "codet5_large_gcpy", "mbpp_finetuned"], Name] = Field(
        default={},
        description="Where rows of the paper's tables come from that are runs of their own (spec 8.7, 8.8): <run>/<set>, whose table is "
        "results/<run>/<set>_eval.csv.",
    )
    over_seeds: dict[OverSeeds, Annotated[list[Name], Field(min_length=1)]] | None = Field(
        None,
        description="Small versions of the paper's tables over seeds (docs/tables.md): where their rows come from, per row one "
        "<run>/<set> for each "
        "seed, in the same order everywhere; the set `apps` is the run's main table. null = the paper's own tables.",
    )
    paper_numbers: bool = Field(
        True, description="The paper's numbers of CodeT5-770M, zero-shot on MBPP, beside ours; false for runs of another model."
    )
    policies: list[str] = Field(default=["rl"], description="Policy variants in the table.")
    critical: list[str] = Field(default=[], description="Variants of critical_sample in the table, beside the section as it stands.")
    pass_at: list[Count] = Field(default=[1, 5, 20], min_length=1, description="k of pass@k, at most the programs of a problem.")
    n_at: list[tuple[Count, Count]] = Field(default=[(1, 20), (5, 20)], description="n and k of n@k with example-test filtering, n <= k.")
    comparisons: list[tuple[str, str]] = Field(
        default=[],
        description="Pairs of table rows (better, worse) whose difference gets an interval: warm_start, rl_finetune/<policy>, "
        "critical_sampling, reference_solutions, empty_program.",
    )
    bootstrap: int = Field(2000, ge=100, description="Resamples of the problems.")
    confidence: float = Field(0.95, gt=0, lt=1)

    @model_validator(mode="after")
    def _can_be_measured(self) -> EvaluateConfig:
        for key in ("policies", "critical", "pass_at", "n_at", "comparisons"):
            _distinct(key, getattr(self, key))
        for n, k in self.n_at:
            if n > k:
                raise ValueError(f"n_at has [{n}, {k}]: {n} programs cannot be submitted of {k}; n comes first")
        return self


TABLE_ROWS: dict[str, str] = {
    "actor": "warm_start",
    "critical": "critical_sampling",
    "reference": "reference_solutions",
    "empty": "empty_program",
}
"""Name of a set of programs in the workflow's paths -> its row in the table. A policy is policy/<variant> -> rl_finetune/<variant>."""


class ReportConfig(Section):
    """The HTML page."""

    example_programs: int = Field(6, ge=0, description="Programs shown with their outcome.")


class RunConfig(Section):
    """One run: everything that decides its numbers. File: config/runs/<run>.yaml."""

    description: str = ""
    seed: int = 1
    procedural: ProceduralConfig = ProceduralConfig()
    problems: dict[str, ProblemSetConfig]
    corpus: CorpusConfig | None = None
    pretrain: PretrainConfig | None = Field(None, description="null = warm_start.base_model is used as it is.")
    warm_start: WarmStartConfig
    sample: SampleConfig
    run_tests: RunTestsConfig = RunTestsConfig()
    train_critic: TrainCriticConfig
    score: ScoreConfig = ScoreConfig()
    train_repair: TrainRepairConfig
    rl_finetune: RlFinetuneConfig
    critical_sample: CriticalSampleConfig
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()

    @model_validator(mode="after")
    def _names_exist(self) -> RunConfig:
        test = self.evaluate.problem_set
        references: list[tuple[str, str, str, dict[str, Any]]] = [
            *(("sample.sets", name, "problems", dict(self.problems)) for name in [*self.sample.sets, "train"]),
            ("rl_finetune", "train", "sample.sets", self.sample.sets),
            ("evaluate.problem_set", test, "sample.sets", self.sample.sets),
            ("critical_sample.policy", self.critical_sample.policy, "rl_finetune.variants", self.rl_finetune.variants),
            *(("evaluate.policies", name, "rl_finetune.variants", self.rl_finetune.variants) for name in self.evaluate.policies),
            *(("evaluate.critical", name, "critical_sample.variants", self.critical_sample.variants) for name in self.evaluate.critical),
            *(("evaluate.also", name, "sample.sets", dict(self.sample.sets)) for name in self.evaluate.also),
            *(
                (f"evaluate.also.{name}.policies", policy, "rl_finetune.variants", self.rl_finetune.variants)
                for name, each in self.evaluate.also.items()
                for policy in each.policies
            ),
        ]
        for key, name, place, known in references:
            if name not in known:
                raise ValueError(f"{key} needs '{name}', which {place} does not have; there are {', '.join(known) or 'none'}")
        if self.pretrain is None and self.warm_start.base_model is None:
            raise ValueError("pretrain is null, so key 'warm_start.base_model' must name a model")
        if self.pretrain is not None and self.corpus is None and self.warm_start.base_model is None:
            raise ValueError("pretrain needs the section 'corpus', which is null")
        return self

    @model_validator(mode="after")
    def _names_fit_into_paths(self) -> RunConfig:
        named: list[tuple[str, Iterable[str]]] = [
            ("problems", self.problems),
            ("rl_finetune.variants", self.rl_finetune.variants),
            ("critical_sample.variants", self.critical_sample.variants),
        ]
        for key, names in named:
            for name in names:
                if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
                    raise ValueError(f"{key} has '{name}'; a name becomes part of a path: use letters, digits, _ and -")
        return self

    @model_validator(mode="after")
    def _problems_can_be_made(self) -> RunConfig:
        for name, each in self.problems.items():
            if each.parts:
                for number, part in enumerate(each.parts):
                    if part.benchmark == "procedural" or part.source is None:
                        raise ValueError(
                            f"problems.{name}.parts.{number}: each part needs a 'source', and a benchmark other than procedural"
                        )
                if each.source is not None or each.size is not None:
                    raise ValueError(f"problems.{name} has parts, which have their own source and size; remove those beside them")
                continue
            if each.benchmark != "procedural":
                if each.source is None:
                    raise ValueError(f"problems.{name}.source is missing: benchmark '{each.benchmark}' is read from a file or hub id")
                continue
            if each.source is not None:
                raise ValueError(f"problems.{name}.source: the procedural benchmark is generated and reads nothing; remove it")
            if each.size is None:
                raise ValueError(f"problems.{name}.size is missing: the procedural benchmark has no end, so say how many problems to draw")
            for difficulty, share in each.difficulty_shares.items():
                if share and difficulty not in self.procedural.depths:
                    known = ", ".join(self.procedural.depths)
                    raise ValueError(f"problems.{name}.difficulty_shares has {difficulty}, which procedural.depths does not: {known}")
        uses = {"train": "warm_start learns from them", self.evaluate.problem_set: "the table has a row of them"}
        for name, use in uses.items():
            if self.problems[name].with_solutions == 0:
                raise ValueError(f"problems.{name}.with_solutions is 0: no reference solutions, but {use}; give at least 1, or null")
        return self

    @model_validator(mode="after")
    def _programs_suffice(self) -> RunConfig:
        """What the late stages ask of the programs that are drawn early."""
        if not self.sample.sets["train"].greedy:
            for name, variant in self.rl_finetune.variants.items():
                if variant.returns == "greedy_relative" and variant.losses in ("rl", "ce+rl"):
                    raise ValueError(
                        f"rl_finetune.variants.{name} has returns: greedy_relative, which needs the greedy program of each problem; "
                        "set sample.sets.train.greedy: true, or other returns"
                    )
        test = self.evaluate.problem_set
        sharded = [(f"sample.sets.{name}", name, each.shards, each.batch_problems) for name, each in self.sample.sets.items()]
        sharded.append(("critical_sample", test, self.critical_sample.shards, self.critical_sample.batch_problems))
        for key, name, shards, batch in sharded:
            size = self.problems[name].size
            if size is not None and shards > (batches := -(-size // batch)):
                raise ValueError(
                    f"{key}.shards is {shards}, but {size} problems are {batches} batches of {batch}; lower shards or batch_problems"
                )
        tables: list[tuple[str, str, EvaluateConfig | EvaluationSet]] = [("evaluate", test, self.evaluate)]
        tables += [(f"evaluate.also.{name}", name, each) for name, each in self.evaluate.also.items()]
        for place, name, table in tables:
            drawn = self.sample.sets[name].samples_per_problem
            for key, most in (("pass_at", max(table.pass_at)), ("n_at", max((k for _, k in table.n_at), default=0))):
                if most > drawn:
                    raise ValueError(
                        f"{place}.{key} needs {most} programs per problem, but sample.sets.{name}.samples_per_problem is {drawn}"
                    )
        for name in self.evaluate.also:
            if name in (test, "train", "apps"):
                raise ValueError(f"evaluate.also has '{name}'; name a set other than train, apps and evaluate.problem_set")
            if self.problems[name].with_solutions == 0:
                raise ValueError(f"problems.{name}.with_solutions is 0: no reference solutions, but its table has a row of them")
        policies = self.evaluate.policies
        rows = [*TABLE_ROWS.values(), *(f"rl_finetune/{name}" for name in policies)]
        rows += [f"critical_sampling/{name}" for name in self.evaluate.critical]
        for row in (row for pair in self.evaluate.comparisons for row in pair):
            if row not in rows and row not in TABLE_ROWS and row not in [f"policy/{name}" for name in policies]:
                near = difflib.get_close_matches(row, rows, n=1, cutoff=0.0)[0]
                raise ValueError(f"evaluate.comparisons: no row '{row}' in the table; did you mean '{near}'? Rows: {', '.join(rows)}")
        return self


STAGES: tuple[str, ...] = tuple(name for name in RunConfig.model_fields if name not in ("description", "seed", "procedural"))
"""The stages in the order of the pipeline; each is a rule, a verb, a section and a log folder of the same name."""


TRAINED_STAGES: tuple[str, ...] = ("pretrain", "warm_start", "train_critic", "train_repair", "rl_finetune")
"""The stages that can share a step's batch over several devices."""


class LimitsConfig(Section):
    """The most a job asks for; a retry asks for more only up to here."""

    mem_mb: int = Field(256_000, ge=1, description="Memory of the largest node, MB.")
    runtime: int = Field(2880, ge=1, description="Longest run time that the queue takes, minutes.")


class WorkflowConfig(Section):
    """config/config.yaml: which runs are active, and what moves no number."""

    runs: list[str] = Field(default=["mini"], min_length=1, description="Runs in results/apps_eval.csv; files in config/runs.")
    threads: dict[str, int] = Field(default={}, description="CPU threads per job by stage; a stage that is not named gets one per GPU.")
    gpus: dict[str, int] = Field(default={}, description="GPUs per job by trained stage, over all its nodes; not named: 1.")
    nodes: dict[str, int] = Field(default={}, description="Nodes per job by trained stage; not named: 1. A divisor of its GPUs.")
    limits: LimitsConfig = Field(default=LimitsConfig())

    @field_validator("runs", mode="before")
    @classmethod
    def _one_run(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("runs")
    @classmethod
    def _each_once(cls, value: list[str]) -> list[str]:
        _distinct("runs", value)
        return value

    @field_validator("threads", "gpus", "nodes")
    @classmethod
    def _stages_only(cls, value: dict[str, int], info: ValidationInfo) -> dict[str, int]:
        stages = STAGES if info.field_name == "threads" else TRAINED_STAGES
        for stage, count in value.items():
            if stage not in stages:
                near = difflib.get_close_matches(stage, stages, n=1, cutoff=0.0)[0]
                raise ValueError(f"no {'' if stages is STAGES else 'trained '}stage '{stage}'; did you mean '{near}'?")
            if stage == "run_tests":
                raise ValueError("the threads of run_tests are its judging processes: set key 'run_tests.workers' in the run's file")
            if count < 1:
                raise ValueError(f"{stage}: at least 1")
        return value

    @model_validator(mode="after")
    def _same_on_each_node(self) -> WorkflowConfig:
        for stage, nodes in self.nodes.items():
            gpus = self.gpus.get(stage, 1)
            if gpus % nodes:
                raise ValueError(f"nodes: {stage}: {gpus} GPUs cannot be spread evenly over {nodes} nodes; change gpus or nodes")
        return self


# --------------------------------------------------------------------------------------------------- reading

S = TypeVar("S", bound=BaseModel)


def _valid_keys(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Keys allowed where `location` (of a pydantic error) points, found by walking the JSON schema."""
    schema = model.model_json_schema()
    node: dict[str, Any] = schema
    for step in location[:-1]:
        candidates = [node, *node.get("anyOf", []), *node.get("oneOf", [])]
        found: dict[str, Any] | None = None
        for candidate in candidates:
            if "$ref" in candidate:
                candidate = schema["$defs"][candidate["$ref"].rsplit("/", 1)[1]]
            if isinstance(step, int) and "items" in candidate:
                found = candidate["items"]
            elif step in candidate.get("properties", {}):
                found = candidate["properties"][step]
            elif isinstance(candidate.get("additionalProperties"), dict):
                found = candidate["additionalProperties"]
        if found is None:
            return []
        node = found
    for candidate in [node, *node.get("anyOf", [])]:
        if "$ref" in candidate:
            candidate = schema["$defs"][candidate["$ref"].rsplit("/", 1)[1]]
        if "properties" in candidate:
            return list(candidate["properties"])
    return []


def validate(model: type[S], data: Any, where: str) -> S:
    """Build `model` from plain data; raises ConfigError naming `where`, the key and the nearest valid key."""
    try:
        json.dumps(data, ensure_ascii=False, default=str, skipkeys=True).encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{where}: holds half of a surrogate pair (such as \\ud800), which is no text; replace or remove it") from None
    except (ValueError, RecursionError):
        raise ConfigError(f"{where}: holds a mapping or list that is part of itself, or a number without end; write it out") from None
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            key = ".".join(str(part) for part in problem["loc"]) or "(top level)"
            if problem["type"] == "extra_forbidden":
                valid = _valid_keys(model, problem["loc"])
                near = difflib.get_close_matches(str(problem["loc"][-1]), valid, n=1, cutoff=0.0)
                hint = f"did you mean '{near[0]}'? Valid keys: {', '.join(sorted(valid))}" if near else "remove it"
                lines.append(f"{where}: unknown key '{key}'; {hint}")
            elif problem["type"] == "missing":
                lines.append(f"{where}: key '{key}' is missing")
            else:
                given = "" if isinstance(problem["input"], dict | BaseModel) else f" (got {problem['input']!r:.80})"
                place = f"key '{key}': " if problem["loc"] else ""
                lines.append(f"{where}: {place}{problem['msg'].removeprefix('Value error, ')}{given}")
        raise ConfigError("\n".join(lines)) from None


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes` laid over it, mapping by mapping."""
    merged = dict(base)
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _merge(merged[key], value)
        else:
            merged[key] = value
    return merged


class _DistinctKeys(yaml.SafeLoader):
    """YAML in which a key that stands twice in one mapping is an error; plain YAML loaders let the last one win."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """One mapping as it is written, before `<<` brings in the keys of another: those may be overridden."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in lines:
                    raise yaml.YAMLError(f"key '{key.value}' stands in line {lines[key.value]} and again in line {line}; remove one")
                lines[key.value] = line
        return node


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; raises ConfigError naming file and line when it is none, or has a key twice."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=_DistinctKeys)
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise ConfigError(f"{path}: no such file; files there: {known}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}: line {line}: not UTF-8 ({error.reason}); save the file as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number or date that Python cannot hold
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    except RecursionError:
        raise ConfigError(f"{path}: nested too deeply") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, found {type(data).__name__}")
    return data


def load_run(path: Path) -> RunConfig:
    """Read one run file. `extends: <other run>` lays the file over another in the same folder.

    Raises:
        ConfigError: naming the file, the key and the nearest valid key.
    """
    data = read_yaml(path)
    chain = [path]
    while "extends" in data:
        name = data.pop("extends")
        if not isinstance(name, str):
            raise ConfigError(f"{chain[-1]}: key 'extends' must be the name of another run, found {name!r:.80}")
        parent = path.parent / f"{name}.yaml"
        if parent in chain:
            raise ConfigError(f"{path}: 'extends' runs in a circle: {' -> '.join(p.stem for p in [*chain, parent])}")
        chain.append(parent)
        data = _merge(read_yaml(parent), data)
    return validate(RunConfig, data, str(path))


def _distinct_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _distinct("an object", (key for key, _ in pairs))
    return dict(pairs)


def load_section(model: type[S], text: str, section: str) -> S:
    """The value of a `--config` flag: the section as JSON, or the path of a run file that contains it."""
    stripped = text.strip()
    if stripped.startswith("{"):
        try:
            data = json.loads(stripped, object_pairs_hook=_distinct_pairs)
        except ValueError as error:
            raise ConfigError(f"--config: not valid JSON: {error}") from None
        except RecursionError:
            raise ConfigError("--config: not valid JSON: nested too deeply") from None
        return validate(model, data, f"--config ({section})")
    value = getattr(load_run(Path(stripped)), section)
    if value is None:
        raise ConfigError(f"{stripped}: section '{section}' is null, so this stage has nothing to do")
    if not isinstance(value, model):
        raise ConfigError(f"{stripped}: section '{section}' cannot be used alone; give it as JSON")
    return value


def section_json(section: BaseModel) -> str:
    """The section as compact JSON with sorted keys, for command lines and hashes."""
    return json.dumps(section.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))


def run_schema() -> dict[str, Any]:
    """JSON schema of a run file, for editors: RunConfig's, and with `extends` nothing else is required."""
    schema = RunConfig.model_json_schema()
    required = schema.pop("required")
    extends = {"type": "string", "description": "Another run in the same folder; this file holds the differences only."}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "properties": {"extends": extends, **schema["properties"]},
        "anyOf": [{"required": ["extends"]}, {"required": required}],
    }
