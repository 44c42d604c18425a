"""One pool a level for the whole session: starting jails is the slow part."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from engine.errors import WishError
from engine.sandbox import LEVELS, Limits, Pool, Program, Verdict

QUICK = Limits(cpu_seconds=0.3, wall_seconds=1.2, memory_mb=256, processes=32, disk_mb=16)

Runner = Callable[..., Verdict]


@pytest.fixture(scope="session", params=LEVELS)
def pool(request: pytest.FixtureRequest) -> Iterator[Pool]:
    """A pool of exactly one level; skipped where this kernel cannot give it."""
    try:
        opened = Pool(1, request.param, ceiling=request.param)
    except WishError as error:
        pytest.skip(error.what)
    with opened:
        yield opened


@pytest.fixture(scope="session")
def best() -> Iterator[Pool]:
    """A pool of the best level there is. Where there is none, tests fail: nothing of this room works there."""
    with Pool(2) as opened:
        yield opened


@pytest.fixture
def judge(pool: Pool) -> Runner:
    """Run a source under quick limits at each level."""
    return _runner(pool)


@pytest.fixture
def best_judge(best: Pool) -> Runner:
    """Run a source under quick limits at the best level."""
    return _runner(best)


def _runner(pool: Pool) -> Runner:
    def run(source: str, limits: Limits = QUICK, **fields: object) -> Verdict:
        return pool.run(Program(source, **fields), limits)  # type: ignore[arg-type]

    return run
