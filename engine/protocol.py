"""The files a run leaves for the launcher and for people: names and shapes, in one place.

A run folder holds::

    run.yaml                 the effective Run
    metrics.jsonl            one JSON object a logged step (`step`, `loss`, `trained_tokens`, ...) or event
    attempts.jsonl           one line for each start: when, how far, where the time went, how it ended
    heartbeats/HOST.json     what the ranks of a machine do now, while they run
    outcome.json             how the last attempt ended (`Outcome`)
    crash/rank-N.json        first error of a rank (`Crash`)
    plan.json                bytes of tensors a rank was planned to need (`Prediction`)
    facts.json               strategy in force, versions, data facts
    spikes.jsonl             steps whose loss was far above the usual, with their samples
    perf.json                speed, MFU and where the time went, of the last attempt that came to its end
    rehearsal/               a checkpoint tried before step 1, while it is tried
    checkpoints/step-NNNNNN/ with manifest.json written last
    model/ or adapter/       final weights, as `from_pretrained` takes them
    merged/                  the adapter put into its base, by `temper export --merge`
    evaluations/NAME/        generations-rankN.jsonl, results.jsonl, summary.json
    logs/attempt-N/          output of each rank (rank-N.log), first errors and stacks; the newest 20 are kept
    logs/                    the same of the last attempt where a run was handed to a place; node-N.log of its agents
    nodes/ATTEMPT/           node-N.json: how each node's part of an attempt on several ended
    submissions/N/           what was handed to a cluster: job, effective run, code
    submission.json          the newest of them
"""

from __future__ import annotations

import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

RUN = "run.yaml"
METRICS = "metrics.jsonl"
OUTCOME = "outcome.json"
PLAN = "plan.json"
FACTS = "facts.json"
PERF = "perf.json"
SPIKES = "spikes.jsonl"
CRASH = "crash"
CHECKPOINTS = "checkpoints"
EVALUATIONS = "evaluations"
IN_LOOP = "in-loop"
LOGS = "logs"
ATTEMPTS = "attempts.jsonl"
HEARTBEATS = "heartbeats"
MODEL = "model"
ADAPTER = "adapter"
MERGED = "merged"

# PET_ERROR_FILE style names would collide between nodes of a shared file system; the rank does not.
ATTEMPT_VARIABLE = "TEMPER_ATTEMPT"
# What the place calls a machine; two nodes may well have the same name of their own.
HOST_VARIABLE = "TEMPER_HOST"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended, as the ranks saw it."""

    status: Literal["finished", "early_stopped", "preempted"]
    step: int
    seconds: float
    checkpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Lighter:
    """Settings that leave the result alone (`words`, as on the command line), and the bytes a GPU must have then."""

    words: str
    size: int


@dataclass(frozen=True, slots=True)
class Prediction:
    """Bytes of tensors on one GPU at their most, as planned before the start; `phase` is when, `terms` what of.

    Attributes:
        total: bytes the GPU must have, tensors and what lies beside them; 0 in files of earlier versions.
        changes: what would need less, the fewest settings first, and of as many the largest.
    """

    size: int
    phase: str
    terms: dict[str, int]
    total: int = 0
    changes: tuple[Lighter, ...] = ()


@dataclass(frozen=True, slots=True)
class Crash:
    """The first error of one rank. `seconds` is wall-clock time since the epoch, to order ranks by."""

    rank: int
    host: str
    pid: int
    phase: str
    step: int | None
    error: str
    message: str
    exit_code: int
    seconds: float
    traceback: str = ""


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that readers see the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=1, sort_keys=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Leave word of how this attempt ended."""
    write_json(folder / OUTCOME, asdict(outcome))


def read_outcome(folder: Path) -> Outcome | None:
    """The last attempt's outcome; None where it left none (it crashed, or never started)."""
    path = folder / OUTCOME
    if not path.is_file():
        return None
    return Outcome(**json.loads(path.read_text(encoding="utf-8")))


def write_prediction(folder: Path, prediction: Prediction) -> None:
    """Leave word of what this attempt is planned to need."""
    write_json(folder / PLAN, asdict(prediction))


def read_prediction(folder: Path) -> Prediction | None:
    """What the launcher planned; None where it did not."""
    path = folder / PLAN
    if not path.is_file():
        return None
    plan = json.loads(path.read_text(encoding="utf-8"))
    changes = tuple(Lighter(**change) for change in plan.pop("changes", ()))
    return Prediction(**plan, changes=changes)


def write_crash(folder: Path, crash: Crash) -> None:
    """Leave word of a rank's first error; later ones of the same rank do not replace it."""
    path = folder / CRASH / f"rank-{crash.rank}.json"
    if not path.exists():
        write_json(path, asdict(crash))


def read_crashes(folder: Path) -> list[Crash]:
    """All crashes of the last attempt, earliest first."""
    files = sorted((folder / CRASH).glob("rank-*.json"))
    crashes = [Crash(**json.loads(file.read_text(encoding="utf-8"))) for file in files]
    return sorted(crashes, key=lambda crash: crash.seconds)


def clear_attempt(folder: Path) -> None:
    """Forget the previous attempt's outcome and crashes, before a new one starts."""
    (folder / OUTCOME).unlink(missing_ok=True)
    for file in (folder / CRASH).glob("rank-*.json"):
        file.unlink()


def host() -> str:
    """This machine's name, for people: the place's for it, else its own."""
    return os.environ.get(HOST_VARIABLE) or socket.gethostname()


def now() -> float:
    """Wall-clock seconds since the epoch: the one clock that ranks on several hosts share."""
    return time.time()
