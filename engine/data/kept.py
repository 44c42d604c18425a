"""A run's rows as tokens: as they were kept by an earlier start or another rank, else from their sources."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.config import Data, Run
from engine.data import cache, checks, decontaminate, fingerprint
from engine.data.cache import Cache
from engine.data.columns import mapped
from engine.data.decontaminate import Comparison, Copy, Overlap, Report, Texts
from engine.data.fingerprint import Content
from engine.data.intake import SPLITS, Intake, Taken
from engine.data.sources import Stream
from engine.data.tokenize import Encoder

VARIABLE = "TEMPER_CACHE"
"""Names this machine's folder for what can be made again."""

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Rows:
    """All rows of a run, encoded and found good.

    Attributes:
        report: what training rows have in common with held-out texts; None where none were given.
        hashes: SHA-256 of the files, by source.
        told: where they come from, for a person.
    """

    taken: Taken
    report: Report | None
    hashes: tuple[dict[str, str], ...]
    told: str


class Rowkeeper:
    """Gets a run's rows, from the cache where it may."""

    def __init__(self, run: Run, streams: Sequence[Stream], tokenizer: Any, texts: Texts | None) -> None:
        assert run.data is not None
        self._run, self._data, self._streams, self._tokenizer = run, run.data, streams, tokenizer
        self._texts = texts if run.data.decontaminate else None
        self._intake = Intake(run, streams, tokenizer)
        self._encoder = Encoder(tokenizer, mask_prompt=run.data.mask_prompt, labels=run.model.labels)

    def rows(self) -> Rows:
        """All rows.

        Raises:
            WishError: they cannot be had, or training on them would learn nothing or the wrong thing.
        """
        found = fingerprint.content(self._streams)
        folder = place(self._data)
        why = "data.cache is none" if folder is None else fingerprint.unkept(self._tokenizer, self._streams)
        if folder is None or why:
            return self._unkept(found, f"encoded, and not kept ({why})")
        try:
            return self._kept(found, folder)
        except OSError as error:
            cache.warn(folder, error)
            return self._unkept(found, f"encoded, and not kept in {folder}")

    def _kept(self, found: Content, folder: Path) -> Rows:
        kept = Cache(folder, limit_bytes=int(self._data.cache_gib * _GIB))
        key = fingerprint.rows_key(self._run, self._streams, found, self._tokenizer)
        reports: list[Report | None] = []

        def build(partial: Path) -> Mapping[str, Any]:
            taken, report = self._take(found, partial)
            reports.append(report)
            return taken.facts

        entry = kept.fetch(key, build)
        told = f"{'encoded, and kept in' if entry.built else 'kept in'} {entry.folder}"
        taken = Taken(entry.arrays, entry.facts, entry.hold)
        report = None
        if self._texts:
            name = f"compared-{fingerprint.texts_key(self._texts)}"
            noted = kept.noted(entry, name)
            report = reports[0] if reports else _report(noted) if noted else self._compare(taken)
            if report and not noted:
                kept.note(entry, name, asdict(report))
            if report:
                decontaminate.refuse(report)
        return Rows(taken, report, found.hashes, told)

    def _unkept(self, found: Content, told: str) -> Rows:
        taken, report = self._take(found, None)
        return Rows(taken, report, found.hashes, told)

    def _compare(self, taken: Taken) -> Report:
        assert self._texts is not None
        return self._intake.compare(taken.entries(), Comparison(self._texts))

    def _take(self, found: Content, folder: Path | None) -> tuple[Taken, Report | None]:
        """Encode all rows and hold them to everything that they alone decide."""
        comparison = Comparison(self._texts) if self._texts else None
        taken, report = self._intake.take(self._encoder, comparison, folder)
        found.demand_unchanged(self._streams)
        if report:
            decontaminate.refuse(report)
        for split in SPLITS:
            for tally in taken.tallies(split):
                tally.demand(self._data)
        whole = (
            Taken({file.stem: mapped(file) for file in folder.glob("*.npy")}, taken.facts)
            if folder
            else taken
        )
        train, held = (whole.corpora(split, self._data, None) for split in SPLITS)
        for part in (train, held):
            checks.one_beginning(part, self._tokenizer)
        checks.every_sample_trains(train, self._data)
        return taken, report


def place(data: Data) -> Path | None:
    """The folder of kept rows; None where none are to be kept."""
    if data.cache == "none":
        return None
    if data.cache != "auto":
        return Path(data.cache).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(VARIABLE) or Path(caches, "temper"), "rows")


def _report(noted: Mapping[str, Any]) -> Report:
    """A report as it was noted."""
    return Report(
        noted["rows"],
        noted["tasks"],
        tuple(Overlap(**each) for each in noted["overlaps"]),
        noted["functions"],
        noted["references"],
        tuple(Copy(**each) for each in noted["copies"]),
    )
