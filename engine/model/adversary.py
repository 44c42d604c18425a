"""Input embeddings moved against each sample (FGM, arXiv 1605.07725), the same however a step is cut."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from engine.model.attention import spans_of


class Adversary:
    """Two passes of a micro-batch: one listens to the gradient at the embeddings, the next moves them along it.

    A sample is moved by epsilon x g / |g|, where g is the gradient of the loss at all of its embeddings and nobody
    else's: so packing, micro-batch and ranks change nothing, and neither does the loss's scale.
    """

    def __init__(self, model: Any, *, epsilon: float) -> None:
        self._epsilon = epsilon
        self._listening = False
        self._heard: Tensor | None = None
        self._shift: Tensor | None = None
        if epsilon:
            model.get_input_embeddings().register_forward_hook(self._touch)

    @property
    def passes(self) -> int:
        """Forward and backward passes of a micro-batch: 2 with an adversary, else 1."""
        return 2 if self._epsilon else 1

    @contextlib.contextmanager
    def against(self, position_ids: Tensor, *, number: int) -> Iterator[None]:
        """Context of the forward and backward of pass `number` of a micro-batch, from 0.

        Args:
            position_ids: [rows, length], in host memory; a sample begins at each 0.
            number: 0 listens, 1 moves.
        """
        if not self._epsilon:
            yield
            return
        self._listening = number == 0
        if number:
            self._shift = self._along(position_ids)
        try:
            yield
        finally:
            self._listening, self._shift = False, None
            if number:
                self._heard = None

    def _along(self, position_ids: Tensor) -> Tensor:
        """How far each embedding moves, [rows, length, width]."""
        assert self._heard is not None and self._heard.grad is not None, (
            "no gradient has reached the embeddings"
        )
        gradient = self._heard.grad
        shift = torch.zeros(gradient.shape, dtype=torch.float32, device=gradient.device)
        for row, samples in enumerate(spans_of(position_ids)):
            for begin, end in samples:
                part = gradient[row, begin:end].float()
                # What trains nothing, padding included, has no gradient and stays where it is.
                length = part.norm().clamp_min(torch.finfo(torch.float32).tiny)
                shift[row, begin:end] = part * (self._epsilon / length)
        return shift

    def _touch(self, module: Any, inputs: Any, output: Tensor) -> Tensor | None:
        if self._shift is not None:
            return output + self._shift.to(output.dtype)
        if self._listening:
            self._heard = torch.zeros_like(output, requires_grad=True)
            return output + self._heard
        return None
