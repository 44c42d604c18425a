"""The hub: whether it says anything is found out quickly, before its client would try for most of a minute."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from engine.errors import TemperError, WishError

PATIENCE_SECONDS = 5.0
"""How long the hub gets to say anything at all, twice."""
REMEMBERED_SECONDS = 60.0
"""For how long what was found out holds: whoever wants a model, a tokenizer and rows asks once."""


def silence() -> str:
    """Why the hub is not to be asked: a reader of its cache asks for local files alone; empty where it answers."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    reason = _unreachable(constants.ENDPOINT, int(time.monotonic() / REMEMBERED_SECONDS))
    return f"{constants.ENDPOINT} cannot be reached: {reason}" if reason else ""


def cache_only(place: str) -> bool:
    """Whether a hub id is to be read from the cache, since the hub is silent; a folder never is."""
    return not Path(place).expanduser().exists() and bool(silence())


@contextmanager
def asking(hub_id: str, fix: str) -> Iterator[bool]:
    """Whether only the cache is to be asked; whatever goes wrong within becomes a WishError of one sentence."""
    reason = silence()
    try:
        yield bool(reason)
    except TemperError:
        raise
    except Exception as error:  # the hub's clients raise a dozen unrelated types
        why = f"{reason}; the cache does not hold it" if reason else told(error)
        raise WishError(f"cannot load {hub_id} from the hub ({why})", fix) from error


def told(error: Exception) -> str:
    """An error of the hub's clients in a line: theirs go on over several, and some say nothing but a status first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}" if lines else type(error).__name__


@lru_cache(maxsize=8)
def _unreachable(endpoint: str, when: int) -> str:
    """Why the hub says nothing; empty where it says anything, be it an error. `when` makes old answers forgotten."""
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
