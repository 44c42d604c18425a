"""A model's shape from its config.json: which matrices it has, how many weights, and what trains in them."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.config import Adapter, ModelShape, Run, shape
from engine.errors import WishError
from engine.hub import asking


@dataclass(frozen=True, slots=True)
class Linear:
    """One linear layer of a decoder layer: `name` as the model calls it, counts of inputs and outputs."""

    name: str
    inputs: int
    outputs: int
    bias: bool = False

    @property
    def weights(self) -> int:
        """Elements of its matrix: what is quantised to four bits."""
        return self.inputs * self.outputs


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture-of-experts block: transformers holds its experts in two tensors, which are no linear layers."""

    count: int
    active: int
    intermediate: int


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder as arithmetic sees it (counts of elements).

    Attributes:
        shape: the numbers of its config.json.
        linears: linear layers of one decoder layer.
        layer_rest: elements of one decoder layer outside its linear matrices: biases, norms, experts, router.
        outside: elements beside layers, embedding and head: last norm, learnt positions.
        gated: whether its MLP multiplies a gate (SwiGLU, arXiv 2002.05202).
        rms: RMSNorm in fp32, as transformers writes it, rather than LayerNorm.
        rotary: rotary positions (arXiv 2104.09864).
        drops: dropout of GPT-2's own, after attention and MLP.
        head_norms: RMSNorm over each head's query and key.
        experts: the mixture of experts in each layer, if there is one.
    """

    shape: ModelShape
    linears: tuple[Linear, ...]
    layer_rest: int
    outside: int
    gated: bool
    rms: bool
    rotary: bool = True
    drops: bool = False
    head_norms: bool = False
    experts: Experts | None = None

    @property
    def embedding(self) -> int:
        """Elements of the token embedding."""
        return self.shape.vocabulary * self.shape.hidden

    @property
    def head(self) -> int:
        """Elements of an output head of its own; 0 where it is the embedding."""
        return 0 if self.shape.tied_embeddings else self.embedding

    @property
    def layer_linear(self) -> int:
        """Elements of one layer's linear matrices."""
        return sum(linear.weights for linear in self.linears)

    @property
    def layer(self) -> int:
        """Elements of one decoder layer."""
        return self.layer_linear + self.layer_rest

    @property
    def parameters(self) -> int:
        """All weights; tied ones once."""
        return self.shape.layers * self.layer + self.embedding + self.head + self.outside

    @property
    def active(self) -> int:
        """Weights a token meets in matrix products: the FLOPs of a forward pass are twice this a token."""
        idle = 0
        if self.experts:
            each = 3 * self.shape.hidden * self.experts.intermediate
            idle = self.shape.layers * each * (self.experts.count - self.experts.active)
        return self.shape.layers * self.layer + self.embedding - idle

    def targets(self, adapter: Adapter) -> tuple[Linear, ...]:
        """Linear layers of one decoder layer that get a low-rank adapter.

        Raises:
            WishError: `adapter.target_modules` names none of them.
        """
        wanted = adapter.target_modules
        if wanted == "all-linear":
            return self.linears
        if isinstance(wanted, str):
            found = [one for one in self.linears if re.fullmatch(wanted, f"model.layers.0.{one.name}")]
        else:
            endings = tuple(name.rpartition(".")[2] for name in wanted)
            found = [one for one in self.linears if one.name.rpartition(".")[2] in endings]
        if not found:
            names = ", ".join(sorted(one.name.rpartition(".")[2] for one in self.linears))
            raise WishError(
                f"adapter.target_modules {wanted!r} matches nothing in a {self.shape.model_type} model",
                f"its linear layers are called {names}; or use all-linear",
            )
        return tuple(found)

    def adapter_layer(self, adapter: Adapter) -> int:
        """Elements a low-rank adapter adds to one layer: rank x (inputs + outputs) a target (arXiv 2106.09685)."""
        added = sum(adapter.rank * (one.inputs + one.outputs) for one in self.targets(adapter))
        if self.experts and self.adapts_experts(adapter):
            # Gate and up are one tensor, so their adapter has twice the rank; the router gets one as well.
            inner, hidden, count = self.experts.intermediate, self.shape.hidden, self.experts.count
            added += count * adapter.rank * (2 * (hidden + 2 * inner) + inner + hidden)
            added += adapter.rank * (hidden + count)
        return added

    def adapts_experts(self, adapter: Adapter) -> bool:
        """Whether router and experts get adapters too: PEFT takes their tensors for linear layers in `all-linear`."""
        return self.experts is not None and adapter.target_modules == "all-linear"


def _attention(size: ModelShape, *, biases: tuple[bool, bool]) -> list[Linear]:
    query, key = size.heads * size.head_dim, size.kv_heads * size.head_dim
    inner, out = biases
    return [
        Linear("self_attn.q_proj", size.hidden, query, inner),
        Linear("self_attn.k_proj", size.hidden, key, inner),
        Linear("self_attn.v_proj", size.hidden, key, inner),
        Linear("self_attn.o_proj", query, size.hidden, out),
    ]


def _number(config: Mapping[str, Any], default: int, *names: str) -> int:
    """A whole number under the first of some names that config.json has; `default` where it has none of them."""
    for name in names:
        if name in config:
            if type(config[name]) is int:
                return config[name]
            raise WishError(
                f"the model's config.json says {name}: {json.dumps(config[name])}, which is no whole number",
                "download the model again, or name its own config.json",
            )
    return default


def _swiglu(size: ModelShape, bias: bool) -> list[Linear]:
    return [
        Linear("mlp.gate_proj", size.hidden, size.intermediate, bias),
        Linear("mlp.up_proj", size.hidden, size.intermediate, bias),
        Linear("mlp.down_proj", size.intermediate, size.hidden, bias),
    ]


def _biases(linears: list[Linear]) -> int:
    return sum(one.outputs for one in linears if one.bias)


def _llama_like(
    config: Mapping[str, Any],
    size: ModelShape,
    *,
    biases: tuple[bool, bool],
    mlp_bias: bool = False,
    head_norms: bool = False,
) -> Architecture:
    linears = _attention(size, biases=biases) + _swiglu(size, mlp_bias)
    rest = _biases(linears) + 2 * size.hidden + (2 * size.head_dim if head_norms else 0)
    return Architecture(size, tuple(linears), rest, size.hidden, gated=True, rms=True, head_norms=head_norms)


def _llama(config: Mapping[str, Any], size: ModelShape) -> Architecture:
    bias = bool(config.get("attention_bias", False))
    return _llama_like(config, size, biases=(bias, bias), mlp_bias=bool(config.get("mlp_bias", False)))


def _mistral(config: Mapping[str, Any], size: ModelShape) -> Architecture:
    return _llama_like(config, size, biases=(False, False))


def _qwen2(config: Mapping[str, Any], size: ModelShape) -> Architecture:
    return _llama_like(config, size, biases=(True, False))


def _qwen3(config: Mapping[str, Any], size: ModelShape) -> Architecture:
    bias = bool(config.get("attention_bias", False))
    return _llama_like(config, size, biases=(bias, bias), head_norms=True)


def _mixture(config: Mapping[str, Any], size: ModelShape, experts: Experts, *, qwen: bool) -> Architecture:
    bias = bool(config.get("attention_bias", False)) and qwen
    linears = _attention(size, biases=(bias, bias))
    norms = 2 * size.hidden + (2 * size.head_dim if qwen else 0)
    block = experts.count * size.hidden * (3 * experts.intermediate + 1)
    rest = _biases(linears) + norms + block
    return Architecture(
        size, tuple(linears), rest, size.hidden, gated=True, rms=True, head_norms=qwen, experts=experts
    )


def _mixtral(config: Mapping[str, Any], size: ModelShape) -> Architecture:
    count, active = _number(config, 8, "num_local_experts"), _number(config, 2, "num_experts_per_tok")
    return _mixture(config, size, Experts(count, active, size.intermediate), qwen=False)


def _qwen3_moe(config: Mapping[str, Any], size: ModelShape) -> Architecture:
    dense = config.get("mlp_only_layers") or _number(config, 1, "decoder_sparse_step") != 1
    if dense:
        raise WishError(
            "this qwen3_moe model mixes dense and sparse layers", "plan it by hand: its layers differ in size"
        )
    count = _number(config, 128, "num_experts", "num_local_experts")
    active, inner = _number(config, 8, "num_experts_per_tok"), _number(config, 768, "moe_intermediate_size")
    return _mixture(config, size, Experts(count, active, inner), qwen=True)


def _starcoder2(config: Mapping[str, Any], size: ModelShape) -> Architecture:
    bias = bool(config.get("use_bias", True))
    linears = _attention(size, biases=(bias, bias))
    linears.append(Linear("mlp.c_fc", size.hidden, size.intermediate, bias))
    linears.append(Linear("mlp.c_proj", size.intermediate, size.hidden, bias))
    rest = _biases(linears) + 4 * size.hidden
    return Architecture(size, tuple(linears), rest, 2 * size.hidden, gated=False, rms=False)


def _gpt2(config: Mapping[str, Any], size: ModelShape) -> Architecture:
    linears = [
        Linear("attn.c_attn", size.hidden, 3 * size.hidden, True),
        Linear("attn.c_proj", size.hidden, size.hidden, True),
        Linear("mlp.c_fc", size.hidden, size.intermediate, True),
        Linear("mlp.c_proj", size.intermediate, size.hidden, True),
    ]
    drops = bool(config.get("resid_pdrop", 0.1))
    outside = 2 * size.hidden + (size.context or 1024) * size.hidden
    rest = _biases(linears) + 4 * size.hidden
    return Architecture(
        size, tuple(linears), rest, outside, gated=False, rms=False, rotary=False, drops=drops
    )


FAMILIES: dict[str, Callable[[Mapping[str, Any], ModelShape], Architecture]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "mixtral": _mixtral,
    "qwen3_moe": _qwen3_moe,
    "starcoder2": _starcoder2,
    "gpt2": _gpt2,
}


# transformers fills in what a config.json leaves out: most families have a head of their own, these do not.
TIED_UNLESS_TOLD = ("gpt2", "starcoder2")


def architecture(run: Run, model_config: str | None = None) -> Architecture:
    """The architecture of a Run's model, from its folder, the hub, or a config.json named for it.

    Raises:
        WishError: there is no config.json to be had, or the family is none that is known here.
    """
    folder = Path(model_config) if model_config else Path(run.model.path)
    if model_config and folder.name == "config.json":
        folder = folder.parent
    elif model_config and folder.is_file():
        raise WishError(f"{folder} is not called config.json", "name a model folder or its config.json")
    if not folder.is_dir() and model_config is None:
        folder = _from_hub(run)
    size = shape(folder)
    if size is None:
        raise WishError(f"there is no model folder {folder}", "name a folder with the model's config.json")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config", config)
    if run.model.dropout is not None:
        config["resid_pdrop"] = run.model.dropout
    if size.model_type in TIED_UNLESS_TOLD and "tie_word_embeddings" not in config:
        size = replace(size, tied_embeddings=True)
    known = FAMILIES.get(size.model_type)
    if known is None:
        near = difflib.get_close_matches(size.model_type, FAMILIES, n=1, cutoff=0.6)
        hint = f" (the nearest, {near[0]}, may differ)" if near else ""
        raise WishError(
            f"the memory of a {size.model_type} model is not known here{hint}",
            f"plan knows {', '.join(FAMILIES)}; `temper train --dry-run` prints the command for any model",
        )
    return known(config, size)


def _from_hub(run: Run) -> Path:
    """The folder of the hub cache with the model's config.json, which alone is fetched where it is not there yet."""
    home = os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    place = cache / f"models--{run.model.path.replace('/', '--')}"
    revision = run.model.revision or "main"
    reference = place / "refs" / revision
    name = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    snapshot = place / "snapshots" / name
    if (snapshot / "config.json").is_file():
        return snapshot
    from huggingface_hub import hf_hub_download

    fix = "check model.path and the connection, or name a copy with --model-config FILE"
    with asking(f"config.json of {run.model.path}", fix) as offline:
        file = hf_hub_download(
            run.model.path, "config.json", revision=revision, cache_dir=cache, local_files_only=offline
        )
    return Path(file).parent
