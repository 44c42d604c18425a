"""Each kind of adapter learns, is saved, and gives the same logits when PEFT opens it again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from engine.checkpoint.save import write_weights
from engine.config import VIRTUAL, Run, check
from engine.errors import WishError
from engine.model import adapt, load_model, loss_head

IDS = torch.randint(96, (2, 24), generator=torch.Generator().manual_seed(1))
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"kind": "lora", "rank": 4},
    "rslora": {"kind": "lora", "rank": 4, "rslora": True, "init": "olora"},
    "dora": {"kind": "lora", "rank": 4, "dora": True},
    "pissa": {"kind": "lora", "rank": 4, "init": "pissa"},
    "pissa, fast": {"kind": "lora", "rank": 4, "init": "pissa_niter_4", "rslora": True},
    "olora": {"kind": "lora", "rank": 4, "init": "olora"},
    "qlora, dora": {"kind": "qlora", "rank": 4, "dora": True},
    "loftq": {"kind": "qlora", "rank": 4, "init": "loftq"},
    "adalora": {"kind": "adalora", "rank": 6, "target_rank": 2},
    "prefix": {"kind": "prefix", "virtual_tokens": 5},
    "prompt": {"kind": "prompt", "virtual_tokens": 5},
    "ptuning": {"kind": "ptuning", "virtual_tokens": 5},
    "ia3": {"kind": "ia3", "target_modules": ["k_proj", "v_proj", "up_proj"]},
    "vera": {"kind": "vera", "rank": 32},
    "oft": {"kind": "oft", "block_size": 16},
}


class Words:
    """Stands where a tokenizer's files would be written; a model of random weights has no words."""

    def save_pretrained(self, folder: str) -> None:
        """Nothing to write."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    return folder


def wish(base: Path, adapter: dict[str, Any], precision: str = "fp32", **parallel: Any) -> Run:
    return Run.model_validate(
        {
            "output": str(base / "out"),
            "model": {"path": str(base)},
            "adapter": adapter,
            "parallel": {"device": "cpu", "precision": precision, **parallel},
            "data": {
                "train": [{"path": "rows.jsonl"}],
                "max_length": 24,
                "packing": adapter["kind"] not in VIRTUAL,
            },
        }
    )


def learn(model: Any, tokens: torch.Tensor = IDS, steps: int = 3) -> tuple[float, float]:
    """Loss before and after some steps."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps + 1):
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return losses[0], losses[-1]


@pytest.mark.parametrize("name", KINDS)
def test_learns_and_comes_back_through_peft(name: str, base: Path, tmp_path: Path) -> None:
    run = wish(base, KINDS[name], "bf16" if KINDS[name]["kind"] == "qlora" else "fp32")
    assert not check(run)
    untouched = load_model(run, torch.device("cpu"))
    model = adapt(load_model(run, torch.device("cpu")), run)
    with torch.no_grad():
        before, started = untouched(input_ids=IDS).logits, model(input_ids=IDS).logits
    if name not in ("loftq", *VIRTUAL):
        torch.testing.assert_close(started, before, atol=1e-4, rtol=1e-4)
    first, last = learn(model)
    assert last < first, "nothing was learnt, so nothing is compared"
    weights = {n: p.detach().cpu() for n, p in model.named_parameters() if p.requires_grad}
    write_weights(tmp_path, model, weights, Words())
    again = PeftModel.from_pretrained(untouched, str(tmp_path), autocast_adapter_dtype=False)
    with torch.no_grad():
        trained, reopened = model(input_ids=IDS).logits, again(input_ids=IDS).logits[:, -IDS.shape[1] :]
    assert (trained - before).abs().max() > 1e-2
    torch.testing.assert_close(reopened, trained, atol=1e-4, rtol=1e-4)
    assert loss_head(model) is not None, "the output head stays plain, so the loss may be chunked"


def test_an_adapter_that_moved_the_base_is_written_for_the_base_as_it_was(base: Path, tmp_path: Path) -> None:
    run = wish(base, KINDS["pissa"])
    model = adapt(load_model(run, torch.device("cpu")), run)
    weights = {n: p.detach().cpu() for n, p in model.named_parameters() if p.requires_grad}
    write_weights(tmp_path, model, weights, Words())
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (written["r"], written["lora_alpha"], written["init_lora_weights"]) == (8, 64.0, True)
    assert model.peft_config["default"].r == 4, "training goes on as before"
    plain = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        moved = PeftModel.from_pretrained(plain, str(tmp_path))(input_ids=IDS).logits
        kept = AutoModelForCausalLM.from_pretrained(base)(input_ids=IDS).logits
    torch.testing.assert_close(moved, kept, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora"])
def test_a_part_of_the_weights_has_no_more_ranks_than_they_have(base: Path, start: str) -> None:
    run = wish(base, {"kind": "lora", "rank": 48, "init": start})
    with pytest.raises(
        WishError, match=r"rank 48 is more than .*k_proj of 32 x 64 weights has: use a rank of 32"
    ):
        adapt(load_model(run, torch.device("cpu")), run)
    adapt(load_model(run, torch.device("cpu")), wish(base, {"kind": "lora", "rank": 32, "init": start}))


def test_loftq_starts_nearer_to_the_whole_weights(base: Path) -> None:
    whole = load_model(wish(base, {"kind": "lora"}), torch.device("cpu"))(input_ids=IDS).logits
    away = []
    for start in ("default", "loftq"):
        run = wish(base, {"kind": "qlora", "rank": 16, "init": start}, "bf16")
        with torch.no_grad():
            logits = adapt(load_model(run, torch.device("cpu")), run)(input_ids=IDS).logits
        away.append(float((logits.float() - whole).norm()))
    assert away[1] < away[0]


def test_a_block_that_does_not_divide_is_refused(base: Path) -> None:
    run = wish(base, {"kind": "oft", "block_size": 48})
    with pytest.raises(WishError, match=r"block_size 48 does not divide the 64 inputs of .*q_proj"):
        adapt(load_model(run, torch.device("cpu")), run)


@pytest.mark.parametrize("kind", ["lora", "ia3", "vera", "oft"])
def test_targets_by_pattern_and_targets_that_match_nothing(kind: str, base: Path) -> None:
    run = wish(base, {"kind": kind, "target_modules": r".*layers\.1\.self_attn\.(q|v)_proj"})
    model = adapt(load_model(run, torch.device("cpu")), run)
    trained = {
        n.rpartition("layers.")[2].split("_proj")[0] for n, p in model.named_parameters() if p.requires_grad
    }
    assert trained == {"1.self_attn.q", "1.self_attn.v"}
    run = wish(base, {"kind": kind, "target_modules": ["query"]})
    with pytest.raises(WishError, match="matches nothing in this model"):
        adapt(load_model(run, torch.device("cpu")), run)


@pytest.mark.parametrize("adapter", [{"kind": "lora"}, {"kind": "lora", "init": "pissa"}, {"kind": "qlora"}])
@pytest.mark.parametrize("tied", [True, False])
def test_new_tokens_are_trained_and_come_back(tmp_path: Path, adapter: dict[str, Any], tied: bool) -> None:
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=1, tie_word_embeddings=tied
    )
    LlamaForCausalLM(shape).save_pretrained(tmp_path / "base")
    precision = "bf16" if adapter["kind"] == "qlora" else "fp32"
    run = wish(tmp_path / "base", {**adapter, "rank": 4, "new_tokens": ["<a>", "<b>"]}, precision)
    assert not check(run)
    device = torch.device("cpu")
    model = adapt(load_model(run, device), run, new_tokens=[90, 91])
    rows = [
        (n, tuple(p.shape))
        for n, p in model.named_parameters()
        if p.requires_grad and "trainable_tokens" in n
    ]
    assert [size for _, size in rows] == [(2, 64)] * (1 if tied else 2)
    before = {n: p.detach().clone() for n, p in model.named_parameters() if "trainable_tokens" in n}
    first, last = learn(model, tokens=torch.where(IDS < 40, 90 + IDS % 2, IDS))
    assert last < first
    assert all((p != before[n]).any() for n, p in model.named_parameters() if n in before)
    weights = {n: p.detach().cpu() for n, p in model.named_parameters() if p.requires_grad}
    write_weights(tmp_path / "out", model, weights, Words())
    again = PeftModel.from_pretrained(
        load_model(run, device), str(tmp_path / "out"), autocast_adapter_dtype=False
    )
    with torch.no_grad():
        reopened, trained = again(input_ids=IDS).logits, model(input_ids=IDS).logits
    torch.testing.assert_close(reopened, trained, atol=1e-4, rtol=1e-4)
    with pytest.raises(WishError, match="names 2 words and the embedding has 1 spare rows"):
        adapt(load_model(run, device), run, new_tokens=[95, 96])
