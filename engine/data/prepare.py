"""From a run's wish to its training stream: read, encode, check, count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.config import Data, Run, Source
from engine.data import audit as facts_of
from engine.data import checks, corpus, decontaminate, fim, sources
from engine.data.batch import Batch
from engine.data.corpus import Corpus, Infill
from engine.data.formats import Document, Sample, samples
from engine.data.loader import Loader, Share, validation_batches
from engine.data.order import split_of
from engine.data.tokenize import Encoder
from engine.data.tokenizer import apply_template
from engine.errors import WishError


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything the loop needs of the data, and what there is to say about it."""

    train: Loader
    validation: list[Batch] | None
    facts: dict[str, Any]
    corpora: tuple[Corpus, ...]


@dataclass(frozen=True, slots=True)
class _Read:
    """A source's samples by split, before they are tokens."""

    format: str
    files: dict[str, str]
    splits: dict[str, list[Sample]]


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
    """Read, encode and check a run's data. Every rank does so by itself and comes to the same stream.

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
    encoder = Encoder(tokenizer, mask_prompt=data.mask_prompt)
    read = _read_all(run, has_template=bool(tokenizer.chat_template))
    contamination, compared = _decontaminated(read, data, benchmark_texts)
    train, counts = _encode(
        [each.splits["train"] for each in read[: len(data.train)]], encoder, run, tokenizer
    )
    held, _ = _encode([each.splits["validation"] for each in read], encoder, run, tokenizer)
    for part in (train, held):
        checks.one_beginning(part, tokenizer)
        checks.tokens_known(part, model_vocabulary)
    checks.every_sample_trains(train, data)
    pad = facts_of.pad_id(tokenizer)
    loader = Loader(train, run, share, pad_id=pad)
    validation = validation_batches(held, run, share, pad_id=pad) if any(map(len, held)) else None
    facts = {
        "sources": _source_facts(read, data),
        "train": facts_of.corpus_facts(train)
        | {"dropped": sum(c.dropped for c in counts), "truncated": sum(c.truncated for c in counts)},
        "validation": facts_of.corpus_facts(held) if validation else None,
        "test_rows_set_aside": sum(len(each.splits["test"]) for each in read),
        **facts_of.text_facts(_of_split(read, "train"), _of_split(read, "validation"), tokenizer),
        **facts_of.packing_facts(loader, data.max_length),
        "fim": next((part.infill.tokens.family for part in train if part.infill), None),
        **facts_of.ending_facts(tokenizer),
        "decontamination": contamination,
        "decontamination_counts": compared,
    }
    return Prepared(loader, validation, facts, tuple(train))


def _source_facts(read: Sequence[_Read], data: Data) -> list[dict[str, Any]]:
    """Each source with its format, rows and the hashes of its files."""
    sources_read = zip((*data.train, *data.validation), read, strict=True)
    return [
        {
            "path": source.path,
            "format": each.format,
            "rows": sum(map(len, each.splits.values())),
            "sha256": each.files,
        }
        for source, each in sources_read
    ]


def _of_split(read: Sequence[_Read], split: str) -> Iterator[Sample]:
    for each in read:
        yield from each.splits[split]


def _read_all(run: Run, *, has_template: bool) -> list[_Read]:
    """Training sources, then validation sources, each cut into its splits; ids unique over all of them."""
    assert run.data is not None
    data, taken = run.data, set[str]()
    read = []
    for index, source in enumerate((*data.train, *data.validation)):
        table = sources.read(source)
        if any(row.id in taken for row in table.rows):
            rows = [
                sources.Row(f"{source.path}#{index}/{row.id}", row.where, row.fields) for row in table.rows
            ]
            table = sources.Table(rows, table.files)
        taken.update(row.id for row in table.rows)
        name, found = samples(table.rows, source, has_template=has_template)
        splits: dict[str, list[Sample]] = {"train": [], "validation": [], "test": []}
        given = index >= len(data.train)
        for sample in found:
            splits["validation" if given else _split(sample, run)].append(sample)
        if not given and not splits["train"]:
            _refuse_empty_split("train", source, len(found), data)
        read.append(_Read(name, table.files, splits))
    if (
        data.validation_fraction
        and not data.validation
        and not any(each.splits["validation"] for each in read)
    ):
        _refuse_empty_split(
            "validation", data.train[0], sum(len(each.splits["train"]) for each in read), data
        )
    return read


def _split(sample: Sample, run: Run) -> str:
    """The split of a training source's row; validation rows are cut only if no validation source is given."""
    assert run.data is not None
    validation = 0.0 if run.data.validation else run.data.validation_fraction
    return split_of(sample.id, seed=run.seed, validation=validation, test=run.data.test_fraction)


def _refuse_empty_split(split: str, source: Source, rows: int, data: Data) -> None:
    raise WishError(
        f"no row is left for {split}: {source.path} has {rows} rows, of which {data.validation_fraction:.1%} "
        f"are set aside for validation and {data.test_fraction:.1%} for test",
        "change `data.validation_fraction` and `data.test_fraction`, or give more rows",
    )


def _encode(
    parts: Sequence[list[Sample]], encoder: Encoder, run: Run, tokenizer: Any
) -> tuple[list[Corpus], list[corpus.Counts]]:
    """Corpora of the parts, in their order; sentinels are looked for only where code is to be cut."""
    assert run.data is not None
    corpora, counts = [], []
    for part in parts:
        code = bool(part) and isinstance(part[0], Document) and part[0].code
        infill = None
        if code and run.data.fim.rate:
            wish = run.data.fim
            infill = Infill(encoder, fim.sentinels(tokenizer), run.seed, wish.rate, wish.spm_rate)
        built, count = corpus.build(part, encoder, run.data, infill)
        corpora.append(built)
        counts.append(count)
    return corpora, counts


def _decontaminated(
    read: Sequence[_Read], data: Data, texts: decontaminate.Texts | None
) -> tuple[str, dict[str, int] | None]:
    """Compare the training rows with held-out tasks; the line for the report, and its numbers."""
    if not data.decontaminate:
        return "off: no training row was compared with any benchmark", None
    if not texts:
        return "no held-out task was given to compare with", None
    rows = ((sample.id, sample.text) for sample in _of_split(read, "train"))
    report = decontaminate.compare(rows, texts)
    decontaminate.refuse(report)
    return report.line, report.counts()
