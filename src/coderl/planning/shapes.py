"""Shapes of models: their weights, and what a token costs in them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coderl.config import ConfigError, RunConfig, load_run


@dataclass(frozen=True)
class Shape:
    """A T5 encoder-decoder (spec 1.6), or a causal model: no encoder, and a decoder that reads prompts too.

    FLOPs are 2 per weight and token (6 in training); attention scores (10 % at 600) are left out. inner: width of all heads of a
    layer; inner_kv: of its keys and of its values, where fewer. matrices: of the feed-forward part, 3 where it is gated.
    """

    layers_encoder: int
    layers_decoder: int
    d_model: int
    d_ff: int
    inner: int
    vocabulary: int
    inner_kv: int | None = None
    matrices: int = 2
    tied: bool = True

    @property
    def encoder(self) -> int:
        """Weights that a source token meets."""
        if not self.layers_encoder:
            return self.decoder
        return self.layers_encoder * (4 * self.d_model * self.inner + self.matrices * self.d_model * self.d_ff)

    @property
    def decoder(self) -> int:
        """Weights that a target token meets, without the output layer."""
        kv = self.inner_kv or self.inner
        attention = 8 * self.inner if self.layers_encoder else 2 * (self.inner + kv)
        return self.layers_decoder * self.d_model * (attention + self.matrices * self.d_ff)

    @property
    def parameters(self) -> int:
        """All weights; tied embeddings count once (spec 1.6)."""
        embeddings = self.vocabulary * self.d_model * (1 if self.tied else 2)
        return (self.encoder if self.layers_encoder else 0) + self.decoder + embeddings

    @property
    def cache_bytes(self) -> int:
        """Keys and values that one token leaves in the decoder, fp32."""
        return self.layers_decoder * 2 * (self.inner_kv or self.inner) * 4

    def forward(self, source: float, target: float) -> float:
        """FLOPs of a forward pass."""
        return 2 * (self.encoder * source + (self.decoder + self.vocabulary * self.d_model) * target)


_SMOLLM2 = Shape(0, 30, 576, 1536, 576, 49152, inner_kv=192, matrices=3)

HUB_SHAPES: dict[str, Shape] = {
    "Salesforce/codet5-small": Shape(6, 6, 512, 2048, 512, 32100),
    "Salesforce/codet5-base": Shape(12, 12, 768, 3072, 768, 32100),
    "Salesforce/codet5-large": Shape(24, 24, 1024, 4096, 1024, 32100),
    "Salesforce/codet5-large-ntp-py": Shape(24, 24, 1024, 4096, 1024, 32100),
    "HuggingFaceTB/SmolLM2-135M-Instruct": _SMOLLM2,
    "data/smollm2-135m-instruct": _SMOLLM2,  # the run smollm2 can be planned before its model is there
    "EleutherAI/gpt-neo-2.7B": Shape(0, 32, 2560, 10240, 2560, 50257),
    "EleutherAI/gpt-j-6b": Shape(0, 28, 4096, 16384, 4096, 50400, tied=False),
}
"""Spec 1.6, and the published config.json of the others."""


def _shape_from_config(config: Mapping[str, Any]) -> Shape:
    """The shape that a config.json describes; KeyError or TypeError for other architectures."""
    kind = config.get("model_type", "t5")
    if kind == "t5":
        return Shape(
            config["num_layers"],
            config.get("num_decoder_layers") or config["num_layers"],
            config["d_model"],
            config["d_ff"],
            config["num_heads"] * config["d_kv"],
            config["vocab_size"],
            matrices=3 if str(config.get("feed_forward_proj", "relu")).startswith("gated") else 2,
            tied=config.get("tie_word_embeddings", True),
        )
    if kind in ("llama", "mistral", "qwen2"):
        width, heads = config["hidden_size"], config["num_attention_heads"]
        size = config.get("head_dim") or width // heads
        return Shape(
            0,
            config["num_hidden_layers"],
            width,
            config["intermediate_size"],
            heads * size,
            config["vocab_size"],
            inner_kv=(config.get("num_key_value_heads") or heads) * size,
            matrices=3,
            tied=config.get("tie_word_embeddings", False),
        )
    if kind == "gpt_neo":
        width = config["hidden_size"]
        return Shape(0, config["num_layers"], width, config.get("intermediate_size") or 4 * width, width, config["vocab_size"])
    if kind in ("gpt2", "gptj"):
        width = config["n_embd"]
        tied = config.get("tie_word_embeddings", kind == "gpt2")
        return Shape(0, config["n_layer"], width, config.get("n_inner") or 4 * width, width, config["vocab_size"], tied=tied)
    raise KeyError(kind)


def run_file(run: str) -> Path:
    """The file of a run, given by name or path."""
    return Path(run) if run.endswith((".yaml", ".yml")) else Path("config/runs") / f"{run}.yaml"


def shape_of(name: str, key: str) -> Shape:
    """The shape of a model folder, of a hub id that this table knows, or of a model that another run is still to make.

    `key` names it in the error.

    Raises:
        ConfigError: none of them.
    """
    try:
        return _shape_from_config(json.loads((Path(name) / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        if name in HUB_SHAPES:
            return HUB_SHAPES[name]
        made = re.fullmatch(r"results/([^/]+)/models/(\w+)(/[^/]+)?", name)
        if made and run_file(made[1]).exists():
            shapes = run_shapes(load_run(run_file(made[1])))
            kind = "actor" if made[2] == "policy" else made[2].removeprefix("binary_")
            if kind in shapes:
                return shapes[kind]
        known = ", ".join(HUB_SHAPES)
        raise ConfigError(
            f"key '{key}': the shape of {name!r} is not known; it can be planned for a folder of a T5, Llama, Mistral, Qwen2, GPT-2, "
            f"GPT-Neo or GPT-J model (its config.json) or for {known}"
        ) from None


def run_shapes(config: RunConfig) -> dict[str, Shape]:
    """The shapes of base, actor, critic and repair model."""
    if config.warm_start.base_model is not None:
        base = shape_of(config.warm_start.base_model, "warm_start.base_model")
    else:
        assert config.pretrain is not None
        form, words = config.pretrain.architecture, config.pretrain.tokenizer
        base = Shape(
            form.encoder_layers,
            form.decoder_layers,
            form.d_model,
            form.d_ff,
            form.heads * form.d_kv,
            words.vocabulary_size + words.sentinels,
        )
    shapes = {"base": base, "actor": base}
    for name, section in (("critic", config.train_critic), ("repair", config.train_repair)):
        shapes[name] = base if section.base_model is None else shape_of(section.base_model, f"train_{name}.base_model")
    return shapes
