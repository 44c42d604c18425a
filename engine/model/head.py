"""The output head that gives the loss instead of logits: a few rows of logits exist at a time, and none is kept.

With vocabularies of 50,000 to 150,000 tokens the logits of a packed batch are its largest tensor by far. The gradient
of a cross entropy is known as soon as its logits are, so both are computed for a chunk of rows and the logits dropped
(as Liger-Kernel does, arXiv 2410.10989, and Cut Cross-Entropy, arXiv 2411.09009).
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

ELEMENTS = {"cpu": 1 << 22, "cuda": 1 << 27}
"""Logits in a chunk: on CPU as many as its caches take, on CUDA enough to keep the matrix units busy."""


class LossHead:
    """A model's output head, which answers with a loss where it is asked for one.

    The model calls it as ever, so that what a strategy does around a module's forward (gathering its weight, reducing
    its gradient) is done around the loss too.
    """

    def __init__(self, head: nn.Linear) -> None:
        self._plain = head.forward
        self._weight = lambda: head.weight
        self._asked: tuple[Tensor, Tensor, int, float] | None = None
        head.forward = self._forward  # type: ignore[assignment, method-assign]

    @contextlib.contextmanager
    def asked(
        self, positions: Tensor, targets: Tensor, ignored: int, smoothing: float = 0.0
    ) -> Iterator[None]:
        """Within this block the model's `logits` are the summed cross entropy of some positions, a scalar in fp32.

        Args:
            positions: [n] indices into the flattened [rows * length] hidden states.
            targets: [n] token ids; those equal to `ignored` add nothing.
            ignored: the label of what is not trained.
            smoothing: share of each target that is spread evenly over the vocabulary (arXiv 1512.00567).
        """
        self._asked = (positions, targets, ignored, smoothing)
        try:
            yield
        finally:
            self._asked = None

    def _forward(self, hidden: Tensor) -> Tensor:
        if self._asked is None:
            return self._plain(hidden)
        positions, targets, ignored, smoothing = self._asked
        picked = hidden.flatten(0, 1).index_select(0, positions)
        loss: Tensor = LinearCrossEntropy.apply(picked, self._weight(), targets, ignored, smoothing)
        return loss


def loss_head(model: Any) -> LossHead | None:
    """The loss head of a model; None where its output head is not a plain matrix (adapted, quantised, with a bias).

    fp16 is left out as well: gradients here are not scaled before they are rounded.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = inner.get_output_embeddings()
    if type(head) is not nn.Linear or head.bias is not None or head.weight.dtype == torch.float16:
        return None
    return LossHead(head)


class LinearCrossEntropy(torch.autograd.Function):
    """Sum over n of logsumexp(z_n) - (1 - s) z_n[t_n] - s mean(z_n), where z_n = W h_n; h [n, hidden], W [vocabulary,
    hidden], t [n], s the smoothing."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, ignored: int, smoothing: float = 0.0
    ) -> Tensor:
        """The loss, and in the same pass its gradients."""
        to_hidden, to_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden) if to_hidden else None
        grad_weight: Tensor | None = None
        loss = torch.zeros((), dtype=torch.float32, device=hidden.device)
        step = max(1, ELEMENTS[hidden.device.type] // len(weight))
        for start in range(0, len(hidden), step):
            here = slice(start, start + step)
            total, slope = _cross_entropy(
                hidden[here], weight, targets[here], ignored, smoothing, to_hidden or to_weight
            )
            loss += total
            if grad_hidden is not None:
                torch.mm(slope, weight, out=grad_hidden[here])
            if to_weight:
                grad_weight = _added(grad_weight, slope.t(), hidden[here], alone=step >= len(hidden))
            del slope  # before the next chunk's logits are made
        ctx.save_for_backward(grad_hidden, None if grad_weight is None else grad_weight.to(weight.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """The gradients, by the factor the loss was multiplied with."""
        grad_hidden, grad_weight = ctx.saved_tensors
        return (
            None if grad_hidden is None else grad_hidden.mul_(grad),
            None if grad_weight is None else grad_weight.mul_(grad),
            None,
            None,
            None,
        )


def _cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, ignored: int, smoothing: float, wanted: bool
) -> tuple[Tensor, Tensor]:
    """Summed loss of a chunk; where wanted, its derivative by the logits [n, vocabulary], as precise as `hidden`."""
    kept = (targets != ignored).unsqueeze(1)
    right = targets.clamp_min(0).unsqueeze(1)
    logits = (hidden @ weight.t()).float()
    total = logits.logsumexp(1, keepdim=True)
    wished = (1 - smoothing) * logits.gather(1, right)
    if smoothing:
        wished += smoothing * logits.mean(1, keepdim=True)
    loss = ((total - wished) * kept).sum()
    if not wanted:
        return loss, logits
    # softmax - (1 - s) onehot - s / vocabulary, in the logits' own memory; 0 where nothing is trained
    slope = logits.sub_(total.masked_fill(~kept, math.inf)).exp_()
    if smoothing:
        slope -= kept * (smoothing / len(weight))
    slope.scatter_add_(1, right, kept * (smoothing - 1))
    return loss, slope.to(hidden.dtype)


def _added(total: Tensor | None, left: Tensor, right: Tensor, *, alone: bool) -> Tensor:
    """A running sum of products, in fp32 where there are several: in 16 bits it would lose what one product keeps."""
    if total is None:
        first = left @ right
        return first if alone else first.float()
    return total.addmm_(left, right) if left.dtype == torch.float32 else total.add_(left @ right)
