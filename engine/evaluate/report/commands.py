"""The verbs that show what was found: report."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument(
    "runs", nargs=-1, required=True, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="report.html",
    show_default=True,
    help="The page to write.",
)
@click.option(
    "--summary", type=click.Path(dir_okay=False, path_type=Path), help="Also write the figures as JSON."
)
@click.option("--title", default="Temper report", show_default=True, help="Heading of the page.")
def report(runs: tuple[Path, ...], out: Path, summary: Path | None, title: str) -> None:  # fmt: skip
    """Make one self-contained page of run folders: curves, bars, failures, and programs side by side."""
    from engine.evaluate.report import gather, summarise, write

    stages = gather(runs)
    write(stages, out, title=title)
    click.echo(f"{out}: {out.stat().st_size / 1024:.0f} KiB, {len(stages)} runs")
    if summary is not None:
        summarise(stages, summary)
        click.echo(str(summary))
