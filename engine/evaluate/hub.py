"""Data sets of the hub: asked once and quickly, from the cache where the hub says nothing, and at which commit."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.errors import TemperError, WishError

PATIENCE_SECONDS = 5.0
"""How long the hub gets to say anything at all, twice; the client itself would go on for half a minute or more."""
_revisions: dict[str, str] = {}


def revision(hub_id: str) -> str | None:
    """The commit that a hub id was last read at by this process, where the client told it."""
    return _revisions.get(hub_id)


def downloaded(hub_id: str, names: Sequence[str]) -> Iterator[str]:
    """Files of a data set on the hub; where the hub cannot be reached, what an earlier run left in the cache."""
    from huggingface_hub import hf_hub_download

    with _asking(hub_id) as offline:
        for name in names:
            path = hf_hub_download(hub_id, name, repo_type="dataset", local_files_only=offline)
            _remember(hub_id, path)
            yield path


def rows_of(source: str, split: str) -> Any:
    """A split of a hub id; where the hub cannot be reached, of what an earlier run left in the cache."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    with _asking(source) as offline:
        datasets.config.HF_HUB_OFFLINE = offline
        try:
            rows = datasets.load_dataset(source, split=split)
        finally:
            datasets.config.HF_HUB_OFFLINE = before
    for file in rows.cache_files[:1]:
        _remember(source, file["filename"])
    return rows


@contextmanager
def _asking(hub_id: str) -> Iterator[bool]:
    """Whether only the cache is to be asked: the hub is tried once, and whatever goes wrong is told in a sentence."""
    import datasets
    from huggingface_hub import constants

    offline = bool(datasets.config.HF_HUB_OFFLINE)
    unreachable = "" if offline else _unreachable(constants.ENDPOINT)
    try:
        yield offline or bool(unreachable)
    except TemperError:
        raise
    except Exception as error:  # the hub client raises a dozen unrelated types
        raise _not_loaded(hub_id, error, offline=offline, unreachable=unreachable) from error


def _remember(hub_id: str, path: str) -> None:
    """Note the commit a data set was read at: the client keeps what it read in a folder of that name."""
    for part in reversed(Path(path).parts):
        if re.fullmatch("[0-9a-f]{40}", part):
            _revisions[hub_id] = part
            return


def _not_loaded(hub_id: str, error: Exception, *, offline: bool, unreachable: str) -> WishError:
    from huggingface_hub import constants

    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if offline or unreachable:
        why = "HF_HUB_OFFLINE is set" if offline else f"{constants.ENDPOINT} cannot be reached: {unreachable}"
        reason = f"{why}; the cache does not hold it"
    return WishError(
        f"cannot load {hub_id} from the hub ({reason})",
        "check the id and the connection, or name the benchmark's own file (evaluate.data, or --data)",
    )


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
