"""Virtual tokens that stand for a real text do what the text does: in logits, their columns, and generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from engine.config import Run
from engine.model import adapt, load_model, virtual_tokens
from engine.model.prompts import as_published

CPU = torch.device("cpu")
SIZE, LENGTH = 6, 10
TEXT = torch.randint(96, (1, SIZE), generator=torch.Generator().manual_seed(5))
IDS = torch.randint(96, (3, LENGTH), generator=torch.Generator().manual_seed(6))
POSITIONS = torch.arange(LENGTH).expand(3, -1)


def standing_for_text(folder: Path, kind: str, attention: str = "sdpa") -> tuple[Any, Any]:
    """A model with virtual tokens equal to TEXT, and its base."""
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    run = Run.model_validate(
        {
            "output": str(folder / "out"),
            "model": {"path": str(folder), "attention": attention},
            "adapter": {"kind": kind, "virtual_tokens": SIZE},
            "parallel": {"device": "cpu", "precision": "fp32"},
        }
    )
    model, base = adapt(load_model(run, CPU), run).eval(), load_model(run, CPU).eval()
    encoder = model.prompt_encoder["default"]
    with torch.no_grad():
        if kind == "prefix":
            cache = base(TEXT, use_cache=True).past_key_values
            layers = [torch.stack([layer.keys, layer.values]) for layer in cache.layers]
            # [layers * 2, heads, SIZE, head] as PEFT keeps it: a row for each token.
            whole = torch.stack(layers).flatten(0, 1).squeeze(1)
            encoder.embedding.weight.copy_(whole.permute(2, 0, 1, 3).reshape(SIZE, -1))
        elif kind == "prompt":
            encoder.embedding.weight.copy_(base.get_input_embeddings()(TEXT)[0])
        else:
            encoder.mlp_head[-1].weight.zero_()
            encoder.mlp_head[-1].bias.copy_(base.get_input_embeddings()(TEXT[0, 0]))
    return model, base


def in_front(kind: str) -> torch.Tensor:
    """The ids that the virtual tokens stand for: p-tuning's network was told to say one of them, always."""
    text = TEXT[:, :1].expand(1, SIZE) if kind == "ptuning" else TEXT
    return torch.cat([text.expand(len(IDS), -1), IDS], dim=1)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["prefix", "prompt", "ptuning"])
def test_logits_are_those_of_the_text_in_front(kind: str, attention: str, tmp_path: Path) -> None:
    model, base = standing_for_text(tmp_path, kind, attention)
    assert (virtual_tokens(model), virtual_tokens(base)) == (SIZE, 0)
    columns = torch.tensor([1, 4, 5])
    with torch.no_grad():
        wanted = base(in_front(kind)).logits[:, SIZE:]
        found = model(input_ids=IDS, position_ids=POSITIONS, use_cache=False, logits_to_keep=0).logits
        some = model(input_ids=IDS, position_ids=POSITIONS, use_cache=False, logits_to_keep=columns).logits
        last = model(input_ids=IDS, position_ids=POSITIONS, use_cache=False, logits_to_keep=1).logits
        plain = base(IDS).logits
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(some, wanted[:, columns], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(last, wanted[:, -1:], atol=1e-5, rtol=1e-4)
    assert (plain - wanted).abs().max() > 1e-2, "the text in front makes a difference"


@pytest.mark.parametrize("kind", ["prefix", "prompt", "ptuning"])
def test_a_cache_goes_on_after_the_text_and_padding_is_not_seen(kind: str, tmp_path: Path) -> None:
    model, base = standing_for_text(tmp_path, kind)
    padded, mask = IDS.clone(), torch.ones_like(IDS)
    padded[1, :3], mask[1, :3] = 0, 0  # the second row begins three places later
    places = (mask.cumsum(1) - 1).clamp_min(0)
    more = torch.tensor([[7], [8], [9]])
    with torch.no_grad():
        first = model(
            input_ids=padded, attention_mask=mask, position_ids=places, past_key_values=None, use_cache=True
        )
        then = model(
            input_ids=more,
            attention_mask=torch.cat([mask, mask.new_ones(3, 1)], 1),
            position_ids=places[:, -1:] + 1,
            past_key_values=first.past_key_values,
            use_cache=True,
        )
        whole = torch.cat([in_front(kind), more], 1)
        wanted = base(whole).logits[:, -1]
        short = torch.cat([whole[1:2, :SIZE], whole[1:2, SIZE + 3 :]], 1)
        wanted[1] = base(short).logits[0, -1]
    torch.testing.assert_close(then.logits[:, -1], wanted, atol=1e-5, rtol=1e-4)


def test_p_tuning_is_written_as_the_tokens_its_network_makes(tmp_path: Path) -> None:
    model, base = standing_for_text(tmp_path, "ptuning")
    state = torch.random.get_rng_state()
    written = as_published(model, {n: p.detach() for n, p in model.named_parameters() if p.requires_grad})
    assert torch.equal(state, torch.random.get_rng_state()), "a save in the background draws nothing"
    with torch.no_grad():
        torch.testing.assert_close(
            written["prompt_embeddings"], model.get_prompt_embedding_to_save("default")
        )
        embedded = base.get_input_embeddings()(TEXT[0, 0]).expand(SIZE, -1)
    torch.testing.assert_close(written["prompt_embeddings"], embedded)
