"""Products in 8 bits: near those in 16 while training, the very same outside of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from engine.errors import WishError
from engine.model import converted, use_float8

pytest.importorskip("torchao")
CPU = torch.device("cpu")
IDS = torch.randint(96, (2, 37), generator=torch.Generator().manual_seed(0))
"""A number of tokens that is no multiple of 16."""


def built(recipe: str | None = None, **more: Any) -> Any:
    torch.manual_seed(0)
    shape = {
        "vocab_size": 96,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("llama", **(shape | more)), dtype=torch.bfloat16
    )
    if recipe:
        use_float8(model, recipe, CPU)
    return model


def learned(model: Any, rows: Tensor = IDS) -> tuple[float, dict[str, Tensor]]:
    model.train().zero_grad()
    loss = model(input_ids=rows, labels=rows).loss
    loss.backward()
    return loss.item(), {name: p.grad.float() for name, p in model.named_parameters()}


@pytest.mark.parametrize("recipe", ["tensorwise", "rowwise", "rowwise_with_gw_hp"])
def test_what_is_learned_is_near_and_not_the_same(recipe: str) -> None:
    plain, eight = built(), built(recipe)
    assert len(converted(eight)) == 2 * 7 and not converted(plain)
    expected, found = learned(plain), learned(eight)
    assert found[0] == pytest.approx(expected[0], rel=1e-3)
    assert found[1].keys() == expected[1].keys(), "weights keep their names"
    apart = [float((found[1][name] - one).norm() / one.norm()) for name, one in expected[1].items()]
    assert 1e-3 < max(apart) < 0.15, "8 bits are coarser, and no more than that"


def test_validation_is_in_sixteen_bits() -> None:
    plain, eight = built().eval(), built("rowwise").eval()
    with torch.no_grad():
        assert torch.equal(plain(input_ids=IDS).logits, eight(input_ids=IDS).logits)


def test_with_gradients_in_sixteen_bits_a_row_does_not_feel_its_neighbours() -> None:
    """The loss head is left out: what layers pass on of a row is the same beside another one."""
    for recipe, same in (("rowwise_with_gw_hp", True), ("tensorwise", False)):
        model = built(recipe).train().model
        with torch.no_grad():
            model.embed_tokens.weight[7] *= 50
            loud = torch.full_like(IDS[:1], 7)
            alone = model(input_ids=torch.cat([IDS[:1], IDS[1:]]), use_cache=False).last_hidden_state[0]
            beside = model(input_ids=torch.cat([IDS[:1], loud]), use_cache=False).last_hidden_state[0]
        assert torch.equal(alone, beside) is same, recipe


def test_odd_sides_stay_in_sixteen_bits_and_nothing_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    some = built("rowwise", intermediate_size=100)
    assert len(converted(some)) == 2 * 4, "attention only"
    with pytest.raises(WishError, match="sides are multiples of 16"):
        built("rowwise", hidden_size=72, intermediate_size=100)
    monkeypatch.setitem(__import__("sys").modules, "torchao.float8", None)
    with pytest.raises(WishError, match="torchao is not installed"):
        built("rowwise")
