"""Rows of tasks and samples: JSONL files, gzipped or not, and the hub; whatever is wrong is named by file and line."""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.errors import WishError

PATIENCE_SECONDS = 5.0
"""How long the hub gets to say anything at all, twice; the client itself would go on for half a minute or more."""
_revisions: dict[str, str] = {}


def from_file(source: str) -> Iterator[tuple[str, Any]]:
    """(file:line, JSON value) of each line that is not empty; `-` is standard input.

    Raises:
        WishError: the file cannot be read, or a line is not JSON.
    """
    name = "standard input" if source == "-" else source
    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode("utf-8-sig")
    except FileNotFoundError:
        raise WishError(f"there is no file {source}", "check the path") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise WishError(
            f"cannot read {name} ({error})", "give a JSONL file in UTF-8, gzipped or not"
        ) from error
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
        if line.strip():
            yield f"{name}:{number}", _parse(line, f"{name}:{number}")


def from_file_or_hub(source: str | None, hub_id: str, *, split: str = "test") -> Iterator[tuple[str, Any]]:
    """(place, row) of a benchmark: of a whole file, or of a split of a hub id; None: of `hub_id`.

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
    rows = _from_hub(source, split)
    for number, row in enumerate(rows):
        yield f"{source}, row {number}", row


def revision(hub_id: str) -> str | None:
    """The commit that a hub id was last read at by this process, where the client told it."""
    return _revisions.get(hub_id)


def _from_hub(source: str, split: str) -> Any:
    """A split of a hub id; where the hub cannot be reached, of what an earlier run left in the cache."""
    import datasets
    from huggingface_hub import constants

    offline = bool(datasets.config.HF_HUB_OFFLINE)
    unreachable = "" if offline else _unreachable(constants.ENDPOINT)
    datasets.config.HF_HUB_OFFLINE = offline or bool(unreachable)
    try:
        rows = datasets.load_dataset(source, split=split)
    except Exception as error:  # the hub client raises a dozen unrelated types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if offline or unreachable:
            why = (
                "HF_HUB_OFFLINE is set"
                if offline
                else f"{constants.ENDPOINT} cannot be reached: {unreachable}"
            )
            reason = f"{why}; the cache does not hold it"
        raise WishError(
            f"cannot load {source} from the hub ({reason})",
            "check the id and the connection, or name the benchmark's own file (evaluate.data, or --data)",
        ) from error
    finally:
        datasets.config.HF_HUB_OFFLINE = offline
    # The client keeps the rows of a commit in a folder of its name.
    kept = [Path(file["filename"]).parent.name for file in rows.cache_files[:1]]
    if kept and re.fullmatch("[0-9a-f]{40}", kept[0]):
        _revisions[source] = kept[0]
    return rows


def _unreachable(endpoint: str) -> str:
    """Why the hub says nothing; empty where it says anything, be it an error."""
    from huggingface_hub import get_session

    reason = ""
    for pause in (0.0, 1.0):
        time.sleep(pause)
        try:
            get_session().head(endpoint, timeout=PATIENCE_SECONDS)
            return ""
        except Exception as error:  # of whichever HTTP library the client is built on
            reason = str(error) or type(error).__name__
    return reason


def _no_hub_id(name: str) -> bool:
    return "/" not in name or name.startswith((".", "/")) or name.endswith((".jsonl", ".gz", ".json"))


def _parse(line: str, place: str) -> Any:
    try:
        return json.loads(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        raise WishError(
            f"{place}: not JSON ({error.msg} at column {error.colno})", "mend or remove the line"
        ) from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, brackets without end
        raise WishError(f"{place}: cannot be read as JSON ({error})", "mend or remove the line") from None
