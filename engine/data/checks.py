"""What stops a run before its first step: data from which it would learn nothing, or the wrong thing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.config import Data
from engine.data.corpus import Corpus
from engine.errors import WishError

_NAMED = 3


def every_sample_trains(corpora: Sequence[Corpus], data: Data) -> None:
    """A sample without a trained token is a mistake in the rows, the mask or the length."""
    total = sum(len(corpus) for corpus in corpora)
    if total == 0:
        raise WishError("no training rows are left", "add rows, or set aside fewer for validation and test")
    idle, cut_off = [], 0
    for corpus in corpora:
        rows = np.flatnonzero(corpus.plain_counts == 0)
        idle += [corpus.wheres[int(row)] for row in rows]
        cut_off += int(corpus.truncated[rows].sum())
    if not idle:
        return
    where = ", ".join(idle[:_NAMED]) + (", ..." if len(idle) > _NAMED else "")
    if cut_off:
        raise WishError(
            f"{len(idle)} of {total} samples have no trained token ({where}); {cut_off} of them lost it "
            f"when they were cut to data.max_length {data.max_length}",
            "raise data.max_length, or set `data.overlong: drop`",
        )
    raise WishError(
        f"{len(idle)} of {total} samples have no trained token ({where})",
        "give each an assistant turn or a completion that is not empty, or set `data.mask_prompt: false`",
    )


def one_beginning(corpora: Sequence[Corpus], tokenizer: Any) -> None:
    """A doubled beginning-of-text token: rows or template write one, and the tokenizer adds another."""
    bos = tokenizer.bos_token_id
    if bos is None:
        return
    for corpus in corpora:
        first = corpus.offsets[:-1]
        second = np.minimum(first + 1, max(len(corpus.tokens) - 1, 0))
        doubled = (
            (corpus.tokens[first] == bos) & (corpus.tokens[second] == bos) & (np.diff(corpus.offsets) > 1)
        )
        rows = np.flatnonzero(doubled)
        if len(rows):
            where = ", ".join(corpus.wheres[row] for row in rows[:_NAMED])
            raise WishError(
                f"{len(rows)} samples begin with {tokenizer.bos_token!r} twice ({where})",
                "remove it from the rows or the chat template; it is added where the tokenizer asks for it",
            )


def tokens_known(highest: int, model_vocabulary: int | None) -> None:
    """Token ids past the model's embedding would fail deep inside the first step."""
    if model_vocabulary is not None and highest >= model_vocabulary:
        raise WishError(
            f"the tokenizer gives token {highest}, and the model knows {model_vocabulary} tokens",
            "take the model's own tokenizer, or one that is not larger",
        )
