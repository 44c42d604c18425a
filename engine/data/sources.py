"""Where rows come from: JSONL, Parquet and CSV files, folders of them, hub ids. Errors name file and line."""

from __future__ import annotations

import csv
import difflib
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import hub
from engine.config import Source
from engine.errors import WishError

ID_FIELDS = ("id", "task_id")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


@dataclass(frozen=True, slots=True)
class Row:
    """One row: its unique id within the source, where it stands (for errors), its columns."""

    id: str
    where: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """All rows of a source, and the files they came from with their sha256 (empty for hub data)."""

    rows: list[Row]
    files: dict[str, str]


@dataclass(frozen=True, slots=True)
class Stream:
    """A source that is read row by row, as often as it is asked to; nothing of it is held.

    Rows are named by their places. `files` are those whose bytes decide the rows; for hub data, the files of the
    library's own cache, which are no names to tell anybody.
    """

    source: Source
    files: tuple[Path, ...]
    rows: Callable[[], Iterator[Row]]
    local: bool


def stream(source: Source) -> Stream:
    """Find a source, without reading it.

    Raises:
        WishError: there is nothing, or nothing that can be read.
    """
    path = Path(source.path).expanduser()
    if path.exists():
        files = tuple(_files(path))
        return Stream(source, files, lambda: _local(path, files), local=True)
    if not _is_hub_id(source.path):
        raise _missing(path)
    data = _hub(source)
    name = "/".join(filter(None, (source.path, source.name, source.split)))
    files = tuple(Path(file["filename"]) for file in getattr(data, "cache_files", ()))
    numbered = lambda: (  # noqa: E731
        Row(f"{name}:{at}", f"{name}, row {at}", row) for at, row in enumerate(data, start=1)
    )
    return Stream(source, files, numbered, local=False)


def read(source: Source) -> Table:
    """Read every row of a source.

    Raises:
        WishError: nothing there, nothing in it, or a line that cannot be read.
    """
    found = stream(source)
    rows = list(found.rows())
    if not rows:
        raise empty(source)
    hashes = {str(file): sha256(file) for file in found.files} if found.local else {}
    return Table(_with_ids(rows), hashes)


def empty(source: Source) -> WishError:
    """A source without a row is refused."""
    return WishError(f"{source.path} holds no rows", "point data at a file with at least one row")


def sha256(file: Path) -> str:
    """Hash of a file's bytes, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _local(path: Path, files: Sequence[Path]) -> Iterator[Row]:
    for file in files:
        name = str(file.relative_to(path)) if path.is_dir() else file.name
        for at, fields in _reader(file)(file):
            yield Row(f"{name}:{at}", f"{file}:{at}", fields)


def _with_ids(rows: list[Row]) -> list[Row]:
    """Rows named by their own id column where it is unique, by file and line otherwise."""
    for field in ID_FIELDS:
        own = [row.fields.get(field) for row in rows]
        if all(isinstance(value, str | int) for value in own) and len(set(map(str, own))) == len(own):
            return [Row(str(value), row.where, row.fields) for value, row in zip(own, rows, strict=True)]
    return rows


def _files(path: Path) -> list[Path]:
    """The data files of a path: itself, or those below a folder in name order."""
    if path.is_file():
        _reader(path)
        return [path]
    below = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    files = [file for file in below if any(file.name.lower().endswith(suffix) for suffix in _READERS)]
    if not files:
        there = ", ".join(file.name for file in below[:5]) or "nothing"
        raise WishError(
            f"the folder {path} holds no data file, only {there}" if below else f"the folder {path} is empty",
            f"put files ending in {', '.join(_READERS)} there",
        )
    return files


def _reader(file: Path) -> Callable[[Path], Iterator[tuple[str, dict[str, Any]]]]:
    for suffix, reader in _READERS.items():
        if file.name.lower().endswith(suffix):
            return reader
    raise WishError(
        f"{file} is not of a kind that can be read", f"use a file ending in {', '.join(_READERS)}"
    )


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of a text file, packed or plain."""
    number = 0
    try:
        with gzip.open(file, "rb") if file.name.lower().endswith(".gz") else file.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise WishError(f"{file}:{number} is not UTF-8 ({error.reason})", "save the file as UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        raise WishError(f"{file} cannot be read past line {number} ({error})", "check the file") from error


def _jsonl(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in _lines(file):
        if not line.strip():
            continue
        try:
            row = json.loads(line.rstrip("\r\n"))
        except json.JSONDecodeError as error:
            raise WishError(
                f"{file}:{number} is not JSON ({error.msg} at column {error.colno}): {line.strip()[:60]!r}",
                "mend or remove that line; a JSONL file holds one JSON object a line",
            ) from error
        except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets without end
            raise WishError(
                f"{file}:{number} cannot be read as JSON ({error})", "mend or remove that line"
            ) from None
        if not isinstance(row, dict):
            raise WishError(
                f"{file}:{number} holds a {type(row).__name__}, not an object", "write one JSON object a line"
            )
        yield str(number), row


def _csv(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    # A field of code may be long; the module's own limit of 128 KiB would refuse it.
    csv.field_size_limit(1 << 30)
    reader = csv.DictReader(
        (line for _, line in _lines(file)), delimiter="\t" if ".tsv" in file.name.lower() else ","
    )
    try:
        for row in reader:
            if None in row or None in row.values():
                raise WishError(
                    f"{file}:{reader.line_num} has not the header's {len(reader.fieldnames or ())} columns",
                    "mend or remove that line; quote fields that hold commas or line breaks",
                )
            yield str(reader.line_num), row
    except csv.Error as error:
        raise WishError(
            f"{file}:{reader.line_num} is not CSV ({error})", "mend or remove that line"
        ) from error


def _parquet(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=1024):
            for row in batch.to_pylist():
                number += 1
                yield str(number), row
    except (pyarrow.ArrowException, OSError) as error:
        raise WishError(
            f"{file} cannot be read as Parquet past row {number} ({str(error).splitlines()[0]})",
            "check the file",
        ) from error


_READERS: dict[str, Callable[[Path], Iterator[tuple[str, dict[str, Any]]]]] = {
    ".jsonl": _jsonl,
    ".jsonl.gz": _jsonl,
    ".parquet": _parquet,
    ".csv": _csv,
    ".csv.gz": _csv,
    ".tsv": _csv,
}


def _is_hub_id(path: str) -> bool:
    """Whether a path that is not there can only mean a hub id: no data suffix, no folder of that name."""
    if not _HUB_ID.fullmatch(path) or any(
        path.lower().endswith(suffix) for suffix in (*_READERS, ".json", ".txt")
    ):
        return False
    return "/" in path and not Path(path.split("/")[0]).exists()


def from_hub(path: str, name: str | None, split: str, *, offline: bool) -> Any:
    """A split of a hub id as `datasets` gives it; offline, of what an earlier run left in the cache."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or offline
    try:
        return datasets.load_dataset(path, name, split=split)
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _hub(source: Source) -> Iterable[dict[str, Any]]:
    silence = hub.silence()
    try:
        return from_hub(source.path, source.name, source.split, offline=bool(silence))
    except Exception as error:
        # The library raises a dozen unrelated types for "not there", "no network" and "no such split".
        raise WishError(
            f"{source.path} is not a file or folder here, and the hub did not give its split "
            f"{source.split!r} ({silence or hub.told(error)})",
            "check the spelling, `name` and `split`, and the network, or give a local path",
        ) from error


def _missing(path: Path) -> WishError:
    """Nothing at `path`: say so, with the nearest name there is."""
    step = path
    while not step.parent.is_dir():
        step = step.parent
    near = difflib.get_close_matches(step.name, sorted(entry.name for entry in step.parent.iterdir()), n=1)
    fix = f"did you mean {step.parent / near[0]}?" if near else f"look in {step.parent.resolve()}"
    return WishError(f"the data file or folder {path} does not exist", fix)
