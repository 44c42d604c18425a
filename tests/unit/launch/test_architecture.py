"""Counts of weights from config.json alone, against the models transformers builds from the same file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.config import Adapter, Run
from engine.errors import WishError
from launch.architecture import FAMILIES, Architecture, architecture
from launch.states import counts

SMALL = {
    "vocab_size": 320,
    "hidden_size": 48,
    "intermediate_size": 112,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40, "head_dim": 16},
}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True, "head_dim": 16}),
    ("mistral", {"sliding_window": None}),
    ("qwen2", {}),
    ("qwen2", {"tie_word_embeddings": True}),
    ("qwen3", {"head_dim": 16}),
    ("starcoder2", {}),
    ("starcoder2", {"use_bias": False, "tie_word_embeddings": False}),
    ("gpt2", {"n_embd": 48, "n_head": 6, "n_layer": 3, "n_inner": 112, "n_positions": 128}),
    *MIXTURES.items(),
]


def model(kind: str, values: dict[str, Any]) -> Any:
    """The model transformers builds, without memory for its weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **(SMALL | values))
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def read(folder: Path, tree: dict[str, Any] | None = None) -> tuple[Run, Architecture]:
    run = Run.model_validate({"output": "runs/x", "model": {"path": str(folder)}, **(tree or {})})
    return run, architecture(run)


@pytest.mark.parametrize(("kind", "values"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_weights_are_counted_as_transformers_has_them(
    tmp_path: Path, kind: str, values: dict[str, Any]
) -> None:
    built = model(kind, values)
    built.config.save_pretrained(tmp_path)
    _, found = read(tmp_path)
    assert found.parameters == sum(parameter.numel() for parameter in built.parameters())
    linear = [
        module
        for name, module in built.named_modules()
        if type(module).__name__ in ("Linear", "Conv1D") and "lm_head" not in name
    ]
    assert found.shape.layers * found.layer_linear == sum(module.weight.numel() for module in linear)


def test_every_known_family_is_checked() -> None:
    assert {kind for kind, _ in CASES} == set(FAMILIES)


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"], r".*\.self_attn\.[qk]_proj"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "starcoder2", "mixtral", "qwen3_moe"])
def test_adapters_are_counted_as_peft_has_them(tmp_path: Path, kind: str, targets: Any) -> None:
    from peft import LoraConfig, get_peft_model

    built = model(kind, MIXTURES.get(kind, {}))
    built.config.save_pretrained(tmp_path)
    adapted = get_peft_model(built, LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))
    adapter = Adapter(kind="lora", rank=4, target_modules=targets)
    _, found = read(tmp_path)
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert counts(found, adapter).trained == trained
    assert counts(found, adapter).total == sum(parameter.numel() for parameter in adapted.parameters())


def test_known_models_have_their_published_size(tmp_path: Path) -> None:
    seven = dict(hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28)
    seven |= dict(num_key_value_heads=4, vocab_size=152064)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2", **seven}))
    assert read(tmp_path)[1].parameters == 7_615_616_512
    thirty = dict(hidden_size=2048, intermediate_size=6144, num_hidden_layers=48, num_attention_heads=32)
    thirty |= dict(num_key_value_heads=4, head_dim=128, vocab_size=151936, num_experts=128)
    thirty |= dict(num_experts_per_tok=8, moe_intermediate_size=768)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_moe", **thirty}))
    found = read(tmp_path)[1]
    assert found.parameters == 30_532_122_624
    assert 3.0e9 < found.active < 3.4e9


@pytest.mark.parametrize("value", [None, "many", 2.5, True])
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("mixtral", "num_local_experts"),
        ("qwen3_moe", "num_experts"),
        ("qwen3_moe", "num_experts_per_tok"),
        ("qwen3_moe", "moe_intermediate_size"),
        ("qwen3_moe", "decoder_sparse_step"),
    ],
)
def test_a_count_that_is_none_is_refused(tmp_path: Path, kind: str, name: str, value: Any) -> None:
    values = {**SMALL, **MIXTURES[kind], "model_type": kind, name: value}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(WishError, match=f"{name}: {json.dumps(value)}"):
        read(tmp_path)


def test_a_family_that_is_not_known_is_refused_by_name(tmp_path: Path) -> None:
    small = {**SMALL, "model_type": "qwen4"}
    (tmp_path / "config.json").write_text(json.dumps(small))
    with pytest.raises(WishError, match=r"qwen4.*nearest, qwen"):
        read(tmp_path)


def test_a_hub_id_is_found_in_the_cache_and_otherwise_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    run = Run.model_validate({"output": "runs/x", "model": {"path": "org/name"}})
    with pytest.raises(WishError, match="--model-config FILE"):
        architecture(run)
    place = tmp_path / "models--org--name"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("abc123")
    (place / "snapshots" / "abc123").mkdir(parents=True)
    file = place / "snapshots" / "abc123" / "config.json"
    file.write_text(json.dumps({**SMALL, "model_type": "llama"}))
    assert architecture(run).shape.hidden == 48
    assert architecture(run, str(file)).shape.hidden == 48


def test_targets_that_match_nothing_name_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**SMALL, "model_type": "llama"}))
    found = read(tmp_path)[1]
    with pytest.raises(WishError, match="q_proj"):
        found.targets(Adapter(kind="lora", target_modules=("query",)))
