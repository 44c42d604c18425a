"""From a run's wish to its training stream: read, encode, check, count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.config import Data, Run
from engine.data import audit as facts_of
from engine.data import checks, decontaminate, fim, sources
from engine.data.corpus import Corpus, Infill
from engine.data.kept import Rowkeeper, Rows
from engine.data.loader import Loader, Share, Validation
from engine.data.sources import Stream
from engine.data.tokenize import Encoder
from engine.data.tokenizer import apply_template
from engine.errors import WishError


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything the loop needs of the data, and what there is to say about it.

    Attributes:
        origin: where the tokens come from, for a person: it changes from start to start, unlike the facts.
    """

    train: Loader
    validation: Validation | None
    facts: dict[str, Any]
    corpora: tuple[Corpus, ...]
    origin: str = ""

    def join(self, joined: bool) -> None:
        """Lay the rows of each micro-batch into one, or not (see `Loader.joined`)."""
        self.train.joined = joined
        if self.validation is not None:
            self.validation.joined = joined


def prepare(
    run: Run,
    tokenizer: Any,
    *,
    rank: int = 0,
    world_size: int = 1,
    sequence: int = 1,
    benchmark_texts: decontaminate.Texts | None = None,
    model_vocabulary: int | None = None,
) -> Prepared:
    """Get a run's rows as tokens, and check them. Every rank does so by itself and comes to the same stream; of the
    ranks that share a cache (`data.cache`), one encodes.

    Args:
        sequence: ranks that share each row.
        benchmark_texts: held-out texts, by task id or as a list, that no training row may hold; None: none.
        model_vocabulary: rows of the model's embedding; None: not checked.

    Raises:
        WishError: the data cannot be had, or training on it would learn nothing or the wrong thing.
    """
    if run.data is None:
        raise WishError("the run has no `data`", "add a `data` section with at least one training source")
    data = run.data
    share = Share(rank, world_size, run.train.global_batch, run.train.micro_batch, sequence)
    apply_template(tokenizer, run)
    streams = [sources.stream(source) for source in (*data.train, *data.validation)]
    rows = Rowkeeper(run, streams, tokenizer, benchmark_texts).rows()
    taken, infill = rows.taken, _infill(run, tokenizer, rows)
    tallies = [tally for split in ("train", "validation") for tally in taken.tallies(split)]
    checks.tokens_known(max(tally.highest for tally in tallies), model_vocabulary)
    train, held = taken.corpora("train", data, infill), taken.corpora("validation", data, infill)
    pad = facts_of.pad_id(tokenizer)
    loader = Loader(train, run, share, pad_id=pad)
    validation = Validation(held, run, share, pad_id=pad) if any(map(len, held)) else None
    counts = taken.tallies("train")
    facts = {
        "sources": _source_facts(rows, streams),
        "train": facts_of.corpus_facts(train)
        | {"dropped": sum(c.dropped for c in counts), "truncated": sum(c.truncated for c in counts)},
        "validation": facts_of.corpus_facts(held) if validation else None,
        "test_rows_set_aside": sum(each["test"] for each in taken.facts["sources"]),
        **taken.facts["texts"],
        **facts_of.packing_facts(loader, data.max_length),
        "fim": next((part.infill.tokens.family for part in train if part.infill), None),
        **facts_of.ending_facts(tokenizer),
        **_contamination(rows, data),
    }
    return Prepared(loader, validation, facts, tuple(train), rows.told)


def _infill(run: Run, tokenizer: Any, rows: Rows) -> Infill | None:
    """What cuts code; sentinels are looked for only where code is to be cut."""
    assert run.data is not None
    wish = run.data.fim
    if not wish.rate or all(entry.format != "code" for entry in rows.taken.entries()):
        return None
    encoder = Encoder(tokenizer, mask_prompt=run.data.mask_prompt)
    return Infill(encoder, fim.sentinels(tokenizer), run.seed, wish.rate, wish.spm_rate)


def _source_facts(rows: Rows, streams: Sequence[Stream]) -> list[dict[str, Any]]:
    """Each source with its format, rows and the hashes of its files."""
    return [
        {
            "path": stream.source.path,
            "format": each["format"],
            "rows": each["rows"],
            "sha256": hashes if stream.local else {},
        }
        for stream, each, hashes in zip(streams, rows.taken.facts["sources"], rows.hashes, strict=True)
    ]


def _contamination(rows: Rows, data: Data) -> dict[str, Any]:
    """The line about held-out tasks for the report, and its numbers."""
    if not data.decontaminate:
        line = "off: no training row was compared with any benchmark"
    elif rows.report is None:
        line = "no held-out task was given to compare with"
    else:
        return {"decontamination": rows.report.line, "decontamination_counts": rows.report.counts()}
    return {"decontamination": line, "decontamination_counts": None}
