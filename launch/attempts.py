"""attempts.jsonl: one line for each start of a run, so that any later start and any person knows what went before."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from engine import errors, protocol

KEPT_LOGS = 20
HOPELESS_AFTER = 3
_FOLDER = re.compile(r"attempt-(\d+)")
_CHECKPOINT = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of a run and how it ended.

    Attributes:
        number: from 1; its logs are in `logs/attempt-NUMBER`.
        verb: `train` or `evaluate`.
        hosts: machines it ran on.
        ranks: how many ranks there were to be.
        started, ended: wall-clock seconds since the epoch.
        first_step: the first step it worked on; None where it came to none.
        last_step: the last step it worked on.
        saved_before, saved: newest checkpoint's step when it began and when it ended; None: there was none.
        asked: the signal that asked it to stop.
        exit_code: of the launcher; None where the launcher itself was killed.
        rank: the rank that died or hung first.
        sentence: the verdict.
        seconds: what each phase took on rank 0.
    """

    number: int
    verb: str
    hosts: tuple[str, ...]
    ranks: int
    started: float
    ended: float
    first_step: int | None
    last_step: int | None
    saved_before: int | None
    saved: int | None
    asked: str | None
    exit_code: int | None
    rank: int | None
    sentence: str
    seconds: dict[str, float] = field(default_factory=dict)


def append(folder: Path, attempt: Attempt) -> None:
    """Add a line to a run's attempts.

    Raises:
        OSError: it cannot be written.
    """
    line = json.dumps(asdict(attempt)) + "\n"
    with (folder / protocol.ATTEMPTS).open("ab", buffering=0) as file:
        # One call, so that a kill or a full disk leaves a torn last line at most, which is begun anew.
        file.write((b"" if _ends_well(folder / protocol.ATTEMPTS) else b"\n") + line.encode())


def _ends_well(file: Path) -> bool:
    text = file.read_bytes()
    return not text or text.endswith(b"\n")


def read(folder: Path) -> list[Attempt]:
    """The attempts of a run, oldest first; lines that are torn are left out."""
    try:
        lines = (folder / protocol.ATTEMPTS).read_bytes().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            value = json.loads(line)
            found.append(Attempt(**{**value, "hosts": tuple(value["hosts"])}))
        except (ValueError, TypeError, KeyError):
            continue
    return found


def next_number(folder: Path) -> int:
    """The number of the attempt that begins now; one that left no line, as its machine went down, counts too."""
    return max([0, *(attempt.number for attempt in read(folder)), *_log_folders(folder)]) + 1


def under_way(folder: Path) -> int:
    """The number of the attempt that runs now, if one does: it has no line yet, and on one machine its logs."""
    written = max((attempt.number for attempt in read(folder)), default=0)
    return max([written + 1, *_log_folders(folder)])


def log_folder(folder: Path, number: int) -> Path:
    """Where an attempt's logs are."""
    return folder / protocol.LOGS / f"attempt-{number}"


def prune_logs(folder: Path) -> None:
    """Remove the logs of attempts before the last `KEPT_LOGS`."""
    folders = _log_folders(folder)
    for number in sorted(folders)[:-KEPT_LOGS]:
        shutil.rmtree(folders[number], ignore_errors=True)


def _log_folders(folder: Path) -> dict[int, Path]:
    found = {}
    for path in (folder / protocol.LOGS).glob("attempt-*"):
        if match := _FOLDER.fullmatch(path.name):
            found[int(match[1])] = path
    return found


def saved_step(folder: Path) -> int | None:
    """The step of the newest published checkpoint; its files are not checked."""
    steps = [
        int(match[1])
        for path in (folder / protocol.CHECKPOINTS).glob("step-*")
        if (match := _CHECKPOINT.fullmatch(path.name)) and (path / "manifest.json").is_file()
    ]
    return max(steps, default=None)


def hopeless(history: Sequence[Attempt]) -> str | None:
    """Why a further start would end as the last ones did; None where it may not."""
    if not history or history[-1].verb != "train":
        return None
    last = [attempt for attempt in history if attempt.verb == "train"][-HOPELESS_AFTER:]
    failed = (errors.BUG, errors.PREEMPTED, errors.DO_NOT_REQUEUE, None)
    if len(last) < HOPELESS_AFTER or any(
        attempt.exit_code not in failed or attempt.asked == "SIGINT" or attempt.saved != attempt.saved_before
        for attempt in last
    ):
        return None
    saved = last[-1].saved
    step = f"the newest checkpoint is still step {saved}" if saved is not None else "no checkpoint was saved"
    return (
        f"The last {HOPELESS_AFTER} attempts made no progress ({step}): mend this before it is started again."
    )
