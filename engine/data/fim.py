"""Fill-in-the-middle (arXiv 2207.14255): cut a text in three and write it so that the middle comes last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from engine.data.order import key
from engine.errors import WishError

Layout = Literal["psm", "spm"]

# Prefix, suffix, middle, end ("" where the family ends with its end-of-text token).
FAMILIES: dict[str, tuple[str, str, str, str]] = {
    "qwen": ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", ""),
    "starcoder": ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", ""),
    "codellama": ("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>"),
    "deepseek": ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", ""),
    "santacoder": ("<fim-prefix>", "<fim-suffix>", "<fim-middle>", ""),
}


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Token ids that open prefix, suffix and middle, and the one that ends the middle."""

    family: str
    prefix: int
    suffix: int
    middle: int
    end: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A text in three: `prefix + middle + suffix` is the text."""

    layout: Layout
    prefix: str
    middle: str
    suffix: str


def sentinels(tokenizer: Any) -> Sentinels:
    """The sentinels a tokenizer has, by the spelling of its family.

    Raises:
        WishError: it has none, so the model was not made for infilling.
    """
    vocabulary = tokenizer.get_vocab()
    for family, (prefix, suffix, middle, end) in FAMILIES.items():
        if prefix in vocabulary and suffix in vocabulary and middle in vocabulary:
            last = vocabulary.get(end, tokenizer.eos_token_id)
            return Sentinels(family, vocabulary[prefix], vocabulary[suffix], vocabulary[middle], last)
    known = ", ".join(names[0] for names in FAMILIES.values())
    raise WishError(
        f"the tokenizer of {len(vocabulary)} tokens has no fill-in-the-middle tokens (looked for {known})",
        "set `data.fim.rate: 0`, use `format: text`, or take a model trained for infilling",
    )


def infill_prompt(tokenizer: Any, prefix: str, suffix: str) -> tuple[str, tuple[str, ...]]:
    """The text that asks a model for what stands between prefix and suffix (PSM), and the tokens that end its answer.

    Raises:
        WishError: the tokenizer has none.
    """
    opening, hole, last, end = FAMILIES[sentinels(tokenizer).family]
    return f"{opening}{prefix}{hole}{suffix}{last}", ((end,) if end else ())


def layout_of(seed: int, seen: int, sample_id: str, *, rate: float, spm_rate: float) -> Layout | None:
    """How a sample is written the `seen`-th time it is shown; None: left to right."""
    if key(seed, "fim", seen, sample_id) / 2**64 >= rate:
        return None
    return "spm" if key(seed, "fim layout", seen, sample_id) / 2**64 < spm_rate else "psm"


def borders(seed: int, seen: int, sample_id: str, length: int) -> tuple[int, int]:
    """Where a text of `length` characters (or tokens) is cut: two uniform points, in order."""
    first, second = (key(seed, "fim cut", seen, sample_id, n) * (length + 1) // 2**64 for n in (0, 1))
    return min(first, second), max(first, second)


def cut(text: str, layout: Layout, at: tuple[int, int]) -> Cut:
    """Cut a text at two character positions."""
    first, second = at
    return Cut(layout, text[:first], text[first:second], text[second:])


def join(layout: Layout, parts: tuple[np.ndarray, np.ndarray, np.ndarray], tokens: Sentinels) -> np.ndarray:
    """Token ids of (prefix, middle, suffix) in the order the model reads them, int32.

    PSM is PRE prefix SUF suffix MID middle END; SPM is PRE SUF suffix MID prefix middle END (the paper's
    joint form, which StarCoder and Code Llama use), so that both can be asked for with the same sentinels.
    """
    prefix, middle, suffix = parts
    opening, hole, last = [tokens.prefix], [tokens.suffix], [tokens.middle]
    order = {
        "psm": (opening, prefix, hole, suffix, last, middle, [tokens.end]),
        "spm": (opening, hole, suffix, last, prefix, middle, [tokens.end]),
    }
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in order[layout]])
