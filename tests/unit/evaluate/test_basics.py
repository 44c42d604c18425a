"""The generated benchmark: its references pass, its tests are sharp, and training never sees what it holds out."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from engine.errors import WishError
from engine.evaluate.benchmarks import basics
from engine.evaluate.benchmarks.basics.compose import FORMS, OPERATIONS
from engine.evaluate.benchmarks.basics.operation import Operation
from engine.evaluate.benchmarks.basics.slips import answer, passes
from engine.evaluate.task import Task
from engine.sandbox import Limits, Pool

ROOT = Path(__file__).parents[3]
ROWS = 12_000  # as many as the demo trains on
PARTS = tuple(option for form in FORMS for options in form.slots.values() for option in options)


@pytest.fixture(scope="module")
def rows() -> list[basics.Row]:
    return list(basics.training_rows(ROWS))


@pytest.fixture(scope="module")
def held_out() -> list[Task]:
    return basics.tasks("validation") + basics.tasks("test")


def _passes(task: Task, completion: str) -> bool:
    program = basics.program(task, completion)
    return passes(program.source, [c.expression for c in task.calls], [c.expected for c in task.calls])


def _operations(task: Task) -> list[str]:
    return task.id.split(":")[1].split("+")


def test_every_reference_passes_and_an_empty_completion_fails(held_out: list[Task]) -> None:
    for task in held_out:
        assert _passes(task, task.reference), task.id
        assert not _passes(task, ""), task.id
        assert len(task.calls) >= 8, task.id


def test_a_completion_ends_at_the_first_line_that_is_not_indented(held_out: list[Task]) -> None:
    for task in held_out[:20]:
        assert _passes(task, task.reference + "\nthis is no Python\n")
        assert basics.program(task, "return 1\n" + task.reference).source == basics.prompt(task)
        assert not any(stop in task.reference for stop in task.stop)


def test_training_programs_run(rows: list[basics.Row]) -> None:
    for row in rows[:2000]:
        compile(row["prompt"] + row["completion"], row["id"], "exec")
        assert row["completion"].startswith("    ") and row["completion"].endswith("\n")
        assert row["prompt"].endswith('"""\n')


def test_references_pass_in_the_sandbox_and_empty_completions_do_not(held_out: list[Task]) -> None:
    sample = held_out[::15]
    programs = [basics.program(task, task.reference) for task in sample]
    programs += [basics.program(task, "") for task in sample]
    with Pool(workers=1) as pool:
        verdicts = list(pool.run_many(programs, Limits()))
    assert [verdict.name for verdict in verdicts[: len(sample)]] == ["passed"] * len(sample)
    assert not any(verdict.passed for verdict in verdicts[len(sample) :])


def test_same_seed_same_bytes_whatever_the_hash_seed() -> None:
    code = (
        "import hashlib; from engine.evaluate.benchmarks import basics;"
        "made = [*basics.tasks('test'), *basics.training_rows(300, seed=3)];"
        "print(hashlib.sha256(repr(made).encode()).hexdigest())"
    )
    found = set()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1


def test_more_rows_begin_with_the_same_rows_and_seeds_differ(rows: list[basics.Row]) -> None:
    assert list(basics.training_rows(50)) == rows[:50]
    other = list(basics.training_rows(50, seed=1))
    assert [row["prompt"] for row in other] != [row["prompt"] for row in rows[:50]]
    assert len({row["id"] for row in rows + other}) == len(rows) + len(other)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_groups_and_counts(seed: int) -> None:
    for split, groups in basics.GROUPS.items():
        tasks = basics.tasks(split, seed=seed)
        assert Counter(task.group for task in tasks) == {
            f"{k}/level{n}": count for (k, n), count in groups.items()
        }
        assert len({task.id for task in tasks}) == len(tasks)
        assert sum(task.group.startswith("compositions/") for task in tasks) >= 0.6 * len(tasks)


def test_there_are_many_families_at_every_level() -> None:
    known = {entry.name: entry for entry in basics.catalog()}
    assert {name.split(".")[0] for name in known} >= {
        "number",
        "text",
        "list",
        "words",
        "dict",
        "recursion",
        "cell",
    }
    assert len(known) == len(set(OPERATIONS + PARTS)) >= 30
    assert {entry.split for entry in known.values()} == {"train", "validation", "test"}


def test_names_phrases_and_codes_are_told_apart() -> None:
    assert len({op.name for op in OPERATIONS}) == len(OPERATIONS)
    assert len({(op.takes, op.code) for op in OPERATIONS}) == len(OPERATIONS)
    assert len({(op.takes, phrase) for op in OPERATIONS for phrase in op.phrases}) == sum(
        len(op.phrases) for op in OPERATIONS
    )
    for form in FORMS:
        for options in form.slots.values():
            assert len({op.phrases for op in options}) == len({op.code for op in options}) == len(options)


def test_no_training_text_overlaps_a_held_out_task(rows: list[basics.Row], held_out: list[Task]) -> None:
    prompts = {row["prompt"].split("\n", 1)[1] for row in rows}
    completions = {row["completion"] for row in rows}
    for task in held_out:
        assert task.prompt.split("\n", 1)[1] not in prompts, task.id
        assert task.reference not in completions, task.id


def test_the_check_of_the_data_room_finds_no_overlap(rows: list[basics.Row], held_out: list[Task]) -> None:
    from engine.data.decontaminate import compare

    texts = {task.id: task.prompt + task.reference for task in held_out}
    report = compare(((row["id"], row["prompt"] + row["completion"]) for row in rows), texts)
    assert report.rows == ROWS and report.tasks == len(held_out)
    assert not report.overlaps, report.line
    leak = compare([("copy", held_out[0].prompt + held_out[0].reference)], texts)
    assert leak.overlaps


def test_splits_share_no_task() -> None:
    texts = {
        split: {(t.prompt.split("\n", 1)[1], t.reference) for t in basics.tasks(split)}
        for split in basics.GROUPS
    }
    assert not texts["test"] & texts["validation"]


def test_combinations_are_held_out_but_their_operations_are_not(
    rows: list[basics.Row], held_out: list[Task]
) -> None:
    families = [row["family"].split("+") for row in rows]
    seen = Counter(name for family in families for name in family)
    runs = {frozenset(pair) for family in families for pair in pairwise(family)}
    for task in held_out:
        names = _operations(task)
        if task.group.startswith("compositions/"):
            assert all(seen[name] >= 20 for name in names), task.id
            assert names not in families
            if len(names) == 2:
                assert frozenset(names) not in runs, f"{task.id}: seen inside a longer chain"
        if task.group.startswith("seen/"):
            assert seen[names[0]] >= 20


def test_held_out_families_never_occur_in_training(rows: list[basics.Row], held_out: list[Task]) -> None:
    hidden = {entry.name for entry in basics.catalog() if entry.split != "train"}
    assert not hidden & {name for row in rows for name in row["family"].split("+")}
    for task in held_out:
        assert task.group.startswith("families/") == bool(hidden & set(_operations(task)))


def test_a_limit_keeps_a_mixture_and_wrong_wishes_are_refused() -> None:
    assert len({task.group for task in basics.load(None, split="test", limit=20)}) >= 3
    assert [t.id for t in basics.load(None, split="test", limit=5)] == [
        t.id for t in basics.tasks("test")[:5]
    ]
    with pytest.raises(WishError, match="validation"):
        basics.tasks("train")
    with pytest.raises(WishError, match="built in"):
        basics.load("somewhere.jsonl")


def test_hidden_tests_notice_types() -> None:
    assert passes("def f(): return True", ["f()"], [True])
    assert not passes("def f(): return 1", ["f()"], [True])
    assert not passes("def f(): return {1: [2.0]}", ["f()"], [{1: [2]}])
    assert answer("class A:\n    v = 1", "a = A()\na.v = 3\na.v") == 3


def test_pretext_shares_no_operation_with_basics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "configs" / "tiny"))
    import pretext

    def bare(op: Operation) -> bool:
        return op.code.strip('"$').isidentifier()

    parts = [option for form in pretext.FORMS for options in form.slots.values() for option in options]
    theirs = [*pretext.OPERATIONS, *parts]
    ours = [*OPERATIONS, *PARTS]
    assert len(pretext.OPERATIONS) >= 40
    assert not {op.code for op in theirs if not bare(op)} & {op.code for op in ours}
    assert not {phrase for op in theirs for phrase in op.phrases} & {
        phrase for op in ours for phrase in op.phrases
    }
    rows = list(pretext.training_rows(500))
    assert rows[:100] == list(pretext.training_rows(100))
    for row in rows:
        compile(row["prompt"] + row["completion"], row["id"], "exec")
