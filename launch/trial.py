"""One training of many: `temper train` in a folder of its own, followed by its records, and stopped when asked."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import errors, protocol

LOOK_SECONDS = 0.2
# An orderly stop ends at the next step border and may save; after that the launcher is told to kill its ranks.
STOP_SECONDS = 330.0
KILL_SECONDS = 30.0
LOG = "trial.log"
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Ended:
    """How a training ended: its exit code and its last word; `stopped` if that was asked for here."""

    exit_code: int
    sentence: str
    stopped: bool


class Stops:
    """What asks this process to stop while trials run: the first time orderly, the second at once."""

    NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)

    def __init__(self) -> None:
        self.asked = 0

    def __enter__(self) -> Stops:
        self._before = {number: signal.signal(number, self._hear) for number in self.NUMBERS}
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, number: int, frame: Any) -> None:
        self.asked += 1


class Records:
    """The records of metrics.jsonl as they come. A run that goes on cuts the file back; then it is read anew."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / protocol.METRICS
        self._at = self._inode = 0

    def new(self) -> Iterator[dict[str, Any]]:
        """Whole lines that were not given before."""
        try:
            with self._file.open("rb") as file:
                inode = os.fstat(file.fileno()).st_ino
                if file.seek(0, os.SEEK_END) < self._at or inode != self._inode:
                    self._at, self._inode = 0, inode
                file.seek(self._at)
                lines = file.read()
        except OSError:
            return
        whole = lines[: lines.rfind(b"\n") + 1]
        self._at += len(whole)
        for line in whole.splitlines():
            with suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and isinstance(record.get("step"), int):
                    yield record


def run_trial(
    run_file: str,
    words: Sequence[str],
    folder: Path,
    *,
    stops: Stops,
    enough: Callable[[dict[str, Any]], bool],
) -> Ended:
    """Train in `folder` by `temper train`, in its order and with its exit code, until it ends.

    If this process dies, however it dies, the training is asked to stop at its next step border and saves.

    Args:
        run_file: the run.
        words: `--set` texts; the folder is added.
        folder: its run folder; what it prints goes to a file there.
        stops: asked meanwhile, the training is stopped.
        enough: told each new record; True stops the training.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wait_until_free(folder, stops)
    argv = [sys.executable, "-m", "launch", "train", run_file]
    for word in (*words, f"output={folder}"):
        argv += ["--set", word]
    log = folder / LOG
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as stream:
        # Ctrl-C goes to every process of the terminal's group: the training must hear of it from us alone.
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_follow(os.getpid()),
        )
    try:
        stopped = _watch(child, Records(folder), stops, enough)
    finally:
        if child.poll() is None:
            _end(child, stops)
    return Ended(child.returncode, _last_word(log, start, child.returncode), stopped)


def wait_until_free(folder: Path, stops: Stops) -> None:
    """Wait for the launcher of an earlier attempt, which may still be saving after whoever started it was killed."""
    lock = folder / protocol.LOGS / ".lock"
    deadline = time.monotonic() + STOP_SECONDS
    while lock.exists() and not stops.asked and time.monotonic() < deadline:
        with lock.open("a") as file:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
        time.sleep(LOOK_SECONDS)


def _follow(parent: int) -> Callable[[], None]:
    """What a child does before it becomes the launcher: be sent SIGTERM when its parent ends."""
    libc = ctypes.CDLL(None)

    def follow() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(errors.PREEMPTED)

    return follow


def _watch(
    child: subprocess.Popen[bytes], records: Records, stops: Stops, enough: Callable[[dict[str, Any]], bool]
) -> bool:
    """Hand records on until the training ends; True if it was ended from here."""
    while child.poll() is None:
        if stops.asked:
            _end(child, stops)
            return True
        if any([enough(record) for record in records.new()]):
            _end(child, stops)
            return True
        time.sleep(LOOK_SECONDS)
    for record in records.new():
        enough(record)
    return False


def _end(child: subprocess.Popen[bytes], stops: Stops) -> None:
    """Stop a training: orderly, at once when asked again or when that takes too long; nothing of it is left."""
    asked, deadline = stops.asked, time.monotonic() + STOP_SECONDS
    child.terminate()
    while child.poll() is None and stops.asked <= max(asked, 1) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    if child.poll() is None:
        # Asked already, the launcher takes SIGINT as the wish to kill its ranks at once.
        child.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=KILL_SECONDS)
    if child.poll() is None:
        child.kill()  # its watchdog ends what it started
    child.wait()


def _last_word(log: Path, start: int, code: int) -> str:
    """What the launcher said of the end."""
    with log.open("rb") as file:
        file.seek(start)
        text = file.read().decode(errors="replace")
    said = [line.removeprefix("temper: ") for line in text.splitlines() if line.startswith("temper: ")]
    said = [line for line in said if not line.startswith("logs: ")]
    return said[-1] if said else f"it ended with {code}"
