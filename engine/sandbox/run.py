"""The door for one program."""

from __future__ import annotations

from .pool import Pool
from .verdict import Limits, Program, Verdict

_DEFAULT = Limits()


def run(
    program: Program, limits: Limits = _DEFAULT, *, level: str | None = None, engine: str | None = None
) -> Verdict:
    """Run one program in a jail of its own and say what came of it.

    `level` is the weakest isolation that will do; a kernel that gives less is refused with WishError, as is an outer
    `engine` ("runsc", "podman") that is not to be had. Starting a jail
    costs some tenths of a second: use `Pool` for more than a few programs.
    """
    with Pool(workers=1, level=level, engine=engine) as pool:
        return pool.run(program, limits)
