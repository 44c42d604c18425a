"""Sources: every kind of file gives the same rows; every mistake is named with its file and line."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from engine.config import Source
from engine.data import sources
from engine.errors import WishError

ROWS = [{"prompt": f"p{n}, 'q'\n", "completion": f"c{n}\nü"} for n in range(5)]


def _jsonl(path: Path) -> None:
    path.write_text("\n".join(json.dumps(row) for row in ROWS) + "\n\n", encoding="utf-8")


def _gz(path: Path) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def _parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


def _csv(path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, ["prompt", "completion"])
        writer.writeheader()
        writer.writerows(ROWS)


WRITERS = {"a.jsonl": _jsonl, "a.jsonl.gz": _gz, "a.parquet": _parquet, "a.csv": _csv}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name)
    table = sources.read(Source(path=str(tmp_path / name)))
    assert [row.fields for row in table.rows] == ROWS
    assert table.files == {str(tmp_path / name): sources.sha256(tmp_path / name)}
    assert all(row.id.startswith(f"{name}:") for row in table.rows)


def test_a_folder_gives_all_its_files_in_name_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    _jsonl(tmp_path / "b.jsonl")
    _parquet(tmp_path / "sub" / "a.parquet")
    (tmp_path / "README.md").write_text("not data")
    table = sources.read(Source(path=str(tmp_path)))
    assert len(table.rows) == 10 and table.rows[0].id == "b.jsonl:1" and table.rows[5].id == "sub/a.parquet:1"


def test_an_id_column_names_rows_only_where_it_is_unique(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"id": 7, "text": "x"}\n\n{"id": 8, "text": "y"}\n')
    assert [row.id for row in sources.read(Source(path=str(file))).rows] == ["7", "8"]
    file.write_text('{"id": 7, "text": "x"}\n\n{"id": 7, "text": "y"}\n')
    assert [row.id for row in sources.read(Source(path=str(file))).rows] == ["a.jsonl:1", "a.jsonl:3"]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', r"a\.jsonl:2 is not JSON"),
        ("a.jsonl", b"[1, 2]\n", r"a\.jsonl:1 holds a list"),
        ("a.jsonl", b'{"a": "\xff"}\n', r"a\.jsonl:1 is not UTF-8"),
        ("a.jsonl", b"", "holds no rows"),
        ("a.jsonl", b"\n\n", "holds no rows"),
        ("a.jsonl.gz", b"not gzip", r"a\.jsonl\.gz cannot be read past line 0"),
        ("a.csv", b"a,b\n1,2\n1\n", r"a\.csv:3 has not the header's 2 columns"),
        ("a.parquet", b"not parquet", r"a\.parquet cannot be read as Parquet"),
        ("a.xlsx", b"x", r"a\.xlsx is not of a kind.*\.jsonl"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WishError, match=told):
        sources.read(Source(path=str(tmp_path / name)))


def test_a_missing_file_is_named_with_its_nearest_neighbour(tmp_path: Path) -> None:
    _jsonl(tmp_path / "train.jsonl")
    with pytest.raises(WishError, match=r"trian\.jsonl does not exist: did you mean .*train\.jsonl\?"):
        sources.read(Source(path=str(tmp_path / "trian.jsonl")))
    with pytest.raises(WishError, match=f"nowhere/deep does not exist: .*{tmp_path.name}"):
        sources.read(Source(path=str(tmp_path / "nowhere" / "deep")))


def test_an_empty_folder_and_one_without_data_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(WishError, match="is empty"):
        sources.read(Source(path=str(tmp_path)))
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(WishError, match=r"no data file, only notes\.md"):
        sources.read(Source(path=str(tmp_path)))


def test_a_hub_id_that_cannot_be_had_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        WishError, match="no-such-owner/no-such-set is not a file or folder here, and the hub"
    ):
        sources.read(Source(path="no-such-owner/no-such-set"))


def test_hub_data_arrives_as_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # `load_dataset` reads a folder by the same road as a hub id, without a network.
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set").mkdir()
    _jsonl(tmp_path / "set" / "train.jsonl")
    assert list(sources._hub(Source(path=str(tmp_path / "set")))) == ROWS
    with pytest.raises(WishError, match="did not give its split 'validation'"):
        list(sources._hub(Source(path=str(tmp_path / "set"), split="validation")))
