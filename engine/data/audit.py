"""What the prepared data is, in numbers: the facts a run keeps beside its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.data.chat import end_of_turn
from engine.data.corpus import Corpus
from engine.data.loader import Loader

_PERCENTILES = (0, 5, 25, 50, 75, 95, 99, 100)


def corpus_facts(corpora: Sequence[Corpus]) -> dict[str, Any]:
    """Rows, tokens, trained tokens and length percentiles of samples, each counted once, left to right."""
    lengths = np.concatenate([np.diff(corpus.offsets) for corpus in corpora] or [np.empty(0, dtype=np.int64)])
    percentiles = np.percentile(lengths, _PERCENTILES).round().astype(int) if len(lengths) else []
    return {
        "rows": len(lengths),
        "tokens": int(lengths.sum()),
        "trained_tokens": sum(int(corpus.plain_counts.sum()) for corpus in corpora),
        "length_percentiles": {
            str(p): int(value) for p, value in zip(_PERCENTILES, percentiles, strict=False)
        },
    }


def text_facts(train: np.ndarray, held: np.ndarray, spelling: int) -> dict[str, int]:
    """What a look at the texts tells, by their digests: copies, copies across the split, and rows that spell a
    special token.

    A row that spells a special token is encoded with it, as the chat templates rely on; in data from
    strangers it can close a turn early, so it is counted.
    """
    known = np.sort(train)
    at = np.minimum(np.searchsorted(known, held), max(len(known) - 1, 0))
    return {
        "duplicate_rows": int((known[1:] == known[:-1]).sum()),
        "validation_rows_also_trained": int((known[at] == held).sum()) if len(known) else 0,
        "rows_spelling_special_tokens": spelling,
    }


def packing_facts(loader: Loader, max_length: int) -> dict[str, Any]:
    """How full the rows of the first epoch are, by the room their samples take."""
    plan = loader.plan(0)
    used = int(loader.lengths(plan.order).sum())
    return {
        "rows_per_epoch": len(plan),
        "steps": loader.steps,
        "steps_per_epoch": loader.steps_per_epoch,
        "packing_efficiency": round(used / (len(plan) * max_length), 4),
    }


def ending_facts(tokenizer: Any) -> dict[str, Any]:
    """What ends a text and a turn, and what pads: labels are masked by position, so eos may pad and stay trained."""
    own, pad, turn = tokenizer.pad_token_id, pad_id(tokenizer), end_of_turn(tokenizer)
    shared = pad == tokenizer.eos_token_id
    note = ("" if own is not None else "the tokenizer has none; ") + (
        "its end-of-text token pads, and stays trained" if shared else "never trained"
    )
    return {
        "end_of_text": tokenizer.eos_token,
        "end_of_turn": tokenizer.convert_ids_to_tokens(turn) if turn is not None else None,
        "padding": {"token": str(tokenizer.convert_ids_to_tokens(pad)), "id": pad, "note": note},
    }


def pad_id(tokenizer: Any) -> int:
    """What fills rows: the pad token, else the end-of-text token, else token 0. No label looks at it."""
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if candidate is not None:
            return int(candidate)
    return 0
