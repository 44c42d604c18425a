"""Answers from a model in this process: batches of like prompts, each sample a function of its own seed."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from engine.data import end_of_turn
from engine.errors import TemperError
from engine.generate.draw import Rule, draw, rule
from engine.generate.request import Generation, Request
from engine.generate.text import Codec, Stops

# Finished rows are carried along until they are this share of the batch: taking them out copies the cache.
_LEAVE_AT = 1 / 8
# Tokens a row takes in one go where only memory is asked for: few beside a prompt's, so that they are not the peak.
_STRIDE = 16


def generate(
    model: Any, tokenizer: Any, requests: Sequence[Request], *, batch: int, device: torch.device | str
) -> Iterator[Generation]:
    """Answer the requests, `batch` at a time, longest prompts first: the order answers come in, too.

    A sample depends on its prompt, seed and sampling only. Another `batch` or world size changes nothing
    beyond the rounding of the model's own arithmetic. The model is in evaluation mode while this runs, and as
    before after it.

    Args:
        model: a causal LM of transformers, or a PEFT model around one, whole on `device` (ZeRO-3: gathered).
        tokenizer: the model's.
        requests: what to answer.
        batch: rows side by side.
        device: where the model is.

    Raises:
        TemperError: the model's logits are not finite.
    """
    place = torch.device(device)
    codec = Codec(tokenizer, _ends(model, tokenizer))
    room = _room(model)
    # Samples of one task stand side by side, so that their prompt is read once.
    ordered = sorted(requests, key=lambda r: (-len(codec.encode(r.prompt)), r.prompt, r.task_id, r.sample))
    forward = _Forward(model, room)
    with _evaluating(model):
        for first in range(0, len(ordered), batch):
            rows = [_row(request, codec, room) for request in ordered[first : first + batch]]
            # A function of its own: inference mode must not reach the caller between two answers.
            _decode([row for row in rows if row.limit > 0], forward, place)
            for row in rows:
                yield _generation(row, codec)


@torch.inference_mode()
def rehearse(
    model: Any, tokenizer: Any, requests: Sequence[Request], *, batch: int, device: torch.device | str
) -> None:
    """Take the memory of `generate` at its most: the batch of the longest prompts, every answer of full length.

    Args:
        model: as `generate` takes it, and the rest too.

    Raises:
        TemperError: the model's logits are not finite.
    """
    place = torch.device(device)
    codec = Codec(tokenizer, _ends(model, tokenizer))
    room = _room(model)
    ordered = sorted(requests, key=lambda r: (-len(codec.encode(r.prompt)), r.prompt))
    rows = [row for row in (_row(request, codec, room) for request in ordered[:batch]) if row.limit > 0]
    if not rows:
        return
    forward, longest = _Forward(model, room), max(row.limit for row in rows)
    with _evaluating(model):
        logits, cache, mask = _read_prompts(rows, forward, place)
        lengths = torch.tensor([len(row.prompt) for row in rows], device=place)[:, None]
        for position in range(0, longest - 1, _STRIDE):
            count = min(_STRIDE, longest - 1 - position)
            if mask is not None:
                mask = torch.cat([mask, mask.new_ones(len(rows), count)], dim=1)
            places = lengths + torch.arange(position, position + count, device=place)
            logits, cache = forward(torch.zeros_like(places), mask, places, cache)
        sampling, seeds = [row.request.sampling for row in rows], [row.request.seed for row in rows]
        draw(logits, rule(sampling, seeds, positions=longest, device=place), longest - 1)


@dataclass(slots=True)
class _Row:
    request: Request
    prompt: tuple[int, ...]
    limit: int
    stops: Stops
    new: list[int] = field(default_factory=list)
    over: bool = False

    def take(self, token: int) -> bool:
        """Add a token; whether the row wants no more."""
        self.new.append(token)
        self.over = self.stops.over(self.new)
        return self.over or len(self.new) >= self.limit


class _Forward:
    """A model's forward, told apart by what it takes."""

    def __init__(self, model: Any, room: int | None) -> None:
        self._model = model
        # Positions of padding and of finished rows may lie outside; what is computed there is not looked at.
        self._last_position = None if room is None else room - 1
        base = model.get_base_model() if hasattr(model, "get_base_model") else model
        takes = inspect.signature(base.forward).parameters
        self._takes_positions = "position_ids" in takes
        # Without it a long prompt's logits would be computed, and held, for every position.
        self._last_only = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}

    def __call__(self, ids: Tensor, mask: Tensor | None, positions: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Logits [rows, vocabulary] of the last position, and the cache."""
        extra: dict[str, Any] = dict(self._last_only)
        if self._takes_positions:
            extra["position_ids"] = positions.clamp(0, self._last_position)
        out = self._model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **extra)
        logits = out.logits[:, -1]
        if not bool(torch.isfinite(logits.amax(-1)).all()):
            raise TemperError(
                "the model's logits are not finite while it generates",
                "its weights or precision are broken: look at the training loss, or try precision fp32",
            )
        return logits, out.past_key_values


@torch.inference_mode()
def _decode(rows: list[_Row], forward: _Forward, device: torch.device) -> None:
    """Fill `new` of every row, all in one batch."""
    if not rows:
        return
    logits, cache, mask = _read_prompts(rows, forward, device)
    by = rule(
        [row.request.sampling for row in rows],
        [row.request.seed for row in rows],
        positions=max(row.limit for row in rows),
        device=device,
    )
    lengths = torch.tensor([len(row.prompt) for row in rows], device=device)[:, None]
    live: list[_Row | None] = list(rows)
    for position in range(max(row.limit for row in rows)):
        tokens = draw(logits, by, position)
        for slot, token in enumerate(tokens.tolist()):
            row = live[slot]
            if row is not None and row.take(token):
                live[slot] = None
        left = [slot for slot, row in enumerate(live) if row is not None]
        if not left:
            return
        if len(live) - len(left) >= len(live) * _LEAVE_AT and hasattr(cache, "batch_select_indices"):
            chosen = torch.tensor(left, device=device)
            cache.batch_select_indices(chosen)
            tokens, lengths, by, mask = _select(chosen, tokens, lengths, by, mask)
            live = [live[slot] for slot in left]
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(len(live), 1)], dim=1)
        logits, cache = forward(tokens[:, None], mask, lengths + position, cache)


def _read_prompts(
    rows: list[_Row], forward: _Forward, device: torch.device
) -> tuple[Tensor, Any, Tensor | None]:
    """Logits after each row's prompt, the cache, and the mask of padding (None without any).

    A prompt that several rows share is read once and its cache copied.
    """
    unique = list(dict.fromkeys(row.prompt for row in rows))
    width = max(len(prompt) for prompt in unique)
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in unique], device=device)
    sizes = torch.tensor([len(prompt) for prompt in unique], device=device)[:, None]
    positions = torch.arange(width, device=device)[None] - (width - sizes)
    padded = any(len(prompt) < width for prompt in unique)
    mask = (positions >= 0).long() if padded else None
    logits, cache = forward(ids, mask, positions, None)
    if len(unique) < len(rows):
        numbers = {prompt: number for number, prompt in enumerate(unique)}
        chosen = torch.tensor([numbers[row.prompt] for row in rows], device=device)
        cache.batch_select_indices(chosen)
        logits, mask = logits[chosen], None if mask is None else mask[chosen]
    return logits, cache, mask


def _select(
    chosen: Tensor, tokens: Tensor, lengths: Tensor, by: Rule, mask: Tensor | None
) -> tuple[Tensor, Tensor, Rule, Tensor | None]:
    kept = None if mask is None else mask[chosen]
    return tokens[chosen], lengths[chosen], by.select(chosen), kept


def _row(request: Request, codec: Codec, room: int | None) -> _Row:
    prompt = codec.encode(request.prompt)
    limit = request.sampling.max_new_tokens
    if room is not None:
        limit = min(limit, room - len(prompt))
    return _Row(request, prompt, limit, codec.stops(request.sampling.stop))


def _generation(row: _Row, codec: Codec) -> Generation:
    ended = bool(row.new) and row.new[-1] in row.stops.ends
    raw = codec.decode(row.prompt, row.new[:-1] if ended else row.new)
    cut = row.stops.find(raw)
    request = row.request
    return Generation(
        task_id=request.task_id,
        sample=request.sample,
        seed=request.seed,
        text=raw if cut is None else raw[:cut],
        raw=raw,
        tokens=len(row.new),
        finish="stop" if row.over or cut is not None else "length",
    )


def _room(model: Any) -> int | None:
    """Positions that a text has in this model; None where it does not say."""
    # Imported here: who asks a server needs no model's code.
    from engine.model import virtual_tokens

    found: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return None if found is None else found - virtual_tokens(model)


def _ends(model: Any, tokenizer: Any) -> set[int]:
    """Ids that end an answer, wherever they are written down."""
    settings = getattr(model, "generation_config", None)
    ids = [getattr(settings, "eos_token_id", None), model.config.get_text_config().eos_token_id]
    # An adapter trained on chat ends its turns with a token that its base model's settings may not know.
    ends = {tokenizer.eos_token_id, end_of_turn(tokenizer)}
    for value in ids:
        ends |= set(value) if isinstance(value, (list, tuple)) else {value}
    return {int(end) for end in ends if end is not None}


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, with every module's own mode put back afterwards.

    bitsandbytes' 4-bit layers stay in training mode: they have no dropout, and in evaluation mode on a CPU
    they rewrite their weights into a packing that training cannot use.
    """
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = type(module).__module__.startswith("bitsandbytes")
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
