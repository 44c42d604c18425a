"""A model is loaded whole, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from engine.config import Run
from engine.errors import WishError
from engine.model import load_model

SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}


def run(folder: Path, kind: str, *, tied: bool) -> Run:
    LlamaForCausalLM(LlamaConfig(vocab_size=96, tie_word_embeddings=tied, **SHAPE)).save_pretrained(folder)
    return Run.model_validate(
        {"output": str(folder / "out"), "model": {"path": str(folder)}, "adapter": {"kind": kind}}
    )


@pytest.mark.parametrize("kind", ["full", "qlora"])
def test_a_lacking_weight_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    wish = run(tmp_path, kind, tied=False)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(WishError, match=r"lacks weights of LlamaForCausalLM: model\.layers\.1\.mlp\.up_proj"):
        load_model(wish, torch.device("cpu"))


@pytest.mark.parametrize("kind", ["full", "qlora"])
def test_a_tied_head_is_not_taken_for_a_lacking_one(tmp_path: Path, kind: str) -> None:
    model = load_model(run(tmp_path, kind, tied=True), torch.device("cpu"))
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
