"""A corpus in the making: encoded samples held to `max_length` one after another, on disk or in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import Data
from engine.data.batch import Encoded
from engine.data.columns import Column, Strings, Texts
from engine.data.corpus import Corpus, Infill, room
from engine.data.formats import Sample
from engine.errors import WishError


@dataclass(slots=True)
class Tally:
    """What became of the samples of one source and split on the way to tokens.

    Attributes:
        samples: how many were encoded.
        long: those longer than `max_length`.
        dropped: those left out for it.
        shortest: tokens of the shortest; 0 where there is none.
        longest: tokens of the longest.
        longest_where: where the first of the longest stands.
        highest: the highest token id of those that are left.
    """

    samples: int = 0
    long: int = 0
    dropped: int = 0
    shortest: int = 0
    longest: int = 0
    longest_where: str = ""
    highest: int = 0

    @property
    def truncated(self) -> int:
        """Samples that lost their end."""
        return self.long - self.dropped

    def demand(self, data: Data) -> None:
        """Refuse samples that are too long, as `overlong` says.

        Raises:
            WishError: samples are too long and the run refuses them, or none is left.
        """
        if data.overlong == "refuse" and self.long:
            raise WishError(
                f"{self.long} of {self.samples} samples are longer than data.max_length {data.max_length}; the "
                f"longest has {self.longest} tokens ({self.longest_where})",
                f"set data.max_length to {self.longest} or more, or data.overlong to `drop` or `truncate`",
            )
        if self.samples and self.dropped == self.samples:
            raise WishError(
                f"all {self.samples} samples are longer than data.max_length {data.max_length} and dropped",
                f"raise data.max_length (the shortest has {self.shortest} tokens)",
            )


class Draft:
    """Takes the samples of one source and split, in their order.

    Args:
        folder: where its arrays are written, as files whose names begin with `name`; None: they stay in memory.
        texts: whether the texts are kept beside the tokens.
        classes: whether tokens stand for classes, which are kept beside them.
    """

    def __init__(
        self, data: Data, folder: Path | None, name: str, *, texts: bool, classes: bool = False
    ) -> None:
        def column(part: str, dtype: Any) -> Column:
            return Column(dtype, folder and folder / f"{name}.{part}.npy")

        self.tally = Tally()
        self._name = name
        self._limit = data.max_length
        self._overlong = data.overlong
        self._tokens, self._trained = column("tokens", np.int32), column("trained", bool)
        self._offsets, self._sums = column("offsets", np.int64), column("sums", np.int64)
        self._truncated = column("truncated", bool)
        self._ids, self._wheres = Texts(folder, f"{name}.ids"), Texts(folder, f"{name}.wheres")
        self._texts = Texts(folder, f"{name}.texts") if texts else None
        self._targets = column("targets", np.int32) if classes else None
        self._size = 0
        self._offsets.push(0)

    def add(self, sample: Sample, encoded: Encoded) -> None:
        """Take the next sample."""
        length, long = len(encoded), len(encoded) > self._limit
        self._count(sample, length)
        # Of a run that will be refused, the rest of the rows is looked at for their lengths alone.
        if long and self._overlong != "truncate":
            self.tally.dropped += self._overlong == "drop"
            return
        ids, trained = encoded.ids[: self._limit], encoded.trained[: self._limit]
        if self._targets is not None and encoded.targets is not None:
            self._targets.add(encoded.targets[: self._limit])
            if long and not trained.any():
                # A text's class is asked of its last token, which was cut off.
                trained = trained.copy()
                trained[-1] = True
        self.tally.highest = max(self.tally.highest, int(ids.max(initial=0)))
        self._size += len(ids)
        self._tokens.add(ids)
        self._trained.add(trained)
        self._offsets.push(self._size)
        self._sums.push(int(trained.sum()))
        self._truncated.push(long)
        self._ids.add(sample.id)
        self._wheres.add(sample.where)
        if self._texts:
            self._texts.add(sample.text)

    def close(self) -> dict[str, np.ndarray]:
        """The arrays by name; those in files are to be mapped instead."""
        columns = {
            "tokens": self._tokens,
            "trained": self._trained,
            "offsets": self._offsets,
            "sums": self._sums,
            "truncated": self._truncated,
        }
        if self._targets is not None:
            columns["targets"] = self._targets
        closed = {f"{self._name}.{part}": column.close() for part, column in columns.items()}
        for texts in filter(None, (self._ids, self._wheres, self._texts)):
            closed |= texts.close()
        return closed

    def _count(self, sample: Sample, length: int) -> None:
        tally = self.tally
        tally.shortest = min(tally.shortest, length) if tally.samples else length
        tally.samples += 1
        tally.long += length > self._limit
        if length > tally.longest:
            tally.longest, tally.longest_where = length, sample.where


def corpus(
    arrays: Mapping[str, np.ndarray], name: str, infill: Infill | None, limit: int, hold: object = None
) -> Corpus:
    """The corpus that a draft of this name has become."""
    offsets = arrays[f"{name}.offsets"]
    return Corpus(
        ids=Strings.among(arrays, f"{name}.ids"),
        wheres=Strings.among(arrays, f"{name}.wheres"),
        tokens=arrays[f"{name}.tokens"],
        trained=arrays[f"{name}.trained"],
        offsets=offsets,
        lengths=room(np.diff(offsets), limit) if infill else np.diff(offsets),
        truncated=arrays[f"{name}.truncated"],
        texts=Strings.among(arrays, f"{name}.texts") if infill else None,
        infill=infill,
        sums=arrays[f"{name}.sums"],
        targets=arrays.get(f"{name}.targets"),
        hold=hold,
    )
