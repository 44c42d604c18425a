"""The verb `check`: whether the machines of a place are ready, for any run or for one."""

from __future__ import annotations

import click

from engine.errors import WishError
from launch.cluster import Kubernetes, place
from launch.submit import composed
from launch.survey import bare, passed, wanted
from launch.verbs import read


@click.command()
@click.argument("run_file", metavar="[RUN.yaml]", required=False)
@click.option("--on", "where", required=True, metavar="CLUSTER", help="The cluster's YAML file.")
@click.option(
    "--set", "overrides", multiple=True, metavar="a.b=c", help="Override one value; may be repeated."
)
@click.option("--processes", type=int, metavar="N", help="Ranks on each node.")
@click.option("--evaluate", "judge", is_flag=True, help="Check for an evaluation instead of a training.")
def check(
    run_file: str | None, where: str, overrides: tuple[str, ...], processes: int | None, judge: bool
) -> None:
    """Look at every node before a run: versions, GPUs, network, shared disk, clocks, limits.

    Exit codes: 0 all is well, 2 a wish that cannot be met, 3 something must be mended.
    """
    if run_file is None and (overrides or processes is not None or judge):
        raise WishError("--set, --processes and --evaluate change a run, and none is named", "name RUN.yaml")
    found = place(where)
    if isinstance(found, Kubernetes):
        raise WishError(
            f"{where} is of kind {found.kind}, whose pods cannot be looked at before they run",
            "check kind local, hosts or slurm",
        )
    if run_file is None:
        asked = bare(found)
    else:
        run = read(run_file, overrides, processes)[0].run
        verb = "evaluate" if judge else "train"
        composed(run, where, verb)
        asked = wanted(run, found, verb)
    passed(asked, found)
