"""Adapters that are read before every text: a trained prefix of keys and values, or a prompt of trained embeddings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from engine.config import Adapter

ENCODER = "prompt_encoder.default."
"""Where PEFT keeps what is trained."""


def settings(adapter: Adapter, task: str) -> Any:
    """A prefix (arXiv 2101.00190), a prompt (2104.08691) or a p-tuned one (2103.10385), as PEFT has it configured."""
    from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig

    size = {"num_virtual_tokens": adapter.virtual_tokens, "task_type": task}
    if adapter.kind == "prefix":
        return PrefixTuningConfig(**size)
    if adapter.kind == "prompt":
        # Embeddings of words make a better start than noise, by the paper.
        return PromptTuningConfig(prompt_tuning_init="SAMPLE_VOCAB", **size)
    return PromptEncoderConfig(encoder_reparameterization_type="MLP", **size)


def virtual_tokens(model: Any) -> int:
    """Positions that a model's adapter takes before every text; 0 for all other adapters and models."""
    found = getattr(model, "peft_config", {}).get("default")
    return found.num_virtual_tokens if found is not None and found.is_prompt_learning else 0


def read_before_each_text(model: Any) -> Any:
    """Give a PEFT model with virtual tokens the forward of a plain one; others are left as they are.

    Positions, masks, columns and caches are the text's own, as if nothing stood before it. PEFT's own forward drops
    positions, and puts its tokens before each step of a cache.
    """
    size = virtual_tokens(model)
    if not size:
        return model
    prefix = model.peft_config["default"].peft_type == "PREFIX_TUNING"
    base = model.get_base_model()

    def forward(
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        logits_to_keep: int | Tensor = 0,
        **rest: Any,
    ) -> Any:
        rows, length = input_ids.shape
        if position_ids is None:
            position_ids = torch.arange(length, device=input_ids.device).expand(rows, -1)
        rest["position_ids"] = position_ids + size
        if attention_mask is not None:
            attention_mask = torch.cat([attention_mask.new_ones(rows, size), attention_mask], dim=1)
        rest |= {"attention_mask": attention_mask, "past_key_values": past_key_values}
        if past_key_values is not None:
            return base(input_ids=input_ids, logits_to_keep=logits_to_keep, **rest)
        before = model.get_prompt(rows)
        if prefix:
            rest["past_key_values"] = before
            return base(input_ids=input_ids, logits_to_keep=logits_to_keep, **rest)
        text = model.word_embeddings(input_ids)
        first = torch.arange(size, device=input_ids.device).expand(rows, -1)
        rest["position_ids"] = torch.cat([first, rest["position_ids"]], dim=1)
        return base(
            inputs_embeds=torch.cat([before.to(text.dtype), text], dim=1),
            logits_to_keep=_of_the_text(logits_to_keep, size, length, input_ids.device),
            **rest,
        )

    model.forward = forward
    return model


def _of_the_text(keep: int | Tensor, size: int, length: int, device: torch.device) -> int | Tensor:
    """Columns of the text, as columns of prompt and text."""
    if isinstance(keep, Tensor):
        return keep + size
    return keep or torch.arange(size, size + length, device=device)


@torch.no_grad()
def as_published(model: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """What PEFT reads again: the virtual tokens themselves, without the network that p-tuning makes them with."""
    own = {name.removeprefix(ENCODER): weight for name, weight in weights.items() if name.startswith(ENCODER)}
    if own.keys() == {"embedding.weight"}:
        return {"prompt_embeddings": own["embedding.weight"]}
    # The network once more, with no weights and none of what a strategy hangs on its modules.
    with torch.device("meta"):
        network = type(model.prompt_encoder["default"])(model.peft_config["default"])
    made: Tensor = functional_call(network, own, (torch.arange(virtual_tokens(model))[None],))
    return {"prompt_embeddings": made[0].contiguous()}
