"""Draws programs from a model: batched, seeded by row, for any Hugging Face encoder-decoder or causal language model.

A program depends only on its seed and, through the last bits of floating-point sums, on its batch: random numbers come from
one counter-based stream per program, number t for token t. Rows that have ended leave the batch. Text is decoded without
any clean-up: Hugging Face's would delete blanks before `.`, `,`, `!` and `?`, also inside string literals (spec 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from coderl.config import DecodingConfig
from coderl.problems.prompts import continues_prompt
from coderl.records import DataError
from coderl.sampling.decoder import CausalBatch, EncoderDecoderBatch

_DROP_EVERY = 4
"""Steps between looks at how many rows have ended."""
_DROP_BELOW = 0.7
"""Share of live rows under which the others are dropped: copying the cache costs about what a few steps do."""
_ENTRY_STEP = 8
"""Rows with a prefix enter an encoder-decoder's batch at multiples of this many tokens."""


@dataclass(frozen=True)
class Request:
    """One prompt and how many programs to draw for it.

    seeds: one per program; None asks for the greedy program. prefixes: tokens that each program starts with (the first
    is `<s>` where the model writes that), one list per seed; None = all empty.
    """

    prompt: list[int]
    seeds: Sequence[int | None]
    prefixes: Sequence[list[int]] | None = None


@dataclass(frozen=True)
class Generated:
    """One program: `tokens` with prefix and end token, `text` exactly as decoded without special tokens.

    log_likelihood: sum of log p(token) over the new tokens, end token included, at temperature 1 and over the whole
    vocabulary (natural logarithm). n_tokens: number of new tokens. finished: False = cut at the length limit. With
    `decoding.stop` the tokens go up to the first one with which a stop text is whole; `text` ends before it.
    """

    tokens: list[int]
    text: str
    log_likelihood: float
    n_tokens: int
    finished: bool


# --------------------------------------------------------------------------------------------------- drawing tokens


def _invert(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Index [B] of the first entry whose cumulated weight exceeds uniform * total. probabilities [B, K], uniform [B]."""
    cumulated = probabilities.cumsum(-1)
    total = cumulated[:, -1:]
    # Rounding must not lift the threshold to the total: the index would be past the end, or a token of weight 0.
    threshold = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulated, threshold, right=True)[:, 0]


def _draw_nucleus(scores: Tensor, normaliser: Tensor, uniform: Tensor, top_p: float, width: int) -> Tensor:
    """As draw_tokens with top_p < 1; normaliser [B, 1] is logsumexp(scores).

    Sorting a whole vocabulary costs more than a small model's forward pass, so the nucleus is sought among the `width`
    best tokens, and only rows whose nucleus is larger look further. The result is the same.
    """
    width = min(width, scores.shape[-1])
    best, ids = scores.topk(width, dim=-1)
    probabilities = (best - normaliser).exp()
    cumulated = probabilities.cumsum(-1)
    kept = probabilities.masked_fill(cumulated - probabilities >= top_p, 0.0)
    kept[:, 0] = probabilities[:, 0]
    tokens = ids.gather(1, _invert(kept, uniform)[:, None])[:, 0]
    beyond = cumulated[:, -1] < top_p
    if width < scores.shape[-1] and bool(beyond.any()):
        tokens[beyond] = _draw_nucleus(scores[beyond], normaliser[beyond], uniform[beyond], top_p, width * 8)
    return tokens


def draw_tokens(logits: Tensor, uniform: Tensor, decoding: DecodingConfig) -> Tensor:
    """One token per row by inverting the distribution function.

    Temperature, then top-k, then top-p on what top-k left, as transformers orders them.

    Args:
        logits: [B, V] float32.
        uniform: [B] float32 in [0, 1).
        decoding: temperature 0 = the most likely token; `uniform` is not used then.

    Returns:
        [B] int64.
    """
    if decoding.temperature == 0:
        return logits.argmax(-1)
    scores = logits / decoding.temperature
    if decoding.top_k:
        best, ids = scores.topk(min(decoding.top_k, scores.shape[-1]), dim=-1)
        normaliser = best.logsumexp(-1, keepdim=True)
        index = _draw_nucleus(best, normaliser, uniform, decoding.top_p, best.shape[-1])
        return ids.gather(1, index[:, None])[:, 0]
    if decoding.top_p < 1:
        return _draw_nucleus(scores, scores.logsumexp(-1, keepdim=True), uniform, decoding.top_p, 64)
    return _invert(scores.softmax(-1), uniform)


def uniform_numbers(seed: int, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The first `count` numbers in [0, 1) of the stream of `seed`; number t belongs to the program's token t."""
    return np.random.Generator(np.random.Philox(key=seed)).random(count, dtype=np.float32)


# --------------------------------------------------------------------------------------------------- whole programs


@dataclass
class _Rows:
    """All programs of a call, R rows of up to L tokens, on the model's device.

    tokens [R, L]; length [R] counts them; known [R] is the length of the prefix; shift [R] is the difference between a
    row's token index and the batch's step; log_likelihood [R, L] float64, of each token; done, finished and greedy [R] bool;
    uniform [R, L].
    """

    tokens: Tensor
    length: Tensor
    known: Tensor
    shift: Tensor
    log_likelihood: Tensor
    done: Tensor
    finished: Tensor
    greedy: Tensor
    uniform: Tensor


def _make_rows(seeds: list[int | None], prefixes: list[list[int]], shift: list[int], limit: int, pad: int, device: torch.device) -> _Rows:
    tokens = np.full((len(seeds), limit), pad, dtype=np.int64)
    uniform = np.zeros((len(seeds), limit), dtype=np.float32)
    for row, (seed, prefix) in enumerate(zip(seeds, prefixes, strict=True)):
        tokens[row, : len(prefix)] = prefix
        if seed is not None:
            uniform[row] = uniform_numbers(seed, limit)
    known = torch.tensor([len(prefix) for prefix in prefixes], device=device)
    return _Rows(
        tokens=torch.from_numpy(tokens).to(device),
        length=known.clone(),
        known=known,
        shift=torch.tensor(shift, device=device),
        log_likelihood=torch.zeros((len(seeds), limit), dtype=torch.float64, device=device),
        done=known >= limit,
        finished=torch.zeros(len(seeds), dtype=torch.bool, device=device),
        greedy=torch.tensor([seed is None for seed in seeds], device=device),
        uniform=torch.from_numpy(uniform).to(device),
    )


def _advance(rows: _Rows, active: Tensor, step: int, logits: Tensor, decoding: DecodingConfig, end: int, start: int | None) -> Tensor:
    """Choose and note the next token of the rows `active` [B] from logits [B, V]; returns what they read next, [B]."""
    limit = rows.tokens.shape[1]
    place = step + rows.shift[active]
    forced = place < rows.known[active]
    live = ~rows.done[active] & ~forced
    place = place.clamp(max=limit - 1)
    logits = logits.float()
    ids = draw_tokens(logits, rows.uniform[active, place], decoding)
    greedy = rows.greedy[active]
    if decoding.temperature and bool(greedy.any()):
        ids = torch.where(greedy, logits.argmax(-1), ids)
    chosen = (logits.gather(1, ids[:, None])[:, 0] - logits.logsumexp(-1)).double()
    ids = torch.where(live, ids, rows.tokens[active, place])
    rows.tokens[active, place] = ids
    rows.log_likelihood[active, place] = torch.where(live, chosen, rows.log_likelihood[active, place])
    rows.length[active] += live
    ended = live & (ids == end)
    if start == end:  # many causal models: the first token opens the program
        ended &= place > 0
    rows.finished[active] |= ended
    rows.done[active] |= ended | (place == limit - 1)
    return ids


def _check(model: Any, requests: Sequence[Request], limit: int) -> None:
    """Raise ValueError for requests that make no sense, DataError for ones that the model has no positions for."""
    for number, request in enumerate(requests):
        if not request.prompt:
            raise ValueError(f"request {number}: the prompt is empty")
        if request.prefixes is not None and len(request.prefixes) != len(request.seeds):
            raise ValueError(f"request {number}: {len(request.seeds)} seeds but {len(request.prefixes)} prefixes")
    longest = max(len(request.prompt) for request in requests)
    positions = getattr(model.config, "max_position_embeddings", None)
    needed = max(longest, limit) if model.config.is_encoder_decoder else longest + limit
    if positions is not None and needed > positions:
        raise DataError(
            f"a prompt of {longest} tokens and a program of up to {limit} need {needed} positions, the model has {positions}; "
            "lower lengths.max_source_tokens or lengths.max_target_tokens"
        )


def generate(
    model: PreTrainedModel, tokenizer: Any, requests: Sequence[Request], *, decoding: DecodingConfig, max_target_tokens: int
) -> list[Generated]:
    """Draw len(seeds) programs for every request; all of them are one batch and in memory at once.

    Decoding stops at the tokenizer's end token, at a text of decoding.stop, or when a program has max_target_tokens tokens,
    prefix and end included. A prefix that long comes back as it is. Where start and end token are one and programs open with
    it, a program's first token does not end it. In an encoder-decoder a program follows the decoder's start token, in a causal
    model the prompt. The model is in evaluation mode during the call.

    Returns:
        The programs in the order of requests and seeds.

    Raises:
        ValueError: an empty prompt, or prefixes that do not match the seeds.
        DataError: the model has too few positions, no start token, or its tokenizer no end token.
    """
    owner = [number for number, request in enumerate(requests) for _ in request.seeds]
    if not owner:
        return []
    _check(model, requests, max_target_tokens)
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id or 0
    if end is None:
        raise DataError("the tokenizer has no end token (eos_token); set it in tokenizer_config.json")
    start = None if continues_prompt(tokenizer) else tokenizer.bos_token_id
    stops = _Stops(tokenizer, decoding.stop)
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            rows = _decode(model, requests, owner, decoding, max_target_tokens, start, end, pad, stops)
    finally:
        model.train(was_training)
    return _collect(rows, tokenizer, stops, decoding.drop_cut_line)


class _Stops:
    """Looks for texts that end a program.

    Rows are looked at every few steps, so that decoding costs little; which token a program ends with is decided afterwards,
    and so does not depend on when somebody looked.
    """

    def __init__(self, tokenizer: Any, texts: Sequence[str]) -> None:
        self.tokenizer, self.texts = tokenizer, list(texts)
        # Every byte is one token at most, so that a stop text lies within this many tokens before the last look.
        self.window = max((len(text.encode()) for text in texts), default=0) + _DROP_EVERY

    def decode(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _within(self, text: str) -> bool:
        return any(stop in text for stop in self.texts)

    def look(self, rows: _Rows, active: Tensor) -> None:
        """Mark the rows of which the last tokens hold a stop text as done and finished."""
        if not self.texts:
            return
        chosen = active[~rows.done[active]].tolist()
        lengths, known = rows.length.tolist(), rows.known.tolist()
        for row in chosen:
            last = rows.tokens[row, max(known[row], lengths[row] - self.window) : lengths[row]].tolist()
            if self._within(self.decode(last)):
                rows.done[row] = rows.finished[row] = True

    def end(self, ids: list[int], known: int) -> int | None:
        """The number of tokens up to the first with which a stop text behind the prefix is whole; None = there is none."""
        if not self.texts or not self._within(self.decode(ids[known:])):
            return None
        low, high = known + 1, len(ids)
        while low < high:
            middle = (low + high) // 2
            if self._within(self.decode(ids[known:middle])):
                high = middle
            else:
                low = middle + 1
        return low

    def cut(self, ids: list[int], known: int) -> str:
        """The program's text before the first stop text behind its prefix."""
        text = self.decode(ids)
        if not self.texts:
            return text
        before = len(self.decode(ids[:known]))
        places = [place for stop in self.texts if (place := text.find(stop, before)) >= 0]
        return text[: min(places)] if places else text


def _decode(
    model: Any,
    requests: Sequence[Request],
    owner: list[int],
    decoding: DecodingConfig,
    limit: int,
    start: int | None,
    end: int,
    pad: int,
    stops: _Stops,
) -> _Rows:
    """The decoding loop; owner[row] is the number of the row's request."""
    seeds = [seed for request in requests for seed in request.seeds]
    prefixes = [prefix[:limit] for request in requests for prefix in request.prefixes or [[] for _ in request.seeds]]
    batch: Any
    if model.config.is_encoder_decoder:
        batch = EncoderDecoderBatch(model, [request.prompt for request in requests], pad)
        entries = [len(prefix) // _ENTRY_STEP * _ENTRY_STEP for prefix in prefixes]
        shift = [0] * len(owner)
    else:
        batch = CausalBatch(model, [request.prompt for request in requests], pad)
        entries = [0] * len(owner)
        shift = [len(prefix) for prefix in prefixes]
    rows = _make_rows(seeds, prefixes, shift, limit, pad, model.device)

    waiting: dict[int, list[int]] = {}
    for row, entry in enumerate(entries):
        if len(prefixes[row]) < limit:
            waiting.setdefault(entry, []).append(row)
    active = torch.empty(0, dtype=torch.long, device=model.device)
    step = 0
    logits: Tensor | None = None
    while len(active) or waiting:
        if not len(active):
            step, logits = min(waiting), None
        if step in waiting:
            group = waiting.pop(step)
            read = [prefixes[row][: step + shift[row]] for row in group]
            entered = batch.join([owner[row] for row in group], read)
            active = torch.cat([active, torch.tensor(group, device=active.device)])
            logits = entered if logits is None else torch.cat([logits, entered])
        assert logits is not None
        ids = _advance(rows, active, step, logits, decoding, end, start)
        step += 1
        if step % _DROP_EVERY == 0:
            stops.look(rows, active)
        done = rows.done[active]
        live = len(active) - int(done.sum())
        if live == 0 or (step % _DROP_EVERY == 0 and live < _DROP_BELOW * len(active)):
            index = (~done).nonzero()[:, 0]
            active, ids = active[index], ids[index]
            batch.keep(index)
        logits = batch.step(ids) if len(active) else None
    return rows


def _collect(rows: _Rows, tokenizer: Any, stops: _Stops, drop_cut_line: bool) -> list[Generated]:
    tokens, lengths, known = rows.tokens.tolist(), rows.length.tolist(), rows.known.tolist()
    finished = rows.finished.tolist()
    scores = rows.log_likelihood.cpu()
    programs = []
    for row, length in enumerate(lengths):
        ids = tokens[row][:length]
        stopped = stops.end(ids, known[row])
        count = length if stopped is None else stopped
        ended = finished[row] or stopped is not None
        ids = ids[:count]
        text = stops.cut(ids, known[row])
        if drop_cut_line and not ended:
            text = text[: text.rfind("\n") + 1]
        programs.append(Generated(ids, text, float(scores[row, :count].sum()), count - known[row], ended))
    return programs
