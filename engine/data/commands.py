"""The `data` verbs: look at what a run will learn from, before it does."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
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

    prepared, tokenizer = _prepared(run_file, overrides)
    colored = sys.stdout.isatty() if color is None else color
    click.echo(show_samples(prepared.train, tokenizer, samples, color=colored), color=colored)
    click.echo()
    click.echo(_lines(prepared.facts))


@data.command()
@_run_file
@_overrides
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def check(run_file: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Read, encode and check all rows as training would; exit code 2 and the reason where it would refuse."""
    prepared, _ = _prepared(run_file, overrides)
    click.echo(json.dumps(prepared.facts, indent=1) if as_json else _lines(prepared.facts))


def _prepared(run_file: str, overrides: tuple[str, ...]) -> tuple[Prepared, Any]:
    """The run's data as its first rank would see it, and the tokenizer.

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
    return prepare(alone, tokenizer, benchmark_texts=texts, model_vocabulary=vocabulary), tokenizer


def _lines(facts: dict[str, Any], indent: str = "") -> str:
    """Facts as aligned lines."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{name}:", _lines(value, indent + "  ")]
        else:
            lines.append(f"{indent}{name}: {'-' if value is None or value == {} else value}")
    return "\n".join(lines)
