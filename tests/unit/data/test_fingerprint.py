"""What decides tokens is in the key, and nothing else: files by content, tokenizers by what they do, the day."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from engine.config import Run
from engine.data import Prepared, fingerprint, prepare
from engine.data.intake import Intake
from engine.errors import WishError

Write = Callable[..., str]
Make = Callable[..., Run]

PAIRS = [{"prompt": f"def f{n}(values):\n", "completion": f"    return values[{n}]\n"} for n in range(40)]
CHATS = [
    {"messages": [{"role": "user", "content": f"add {n}"}, {"role": "assistant", "content": f"x + {n} ü"}]}
    for n in range(20)
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def same(one: Prepared, other: Prepared) -> None:
    """Every fact, name, token and mask, bit for bit."""
    assert one.facts == other.facts and len(one.corpora) == len(other.corpora)
    for a, b in zip(one.corpora, other.corpora, strict=True):
        for name in ("tokens", "trained", "offsets", "lengths", "truncated", "plain_counts"):
            assert np.array_equal(getattr(a, name), getattr(b, name)), name
        assert a.ids == b.ids and a.wheres == b.wheres


def encoded(prepared: Prepared) -> bool:
    return prepared.origin.startswith("encoded")


def test_a_given_validation_set_is_kept_too(folder: Path, chatml: Any, write: Write, make_run: Make) -> None:
    held = write(PAIRS[:9], "held.jsonl")
    runs = [
        make_run(write(PAIRS[9:]), validation=[{"path": held}], cache=cache)
        for cache in ("none", str(folder))
    ]
    prepare(runs[1], chatml)
    same(prepare(runs[0], chatml), prepare(runs[1], chatml))


def test_the_seed_decides_tokens_only_where_it_cuts_splits(
    folder: Path, chatml: Any, write: Write, make_run: Make
) -> None:
    path = write(PAIRS)
    for cut in ({}, {"validation_fraction": 0.2}):
        prepare(make_run(path, cache=str(folder), **cut), chatml)
        other = prepare(make_run(path, seed=1, cache=str(folder), **cut), chatml)
        assert encoded(other) == bool(cut)


def test_another_content_format_or_column_misses(
    folder: Path, chatml: Any, write: Write, make_run: Make
) -> None:
    rows = [{"text": f"x = {n}\n", "code": f"y = {n}\n"} for n in range(9)]
    path = write(rows)
    sources = [
        path,
        {"path": path, "format": "text"},
        {"path": path, "format": "text", "fields": {"text": "code"}},
    ]
    assert all(encoded(prepare(make_run(each, cache=str(folder)), chatml)) for each in sources)
    stat = os.stat(path)
    text = Path(path).read_text()
    Path(path).write_text(text.replace("x = 3", "x = 4"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # content decides, not the time it claims
    changed = prepare(make_run(sources[1], cache=str(folder)), chatml)
    assert encoded(changed)
    same(changed, prepare(make_run(sources[1], cache="none"), chatml))
    write(rows)
    assert not encoded(prepare(make_run(sources[1], cache=str(folder)), chatml))


def test_another_tokenizer_misses_and_the_same_one_elsewhere_hits(
    folder: Path, chatml: Any, starcoder: Any, tmp_path: Path, write: Write, make_run: Make
) -> None:
    from transformers import AutoTokenizer

    run = make_run(write(CHATS), cache=str(folder))
    prepare(run, chatml)
    template = copy.deepcopy(chatml)
    template.chat_template = template.chat_template.replace("\n{{ m.content }}", "\n {{ m.content }}")
    added = copy.deepcopy(chatml)
    added.add_tokens(["add"])
    ending = copy.deepcopy(chatml)
    ending.eos_token = "<|im_end|>"
    for other in (template, added, ending):
        prepared = prepare(run, other)
        assert encoded(prepared)
        same(prepared, prepare(make_run(write(CHATS), cache="none"), other))
    chatml.save_pretrained(tmp_path / "moved")
    moved = AutoTokenizer.from_pretrained(tmp_path / "moved")
    assert not encoded(prepare(run, moved))
    # How it padded or cut the last call is no part of what it does.
    moved(["a", "b c"], padding=True, truncation=True, max_length=1)
    assert not encoded(prepare(run, moved))


def test_a_template_that_asks_for_the_date_misses_the_next_day(
    folder: Path, chatml: Any, write: Write, make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    dated = copy.deepcopy(chatml)
    dated.chat_template = "{{ strftime_now('%d %b %Y') }}" + dated.chat_template
    run = make_run(write(CHATS), cache=str(folder))
    assert encoded(prepare(run, dated)) and not encoded(prepare(run, dated))

    class Tomorrow(fingerprint.date):
        @classmethod
        def today(cls) -> Any:
            return cls(2100, 1, 1)

    monkeypatch.setattr(fingerprint, "date", Tomorrow)
    assert encoded(prepare(run, dated))


def test_a_file_that_changes_while_it_is_read_is_refused(
    folder: Path, chatml: Any, write: Write, make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(PAIRS)
    take = Intake.take

    def meanwhile(*args: Any) -> Any:
        with open(path, "a") as file:
            file.write(json.dumps(PAIRS[0]) + "\n")
        return take(*args)

    monkeypatch.setattr(Intake, "take", meanwhile)
    with pytest.raises(WishError, match="was changed while it was read"):
        prepare(make_run(path, cache=str(folder)), chatml)
    assert list(folder.iterdir()) == []


def test_every_kind_of_file_is_kept(tmp_path: Path, folder: Path, chatml: Any, make_run: Make) -> None:
    file = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(PAIRS), file)
    prepare(make_run(str(file), cache=str(folder)), chatml)
    kept = prepare(make_run(str(file), cache=str(folder)), chatml)
    assert not encoded(kept)
    same(kept, prepare(make_run(str(file), cache="none"), chatml))


def test_a_tokenizer_of_strange_code_is_not_kept(
    folder: Path, chatml: Any, write: Write, make_run: Make
) -> None:
    strange = copy.deepcopy(chatml)
    strange.__class__ = type("Strange", (type(chatml),), {"__module__": "transformers_modules.x"})
    prepared = prepare(make_run(write(PAIRS), cache=str(folder)), strange)
    assert "not kept (what Strange does" in prepared.origin and not folder.exists()
