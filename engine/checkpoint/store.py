"""The shelf of checkpoints: each is there whole or not at all, and the newest valid one is always found."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.checkpoint.manifest import Manifest, Torn, check, read, seal, sync_folder
from engine.errors import Stopped, TemperError

PARTIAL = ".partial"
_PUBLISHED = re.compile(r"step-(\d{6,})(\.replaced)?")
# Writers that do not pass the operating system's error on (torch's zip writer) fail with these words.
_FULL_WORDS = ("no space left", "os error 28", "disk quota exceeded", "os error 122")
_WRITER_WORDS = ("pytorchstreamwriter", "inline_container", "unexpected pos")


class DiskFull(Stopped):
    """There is no room for a checkpoint; the ones on the shelf are untouched."""


@dataclass(frozen=True, slots=True)
class Found:
    """A published checkpoint."""

    step: int
    path: Path
    metrics: dict[str, float | None]
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A folder that looks like a checkpoint and is none, with the reason."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"checkpoint {self.path.name} is skipped: {self.reason}"


def unwritable(step: int, error: Exception) -> TemperError:
    """A checkpoint that could not be written, for a reason other than room."""
    return TemperError(
        f"the checkpoint of step {step} cannot be written ({error})",
        "see that the run folder can be written on every machine, and run it again to resume",
    )


def smaller_is_better(metric: str, mode: Literal["auto", "min", "max"] = "auto") -> bool:
    """Whether a small value of `metric` is a good one; `auto`: losses small, everything else large."""
    return mode == "min" or (mode == "auto" and "loss" in metric.lower())


class Store:
    """The checkpoints of one run, in `folder`.

    One rank (0) begins, publishes and prunes; the others write their files into `partial(step)` in between.
    The barriers between these are the caller's.

    Args:
        folder: RUN/checkpoints; made when the first checkpoint begins.
        keep_last: newest checkpoints kept.
        keep_best: best checkpoints kept beside them, by `metric` as given to `publish`.
        metric: name of the metric that says what is best.
        mode: whether small or large is good, see `smaller_is_better`.
    """

    def __init__(
        self,
        folder: Path,
        keep_last: int = 2,
        keep_best: int = 0,
        metric: str = "validation_loss",
        mode: Literal["auto", "min", "max"] = "auto",
    ) -> None:
        self.folder = folder
        self.keep_last = keep_last
        self.keep_best = keep_best
        self.metric = metric
        self.smaller_is_better = smaller_is_better(metric, mode)
        self.rejected: list[Rejected] = []

    def path(self, step: int) -> Path:
        """Where the checkpoint of `step` lies once it is published."""
        return self.folder / f"step-{step:06d}"

    def partial(self, step: int) -> Path:
        """Where the checkpoint of `step` is written."""
        return self.folder / f"step-{step:06d}{PARTIAL}"

    def begin(self, step: int, *, needed_bytes: int | None = None) -> Path:
        """Make the folder to write the checkpoint of `step` into; leftovers of killed saves are removed.

        Args:
            step: optimizer steps done.
            needed_bytes: room the save will take; None: as much as the newest one took.

        Raises:
            DiskFull: there is less room than that.
            TemperError: the folder cannot be written.
        """
        with self.guard(step) as partial:
            self.folder.mkdir(parents=True, exist_ok=True)
            for leftover in self.folder.glob(f"*{PARTIAL}"):
                shutil.rmtree(leftover, ignore_errors=True)
            for set_aside in self.folder.glob("*.replaced"):
                if not set_aside.with_suffix("").exists():
                    os.rename(set_aside, set_aside.with_suffix(""))
            needed = self._size_of_newest() if needed_bytes is None else needed_bytes
            free = self._free()
            if free < needed:
                raise self._full(step, f"it needs {_size(needed)} and {_size(free)} are free")
            partial.mkdir()
        return partial

    @contextmanager
    def guard(self, step: int) -> Iterator[Path]:
        """Write the checkpoint of `step` inside this block: if that fails, no half-written folder stays.

        Raises:
            DiskFull: in place of the writer's own error, when that one means a full disk.
            TemperError: in place of any other error of the operating system.
        """
        try:
            yield self.partial(step)
        except BaseException as error:
            full = self._means_full(error)
            self.abandon(step)
            if full:
                raise self._full(step, "the disk became full while it was written") from error
            if isinstance(error, OSError):
                raise unwritable(step, error) from error
            raise

    def abandon(self, step: int) -> None:
        """Remove what was written so far of the checkpoint of `step`."""
        shutil.rmtree(self.partial(step), ignore_errors=True)

    def publish(self, step: int, *, metrics: Mapping[str, Any], facts: Mapping[str, Any]) -> Path:
        """Put the checkpoint of `step` on the shelf in one move, then take those down that need not be kept.

        Args:
            step: as given to `begin`.
            metrics: name to number, of this step; `metric` among them decides what is best.
            facts: whatever a later start must know, as plain JSON data.

        Raises:
            DiskFull: the disk became full; the partial folder is removed.
            TemperError: the folder cannot be written; the partial folder is removed.
        """
        path = self.path(step)
        with self.guard(step) as partial:
            seal(partial, step=step, metrics=metrics, facts=facts)
            if path.exists():
                # Two renames are not one; `newest` knows the set-aside name, so a kill in between loses nothing.
                set_aside = path.with_name(f"{path.name}.replaced")
                self._remove(set_aside)
                os.rename(path, set_aside)
            os.rename(partial, path)
            sync_folder(self.folder)
            self.prune()
        return path

    def published(self) -> list[Found]:
        """All checkpoints with a readable manifest, oldest first; their files are not read."""
        found, _ = self._shelf()
        return [_found(path, manifest) for path, manifest in found]

    def newest(self) -> Found | None:
        """The newest checkpoint whose files are all as they were published; None where there is none.

        Those newer than it that are torn or altered are in `rejected` afterwards, newest first.
        """
        self.rejected = []
        for path in self._folders(newest_first=True):
            try:
                manifest = read(path)
                check(path, manifest)
            except Torn as error:
                self.rejected.append(Rejected(path, str(error)))
            else:
                return _found(path, manifest)
        return None

    def best(self) -> Found | None:
        """The best checkpoint by `metric`, the earliest of equals; None where none has a value of it."""
        ranking = self._ranking(self.published())
        return ranking[0] if ranking else None

    def discard_after(self, step: int) -> list[Path]:
        """Remove every checkpoint of a later step (-1: all), for a run that starts over from `step`."""
        gone = [path for path in self._folders() if _step(path) > step]
        for path in gone:
            self._remove(path)
        return gone

    def prune(self) -> None:
        """Remove what is neither among the last nor among the best; torn ones go once older than those."""
        found, torn = self._shelf()
        current = [entry for entry in found if not entry[0].name.endswith(".replaced")]
        last = current[-self.keep_last :]
        best = self._ranking([_found(*entry) for entry in current])[: self.keep_best]
        keep = {path for path, _ in last} | {entry.path for entry in best}
        oldest = _step(last[0][0]) if last else 0
        gone = [path for path, _ in found if path not in keep]
        for path in gone + [path for path in torn if _step(path) < oldest]:
            self._remove(path)

    def _shelf(self) -> tuple[list[tuple[Path, Manifest]], list[Path]]:
        found, torn = [], []
        for path in self._folders():
            try:
                found.append((path, read(path)))
            except Torn:
                torn.append(path)
        return found, torn

    def _folders(self, *, newest_first: bool = False) -> list[Path]:
        if not self.folder.is_dir():
            return []
        paths = [path for path in self.folder.iterdir() if _PUBLISHED.fullmatch(path.name) and path.is_dir()]
        return sorted(paths, key=lambda path: (_step(path), path.suffix == ""), reverse=newest_first)

    def _ranking(self, found: list[Found]) -> list[Found]:
        sign = 1.0 if self.smaller_is_better else -1.0
        scored = {e.step: value for e in found if (value := e.metrics.get(self.metric)) is not None}
        with_score = [entry for entry in found if entry.step in scored]
        return sorted(with_score, key=lambda entry: (sign * scored[entry.step], entry.step))

    def _remove(self, path: Path) -> None:
        # Renamed first: a kill in mid-removal must not leave half a checkpoint under a good name.
        if path.exists():
            doomed = path.with_name(f"{path.name}.removed{PARTIAL}")
            shutil.rmtree(doomed, ignore_errors=True)
            os.rename(path, doomed)
            shutil.rmtree(doomed, ignore_errors=True)

    def _free(self) -> int:
        return shutil.disk_usage(self.folder).free

    def _size_of_newest(self) -> int:
        found, _ = self._shelf()
        return found[-1][1].total_bytes if found else 0

    def _full(self, step: int, reason: str) -> DiskFull:
        kept = ", ".join(str(found.step) for found in self.published()) or "none"
        return DiskFull(
            f"the checkpoint of step {step} cannot be saved in {self.folder}: {reason} (kept so far: {kept})",
            "free space there, or set `output` to a larger disk, or lower checkpoint.keep_last or keep_best",
        )

    def _means_full(self, error: BaseException) -> bool:
        seen: BaseException | None = error
        while seen is not None:
            text = str(seen).lower()
            if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
                return True
            if not isinstance(seen, TemperError) and any(words in text for words in _FULL_WORDS):
                return True
            if any(words in text for words in _WRITER_WORDS) and self._free() < 1 << 20:
                return True
            seen = seen.__cause__ or seen.__context__
        return False


def _found(path: Path, manifest: Manifest) -> Found:
    return Found(step=manifest.step, path=path, metrics=manifest.metrics, facts=manifest.facts)


def _step(path: Path) -> int:
    match = _PUBLISHED.fullmatch(path.name)
    return int(match[1]) if match else -1


def _size(count: int) -> str:
    if count < 1 << 10:
        return f"{count} bytes"
    power = min(4, (count.bit_length() - 1) // 10)
    return f"{count / (1 << 10 * power):.1f} {('KiB', 'MiB', 'GiB', 'TiB')[power - 1]}"
