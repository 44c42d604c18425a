"""From programs to verdicts, streaming; the sandbox's own failures are kept apart from the programs'."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from engine.sandbox import Limits, Pool, Program, Verdict

ATTEMPTS = 3
"""How often a program is tried before `infra` stands; it is then not scored, and the command fails."""


@dataclass(frozen=True, slots=True)
class Court:
    """How programs are judged."""

    limits: Limits = Limits()
    level: str | None = None
    """Least isolation accepted; None: the best this kernel grants."""
    workers: int = 2
    mode: str = "reused"
    """Whether programs share a jail that is cleaned between them, or each has a fresh one."""
    preload: tuple[str, ...] = ()
    """Modules programs may import besides the standard library's."""
    engine: str | None = None
    """An outer engine (runsc, podman) to run each program in."""


def judge(count: int, program: Callable[[int], Program], court: Court) -> Iterator[tuple[int, Verdict]]:
    """Run programs.

    Args:
        count: how many there are.
        program: makes one by its index, when a worker is near to it: tens of thousands would fill memory.
        court: how to judge them.

    Yields:
        (index, verdict) once for each program, in order, but those the sandbox itself failed on come last,
        after further attempts; their verdict may still be `infra`.

    Raises:
        WishError: this kernel does not grant the isolation asked for.
    """
    if not count:
        return
    waiting = list(range(count))
    how = {"mode": court.mode, "preload": court.preload, "engine": court.engine}
    with Pool(court.workers, court.level, **how) as pool:  # type: ignore[arg-type]
        for attempt in range(1, ATTEMPTS + 1):
            failed: list[int] = []
            verdicts = pool.run_many(map(program, waiting), court.limits)
            for index, verdict in zip(waiting, verdicts, strict=True):
                if verdict.name == "infra" and attempt < ATTEMPTS:
                    failed.append(index)
                else:
                    yield index, verdict
            waiting = failed
            if not waiting:
                return
