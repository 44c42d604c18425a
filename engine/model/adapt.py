"""What is trained: all weights, or a PEFT adapter beside frozen ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from engine.config import VIRTUAL, Adapter, Run
from engine.errors import WishError
from engine.model import adalora, prompts

MOVING = ("pissa", "olora")
"""Starts that take their part out of the base's weights."""


def adapt(model: PreTrainedModel, run: Run, *, new_tokens: Sequence[int] = ()) -> Any:
    """The model ready to train: itself for `full`, otherwise wrapped with a fresh adapter.

    Args:
        model: the base, as loaded.
        run: the Run.
        new_tokens: ids whose rows of the embedding (and of an output head of its own) are trained as well.

    Raises:
        WishError: `target_modules` matches nothing, or the embedding has no rows for the new tokens.
    """
    if run.model.dropout is not None:
        set_dropout(model, run.model.dropout)
    if run.adapter.kind == "full":
        return model
    torch.manual_seed(run.seed)
    adapted = _wrapped(model, run, _rows(model, new_tokens))
    if new_tokens:
        _start_at_the_mean(adapted)
    if run.adapter.kind == "oft":
        _demand_whole_blocks(adapted, run.adapter.block_size)
    if run.adapter.init.startswith(MOVING):
        _demand_parts_enough(adapted, run.adapter)
    if run.adapter.init == "loftq":
        _make_up_for_lost_bits(adapted, Path(run.model.path))
    dtype = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    for parameter in adapted.parameters():
        if parameter.requires_grad and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)
    if run.adapter.init.startswith(MOVING):
        adapted.start_of_adapter = {
            name: parameter.detach().cpu().clone()
            for name, parameter in adapted.named_parameters()
            if ".lora_" in name
        }
    return adapted


def _rows(model: PreTrainedModel, ids: Sequence[int]) -> dict[str, list[int]] | None:
    """Rows to train by the name of their module: the embedding's, and the output head's where it is not the same."""
    if not ids:
        return None
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    spare = model.config.get_text_config().vocab_size - min(ids)
    if max(ids) - min(ids) >= spare:
        raise WishError(
            f"adapter.new_tokens names {len(ids)} words and the embedding has {max(0, spare)} spare rows",
            "name fewer, or use words the tokenizer has: a larger embedding would not fit the base's file",
        )
    names = {id(module): name.rpartition(".")[2] for name, module in model.named_modules()}
    modules = [embedding] if head is None or head.weight is embedding.weight else [embedding, head]
    return {names[id(module)]: list(ids) for module in modules}


@torch.no_grad()
def _start_at_the_mean(adapted: Any) -> None:
    """New tokens begin as the mean of those known; spare rows hold whatever the base was padded with."""
    for module in adapted.modules():
        if hasattr(module, "trainable_tokens_delta"):
            known = module.base_layer.weight[: min(module.token_indices["default"])]
            module.trainable_tokens_delta["default"].copy_(known.float().mean(0))


def _wrapped(model: PreTrainedModel, run: Run, rows: dict[str, list[int]] | None) -> Any:
    from peft import get_peft_model

    wanted = run.adapter.target_modules
    try:
        # Adapter weights take the compute dtype; fp32 copies are the optimizer's, under every strategy alike.
        adapted = get_peft_model(model, _settings(run, rows), autocast_adapter_dtype=False)
        return prompts.read_before_each_text(adapted)
    except ValueError as error:
        names = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if _linear(module)})
        raise WishError(
            f"adapter.target_modules {wanted!r} matches nothing in this model ({str(error).splitlines()[0][:120]})",
            f"its linear layers are called {', '.join(names)}; or use all-linear",
        ) from None


def _settings(run: Run, rows: dict[str, list[int]] | None) -> Any:
    """The adapter as PEFT has it configured."""
    from peft import IA3Config, LoraConfig, OFTConfig, VeraConfig

    adapter, wanted = run.adapter, run.adapter.target_modules
    task = {"language": "CAUSAL_LM", "sequence": "SEQ_CLS", "token": "TOKEN_CLS"}[run.model.head]
    if adapter.kind in VIRTUAL:
        return prompts.settings(adapter, task)
    where = {"target_modules": wanted if isinstance(wanted, str) else list(wanted), "task_type": task}
    if run.model.head != "language":
        # PEFT trains a copy of the head beside the adapter, and writes it with it.
        where["exclude_modules"] = ["score"]
    if adapter.kind == "ia3":
        # A factor on each output: on Llama's up_proj that is the paper's factor on the inner activation.
        return IA3Config(feedforward_modules=[], **where)
    if adapter.kind == "adalora":
        return adalora.settings(adapter, **where)
    if adapter.kind == "vera":
        return VeraConfig(
            r=adapter.rank, vera_dropout=adapter.dropout, projection_prng_key=run.seed, bias="none", **where
        )
    if adapter.kind == "oft":
        return OFTConfig(
            oft_block_size=adapter.block_size, module_dropout=adapter.dropout, bias="none", **where
        )
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        use_rslora=adapter.rslora,
        use_dora=adapter.dora,
        # LoftQ's start needs the 4-bit layers in place: it is made afterwards.
        init_lora_weights=True if adapter.init in ("default", "loftq") else adapter.init,
        trainable_token_indices=rows,
        bias="none",
        **where,
    )


def _demand_whole_blocks(adapted: Any, block_size: int) -> None:
    """PEFT would take another size where this one does not divide a layer's inputs, and only warn."""
    for name, module in adapted.named_modules():
        sizes = getattr(module, "oft_block_size", None)
        if sizes and sizes["default"] != block_size:
            raise WishError(
                f"adapter.block_size {block_size} does not divide the {module.in_features} inputs of {name}",
                f"use a block size that does, such as {sizes['default']}",
            )


def _demand_parts_enough(adapted: Any, wish: Adapter) -> None:
    """A start that is a part of the weights has no more ranks than they have: PEFT would cut it, and not reopen it."""
    for name, module in adapted.get_base_model().named_modules():
        sides = (getattr(module, "in_features", wish.rank), getattr(module, "out_features", wish.rank))
        if hasattr(module, "lora_A") and min(sides) < wish.rank:
            raise WishError(
                f"adapter.init is {wish.init} and adapter.rank {wish.rank} is more than {name} of "
                f"{sides[1]} x {sides[0]} weights has",
                f"use a rank of {min(sides)} or less, other target_modules, or init default",
            )


@torch.no_grad()
def _make_up_for_lost_bits(adapted: Any, folder: Path) -> None:
    """LoftQ (arXiv 2310.08659, one step): the low-rank part of what the 4-bit base lacks of the weights on disk."""
    from peft.tuners.lora import LoraLayer
    from peft.utils.integrations import dequantize_module_weight

    files = _files_by_weight(folder)
    for name, module in adapted.get_base_model().named_modules():
        if not isinstance(module, LoraLayer):
            continue
        file = files.get(f"{name}.weight")
        if file is None:
            raise WishError(
                f"adapter.init is loftq, which reads {name}.weight again, and no safetensors in {folder} have it",
                "name a local folder with safetensors as model.path, or use init default",
            )
        held = dequantize_module_weight(module.get_base_layer()).float()
        with safe_open(file, framework="pt") as handle:
            lost = handle.get_tensor(f"{name}.weight").to(held.device, torch.float32) - held
        left, sizes, right = torch.linalg.svd(lost, full_matrices=False)
        rank = min(module.r["default"], len(sizes))
        root = (sizes[:rank] / module.scaling["default"]).sqrt()
        module.lora_A["default"].weight[:rank] = root[:, None] * right[:rank]
        module.lora_B["default"].weight[:, :rank] = left[:, :rank] * root


def _files_by_weight(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as handle:
            found |= dict.fromkeys(handle.keys(), file)
    return found


def published(model: Any, weights: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
    """An adapter as it is written: PEFT's settings for it, and its weights, whole, by their names in the model.

    Where a start took its part out of the base (PiSSA, OLoRA), what is written is the change since then, a plain LoRA
    of twice the rank, B A - B0 A0 = [B, -B0] [A; A0]: it suits the base as it was published, for every program that
    knows LoRA, and so is AdaLoRA. VeRA's random matrices are written as well, so that none has to draw them again.
    """
    settings = model.peft_config["default"]
    if settings.peft_type == "ADALORA":
        return adalora.as_lora(model, weights)
    if settings.is_prompt_learning:
        return settings, prompts.as_published(model, weights)
    shared = {
        name: buffer.detach().cpu()
        for name, buffer in model.named_buffers(remove_duplicate=False)
        if name.startswith("base_model.vera_")
    }
    start = getattr(model, "start_of_adapter", None)
    if start is None:
        return settings, weights | shared
    settings = copy.copy(settings)
    settings.lora_alpha *= 2**0.5 if settings.use_rslora else 2
    settings.r, settings.init_lora_weights = 2 * settings.r, True
    doubled = {}
    for name, weight in weights.items():
        if name not in start:
            doubled[name] = weight
            continue
        pair = (weight, start[name]) if ".lora_A." in name else (weight, -start[name])
        doubled[name] = torch.cat(pair, 0 if ".lora_A." in name else 1)
    return settings, doubled


def set_dropout(model: torch.nn.Module, probability: float) -> None:
    """Give each dropout of a model this probability: modules, and numbers that its layers hand to functions."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = probability
        for name, value in vars(module).items():
            if isinstance(value, float) and ("dropout" in name or name.endswith("pdrop")):
                setattr(module, name, probability)


def with_adapter(model: PreTrainedModel, folder: Path) -> Any:
    """The model with a trained adapter from a folder that a run wrote.

    Raises:
        WishError: the folder holds no adapter for this model.
    """
    from peft import PeftModel

    try:
        adapted = PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=False)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise WishError(
            f"{folder} holds no adapter for this model ({str(error).splitlines()[0][:200]})", "train it first"
        ) from None
    return prompts.read_before_each_text(adapted)


def _linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear)
