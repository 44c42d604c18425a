"""Layers called in other ways give the same loss and gradients, and keep what they say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from transformers import AutoConfig, AutoModelForCausalLM

from engine.config import Model, Run
from engine.dist import World
from engine.errors import WishError
from engine.model import SampleAttention, graphs, layers, set_layers, spans_of

SHAPE = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
ALONE = World(0, 1, 0, torch.device("cpu"), None, None)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _nothing_is_compiled_yet() -> None:
    torch.compiler.reset()


def built(family: str = "llama", **wish: Any) -> tuple[Any, SampleAttention]:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SHAPE)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    run = Run.model_validate({"output": "x", "model": {"path": "x", **wish}})
    attention = SampleAttention(run, ALONE)
    attention.serve(model)
    set_layers(model, run.model)
    return model, attention


def learned(model: Any, attention: SampleAttention, tokens: int) -> tuple[float, list[Tensor]]:
    """Loss and gradients of a row of two samples."""
    ids = torch.randint(96, (1, tokens), generator=torch.Generator().manual_seed(tokens))
    positions = torch.cat([torch.arange(tokens // 3), torch.arange(tokens - tokens // 3)])[None]
    model.train().zero_grad()
    with attention.spread(spans_of(positions)):
        loss = model(input_ids=ids, position_ids=positions, use_cache=False, labels=ids).loss
        loss.backward()
    return loss.item(), [p.grad.clone() for p in model.parameters()]


WISHES: dict[str, dict[str, bool]] = {
    "compiled": {"compile": True},
    "compiled and recomputed": {"compile": True, "activation_checkpointing": True},
    "offloaded": {"activation_checkpointing": True, "activation_offload": True},
}


@pytest.mark.parametrize("name", WISHES)
def test_layers_learn_the_same_however_they_are_called(name: str) -> None:
    plain, called = built(), built(**WISHES[name])
    before = graphs()
    for tokens in (50, 77, 34):
        expected, found = learned(*plain, tokens), learned(*called, tokens)
        assert found[0] == pytest.approx(expected[0], rel=1e-6)
        for one, other in zip(found[1], expected[1], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    # One set for all layers and lengths, each cut in two by attention.
    assert (graphs() - before > 0) == ("compiled" in name) and graphs() - before <= 8


def test_validation_and_generation_run_plain_layers() -> None:
    plain, compiled = built()[0].eval(), built(compile=True)[0].eval()
    before = graphs()
    ids = torch.arange(7)[None]
    words = [model.generate(ids, max_new_tokens=6, do_sample=False) for model in (plain, compiled)]
    assert torch.equal(*words) and graphs() == before


def test_nothing_but_inputs_of_layers_goes_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[Tensor] = []

    class Watched(layers.save_on_cpu):
        def __init__(self, pin_memory: bool) -> None:
            super().__init__(pin_memory=pin_memory)
            pack = self.pack_hook
            saved_tensors_hooks.__init__(self, lambda x: moved.append(x) or pack(x), self.unpack_hook)

    monkeypatch.setattr(layers, "save_on_cpu", Watched)
    learned(*built(activation_checkpointing=True, activation_offload=True), 50)
    assert [tuple(one.shape) for one in moved if one.numel()] == [(1, 50, 64)] * 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: on a CPU the host is where all is")
def test_the_device_keeps_one_input_where_it_kept_all() -> None:
    held = {}
    for offload in (False, True):
        model = built(activation_checkpointing=True)[0].to("cuda").train()
        set_layers(model, Model(path="x", activation_checkpointing=True, activation_offload=offload))
        ids = torch.randint(96, (4, 2048), device="cuda")
        before = torch.cuda.memory_allocated()
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        held[offload] = torch.cuda.memory_allocated() - before
        hidden.sum().backward()
    assert held[False] - held[True] >= 3 * 4 * 2048 * 64 * 4 * 0.9


def test_a_missing_compiler_is_named_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config, cpp_builder

    cpp_builder.cpp_compiler_search.cache_clear()
    monkeypatch.setattr(config.cpp, "cxx", (None, "/bin/false"))
    monkeypatch.setenv("CXX", "/bin/false")
    with pytest.raises(WishError, match="no C.. compiler works .CXX is /bin/false"):
        built(compile=True)


def test_a_model_without_layers_of_transformers_is_refused() -> None:
    model = built()[0]
    model.model.layers = torch.nn.ModuleList()
    with pytest.raises(WishError, match="does not let its layers be called differently"):
        set_layers(model, Model(path="x", compile=True))
