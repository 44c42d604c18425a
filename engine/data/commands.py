"""The `data` verbs: look at what a run will learn from, before it does."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine.errors import WishError

if TYPE_CHECKING:
    from engine.config import Run
    from engine.data.prepare import Prepared

_run_file = click.argument("run_file", metavar="RUN.yaml")
_overrides = click.option(
    "--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override a value of the run."
)


@click.group()
def data() -> None:
    """Look at a run's data: trained tokens, lengths, packing."""


@data.command()
@_run_file
@_overrides
@click.option("--samples", default=3, show_default=True, help="Samples to show.")
@click.option("--color/--no-color", default=None, help="Mark trained tokens by colour, or by brackets.")
def show(run_file: str, overrides: tuple[str, ...], samples: int, color: bool | None) -> None:
    """Show samples as the model reads them, and which of their tokens are trained."""
    from engine.data.show import show_samples

    prepared, tokenizer, _ = _prepared(run_file, overrides)
    colored = sys.stdout.isatty() if color is None else color
    click.echo(show_samples(prepared.train, tokenizer, samples, color=colored), color=colored)
    click.echo()
    click.echo(_lines(prepared.facts))


@data.command()
@_run_file
@_overrides
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
@click.option("--strict", is_flag=True, help="End with exit code 2 where anything is found.")
@click.option(
    "--redact",
    "redacted",
    type=click.Path(path_type=Path),
    metavar="OUT.jsonl",
    help="Write the training rows with marks in place of secrets and personal data.",
)
def check(
    run_file: str, overrides: tuple[str, ...], as_json: bool, strict: bool, redacted: Path | None
) -> None:
    """Read, encode and check all rows as training would; exit code 2 and the reason where it would refuse.

    Then look for duplicates, secrets and personal data (rules and places, never the values), and count lengths,
    languages, licences and masks.
    """
    from engine.data import redaction
    from engine.data.survey import read, survey

    prepared, tokenizer, run = _prepared(run_file, overrides)
    assert run.data is not None
    if redacted is not None:
        redaction.demand_new(redacted, run.data.train)
    rows = read(run.data, has_template=bool(tokenizer.chat_template), head=run.model.head)
    found = survey(rows, prepared.corpora)
    facts = prepared.facts | found.facts
    if redacted is not None:
        changed = redaction.write(redacted, [row for row, _ in rows])
        facts["redacted"] = {"file": str(redacted), "rows": len(rows), "rows_changed": changed}
    click.echo(json.dumps(facts, indent=1) if as_json else _lines(facts))
    if strict and found.findings:
        raise WishError(
            f"found in the rows of the training sources: {', '.join(found.findings)}",
            "mend the rows (--redact)",
        )


def _prepared(run_file: str, overrides: tuple[str, ...]) -> tuple[Prepared, Any, Run]:
    """The run's data as its first rank would see it, the tokenizer, and the run.

    Benchmarks live above this room: the program that mounts these verbs may leave a function from a run to
    its held-out texts as `benchmark_texts` in click's context object.
    """
    from engine.config import demand, load, shape
    from engine.data.prepare import prepare
    from engine.data.tokenizer import load_tokenizer

    run = load(run_file, overrides).run
    demand(run)
    tokenizer = load_tokenizer(run)
    known = click.get_current_context().find_object(dict) or {}
    texts = known["benchmark_texts"](run) if "benchmark_texts" in known else None
    # The world does not matter for a look, so any batch size is accepted.
    alone = run.model_copy(update={"train": run.train.model_copy(update={"micro_batch": 1})})
    model = shape(run.model.path)
    vocabulary = model.vocabulary if model else None
    prepared = prepare(alone, tokenizer, benchmark_texts=texts, model_vocabulary=vocabulary)
    return prepared, tokenizer, run


def _lines(facts: dict[str, Any], indent: str = "") -> str:
    """Facts as aligned lines."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}:", _lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {_plain(value)}")
    return "\n".join(lines)


def _plain(value: Any) -> str:
    """A value as words; lists of places are told with commas, groups of them apart."""
    if value is None or value in ({}, []):
        return "-"
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return ", ".join(value)
    if isinstance(value, list) and all(isinstance(each, list) for each in value):
        return "; ".join(" = ".join(each) for each in value)
    return str(value)
