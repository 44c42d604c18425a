"""A 4-bit base must train the same before and after it was evaluated."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from engine.config import Run
from engine.model import adapt, load_model


def test_gradients_after_an_evaluation_forward_are_those_before_it(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=96, **shape)).save_pretrained(tmp_path)
    run = Run.model_validate(
        {
            "output": str(tmp_path / "out"),
            "model": {"path": str(tmp_path)},
            "adapter": {"kind": "qlora", "rank": 4},
        }
    )
    model = adapt(load_model(run, torch.device("cpu")), run)
    ids = torch.randint(0, 96, (2, 16))

    def gradients() -> list[torch.Tensor]:
        model.train()
        model.zero_grad(set_to_none=True)
        model(input_ids=ids, labels=ids).loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]

    before = gradients()
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)
    after = gradients()
    assert before and all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
