"""Writes rows again with secrets and personal data replaced by marks, into a file that was not there before."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.config import Source
from engine.data.privacy import redact
from engine.data.sources import Row
from engine.errors import WishError


def demand_new(file: Path, sources: Sequence[Source]) -> None:
    """Raise WishError where the file exists, or where its rows would need more than one way of reading."""
    if file.exists():
        raise WishError(f"{file} exists and is not overwritten", "name another file, or move it away")
    if file.suffix != ".jsonl":
        raise WishError(f"{file} does not end in .jsonl, as a file of rows does", "name it OUT.jsonl")
    if len({(source.format, tuple(sorted(source.fields.items()))) for source in sources}) > 1:
        raise WishError(
            "the training sources differ in `format` or `fields`, so that one file cannot hold their rows",
            "redact them one at a time, each from a run file of its own",
        )


def write(file: Path, rows: Sequence[Row]) -> int:
    """Write the rows, every text in them redacted; how many were changed.

    Raises:
        WishError: the file exists or cannot be written, or a row holds what JSON cannot.
    """
    lines, changed = [], 0
    for row in rows:
        clean = _redacted(row.fields)
        changed += clean != row.fields
        try:
            lines.append(json.dumps(clean) + "\n")
        except (TypeError, ValueError) as error:
            raise WishError(
                f"{row.where} cannot be written as JSON ({error})", "leave that column out"
            ) from None
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            stream.writelines(lines)
        os.link(partial, file)  # as a rename, but never over a file that has come meanwhile
    except FileExistsError:
        raise WishError(f"{file} exists and is not overwritten", "name another file") from None
    except OSError as error:
        raise WishError(
            f"{file} cannot be written: {error.strerror}", "name a new file in a folder you own"
        ) from None
    finally:
        partial.unlink(missing_ok=True)
    return changed


def _redacted(value: Any) -> Any:
    """A value with each text in it redacted, at any depth; names of columns stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: _redacted(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(each) for each in value]
    return value
