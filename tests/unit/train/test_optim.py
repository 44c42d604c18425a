"""Learning rate shapes, decay groups, and what each optimizer is."""

from __future__ import annotations

import math

import pytest
import torch

from engine.config import Train
from engine.errors import WishError
from engine.train import build_optimizer, learning_rate
from engine.train.optim import put_state, set_learning_rate
from engine.train.rates import Places, rate_factors

STEPS = 100


def rates(**wishes: object) -> list[float]:
    train = Train.model_validate({"learning_rate": 1.0, **wishes})
    return [learning_rate(train, step, STEPS) for step in range(STEPS)]


def test_warmup_is_linear_and_reaches_the_peak() -> None:
    assert rates(schedule="constant", warmup_steps=4)[:6] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert rates(schedule="constant", warmup_fraction=0.1)[8:11] == [0.9, 1.0, 1.0]


def test_cosine_is_half_in_the_middle_and_never_zero() -> None:
    found = rates(schedule="cosine")
    assert found[0] == 1.0
    assert found[50] == pytest.approx(0.5)
    assert found[25] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))
    assert 0 < found[-1] < 0.001
    assert all(a > b for a, b in zip(found, found[1:], strict=False))


def test_linear_falls_evenly_to_its_floor() -> None:
    found = rates(schedule="linear", min_learning_rate_ratio=0.1)
    differences = {round(a - b, 9) for a, b in zip(found, found[1:], strict=False)}
    assert differences == {0.009}
    assert found[-1] == pytest.approx(0.1 + 0.009)


def test_wsd_holds_then_decays() -> None:
    found = rates(schedule="wsd", warmup_steps=10, decay_fraction=0.2)
    assert found[10:80] == [1.0] * 70
    assert found[80] == 1.0 and found[81] == pytest.approx(0.95)
    assert found[-1] == pytest.approx(0.05)


def test_a_range_rises_by_equal_factors() -> None:
    found = rates(schedule="range", min_learning_rate_ratio=1e-4)
    assert (found[0], found[-1]) == (pytest.approx(1e-4), 1.0)
    ratios = [b / a for a, b in zip(found, found[1:], strict=False)]
    assert ratios == pytest.approx([ratios[0]] * 99) and ratios[0] > 1


def test_decay_is_on_matrices_only() -> None:
    layer = torch.nn.Linear(4, 4)
    optimizer = build_optimizer(layer.named_parameters(), Train(weight_decay=0.1), Places(0, ()))
    decays = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decays == {layer.weight: 0.1, layer.bias: 0.0}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adamw", "AdamW"),
        ("adamw_8bit", "AdamW8bit"),
        ("paged_adamw", "PagedAdamW"),
        ("paged_adamw_8bit", "PagedAdamW8bit"),
        ("adafactor", "Adafactor"),
        ("lion", "Lion"),
        ("muon", "MuonAndAdamW"),
        ("lion_8bit", "Lion8bit"),
        ("paged_lion", "PagedLion"),
        ("paged_lion_8bit", "PagedLion8bit"),
    ],
)
def test_each_optimizer_is_what_it_says_and_learns(name: str, kind: str) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(96, 64)
    optimizer = build_optimizer(
        layer.named_parameters(), Train(optimizer=name, learning_rate=1e-2), Places(0, ())
    )
    assert type(optimizer).__name__ == kind
    inputs, target = torch.randn(32, 96), torch.randn(32, 64)
    losses = []
    for _ in range(30):
        loss = (layer(inputs) - target).square().mean()
        losses.append(float(loss))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[-1] < 0.8 * losses[0]


NAMES = (
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.1.mlp.up_proj.weight",
    "model.norm.weight",
    "lm_head.weight",
)
PLACES = Places(2, ("model.embed_tokens",))


def test_rates_fall_layer_by_layer_from_the_head() -> None:
    found = rate_factors(NAMES, Train(layer_decay=0.5), PLACES)
    assert list(found.values()) == [0.125, 0.25, 0.5, 1.0, 1.0]


def test_factors_by_name_are_multiplied_and_patterns_without_a_weight_are_refused() -> None:
    train = Train(layer_decay=0.5, learning_rate_factors={r"layers\.1\.": 0.1, "proj": 2.0})
    found = rate_factors(NAMES, train, PLACES)
    assert list(found.values()) == pytest.approx([0.125, 0.5, 0.1, 1.0, 1.0])
    with pytest.raises(WishError, match="in the name of no trained weight"):
        rate_factors(NAMES, Train(learning_rate_factors={"layers.7.": 0.1}), PLACES)


def test_every_group_moves_by_its_own_rate() -> None:
    """With Lion a step is the rate itself, so that the weights show it."""
    weights = {name: torch.nn.Parameter(torch.zeros(64, 64)) for name in NAMES}
    train = Train(optimizer="lion", layer_decay=0.5, learning_rate=1.0)
    optimizer = build_optimizer(weights.items(), train, PLACES)
    set_learning_rate(optimizer, 0.25)
    for parameter in weights.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moved = [-float(parameter.detach().mean()) for parameter in weights.values()]
    assert moved == pytest.approx([0.25 * factor for factor in (0.125, 0.25, 0.5, 1.0, 1.0)])


def test_muon_steps_matrices_of_layers_and_adamw_the_rest() -> None:
    """A step has singular values near one, times 0.2 of the longer side's root; AdamW's first step is the rate."""
    torch.manual_seed(0)
    shapes = ((100, 48), (48, 96), (96, 48), (48,), (100, 48))
    weights = {
        name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in zip(NAMES, shapes, strict=True)
    }
    optimizer = build_optimizer(weights.items(), Train(optimizer="muon", learning_rate=0.5), PLACES)
    for parameter in weights.values():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    for name, parameter in weights.items():
        moved = -parameter.detach()
        if ".layers." in name:
            values = torch.linalg.svdvals(moved / (0.5 * 0.2 * max(moved.shape) ** 0.5))
            assert values.min() > 0.5 and values.max() < 1.5, name
            assert set(optimizer.state[parameter]) == {"momentum_buffer"}
        else:
            assert torch.allclose(moved.abs(), torch.full_like(moved, 0.5), rtol=1e-3), name
            assert {"exp_avg", "exp_avg_sq"} < set(optimizer.state[parameter])


def test_muon_goes_on_from_loaded_state_as_if_it_had_not_stopped() -> None:
    torch.manual_seed(0)
    gradients = torch.randn(6, 64, 64)

    def optimizer() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        weight = torch.nn.Parameter(torch.ones(64, 64))
        return weight, build_optimizer([(NAMES[1], weight)], Train(optimizer="muon"), PLACES)

    def steps(weight: torch.nn.Parameter, made: torch.optim.Optimizer, numbers: range) -> None:
        for number in numbers:
            weight.grad = gradients[number].clone()
            made.step()

    whole, one = optimizer()
    steps(whole, one, range(6))
    first, two = optimizer()
    steps(first, two, range(3))
    second, three = optimizer()
    second.data.copy_(first.data)
    put_state(three, {second: dict(two.state[first])})
    steps(second, three, range(3, 6))
    assert torch.equal(whole, second)


def test_places_are_the_same_with_and_without_an_adapter() -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2
    )
    model = LlamaForCausalLM(shape)
    assert Places.of(model).layers == 3 and Places.of(model).embeds("model.embed_tokens.weight")
    adapted = get_peft_model(model, LoraConfig(target_modules=["q_proj", "embed_tokens"]))
    names = [name for name, p in adapted.named_parameters() if p.requires_grad]
    found = rate_factors(names, Train(layer_decay=0.5), Places.of(adapted))
    assert {found[name] for name in names if ".layers.0." in name} == {0.125}
    assert {found[name] for name in names if "embed_tokens" in name} == {0.0625}
