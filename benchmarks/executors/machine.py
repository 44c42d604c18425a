"""What a results page says of the machine, the commit and the command, and that it is of the whole benchmark."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
_HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def command() -> str:
    """As it was typed; folders of the user's are of no use to a reader."""
    words = [f"python {Path(sys.argv[0]).resolve().relative_to(ROOT)}"]
    hide = False
    for word in sys.argv[1:]:
        words.append("FOLDER" if hide else "--peers FOLDER" if word.startswith("--peers=") else word)
        hide = word == "--peers"
    return " ".join(words)


def prose(text: str) -> str:
    """Filled lines, with no option of a command torn apart."""
    return textwrap.fill(text, 110, break_on_hyphens=False)


def demand_whole(parser: argparse.ArgumentParser, wish: argparse.Namespace, *parts: str) -> None:
    """End with the usage where --write meets an option of `parts`: a part's page would replace that of the whole."""
    given = [f"--{name}" for name in parts if getattr(wish, name) != parser.get_default(name)]
    if wish.write and given:
        parser.error(f"--write replaces the page of the whole benchmark: leave out {' and '.join(given)}")


def facts() -> str:
    """Date, interpreter, kernel, processor and commit in one sentence's form."""
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = " ".join(line.partition(":")[2].split())
            break
    huge = _HUGE.read_text().partition("[")[2].partition("]")[0] if _HUGE.exists() else "unknown"
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {_commit()}, Python {platform.python_version()}, "
        f"Linux {platform.release()} (transparent huge pages: {huge}), {platform.machine()}, {model}, "
        f"{os.cpu_count()} cores"
    )


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    name = git("rev-parse", "--short", "HEAD") or "unknown"
    changed = git("status", "--porcelain", "--", "engine", "benchmarks")
    return f"{name} with changes" if changed else name
