"""The verbs that show what was found: report, card."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from engine.errors import WishError
from engine.evaluate import damage

FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=FOLDER)
@click.option("--out", type=FILE, default="report.html", show_default=True, help="The page to write.")
@click.option("--summary", type=FILE, help="Also write the figures as JSON.")
@click.option("--markdown", type=FILE, help="Also write scores and verdicts as Markdown.")
@click.option("--title", default="Temper report", show_default=True, help="Heading of the page.")
def report(
    runs: tuple[Path, ...], out: Path, summary: Path | None, markdown: Path | None, title: str
) -> None:
    """Make one self-contained page of run folders, evaluation folders, and what `temper score --out` wrote."""
    from engine.evaluate.report import gather, summarise, write
    from engine.evaluate.report.markdown import write_markdown

    stages = gather(runs)
    shown = damage.told(", ".join(map(str, runs)), "leave out the one that is, or have it written again")
    with _writing(out), shown:
        write(stages, out, title=title)
    click.echo(f"{out}: {out.stat().st_size / 1024:.0f} KiB, {len(stages)} runs")
    if summary is not None:
        with _writing(summary):
            summarise(stages, summary)
        click.echo(str(summary))
    if markdown is not None:
        with _writing(markdown):
            write_markdown(stages, markdown, title=title)
        click.echo(str(markdown))


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WishError(
            f"{file} cannot be written ({error.strerror or error})",
            "name a file in a folder you may write to",
        ) from None


@click.command()
@click.argument("run", type=FOLDER)
@click.option("--out", type=FILE, required=True, help="The card to write, such as README.md.")
@click.option(
    "--license", "license_name", help="The model's licence, as the Hub writes it; the run does not know it."
)
def card(run: Path, out: Path, license_name: str | None) -> None:
    """Write the model card of a run whose result was judged."""
    from engine.evaluate.report.card import card as write_card

    with damage.told(str(run), "have the run write it again"):
        text = write_card(run, license_name=license_name)
    with _writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, encoding="utf-8", errors="replace")
    click.echo(str(out))
