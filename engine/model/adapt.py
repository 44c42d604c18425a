"""What is trained: all weights, or a PEFT adapter beside frozen ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from engine.config import Run
from engine.errors import WishError


def adapt(model: PreTrainedModel, run: Run) -> Any:
    """The model ready to train: itself for `full`, otherwise wrapped with a fresh adapter.

    Raises:
        WishError: `target_modules` matches nothing.
    """
    if run.model.dropout is not None:
        set_dropout(model, run.model.dropout)
    if run.model.activation_checkpointing:
        # Non-reentrant checkpointing needs no gradient at the input, so it works over a frozen base as well.
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if run.adapter.kind == "full":
        return model
    from peft import LoraConfig, get_peft_model

    wanted = run.adapter.target_modules
    torch.manual_seed(run.seed)
    try:
        adapted = get_peft_model(
            model,
            LoraConfig(
                r=run.adapter.rank,
                lora_alpha=run.adapter.alpha,
                lora_dropout=run.adapter.dropout,
                use_rslora=run.adapter.rslora,
                target_modules=wanted if isinstance(wanted, str) else list(wanted),
                bias="none",
                task_type="CAUSAL_LM",
            ),
            # Adapter weights take the compute dtype; fp32 copies are the optimizer's, under every strategy alike.
            autocast_adapter_dtype=False,
        )
    except ValueError as error:
        names = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if _linear(module)})
        raise WishError(
            f"adapter.target_modules {wanted!r} matches nothing in this model ({str(error).splitlines()[0][:120]})",
            f"its linear layers are called {', '.join(names)}; or use all-linear",
        ) from None
    dtype = next(parameter.dtype for parameter in model.parameters() if parameter.is_floating_point())
    for parameter in adapted.parameters():
        if parameter.requires_grad and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)
    return adapted


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
        return PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=False)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise WishError(
            f"{folder} holds no adapter for this model ({str(error).splitlines()[0][:200]})", "train it first"
        ) from None


def _linear(module: torch.nn.Module) -> bool:
    return isinstance(module, torch.nn.Linear)
