"""Attention by samples gives the logits and gradients of torch's own with a mask, family by family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoConfig, AutoModelForCausalLM

from engine.config import Run
from engine.dist import World
from engine.model import SampleAttention, attention, spans_of
from engine.model.attention import NAME

LENGTH = 40
SPANS = (((0, 17), (17, 18), (18, 31)), ((0, 40),), ())
"""A row of three samples and padding, a full one, and one without samples."""
SHAPE = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 9},
    "qwen2": {"use_sliding_window": True, "sliding_window": 9, "max_window_layers": 1},
    "qwen3": {"head_dim": 16},
    "starcoder2": {"sliding_window": 9},
    "gpt2": {"n_inner": 96, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16},
}
ALONE = World(0, 1, 0, torch.device("cpu"), None, None)  # type: ignore[arg-type]


def built(family: str, **more: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **(SHAPE | FAMILIES.get(family, {}) | more))
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def attention_of(model: dict[str, Any] | None = None, adapter: str = "full") -> SampleAttention:
    tree = {"output": "x", "model": {"path": "x", **(model or {})}, "adapter": {"kind": adapter}}
    return SampleAttention(Run.model_validate(tree), ALONE)


def positions() -> Tensor:
    rows = [torch.cat([torch.arange(n) for n in lengths]) for lengths in ((17, 1, 13, 9), (40,), (40,))]
    return torch.stack(rows)


def learned(model: Any, kept: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits of the samples' tokens, and the gradients of a weighted sum of them."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(96, (3, LENGTH), generator=generator)
    weights = torch.randn(3, LENGTH, 96, generator=generator) * kept[..., None]
    model.zero_grad()
    logits = model(input_ids=ids, position_ids=positions(), use_cache=False).logits
    (logits * weights).sum().backward()
    return logits.detach()[kept], [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_samples_come_out_as_behind_a_mask(family: str, recomputed: bool) -> None:
    kept = torch.zeros(3, LENGTH, dtype=torch.bool)
    for row, samples in enumerate(SPANS):
        for start, end in samples:
            kept[row, start:end] = True
    model, attention = built(family), attention_of()
    if recomputed:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    expected = learned(model, kept)
    attention.serve(model)
    assert model.config._attn_implementation == NAME
    with attention.spread(SPANS):
        found = learned(model, kept)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-5)
    assert len(found[1]) == len(expected[1]), "a row of padding has gradients as well"
    for mine, theirs in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)
    for outside in (None, spans_of(positions())):
        with attention.spread(outside):
            again = learned(model, kept)
        torch.testing.assert_close(again[0], expected[0], rtol=1e-4, atol=1e-5)


def test_samples_do_not_see_each_other() -> None:
    model, attention = built("llama"), attention_of()
    attention.serve(model)
    ids = torch.randint(96, (1, LENGTH), generator=torch.Generator().manual_seed(3))
    other = ids.clone()
    other[:, :17] = (other[:, :17] + 1) % 96
    with torch.no_grad(), attention.spread((SPANS[0],)):
        one, two = (
            model(input_ids=each, position_ids=positions()[:1], use_cache=False).logits
            for each in (ids, other)
        )
    assert torch.equal(one[:, 17:31], two[:, 17:31]) and not torch.equal(one[:, :17], two[:, :17])


@pytest.mark.parametrize("window", [None, 48])
def test_in_sixteen_bits_lengths_are_few_and_nothing_else_changes(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    spans, length = (((0, 17), (17, 147), (147, 200)), ((0, 130),), ()), 210
    torch.manual_seed(5)
    whole = [torch.randn(3, heads, length, 16).to(torch.bfloat16) for heads in (4, 2, 2)]
    given = torch.randn(3, length, 4, 16).to(torch.bfloat16)
    lengths = set()

    def seen(query: Tensor, *args: Any, **options: Any) -> Tensor:
        lengths.add(query.shape[2])
        return scaled_dot_product_attention(query, *args, **options)

    def made(tensors: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        leaves = [x.clone().requires_grad_() for x in tensors]
        output = attention._by_sample(leaves, spans, window, {"dropout_p": 0.0, "scale": None})
        output.backward(given.to(output.dtype))
        return output.detach(), [x.grad for x in leaves if x.grad is not None]

    monkeypatch.setattr(attention, "scaled_dot_product_attention", seen)
    found = made(whole)
    rounded = lengths == {32, 64, 160, 224} if window is None else lengths <= {16, 32, 48}
    assert rounded, f"rounded up to a multiple of 32, or cut by the window: {lengths}"
    expected = made([x.double() for x in whole])
    for mine, theirs in zip((found[0], *found[1]), (expected[0], *expected[1]), strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=2e-2, atol=4e-2)
    for x in whole:
        x[0, :, 147:] += 1
        x[1, :, 130:] -= 1
    again = made(whole)
    assert torch.equal(again[0][0, :147], found[0][0, :147]), "a sample sees nothing of what is behind it"
    assert torch.equal(again[1][0][0, :, :147], found[1][0][0, :, :147])


def test_generation_beside_training_is_torchs_own() -> None:
    model, plain, attention = built("llama").eval(), built("llama").eval(), attention_of()
    attention.serve(model)
    ids = torch.randint(1, 96, (2, 9), generator=torch.Generator().manual_seed(4))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    made = [
        one.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False) for one in (plain, model)
    ]
    assert torch.equal(*made)


@pytest.mark.parametrize(
    ("model", "adapter"),
    [({"attention": "sdpa"}, "full"), ({"attention": "eager"}, "full"), (None, "prefix")],
)
def test_what_the_run_names_stays(model: dict[str, Any] | None, adapter: str) -> None:
    made = built("llama")
    attention_of(model, adapter).serve(made)
    assert made.config._attn_implementation == "sdpa"


def test_attention_that_cannot_be_replaced_stays() -> None:
    made = built("bloom", n_layer=2, n_head=4)
    before = made.config._attn_implementation
    attention_of().serve(made)
    assert made.config._attn_implementation == before
