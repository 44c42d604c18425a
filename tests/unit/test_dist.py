"""A killed build of an extension must not stop every later start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from engine.dist import clear_dead_builds

HOLD = "import os, sys, time; os.open(sys.argv[1], os.O_CREAT | os.O_EXCL); print(flush=True); time.sleep(60)"


def held(lock: Path) -> subprocess.Popen[bytes]:
    """A process that holds the lock as torch's builder does."""
    lock.parent.mkdir(parents=True)
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline()
    return holder


def test_the_lock_of_a_killed_build_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    dead, alive = tmp_path / "py311_cpu" / "one" / "lock", tmp_path / "py311_cpu" / "two" / "lock"
    holders = [held(dead), held(alive)]
    holders[0].kill()
    holders[0].wait()
    try:
        for lock in (dead, alive):
            os.utime(lock, (time.time() - 100, time.time() - 100))
        clear_dead_builds(tmp_path)
        assert not dead.exists() and alive.exists()
    finally:
        holders[1].kill()
        holders[1].wait()


def test_a_young_lock_nobody_here_holds_may_be_another_machines(tmp_path: Path) -> None:
    lock = tmp_path / "one" / "lock"
    holder = held(lock)
    holder.kill()
    holder.wait()
    began = time.monotonic()
    clear_dead_builds(tmp_path, patience=2.0)
    assert not lock.exists() and time.monotonic() - began > 1.0


def test_no_folder_is_no_build(tmp_path: Path) -> None:
    clear_dead_builds(tmp_path / "nowhere")
