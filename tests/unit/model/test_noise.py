"""A sample's noise is its own: bounded, and the same wherever the sample lies."""

from __future__ import annotations

import math

import torch
from torch import nn

from engine.model import EmbeddingNoise

WIDTH, ALPHA = 16, 5.0


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, WIDTH)
        nn.init.zeros_(self.embed.weight)

    def get_input_embeddings(self) -> nn.Module:
        return self.embed


def noisy(ids: torch.Tensor, positions: torch.Tensor, *, step: int = 3, seed: int = 0) -> torch.Tensor:
    model = Model()
    noise = EmbeddingNoise(model, alpha=ALPHA, seed=seed)
    with noise.added(ids, positions, step=step):
        found = model.embed(ids)
    assert not model.embed(ids).any(), "no noise outside of the block"
    return found.detach()


def test_packed_and_apart_a_sample_has_the_same_noise() -> None:
    one, two = torch.arange(1, 9), torch.arange(20, 25)
    packed = noisy(torch.cat([one, two])[None], torch.cat([torch.arange(8), torch.arange(5)])[None])[0]
    assert torch.equal(packed[:8], noisy(one[None], torch.arange(8)[None])[0])
    assert torch.equal(packed[8:], noisy(two[None], torch.arange(5)[None])[0])
    for part, tokens in ((packed[:8], 8), (packed[8:], 5)):
        limit = ALPHA / math.sqrt(tokens * WIDTH)
        assert 0.8 * limit < part.abs().max() <= limit and abs(part.mean()) < limit / 2


def test_noise_changes_with_step_seed_and_sample() -> None:
    ids, positions = torch.arange(1, 9)[None], torch.arange(8)[None]
    found = [noisy(ids, positions), noisy(ids, positions, step=4), noisy(ids, positions, seed=1)]
    found.append(noisy(ids + 1, positions))
    assert all(not torch.equal(a, b) for at, a in enumerate(found) for b in found[:at])


def test_without_an_alpha_nothing_is_hooked() -> None:
    model = Model()
    EmbeddingNoise(model, alpha=0.0, seed=0)
    assert not model.embed._forward_hooks
