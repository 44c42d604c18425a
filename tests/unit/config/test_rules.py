"""Each rule across sections: found when broken, silent when not, and the fix it names works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.config import Run, check, deepspeed_settings, demand, shape
from engine.config.rules import OF_TRAINING, RULES
from engine.errors import WishError


@pytest.fixture()
def model(tmp_path: Path) -> Path:
    numbers = {
        "model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2,
        "vocab_size": 100, "max_position_embeddings": 256, "intermediate_size": 128,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(numbers))
    return tmp_path


def made(model: Path, /, **sections: dict[str, Any]) -> Run:
    tree: dict[str, Any] = {
        "output": "runs/x",
        "model": {"path": str(model)},
        "data": {"train": [{"path": "a"}], "max_length": 128},
    }
    for section, values in sections.items():
        tree[section] = tree.get(section, {}) | values
    return Run.model_validate(tree)


SERVER = "http://127.0.0.1:8000/v1"

# fmt: off
# ruff: noqa: E501 - a table reads better in long rows
CASES: list[tuple[str, dict[str, dict[str, Any]], str, dict[str, dict[str, Any]]]] = [
    ("restarts", {"parallel": {"restarts": 2}, "checkpoint": {"resume": "never"}}, "parallel.restarts is 2 and checkpoint.resume is never", {"parallel": {"restarts": 2}, "checkpoint": {"resume": "auto"}}),
    ("batch", {"train": {"global_batch": 100, "micro_batch": 8}, "parallel": {"strategy": "ddp", "processes": 3}},
     "global_batch 100 is not divisible by 3 ranks x train.micro_batch 8", {"train": {"global_batch": 96}}),
    ("peers", {"parallel": {"processes": 2}}, "strategy is none and there are 2 ranks", {"parallel": {"strategy": "ddp"}}),
    ("fsdp", {"parallel": {"strategy": "fsdp2"}, "adapter": {"kind": "qlora"}}, "fsdp2 and adapter.kind is qlora", {"parallel": {"strategy": "zero3"}}),
    ("fsdp fp16", {"parallel": {"strategy": "fsdp2", "precision": "fp16"}}, "fsdp2 and parallel.precision is fp16", {"parallel": {"precision": "bf16"}}),
    ("offload", {"parallel": {"strategy": "ddp", "offload_optimizer": True}}, "offload_optimizer is on and the strategy is ddp",
     {"parallel": {"strategy": "zero2"}}),
    ("offload weights", {"parallel": {"strategy": "zero2", "offload_parameters": True}}, "offload_parameters is on", {"parallel": {"strategy": "zero3"}}),
    ("offload optimizer", {"parallel": {"strategy": "zero2", "offload_optimizer": True}, "train": {"optimizer": "adamw_8bit"}},
     "optimizer is adamw_8bit", {"train": {"optimizer": "adamw"}}),
    ("adafactor", {"parallel": {"strategy": "zero2"}, "train": {"optimizer": "adafactor"}}, "optimizer is adafactor", {"train": {"optimizer": "adamw"}}),
    ("fp16", {"parallel": {"precision": "fp16", "device": "cpu"}}, "fp16", {"parallel": {"precision": "bf16"}}),
    ("qlora fp32", {"adapter": {"kind": "qlora"}, "parallel": {"strategy": "zero3", "precision": "fp32"}}, "qlora with zero3 in fp32",
     {"parallel": {"precision": "bf16"}}),
    ("sequence ranks", {"parallel": {"strategy": "ddp", "processes": 4, "sequence": 3}}, "sequence is 3 and there are 4 ranks", {"parallel": {"sequence": 2}}),
    ("sequence heads", {"parallel": {"strategy": "ddp", "processes": 8, "sequence": 8}}, "sequence is 8 and the model has 4 attention heads", {"parallel": {"sequence": 4}}),
    ("sequence attention", {"parallel": {"strategy": "ddp", "processes": 2, "sequence": 2}, "model": {"attention": "eager"}}, "model.attention is eager", {"model": {"attention": "sdpa"}}),
    ("sequence batch", {"train": {"global_batch": 3}, "parallel": {"strategy": "ddp", "processes": 8, "sequence": 2}},
     "global_batch 3 is not divisible by 4 groups of 2 ranks", {"train": {"global_batch": 4}}),
    ("adapter key", {"adapter": {"kind": "ia3", "rank": 8}}, "adapter.rank is 8 and adapter.kind is ia3", {"adapter": {"rank": 16}}),
    ("adapter block", {"adapter": {"kind": "lora", "block_size": 8}}, "block_size is 8 and adapter.kind is lora", {"adapter": {"kind": "oft"}}),
    ("adapter switch", {"adapter": {"kind": "vera", "dora": True}}, "adapter.dora is true and adapter.kind is vera", {"adapter": {"kind": "lora"}}),
    ("loftq", {"adapter": {"kind": "lora", "init": "loftq"}}, "init is loftq and adapter.kind is lora", {"adapter": {"kind": "qlora"}}),
    ("pissa", {"adapter": {"kind": "qlora", "init": "pissa"}}, "init is pissa and adapter.kind is qlora", {"adapter": {"init": "loftq"}}),
    ("olora", {"adapter": {"kind": "lora", "init": "olora", "dora": True}}, "init is olora and adapter.dora is on", {"adapter": {"dora": False}}),
    ("new tokens", {"adapter": {"kind": "lora", "new_tokens": ["<a>", "<a>"]}}, "names a word twice", {"adapter": {"new_tokens": ["<a>"]}}),
    ("new tokens' kind", {"adapter": {"kind": "oft", "new_tokens": ["<a>"]}}, "new_tokens is ['<a>'] and adapter.kind is oft", {"adapter": {"kind": "lora"}}),
    ("new tokens' rows", {"adapter": {"kind": "lora", "new_tokens": ["<a>"]}, "parallel": {"strategy": "zero3"}}, "zero3, which shards the embedding", {"parallel": {"strategy": "zero2"}}),
    ("dora over four bits", {"adapter": {"kind": "qlora", "dora": True}, "parallel": {"strategy": "zero3"}}, "zero3, which shards what DoRA copies", {"parallel": {"strategy": "zero2"}}),
    ("adalora's ranks", {"adapter": {"kind": "adalora", "target_rank": 16}}, "target_rank 16 is not less than adapter.rank 16", {"adapter": {"rank": 25}}),
    ("adalora's budget", {"adapter": {"kind": "adalora", "budget_start": 0.6}}, "budget_start 0.6 is not before adapter.budget_end 0.6", {"adapter": {"budget_start": 0.2}}),
    ("adalora's optimizer", {"adapter": {"kind": "adalora"}, "train": {"optimizer": "adamw_8bit"}}, "keeps no state by weight", {"train": {"optimizer": "adamw"}}),
    ("adalora's key", {"adapter": {"kind": "lora", "target_rank": 4}}, "target_rank is 4 and adapter.kind is lora", {"adapter": {"kind": "adalora"}}),
    ("virtual tokens packed", {"adapter": {"kind": "prompt"}}, "kind is prompt and data.packing is on", {"data": {"packing": False}}),
    ("virtual tokens shared", {"adapter": {"kind": "prompt"}, "data": {"packing": False}, "parallel": {"strategy": "zero2", "processes": 2, "sequence": 2}}, "sequence is 2 and adapter.kind is prompt", {"parallel": {"sequence": 1}}),
    ("virtual tokens' attention", {"adapter": {"kind": "ptuning"}, "data": {"packing": False}, "model": {"attention": "flex_attention"}}, "flex_attention and adapter.kind is ptuning", {"model": {"attention": "sdpa"}}),
    ("prefix recomputed", {"adapter": {"kind": "prefix"}, "data": {"packing": False}, "model": {"activation_checkpointing": True}}, "drops the keys and values", {"adapter": {"kind": "ptuning"}}),
    ("virtual tokens in context", {"adapter": {"kind": "prompt"}, "data": {"packing": False, "max_length": 240}}, "240 behind 20 virtual tokens is longer than the model's context of 256", {"data": {"max_length": 236}}),
    ("virtual tokens beyond", {"adapter": {"kind": "prompt", "virtual_tokens": 300}, "data": {"packing": False}}, "behind 300 virtual tokens", {"adapter": {"virtual_tokens": 24}}),
    ("prefix's targets", {"adapter": {"kind": "prefix", "target_modules": ["q_proj"]}, "data": {"packing": False}}, "target_modules is ['q_proj'] and adapter.kind is prefix", {"adapter": {"target_modules": "all-linear"}}),
    ("scratch", {"model": {"init": "scratch"}, "adapter": {"kind": "lora"}}, "init is scratch", {"adapter": {"kind": "full"}}),
    ("k", {"evaluate": {"benchmark": "basics", "k": [1, 10], "samples": 5, "temperature": 0.2}}, "asks for pass@10", {"evaluate": {"samples": 10}}),
    ("greedy", {"evaluate": {"benchmark": "basics", "samples": 5}}, "temperature is 0", {"evaluate": {"temperature": 0.2}}),
    ("in loop", {"train": {"evaluate_every": 5}}, "benchmark is empty", {"evaluate": {"benchmark": "basics"}}),
    ("early stop", {"train": {"early_stop_patience": 2}}, "never measured",
     {"train": {"validate_every": 5}, "data": {"validation_fraction": 0.1}}),
    ("metric", {"checkpoint": {"metric": "pass@1"}}, "evaluate_every is 0", {"train": {"evaluate_every": 5}, "evaluate": {"benchmark": "basics"}}),
    ("unknown metric", {"checkpoint": {"metric": "val_loss", "export": "best"}, "data": {"validation_fraction": 0.1}},
     "metric is val_loss, which is never logged", {"checkpoint": {"metric": "validation_loss"}}),
    ("best", {"checkpoint": {"export": "best"}}, "export is best by validation_loss", {"data": {"validation_fraction": 0.1}}),
    ("best kept", {"checkpoint": {"export": "best", "keep_best": 0}, "data": {"validation_fraction": 0.1}},
     "keep_best is 0", {"checkpoint": {"keep_best": 1}}),
    ("context", {"data": {"max_length": 512}}, "longer than the model's context of 256", {"data": {"max_length": 256}}),
    ("flash", {"model": {"attention": "flash_attention_2"}, "parallel": {"device": "cpu"}}, "attention is flash", {"model": {"attention": "sdpa"}}),
    ("offloaded layers", {"model": {"activation_offload": True}}, "activation_offload is on", {"model": {"activation_checkpointing": True}}),
    ("float8 fp32", {"parallel": {"float8": "rowwise", "precision": "fp32"}}, "precision is fp32", {"parallel": {"precision": "bf16"}}),
    ("float8 lora", {"parallel": {"float8": "rowwise"}, "adapter": {"kind": "lora"}}, "float8 is rowwise and adapter.kind is lora", {"adapter": {"kind": "full"}}),
    ("float8 zero3", {"parallel": {"float8": "tensorwise", "strategy": "zero3", "processes": 2}}, "tensorwise and parallel.strategy is zero3",
     {"parallel": {"strategy": "fsdp2"}}),
    ("compiled zero3", {"model": {"compile": True}, "parallel": {"strategy": "zero3", "processes": 2}}, "compile is on and parallel.strategy is zero3",
     {"parallel": {"strategy": "fsdp2"}}),
    ("server url", {"evaluate": {"server": {"model": "m"}}}, "server.url is empty", {"evaluate": {"server": {"url": SERVER}}}),
    ("server scheme", {"evaluate": {"server": {"url": "ftp://host/v1"}}}, "is no http address", {"evaluate": {"server": {"url": SERVER}}}),
    ("server port", {"evaluate": {"server": {"url": "http://host:99999/v1"}}}, "is no http address", {"evaluate": {"server": {"url": SERVER}}}),
    ("server secret", {"evaluate": {"server": {"url": "http://me:word@host/v1"}}}, "more than scheme", {"evaluate": {"server": {"url": SERVER}}}),
    ("server key", {"evaluate": {"server": {"url": SERVER, "api_key_env": "sk-1"}}}, "not the name of an", {"evaluate": {"server": {"url": SERVER}}}),
    ("server body", {"evaluate": {"server": {"url": SERVER, "body": {"n": 2}}}}, "body holds n", {"evaluate": {"server": {"url": SERVER}}}),
    ("server infilling", {"evaluate": {"benchmark": "infilling", "server": {"url": SERVER, "api": "chat"}}}, "asked in sentinels",
     {"evaluate": {"server": {"url": SERVER}}}),
    ("server chat", {"evaluate": {"chat": "yes", "server": {"url": SERVER}}}, "api is completions", {"evaluate": {"server": {"url": SERVER, "api": "chat"}}}),
    ("server in loop", {"train": {"evaluate_every": 5}, "evaluate": {"benchmark": "basics", "server": {"url": SERVER}}},
     "evaluate.server.url is set", {"evaluate": {"server": {}}}),
    ("shots infilling", {"evaluate": {"benchmark": "infilling", "shots": 2, "shots_data": "a"}}, "shots is 2 and infilling",
     {"evaluate": {"shots": 0, "shots_data": None}}),
    ("shots source", {"evaluate": {"benchmark": "humaneval", "shots": 2}}, "humaneval has no examples", {"evaluate": {"shots_data": "a.jsonl"}}),
    ("shots none", {"evaluate": {"benchmark": "mbpp", "shots_data": "a"}}, "shots is 0", {"evaluate": {"shots": 1}}),
    ("prefix chat", {"evaluate": {"prefix": "#", "chat": "yes"}}, "prefix is set and the model is asked", {"evaluate": {"chat": "no"}}),
    ("prefix infilling", {"evaluate": {"benchmark": "infilling", "prefix": "#"}}, "prefix is set and infilling", {"evaluate": {"prefix": ""}}),
    ("system", {"evaluate": {"system": ""}}, "system is set and the model is not", {"evaluate": {"chat": "auto"}}),
    ("system server", {"evaluate": {"system": "x", "server": {"url": SERVER}}}, "system is set and the model is not",
     {"evaluate": {"server": {"url": SERVER, "api": "chat"}}}),
    ("thinking", {"evaluate": {"thinking": "keep"}}, "thinking is set and the model is not", {"evaluate": {"chat": "yes"}}),
    ("system of infilling", {"evaluate": {"benchmark": "infilling", "system": "Be terse."}}, "system is set and infilling", {"evaluate": {"system": None}}),
    ("thinking of infilling", {"evaluate": {"benchmark": "infilling", "thinking": "keep"}}, "thinking is set and infilling", {"evaluate": {"thinking": "auto"}}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("broken", "words", "fix"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_rule_is_found_and_its_fix_works(
    model: Path, broken: dict[str, dict[str, Any]], words: str, fix: dict[str, dict[str, Any]]
) -> None:
    findings = check(made(model, **broken))
    assert any(words in finding.what for finding in findings), findings
    assert all(finding.fix for finding in findings)
    mended = {name: broken.get(name, {}) | fix.get(name, {}) for name in broken.keys() | fix.keys()}
    assert check(made(model, **mended)) == []


def test_missing_model_folder_is_told_from_a_hub_id(model: Path) -> None:
    assert "no model folder ./nowhere" in check(made(model, model={"path": "./nowhere"}))[0].what
    assert check(made(model, model={"path": "Qwen/Qwen2.5-Coder-0.5B"})) == []


def test_a_server_is_asked_by_one_process_and_knows_its_models_by_name(model: Path) -> None:
    wish: dict[str, Any] = {"output": "runs/x", "model": {"path": "accounts/host/models/name"}}
    wish["evaluate"] = {"benchmark": "basics", "server": {"url": SERVER}}
    assert check(Run.model_validate(wish), training=False) == []
    found = check(Run.model_validate(wish), world_size=2, training=False)
    assert [finding.what for finding in found] == ["evaluate.server.url is set and there are 2 ranks"]
    secret = made(model, evaluate={"server": {"url": SERVER, "api_key_env": "sk-secret"}})
    address = made(model, evaluate={"server": {"url": "http://me:sk-secret@host/v1"}})
    for run in (secret, address):
        assert not any("secret" in finding.what + finding.fix for finding in check(run))


def test_every_rule_has_a_case() -> None:
    assert len(CASES) >= len((*RULES, *OF_TRAINING)) - 3


def test_demand_counts_the_others(model: Path) -> None:
    with pytest.raises(WishError, match=r"\(and 1 more: `temper config check` lists them\)"):
        demand(made(model, parallel={"processes": 3}))


def test_batch_follows_the_ranks_that_are_there(model: Path) -> None:
    run = made(model, train={"global_batch": 8}, parallel={"strategy": "ddp", "processes": 2})
    assert check(run) == []
    assert "3 ranks" in check(run, world_size=3)[0].what


def test_ranks_that_share_rows_need_no_rows_of_their_own(model: Path) -> None:
    parallel = {"strategy": "zero3", "device": "cpu", "processes": 4, "sequence": 2}
    run = made(model, train={"global_batch": 2}, parallel=parallel)
    assert check(run) == []
    settings = deepspeed_settings(run, 4)
    assert settings["gradient_accumulation_steps"] == 1 and settings["train_batch_size"] == 4
    found = check(run, world_size=12)[0]
    assert "6 groups of 2 ranks" in found.what and "2 or 4 ranks" in found.fix
    alone = check(made(model, parallel={"sequence": 2}))
    assert [finding.fix for finding in alone] == ["use 1, or a multiple of 2 ranks"]


def test_judging_a_model_asks_nothing_of_its_training(model: Path) -> None:
    run = made(
        model,
        train={"global_batch": 8},
        parallel={"strategy": "none", "processes": 3},
        evaluate={"benchmark": "basics"},
    )
    assert len(check(run)) == 2 and check(run, training=False) == []
    wrong = made(model, evaluate={"benchmark": "basics", "samples": 1, "k": [10]})
    assert "evaluate.samples is 1" in check(wrong, training=False)[0].what
    assert "evaluate.benchmark is empty" in check(made(model), training=False)[0].what


def test_deepspeed_steps_on_the_global_batch(model: Path) -> None:
    run = made(
        model,
        train={"global_batch": 24, "micro_batch": 2},
        parallel={"strategy": "zero3", "device": "cpu", "processes": 4},
    )
    settings = deepspeed_settings(run, 4)
    assert settings["gradient_accumulation_steps"] * settings["train_micro_batch_size_per_gpu"] * 4 == 24
    assert settings["zero_optimization"]["stage"] == 3
    assert settings["bf16"] == {"enabled": True}


def test_shape_is_read_without_weights(model: Path) -> None:
    found = shape(model)
    assert found is not None
    assert (found.layers, found.hidden, found.kv_heads, found.head_dim, found.context) == (2, 64, 4, 16, 256)
    assert shape("some/hub-id") is None
    (model / "config.json").write_text("{}")
    with pytest.raises(WishError, match="lacks"):
        shape(model)
    for content in (b"[1, 2]", b"\xff\xfe"):
        (model / "config.json").write_bytes(content)
        with pytest.raises(WishError, match="config.json"):
            shape(model)
