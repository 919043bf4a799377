"""Stage `pretrain`: a T5 from scratch by masked span prediction and next-token prediction (spec 1.3, 1.4), and its tokenizer.

Only code and comments are read here; problems are used for nothing but the vocabulary of the tokenizer (train prompts).
"""

from __future__ import annotations

import hashlib
import logging
import math
import random
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from coderl.config import ArchitectureConfig, PretrainConfig, PretrainPhase, TokenizerConfig, section_json
from coderl.models import collate_pairs, load_tokenizer
from coderl.objectives import IGNORED
from coderl.problems import read_problems
from coderl.problems.prompts import build_prompt
from coderl.records import DataError, read_rows
from coderl.seeds import derived_seed
from coderl.training import (
    first_process,
    from_first_process,
    keep_own_work,
    model_folder,
    program_cross_entropy,
    read_log,
    train,
    write_log,
)

logger = logging.getLogger(__name__)

_WORDS = re.compile(r"""(?:\A|:[ \t]*\n)[ \t]*[rRuU]?(\"{3}|'{3}).*?\1[ \t]*\n|(?:^[ \t]*#[^\n]*\n)+""", re.DOTALL | re.MULTILINE)
"""A docstring (at the start, or behind a line that ends in a colon), or lines of comments."""
_NO_DESCRIPTION = re.compile(r"^#!|-\*-|copyright|licen[cs]e", re.IGNORECASE)
"""Comments that do not tell what the code behind them does."""

SPECIAL_TOKENS = ("<pad>", "<s>", "</s>", "<unk>", "<mask>")
"""CodeT5's, with ids 0 to 4 (spec 1.2)."""


# ------------------------------------------------------------------------------------------------ tokenizer


def train_tokenizer(texts: Iterator[str], config: TokenizerConfig) -> PreTrainedTokenizerFast:
    """Byte-level BPE as CodeT5's (spec 1.2): special ids 0 to 4, `<s> ... </s>` around a text, sentinels at the end.

    extra_id_i has id (vocabulary - 1 - i), as on the hub. Digits are split, so that a number is its digits.
    """
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary_size - config.sentinels,
        min_frequency=config.min_frequency,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        mask_token="<mask>",
        clean_up_tokenization_spaces=False,
    )
    return add_sentinels(fast, config.sentinels)


def add_sentinels(tokenizer: PreTrainedTokenizerFast, count: int) -> PreTrainedTokenizerFast:
    """Add `<extra_id_*>` tokens that are missing, the highest number first, so that extra_id_0 has the last id (spec 1.2)."""
    names = [f"<extra_id_{i}>" for i in reversed(range(count))]
    present = tokenizer.get_vocab()
    tokenizer.add_special_tokens({"additional_special_tokens": [name for name in names if name not in present]})
    return tokenizer


# ------------------------------------------------------------------------------------------------ objectives


def mask_spans(
    tokens: Sequence[int], words: Sequence[int | None], sentinels: Sequence[int], *, rate: float, max_span: int, rng: random.Random
) -> tuple[list[int], list[int]]:
    """Masked span prediction (spec 1.3): (source, target) of one window.

    Spans of 1 to `max_span` whole words (uniform) are replaced by one sentinel each; spans never touch. There are as many as mask
    `rate` of the tokens on average over windows (a window too short for one span has one all the same). The target is
    sentinel 0, span 0, sentinel 1, span 1, ...

    Args:
        tokens: ids of the window, no special tokens.
        words: for each token the number of its word (None: a token of its own).
        sentinels: ids of <extra_id_0>, <extra_id_1>, ...
        rate: share of tokens to mask.
        max_span: longest span, in words.
        rng: source of randomness.
    """
    starts = [i for i in range(len(tokens)) if i == 0 or words[i] is None or words[i] != words[i - 1]]
    ends = [*starts[1:], len(tokens)]
    # The number of spans first, then their lengths: filling up to a number of tokens would cut the last span short or overshoot.
    wanted = rate * len(starts) / ((1 + max_span) / 2)
    number = min(max(1, int(wanted) + (rng.random() < wanted % 1)), len(sentinels))
    masked = [False] * len(starts)
    order = list(range(len(starts)))
    rng.shuffle(order)
    spans: list[tuple[int, int]] = []
    for _ in range(number):
        length = min(rng.randint(1, max_span), len(starts))
        for first in order:
            last = first + length
            # a neighbour that is masked would melt two spans into one without a sentinel between them
            if last <= len(starts) and not any(masked[max(0, first - 1) : last + 1]):
                masked[first:last] = [True] * length
                spans.append((first, last))
                break
    source: list[int] = []
    target: list[int] = []
    position = 0
    for sentinel, (first, last) in zip(sentinels, sorted(spans), strict=False):
        source += [*tokens[position : starts[first]], sentinel]
        target += [sentinel, *tokens[starts[first] : ends[last - 1]]]
        position = ends[last - 1]
    return source + list(tokens[position:]), target


def comment_ends(text: str) -> list[int]:
    """Where code goes on after words: behind the line break of each docstring and each block of comment lines, ascending."""
    found = (match for match in _WORDS.finditer(text) if match.end() < len(text))
    return [match.end() for match in found if match[1] or not _NO_DESCRIPTION.search(match[0])]


def split_at_pivot(
    tokens: Sequence[int],
    lines: Sequence[int],
    comments: Sequence[int] = (),
    *,
    bounds: tuple[float, float],
    at_line_end: float,
    after_comment: float = 0.0,
    rng: random.Random,
) -> tuple[list[int], list[int]]:
    """Next-token prediction (spec 1.4): (source, target) of one window, cut at a random pivot.

    The pivot is uniform over ceil(low L) .. floor(high L). With probability `at_line_end` it is a random line end
    inside these bounds instead, when there is one. With probability `after_comment` it is the end of a random docstring or comment,
    wherever that is: the source ends in words and the target is the code that they tell of, as in CodeT5's text-to-code generation.

    Args:
        tokens: ids of the window, no special tokens, at least 2.
        lines: positions after which a line ends, ascending.
        comments: positions after which a docstring or a block of comments ends.
        bounds: (low, high) shares of the length.
        at_line_end: probability of a line end.
        after_comment: probability of the end of a docstring or comment, before any other choice.
        rng: source of randomness.
    """
    if after_comment > 0 and comments and rng.random() < after_comment:
        pivot = rng.choice(comments)
        return list(tokens[:pivot]), list(tokens[pivot:])
    low = max(1, math.ceil(bounds[0] * len(tokens)))
    high = max(low, min(len(tokens) - 1, math.floor(bounds[1] * len(tokens))))
    pivot = rng.randint(low, high)
    if rng.random() < at_line_end:
        inside = [position for position in lines if low <= position <= high]
        if inside:
            pivot = rng.choice(inside)
    return list(tokens[:pivot]), list(tokens[pivot:])


# ------------------------------------------------------------------------------------------------ examples


@dataclass(frozen=True)
class Window:
    """A stretch of one file (or of several small ones, packed): token ids, the number of each token's word, whether a file ends it.

    `comments`: positions after which a docstring or a block of comments ends; none are kept where files are packed.
    """

    tokens: list[int]
    words: list[int | None]
    ends: bool = True
    comments: tuple[int, ...] = ()


def make_windows(texts: Sequence[str], tokenizer: Any, size: int, pack: bool) -> list[Window]:
    """Cut files into windows of at most `size` tokens; with `pack`, short files are joined, `</s>` between them (spec 1.1).

    `size` leaves no room for special tokens: callers subtract them.
    """
    windows: list[Window] = []
    tokens: list[int] = []
    words: list[int | None] = []
    # the backend alone: lists of masks and types for every file would take most of the time
    for text, encoding in zip(texts, tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False), strict=True):
        ids, numbers = encoding.ids, encoding.word_ids
        ends = [] if pack else comment_ends(text)
        token_ends = [end for _, end in encoding.offsets] if ends else []
        comments = [bisect_left(token_ends, end) + 1 for end in ends]  # a token may hold the line break and the blanks behind it
        for start in range(0, len(ids), size):
            piece, piece_words = ids[start : start + size], numbers[start : start + size]
            if len(piece) < 2:
                continue
            if not pack:
                inside = tuple(position - start for position in comments if start < position < start + len(piece))
                windows.append(Window(piece, piece_words, start + size >= len(ids), inside))
                continue
            if tokens and len(tokens) + 1 + len(piece) > size:
                windows.append(Window(tokens, words))
                tokens, words = [], []
            if tokens:
                tokens, words = [*tokens, tokenizer.eos_token_id], [*words, None]
            offset = 1 + max((word for word in words if word is not None), default=-1)
            tokens = tokens + piece
            words = words + [None if word is None else word + offset for word in piece_words]
    if tokens:
        windows.append(Window(tokens, words))
    return windows


class PretrainingExamples:
    """Windows under a mixture of objectives; corruption and pivots are drawn anew each epoch."""

    def __init__(self, windows: dict[str, list[Window]], tokenizer: Any, phase: PretrainPhase, config: PretrainConfig, seed: int) -> None:
        self.windows, self.tokenizer, self.phase, self.config, self.seed = windows, tokenizer, phase, config, seed
        vocabulary = tokenizer.get_vocab()
        self.sentinels = [vocabulary[f"<extra_id_{i}>"] for i in range(config.tokenizer.sentinels)]
        self.newlines = {id_ for token, id_ in vocabulary.items() if "\n" in tokenizer.convert_tokens_to_string([token])}

    def epoch(self, epoch: int) -> list[tuple[str, int, int]]:
        """(objective, window, seed of its corruption): shares of the objectives by weight, windows without repetition."""
        rng = random.Random(derived_seed(self.seed, "objectives", epoch))
        total_weight = sum(self.phase.objectives.values())
        size = max(len(self.windows[name]) for name in self.phase.objectives)
        items: list[tuple[str, int, int]] = []
        for name, weight in sorted(self.phase.objectives.items()):
            order = list(range(len(self.windows[name])))
            rng.shuffle(order)
            count = max(1, round(size * weight / total_weight))
            items += [(name, order[i % len(order)], derived_seed(self.seed, name, epoch, i)) for i in range(count)]
        return items

    def lengths(self, item: tuple[str, int, int]) -> tuple[int, int]:
        """Source and target tokens."""
        source, target = self.pair(item)
        return len(source), len(target)

    def pair(self, item: tuple[str, int, int]) -> tuple[list[int], list[int]]:
        """(source, target) token ids with special tokens, within the limits of the configuration."""
        name, index, seed = item
        window, rng = self.windows[name][index], random.Random(seed)
        if name == "msp":
            source, target = mask_spans(
                window.tokens, window.words, self.sentinels, rate=self.config.mask_rate, max_span=self.config.max_span, rng=rng
            )
        else:
            lines = [i + 1 for i, token in enumerate(window.tokens) if token in self.newlines]
            source, target = split_at_pivot(
                window.tokens,
                lines,
                window.comments,
                bounds=self.config.pivot_range,
                at_line_end=self.config.pivot_at_line_end,
                after_comment=self.config.pivot_after_comment,
                rng=rng,
            )
        lengths, start, end = self.config.lengths, self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        source = source[-(lengths.max_source_tokens - 2) :]  # the tokens beside the pivot matter most (spec 1.4)
        # Only what is whole has an end: else the model would learn to stop in the middle.
        whole = len(target) <= lengths.max_target_tokens - 2 and (name == "msp" or window.ends)
        target = [start, *target, end] if whole else [start, *target][: lengths.max_target_tokens]
        return [start, *source, end], target

    def collate(self, items: list[tuple[str, int, int]]) -> dict[str, Tensor]:
        """One optimiser step: prompt_ids, prompt_mask [B, S], program_ids [B, T], normaliser = target tokens."""
        pairs = [self.pair(item) for item in items]
        batch = collate_pairs([source for source, _ in pairs], [target for _, target in pairs], self.tokenizer.pad_token_id)
        batch["normaliser"] = (batch["program_ids"] != IGNORED).sum()
        return batch


# ------------------------------------------------------------------------------------------------ stage


def new_model(architecture: ArchitectureConfig, tokenizer: Any) -> T5ForConditionalGeneration:
    """A T5 v1.0 with random weights and CodeT5's special ids (spec 1.6)."""
    config = T5Config(
        vocab_size=8 * math.ceil(len(tokenizer) / 8),
        d_model=architecture.d_model,
        d_kv=architecture.d_kv,
        d_ff=architecture.d_ff,
        num_heads=architecture.heads,
        num_layers=architecture.encoder_layers,
        num_decoder_layers=architecture.decoder_layers,
        dropout_rate=architecture.dropout,
        relative_attention_num_buckets=architecture.relative_attention_buckets,
        relative_attention_max_distance=architecture.relative_attention_max_distance,
        feed_forward_proj="relu",
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    return T5ForConditionalGeneration(config)


def _read_corpus(path: Path) -> list[str]:
    texts = []
    for number, row in read_rows(path):
        if not isinstance(row.get("text"), str):
            raise DataError(f"{path}: row {number}: column 'text' must be a string; make the corpus with `coderl corpus`")
        texts.append(row["text"])
    if not texts:
        raise DataError(f"{path}: the corpus is empty; look at its statistics.csv for what the filters dropped")
    return texts


def pretrain(*, config: PretrainConfig, corpus: Path, problems: Path | None, seed: int, output: Path, work: Path) -> None:
    """Train tokenizer and model from scratch; writes a Hugging Face folder.

    Args:
        config: phases, architecture, objectives.
        corpus: parquet of the corpus stage, column `text`.
        problems: train problems whose prompts (no solutions, no tests) the tokenizer also sees; None = corpus only.
        seed: of weights, order and corruption.
        output: folder to write.
        work: folder for checkpoints, removed at the end.

    Raises:
        DataError: an empty or malformed corpus.
    """
    texts = _read_corpus(corpus)
    if config.tokenizer.path is not None:
        tokenizer = add_sentinels(load_tokenizer(config.tokenizer.path), config.tokenizer.sentinels)
    else:
        prompts = [build_prompt(problem) for problem in read_problems(problems)] if problems else []
        tokenizer = train_tokenizer(iter([*texts, *prompts]), config.tokenizer)
    logger.info("tokenizer with %d entries", len(tokenizer))
    torch.manual_seed(derived_seed(seed, "weights"))
    model = new_model(config.architecture, tokenizer)
    logger.info("%.3f million parameters", sum(p.numel() for p in model.parameters()) / 1e6)
    windows = _windows_per_objective(texts, tokenizer, config)
    from_first_process(partial(keep_own_work, work, _identity(config, texts, tokenizer, seed)))
    rows: list[dict[str, float]] = []
    for number, phase in enumerate(config.phases):
        finished = work / f"phase{number}"
        if from_first_process((finished / "training_log.csv").exists):
            model = T5ForConditionalGeneration.from_pretrained(finished)
            logger.info("phase %d was finished before", number)
            rows += read_log(finished)
            continue
        examples = PretrainingExamples(windows, tokenizer, phase, config, derived_seed(seed, "phase", number))
        log = train(
            model,
            examples,
            program_cross_entropy,
            phase.training,
            settings=section_json(config),
            seed=derived_seed(seed, "phase", number),
            work=work / f"phase{number}.partial",
        )
        log = [{**row, "phase": float(number)} for row in log]
        if first_process():
            with model_folder(finished) as folder:
                model.save_pretrained(folder)
                write_log(folder, log)
        rows += log
    if not first_process():
        return
    with model_folder(output, work) as folder:
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        write_log(folder, rows)


def _identity(config: PretrainConfig, texts: list[str], tokenizer: Any, seed: int) -> str:
    """What a finished phase must have been made from to be kept."""
    digest = hashlib.sha256(f"{section_json(config)} {seed}".encode())
    for text in [tokenizer.backend_tokenizer.to_str(), *texts]:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()


def _windows_per_objective(texts: list[str], tokenizer: Any, config: PretrainConfig) -> dict[str, list[Window]]:
    """Masked spans: short files packed together (spec 1.1); next tokens: one file, or stretch of a long file, at a time (spec 1.4)."""
    lengths = config.lengths
    objectives = {name for phase in config.phases for name in phase.objectives}
    windows: dict[str, list[Window]] = {}
    if "msp" in objectives:
        windows["msp"] = make_windows(texts, tokenizer, lengths.max_source_tokens - 2, config.pack)
    if "ntp" in objectives:
        size = lengths.max_source_tokens + lengths.max_target_tokens - 4
        windows["ntp"] = make_windows(texts, tokenizer, size, False)
    for name, found in windows.items():
        if not found:
            raise DataError(
                f"the corpus has no window of 2 tokens for objective {name!r}; look at its statistics.csv, or raise the lengths"
            )
        logger.info("%s: %d windows, %d tokens", name, len(found), sum(len(window.tokens) for window in found))
    return windows
