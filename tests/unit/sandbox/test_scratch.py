"""How much a scratch folder holds, where no mount of its own says so."""

from __future__ import annotations

import math
import os
from pathlib import Path

from engine.sandbox.scratch import held_mb, unlinked_mb


def test_files_count_in_folders_of_any_depth(tmp_path: Path) -> None:
    assert held_mb(str(tmp_path), 10) < 0.1
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "x").write_bytes(bytes(3 << 20))
    (tmp_path / "sparse").touch()
    os.truncate(tmp_path / "sparse", 1 << 30)
    (tmp_path / "link").symlink_to("/usr")
    assert 3 <= held_mb(str(tmp_path), 10) < 3.1


def test_too_many_entries_are_too_much(tmp_path: Path) -> None:
    for i in range(11):
        (tmp_path / str(i)).touch()
    assert held_mb(str(tmp_path), 10) == math.inf
    assert held_mb(str(tmp_path), 11) < 1


def test_a_folder_that_goes_or_is_closed_is_no_error(tmp_path: Path) -> None:
    assert held_mb(str(tmp_path / "gone"), 10) == 0


def test_files_without_a_name_count(tmp_path: Path) -> None:
    before = unlinked_mb(os.getpid(), str(tmp_path))
    with open(tmp_path / "x", "wb", 0) as file:
        file.write(bytes(2 << 20))
        assert unlinked_mb(os.getpid(), str(tmp_path)) == before
        os.unlink(tmp_path / "x")
        assert unlinked_mb(os.getpid(), str(tmp_path)) - before >= 2
    assert unlinked_mb(os.getpid(), str(tmp_path)) == before
