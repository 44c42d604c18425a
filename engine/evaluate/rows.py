"""Rows of tasks and samples: JSONL files, gzipped or not, and the hub; whatever is wrong is named by file and line."""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import IO, Any

from engine.errors import WishError
from engine.evaluate import hub


def from_file(source: str) -> Iterator[tuple[str, Any]]:
    """(file:line, JSON value) of each line that is not empty; `-` is standard input.

    Raises:
        WishError: the file cannot be read, or a line is not JSON.
    """
    name = "standard input" if source == "-" else source
    with opened(source) as file:
        for number, data in enumerate(file, start=1):
            line = _decoded(data, f"{name}:{number}", "utf-8-sig" if number == 1 else "utf-8")
            if line.strip():
                yield f"{name}:{number}", _parse(line, f"{name}:{number}")


@contextmanager
def opened(source: str) -> Iterator[IO[bytes]]:
    """A file's bytes, unpacked: some sets are files of gigabytes, so none is read ahead; `-` is standard input.

    Raises:
        WishError: it cannot be read, also while whoever opened it reads.
    """
    try:
        if source == "-":
            yield _unzipped(BufferedReader(BytesIO(sys.stdin.buffer.read())))
        else:
            with open(source, "rb") as file:
                yield _unzipped(file)
    except FileNotFoundError:
        raise WishError(f"there is no file {source}", "check the path") from None
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        name = "standard input" if source == "-" else source
        raise WishError(
            f"cannot read {name} ({error})", "give a JSONL file in UTF-8, gzipped or not"
        ) from error


def _unzipped(file: BufferedReader) -> IO[bytes]:
    return gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else file  # type: ignore[return-value]


def from_file_or_hub(
    source: str | None, hub_id: str, *, split: str = "test", files: Sequence[str] = ()
) -> Iterator[tuple[str, Any]]:
    """(place, row) of a benchmark: of a whole file, or of a split of a hub id; None: of `hub_id`.

    Args:
        source: a file, a hub id, or None.
        hub_id: where the benchmark is published.
        split: of a hub id.
        files: JSONL files of `hub_id` that are the split, where it is published as files and a loading script, which
            `datasets` no longer runs.

    Raises:
        WishError: no such file or dataset, or a line that is not JSON.
    """
    source = source or hub_id
    if Path(source).exists() or _no_hub_id(source):
        if not Path(source).exists():
            raise WishError(
                f"there is no file {source}", f"check the path, or name a hub id such as {hub_id}"
            )
        yield from from_file(source)
        return
    if source == hub_id and files:
        for path in hub.downloaded(source, files):
            yield from from_file(path)
        return
    for number, row in enumerate(hub.rows_of(source, split)):
        yield f"{source}, row {number}", row


def _no_hub_id(name: str) -> bool:
    return "/" not in name or name.startswith((".", "/")) or name.endswith((".jsonl", ".gz", ".json"))


def _decoded(data: bytes, place: str, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise WishError(
            f"{place}: not UTF-8 ({error.reason} at byte {error.start + 1})", "save the file as UTF-8"
        ) from None


def _parse(line: str, place: str) -> Any:
    try:
        return json.loads(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        raise WishError(
            f"{place}: not JSON ({error.msg} at column {error.colno})", "mend or remove the line"
        ) from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets without end
        raise WishError(f"{place}: cannot be read as JSON ({error})", "mend or remove the line") from None
