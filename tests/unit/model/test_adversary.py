"""Moving against a sample: the textbook's two gradients, sample by sample, packed or not."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from engine.model import Adversary

EPSILON = 0.5
IDS = torch.tensor([[5, 9, 3, 7, 11, 2, 8]])


@pytest.fixture
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    return LlamaForCausalLM(LlamaConfig(**shape, num_attention_heads=4, attn_implementation="sdpa")).double()


def both_passes(
    model: LlamaForCausalLM, ids: torch.Tensor, positions: torch.Tensor, *, scale: float = 1.0
) -> list:
    adversary = Adversary(model, epsilon=EPSILON)
    losses = []
    for number in range(adversary.passes):
        with adversary.against(positions, number=number):
            logits = model(input_ids=ids, position_ids=positions).logits
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="sum"
            )
            (loss * scale).backward()
            losses.append(float(loss.detach()))
    return losses


def test_the_gradients_are_those_of_the_sample_and_of_the_moved_sample(model: LlamaForCausalLM) -> None:
    table = model.get_input_embeddings()
    plain = table(IDS).detach().requires_grad_()
    loss = lambda embedded: model(inputs_embeds=embedded, labels=IDS).loss * (IDS.numel() - 1)  # noqa: E731
    clean = loss(plain)
    (gradient,) = torch.autograd.grad(clean, plain)
    shift = EPSILON * gradient / gradient.norm()
    moved = loss(table(IDS) + shift)
    expected = torch.autograd.grad(loss(table(IDS)) + moved, list(model.parameters()))
    found = both_passes(model, IDS, torch.arange(7)[None], scale=1e-3)
    assert found == pytest.approx([float(clean.detach()), float(moved.detach())], rel=1e-5)
    assert found[1] > found[0]
    for parameter, wanted in zip(model.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert torch.allclose(parameter.grad, wanted * 1e-3, rtol=1e-4, atol=1e-9)


def test_outside_of_the_passes_nothing_moves(model: LlamaForCausalLM) -> None:
    before = model(input_ids=IDS).logits
    both_passes(model, IDS, torch.arange(7)[None])
    assert torch.equal(model(input_ids=IDS).logits, before)


def test_frozen_embeddings_are_moved_as_well(model: LlamaForCausalLM) -> None:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("q_proj" in name)
    calm, moved = both_passes(model, IDS, torch.arange(7)[None])
    assert moved > calm


def test_each_sample_of_a_row_is_moved_by_its_own_length() -> None:
    table = torch.nn.Embedding(32, 8)
    ids, positions = torch.arange(6)[None], torch.tensor([[0, 1, 2, 3, 0, 1]])
    model = torch.nn.Module()
    model.get_input_embeddings = lambda: table  # type: ignore[assignment]
    adversary = Adversary(model, epsilon=EPSILON)
    with adversary.against(positions, number=0):
        (table(ids)[:, :4] * 3.0).sum().backward()
    with adversary.against(positions, number=1):
        shift = (table(ids) - table.weight[:6]).detach()[0]
    assert shift[:4].norm() == pytest.approx(EPSILON, rel=1e-5)
    assert not shift[4:].any(), "a sample that trains nothing stays"


def test_without_an_epsilon_nothing_is_hooked(model: LlamaForCausalLM) -> None:
    adversary = Adversary(model, epsilon=0.0)
    assert adversary.passes == 1 and not model.get_input_embeddings()._forward_hooks
