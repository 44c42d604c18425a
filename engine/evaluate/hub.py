"""Data sets of the hub: from the cache where the hub says nothing, and at which commit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.hub import asking

FIX = "check the id and the connection, or name the benchmark's own file (evaluate.data, or --data)"
_revisions: dict[str, str] = {}


def revision(hub_id: str) -> str | None:
    """The commit that a hub id was last read at by this process, where the client told it."""
    return _revisions.get(hub_id)


def downloaded(hub_id: str, names: Sequence[str]) -> Iterator[str]:
    """Files of a data set on the hub; where the hub cannot be reached, what an earlier run left in the cache."""
    from huggingface_hub import hf_hub_download

    with asking(hub_id, FIX) as offline:
        for name in names:
            path = hf_hub_download(hub_id, name, repo_type="dataset", local_files_only=offline)
            _remember(hub_id, path)
            yield path


def rows_of(source: str, split: str) -> Any:
    """A split of a hub id; where the hub cannot be reached, of what an earlier run left in the cache."""
    from engine.data.sources import from_hub

    with asking(source, FIX) as offline:
        rows = from_hub(source, None, split, offline=offline)
    for file in rows.cache_files[:1]:
        _remember(source, file["filename"])
    return rows


def _remember(hub_id: str, path: str) -> None:
    """Note the commit a data set was read at: the client keeps what it read in a folder of that name."""
    for part in reversed(Path(path).parts):
        if re.fullmatch("[0-9a-f]{40}", part):
            _revisions[hub_id] = part
            return
