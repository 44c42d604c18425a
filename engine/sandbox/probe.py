"""What this kernel grants, found by doing it in throw-away jails; no setting is read and believed."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import WishError
from .outer.engines import ENGINES, version_of
from .pool import Pool
from .remedies import NEEDS, Remedy, places, remedies, step_of
from .verdict import LEVELS, Limits, Program


@dataclass(frozen=True, slots=True)
class OuterEngine:
    """An outer engine as it was found: its version (None where it is not installed), and why it does not work."""

    name: str
    version: str | None
    problem: str
    needs: str


@dataclass(frozen=True, slots=True)
class Probe:
    """The best isolation to be had, and for each level why not (empty where it works)."""

    level: str
    """full, user, process, or none."""
    levels: dict[str, str]
    needs: dict[str, str]
    """What a level takes, for those that do not work."""
    steps: dict[str, str]
    """The step of building a jail that the kernel refused, for those levels; empty where it is not known."""
    places: tuple[str, ...]
    """What this place looks like: kubernetes, podman, docker, slurm, ubuntu, systemd, linux."""
    remedies: tuple[Remedy, ...]
    """What an administrator can grant for the refused steps, here before elsewhere."""
    engines: tuple[OuterEngine, ...] = ()
    """Tried where there is a level for the judge."""


def probe() -> Probe:
    """Try each level, and each outer engine, by running a program in it."""
    levels = {level: _problem(level) for level in LEVELS}
    best = next((level for level, problem in levels.items() if not problem), "none")
    failed = [level for level, problem in levels.items() if problem]
    steps = {level: step_of(levels[level]) for level in failed}
    here = places()
    return Probe(
        level=best,
        levels=levels,
        needs={level: NEEDS[level] for level in failed},
        steps=steps,
        places=here,
        remedies=remedies([step for step in dict.fromkeys(steps.values()) if step], here),
        engines=tuple(map(_engine, ENGINES)) if best != "none" else (),
    )


def _engine(name: str) -> OuterEngine:
    return OuterEngine(name, version_of(name), _problem(None, name), ENGINES[name].install)


def _problem(level: str | None, engine: str | None = None) -> str:
    """Why programs cannot be run so, in the words of the step that was refused; empty where they can."""
    try:
        with Pool(1, level, ceiling=level, engine=engine) as pool:
            verdict = pool.run(Program("assert 1 + 1 == 2"), Limits(wall_seconds=10))
    except WishError as error:
        return error.what.partition(f"({level}: ")[2].removesuffix(")") or error.what
    return "" if verdict.passed else f"{verdict.name}: {verdict.detail}"
