"""How much a scratch folder holds, where no mount of its own says so."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
from pathlib import Path

import pytest

from engine.sandbox.scratch import Scratch, held_mb, unlinked_mb

LARGEST = 16.0
"""MiB, of a file in a scratch folder."""


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


def _unlinked(folder: Path) -> float:
    return unlinked_mb(os.getpid(), str(folder), LARGEST)


def test_a_mapping_may_hold_as_much_as_a_file_can(tmp_path: Path) -> None:
    before = _unlinked(tmp_path)
    path = tmp_path / "mapped"
    path.write_bytes(bytes(1 << 20))
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    fd = os.open(path, os.O_RDONLY)
    address = libc.mmap(None, ctypes.c_size_t(4096), mmap.PROT_READ, mmap.MAP_PRIVATE, fd, ctypes.c_long(0))
    os.unlink(path)
    assert before + 1 <= _unlinked(tmp_path) < before + 1.1  # an open one tells its size
    os.close(fd)
    assert _unlinked(tmp_path) == before + LARGEST
    libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(4096))
    assert _unlinked(tmp_path) == before


def test_files_without_a_name_count(tmp_path: Path) -> None:
    before = _unlinked(tmp_path)
    with open(tmp_path / "x", "wb", 0) as file:
        file.write(bytes(2 << 20))
        assert _unlinked(tmp_path) == before
        os.unlink(tmp_path / "x")
        assert _unlinked(tmp_path) - before >= 2
    assert _unlinked(tmp_path) == before


def test_a_sign_on_the_folder_itself_is_not_left_for_the_next_program(tmp_path: Path) -> None:
    scratch = Scratch(str(tmp_path))
    before = os.stat(tmp_path).st_mtime_ns
    (tmp_path / "x").touch()
    os.utime(tmp_path, (1, 1))
    assert scratch.clean() and scratch.clean()
    assert os.stat(tmp_path).st_mtime_ns == before
    try:
        os.setxattr(tmp_path, "user.x", b"hello")
    except OSError as error:
        pytest.skip(f"this file system keeps no attributes ({error})")
    assert not scratch.clean()
