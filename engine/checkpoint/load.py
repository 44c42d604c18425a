"""Continue a run from its newest valid checkpoint, or say why that would be another run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from engine.checkpoint.pieces import Saved
from engine.checkpoint.save import STATE, Progress, Savable, wishes
from engine.checkpoint.state import fingerprint
from engine.checkpoint.store import Found, Store
from engine.config import Run
from engine.dist import World
from engine.errors import WishError


def resume(
    store: Store,
    *,
    engine: Savable,
    run: Run,
    world: World,
    files: Mapping[str, str],
    say: Callable[[str], None],
) -> Progress | None:
    """Put weights and optimizer back (a collective); None where there is nothing to continue.

    The ranks and the strategy may be others than those the checkpoint was written with.

    Args:
        store: the run's checkpoints.
        engine: the freshly prepared model.
        run: the Run.
        world: the ranks.
        files: SHA-256 of the data's files, by name.
        say: told of every checkpoint that is skipped, and why.

    Raises:
        WishError: the newest checkpoint belongs to another model or set of wishes.
    """
    found = world.share(_find(store, say) if world.first else None)
    if found is None:
        return None
    _demand_same_run(found, engine, run, world, files)
    if world.first:
        _tell_move(found, run, world, say)
    engine.restore(Saved(found.path / STATE))
    return Progress(**found.facts["progress"])


def _find(store: Store, say: Callable[[str], None]) -> Found | None:
    found = store.newest()
    for rejected in store.rejected:
        say(str(rejected))
    return found


def _tell_move(found: Found, run: Run, world: World, say: Callable[[str], None]) -> None:
    then = (found.facts["strategy"], found.facts["world_size"])
    now = (run.parallel.strategy, world.size)
    if then != now:
        said = [f"{strategy} on {ranks} rank{'s' if ranks > 1 else ''}" for strategy, ranks in (then, now)]
        say(f"{found.path.name} was written by {said[0]} and goes on with {said[1]}")


def _demand_same_run(found: Found, engine: Savable, run: Run, world: World, files: Mapping[str, str]) -> None:
    name = found.path.name
    before, now = found.facts["wishes"], wishes(run, world, files)["wishes"]
    changed = [key for key in {**now, **before} if before.get(key) != now.get(key)]
    if changed:
        described = ", ".join(f"{key} {_short(before.get(key), now.get(key))}" for key in changed)
        raise WishError(
            f"checkpoint {name} is of a run with other wishes: {described}",
            "undo the change, or start afresh in another `output` folder",
        )
    if found.facts["fingerprint"] != fingerprint(engine.model):
        raise WishError(
            f"checkpoint {name} is of another model than {run.model.path} (names or shapes differ)",
            "point model.path at the model the run was started with, or use another `output` folder",
        )


def _short(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        return "; ".join(f"{key}: {_short(before.get(key), now.get(key))}" for key in keys)
    then, here = ("unset" if value is None else str(value)[:60] for value in (before, now))
    return f"{then} -> {here}"
