"""Weights as others load them: nothing of the model is left behind, and nothing else is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, DeepseekV3Config, DeepseekV3ForCausalLM, LlamaConfig, LlamaForCausalLM

from engine.checkpoint.save import write_weights
from engine.config import Run
from engine.model import adapt, load_model, with_adapter

ROOT = Path(__file__).parent.parent.parent.parent
SHAPE = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}


def run(folder: Path, **adapter: Any) -> Run:
    wish = {"output": str(folder / "out"), "model": {"path": str(folder)}, "adapter": adapter}
    return Run.model_validate(wish | {"parallel": {"precision": "fp32"}})


def trained(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def test_a_router_bias_that_is_no_parameter_comes_back(tmp_path: Path) -> None:
    config = DeepseekV3Config(
        **SHAPE,
        moe_intermediate_size=32,
        num_attention_heads=4,
        num_key_value_heads=4,
        n_routed_experts=4,
        n_group=2,
        topk_group=1,
        num_experts_per_tok=2,
        first_k_dense_replace=1,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=16,
    )
    model = DeepseekV3ForCausalLM(config)
    (bias,) = [buffer for name, buffer in model.named_buffers() if name.endswith("e_score_correction_bias")]
    bias.copy_(torch.arange(4.0))
    write_weights(tmp_path, model, trained(model), AutoTokenizer.from_pretrained(ROOT / "configs/tiny/base"))
    again = load_model(run(tmp_path), torch.device("cpu"))
    ids = torch.arange(24).reshape(2, 12)
    model.eval(), again.eval()
    assert torch.equal(dict(again.named_buffers())["model.layers.1.mlp.gate.e_score_correction_bias"], bias)
    assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)


def test_an_adapted_embedding_is_saved_as_its_adapter_alone(tmp_path: Path) -> None:
    base = tmp_path / "base"
    LlamaForCausalLM(LlamaConfig(**SHAPE, num_attention_heads=4)).save_pretrained(base)
    wish = run(base, kind="lora", rank=4, target_modules=["embed_tokens", "lm_head", "q_proj"])
    model = adapt(load_model(wish, torch.device("cpu")), wish).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    folder = tmp_path / "adapter"
    write_weights(folder, model, trained(model), AutoTokenizer.from_pretrained(ROOT / "configs/tiny/base"))
    assert all("lora_" in name for name in load_file(folder / "adapter_model.safetensors"))
    again = with_adapter(load_model(wish, torch.device("cpu")), folder).eval()
    ids = torch.arange(24).reshape(2, 12)
    assert torch.equal(model(input_ids=ids).logits, again(input_ids=ids).logits)
