"""Attention over rows that ranks share, family by family: logits and gradients are those of whole rows."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing import start_processes
from transformers import AutoConfig, AutoModelForCausalLM

from engine.config import Run
from engine.data import Batch
from engine.dist import World
from engine.errors import WishError
from engine.model import SampleAttention, demand_exact_sharing, sharing_difference, spans_of

pytestmark = pytest.mark.dist

RANKS, VOCABULARY, LENGTH = 4, 96, 64
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"num_key_value_heads": 6, "num_attention_heads": 12, "hidden_size": 96},
    "mistral": {"sliding_window": 9, "num_key_value_heads": 8},
    "qwen2": {"num_key_value_heads": 1, "use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    "qwen3": {},
    "starcoder2": {"sliding_window": 9},
    "gpt2": {"n_inner": 96, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
}
ENDS = ([0, 23, 24, 41, 64], [0, 64])
"""Where samples begin, row by row: none at a border between ranks."""


def built(family: str, **more: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **(SHAPE | FAMILIES.get(family, {}) | more))
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def rows() -> Batch:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(VOCABULARY, (len(ENDS), LENGTH), generator=generator)
    spans = [torch.arange(end - start) for each in ENDS for start, end in zip(each, each[1:], strict=False)]
    positions = torch.cat(spans).view(len(ENDS), LENGTH)
    return Batch(ids, ids, positions, (), ids.numel(), samples=spans_of(positions))


def gradients(model: Any, ids: Tensor, positions: Tensor, weights: Tensor) -> tuple[Tensor, list[Tensor]]:
    model.zero_grad()
    logits = model(input_ids=ids, position_ids=positions, use_cache=False).logits
    (logits * weights).sum().backward()
    return logits.detach(), [p.grad for p in model.parameters() if p.grad is not None]


def world_of(rank: int) -> World:
    return World(rank, RANKS, rank, torch.device("cpu"), None, None)  # type: ignore[arg-type]


def run_of(size: int) -> Run:
    return Run.model_validate({"output": "x", "model": {"path": "x"}, "parallel": {"sequence": size}})


def compare(rank: int, port: int) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=RANKS)
    batch = rows()
    weights = torch.randn(*batch.input_ids.shape, VOCABULARY, generator=torch.Generator().manual_seed(2))
    for size in (2, 4):
        attention = SampleAttention(run_of(size), world_of(rank))
        part = batch.part(rank % size, size)
        for family in FAMILIES:
            model = built(family)
            expected = gradients(model, batch.input_ids, batch.position_ids, weights)
            attention.serve(model)
            with attention.spread(part.samples):
                found = gradients(model, part.input_ids, part.position_ids, attention.part(weights))
            torch.testing.assert_close(found[0], attention.part(expected[0]), rtol=1e-4, atol=1e-5)
            for mine, whole in zip(found[1], expected[1], strict=True):
                torch.distributed.all_reduce(mine)  # each group of ranks has the whole gradient
                torch.testing.assert_close(mine, whole * RANKS / size, rtol=1e-3, atol=1e-3, msg=family)
            # Outside of `spread` the attention is torch's own again.
            alone = model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits
            torch.testing.assert_close(alone, expected[0], rtol=1e-5, atol=1e-5)
        _probes_see(attention, rank)
    torch.distributed.destroy_process_group()


def _probes_see(attention: SampleAttention, rank: int) -> None:
    """A model whose layers look at the token before, beside attention, is told from one that does not."""
    model = built("llama").eval()
    attention.serve(model)

    def forward(input_ids: Tensor, position_ids: Tensor) -> Tensor:
        logits: Tensor = model(input_ids=input_ids, position_ids=position_ids, use_cache=False).logits
        return logits

    def mixing(input_ids: Tensor, position_ids: Tensor) -> Tensor:
        logits = forward(input_ids, position_ids)
        return logits + logits.roll(1, dims=1)

    cpu = torch.device("cpu")
    assert sharing_difference(forward, attention, VOCABULARY, cpu) < 1e-5
    assert sharing_difference(mixing, attention, VOCABULARY, cpu) > 1e-2


def test_every_family_on_two_and_four_ranks_a_row() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(compare, args=(port,), nprocs=RANKS, start_method="fork")


def test_a_difference_is_refused() -> None:
    demand_exact_sharing(1e-6, torch.float32, size=2)
    with pytest.raises(WishError, match="mixes tokens outside of attention"):
        demand_exact_sharing(float("nan"), torch.float32, size=2)


@pytest.fixture()
def attention() -> Iterator[SampleAttention]:
    """Of three ranks, as far as a model is asked whether it will do."""
    made = SampleAttention(run_of(1), world_of(0))
    made.size = 3
    yield made


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("llama", {"num_attention_heads": 8}, "it has 8 attention heads"),
    ("llama", {"num_attention_heads": 6, "attn_implementation": "eager"}, "by eager, not sdpa"),
    ("gpt2", {"num_attention_heads": 6, "hidden_size": 48, "attn_implementation": "eager"}, "not sdpa"),
    ("lfm2", {"num_attention_heads": 6, "hidden_size": 48, "layer_types": ["conv", "full_attention"]}, "of kind"),
    ("bloom", {"num_attention_heads": 6, "hidden_size": 48}, "attention"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "more", "why"), REFUSED)
def test_models_that_will_not_do(family: str, more: dict[str, Any], why: str, attention: SampleAttention) -> None:
    model = built(family, **({"head_dim": 8, "num_key_value_heads": 2} | more))
    with pytest.raises(WishError, match=why):
        attention.serve(model)


def test_rotary_positions_that_depend_on_the_longest(attention: SampleAttention) -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    with pytest.raises(WishError, match="rotary positions are dynamic"):
        attention.serve(built("llama", num_attention_heads=6, num_key_value_heads=2, rope_parameters=rope))
