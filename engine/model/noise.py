"""Noise on the input embeddings (NEFTune, arXiv 2310.05914), the same for a sample however a step is cut."""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from engine.model.attention import spans_of


class EmbeddingNoise:
    """Adds uniform noise from [-1, 1] x alpha / sqrt(tokens x width) to each sample's embeddings, where asked.

    The generator is seeded by the run's seed, the step and the sample's own tokens: packing, micro-batch, ranks and a
    resume change nothing.
    """

    def __init__(self, model: Any, *, alpha: float, seed: int) -> None:
        self._alpha = alpha
        self._seed = seed
        self._spans: list[tuple[int, int, int, int]] | None = None
        if alpha:
            model.get_input_embeddings().register_forward_hook(self._add)

    @contextlib.contextmanager
    def added(self, input_ids: Tensor, position_ids: Tensor, *, step: int) -> Iterator[None]:
        """Within this block a forward is noisy.

        Args:
            input_ids: [rows, length], in host memory.
            position_ids: [rows, length], in host memory; a sample begins at each 0.
            step: the optimizer step, 0-based.
        """
        self._spans = list(self._samples(input_ids, position_ids, step)) if self._alpha else None
        try:
            yield
        finally:
            self._spans = None

    def _samples(
        self, input_ids: Tensor, position_ids: Tensor, step: int
    ) -> Iterator[tuple[int, int, int, int]]:
        """Row, begin, end and seed of each sample."""
        for row, samples in enumerate(spans_of(position_ids)):
            for begin, end in samples:
                digest = hashlib.blake2b(f"{self._seed} neftune {step} ".encode(), digest_size=8)
                digest.update(input_ids[row, begin:end].numpy().tobytes())
                yield row, begin, end, int.from_bytes(digest.digest(), "big") >> 1

    def _add(self, module: Any, inputs: Any, output: Tensor) -> Tensor | None:
        if self._spans is None:
            return None
        noise = torch.empty(output.shape, dtype=torch.float32, device=output.device)
        generator = torch.Generator(output.device)
        for row, begin, end, seed in self._spans:
            limit = self._alpha / math.sqrt((end - begin) * output.shape[-1])
            noise[row, begin:end].uniform_(-limit, limit, generator=generator.manual_seed(seed))
        return output + noise.to(output.dtype)
