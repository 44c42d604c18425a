"""The samples of one source as one flat array of tokens, so that millions of tokens cost four bytes each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.data import fim
from engine.data.batch import Encoded
from engine.data.tokenize import Encoder

# A cut inside a word costs a token or so at either border; a row needing more is cut between tokens instead.
_FIM_TOKENS = 3
_FIM_SLACK = 4


@dataclass(frozen=True, slots=True)
class Infill:
    """What fill-in-the-middle needs at the moment a sample is shown."""

    encoder: Encoder
    tokens: fim.Sentinels
    seed: int
    rate: float
    spm_rate: float


@dataclass(frozen=True, slots=True)
class Corpus:
    """Samples of one source: sample i is `tokens[offsets[i]:offsets[i + 1]]`.

    `lengths` is the room a sample takes in a row. It does not depend on the epoch, although a sample cut for
    fill-in-the-middle differs in tokens each time: so packing, and the number of rows of every epoch, are
    known without encoding anything. `texts` is kept for such samples only,
    `targets` where tokens stand for classes. `sums` are the trained tokens of each sample as it stands, where they are
    known already. Arrays may lie on disk, where `hold` keeps them: nothing here
    looks at all tokens.
    """

    ids: Sequence[str]
    wheres: Sequence[str]
    tokens: np.ndarray
    trained: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    truncated: np.ndarray
    texts: Sequence[str] | None
    infill: Infill | None
    sums: np.ndarray | None = None
    targets: np.ndarray | None = None
    hold: object = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def trained_counts(self) -> np.ndarray:
        """The most trained tokens each sample can have, int64: code that is cut trains all but its beginning."""
        return self.lengths - 1 if self.infill is not None else self.plain_counts

    @property
    def plain_counts(self) -> np.ndarray:
        """Trained tokens of each sample as it stands in its file, int64."""
        if self.sums is not None:
            return self.sums
        if not len(self):
            return np.empty(0, dtype=np.int64)
        return np.add.reduceat(self.trained, self.offsets[:-1], dtype=np.int64)

    def plain(self, row: int) -> Encoded:
        """A sample as it stands in its file, left to right."""
        part = slice(self.offsets[row], self.offsets[row + 1])
        targets = None if self.targets is None else self.targets[part]
        return Encoded(self.ids[row], self.tokens[part], self.trained[part], targets)

    def sample(self, row: int, seen: int) -> Encoded:
        """A sample as it is shown for the `seen`-th time: code may be cut, differently each time."""
        if self.infill is None or self.texts is None:
            return self.plain(row)
        plain = self.plain(row)
        how = self.infill
        layout = fim.layout_of(how.seed, seen, plain.id, rate=how.rate, spm_rate=how.spm_rate)
        if layout is None:
            return plain
        whole = None if self.truncated[row] else self._cut_text(self.texts[row], plain.id, seen, layout)
        if whole is None or len(whole) > self.lengths[row]:
            whole = self._cut_tokens(
                plain, int(self.lengths[row]), seen, layout, cut_off=bool(self.truncated[row])
            )
        if whole is None:
            return plain
        trained = np.ones(len(whole), dtype=bool)
        trained[: max(1, len(how.encoder.opening))] = False
        return Encoded(plain.id, whole, trained)

    def _cut_text(self, text: str, sample_id: str, seen: int, layout: fim.Layout) -> np.ndarray:
        """Cut between characters: what the model meets when a cursor stands inside a word."""
        assert self.infill is not None
        encoder = self.infill.encoder
        cut = fim.cut(text, layout, fim.borders(self.infill.seed, seen, sample_id, len(text)))
        prefix = encoder.ids([cut.prefix])[0]
        middle, suffix = encoder.continuations([cut.middle, cut.suffix])
        return np.concatenate(
            [encoder.opening, fim.join(layout, (prefix, middle, suffix), self.infill.tokens)]
        )

    def _cut_tokens(
        self, plain: Encoded, room: int, seen: int, layout: fim.Layout, *, cut_off: bool
    ) -> np.ndarray | None:
        """Cut between tokens, which never takes more than the sentinels; None where even those do not fit."""
        assert self.infill is not None
        opening = self.infill.encoder.opening
        body = plain.ids[len(opening) :] if cut_off else plain.ids[len(opening) : -1]
        space = room - len(opening) - _FIM_TOKENS - 1
        if len(body) > space and not cut_off:
            return None
        body = body[:space]
        first, second = fim.borders(self.infill.seed, seen, plain.id, len(body))
        parts = (body[:first], body[first:second], body[second:])
        return np.concatenate([opening, fim.join(layout, parts, self.infill.tokens)])


def room(lengths: np.ndarray, limit: int) -> np.ndarray:
    """Room that samples of these lengths take in a row once they are cut."""
    return np.minimum(lengths + _FIM_TOKENS + _FIM_SLACK, limit)
