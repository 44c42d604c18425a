"""The samples of one source as one flat array of tokens, so that millions of tokens cost four bytes each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from engine.config import Data
from engine.data import fim
from engine.data.batch import Encoded
from engine.data.formats import Sample
from engine.data.tokenize import Encoder
from engine.errors import WishError

_CHUNK = 512

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
class Counts:
    """What became of a source's rows on the way to tokens."""

    dropped: int
    truncated: int
    longest: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """Samples of one source: sample i is `tokens[offsets[i]:offsets[i + 1]]`.

    `lengths` is the room a sample takes in a row. It does not depend on the epoch, although a sample cut for
    fill-in-the-middle differs in tokens each time: so packing, and the number of rows of every epoch, are
    known without encoding anything. `texts` is kept for such samples only.
    """

    ids: tuple[str, ...]
    wheres: tuple[str, ...]
    tokens: np.ndarray
    trained: np.ndarray
    offsets: np.ndarray
    lengths: np.ndarray
    truncated: np.ndarray
    texts: tuple[str, ...] | None
    infill: Infill | None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def trained_counts(self) -> np.ndarray:
        """The most trained tokens each sample can have, int64: code that is cut trains all but its beginning."""
        if not len(self):
            return np.empty(0, dtype=np.int64)
        if self.infill is not None:
            return self.lengths - 1
        return np.add.reduceat(self.trained, self.offsets[:-1], dtype=np.int64)

    def plain(self, row: int) -> Encoded:
        """A sample as it stands in its file, left to right."""
        part = slice(self.offsets[row], self.offsets[row + 1])
        return Encoded(self.ids[row], self.tokens[part], self.trained[part])

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


def build(
    samples: Sequence[Sample], encoder: Encoder, data: Data, infill: Infill | None
) -> tuple[Corpus, Counts]:
    """Encode samples and hold them to `max_length`, as `overlong` says.

    Raises:
        WishError: samples are too long and the run refuses them, or none is left.
    """
    encoded = list(encode(samples, encoder, data.processes))
    lengths = np.array([len(each) for each in encoded], dtype=np.int64)
    long = lengths > data.max_length
    if data.overlong == "refuse" and long.any():
        _refuse_overlong(samples, lengths, data.max_length)
    kept = [at for at in range(len(encoded)) if data.overlong != "drop" or not long[at]]
    if encoded and not kept:
        raise WishError(
            f"all {len(encoded)} samples are longer than data.max_length {data.max_length} and dropped",
            f"raise data.max_length (the shortest has {lengths.min()} tokens)",
        )
    corpus = _flat([samples[at] for at in kept], [encoded[at] for at in kept], long[kept], data, infill)
    dropped = len(encoded) - len(kept)
    return corpus, Counts(dropped, int(long.sum()) - dropped, int(lengths.max(initial=0)))


def _flat(
    samples: Sequence[Sample], parts: Sequence[Encoded], long: np.ndarray, data: Data, infill: Infill | None
) -> Corpus:
    """Samples and their tokens, cut to `max_length`, as one array."""
    limit = data.max_length
    offsets = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum([min(len(part), limit) for part in parts], out=offsets[1:])
    room = np.diff(offsets)
    if infill is not None:
        room = np.minimum(room + _FIM_TOKENS + _FIM_SLACK, limit)
    texts = tuple(sample.text for sample in samples) if infill is not None else None
    return Corpus(
        ids=tuple(sample.id for sample in samples),
        wheres=tuple(sample.where for sample in samples),
        tokens=np.concatenate([np.empty(0, dtype=np.int32), *(part.ids[:limit] for part in parts)]),
        trained=np.concatenate([np.empty(0, dtype=bool), *(part.trained[:limit] for part in parts)]),
        offsets=offsets,
        lengths=room,
        truncated=long.astype(bool),
        texts=texts,
        infill=infill,
    )


def encode(samples: Sequence[Sample], encoder: Encoder, processes: int) -> Iterator[Encoded]:
    """Encode samples in their order, in chunks, over worker processes where more than one is asked for."""
    chunks = [samples[start : start + _CHUNK] for start in range(0, len(samples), _CHUNK)]
    if processes == 1 or len(chunks) < 2:
        for chunk in chunks:
            yield from encoder.encode(chunk)
        return
    # Spawned, not forked: the parent may hold threads of torch and of the tokenizer.
    with ProcessPoolExecutor(
        min(processes, len(chunks)), get_context("spawn"), initializer=_adopt, initargs=(encoder,)
    ) as pool:
        for part in pool.map(_encode, chunks):
            yield from part


_worker_encoder: Encoder | None = None


def _adopt(encoder: Encoder) -> None:
    """Keep the encoder in a worker, so that it travels once and not with every chunk."""
    global _worker_encoder
    _worker_encoder = encoder


def _encode(chunk: Sequence[Sample]) -> list[Encoded]:
    assert _worker_encoder is not None
    return _worker_encoder.encode(chunk)


def _refuse_overlong(samples: Sequence[Sample], lengths: np.ndarray, limit: int) -> None:
    worst = int(lengths.argmax())
    count = int((lengths > limit).sum())
    raise WishError(
        f"{count} of {len(samples)} samples are longer than data.max_length {limit}; the longest has "
        f"{lengths[worst]} tokens ({samples[worst].where})",
        f"set data.max_length to {lengths[worst]} or more, or data.overlong to `drop` or `truncate`",
    )
