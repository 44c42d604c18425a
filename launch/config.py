"""`temper config`: show where each value of a run comes from, check it, and print schema and reference."""

from __future__ import annotations

import json
import sys

import click

from engine import errors
from engine.config import check as clashes
from engine.config import schema as run_schema
from engine.config import show as effective
from launch.verbs import read


@click.group()
def config() -> None:
    """Show, check and document run files."""


@config.command()
@click.argument("run_file", metavar="RUN.yaml")
@click.option(
    "--set", "overrides", multiple=True, metavar="a.b=c", help="Override one value; may be repeated."
)
@click.option("--all", "everything", is_flag=True, help="Values left at their defaults as well.")
def show(run_file: str, overrides: tuple[str, ...], everything: bool) -> None:
    """Print each effective value and where it came from."""
    loaded, _ = read(run_file, overrides, None)
    rows = [row for row in effective(loaded) if everything or row[2] != "default"]
    keys, values = max(len(row[0]) for row in rows), min(60, max(len(row[1]) for row in rows))
    for key, value, origin in rows:
        print(f"{key:<{keys}}  {value:<{values}}  {origin}")


@config.command()
@click.argument("run_files", metavar="RUN.yaml ...", nargs=-1, required=True)
@click.option(
    "--set", "overrides", multiple=True, metavar="a.b=c", help="Override one value; may be repeated."
)
def check(run_files: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    """Name every clash in run files, each with its fix; exit 2 when there is one."""
    wrong = 0
    for run_file in run_files:
        try:
            run = read(run_file, overrides, None)[0].run
            found = clashes(run, training=run.data is not None)
            findings = [f"{finding.what}: {finding.fix}" for finding in found]
        except errors.WishError as error:
            findings = [str(error)]
        wrong += len(findings)
        print(f"{run_file}: {'fine' if not findings else f'{len(findings)} to mend'}")
        for finding in findings:
            print(f"  {finding}")
    sys.exit(errors.WRONG_WISH if wrong else errors.DONE)


@config.command()
def schema() -> None:
    """Print the JSON schema of a run file, for editors."""
    print(json.dumps(run_schema(), indent=1))


@config.command()
def docs() -> None:
    """Print the reference of every key as Markdown (docs/reference/run.md is this command's output)."""
    from launch.reference import reference

    print(reference(run_schema()), end="")
