"""APPS, CodeContests and LiveCodeBench: rows in their published formats, judged in the real sandbox."""

from __future__ import annotations

import base64
import gzip
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import datasets
import pytest

from engine.errors import WishError
from engine.evaluate import Court, find
from engine.evaluate import judge as judging
from engine.evaluate.benchmarks import codecontests as codecontests_module
from engine.evaluate.benchmarks import livecodebench as lcb
from engine.evaluate.benchmarks import texts
from engine.evaluate.benchmarks.stdio import COMPARISONS
from engine.generate import extract
from engine.sandbox import Limits, Verdict
from tests.unit.evaluate.contests import SUM, apps, codecontests, livecodebench, write

CLASS = "class Solution:\n    def f(self, {arguments}):\n        return {value}\n"


def judged(name: str, source: str, *answers: str, **terms: Any) -> list[Verdict]:
    """The verdict on each answer to the one task of a file."""
    benchmark = find(name)
    (task,) = benchmark.load(source)
    trials = [(task, benchmark.program(task, answer)) for answer in answers]
    return [v for _, v in judging.judge(benchmark, len(trials), trials.__getitem__, Court(**terms))]


def names(verdicts: list[Verdict]) -> list[str]:
    return [verdict.name for verdict in verdicts]


def test_apps_scripts(tmp_path: Path) -> None:
    """Some tests are lists of lines; the first solution that is Python 3 is the reference."""
    tests = {"inputs": ["1 2\n", ["3 4"]], "outputs": ["3\n", ["7"]]}
    source = write(tmp_path / "a.jsonl", apps(tests=tests, solutions=["print 3", SUM]))
    (task,) = find("apps").load(source)
    assert (task.id, task.group, task.reference, task.entry_point) == ("APPS/0", "interview", SUM, "")
    right, wrong, empty, bare = judged(
        "apps", source, SUM, "print(3)", "", "print(reduce(operator.add, [3, 0]))"
    )
    assert right.passed and empty.name == "wrong"
    assert wrong.detail == bare.detail == "run 2 of 2: printed '3\\n', wanted '7'"


@pytest.mark.parametrize(
    ("given", "wanted", "arguments", "value", "passes"),
    [
        ([[1, 2]], 3, "a: List[int]", "sum(a)", True),
        ([[1, 2]], [3], "a", "sum(a)", True),
        ([[1, 2]], [3], "a", "[sum(a)]", True),
        ([[1, 2]], [3, 3], "a", "sum(a)", False),
        ([1], [1, 2], "a", "(1, 2)", True),
        ([1], [[1, 2]], "a", "[(1, 2)]", True),
        ([1], [[[1]], 2], "a", "[[(1,)], 2]", False),
        ([1], 1, "a", "True", True),
        ([1], 1, "a", "1.0", True),
        ([1], 1, "a", "'1'", False),
        ([{"1": 2}], {"3": 4}, "a", "{3: 4} if a == {1: 2} else 0", True),
    ],
    ids=str,
)
def test_apps_functions_by_their_values(
    given: Any, wanted: Any, arguments: str, value: str, passes: bool, tmp_path: Path
) -> None:
    tests = {"fn_name": "f", "inputs": [given], "outputs": [wanted]}
    source = write(tmp_path / "a.jsonl", apps(tests=tests))
    (verdict,) = judged("apps", source, CLASS.format(arguments=arguments, value=value))
    assert verdict.passed is passes, verdict
    assert passes or verdict.name == "wrong"
    assert verdict.form == "calls"


def test_apps_has_numbers_longer_than_python_likes_to_read(tmp_path: Path) -> None:
    tests = f'{{"fn_name": "f", "inputs": [[{"9" * 5000}]], "outputs": [1{"0" * 5000}]}}'
    source = write(tmp_path / "a.jsonl", apps(tests=tests))
    right, wrong = judged("apps", source, "def f(a): return a + 1", "def f(a): return a")
    assert right.passed and wrong.name == "wrong"


def test_apps_functions_outside_a_class_and_how_they_fail(tmp_path: Path) -> None:
    tests = {"fn_name": "f", "inputs": [[1, 2], [3, 4]], "outputs": [3, 7]}
    source = write(tmp_path / "a.jsonl", apps(tests=tests, starter_code="def f(a, b):\n\t"))
    right, shadows, wrong, raises, empty, leaves, future = judged(
        "apps",
        source,
        "def f(a, b): return a + b",
        "list = max = json = sys = int = None\ndef f(a, b): return a + b",
        "def f(a, b): return 3",
        "def f(a, b): return 1 // 0",
        "",
        "import os\ndef f(a, b): os._exit(0)",
        "from __future__ import annotations\ndef f(a: Unknown, b): return a + b",
    )
    assert right.passed and shadows.passed and future.passed
    assert (wrong.name, wrong.detail) == ("wrong", "run 2 of 2: f(3, 4): gave 3, expected 7")
    assert raises.name == "runtime_error" and raises.detail.startswith(
        "run 1 of 2: f(1, 2): ZeroDivisionError"
    )
    assert empty.name == "runtime_error" and leaves.name == "incomplete"


def test_what_is_wanted_is_nowhere_in_the_memory_of_the_answers_process(tmp_path: Path) -> None:
    spy = (
        "import gc, sys\n"
        "def f(key):\n"
        "    held = [o for o in gc.get_objects() if type(o) in (list, tuple)]\n"
        "    held += [list(o.values()) for o in gc.get_objects() if type(o) is dict]\n"
        "    frame = sys._getframe()\n"
        "    while frame := frame.f_back:\n"
        "        held.append(list(frame.f_locals.values()))\n"
        "    return [v for o in held for v in o if type(v) is int and v ^ key == 5][:1] or 0\n"
    )
    tests = {"fn_name": "f", "inputs": [[123456789 ^ 5]], "outputs": [[123456789]]}
    (verdict,) = judged("apps", write(tmp_path / "a.jsonl", apps(tests=tests)), spy)
    assert verdict.name == "wrong" and verdict.detail.endswith("gave 0, expected [123456789]"), verdict


def test_apps_leaves_out_rows_without_tests_and_names_broken_ones(tmp_path: Path) -> None:
    tests = {"inputs": ["1\n"], "outputs": ["1\n"]}
    source = write(tmp_path / "a.jsonl", apps(1, tests=tests), apps(2, tests=""), apps(3, tests=tests))
    assert [task.id for task in find("apps").load(source)] == ["APPS/1", "APPS/3"]
    for broken, said in [
        (apps(tests={"inputs": ["1\n"], "outputs": []}), "cannot be read"),
        (apps(tests="{"), "cannot be read"),
        (apps(tests={"inputs": [], "outputs": []}), "there is no test"),
        (apps(tests={"fn_name": "a b", "inputs": [], "outputs": []}), "is no name"),
        (apps(None, tests=tests), "problem_id is None"),
        ({"question": "x"}, "not a task in APPS's format"),
    ]:
        with pytest.raises(WishError, match=rf"b\.jsonl:1: .*{said}"):
            find("apps").load(write(tmp_path / "b.jsonl", broken))
    with pytest.raises(WishError, match="no split 'dev'"):
        find("apps").load(source, split="dev")


def test_any_question_fits_into_its_docstring(tmp_path: Path) -> None:
    question = 'Print """ and \\N{x} \\u \\\r\nThe end.\\'
    tests = {"inputs": [""], "outputs": ["ok"]}
    source = write(tmp_path / "a.jsonl", apps(tests=tests, question=question))
    (verdict,) = judged("apps", source, "from __future__ import annotations\nprint('ok')")
    assert verdict.passed
    assert "Read standard input" in find("apps").load(source)[0].prompt


def test_codecontests(tmp_path: Path) -> None:
    source = write(tmp_path / "c.jsonl", codecontests())
    (task,) = find("codecontests").load(source)
    assert (task.id, task.group, task.reference) == ("codeforces/1_A. Sums", "codeforces", SUM)
    assert (task.cpu_seconds, task.memory_mb, len(task.runs)) == (2.5, 2048, 3)
    assert judging.in_force(Limits(cpu_seconds=2, memory_mb=512), task).memory_mb == 2048
    right, wrong = judged("codecontests", source, SUM, "print(3)")
    assert right.passed and wrong.detail.startswith("run 2 of 3")


def test_codecontests_rows_of_parquet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What `datasets` makes of the hub's features is what a line of JSON holds."""
    texts_of = datasets.Sequence({"input": datasets.Value("string"), "output": datasets.Value("string")})
    answers = datasets.Sequence({"language": datasets.Value("int64"), "solution": datasets.Value("string")})
    row = codecontests(time_limit=None)
    plain = {name: datasets.Value("string") for name in ("name", "description", "input_file", "output_file")}
    numbers = {name: datasets.Value("int64") for name in ("source", "difficulty", "memory_limit_bytes")}
    duration = {"seconds": datasets.Value("int64"), "nanos": datasets.Value("int64")}
    features = datasets.Features(
        {
            **plain,
            **numbers,
            "time_limit": duration,
            **{name: texts_of for name in codecontests_module.TESTS},
            **{name: answers for name in ("solutions", "incorrect_solutions")},
        }
    )
    datasets.Dataset.from_list([row], features=features).to_parquet(str(tmp_path / "valid.parquet"))
    held = datasets.load_dataset(
        "parquet",
        data_files=str(tmp_path / "valid.parquet"),
        split="train",
        cache_dir=str(tmp_path / "cache"),
    )
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **named: asked.append((args, named)) or held)
    (task,) = find("codecontests").load(None, split="validation")
    assert asked == [(("deepmind/code_contests", None), {"split": "valid"})]
    (same,) = find("codecontests").load(write(tmp_path / "c.jsonl", row))
    assert task == same and task.reference == SUM and task.cpu_seconds == 0


def test_codecontests_leaves_out_files_and_names_broken_rows(tmp_path: Path) -> None:
    records = [{"input": "1 2", "output": "3"}]
    rows = [codecontests(name="a", input_file="in.txt"), codecontests(name="b", public_tests=records)]
    (task,) = find("codecontests").load(write(tmp_path / "c.jsonl", *rows))
    assert task.id == "codeforces/b" and task.runs[0].stdin == "1 2"
    none = {"input": [], "output": []}
    for change, said in [
        ({"public_tests": {"input": ["1"], "output": []}}, "ValueError"),
        ({"public_tests": {"in": []}}, "KeyError"),
        ({"source": 99}, "IndexError"),
        (dict.fromkeys(codecontests_module.TESTS, none), "has no test"),
        ({"name": 3}, "name missing or of another type"),
    ]:
        with pytest.raises(WishError, match=rf"d\.jsonl:1: .*{said}"):
            find("codecontests").load(write(tmp_path / "d.jsonl", codecontests(**change)))


@pytest.mark.parametrize("packed", [True, False])
def test_livecodebench_scripts(packed: bool, tmp_path: Path) -> None:
    row = livecodebench(tests=[("1 2\n", "3\n"), ("2 2\n", "4\n")], packed=packed)
    source = write(tmp_path / "l.jsonl", row)
    (task,) = find("livecodebench").load(source)
    assert (task.id, task.group, len(task.runs)) == ("abc301_a", "easy/atcoder", 3)
    right, wrong = judged("livecodebench", source, SUM, "print(3.0)")
    assert right.passed and wrong.detail.startswith("run 3 of 3")


def test_livecodebench_functions(tmp_path: Path) -> None:
    row = livecodebench("f", [("[1, 2]\n3", "[6, 1]"), ("[]\n0", "[0, 0]")])
    source = write(tmp_path / "l.jsonl", row)
    typed = "class Solution:\n    def f(self, a: List[int], b: int) -> List[int]:\n        return {}\n"
    tuple_, nested, wrapped = judged(
        "livecodebench",
        source,
        typed.format("(sum(a) + b, len(a) // 2)"),
        typed.format("[(6, 1)]"),
        typed.format("6"),
    )
    assert tuple_.passed and names([nested, wrapped]) == ["wrong", "wrong"]
    (task,) = find("livecodebench").load(source)
    fenced = f"Here:\n```python\n{typed.format('[sum(a) + b, len(a) // 2]')}```\nIt adds."
    (chat,) = judged("livecodebench", source, extract(fenced, task, chat=True))
    assert chat.passed


def test_livecodebench_windows(tmp_path: Path) -> None:
    days = ["2024-07-31", "2024-08-01", "2025-01-31", "2025-02-01 00:00:00"]
    rows = [livecodebench(question_id=day, contest_date=day) for day in days]
    source = write(tmp_path / "l.jsonl", *rows)

    def chosen(split: str) -> list[str]:
        return [task.id for task in find("livecodebench").load(source, split=split)]

    assert chosen("test") == chosen("validation") == days
    assert chosen("2024-08..2025-01") == days[1:3]
    assert chosen("2025-01-31..") == days[2:]
    assert chosen("..2024-07") == days[:1]
    for split in ("..", "2024..2025", "2024-13..", "train"):
        with pytest.raises(WishError, match="no split"):
            chosen(split)
    with pytest.raises(WishError, match=r"2030-01\.\. of .* holds no task"):
        chosen("2030-01..")
    with pytest.raises(WishError, match="contest_date is None"):
        find("livecodebench").load(
            write(tmp_path / "m.jsonl", livecodebench(contest_date=None)), split="2024-01.."
        )


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("what", [Evil(), ["[]"], b"[]", 7], ids=["code", "list", "bytes", "number"])
def test_a_pickle_is_read_and_never_loaded(
    what: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    packed = base64.b64encode(zlib.compress(pickle.dumps(what))).decode()
    source = write(tmp_path / "l.jsonl", livecodebench(private_test_cases=packed))
    with pytest.raises(WishError, match=r"l\.jsonl:1: the tests cannot be read"):
        find("livecodebench").load(source)
    assert not (tmp_path / "executed").exists()


def test_private_tests_that_unpack_without_end_are_refused_before_they_fill_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lcb, "MOST_BYTES", 1 << 20)
    bomb = pickle.dumps("[" + " " * (64 << 20) + "]")
    source = write(
        tmp_path / "l.jsonl",
        livecodebench(private_test_cases=base64.b64encode(zlib.compress(bomb)).decode()),
    )
    tracemalloc.start()
    with pytest.raises(WishError, match=r"l\.jsonl:1: .*private tests of more than 1,048,576 bytes"):
        find("livecodebench").load(source)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 8 << 20


@pytest.mark.parametrize("packed", ["!", "AAAA", base64.b64encode(zlib.compress(b"no pickle")).decode()])
def test_private_tests_that_are_torn_are_refused(packed: str, tmp_path: Path) -> None:
    source = write(tmp_path / "l.jsonl", livecodebench(private_test_cases=packed))
    with pytest.raises(WishError, match=r"l\.jsonl:1: the tests cannot be read"):
        find("livecodebench").load(source)


@pytest.mark.parametrize(
    ("comparison", "printed", "wanted", "passes"),
    [
        ("decimals", "1.0 2\n", "1 2.00", True),
        ("decimals", " 1 2 \nabc\n", "1 2\nabc", True),
        ("decimals", "1\n2", "1 2", False),
        ("decimals", "1.0001", "1", False),
        ("decimals", "ABC", "abc", False),
        ("decimals", "sNaN", "1", False),
        ("caseless", "YES 1.000001", "yes 1", True),
        ("caseless", "1.001", "1", False),
        ("caseless", "1000000000000000001", "1000000000000000000", False),
        ("caseless", "inf", "1", False),
        ("floats", "1000000001", "1000000000", False),
        ("floats", "1000000001.0", "1000000000", True),
        ("floats", "007", "7", True),
        ("floats", "inf", "1" + "0" * 400, False),
        ("floats", "1e999", "1" + "0" * 400, False),
        ("floats", "1" + "0" * 399 + "1.5", "1" + "0" * 400, False),
        ("floats", "inf", "Infinity", True),
    ],
)
def test_comparisons(comparison: str, printed: str, wanted: str, passes: bool) -> None:
    assert COMPARISONS[comparison](printed, wanted) is passes


def test_texts_that_training_rows_must_not_overlap(tmp_path: Path) -> None:
    tests = {"inputs": ["1\n"], "outputs": ["1\n"]}
    (held_out,) = texts("apps", write(tmp_path / "a.jsonl", apps(tests=tests, solutions=[SUM])))
    assert "Add the numbers." in held_out and SUM in held_out
    assert texts("codecontests", write(tmp_path / "c.jsonl", codecontests()))
    assert texts("livecodebench", write(tmp_path / "l.jsonl", livecodebench()))


def test_files_of_the_hub_are_read_as_they_are(tmp_path: Path) -> None:
    """From the hub client's own cache, since there is no hub here."""
    tests = {"inputs": ["1 2\n"], "outputs": ["3\n"]}
    cache = tmp_path / "datasets--codeparrot--apps"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("0" * 40)
    snapshot = cache / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    write(snapshot / "test.jsonl", apps(5, tests=tests))
    show = [sys.executable, "-m", "engine", "benchmark", "show", "apps"]
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(show, env=environment, capture_output=True, text=True)
    assert "APPS/5" in done.stdout, done.stderr
    gone = subprocess.run([*show, "--split", "train"], env=environment, capture_output=True, text=True)
    assert gone.returncode == 2 and "cannot load codeparrot/apps from the hub" in gone.stderr


def test_a_zipped_file_that_breaks_off_is_said(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(codecontests()).encode())[:-20])
    with pytest.raises(WishError, match="cannot read"):
        find("codecontests").load(str(path))


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("apps", {"input_output": "5"}),
        ("apps", {"input_output": "null"}),
        ("apps", {"solutions": "5"}),
        ("codecontests", {"time_limit": 5}),
        ("codecontests", {"solutions": 5}),
        ("livecodebench", {"metadata": "[]"}),
        ("livecodebench", {"metadata": "5"}),
    ],
)
def test_a_row_of_another_shape_is_a_sentence(name: str, row: dict[str, Any], tmp_path: Path) -> None:
    whole = {
        "apps": apps(tests={"inputs": ["1\n"], "outputs": ["1\n"]}),
        "codecontests": codecontests(),
        "livecodebench": livecodebench(),
    }[name]
    find(name).load(write(tmp_path / "right.jsonl", whole))
    with pytest.raises(WishError, match=r"t\.jsonl:1: "):
        find(name).load(write(tmp_path / "t.jsonl", whole | row))


def test_an_answer_too_long_to_be_kept_whole_is_no_right_one(tmp_path: Path) -> None:
    tests = {"stdin": "", "stdout": "yes"}
    source = write(tmp_path / "t.jsonl", {"task_id": "t/1", "prompt": "# Print yes.\n", "tests": [tests]})
    found = judged("custom", source, "print('yes')", "print('yes' + ' ' * 70000 + 'garbage')")
    assert names(found) == ["passed", "output_limit"]
