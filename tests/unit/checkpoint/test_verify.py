"""Saved weights that are not the model's are found out when they are saved."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from engine.checkpoint import reopen, shapes
from engine.errors import TemperError

EXPECTED = {"a.weight": (3, 4), "a.bias": (3,), "b.lora_B.weight": (2, 2)}


def tensors() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.ones(3, 4), "a.bias": torch.zeros(3), "b.lora_B.weight": torch.zeros(2, 2)}


def test_the_models_own_weights_pass(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "model.safetensors")
    reopen(tmp_path, EXPECTED)


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("a.weight", None, "a.weight is missing"),
        ("a.weight", torch.zeros(3, 4), "a.weight is all zero"),
        ("a.weight", torch.full((3, 4), float("nan")), "a.weight is not finite"),
        ("a.bias", torch.tensor([0.0, float("inf"), 0.0]), "a.bias is not finite"),
        ("a.weight", torch.empty(0), r"a.weight has shape \[0\], the model \[3, 4\]"),
        ("a.weight", torch.ones(4, 3), r"a.weight has shape \[4, 3\], the model \[3, 4\]"),
        ("c.weight", torch.ones(1), "c.weight is not the model's"),
    ],
)
def test_each_fault_is_named(tmp_path: Path, name: str, tensor: torch.Tensor | None, said: str) -> None:
    changed = tensors()
    changed.pop(name, None)
    if tensor is not None:
        changed[name] = tensor
    save_file(changed, tmp_path / "model.safetensors")
    with pytest.raises(TemperError, match=said):
        reopen(tmp_path, EXPECTED)


def test_many_faults_are_counted(tmp_path: Path) -> None:
    save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    with pytest.raises(TemperError, match="and 1 more"):
        reopen(tmp_path, EXPECTED)


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("shard", ["1GB", "40KB"])
def test_what_save_pretrained_writes(tmp_path: Path, tie: bool, shard: str) -> None:
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=200, tie_word_embeddings=tie, **shape)).to(torch.bfloat16)
    model.save_pretrained(tmp_path, max_shard_size=shard)
    sharded = len(list(tmp_path.glob("*.safetensors"))) > 1
    assert sharded == (shard == "40KB")
    expected = shapes(model)
    assert ("lm_head.weight" in expected) != tie
    reopen(tmp_path, expected, tied={"lm_head.weight"} if tie else ())
    if sharded:
        next(iter(sorted(tmp_path.glob("*.safetensors")))).unlink()
        with pytest.raises(TemperError, match="which is not there"):
            reopen(tmp_path, expected)


def test_a_cut_file_and_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(TemperError, match="0 safetensors files and no index"):
        reopen(tmp_path, EXPECTED)
    file = tmp_path / "model.safetensors"
    save_file(tensors(), file)
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(TemperError, match="model.safetensors cannot be read"):
        reopen(tmp_path, EXPECTED)


def test_a_shard_the_index_does_not_name_is_not_read(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "model-00001-of-00001.safetensors")
    save_file({"stray": torch.ones(1)}, tmp_path / "old.safetensors")
    index = {"weight_map": dict.fromkeys(EXPECTED, "model-00001-of-00001.safetensors")}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    reopen(tmp_path, EXPECTED)
