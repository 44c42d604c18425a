"""kill -9 at every point where a save touches the disk: the newest valid checkpoint is always the last complete one."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.checkpoint import Store

# What a save and its pruning do to the disk. Each call is a place to die, just before it.
TOUCHING = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir")
STEPS = (10, 20, 30)


class Death:
    """Kills this process at the n-th touch of the disk, counted over all threads."""

    def __init__(self, at: int) -> None:
        self._left = at
        self._lock = threading.Lock()

    def touch(self) -> None:
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def around(self, act: Callable[..., object]) -> Callable[..., object]:
        def touching(*args: object, **options: object) -> object:
            self.touch()
            return act(*args, **options)

        return touching

    def arm(self) -> None:
        for name in TOUCHING:
            setattr(os, name, self.around(getattr(os, name)))
        opened = Path.open

        def opening(path: Path, mode: str = "r", *args: object, **options: object) -> object:
            if "w" in mode:
                self.touch()
            return opened(path, mode, *args, **options)  # type: ignore[call-overload]

        Path.open = opening  # type: ignore[method-assign,assignment]


def content(step: int, rank: int) -> bytes:
    return f"step {step} rank {rank} ".encode() * 500


def save(store: Store, step: int, log: int) -> None:
    folder = store.begin(step)
    with store.guard(step):
        for rank in range(2):
            with (folder / f"rank-{rank}.bin").open("wb") as file:
                file.write(content(step, rank)[:4000])
                file.flush()
                os.fsync(file.fileno())
                file.write(content(step, rank)[4000:])
    store.publish(step, metrics={"validation_loss": 1 / step}, facts={"step": step})
    os.write(log, f"{step}\n".encode())


def run_and_die(folder: Path, at: int) -> tuple[bool, list[int]]:
    """Whether a forked child was killed at touch `at`, and the steps whose save it had come back from."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # The child touches no thread of the parent's: it writes files and dies.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(reader)
            store = Store(folder, keep_last=1, keep_best=1)
            save(store, STEPS[0], writer)
            Death(at).arm()
            for step in STEPS[1:]:
                save(store, step, writer)
            # Once more, as a run does that comes to a step again.
            save(store, STEPS[-1], writer)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = [int(line) for line in pipe]
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed by itself"
    return os.WIFSIGNALED(status), said


def test_no_kill_loses_a_checkpoint(tmp_path: Path) -> None:
    points = 0
    for at in range(1, 1000):
        folder = tmp_path / f"killed-at-{at}"
        killed, said = run_and_die(folder, at)
        found = Store(folder, 1, 1).newest()
        assert found is not None, f"nothing left after a kill at {at}"
        done = max(said)
        following = [step for step in STEPS if step > done][:1]
        # Killed after the rename and before `publish` came back, the next one is complete already.
        assert found.step in [done, *following], f"killed at {at}: found {found.step}, saved {said}"
        for rank in range(2):
            assert (found.path / f"rank-{rank}.bin").read_bytes() == content(found.step, rank)
        # And the run goes on from there.
        store = Store(folder, 1, 1)
        reader, writer = os.pipe()
        save(store, 40, writer)
        os.close(reader)
        os.close(writer)
        assert store.newest().step == 40 and not store.rejected  # type: ignore[union-attr]
        assert not list(folder.glob("*.partial")) and not list(folder.glob("*.replaced"))
        if not killed:
            break
        points += 1
    assert not killed, "the child never came to its end"
    assert points > 40, f"only {points} points were tried"


@pytest.mark.parametrize("kept", [0, 1, 37, 399])
def test_a_power_cut_that_lost_the_end_of_a_file(tmp_path: Path, kept: int) -> None:
    store = Store(tmp_path, 2)
    reader, writer = os.pipe()
    for step in STEPS[:2]:
        save(store, step, writer)
    os.close(reader)
    os.close(writer)
    for name in ("rank-1.bin", "manifest.json"):
        before = (store.path(20) / name).read_bytes()
        os.truncate(store.path(20) / name, kept)
        assert store.newest().step == 10  # type: ignore[union-attr]
        assert name in store.rejected[0].reason
        (store.path(20) / name).write_bytes(before)
    assert store.newest().step == 20  # type: ignore[union-attr]
