"""Kept on disk: whole or not at all, built once however many want it, never trusted once it was touched."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from engine.data.cache import MANIFEST, Cache, Facts

LIMIT = 1 << 30
SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from engine.data.cache import Cache

def build(folder):
    with open(sys.argv[2], "a") as log:
        log.write("built\\n")
    np.save(folder / "numbers.npy", np.arange(9))
    if sys.argv[3] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(float(sys.argv[3]))
    return {"by": os.getpid()}

entry = Cache(Path(sys.argv[1]), limit_bytes=1 << 30).fetch("key", build)
print(int(entry.arrays["numbers"].sum()), entry.facts["by"])
"""


def nine(folder: Path) -> Facts:
    np.save(folder / "numbers.npy", np.arange(9))
    return {"nine": 9}


def other(folder: Path) -> Facts:
    np.save(folder / "numbers.npy", np.arange(3))
    return {"three": 3}


def never(folder: Path) -> Facts:
    raise AssertionError("built a second time")


def start(folder: Path, log: Path, how: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", SCRIPT, str(folder), str(log), how]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def test_what_was_built_is_found_again(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "kept", limit_bytes=LIMIT)
    first = cache.fetch("key", nine)
    second = cache.fetch("key", never)
    assert first.built and not second.built
    assert second.arrays["numbers"].tolist() == list(range(9)) and second.facts == {"nine": 9}
    assert not second.arrays["numbers"].flags.writeable
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["key"]


@pytest.mark.parametrize("how", ["flipped", "shorter", "gone", "manifest", "facts"])
def test_what_was_touched_is_built_anew(tmp_path: Path, how: str) -> None:
    cache = Cache(tmp_path, limit_bytes=LIMIT)
    folder = cache.fetch("key", nine).folder
    file, manifest = folder / "numbers.npy", folder / MANIFEST
    if how == "flipped":
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    elif how == "shorter":
        file.write_bytes(file.read_bytes()[:-8])
    elif how == "gone":
        file.unlink()
    elif how == "manifest":
        manifest.write_text("{")
    else:
        kept = json.loads(manifest.read_text())
        kept["value"]["facts"]["nine"] = 10
        manifest.write_text(json.dumps(kept))
    again = cache.fetch("key", other)
    assert again.built and again.facts == {"three": 3} and len(again.arrays["numbers"]) == 3


def test_a_copy_with_the_same_bytes_is_as_good(tmp_path: Path) -> None:
    """Backups and moves change a file's times, which are looked at first, and not its content."""
    cache = Cache(tmp_path, limit_bytes=LIMIT)
    file = cache.fetch("key", nine).folder / "numbers.npy"
    os.utime(file, (1, 1))
    assert not cache.fetch("key", never).built


def test_two_at_once_build_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    both = [start(tmp_path / "kept", log, "0.5") for _ in range(2)]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert said[0] == said[1] and said[0].startswith("36 ")
    assert log.read_text() == "built\n"


def test_a_builder_that_is_killed_blocks_nobody_and_leaves_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    killed = start(tmp_path / "kept", log, "die")
    assert killed.wait(timeout=60) == -9
    assert list((tmp_path / "kept").glob("*.partial")) or list((tmp_path / "kept").glob(".*.partial"))
    cache = Cache(tmp_path / "kept", limit_bytes=LIMIT)
    assert cache.fetch("key", nine).built
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["key"]


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=LIMIT)
    with pytest.raises(AssertionError, match="second time"):
        cache.fetch("key", never)
    assert not list(tmp_path.iterdir())


def test_those_used_least_recently_make_room_but_none_in_use(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=1)
    used = cache.fetch("in use", nine)
    for name in ("old", "new"):
        cache.fetch(name, nine)
        time.sleep(0.01)
    assert {path.name for path in tmp_path.iterdir()} == {"in use", "new"}
    assert used.arrays["numbers"].sum() == 36


def test_a_note_is_found_again_until_it_is_touched(tmp_path: Path) -> None:
    cache = Cache(tmp_path, limit_bytes=LIMIT)
    entry = cache.fetch("key", nine)
    assert cache.noted(entry, "seen") is None
    cache.note(entry, "seen", {"rows": [1, "ü"]})
    assert cache.noted(entry, "seen") == {"rows": [1, "ü"]}
    file = entry.folder / "seen.json"
    file.write_text(file.read_text().replace("1", "2", 1))
    assert cache.noted(entry, "seen") is None
