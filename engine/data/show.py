"""Samples as a person reads them: which tokens are trained, and which are only read."""

from __future__ import annotations

from itertools import groupby, islice
from typing import Any

from engine.data.batch import Encoded
from engine.data.loader import Loader

_GREEN, _DIM, _PLAIN = "\033[32m", "\033[2m", "\033[0m"


def show_samples(loader: Loader, tokenizer: Any, count: int, *, color: bool = False) -> str:
    """The first `count` samples of the stream, special tokens included.

    Trained text is green (the rest dim) with `color`, between ⟦ and ⟧ without.
    """
    rows = (loader.row(index) for index in range(loader.rows_per_epoch))
    stream = (sample for row in rows for sample in row)
    return "\n\n".join(_sample(sample, tokenizer, color) for sample in islice(stream, count))


def _sample(sample: Encoded, tokenizer: Any, color: bool) -> str:
    runs = []
    tokens = zip(sample.ids.tolist(), sample.trained.tolist(), strict=True)
    for trained, run in groupby(tokens, key=lambda token: token[1]):
        # Token by token would break characters that span several byte tokens.
        text = tokenizer.decode([token for token, _ in run], skip_special_tokens=False)
        if color:
            text = f"{_GREEN if trained else _DIM}{text}{_PLAIN}"
        runs.append(f"⟦{text}⟧" if trained and not color else text)
    title = f"--- {sample.id}: {len(sample)} tokens, {int(sample.trained.sum())} trained"
    return title + "\n" + "".join(runs)
