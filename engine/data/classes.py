"""Texts and their classes to tokens and theirs, encoded as a classifier is asked: by the tokenizer's own call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.data.batch import Encoded
from engine.data.formats import Labelled, Marked
from engine.errors import WishError


class Classes:
    """Encodes labelled texts with one tokenizer.

    Args:
        labels: names of the classes, in the order of the head's outputs.
    """

    def __init__(self, tokenizer: Any, labels: Sequence[str]) -> None:
        self._tokenizer = tokenizer
        self._labels = tuple(labels)
        self._numbers = {name: number for number, name in enumerate(labels)}
        own = tokenizer.pad_token_id
        self._pad = tokenizer.eos_token_id if own is None else own

    def labelled(self, samples: Sequence[Labelled]) -> list[Encoded]:
        """A text's class is asked of its last token that is not padding's, as transformers pools it.

        All tokens have it as their target, so that a text that is cut keeps it.
        """
        found = self._tokenizer([sample.text for sample in samples], verbose=False)["input_ids"]
        encoded = []
        for sample, tokens in zip(samples, found, strict=True):
            ids = self._some(sample, tokens)
            trained = np.zeros(len(ids), dtype=bool)
            trained[last_token(ids, self._pad)] = True
            number = self._number(sample.where, sample.label)
            encoded.append(Encoded(sample.id, ids, trained, np.full(len(ids), number, dtype=np.int32)))
        return encoded

    def marked(self, samples: Sequence[Marked]) -> list[Encoded]:
        """A token has the class of the first span that it shares characters with, else the first class."""
        if not self._tokenizer.is_fast:
            raise WishError(
                f"{type(self._tokenizer).__name__} cannot say which characters a token stands for",
                "use a fast tokenizer (one with tokenizer.json)",
            )
        found = self._tokenizer(
            [sample.text for sample in samples], return_offsets_mapping=True, verbose=False
        )
        encoded = []
        for sample, tokens, places in zip(samples, found["input_ids"], found["offset_mapping"], strict=True):
            ids, offsets = self._some(sample, tokens), np.asarray(places, dtype=np.int64).reshape(-1, 2)
            targets = np.zeros(len(ids), dtype=np.int32)
            for start, end, label in reversed(sample.spans):
                targets[(offsets[:, 0] < end) & (offsets[:, 1] > start)] = self._number(sample.where, label)
            # What the tokenizer adds stands for no character, and has no class.
            encoded.append(Encoded(sample.id, ids, offsets[:, 1] > offsets[:, 0], targets))
        return encoded

    def _some(self, sample: Labelled | Marked, tokens: Sequence[int]) -> np.ndarray:
        if not tokens:
            raise WishError(f"{sample.where}: the text has no token", "leave the row out")
        return np.asarray(tokens, dtype=np.int32)

    def _number(self, where: str, label: str | int) -> int:
        number = self._numbers.get(str(label))
        if number is None and isinstance(label, int) and 0 <= label < len(self._labels):
            number = label
        if number is None:
            names = ", ".join(self._labels[:6]) + (", ..." if len(self._labels) > 6 else "")
            raise WishError(
                f"{where}: {label!r} is none of model.labels ({names})", "mend the row, or add the class"
            )
        return number


def last_token(ids: np.ndarray, pad: int | None) -> int:
    """The place transformers pools a text at: its last token that is not the padding one."""
    others = np.flatnonzero(ids != pad)
    return int(others[-1]) if len(others) else len(ids) - 1
