"""The model's side of sampling: a batch of half-written programs inside an encoder-decoder or a causal language model.

A batch offers three operations: `join` (rows enter with some tokens read), `step` (every row reads one token) and `keep`
(the other rows leave). Equal contexts are computed once and then copied, so a prompt is encoded once for all its programs.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import BaseModelOutput

from coderl.records import DataError

_ROOM = 64
"""Columns by which a full cache grows."""

Context = tuple[int, tuple[int, ...]]
"""What a row has read: the number of its request, and tokens of its program."""


class _RoomyLayer(DynamicLayer):
    """A cache layer with room for more tokens: concatenating at every step took two thirds of a small model's time."""

    keys: Tensor
    values: Tensor

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.keys, self.values = layer.keys, layer.values
        self.dtype, self.device = layer.keys.dtype, layer.keys.device
        self.is_initialized = True
        self._room: list[Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append [rows, heads, new, d]; returns views on everything so far."""
        old, new = self.keys.shape[-2], self.keys.shape[-2] + key_states.shape[-2]
        if self._room is None or self._room[0].shape[-2] < new:
            rooms = []
            for states in (self.keys, self.values):
                room = states.new_empty((*states.shape[:2], new + _ROOM, states.shape[-1]))
                room[:, :, :old] = states
                rooms.append(room)
            self._room = rooms
        for room, states in zip(self._room, (key_states, value_states), strict=True):
            room[:, :, old:new] = states
        self.keys, self.values = (room[:, :, :new] for room in self._room)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take the rows `beam_idx`, which may be fewer or repeated."""
        if self._room is None:
            super().reorder_cache(beam_idx)
            return
        length = self.keys.shape[-2]
        self._room = [room.index_select(0, beam_idx) for room in self._room]
        self.keys, self.values = (room[:, :, :length] for room in self._room)

    def append_rows(self, other: Any) -> None:
        """Take in the rows of a layer with as many tokens."""
        self.keys, self.values = torch.cat([self.keys, other.keys]), torch.cat([self.values, other.values])
        self._room = None


def _make_roomy(cache: Any) -> Any:
    """Put _RoomyLayers in place of the plain layers of a cache; other kinds (sliding windows) stay as they are."""
    for part in (cache.self_attention_cache, cache.cross_attention_cache) if isinstance(cache, EncoderDecoderCache) else (cache,):
        if isinstance(part, DynamicCache):
            part.layers = [_RoomyLayer(layer) if type(layer) is DynamicLayer else layer for layer in part.layers]
    return cache


def _distinct(contexts: list[Context]) -> tuple[list[Context], list[int]]:
    """The distinct contexts in order of appearance, and the place of each given one among them."""
    places: dict[Context, int] = {}
    index = [places.setdefault(context, len(places)) for context in contexts]
    return list(places), index


def _padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """ids [B, S] and mask [B, S] (1 at tokens), padded on the right or left."""
    width = max(map(len, rows))
    ids = np.full((len(rows), width), pad, dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for number, row in enumerate(rows):
        part = slice(width - len(row), width) if left else slice(0, len(row))
        ids[number, part] = row
        mask[number, part] = 1
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


class EncoderDecoderBatch:
    """The batch inside an encoder-decoder: every row has read the same number of decoder tokens, so nothing is padded.

    Rows with a prefix enter when the batch has come to (about) its length. Left-padding them instead would shift
    absolute positions in decoders that have such.
    """

    def __init__(self, model: Any, prompts: list[list[int]], pad: int) -> None:
        self.model = model
        self.start = model.config.decoder_start_token_id
        if self.start is None:
            raise DataError("the model's config has no decoder_start_token_id; set it in config.json (0 in T5)")
        ids, self.prompt_masks = _padded(prompts, pad, model.device)
        self.prompt_states = model.get_encoder()(input_ids=ids, attention_mask=self.prompt_masks).last_hidden_state
        self.cache: Any = None

    def join(self, requests: list[int], prefixes: list[list[int]]) -> Tensor:
        """Rows enter with these tokens read (all equally many). Returns the logits [rows, V] of their next token."""
        distinct, places = _distinct(list(zip(requests, map(tuple, prefixes), strict=True)))
        device = self.prompt_states.device
        request = torch.tensor([number for number, _ in distinct], device=device)
        mask, states = self.prompt_masks[request], self.prompt_states[request]
        read = torch.tensor([[self.start, *prefix] for _, prefix in distinct], device=device)
        output = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states), attention_mask=mask, decoder_input_ids=read, use_cache=True
        )
        index = torch.tensor(places, device=device)
        cache = _make_roomy(output.past_key_values)
        cache.reorder_cache(index)
        if self.cache is None:
            self.cache, self.states, self.mask = cache, states[index], mask[index]
        else:
            for name in ("self_attention_cache", "cross_attention_cache"):
                for layer, other in zip(getattr(self.cache, name).layers, getattr(cache, name).layers, strict=True):
                    layer.append_rows(other)
            self.states, self.mask = torch.cat([self.states, states[index]]), torch.cat([self.mask, mask[index]])
        return output.logits[:, -1][index]

    def step(self, ids: Tensor) -> Tensor:
        """Read one token per row [B]; returns logits [B, V]."""
        output = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.states),
            attention_mask=self.mask,
            decoder_input_ids=ids[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.logits[:, -1]

    def keep(self, index: Tensor) -> None:
        """Keep the rows `index` alone."""
        if not len(index):
            self.cache = None
            return
        self.cache.reorder_cache(index)
        self.states, self.mask = self.states.index_select(0, index), self.mask.index_select(0, index)


class CausalBatch:
    """The batch inside a causal model: prompt and prefix padded on the left, all rows enter at once."""

    def __init__(self, model: Any, prompts: list[list[int]], pad: int) -> None:
        self.model, self.prompts, self.pad = model, prompts, pad
        parameters = inspect.signature(model.forward).parameters
        self.has_positions = "position_ids" in parameters
        self.first_options = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self.last_position = (getattr(model.config, "max_position_embeddings", None) or 1 << 60) - 1

    def _positions(self, positions: Tensor) -> dict[str, Tensor]:
        # Rows that have ended stay a few steps more, and must not ask for a position that the model lacks.
        return {"position_ids": positions.clamp(0, self.last_position)} if self.has_positions else {}

    def join(self, requests: list[int], prefixes: list[list[int]]) -> Tensor:
        """Rows enter with these tokens read. Returns the logits [rows, V] of their next token."""
        distinct, places = _distinct(list(zip(requests, map(tuple, prefixes), strict=True)))
        ids, mask = _padded([[*self.prompts[request], *prefix] for request, prefix in distinct], self.pad, self.model.device, left=True)
        output = self.model(input_ids=ids, attention_mask=mask, use_cache=True, **self._positions(mask.cumsum(1) - 1), **self.first_options)
        index = torch.tensor(places, device=mask.device)
        self.cache = _make_roomy(output.past_key_values)
        self.cache.reorder_cache(index)
        self.mask = mask[index]
        return output.logits[:, -1][index]

    def step(self, ids: Tensor) -> Tensor:
        """Read one token per row [B]; returns logits [B, V]."""
        positions = self._positions(self.mask.sum(1, keepdim=True))
        self.mask = torch.cat([self.mask, self.mask.new_ones((len(ids), 1))], dim=1)
        output = self.model(input_ids=ids[:, None], attention_mask=self.mask, past_key_values=self.cache, use_cache=True, **positions)
        return output.logits[:, -1]

    def keep(self, index: Tensor) -> None:
        """Keep the rows `index` alone."""
        self.cache.reorder_cache(index)
        self.mask = self.mask.index_select(0, index)
