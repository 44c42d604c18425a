"""A start that finds its rows kept trains on what a start that encodes them trains on, bit for bit."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.config import Run
from engine.data import prepare
from engine.data.prepare import Prepared
from engine.errors import WishError

Write = Callable[..., str]
Make = Callable[..., Run]

PAIRS = [{"prompt": f"def f{n}(values):\n", "completion": f"    return values[{n}]\n"} for n in range(60)]
CODE = [{"code": f"def g{n}(x):\n    y = x + {n}\n    return y * {n}\n"} for n in range(40)]


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of kept rows, empty at first."""
    monkeypatch.setenv("TEMPER_CACHE", str(tmp_path / "caches"))
    return tmp_path / "caches" / "rows"


def batches(prepared: Prepared) -> list[tuple[np.ndarray, ...]]:
    steps = range(min(prepared.train.steps, 30))
    found = [batch for step in steps for batch in prepared.train.micro_batches(step)]
    found += prepared.validation or []
    return [(b.input_ids.numpy(), b.labels.numpy(), b.position_ids.numpy()) for b in found]


def same(one: Prepared, two: Prepared) -> bool:
    ours, theirs = batches(one), batches(two)
    return len(ours) == len(theirs) and all(
        np.array_equal(a, b) for pair in zip(ours, theirs, strict=True) for a, b in zip(*pair, strict=True)
    )


@pytest.mark.parametrize(
    ("rows", "source", "wish"),
    [
        (PAIRS, {}, {"validation_fraction": 0.2, "test_fraction": 0.1}),
        (PAIRS, {}, {"mask_prompt": False, "packing": False, "processes": 2}),
        (PAIRS, {}, {"max_length": 16, "overlong": "truncate"}),
        (PAIRS, {}, {"max_length": 17, "overlong": "drop"}),
        (CODE, {"format": "code"}, {"fim": {"rate": 0.7}, "validation_fraction": 0.3}),
    ],
)
def test_kept_rows_are_the_rows(
    starcoder: Any, write: Write, make_run: Make, kept: Path, rows: list, source: dict, wish: dict
) -> None:
    file = write(rows)
    made = lambda **more: make_run({"path": file, **source}, **wish, **more)  # noqa: E731
    plain = prepare(made(cache="none"), copy.deepcopy(starcoder))
    assert not kept.exists() and "not kept (data.cache is none)" in plain.origin
    first, second = (prepare(made(), copy.deepcopy(starcoder)) for _ in range(2))
    assert first.origin.startswith("encoded, and kept in") and second.origin.startswith("kept in")
    assert len(list(kept.iterdir())) == 1
    assert plain.facts == first.facts == second.facts
    assert same(plain, first) and same(plain, second)


def test_whatever_decides_the_tokens_is_looked_at(
    starcoder: Any, chatml: Any, write: Write, make_run: Make, kept: Path
) -> None:
    file = write(PAIRS)
    wishes = [{}, {"mask_prompt": False}, {"max_length": 512}, {"validation_fraction": 0.1}]
    for wish in wishes:
        prepare(make_run(file, **wish), copy.deepcopy(starcoder))
    prepare(make_run(file), copy.deepcopy(chatml))
    assert len(list(kept.iterdir())) == len(wishes) + 1
    before = batches(prepare(make_run(file), copy.deepcopy(starcoder)))
    changed = [PAIRS[0] | {"completion": "    return 0\n"}, *PAIRS[1:]]
    write(changed)
    after = prepare(make_run(file), copy.deepcopy(starcoder))
    assert after.origin.startswith("encoded") and len(list(kept.iterdir())) == len(wishes) + 2
    assert any(not np.array_equal(a[0], b[0]) for a, b in zip(before, batches(after), strict=False))
    assert prepare(make_run(file, packing=False, processes=2), copy.deepcopy(starcoder)).origin.startswith(
        "kept"
    )


def test_held_out_tasks_are_still_compared_with(
    starcoder: Any, write: Write, make_run: Make, kept: Path
) -> None:
    run = make_run(write(PAIRS))
    prepare(run, copy.deepcopy(starcoder))
    texts = {
        "task": PAIRS[3]["prompt"] + PAIRS[3]["completion"] + "    # and much else that nobody has\n" * 9
    }
    compared = prepare(run, copy.deepcopy(starcoder), benchmark_texts=texts)
    assert compared.origin.startswith("kept") and compared.facts["decontamination_counts"]["tasks"] == 1
    again = prepare(run, copy.deepcopy(starcoder), benchmark_texts=texts)
    assert again.facts == compared.facts
    row = "def long_name(first, second):\n    total = first * 3 + second\n    return [total, first, second, total]\n"
    leak = make_run(write([*PAIRS, {"prompt": "", "completion": row * 3}], "leak.jsonl"), max_length=512)
    prepare(leak, copy.deepcopy(starcoder))
    for _ in range(2):
        with pytest.raises(WishError):
            prepare(leak, copy.deepcopy(starcoder), benchmark_texts={"leaked": row * 3})


def test_a_folder_that_cannot_be_written_is_told_and_done_without(
    starcoder: Any, write: Write, make_run: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    run = make_run(write(PAIRS), cache=str(blocked / "below"))
    prepared = prepare(run, copy.deepcopy(starcoder))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "name another folder as `data.cache`" in said
    assert same(prepared, prepare(make_run(run.data.train[0].path, cache="none"), copy.deepcopy(starcoder)))


def test_a_refusal_is_the_same_and_keeps_nothing(
    starcoder: Any, write: Write, make_run: Make, kept: Path
) -> None:
    file = write(PAIRS)
    told = []
    for cache in ("none", "auto", "auto"):
        with pytest.raises(WishError) as refused:
            prepare(make_run(file, max_length=8, cache=cache), copy.deepcopy(starcoder))
        told.append(str(refused.value))
    assert len(set(told)) == 1 and not list(kept.iterdir())


def test_a_full_disk_is_done_without(
    starcoder: Any,
    write: Write,
    make_run: Make,
    small_disk: Callable[[int], Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    disk = small_disk(1)
    (disk / "filled").write_bytes(b"x" * (shutil.disk_usage(disk).free - 4096))
    prepared = prepare(make_run(write(PAIRS), cache=str(disk / "rows")), copy.deepcopy(starcoder))
    assert "encoded rows are not kept" in capsys.readouterr().err and prepared.facts["train"]["rows"] == 60
