"""The manifest of a checkpoint: what lies in the folder, with size and hash, to know a torn one by."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

NAME = "manifest.json"
FORMAT = 1

Result = TypeVar("Result")


class Torn(Exception):
    """A folder that is not the checkpoint it claims to be; the message is the reason, fit for a sentence."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size and SHA-256 of one file, as it was when the checkpoint was published."""

    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A checkpoint's own account of itself. Keys of `files` are paths relative to its folder."""

    step: int
    metrics: dict[str, float | None]
    facts: dict[str, Any]
    files: dict[str, FileRecord]

    @property
    def total_bytes(self) -> int:
        """Bytes of all files it lists."""
        return sum(record.bytes for record in self.files.values())


def seal(folder: Path, *, step: int, metrics: Mapping[str, Any], facts: Mapping[str, Any]) -> Manifest:
    """Bring every file of `folder` to the disk, hash each once, and write the manifest after all of them.

    Raises:
        OSError: a file cannot be read or brought to the disk; there is no manifest then.
    """
    names = _names(folder)
    records = _in_threads(lambda name: _settle(folder / name), names)
    for directory in {(folder / name).parent for name in names} | {folder}:
        sync_folder(directory)
    manifest = Manifest(
        step=step,
        metrics={key: _finite(value) for key, value in metrics.items()},
        facts=dict(facts),
        files=dict(zip(names, records, strict=True)),
    )
    with (folder / NAME).open("w", encoding="utf-8") as file:
        file.write(_encode(manifest))
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)
    return manifest


def read(folder: Path) -> Manifest:
    """The manifest of `folder`; it says nothing yet of the files themselves.

    Raises:
        Torn: there is none, it was cut short, or somebody edited it.
    """
    path = folder / NAME
    if not path.is_file():
        raise Torn(f"it has no {NAME}, which is written last: the save did not finish")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        digest = value.pop("digest")
        files = {name: FileRecord(**record) for name, record in value["files"].items()}
        manifest = Manifest(step=value["step"], metrics=value["metrics"], facts=value["facts"], files=files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Torn(f"its {NAME} is not readable ({type(error).__name__}: {error})") from error
    if value.get("format") != FORMAT:
        raise Torn(f"its {NAME} has format {value.get('format')}, this version reads {FORMAT}")
    if digest != _digest(value):
        raise Torn(f"its {NAME} was altered after it was written")
    return manifest


def check(folder: Path, manifest: Manifest) -> None:
    """Compare every file with the manifest: all sizes first, since they are free, then all hashes.

    Raises:
        Torn: a file is missing, or its size or content is another one.
    """
    for name, record in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise Torn(f"{name} is missing")
        size = path.stat().st_size
        if size != record.bytes:
            raise Torn(f"{name} has {size} bytes, the manifest says {record.bytes}")
    names = list(manifest.files)
    hashes = _in_threads(lambda name: _hash(folder / name), names)
    for name, found in zip(names, hashes, strict=True):
        if found != manifest.files[name].sha256:
            raise Torn(f"{name} was altered: its SHA-256 is not the manifest's")


def sync_folder(folder: Path) -> None:
    """Bring a folder's entries (new names, renames) to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Bring all files of a folder, and their names, to the disk."""
    for name in _names(folder):
        descriptor = os.open(folder / name, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)


def _names(folder: Path) -> list[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and path != folder / NAME)
    return sorted(path.relative_to(folder).as_posix() for path in files)


def _settle(path: Path) -> FileRecord:
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return FileRecord(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _in_threads(work: Callable[[str], Result], names: Iterable[str]) -> list[Result]:
    # hashlib and fsync release the interpreter lock, so threads are enough to keep a fast disk busy.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(work, names))


def _encode(manifest: Manifest) -> str:
    value = {
        "format": FORMAT,
        "step": manifest.step,
        "metrics": manifest.metrics,
        "facts": manifest.facts,
        "files": {n: {"bytes": r.bytes, "sha256": r.sha256} for n, r in manifest.files.items()},
    }
    # Through JSON and back: the digest is of what a reader will see (tuples become lists, int keys strings).
    value = json.loads(json.dumps(value))
    return json.dumps(value | {"digest": _digest(value)}, indent=1) + "\n"


def _digest(value: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _finite(value: Any) -> float | None:
    number = float(value) if value is not None else math.nan
    return number if math.isfinite(number) else None
