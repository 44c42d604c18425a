"""A training on two hosts, and what a test asks of it and does to it."""

from __future__ import annotations

import ctypes
import json
import os
import re
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from launch import processes
from tests.cluster.machines import ROOT, TEMPER, Wish, until

ATTACH, DETACH = 16, 17


def temper(*words: str, seconds: float = 500) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TEMPER, *words], cwd=ROOT, capture_output=True, text=True, timeout=seconds)


def losses(folder: Path) -> dict[int, float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {record["step"]: record["loss"] for record in records if "loss" in record}


def strategy(folder: Path) -> str:
    return json.loads((folder / "facts.json").read_text())["strategy"]


def alive(folder: Path) -> list[str]:
    """Command lines of processes that still work on a run."""
    lines = [" ".join(processes.words(row.pid)) for row in processes.table() if row.pid != os.getpid()]
    return [line for line in lines if str(folder) in line]


def rank_process(folder: Path, rank: int) -> int:
    """The process of a rank, whatever host it is on."""
    for row in processes.table():
        here = processes.words(row.pid)
        if "engine" in here and str(folder) in " ".join(here) and "launch" not in here:
            if processes.environment(row.pid).get("RANK") == str(rank):
                return row.pid
    raise AssertionError(f"rank {rank} is not there")


def agent_process(folder: Path) -> int:
    """The second node's agent, and not the ssh or shell that leads to it."""
    for row in processes.table():
        words = processes.words(row.pid)
        if "agent" in words and "python" in words[0] and str(folder) in " ".join(words):
            if words[words.index("--node") + 1] == "1":
                return row.pid
    raise AssertionError("there is no agent on the second host")


@contextmanager
def held(pid: int) -> Iterator[None]:
    """A process that a debugger holds: silent, and not stopped in a way that is sure to last."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.ptrace(ATTACH, pid, 0, 0) == 0, os.strerror(ctypes.get_errno())
    try:
        yield
    finally:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
        libc.ptrace(DETACH, pid, 0, 0)


class Training:
    """`temper train --on` of two hosts that goes on until something happens to it."""

    def __init__(self, wish: Wish, name: str, *words: str, **place: Any) -> None:
        self.folder = wish.folder / name
        run, cluster = wish.run(name, strategy="ddp"), wish.cluster("hosts", **place)
        self.lead = subprocess.Popen(
            [*TEMPER, "train", str(run), "--on", str(cluster), "--set", "train.steps=100000", *words],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.said: list[tuple[float, str]] = []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        metrics = self.folder / "metrics.jsonl"
        # Enough steps for a launcher to know what one usually takes.
        until(lambda: metrics.exists() and metrics.read_text().count("\n") > 8, "steps", None, 200)

    def _read(self) -> None:
        assert self.lead.stderr is not None
        for line in self.lead.stderr:
            self.said.append((time.monotonic(), line))

    @property
    def text(self) -> str:
        return "".join(line for _, line in self.said)

    def told(self, pattern: str, since: float, seconds: float = 60.0) -> float:
        """Seconds until something was said."""
        found: list[float] = []

        def said() -> bool:
            found[:] = [when for when, line in self.said if re.search(pattern, line)]
            return bool(found)

        try:
            until(said, pattern, None, seconds)
        except AssertionError:
            raise AssertionError(f"nobody said {pattern}: {self.text}") from None
        return found[0] - since

    def step_seconds(self) -> float:
        """What a step usually takes."""
        records = [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]
        times = [record["time"] for record in records if "loss" in record]
        return statistics.median(later - sooner for sooner, later in zip(times, times[1:], strict=False))

    def end(self, seconds: float = 90.0) -> str:
        """Wait for the lead, then for every process of the run; returns all that was said."""
        assert self.lead.wait(timeout=seconds) == 1, self.text
        self.reader.join(timeout=5)
        deadline = time.monotonic() + 10
        while alive(self.folder) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert alive(self.folder) == [], "a process survived 10 s"
        return self.text

    def verdict(self) -> dict[str, Any]:
        (file,) = self.folder.glob("nodes/*/verdict.json")
        return json.loads(file.read_text())
