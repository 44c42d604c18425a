"""The verb that hands a result on: export."""

from __future__ import annotations

import json
from pathlib import Path

import click

from engine import protocol
from engine.config import Run, demand, load
from engine.errors import WishError

TOKENS = 4096


@click.command()
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.option("--merge", "merged", is_flag=True, help="Put the adapter into its base: one plain model.")
@click.option("--to", "target", type=click.Path(path_type=Path), help="Folder to write [RUN_FOLDER/merged].")
@click.option(
    "--tokens",
    default=TOKENS,
    show_default=True,
    type=click.IntRange(min=1),
    help="Trained tokens of the run's rows on which logits are compared.",
)
@click.option(
    "--max-kl",
    type=click.FloatRange(min=0, min_open=True),
    help="Bound of the mean KL, nats a token [fp32 1e-6, fp16 1e-4, bf16 2e-3]; of a single token, 100 times it.",
)
@click.option("--benchmark", metavar="NAME", help="Compare pass@1 of both on this benchmark as well.")
@click.option("--set", "overrides", multiple=True, metavar="A.B=VALUE", help="Override one value of the run.")
@click.option("--json", "as_json", is_flag=True, help="Print what was measured as JSON.")
def export(
    run_folder: Path,
    merged: bool,
    target: Path | None,
    tokens: int,
    max_kl: float | None,
    benchmark: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> None:
    """Merge a finished run's adapter into its base, and measure before it is called good.

    The merged model is written aside, opened again and compared with the adapter on its base; beyond the bound
    nothing is left, and the exit code is 3.
    """
    if not merged:
        raise WishError(
            "export is asked for without --merge",
            f"the result as trained lies in {run_folder} already; --merge makes one model of its adapter and its base",
        )
    # Both models are loaded here, whoever answered for an evaluation of the run before.
    judged = (f"evaluate.benchmark={benchmark}", "evaluate.server.url=null") if benchmark else ()
    run = _read(run_folder, (*overrides, *judged))
    demand(run, 1, training=not benchmark)
    from engine.dist import start
    from engine.export import Bound, Wish, export_merged

    wish = Wish(
        target=target or run_folder / protocol.MERGED,
        tokens=tokens,
        bound=Bound.of(run.parallel.precision, max_kl),
        benchmark=benchmark is not None,
    )
    say = lambda line: click.echo(line, err=as_json)  # noqa: E731
    done = export_merged(run, wish, start(run, sharded=False), say)
    if as_json:
        click.echo(json.dumps({"folder": str(done.folder), **done.as_json()}, indent=1))
    else:
        click.echo(f"{done.folder}: as `AutoModelForCausalLM.from_pretrained` takes it")


def _read(folder: Path, overrides: tuple[str, ...]) -> Run:
    """The Run of a folder, as one process by itself takes it."""
    file = folder / protocol.RUN
    if not file.is_file():
        raise WishError(
            f"{folder} is no run folder: it holds no {protocol.RUN}",
            "name the `output` of a run that trained",
        )
    run = load(file, overrides).run
    alone = {"strategy": "none", "processes": 1, "offload_optimizer": False, "offload_parameters": False}
    parallel = run.parallel.model_copy(update=alone)
    return run.model_copy(update={"output": str(folder), "parallel": parallel})
