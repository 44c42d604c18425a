"""The shelf of checkpoints: what is kept, what is found, what is refused and why."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from engine.checkpoint import DiskFull, Store, manifest, smaller_is_better
from engine.errors import Stopped, TemperError


def put(store: Store, step: int, *, size: int = 1000, **metrics: float) -> Path:
    folder = store.begin(step)
    (folder / "state").mkdir()
    (folder / "state" / "rank-0.bin").write_bytes(bytes([step % 256]) * size)
    (folder / "weights.bin").write_bytes(os.urandom(size))
    return store.publish(step, metrics=metrics, facts={"world_size": 2, "shape": (1, 2)})


def steps(store: Store) -> list[int]:
    return [found.step for found in store.published()]


def test_a_published_checkpoint_is_found_with_what_was_said_of_it(tmp_path: Path) -> None:
    store = Store(tmp_path / "checkpoints", 2, 1)
    assert store.newest() is None and store.best() is None
    path = put(store, 20, validation_loss=0.5)
    found = Store(tmp_path / "checkpoints", 2, 1).newest()
    assert found is not None
    assert (found.step, found.path, found.metrics) == (20, path, {"validation_loss": 0.5})
    assert found.facts == {"world_size": 2, "shape": [1, 2]}
    assert path.name == "step-000020" and not store.partial(20).exists()
    assert sorted(json.loads((path / "manifest.json").read_text())["files"]) == [
        "state/rank-0.bin",
        "weights.bin",
    ]


def test_last_and_best_are_kept_and_nothing_else(tmp_path: Path) -> None:
    store = Store(tmp_path, keep_last=2, keep_best=2, metric="validation_loss")
    for step, loss in ((10, 0.9), (20, 0.3), (30, 0.8), (40, 0.3), (50, 0.7), (60, 0.6)):
        put(store, step, validation_loss=loss)
    assert steps(store) == [20, 40, 50, 60]
    assert store.best().step == 20  # type: ignore[union-attr]
    assert {path.name for path in tmp_path.iterdir()} == {f"step-0000{step}" for step in (20, 40, 50, 60)}


def test_best_by_a_metric_that_should_be_large(tmp_path: Path) -> None:
    store = Store(tmp_path, keep_last=1, keep_best=1, metric="pass@1")
    for step, value in ((1, 0.2), (2, 0.6), (3, float("nan")), (4, 0.6)):
        put(store, step, **{"pass@1": value})
    put(store, 5)
    assert steps(store) == [2, 5]
    assert store.best().step == 2  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("metric", "mode", "small"),
    [
        ("validation_loss", "auto", True),
        ("Loss", "auto", True),
        ("pass@1", "auto", False),
        ("pass@1", "min", True),
        ("validation_loss", "max", False),
    ],
)
def test_which_way_is_good(metric: str, mode: str, small: bool) -> None:
    assert smaller_is_better(metric, mode) is small  # type: ignore[arg-type]


def cut_the_manifest(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text[: len(text) // 2])


def edit_the_manifest(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"validation_loss": 0.5', '"validation_loss": 0.1'))


def flip_a_byte(path: Path) -> None:
    content = bytearray((path / "weights.bin").read_bytes())
    content[500] ^= 1
    (path / "weights.bin").write_bytes(content)


DAMAGES = {
    "has no manifest.json": lambda path: (path / "manifest.json").unlink(),
    "is not readable": cut_the_manifest,
    "altered after it was written": edit_the_manifest,
    "weights.bin was altered": flip_a_byte,
    "weights.bin has 400 bytes, the manifest says 1000": lambda path: os.truncate(path / "weights.bin", 400),
    "state/rank-0.bin is missing": lambda path: (path / "state" / "rank-0.bin").unlink(),
}


@pytest.mark.parametrize("reason", DAMAGES)
def test_a_torn_or_altered_checkpoint_is_named_and_skipped(tmp_path: Path, reason: str) -> None:
    store = Store(tmp_path, 3)
    put(store, 10)
    put(store, 20)
    DAMAGES[reason](put(store, 30, validation_loss=0.5))
    assert store.newest().step == 20  # type: ignore[union-attr]
    assert [rejected.path.name for rejected in store.rejected] == ["step-000030"]
    assert reason in store.rejected[0].reason
    assert str(store.rejected[0]).startswith("checkpoint step-000030 is skipped: ")
    # The run continues at 20 and comes to 30 again.
    put(store, 30, validation_loss=0.4)
    assert store.newest().step == 30 and not store.rejected  # type: ignore[union-attr]
    assert steps(store) == [10, 20, 30]


def test_torn_ones_go_once_they_are_older_than_all_that_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path, 2)
    cut_the_manifest(put(store, 10))
    put(store, 20)
    assert store.path(10).exists() is False
    cut_the_manifest(put(store, 30))
    put(store, 40)
    assert store.path(30).exists()
    put(store, 50)
    assert not store.path(30).exists() and steps(store) == [40, 50]


def test_leftovers_of_killed_saves_go_when_the_next_begins(tmp_path: Path) -> None:
    store = Store(tmp_path, 2)
    put(store, 10)
    (store.begin(20) / "half").write_bytes(b"x")
    assert store.newest().step == 10  # type: ignore[union-attr]
    store.begin(30)
    assert not store.partial(20).exists() and store.partial(30).is_dir()


def test_a_run_that_starts_over_discards_what_is_later(tmp_path: Path) -> None:
    store = Store(tmp_path, 5)
    for step in (10, 20, 30):
        put(store, step)
    assert [path.name for path in store.discard_after(10)] == ["step-000020", "step-000030"]
    assert steps(store) == [10]
    store.discard_after(-1)
    assert store.newest() is None


def test_a_checkpoint_set_aside_is_not_lost(tmp_path: Path) -> None:
    # A kill between the two renames of a replacement.
    store = Store(tmp_path, 2)
    path = put(store, 10)
    path.rename(tmp_path / "step-000010.replaced")
    assert store.newest().step == 10  # type: ignore[union-attr]
    put(store, 20)
    assert store.path(10).is_dir() and steps(store) == [10, 20]


def test_each_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []
    original = manifest.hashlib.file_digest

    def counting(file: object, name: str) -> object:
        hashed.append(Path(file.name).name)  # type: ignore[attr-defined]
        return original(file, name)

    monkeypatch.setattr(manifest.hashlib, "file_digest", counting)
    store = Store(tmp_path, 2, 1)
    put(store, 10)
    put(store, 20)
    assert sorted(hashed) == ["rank-0.bin", "rank-0.bin", "weights.bin", "weights.bin"]
    hashed.clear()
    store.newest()
    assert sorted(hashed) == ["rank-0.bin", "weights.bin"]


def test_too_little_room_is_said_before_anything_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path, 2)
    put(store, 10)
    with pytest.raises(
        DiskFull, match=r"step 20 .* needs 4096\.0 TiB and .* free \(kept so far: 10\): free space"
    ):
        store.begin(20, needed_bytes=1 << 52)
    assert not store.partial(20).exists() and steps(store) == [10]
    assert issubclass(DiskFull, Stopped)


def test_room_is_guessed_from_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path, 2)
    put(store, 10, size=5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 20, 0, 9999))
    with pytest.raises(DiskFull, match=r"needs 9\.8 KiB"):
        store.begin(20)
    store.begin(20, needed_bytes=9999)


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (ValueError("something else"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_a_failed_write_leaves_no_partial_folder(tmp_path: Path, error: BaseException, full: bool) -> None:
    store = Store(tmp_path, 2)
    put(store, 10)
    store.begin(20)
    plain = TemperError if isinstance(error, OSError) else type(error)
    with pytest.raises(DiskFull if full else plain) as raised:
        with store.guard(20) as folder:
            (folder / "half").write_bytes(b"x")
            raise error
    assert isinstance(raised.value, DiskFull) == full
    assert not store.partial(20).exists() and store.newest().step == 10  # type: ignore[union-attr]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file is in the way")
    with pytest.raises(TemperError, match=r"step 20 cannot be written \(.*File exists"):
        Store(tmp_path / "checkpoints", 2).begin(20)


def test_a_checkpoint_that_cannot_be_put_on_the_shelf_is_one_sentence(tmp_path: Path) -> None:
    store = Store(tmp_path, 2)
    put(store, 10)
    (store.begin(20) / "weights").write_bytes(b"x")
    store.path(20).write_text("a file is in the way")
    store.path(20).with_name("step-000020.replaced").mkdir()
    (store.path(20).with_name("step-000020.replaced.removed.partial")).write_text("and another")
    with pytest.raises(TemperError, match="step 20 cannot be written"):
        store.publish(20, metrics={}, facts={})
    assert not store.partial(20).exists() and store.newest().step == 10  # type: ignore[union-attr]


@pytest.mark.parametrize("writer", ["plain", "torch", "safetensors"])
def test_a_disk_that_becomes_full(small_disk: Callable[[int], Path], writer: str) -> None:
    disk = small_disk(4)
    from safetensors.torch import save_file

    writers = {
        "plain": lambda path, tensor: path.write_bytes(tensor.numpy().tobytes()),
        "torch": lambda path, tensor: torch.save({"big": tensor}, path),
        "safetensors": lambda path, tensor: save_file({"big": tensor}, path),
    }
    store = Store(disk / "checkpoints", 2)
    before = put(store, 10)
    store.begin(20, needed_bytes=0)
    with pytest.raises(DiskFull, match="the checkpoint of step 20 cannot be saved .* became full"):
        with store.guard(20) as folder:
            writers[writer](folder / "big.bin", torch.ones(2 << 20))
    assert not store.partial(20).exists()
    assert store.newest().path == before and not store.rejected  # type: ignore[union-attr]
    put(store, 30)
    assert steps(store) == [10, 30]


def test_a_disk_too_full_for_the_manifest(small_disk: Callable[[int], Path]) -> None:
    disk = small_disk(4)
    store = Store(disk / "checkpoints", 2)
    put(store, 10)
    folder = store.begin(20, needed_bytes=0)
    with (folder / "filler.bin").open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4096))
    with pytest.raises(DiskFull):
        store.publish(20, metrics={}, facts={})
    assert not folder.exists() and store.newest().step == 10  # type: ignore[union-attr]
