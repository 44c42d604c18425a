"""Is packing exact for this model? Asked of the model itself, before a packed row is trained on."""

from __future__ import annotations

from collections.abc import Callable

import torch

from engine.errors import WishError
from engine.model.attention import SampleAttention, spans_of

# Largest difference between packed and separate logits, relative to the largest logit. Rounding of the
# precision stays an order of magnitude below; samples that see each other are an order above.
LIMITS = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 1e-2}


@torch.no_grad()
def packing_difference(
    forward: Callable[..., torch.Tensor], vocabulary: int, device: torch.device, *, rows: int = 1
) -> float:
    """Largest relative difference of the last samples' logits, packed in one row against alone in a row.

    Args:
        forward: (input_ids [N, T], position_ids [N, T]) to logits [N, T, vocabulary].
        vocabulary: number of token ids.
        device: where the ids go.
        rows: packed rows side by side; FlashAttention in transformers tells samples apart in a single row only.
    """
    generator = torch.Generator().manual_seed(0)
    lengths = (7, 12, 9)
    pieces = [torch.randint(vocabulary, (1, length), generator=generator).to(device) for length in lengths]
    positions = [torch.arange(length, device=device)[None] for length in lengths]
    whole, places = torch.cat(pieces, 1), torch.cat(positions, 1)
    packed = forward(whole.repeat(rows, 1), places.repeat(rows, 1)).float()
    separate = torch.cat([forward(ids, at) for ids, at in zip(pieces, positions, strict=True)], 1).float()
    return float((packed - separate).abs().max() / separate.abs().max().clamp_min(1e-6))


@torch.no_grad()
def sharing_difference(
    forward: Callable[..., torch.Tensor], attention: SampleAttention, vocabulary: int, device: torch.device
) -> float:
    """Largest relative difference of this rank's logits, of its part of a packed row against of the row by itself.

    A collective. The samples end elsewhere than the parts; the second is in all of them. Arguments as above.
    """
    length = 16 * attention.size
    ids = torch.randint(vocabulary, (1, length), generator=torch.Generator().manual_seed(0)).to(device)
    positions = torch.cat([torch.arange(n) for n in (5, length - 8, 3)])[None]
    whole = attention.part(forward(ids, positions.to(device))).float()
    with attention.spread(spans_of(positions)):
        part = forward(attention.part(ids), attention.part(positions).to(device)).float()
    return float((part - whole).abs().max() / whole.abs().max().clamp_min(1e-6))


def demand_exact_sharing(difference: float, dtype: torch.dtype, *, size: int) -> None:
    """Refuse to share rows where a part of one does not come out as in the whole.

    Raises:
        WishError: the difference is beyond rounding.
    """
    if not exact(difference, dtype):
        raise WishError(
            f"logits of a row that {size} ranks share are others than of the whole row (relative difference "
            f"{difference:.2g}): this model mixes tokens outside of attention",
            "use parallel.sequence 1 with this model",
        )


def exact(difference: float, dtype: torch.dtype) -> bool:
    """Whether a difference of logits is within what rounding makes."""
    return difference <= LIMITS[dtype]


def demand_exact_packing(difference: float, dtype: torch.dtype) -> None:
    """Refuse packing where samples of one row influence each other.

    Raises:
        WishError: the difference is beyond rounding.
    """
    if not exact(difference, dtype):
        raise WishError(
            f"packed samples change each other's logits in this model (relative difference {difference:.2g})",
            "set model.attention to sdpa or eager, or data.packing to false",
        )
