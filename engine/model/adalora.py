"""AdaLoRA (arXiv 2303.10512): matrices P diag(E) Q beside a layer, kept orthogonal, and written as plain LoRA."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine.config import Adapter


def settings(adapter: Adapter, **where: Any) -> Any:
    """As PEFT has it configured; the budget of ranks is not PEFT's to keep here."""
    from peft import AdaLoraConfig

    return AdaLoraConfig(
        init_r=adapter.rank,
        target_r=adapter.target_rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        total_step=1,
        bias="none",
        **where,
    )


@torch.no_grad()
def as_lora(model: Any, weights: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
    """The same change of the base as LoRA, which every program knows that knows adapters: A = Q, B = P diag(E) scale.

    All targets get the ranks of the one that has kept most, as not every program takes different ones.
    """
    from peft import LoraConfig

    own = model.peft_config["default"]
    layers = {
        name.partition(".lora_E.")[0]: weight.flatten()
        for name, weight in weights.items()
        if ".lora_E." in name
    }
    rank = max(1, *(int((values != 0).sum()) for values in layers.values()))
    written = {}
    for name, values in layers.items():
        kept = (values == 0).sort(stable=True).indices[:rank]
        right, left = weights[f"{name}.lora_A.default"], weights[f"{name}.lora_B.default"]
        scale = own.lora_alpha / (own.init_r + 1e-5)  # as PEFT divides
        written[f"{name}.lora_A.default.weight"] = right[kept].contiguous()
        written[f"{name}.lora_B.default.weight"] = (left[:, kept].float() * values[kept].float() * scale).to(
            left.dtype
        )
    return LoraConfig(
        r=rank, lora_alpha=rank, target_modules=own.target_modules, task_type=own.task_type, bias="none"
    ), written


class Orthogonality:
    """Adds weight x the mean over all matrices of |M M^T - I| (Frobenius) to a step's loss (arXiv 2303.10512, eq. 4).

    The gradient enters where a layer's output has its own, so that a strategy which gathers the layer's weights for its
    forward and backward has gathered them for this too. Without AdaLoRA there are no such layers.
    """

    def __init__(self, model: Any, wish: Adapter) -> None:
        layers = [module for module in model.modules() if hasattr(module, "lora_E")]
        self._weight = wish.orthogonality / max(1, 2 * len(layers))
        self._share = 1.0
        for layer in layers:
            layer.forward = self._also(layer, layer.forward)

    def share(self, passes: int) -> None:
        """Spread a step's share of the gradient over so many passes of this rank."""
        self._share = 1.0 / passes

    def _also(self, layer: Any, plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(*inputs: Any, **options: Any) -> Tensor:
            out = plain(*inputs, **options)
            if not (layer.training and torch.is_grad_enabled() and self._weight):
                return out
            both = _deviation(layer.lora_A["default"]) + _deviation(layer.lora_B["default"].t())
            added: Tensor = _Added.apply(out, both, self._weight * self._share)
            return added

        return forward


def _deviation(rows: Tensor) -> Tensor:
    """Frobenius norm of M M^T - I, in fp32 or more, for rows that should be of length one and at right angles."""
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
    return torch.linalg.matrix_norm(
        rows @ rows.t() - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
    )


class _Added(torch.autograd.Function):
    """A tensor as it is; whatever the loss of it is, `factor` times the second argument is added to that loss."""

    @staticmethod
    def forward(ctx: Any, out: Tensor, extra: Tensor, factor: float) -> Tensor:
        ctx.slope = torch.full_like(extra, factor)
        return out.view_as(out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """The gradient of the output, and the constant one of what is added."""
        return grad, ctx.slope, None
