"""A head that tells classes: named in the config, begun from the run's seed, and asked at every position.

transformers pools a text's classes from its last token. Here both heads answer for every token, and the labels say
which answers count: so rows can be packed, and what is trained is what transformers' own class computes afterwards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import TokenClassifierOutput

from engine.config import Run
from engine.errors import WishError


def named(config: Any, run: Run) -> Any:
    """A model's config with the Run's classes in it, where it has any."""
    if run.model.head != "language":
        config.id2label = dict(enumerate(run.model.labels))
        config.label2id = {name: number for number, name in enumerate(run.model.labels)}
        if config.get_text_config().pad_token_id is None:
            end = config.get_text_config().eos_token_id
            config.get_text_config().pad_token_id = end[0] if isinstance(end, list) else end
    return config


def ready(model: PreTrainedModel, run: Run, *, fresh: bool) -> PreTrainedModel:
    """The model as it is trained; a head that is `fresh` begins from the Run's seed, the same under every strategy.

    Raises:
        WishError: its head of classes is not the one linear layer that transformers' decoders have.
    """
    if run.model.head == "language":
        return model
    head = getattr(model, "score", None)
    if not isinstance(head, torch.nn.Linear):
        raise WishError(
            f"{type(model).__name__} has no head `score` that is one linear layer",
            "use a decoder such as Llama, Qwen, Mistral or StarCoder2",
        )
    if fresh:
        _begin(head, run.seed, float(getattr(model.config.get_text_config(), "initializer_range", 0.02)))
    model.forward = MethodType(_at_every_position, model)
    return model


@torch.no_grad()
def _begin(head: torch.nn.Linear, seed: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = getattr(head.weight, "ds_shape", head.weight.shape)
    drawn = torch.randn(tuple(shape), generator=generator) * spread
    with _whole(head.weight):
        head.weight.copy_(drawn)
    if head.bias is not None:
        with _whole(head.bias):
            head.bias.zero_()


@contextlib.contextmanager
def _whole(weight: Any) -> Iterator[None]:
    """Under ZeRO-3 the whole of a weight in place of this rank's shard; every rank writes the same into it."""
    sharded = hasattr(weight, "ds_id")
    if sharded:
        weight.all_gather()
    yield
    if sharded:
        weight.partition(has_been_updated=True)


def _at_every_position(
    self: Any,
    input_ids: Tensor,
    position_ids: Tensor,
    logits_to_keep: int | Tensor = 0,
    use_cache: bool = False,
    **_: Any,
) -> TokenClassifierOutput:
    """Logits [rows, length, classes], or of the columns `logits_to_keep` alone; there is no attention mask."""
    hidden = self.base_model(
        input_ids=input_ids, position_ids=position_ids, use_cache=False
    ).last_hidden_state
    if isinstance(logits_to_keep, Tensor):
        hidden = hidden[:, logits_to_keep]
    if hasattr(self, "dropout"):
        hidden = self.dropout(hidden)
    return TokenClassifierOutput(logits=self.score(hidden))
