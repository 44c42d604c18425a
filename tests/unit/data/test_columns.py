"""Arrays and texts that grow at their end: the same in memory and in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.data.columns import Column, Strings, Texts, mapped


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint64, bool])
@pytest.mark.parametrize("count", [0, 1, 300_000])
def test_a_file_holds_what_memory_holds(tmp_path: Path, dtype: type, count: int) -> None:
    values = (np.arange(count) % 2).astype(dtype)
    file = tmp_path / "column.npy"
    inside, outside = Column(dtype, None), Column(dtype, file)
    for column in (inside, outside):
        column.add(values[: count // 3])
        column.add(values[count // 3 :])
        column.push(1)
    assert len(outside.close()) == 0
    found, expected = mapped(file), inside.close()
    assert found.dtype == expected.dtype == np.dtype(dtype)
    assert np.array_equal(found, expected) and np.array_equal(np.load(file), np.append(values, dtype(1)))


@given(st.lists(st.text()))
def test_texts_come_back(texts: list[str]) -> None:
    made = Texts(None, "t")
    for text in texts:
        made.add(text)
    found = Strings.among(made.close(), "t")
    assert list(found) == texts and len(found) == len(texts) and found == texts
    assert found[:2] == tuple(texts[:2]) and (not texts or found[-1] == texts[-1])


def test_a_lone_surrogate_comes_back() -> None:
    made = Texts(None, "t")
    made.add("a\ud800b")
    assert Strings.among(made.close(), "t")[0] == "a\ud800b"


def test_what_is_no_array_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "no.npy"
    file.write_bytes(b"no array")
    with pytest.raises(ValueError):
        mapped(file)
