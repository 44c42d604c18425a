"""What a look at all training rows tells beyond their tokens: copies, secrets, personal data, languages, licences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.config import Data
from engine.data import duplicates, languages, licences, privacy, sources
from engine.data.corpus import Corpus
from engine.data.formats import Sample, samples
from engine.data.sources import Row

SHOWN = 5
"""Places named for each finding; the counts are of all."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found: facts by concern, and the concerns that a person should look at."""

    facts: dict[str, Any]
    findings: tuple[str, ...]


def read(data: Data, *, has_template: bool, head: str) -> list[tuple[Row, Sample]]:
    """Every row of the training sources, with the sample it becomes."""
    read_rows: list[tuple[Row, Sample]] = []
    for source in data.train:
        rows = sources.read(source).rows
        read_rows += zip(rows, samples(rows, source, has_template=has_template, head=head)[1], strict=True)
    return read_rows


def survey(rows: Sequence[tuple[Row, Sample]], corpora: Sequence[Corpus]) -> Survey:
    """Look at the rows of the training sources, and at the tokens that training would see.

    Values of secrets and personal data are in nothing that this returns.
    """
    copies = duplicates.find([(row.where, sample.text) for row, sample in rows])
    masks = _masks(corpora)
    facts = {
        "duplicates": {
            "exact_rows": copies.exact_rows,
            "near_rows": copies.near_rows,
            "exact_groups": [list(group[:SHOWN]) for group in copies.exact[:SHOWN]],
            "near_groups": [list(group[:SHOWN]) for group in copies.near[:SHOWN]],
        },
        **_private(row for row, _ in rows),
        "lengths": _lengths(corpora),
        "languages": languages.count((row.fields, sample.text) for row, sample in rows),
        "licences": licences.count(row.fields for row, _ in rows),
        "masks": masks,
    }
    counts = {
        "exact duplicates": copies.exact_rows,
        "near duplicates": copies.near_rows,
        "secrets": len(facts["secrets"]),
        "personal data": len(facts["personal_data"]),
        "rows that train nothing": masks["rows_without_trained_tokens"],
    }
    findings = tuple(name for name, count in counts.items() if count)
    return Survey({**facts, "findings": list(findings)}, findings)


def _private(rows: Iterator[Row]) -> dict[str, dict[str, Any]]:
    """Secrets and personal data by rule: how many, in how many rows, and where the first ones are."""
    found: dict[str, dict[str, Any]] = {"secrets": {}, "personal_data": {}}
    for row in rows:
        for text in _texts(row.fields):
            for finding in privacy.find(text):
                kind = "secrets" if finding.rule.kind == "secret" else "personal_data"
                told = found[kind].setdefault(
                    finding.rule.name, {"count": 0, "rows": 0, "places": [], "last": ""}
                )
                told["count"] += 1
                if told["last"] != row.where:
                    told["last"] = row.where
                    told["rows"] += 1
                    told["places"] += [row.where] if len(told["places"]) < SHOWN else []
    for rules in found.values():
        for told in rules.values():
            del told["last"]
    return found


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _lengths(corpora: Sequence[Corpus]) -> dict[str, int]:
    """Tokens of a sample: the shortest, the middle one, the one that 5 % exceed, the longest."""
    lengths = np.concatenate([np.diff(corpus.offsets) for corpus in corpora])
    at = {"min": 0, "median": 50, "p95": 95, "max": 100}
    return {name: int(np.percentile(lengths, percent).round()) for name, percent in at.items()}


def _masks(corpora: Sequence[Corpus]) -> dict[str, Any]:
    """The share of tokens that are trained, and the rows without any."""
    tokens = sum(len(corpus.tokens) for corpus in corpora)
    trained = sum(int(corpus.plain_counts.sum()) for corpus in corpora)
    idle = sum(int((corpus.plain_counts == 0).sum()) for corpus in corpora)
    return {"trained_share": round(trained / max(tokens, 1), 4), "rows_without_trained_tokens": idle}
