"""Rows from the hub: the cache is served with its revision, and a hub that cannot be reached is said at once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import huggingface_hub
import pytest

from engine import hub
from engine.errors import WishError
from engine.evaluate.origin import Origin
from engine.evaluate.rows import from_file, from_file_or_hub

HUB_ID = "openai/openai_humaneval"
REVISION = "0123456789abcdef0123456789abcdef01234567"
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub where nobody listens; returns the cache."""
    pauses: list[float] = []
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", NOBODY)
    monkeypatch.setattr(hub.time, "sleep", pauses.append)
    hub._unreachable.cache_clear()
    yield tmp_path / "cache"
    assert sum(pauses) <= 1.0, "the client's own half a minute of tries was waited for"


def test_a_line_that_is_not_utf_8_is_named_itself(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(b'{"a": 1}\n\n{"a": "\xff"}\n')
    with pytest.raises(WishError, match=r"t\.jsonl:3: not UTF-8 \(invalid start byte at byte 8\)"):
        list(from_file(str(tmp_path / "t.jsonl")))


def test_a_hub_that_cannot_be_reached_is_said_at_once(no_hub: Path) -> None:
    with pytest.raises(
        WishError, match=rf"{NOBODY} cannot be reached: .*; the cache does not hold it.*--data"
    ):
        list(from_file_or_hub(None, HUB_ID))
    assert datasets.config.HF_HUB_OFFLINE is False


def test_offline_by_wish_asks_nobody(no_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WishError, match="HF_HUB_OFFLINE is set; the cache does not hold it"):
        list(from_file_or_hub(None, HUB_ID))


def test_the_cache_is_served_without_a_hub_and_its_revision_is_kept(no_hub: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"task_id": f"T/{n}"}) + "\n" for n in range(3)))
    built = datasets.load_dataset(
        "json", data_files={"test": str(tmp_path / "rows.jsonl")}, cache_dir=tmp_path / "built"
    )
    folder = no_hub / "openai___openai_humaneval" / "default" / "0.0.0" / REVISION
    shutil.copytree(Path(built["test"].cache_files[0]["filename"]).parent, folder)
    (folder / "json-test.arrow").rename(folder / "openai_humaneval-test.arrow")
    found = list(from_file_or_hub(None, HUB_ID))
    assert [row["task_id"] for _, row in found] == ["T/0", "T/1", "T/2"]
    assert Origin.of("humaneval", None).as_json() == {
        "source": HUB_ID, "bytes": None, "sha256": None, "revision": REVISION, "pinned": None,
    }  # fmt: skip
