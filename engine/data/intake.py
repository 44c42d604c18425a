"""All rows of a run read from their sources to tokens, row by row: what is then known of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import Data, Run, Source
from engine.data import audit, draft, fim, formats
from engine.data.columns import Column
from engine.data.corpus import Corpus, Infill
from engine.data.decontaminate import Comparison, Report
from engine.data.draft import Draft, Tally
from engine.data.examiner import Asked, Examiner, examine
from engine.data.naming import Names, Register
from engine.data.order import Split, split_of
from engine.data.sources import Stream
from engine.data.tokenize import Encoder
from engine.errors import WishError

SPLITS: tuple[Split, ...] = ("train", "validation")
"""The splits that become tokens, in the order of their corpora."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A source as its rows are read.

    Attributes:
        format: what its rows are.
        names: what they are called.
        given: whether all of them are for validation.
    """

    format: str
    names: Names
    given: bool


@dataclass(frozen=True, slots=True)
class Taken:
    """What is known of all rows: arrays by name, and the rest as values that JSON can hold. `hold` lives as long as
    arrays on disk are to stay there."""

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]
    hold: object = None

    def entries(self) -> list[Entry]:
        """The sources, as they were read."""
        return [
            Entry(each["format"], Names(**each["names"]), each["given"]) for each in self.facts["sources"]
        ]

    def tallies(self, split: Split) -> list[Tally]:
        """What became of the samples of a split, by source."""
        return [Tally(**each["tallies"][split]) for each in self.facts["sources"]]

    def corpora(self, split: Split, data: Data, infill: Infill | None) -> list[Corpus]:
        """The corpora of a split by source; of training sources only, where that is the split."""
        return [
            draft.corpus(
                self.arrays,
                _name(index, split),
                infill if each.format == "code" and data.fim.rate else None,
                data.max_length,
                self.hold,
            )
            for index, each in enumerate(self.entries())
            if not (each.given and split == "train")
        ]


class Intake:
    """Reads the sources of a run."""

    def __init__(self, run: Run, streams: Sequence[Stream], tokenizer: Any) -> None:
        assert run.data is not None
        self._run, self._data, self._streams = run, run.data, streams
        self._tokenizer = tokenizer

    def take(
        self, encoder: Encoder, comparison: Comparison | None, folder: Path | None
    ) -> tuple[Taken, Report | None]:
        """Read all rows twice, first for their names alone, and encode them.

        Args:
            folder: where arrays are written; they are then in files there, and none is returned.

        Raises:
            WishError: a row cannot be read or encoded, or a split has none.
        """
        entries = self._enter()
        code = [entry.format == "code" and bool(self._data.fim.rate) for entry in entries]
        if any(code):
            fim.sentinels(self._tokenizer)
        drafts = [
            Draft(
                self._data,
                folder,
                _name(index, split),
                texts=code[index],
                classes=self._run.model.head != "language",
            )
            for index in range(len(entries))
            for split in SPLITS
        ]
        counts = [Counter[Split]() for _ in entries]
        digests = {trained: Column(np.uint64, None) for trained in (True, False)}
        spelling, report = 0, comparison.look(()) if comparison else None
        examiner = Examiner(self._tokenizer, encoder, comparison)
        for seen in examine(self._rows(entries, counts), examiner, self._data.processes):
            chunk, mask = seen.chunk, np.array(seen.chunk.trained)
            for sample, encoded, corpus in zip(chunk.samples, seen.encoded, chunk.corpora, strict=True):
                drafts[corpus].add(sample, encoded)
            for trained, column in digests.items():
                column.add(seen.digests[mask == trained])
            spelling += seen.spelling
            report = report + seen.report if report and seen.report else report
        self._demand_rows(counts)
        arrays = {name: array for each in drafts for name, array in each.close().items()}
        texts = audit.text_facts(digests[True].close(), digests[False].close(), spelling)
        return Taken(arrays, {"sources": _told(entries, counts, drafts), "texts": texts}), report

    def compare(self, entries: Sequence[Entry], comparison: Comparison) -> Report:
        """Compare the training rows with held-out texts, and encode nothing."""
        report = comparison.look(())
        rows = self._rows(entries, [Counter() for _ in entries])
        for seen in examine(rows, Examiner(self._tokenizer, None, comparison), self._data.processes):
            report = report + seen.report if seen.report else report
        return report

    def _enter(self) -> list[Entry]:
        """Each source's names and format, by a look at its rows."""
        register, entries = Register(), []
        for index, stream in enumerate(self._streams):
            names, first = register.enter(stream, index)
            given = index >= len(self._data.train)
            entries.append(Entry(formats.named(first, stream.source, self._run.model.head), names, given))
        return entries

    def _rows(self, entries: Sequence[Entry], counts: list[Counter[Split]]) -> Iterator[Asked]:
        """Rows that are trained or held back for validation; all of them are counted by split."""
        has_template = bool(self._tokenizer.chat_template)
        for index, (stream, entry) in enumerate(zip(self._streams, entries, strict=True)):
            for row in stream.rows():
                sample = formats.sample(
                    entry.names.of(row), stream.source, entry.format, has_template=has_template
                )
                split = "validation" if entry.given else self._split(sample.id)
                counts[index][split] += 1
                if split in SPLITS:
                    yield sample, split == "train", index * len(SPLITS) + SPLITS.index(split)

    def _split(self, name: str) -> Split:
        """The split of a training source's row; validation rows are cut only if no validation source is given."""
        validation = 0.0 if self._data.validation else self._data.validation_fraction
        return split_of(name, seed=self._run.seed, validation=validation, test=self._data.test_fraction)

    def _demand_rows(self, counts: Sequence[Counter[Split]]) -> None:
        data = self._data
        for source, count in zip(data.train, counts, strict=False):
            if not count["train"]:
                _refuse_empty_split("train", source, count.total(), data)
        if (
            data.validation_fraction
            and not data.validation
            and not any(each["validation"] for each in counts)
        ):
            _refuse_empty_split("validation", data.train[0], sum(each["train"] for each in counts), data)


def _told(
    entries: Sequence[Entry], counts: Sequence[Counter[Split]], drafts: Sequence[Draft]
) -> list[dict[str, Any]]:
    """The sources in plain values, as `Taken` reads them."""
    return [
        {
            "format": entry.format,
            "names": asdict(entry.names),
            "given": entry.given,
            "rows": count.total(),
            "test": count["test"],
            "tallies": {
                split: asdict(drafts[index * len(SPLITS) + at].tally) for at, split in enumerate(SPLITS)
            },
        }
        for index, (entry, count) in enumerate(zip(entries, counts, strict=True))
    ]


def _name(source: int, split: Split) -> str:
    return f"{source}.{split}"


def _refuse_empty_split(split: Split, source: Source, rows: int, data: Data) -> None:
    raise WishError(
        f"no row is left for {split}: {source.path} has {rows} rows, of which {data.validation_fraction:.1%} "
        f"are set aside for validation and {data.test_fraction:.1%} for test",
        "change `data.validation_fraction` and `data.test_fraction`, or give more rows",
    )
