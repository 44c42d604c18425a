"""The verb that compares: compare."""

from __future__ import annotations

import json
from pathlib import Path

import click

from engine.errors import WishError

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command()
@click.argument("a", type=FOLDER)
@click.argument("b", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown instead of a table.")
def compare(a: Path, b: Path, as_json: bool, as_markdown: bool) -> None:
    """Compare two finished evaluations A and B of the same benchmark, task by task.

    Each is a folder of `temper evaluate`, or what `temper score --out` wrote.
    """
    from engine.evaluate.compare import compare as compare_folders
    from engine.evaluate.compare import told

    if as_json and as_markdown:
        raise WishError("--json and --markdown are both given", "ask for one of them")
    found = compare_folders(a, b)
    if as_json:
        click.echo(json.dumps(found.as_json(), indent=1))
        return
    click.echo(told.as_markdown(found) if as_markdown else told.as_text(found))
    for note in found.notes():
        click.echo(f"note: {told.visible(note)}", err=True)
