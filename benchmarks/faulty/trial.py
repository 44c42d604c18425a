"""One case of the fault matrix under Temper's launcher, or under plain torchrun."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from faulty.case import LAUNCHER, WORLD_SIZE, Case
from launch import attempts, processes

ROOT = Path(__file__).parent.parent.parent
RANK = Path(__file__).with_name("rank.py")
SURVIVAL_SECONDS = 10.0
HANG_SECONDS, ELSEWHERE_SECONDS = 2, 15
DISK_SIZE = "8m"
CGROUPS = Path("/sys/fs/cgroup")
# The pid is written down by the process itself, before it becomes the launcher.
START = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); os.execv(sys.argv[2], sys.argv[2:])"
SUPERVISE = """
import dataclasses, sys
from engine.config import Run
from launch.agent import supervise
from launch.command import plan
folder, size, hang, elsewhere, *target = sys.argv[1:]
run = Run(output=folder, model={"path": "none"}, parallel={"processes": int(size), "strategy": "ddp",
    "device": "cpu", "hang_seconds": int(hang), "timeout_seconds": int(elsewhere)})
sys.exit(supervise(dataclasses.replace(plan(run, "train", "run.yaml"), target=tuple(target))).exit_code)
"""
ROOT_CAUSE = re.compile(r"Root Cause \(first observed failure\):\n\[\d+\]:\n.*\n.*\n\s*rank\s*:\s*(\d+)")


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a case.

    Attributes:
        exit_code: of the launcher; None where it had not ended within the limit.
        named: the rank it blamed; None where it blamed none.
        seconds: from the fault to the launcher's end.
        survivors: processes still there ten seconds after that.
        sentence: what it said.
    """

    case: Case
    exit_code: int | None
    named: int | None
    seconds: float
    survivors: int
    sentence: str

    @property
    def right(self) -> bool:
        """Whether the launcher failed, blamed the right one, and left nothing behind."""
        if self.exit_code in (0, None) or self.survivors:
            return False
        if self.case.fault == LAUNCHER:
            return self.sentence.startswith("The launcher was killed")
        return self.named == self.case.rank


def under_temper(case: Case) -> Trial:
    """Run a case under Temper."""
    with _place(case) as place:
        numbers = [str(number) for number in (WORLD_SIZE, HANG_SECONDS, ELSEWHERE_SECONDS)]
        words = [sys.executable, "-c", SUPERVISE, str(place.folder), *numbers]
        code, seconds, _ = place.run([*words, *place.target(case)], limit=120.0)
        survivors = place.survivors()
        history = attempts.read(place.folder)
        last = history[-1] if history else None
        named, sentence = (last.rank, last.sentence) if last else (None, "")
        return Trial(case, code, named, seconds, survivors, sentence)


def under_torchrun(case: Case, *, limit: float) -> Trial:
    """Run a case under `torchrun`, and read its root cause; a launcher that says nothing is ended after `limit`."""
    with _place(case) as place:
        torchrun = Path(sys.executable).with_name("torchrun")
        words = [sys.executable, str(torchrun), "--standalone", f"--nproc-per-node={WORLD_SIZE}"]
        code, seconds, said = place.run([*words, *place.target(case)], limit=limit)
        survivors = place.survivors()
        found = ROOT_CAUSE.search(said)
        return Trial(case, code, int(found[1]) if found else None, seconds, survivors, "")


def possible(case: Case) -> bool:
    """Whether this machine and user can bring the case about."""
    if case.fault == "disk-full":
        return os.geteuid() == 0
    return case.fault != "out-of-memory" or _cgroup_root() is not None


@dataclass(frozen=True, slots=True)
class _Place:
    """Folders of one trial."""

    outer: Path
    folder: Path
    cgroup: Path | None

    def target(self, case: Case) -> list[str]:
        return [
            str(RANK),
            str(self.folder),
            case.fault,
            str(case.rank),
            str(case.step),
            case.phase,
            str(self.outer / "launcher"),
        ]

    def run(self, words: list[str], *, limit: float) -> tuple[int | None, float, str]:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        if self.cgroup is not None:
            environment["FAULTY_CGROUP"] = str(self.cgroup)
        with (self.outer / "said").open("w+") as said:
            launcher = subprocess.Popen(
                [sys.executable, "-c", START, str(self.outer / "launcher"), *words],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
            code = self._wait(launcher, limit)
            ended = time.monotonic()
            said.seek(0)
            began = self.outer / "began"
            since = float(began.read_text()) if began.exists() else ended
            return code, ended - since, said.read()

    def _wait(self, launcher: subprocess.Popen[bytes], limit: float) -> int | None:
        """Exit code; None where it is still there `limit` seconds after the fault, and is then killed."""
        began = self.outer / "began"
        while launcher.poll() is None:
            if began.exists() and time.time() - began.stat().st_mtime > limit:
                launcher.kill()
                launcher.wait()
                return None
            time.sleep(0.02)
        return launcher.returncode

    def survivors(self) -> int:
        """Processes of the trial that live on after ten seconds; they are killed then."""
        deadline = time.monotonic() + SURVIVAL_SECONDS
        while (left := self._relatives()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(left)

    def _relatives(self) -> list[int]:
        named = str(self.outer)
        return [
            row.pid
            for row in processes.table()
            if row.state != "Z" and named in " ".join(processes.words(row.pid))
        ]


@contextmanager
def _place(case: Case) -> Iterator[_Place]:
    outer = Path(tempfile.mkdtemp(prefix="faulty-"))
    folder, root = outer / "run", _cgroup_root()
    folder.mkdir()
    cgroup = None
    if case.fault == "disk-full":
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_SIZE}", "faulty", str(folder)], check=True)
    if case.fault == "out-of-memory" and root is not None:
        cgroup = root / outer.name
        cgroup.mkdir()
    try:
        yield _Place(outer, folder, cgroup)
    finally:
        if case.fault == "disk-full":
            subprocess.run(["umount", "-l", str(folder)], check=False)
        if cgroup is not None:
            with suppress(OSError):
                cgroup.rmdir()
        shutil.rmtree(outer, ignore_errors=True)


def _cgroup_root() -> Path | None:
    """Where control groups with a memory limit can be made."""
    if os.geteuid():
        return None
    if (CGROUPS / "memory" / "cgroup.procs").exists():
        return CGROUPS / "memory"
    controllers = CGROUPS / "cgroup.subtree_control"
    return CGROUPS if controllers.exists() and "memory" in controllers.read_text() else None
