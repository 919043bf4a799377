"""Actors and the outcome critic: stock Hugging Face models, read the same way whether encoder-decoder or causal.

Shapes: B programs, S prompt tokens, T program tokens, V vocabulary, C outcome classes, d hidden size. Prompts are padded on
the right with any id and a mask, programs with -100. A program's token t has a state *before* it (which predicts it) and a
state *after* it (which has read it); the released critic reads the former, the paper's formulas the latter (spec 5.2).

An encoder-decoder reads prompt and program apart. A causal model reads them concatenated, each row packed to the left, so
that positions and attention never see the padding in between.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel

from coderl.config import TrainCriticConfig
from coderl.objectives import IGNORED
from coderl.records import DataError

HEAD_FILE = "critic_head.safetensors"
SETTINGS_FILE = "critic.json"
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model")


# --------------------------------------------------------------------------------------------------- loading


def _unavailable(path_or_id: str | Path, what: str, error: Exception | str) -> DataError:
    """The error for a model that cannot be had: which folder or id, why, and what to type next."""
    name, reason = str(path_or_id), str(error).split("\n")[0]
    if Path(name).is_dir():
        return DataError(f"{name}: no {what} can be read from this folder ({reason}); make the folder again with the stage that writes it")
    if Path(name).exists():
        return DataError(f"{name}: expected a model folder, found a file")
    if Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1 or Path(name).parent.is_dir():
        return DataError(
            f"{name}: no such model folder; make it first with the stage that writes it (e.g. `coderl warm-start`), or "
            "get it as docs/models.md says (`hf download`, `coderl convert`)"
        )
    return DataError(
        f"{name}: neither a folder nor a {what} that the Hugging Face hub or its local cache gives ({reason}). Where there is no "
        f"network, run `hf download {name}` beforehand where there is, share HF_HOME with this machine, and set HF_HUB_OFFLINE=1. "
        "If a local folder is meant, it is not there (docs/models.md)"
    )


def load_tokenizer(path_or_id: str | Path) -> Any:
    """The tokenizer of a model folder or hub id, with a pad token and without clean-up of decoded text (spec 3).

    Its `continues_prompt` says whether the model beside it is causal, so that programs continue the prompt (problems.prompts).

    Raises:
        DataError: missing or damaged folder, or no access to the hub; says how to download beforehand.
    """
    folder = Path(path_or_id)
    if folder.is_file() or (folder.is_dir() and not any((folder / name).exists() for name in TOKENIZER_FILES)):
        # transformers makes an empty T5 tokenizer of such a folder, to which every word is unknown
        raise _unavailable(path_or_id, "tokenizer", f"none of {', '.join(TOKENIZER_FILES)} in it")
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(str(path_or_id), clean_up_tokenization_spaces=False)
    except (OSError, ValueError, KeyError) as error:
        raise _unavailable(path_or_id, "tokenizer", error) from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    try:
        tokenizer.continues_prompt = not AutoConfig.from_pretrained(str(path_or_id)).is_encoder_decoder
    except (OSError, ValueError, KeyError):  # a tokenizer without a model
        tokenizer.continues_prompt = False
    return tokenizer


def load_actor(path_or_id: str | Path, precision: str = "fp32") -> PreTrainedModel:
    """The language model of a folder or hub id: encoder-decoder or causal by its config, in evaluation mode.

    Args:
        path_or_id: folder or hub id.
        precision: "fp32", which training needs (bf16 is autocast there), or "bf16" for half the memory in sampling.

    Raises:
        DataError: missing or damaged folder, weights that do not fill the model, or no access to the hub; says how to
            download beforehand.
    """
    if Path(path_or_id).is_file():
        raise _unavailable(path_or_id, "model", "")
    try:
        config = AutoConfig.from_pretrained(str(path_or_id))
        kind: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        model, loading = kind.from_pretrained(str(path_or_id), dtype=dtype, output_loading_info=True)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _unavailable(path_or_id, "model", error) from None
    if loading["missing_keys"]:  # transformers fills them at random and only warns
        missing = sorted(loading["missing_keys"])
        raise DataError(f"{path_or_id}: the weights lack {missing[0]!r} ({len(missing)} tensors in all); not a whole language model")
    model.eval()
    return model


def default_device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _bare(model: nn.Module) -> Any:
    """The model inside a wrapper for data parallelism (DistributedDataParallel, FSDP, DeepSpeed), whose config can be read."""
    inner = getattr(model, "module", None)
    return inner if isinstance(inner, nn.Module) else model


# --------------------------------------------------------------------------------------------------- batches


def collate_pairs(prompts: Sequence[Sequence[int]], programs: Sequence[Sequence[int]], pad_id: int) -> dict[str, Tensor]:
    """prompt_ids [B, S] padded with `pad_id`, prompt_mask [B, S] of 0 and 1, program_ids [B, T] padded with -100 (int64)."""
    if not prompts or len(prompts) != len(programs):
        raise ValueError(f"need as many prompts as programs and at least one, got {len(prompts)} and {len(programs)}")
    if any(len(ids) == 0 for ids in (*prompts, *programs)):
        raise ValueError("an empty prompt or program has no state to read")
    width, length = max(map(len, prompts)), max(map(len, programs))
    prompt_ids = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    prompt_mask = torch.zeros((len(prompts), width), dtype=torch.long)
    program_ids = torch.full((len(programs), length), IGNORED, dtype=torch.long)
    for row, (prompt, program) in enumerate(zip(prompts, programs, strict=True)):
        prompt_ids[row, : len(prompt)] = torch.tensor(prompt, dtype=torch.long)
        prompt_mask[row, : len(prompt)] = 1
        program_ids[row, : len(program)] = torch.tensor(program, dtype=torch.long)
    return {"prompt_ids": prompt_ids, "prompt_mask": prompt_mask, "program_ids": program_ids}


def _decoder_input(config: Any, program_ids: Tensor) -> Tensor:
    """[start, w_1 .. w_T]: [B, T] -> [B, T + 1]; pads behind the program are harmless, the decoder looks back only."""
    start = config.decoder_start_token_id
    if start is None:
        raise DataError("the model's config has no decoder_start_token_id; set it in config.json (0 in T5)")
    fill = config.pad_token_id if config.pad_token_id is not None else 0
    return torch.cat([torch.full_like(program_ids[:, :1], start), program_ids.masked_fill(program_ids == IGNORED, fill)], dim=1)


def _packed(prompt_ids: Tensor, prompt_mask: Tensor, program_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Prompt and program of each row side by side for a causal model.

    Returns:
        ids [B, S + T], mask [B, S + T], and the index [B, T] of each program token in `ids`.
    """
    present = torch.cat([prompt_mask.bool(), program_ids != IGNORED], dim=1)
    order = torch.argsort((~present).to(torch.int8), dim=1, stable=True)
    ids = torch.cat([prompt_ids, program_ids], dim=1).gather(1, order)
    mask = present.gather(1, order)
    index = prompt_mask.bool().sum(1, keepdim=True) + torch.arange(program_ids.shape[1], device=program_ids.device)
    return ids.masked_fill(~mask, 0), mask.long(), index


def program_logits(model: nn.Module, prompt_ids: Tensor, prompt_mask: Tensor, program_ids: Tensor) -> Tensor:
    """Logits of every program token given the prompt and the tokens before it.

    Args:
        model: encoder-decoder or causal language model, bare or wrapped for data parallelism.
        prompt_ids: [B, S] padded with any id.
        prompt_mask: [B, S], 1 at tokens and 0 at pads.
        program_ids: [B, T], -100 behind the end.

    Returns:
        [B, T, V]; [:, t] predicts program_ids[:, t] and is meaningless where that is -100.
    """
    config = _bare(model).config
    if config.is_encoder_decoder:
        shifted = _decoder_input(config, program_ids)[:, :-1]
        output = model(input_ids=prompt_ids, attention_mask=prompt_mask, decoder_input_ids=shifted, use_cache=False)
        return output.logits
    ids, mask, index = _packed(prompt_ids, prompt_mask, program_ids)
    options: dict[str, Any] = {}
    first = 0  # index of the first position whose logits are kept
    if "logits_to_keep" in inspect.signature(_bare(model).forward).parameters:
        first = int(prompt_mask.sum(1).min()) - 1  # a large vocabulary's logits are the bulk of the memory: none for the prompt
        options["logits_to_keep"] = ids.shape[1] - first
    logits: Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False, **options).logits
    return logits.gather(1, (index - 1 - first)[..., None].expand(-1, -1, logits.shape[-1]))


def program_states(model: Any, prompt_ids: Tensor, prompt_mask: Tensor, program_ids: Tensor, *, after: bool) -> Tensor:
    """Last hidden states along the program, as the output layer sees them.

    For T5 with tied embeddings that is the decoder's output times d_model ** -0.5 (spec 1.6, 5.1).

    Args:
        model: bare encoder-decoder or causal language model.
        prompt_ids: [B, S].
        prompt_mask: [B, S].
        program_ids: [B, T], -100 behind the end.
        after: True = [:, t] has read tokens up to and with t (paper); False = up to t - 1 (code).

    Returns:
        [B, T, d], meaningless where program_ids is -100.
    """
    states = states_around(model, prompt_ids, prompt_mask, program_ids, last=after)
    return states[:, 1:] if after else states[:, : program_ids.shape[1]]


def states_around(model: Any, prompt_ids: Tensor, prompt_mask: Tensor, program_ids: Tensor, *, last: bool = True) -> Tensor:
    """As program_states, [B, T + 1, d]: [:, t] is the state before token t, [:, t + 1] the one after it.

    last: False leaves out the state after the last token, which the output layer never sees in training: [B, T, d].
    """
    config = model.config
    if config.is_encoder_decoder:
        encoded = model.get_encoder()(input_ids=prompt_ids, attention_mask=prompt_mask).last_hidden_state
        inputs = _decoder_input(config, program_ids)
        states: Tensor = model.get_decoder()(
            input_ids=inputs if last else inputs[:, :-1],
            encoder_hidden_states=encoded,
            encoder_attention_mask=prompt_mask,
            use_cache=False,
        ).last_hidden_state
        return states * config.d_model**-0.5 if getattr(config, "scale_decoder_outputs", False) else states
    ids, mask, index = _packed(prompt_ids, prompt_mask, program_ids)
    states = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    around = torch.cat([index - 1, index[:, -1:]], dim=1) if last else index - 1
    return states.gather(1, around[..., None].expand(-1, -1, states.shape[-1]))


# --------------------------------------------------------------------------------------------------- the critic


@dataclass(frozen=True)
class CriticSettings:
    """What `critic.json` holds: the form of the head, and how to encode what the critic reads (scoring must not differ)."""

    classes: int
    head: str
    pooling: str
    alignment: str
    hidden_size: int
    prompt_style: str
    max_source_tokens: int
    max_target_tokens: int
    likelihood: bool = False

    @classmethod
    def from_config(cls, config: TrainCriticConfig, classes: int) -> CriticSettings:
        """The settings of a critic about to be trained."""
        return cls(
            classes=classes,
            head=config.head,
            pooling=config.pooling,
            alignment=config.alignment,
            hidden_size=config.hidden_size,
            prompt_style=config.prompt.style,
            max_source_tokens=config.lengths.max_source_tokens,
            max_target_tokens=config.lengths.max_target_tokens,
            likelihood=config.likelihood,
        )


class LikelihoodInput(nn.Module):
    """What the backbone itself, as a language model, says of the tokens it reads (ours).

    A critic that starts from the actor starts with the actor's opinion: its log-likelihood ranks the programs of a problem
    far better than a head on hidden states learns to from a few thousand of them (docs/log.md). Per token three numbers,
    log p(w_t), log p of the likeliest token, and their difference, are added to the state after the token by a linear map.
    The sum and the least of log p(w_1..w_t) are added to the logit of "passed" with learnt factors.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into_state = nn.Linear(3, width)
        nn.init.normal_(self.into_state.weight, std=0.1)
        nn.init.zeros_(self.into_state.bias)
        self.factors = nn.Parameter(torch.tensor([0.5, 0.5]))

    def forward(self, states: Tensor, logits: Tensor, program_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The states with the three numbers in them, what to add to the logit of "passed" of each prefix, and log p of each token.

        states [B, T, d] after each token, logits [B, T, V] before it, program_ids [B, T] -> [B, T, d], [B, T], [B, T].
        """
        present = program_ids != IGNORED
        normaliser = logits.logsumexp(-1)
        own = logits.gather(-1, program_ids.masked_fill(~present, 0)[..., None])[..., 0]
        best = logits.amax(-1)
        numbers = torch.stack([own - normaliser, best - normaliser, best - own], dim=-1).masked_fill(~present[..., None], 0.0)
        likelihood = numbers[..., 0]
        bonus = self.factors[0] * likelihood.cumsum(1) + self.factors[1] * likelihood.cummin(1).values
        return states + self.into_state(numbers), bonus, likelihood


@dataclass(frozen=True)
class CriticOutput:
    """What the critic says of B programs.

    logits [B, C]: of the whole program. token_logits [B, T, C]: the head on the state of each position, before pooling
    (spec 6.1: v_t = softmax of it). prefix_logits [B, T, C]: the classifier applied to tokens 1..t alone; the last one
    equals `logits`; None when not asked for. mask [B, T] bool: True at program tokens; logits elsewhere are 0.
    log_likelihoods [B, T]: log p of each token by the critic's own backbone, 0 behind the end; None for critics without `likelihood`.
    """

    logits: Tensor
    token_logits: Tensor
    prefix_logits: Tensor | None
    mask: Tensor
    log_likelihoods: Tensor | None = None


class OutcomeCritic(nn.Module):
    """A language model that reads problem and program and predicts the outcome of the tests (spec 5.1).

    paper: u = Linear(max_t h_t); code: u = max_t MLP(h_t). Pads never take part in the pooling: the released critic pools
    them too, and depends on it (spec 5.2).
    """

    def __init__(self, backbone: Any, settings: CriticSettings) -> None:
        super().__init__()
        self.backbone = backbone
        self.settings = settings
        width = int(backbone.config.hidden_size)
        self.head: nn.Module
        if settings.head == "linear":
            self.head = nn.Linear(width, settings.classes)
        elif settings.head == "mlp":
            hidden = settings.hidden_size
            self.head = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, settings.classes))
        else:
            raise ValueError(f"unknown head {settings.head!r}: linear or mlp")
        self.likelihood = LikelihoodInput(width) if settings.likelihood else None
        embeddings, output = backbone.get_input_embeddings(), backbone.get_output_embeddings()
        if self.likelihood is None and output is not None and output.weight is not embeddings.weight:
            output.requires_grad_(False)  # never used; data parallelism waits for the gradients of trainable weights
        self._keys_to_ignore_on_save = _tied_names(self)
        self.register_state_dict_post_hook(_drop_tied)

    @classmethod
    def from_backbone(cls, path_or_id: str | Path, classes: int, config: TrainCriticConfig, seed: int = 0) -> OutcomeCritic:
        """A critic to be trained: a pretrained language model and a head drawn from `seed`.

        Raises:
            DataError: as load_actor.
        """
        backbone = load_actor(path_or_id)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(backbone, CriticSettings.from_config(config, classes))

    def forward(self, prompt_ids: Tensor, prompt_mask: Tensor, program_ids: Tensor, prefixes: bool = True) -> CriticOutput:
        """Logits of the outcome classes for programs and their tokens.

        Args:
            prompt_ids: [B, S].
            prompt_mask: [B, S].
            program_ids: [B, T], -100 behind the end.
            prefixes: False leaves out prefix_logits, which cost a cumulative maximum and are not needed in training.
        """
        after = self.settings.alignment == "paper"
        mask = program_ids != IGNORED
        if self.likelihood is not None:
            around = states_around(self.backbone, prompt_ids, prompt_mask, program_ids)
            logits = self.backbone.get_output_embeddings()(around[:, :-1])
            with torch.autocast(around.device.type, enabled=False):
                states, bonus, likelihoods = self.likelihood(around[:, 1:].float(), logits.float(), program_ids)
                return replace(self._classify(states, mask, prefixes, bonus), log_likelihoods=likelihoods)
        states = program_states(self.backbone, prompt_ids, prompt_mask, program_ids, after=after)
        # The head works in float32 also under autocast: pooled maxima of bf16 states tie, and ties share their gradient.
        with torch.autocast(states.device.type, enabled=False):
            return self._classify(states.float(), mask, prefixes)

    def _classify(self, states: Tensor, mask: Tensor, prefixes: bool, bonus: Tensor | None = None) -> CriticOutput:
        """The head on the states of each position and on the pooled states; `bonus` is added to the logits of "passed".

        states [B, T, d], mask [B, T], bonus [B, T].
        """
        pooling = self.settings.pooling
        present = mask[..., None]
        token_logits = self.head(states)
        last = mask.sum(1) - 1
        prefix_logits: Tensor | None = None
        if pooling == "max_hidden":
            lowest = torch.finfo(states.dtype).min
            filled = states.masked_fill(~present, lowest)
            logits = self.head(filled.amax(1))
            if prefixes:
                prefix_logits = self.head(filled.cummax(1).values)
        elif pooling == "max_logits":
            lowest = torch.finfo(token_logits.dtype).min
            filled = token_logits.masked_fill(~present, lowest)
            logits = filled.amax(1)
            if prefixes:
                prefix_logits = filled.cummax(1).values
        elif pooling == "mean_hidden":
            means = states.cumsum(1) / torch.arange(1, mask.shape[1] + 1, device=mask.device)[:, None]
            logits = self.head(_at(means, last))
            if prefixes:
                prefix_logits = self.head(means)
        elif pooling == "last":
            logits = _at(token_logits, last)
            if prefixes:
                prefix_logits = token_logits
        else:
            raise ValueError(f"unknown pooling {pooling!r}: max_hidden, max_logits, mean_hidden or last")
        if bonus is not None:
            passed = functional.one_hot(torch.tensor(self.settings.classes - 1), self.settings.classes).to(bonus)
            added = bonus[..., None] * passed
            logits, token_logits = logits + _at(added, last), token_logits + added
            prefix_logits = None if prefix_logits is None else prefix_logits + added
        if prefix_logits is not None:
            prefix_logits = prefix_logits.masked_fill(~present, 0.0)
        return CriticOutput(logits, token_logits.masked_fill(~present, 0.0), prefix_logits, mask)

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """Trade computation for memory in the backbone; called by the Trainer (transformers up to 5.1x)."""
        self.backbone.gradient_checkpointing_enable(**options)

    def activation_checkpointing_enable(self, **options: Any) -> None:
        """The newer name of gradient_checkpointing_enable."""
        self.backbone.activation_checkpointing_enable(**options)

    def tie_weights(self) -> None:
        """Tie embeddings again after a checkpoint, which holds shared weights once, was loaded; called by the Trainer."""
        self.backbone.tie_weights()

    def save(self, folder: Path) -> None:
        """The backbone as a plain Hugging Face folder, the head and its settings beside it. The tokenizer is the caller's."""
        self.backbone.save_pretrained(folder)
        own = {**self.head.state_dict(), **(self.likelihood.state_dict(prefix="likelihood.") if self.likelihood is not None else {})}
        head = {name: tensor.detach().cpu().contiguous() for name, tensor in own.items()}
        save_file(head, folder / HEAD_FILE, metadata={"format": "pt"})
        (folder / SETTINGS_FILE).write_text(json.dumps(asdict(self.settings), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> OutcomeCritic:
        """A critic as saved, in evaluation mode.

        Raises:
            DataError: no such folder, no critic in it, or a damaged one.
        """
        critic = cls(load_actor(folder), _read_settings(folder))
        try:
            own = load_file(folder / HEAD_FILE)
            inputs = {name.removeprefix("likelihood."): own.pop(name) for name in list(own) if name.startswith("likelihood.")}
            critic.head.load_state_dict(own)
            if critic.likelihood is not None:
                critic.likelihood.load_state_dict(inputs)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise DataError(f"{folder / HEAD_FILE}: not the head of this critic ({error}); run `coderl train-critic` again") from None
        return critic.eval()


def _at(values: Tensor, index: Tensor) -> Tensor:
    """values[b, index[b]]: [B, T, X], [B] -> [B, X]."""
    return values.gather(1, index[:, None, None].expand(-1, 1, values.shape[-1])).squeeze(1)


def _tied_names(module: nn.Module) -> list[str]:
    """Names of parameters that are another name's tensor (T5's four names of one embedding)."""
    first = {name for name, _ in module.named_parameters()}
    return [name for name, _ in module.named_parameters(remove_duplicate=False) if name not in first]


def _drop_tied(module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    """Keep shared weights once in a state dict: the Trainer writes it with safetensors, which refuses shared memory."""
    names: Any = module._keys_to_ignore_on_save
    for name in names:
        state.pop(prefix + name, None)


def _read_settings(folder: Path) -> CriticSettings:
    """The settings in `critic.json`; raises DataError."""
    path = folder / SETTINGS_FILE
    if not path.exists():
        raise DataError(f"{folder}: no {SETTINGS_FILE} in it, so this is no critic; make one with `coderl train-critic`")
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not valid JSON ({error}); run `coderl train-critic` again") from None
    names = {field.name for field in fields(CriticSettings)}
    needed = {field.name for field in fields(CriticSettings) if field.default is MISSING}  # critics of earlier versions lack the others
    if not isinstance(row, Mapping) or not needed <= set(row) <= names:
        raise DataError(f"{path}: expected the keys {', '.join(sorted(names))}; run `coderl train-critic` again")
    return CriticSettings(**row)
