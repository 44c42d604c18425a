"""A fingerprint tells models apart and strategies not."""

from __future__ import annotations

import torch
from torch import nn

from engine.checkpoint import fingerprint, shapes


class Model(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.one = nn.Linear(3, width)
        self.two = nn.Linear(width, 3, bias=False)


def test_fingerprint_is_of_names_shapes_and_what_is_trained() -> None:
    first = fingerprint(Model())
    assert fingerprint(Model()) == first
    assert fingerprint(Model().to(torch.bfloat16)) == first
    assert fingerprint(Model(5)) != first
    frozen = Model()
    frozen.one.requires_grad_(False)
    assert fingerprint(frozen) != first
    assert fingerprint(nn.Sequential(*Model().children())) != first


def test_wrapped_and_sharded_models_are_the_same_model() -> None:
    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

    assert fingerprint(Wrapper(Wrapper(Model()))) == fingerprint(Model())
    sharded = Model()
    for parameter in sharded.parameters():
        # What ZeRO-3 leaves of a parameter between uses.
        parameter.ds_shape = parameter.shape  # type: ignore[attr-defined]
        parameter.data = torch.empty(0)
    assert fingerprint(sharded) == fingerprint(Model())
    assert shapes(sharded)["one.weight"] == (4, 3)


def test_shapes_of_what_is_trained() -> None:
    model = Model()
    model.one.requires_grad_(False)
    assert shapes(model, trainable_only=True) == {"two.weight": (3, 4)}
    assert set(shapes(model)) == {"one.weight", "one.bias", "two.weight"}
