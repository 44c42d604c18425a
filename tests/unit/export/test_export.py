"""A merged model is the trained one, opens as transformers takes it, and is not there when it is not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from engine import protocol
from engine.checkpoint import write_weights
from engine.config import Run, dump
from engine.data import Batch, load_tokenizer
from engine.dist import World
from engine.errors import PreflightError, WishError
from engine.evaluate.compare.paired import paired
from engine.export import Bound, Exported, Wish, export_merged
from engine.export.bound import divergence
from engine.export.publish import demand_same_score
from engine.model import adapt, load_model, with_adapter

CPU = torch.device("cpu")
ALONE = World(rank=0, size=1, local_rank=0, device=CPU, accelerator=None, control=None)  # type: ignore[arg-type]
TOKENIZER = Path(__file__).parents[3] / "configs/tiny/base"
IDS = torch.randint(1536, (2, 24), generator=torch.Generator().manual_seed(1))
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"kind": "lora", "rank": 4},
    "dora": {"kind": "lora", "rank": 4, "dora": True},
    "pissa": {"kind": "lora", "rank": 4, "init": "pissa"},
    "new tokens": {"kind": "lora", "rank": 4, "new_tokens": ["<plan>", "</plan>"]},
    "adalora": {"kind": "adalora", "rank": 4, "target_rank": 2},
    "ia3": {"kind": "ia3", "target_modules": ["k_proj", "v_proj", "up_proj"]},
    "vera": {"kind": "vera", "rank": 32},
    "oft": {"kind": "oft", "block_size": 16},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights large enough to have opinions, and the embedded model's words."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=1600,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.15,
        tie_word_embeddings=True,
        eos_token_id=0,
        bos_token_id=None,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    AutoTokenizer.from_pretrained(TOKENIZER).save_pretrained(folder)
    rows = [{"prompt": f"def f{n}(x):\n", "completion": f"    return x + {n}\n"} for n in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture()
def trained(base: Path, tmp_path: Path) -> Callable[..., Run]:
    """A run folder as training leaves it: run.yaml and adapter/, some steps away from the base."""

    def make(adapter: dict[str, Any], precision: str = "fp32") -> Run:
        tree = {
            "output": str(tmp_path / "run"),
            "model": {"path": str(base)},
            "adapter": adapter,
            "parallel": {"device": "cpu", "precision": precision, "threads": 1},
            "data": {"train": [{"path": str(base / "rows.jsonl")}], "max_length": 64},
            "train": {"global_batch": 4},
            "evaluate": {"benchmark": "basics", "limit": 3, "max_new_tokens": 8},
        }
        run = Run.model_validate(tree)
        tokenizer = load_tokenizer(run)
        new = tokenizer.convert_tokens_to_ids(list(run.adapter.new_tokens))
        model = adapt(load_model(run, CPU), run, new_tokens=new)
        tokens = IDS.clone()
        tokens[:, 3] = new[0] if new else tokens[0, 3]
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-2)
        for _ in range(4):
            model(input_ids=tokens, labels=tokens, use_cache=False).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        weights = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
        write_weights(run.folder / protocol.ADAPTER, model, weights, tokenizer)
        (run.folder / protocol.RUN).write_text(dump(run))
        return run

    return make


def exported(run: Run, *, bound: float | None = None, benchmark: bool = False) -> Exported:
    wish = Wish(run.folder / "merged", 200, Bound.of(run.parallel.precision, bound), benchmark)
    return export_merged(run, wish, ALONE, lambda line: None)


@pytest.mark.parametrize("name", KINDS)
def test_the_merged_model_is_the_adapter_on_its_base(
    name: str, base: Path, trained: Callable[..., Run]
) -> None:
    run = trained(KINDS[name])
    done = exported(run)
    assert done.divergence.tokens == 200 and done.divergence.same_choice == 1.0
    merged = AutoModelForCausalLM.from_pretrained(done.folder)
    untouched = AutoModelForCausalLM.from_pretrained(base)
    before = untouched(input_ids=IDS).logits.detach()
    adapted = PeftModel.from_pretrained(untouched, str(run.folder / "adapter"))
    with torch.no_grad():
        wanted, found = adapted(input_ids=IDS).logits, merged(input_ids=IDS).logits
    assert (wanted - before).abs().max() > 0.05, "nothing was learnt, so nothing is compared"
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)
    words = AutoTokenizer.from_pretrained(done.folder)
    assert ("<plan>" in words.get_vocab()) == (name == "new tokens")
    assert sorted(p.name for p in run.folder.iterdir()) == ["adapter", "merged", "run.yaml"]
    assert len({file.stat().st_mode for file in done.folder.iterdir()}) == 1, "who reads one may read all"
    assert json.loads((done.folder / "export.json").read_text())["kl"]["mean"] == done.divergence.mean


def test_a_quantised_base_is_merged_as_the_adapter_knew_it(trained: Callable[..., Run]) -> None:
    run = trained({"kind": "qlora", "rank": 4}, "bf16")
    done = exported(run)
    assert "quantization_config" not in json.loads((done.folder / "config.json").read_text())
    merged = AutoModelForCausalLM.from_pretrained(done.folder)
    assert merged.dtype == torch.bfloat16
    plain = run.model_copy(update={"adapter": run.adapter.model_copy(update={"kind": "full"})})
    adapter = run.folder / "adapter"
    other = with_adapter(load_model(plain, CPU), adapter).merge_and_unload()
    quantised = with_adapter(load_model(run, CPU), adapter)
    rows = [Batch(IDS, IDS, torch.arange(24).repeat(2, 1), ("a", "b"), 48)]
    good, bad = (divergence(quantised, model, rows, tokens=46) for model in (merged, other))
    assert Bound.of("bf16").holds(good) and not Bound.of("bf16").holds(bad)


def test_one_broken_token_does_not_hide_in_the_mean(base: Path) -> None:
    one, other = (AutoModelForCausalLM.from_pretrained(base) for _ in range(2))
    calm = torch.full((1, 100), 7)
    rows = [Batch(calm, calm, torch.arange(100)[None], ("a",), 100)]
    assert divergence(one, other, rows, tokens=99).mean == 0.0
    with torch.no_grad():
        other.lm_head.weight[5] += 0.05
    found = divergence(one, other, rows, tokens=50)
    assert (found.tokens, found.mean > 0, found.largest >= found.mean) == (50, True, True)
    bound = Bound(mean=2 * found.mean, largest=found.largest / 2)
    assert not bound.holds(found) and Bound(2 * found.mean, 2 * found.largest).holds(found)


def test_nothing_is_left_beyond_the_bound(trained: Callable[..., Run], tmp_path: Path) -> None:
    run = trained({"kind": "lora", "rank": 4}, "bf16")
    # Trained on many ranks with offload: one process merges all the same.
    parallel = run.parallel.model_copy(
        update={"strategy": "zero3", "processes": 8, "offload_parameters": True}
    )
    (run.folder / protocol.RUN).write_text(dump(run.model_copy(update={"parallel": parallel})))
    words = [sys.executable, "-m", "engine", "export", str(run.folder), "--merge", "--max-kl", "1e-12"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 3, done.stderr
    assert "the merged model is not the one that was trained: KL" in done.stderr
    assert sorted(p.name for p in run.folder.iterdir()) == ["adapter", "run.yaml"]


def test_a_benchmark_is_drawn_from_both(trained: Callable[..., Run]) -> None:
    run = trained({"kind": "lora", "rank": 4})
    done = exported(run, benchmark=True)
    assert done.comparison is not None
    assert (done.comparison.joined, done.comparison.same_programs) == (3, 3)
    assert json.loads((done.folder / "export.json").read_text())["benchmark"]["tasks"] == 3
    passed, failed = [Fraction(1)] * 10, [Fraction(0)] * 10
    for a, b in ((passed, failed), (failed, passed)):
        with pytest.raises(PreflightError, match=r"basics gives .* pass@1 .* is more than chance"):
            demand_same_score(replace(done.comparison, result=paired(a, b)))
    demand_same_score(replace(done.comparison, result=paired(passed, [*passed[1:], Fraction(0)])))
    assert {p.name for p in (run.folder / "evaluations").iterdir()} == {"basics-test", "basics-test-merged"}


def test_what_cannot_be_merged_is_refused(trained: Callable[..., Run]) -> None:
    run = trained({"kind": "lora", "rank": 4})
    full = run.model_copy(update={"adapter": run.adapter.model_copy(update={"kind": "full"})})
    with pytest.raises(WishError, match="there is no adapter to merge"):
        exported(full)
    prefixed = run.model_copy(update={"adapter": run.adapter.model_copy(update={"kind": "prefix"})})
    with pytest.raises(WishError, match="prefix, whose virtual tokens are no part of any weight"):
        exported(prefixed)
    (run.folder / "merged").mkdir()
    with pytest.raises(WishError, match=r"merged is there already: remove it, or name another folder"):
        exported(run)
    (run.folder / "merged").rmdir()
    file = run.folder / "adapter/adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WishError, match="holds no adapter for this model"):
        exported(run)
    assert sorted(p.name for p in run.folder.iterdir()) == ["adapter", "run.yaml"]


def test_values_that_are_not_finite_stop_the_merge(trained: Callable[..., Run]) -> None:
    from safetensors.torch import load_file, save_file

    run = trained({"kind": "lora", "rank": 4})
    file = run.folder / "adapter/adapter_model.safetensors"
    weights = load_file(file)
    weights[next(iter(weights))][0, 0] = float("inf")
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(PreflightError, match="does not go into"):
        exported(run)
    assert not (run.folder / "merged.partial").exists()
