"""What every test may ask for: the root of the project, the field's data, and two threads at most."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Two ranks of a test each with a thread per core would spend their time on each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def _caches_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Rows that tests encode, in whatever process, are kept in a folder that goes with the session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEMPER_CACHE", str(tmp_path_factory.mktemp("kept")))
        yield


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """`small_disk(MIB)` is a folder on a disk of that size; skipped where none can be mounted."""
    place = tmp_path / "disk"
    mounted = []

    def mount(mib: int) -> Path:
        place.mkdir()
        if os.geteuid() != 0:
            pytest.skip("mounting a small tmpfs needs root")
        argv = ["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(place)]
        done = subprocess.run(argv, capture_output=True)
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.decode().strip()}")
        mounted.append(place)
        return place

    yield mount
    for each in mounted:
        subprocess.run(["umount", str(each)], check=True)


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return Path(__file__).parent.parent


@pytest.fixture(scope="session")
def field_data() -> Path:
    """The folder of the field's benchmark files (`TEMPER_DATA`); tests that need it are skipped without."""
    folder = os.environ.get("TEMPER_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("TEMPER_DATA names no folder of benchmark files")
    return Path(folder)
