"""One writer a folder and a file: who comes second is told so, and nothing of the first is touched."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from engine.errors import WishError

LOCK = ".lock"


def hold(file: IO[Any], what: Path) -> None:
    """Keep an open file for this process until it is closed.

    Raises:
        WishError: another process holds it; `what` is what it writes.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise WishError(
            f"another process is writing {what}", "let it finish, or choose another folder"
        ) from None
    except OSError:
        pass  # some network file systems have no locks; two writers are then the user's to avoid


@contextmanager
def alone(folder: Path | None) -> Iterator[None]:
    """Make a folder and keep it for this process; None is no folder.

    Raises:
        WishError: another process writes there, or nobody may.
    """
    if folder is None:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a")
    except OSError as error:
        raise WishError(
            f"the folder {folder} cannot be written: {error.strerror}", "name one that you may write to"
        ) from None
    with file:
        hold(file, folder)
        yield
