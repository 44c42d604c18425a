"""The loss that the output head gives is that of its logits, with the same gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

from engine.data import IGNORED, Batch
from engine.model import head, loss_head
from engine.train.objective import chunked_next_token_loss, next_token_loss

SHAPE = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
CPU = torch.device("cpu")


def model(*, tied: bool = False, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=160, tie_word_embeddings=tied, **SHAPE)).to(dtype)


def batch(share: float, rows: int = 3, length: int = 24) -> Batch:
    torch.manual_seed(1)
    ids = torch.randint(160, (rows, length))
    labels = ids.masked_fill(torch.rand(rows, length) >= share, IGNORED)
    return Batch(ids, labels, torch.arange(length).repeat(rows, 1), ("x",) * rows, rows * length)


def gradients(one: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in one.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(
    ("rows_a_chunk", "smoothing"), [(1, 0.0), (7, 0.0), (1000, 0.0), (7, 0.1), (1000, 0.9)]
)
def test_loss_and_gradients_are_those_of_the_logits(
    tied: bool, share: float, rows_a_chunk: int, smoothing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(head.ELEMENTS, "cpu", rows_a_chunk * 160)
    plain, chunked = model(tied=tied), model(tied=tied)
    asked = loss_head(chunked)
    assert asked is not None
    one = next_token_loss(plain, batch(share), CPU, smoothing=smoothing)
    other = chunked_next_token_loss(asked, smoothing=smoothing)(chunked, batch(share), CPU)
    (one * 0.37).backward()
    (other * 0.37).backward()
    assert one.dtype == other.dtype == torch.float32
    torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-5)
    wanted, found = gradients(plain), gradients(chunked)
    assert wanted.keys() == found.keys()
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=1e-4, atol=1e-6, msg=name)


def test_in_bf16_gradients_are_as_near_to_exact_ones_as_from_logits() -> None:
    exact, plain, chunked = model(), model(dtype=torch.bfloat16), model(dtype=torch.bfloat16)
    exact.load_state_dict(plain.state_dict())
    asked = loss_head(chunked)
    assert asked is not None
    next_token_loss(exact, batch(0.5), CPU).backward()
    next_token_loss(plain, batch(0.5), CPU).backward()
    chunked_next_token_loss(asked)(chunked, batch(0.5), CPU).backward()

    def off(one: nn.Module) -> float:
        truth = gradients(exact)["lm_head.weight"]
        return float((gradients(one)["lm_head.weight"].float() - truth).norm() / truth.norm())

    assert off(chunked) <= 1.1 * off(plain)


def test_a_frozen_head_gets_no_gradient_and_passes_one_on() -> None:
    frozen = model()
    frozen.lm_head.weight.requires_grad_(False)
    asked = loss_head(frozen)
    assert asked is not None
    chunked_next_token_loss(asked)(frozen, batch(0.5), CPU).backward()
    found = gradients(frozen)
    assert "lm_head.weight" not in found and bool(found["model.norm.weight"].abs().sum() > 0)


def test_unasked_it_gives_logits_and_copies_do_too() -> None:
    plain, patched = model(), model()
    loss_head(patched)
    ids = batch(1.0).input_ids
    assert torch.equal(plain(ids).logits, patched(ids).logits)
    assert torch.equal(plain(ids).logits, copy.deepcopy(plain)(ids).logits)


def test_cross_entropy_itself_agrees_on_large_logits() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(9, 8) * 30, torch.randn(50, 8) * 30
    targets = torch.randint(50, (9,))
    loss = head.LinearCrossEntropy.apply(hidden, weight, targets, IGNORED)
    torch.testing.assert_close(loss, cross_entropy(hidden @ weight.t(), targets, reduction="sum"))


def test_heads_that_are_no_plain_matrix_are_left_alone() -> None:
    biased = model()
    biased.lm_head = nn.Linear(64, 160)
    assert loss_head(biased) is None
    assert loss_head(model(dtype=torch.float16)) is None


def test_a_model_that_changes_its_logits_is_told_by_its_own_answer() -> None:
    from types import SimpleNamespace

    from engine.train.objective import objective_of

    world = SimpleNamespace(device=CPU, max=lambda values: values)
    shape = SHAPE | {"head_dim": 16, "num_key_value_heads": 4}
    capped = Gemma2ForCausalLM(Gemma2Config(vocab_size=160, final_logit_softcapping=30.0, **shape))
    assert objective_of(capped, loss_head(capped), 160, world)[1] == "from logits"
    plain = model()
    assert objective_of(plain, loss_head(plain), 160, world)[1] == "chunked in the head"


def test_targets_are_smoothed_in_training_alone() -> None:
    one = model()
    asked = loss_head(one)
    assert asked is not None
    smooth, plain = chunked_next_token_loss(asked, smoothing=0.2), chunked_next_token_loss(asked)
    assert float(smooth(one.train(), batch(1.0), CPU)) != float(plain(one, batch(1.0), CPU))
    assert float(smooth(one.eval(), batch(1.0), CPU)) == float(plain(one, batch(1.0), CPU))
