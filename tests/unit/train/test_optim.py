"""Learning rate shapes, decay groups, and what each optimizer is."""

from __future__ import annotations

import math

import pytest
import torch

from engine.config import Train
from engine.train import build_optimizer, learning_rate

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


def test_decay_is_on_matrices_only() -> None:
    layer = torch.nn.Linear(4, 4)
    optimizer = build_optimizer(layer.named_parameters(), Train(weight_decay=0.1))
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
    ],
)
def test_each_optimizer_is_what_it_says_and_learns(name: str, kind: str) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(96, 64)
    optimizer = build_optimizer(layer.named_parameters(), Train(optimizer=name, learning_rate=1e-2))
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
