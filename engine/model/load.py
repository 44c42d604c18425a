"""Weights: from a folder or the hub, in the Run's precision, quantised only where asked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedModel,
)

from engine import hub
from engine.config import Run
from engine.errors import WishError
from engine.model import classes

CLASSES = {
    "language": AutoModelForCausalLM,
    "sequence": AutoModelForSequenceClassification,
    "token": AutoModelForTokenClassification,
}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def load_model(run: Run, device: torch.device, *, path: str | None = None) -> PreTrainedModel:
    """The Run's model: dtype by `parallel.precision`, 4-bit linear layers for `qlora`, weights drawn for `scratch`.

    Under ZeRO-3 parameters are sharded while they are read (all ranks call this together).

    Raises:
        WishError: nothing loadable there, bitsandbytes missing, or an attention implementation it cannot run.
    """
    place = path or run.model.path
    dtype = DTYPES[run.parallel.precision]
    options: dict[str, Any] = {
        "trust_remote_code": run.model.trust_remote_code,
        "revision": run.model.revision,
        "local_files_only": hub.cache_only(place),
    }
    if run.model.attention != "auto":
        options["attn_implementation"] = run.model.attention
    try:
        if run.model.init == "scratch" and path is None:
            config = AutoConfig.from_pretrained(place, **options)
            torch.manual_seed(run.seed)
            drawn = CLASSES[run.model.head].from_config(
                classes.named(config, run), dtype=dtype, **_attention(options)
            )
            return classes.ready(drawn.to(device), run, fresh=True)
        if run.adapter.kind == "qlora":
            options |= {"quantization_config": _four_bit(run, dtype), "device_map": {"": device}}
            # ZeRO-3 cannot shard while it quantises: each rank reads the whole 4-bit base, which is sharded afterwards.
            with unsharded():
                model = _pretrained(place, dtype, options, run)
        else:
            model = _pretrained(place, dtype, options, run)
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise WishError(f"model.path {place} does not load: {_line(error)}", _hint(str(error))) from None
    if run.adapter.kind == "qlora":
        _demand_only_linear_quantised(model)
        _keep_unpacked(model)
    elif not any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        model.to(device)
    return model


def load_dequantised(run: Run, device: torch.device) -> PreTrainedModel:
    """The base an adapter was trained on, in whole weights: for `qlora` what four bits have left of them.

    Weights are in the Run's precision, which 4-bit layers also take them to before they multiply.

    Raises:
        WishError: as `load_model`.
    """
    plain = run.model_copy(update={"adapter": run.adapter.model_copy(update={"kind": "full"})})
    model = load_model(plain, device)
    if run.adapter.kind == "qlora":
        from bitsandbytes.functional import dequantize_4bit
        from bitsandbytes.nn import Linear4bit

        for name, module in load_model(run, device).named_modules():
            if isinstance(module, Linear4bit):
                held = dequantize_4bit(module.weight.data, module.weight.quant_state)
                model.get_submodule(name).weight.data.copy_(held)
    return model


def _pretrained(place: str, dtype: torch.dtype, options: dict[str, Any], run: Run) -> PreTrainedModel:
    """The model with every weight from the folder: transformers would draw those it lacks at random, and only warn.

    A head of classes may be missing: it begins anew then.
    """
    if run.model.head != "language":
        asked = {key: options[key] for key in ("trust_remote_code", "revision", "local_files_only")}
        options = options | {"config": classes.named(AutoConfig.from_pretrained(place, **asked), run)}
    model, told = CLASSES[run.model.head].from_pretrained(
        place, dtype=dtype, output_loading_info=True, **options
    )
    fresh = {
        name for name in told["missing_keys"] if run.model.head != "language" and name.startswith("score.")
    }
    drawn = sorted(set(told["missing_keys"]) - fresh)
    if drawn:
        more = f" and {len(drawn) - 3} more" if len(drawn) > 3 else ""
        raise WishError(
            f"model.path {place} lacks weights of {type(model).__name__}: {', '.join(drawn[:3])}{more}",
            "name a folder with all of them; an adapter's folder is no model, a classifier's has no output head",
        )
    return classes.ready(model, run, fresh=bool(fresh))


@contextlib.contextmanager
def unsharded() -> Iterator[None]:
    """Load a whole model inside a ZeRO-3 job: transformers would otherwise shard every model it reads."""
    from transformers.integrations import deepspeed as integration

    held = getattr(integration, "_hf_deepspeed_config_weak_ref", None)
    integration.unset_hf_deepspeed_config()
    try:
        yield
    finally:
        integration._hf_deepspeed_config_weak_ref = held


def _attention(options: dict[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in ("attn_implementation", "trust_remote_code") if key in options}


def _four_bit(run: Run, dtype: torch.dtype) -> Any:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        raise WishError(
            "adapter.kind is qlora and bitsandbytes is not installed", "pip install bitsandbytes"
        ) from None
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=run.adapter.quant,
        bnb_4bit_use_double_quant=run.adapter.double_quant,
        bnb_4bit_compute_dtype=dtype,
        # ZeRO-3 and FSDP shard parameters of one float dtype: the packed 4-bit words take the compute dtype.
        bnb_4bit_quant_storage=dtype,
        llm_int8_skip_modules=["score"] if run.model.head != "language" else None,
    )


def _demand_only_linear_quantised(model: PreTrainedModel) -> None:
    """Embeddings, norms and the head keep their precision; something must have been quantised at all."""
    from bitsandbytes.nn import Linear4bit

    quantised = [name for name, module in model.named_modules() if isinstance(module, Linear4bit)]
    if not quantised:
        raise WishError(
            "adapter.kind is qlora and no linear layer was quantised", "use adapter.kind lora for this model"
        )
    head = model.get_output_embeddings()
    if isinstance(head, Linear4bit):
        raise RuntimeError("the output head was quantised, which nobody asked for")


def _keep_unpacked(model: PreTrainedModel) -> None:
    """Stop bitsandbytes (0.50, CPUs with AVX512-BF16) from repacking weights at the first evaluation forward.

    The packing is for inference and stays: gradients through it are wrong, without a word.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def _hint(message: str) -> str:
    if "flash" in message.lower():
        return "set model.attention to sdpa, or install the attention package it names"
    if "trust_remote_code" in message:
        return "its code is not part of transformers: set model.trust_remote_code if you trust its author"
    return "name a folder that save_pretrained wrote, or a hub id you can reach"
