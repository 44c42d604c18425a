"""The state of the git checkout a run was started in."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 5.0


def checkout(folder: Path) -> dict[str, Any] | None:
    """Commit, and whether files that git follows were changed since (None: git did not say in time).

    None where the folder is in no checkout, has no commit yet, or there is no git.
    """
    commit = _git(folder, "rev-parse", "--verify", "HEAD")
    if not commit:
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changed is None else bool(changed)}


def _git(folder: Path, *words: str) -> str | None:
    # Without optional locks nothing is written into a checkout that somebody may be working in.
    argv = ["git", "--no-optional-locks", "-C", str(folder), *words]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=PATIENCE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
