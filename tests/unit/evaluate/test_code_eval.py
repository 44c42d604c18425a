"""The metric: what a candidate with its reference comes to, where references are judged, and the library's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.errors import PreflightError
from engine.evaluate import CODE_EVAL
from engine.evaluate import judge as judging
from engine.evaluate.code_eval.compute import Results, pass_at_ks, run
from engine.evaluate.code_eval.reference import program
from engine.sandbox import Verdict

ROOT = Path(__file__).parent.parent.parent.parent
CHECK = "METADATA = {}\n\ndef check(candidate):\n    assert candidate(2) == 4\n"
CHECK += "    assert candidate(-1) == -2\n\ncheck(f)"
STACK = "class Stack:\n def __init__(self): self.all = []\n def push(self, x): self.all.append(x)\n"
STACK += " def pop(self): return self.all.pop()\n"
RIGHT = "def f(x):\n    return x * 2\n"

CASES: dict[str, tuple[str, str, str, str]] = {
    # what: (candidate, reference, form, result)
    "asserts": (RIGHT, "assert f(2) == 4\nassert f(-1) == -2, f'no: {f(-1)}'", "test", "passed"),
    "an assert fails": (RIGHT, "assert f(2) == 4\nassert f(1) == 3", "test", "failed"),
    "check": (RIGHT, CHECK, "test", "passed"),
    "check fails": (RIGHT.replace("2", "3"), CHECK, "test", "failed"),
    "no reference": (RIGHT, "", "together", "passed"),
    "a comment": (RIGHT, "# nothing to see", "together", "passed"),
    "nothing at all": ("", "", "together", "passed"),
    "no candidate": ("", "assert f(2) == 4", "test", "failed"),
    "a candidate that raises": ("raise ValueError('no')", "", "together", "failed"),
    "a candidate that is no Python": ("def f(x:\n", "assert True", "test", "failed"),
    "a reference that is none": (RIGHT, "assert f(2) ==", "together", "failed"),
    "a reference that goes on": (
        "def f(x):\n    y = x * 2",
        "    return y\nassert f(2) == 4",
        "together",
        "passed",
    ),
    "a null byte": (RIGHT, "assert f(2) == 4\0", "together", "failed"),
    "future of the candidate": (
        "from __future__ import annotations\ndef f(x: Unknown) -> Other:\n    return x * 2\n",
        "assert f(2) == 4",
        "test",
        "passed",
    ),
    "future of the reference": (
        RIGHT,
        "from __future__ import annotations\nassert f(2) == 4",
        "together",
        "failed",
    ),
    "helper in the reference": (
        RIGHT,
        "def near(a, b):\n    return abs(a - b) < 1e-6\n\nfor x in range(3):\n    assert near(f(x), 2 * x)",
        "test",
        "passed",
    ),
    "helper for the candidate": (
        "def f(x):\n    return twice(x)\n",
        "def twice(x):\n    return 2 * x\n\nassert f(2) == 4",
        "test",
        "passed",
    ),
    "import for the candidate": (
        "def f(x):\n return math.floor(x)\n",
        "import math\nassert f(2.5) == 2",
        "test",
        "passed",
    ),
    "import of the candidate": (
        "import math\n" + RIGHT,
        "assert math.isclose(f(0.1), 0.2)",
        "test",
        "passed",
    ),
    "several names": (
        "LIMIT = 3\ndef f(x): return x + 1\ndef g(x): return x - 1\n",
        "assert f(g(5)) == 5\nassert [f(i) for i in range(LIMIT)] == [1, 2, 3]",
        "test",
        "passed",
    ),
    "an iterator": (
        "def f(n):\n    yield from range(n)\n",
        "assert list(f(3)) == [0, 1, 2]",
        "test",
        "passed",
    ),
    "handed on": (RIGHT, "assert list(map(f, [1, 2])) == [2, 4]", "test", "passed"),
    "changed in place": (
        "def f(x):\n    x.sort()\n",
        "x = [2, 1]\nf(x)\nassert x == [1, 2]",
        "test",
        "passed",
    ),
    "an exception": (
        "def f(x):\n    raise ValueError(x)\n",
        "try:\n    f(1)\nexcept ValueError:\n    pass\nelse:\n    assert False",
        "test",
        "passed",
    ),
    "a builtin's name": ("def sum(x):\n    return 'mine'\n", "assert sum([1]) == 'mine'", "test", "passed"),
    "a builtin's name, not overridden": ("", "assert sum([1]) == 1", "test", "passed"),
    "objects": (STACK, "s = Stack()\ns.push(1)\nassert s.pop() == 1", "together", "passed"),
    "objects fail": (STACK, "s = Stack()\ns.push(1)\nassert s.pop() == 2", "together", "failed"),
    "a function handed over": (
        "def f(g, x):\n    return g(x)\n",
        "assert f(lambda x: x + 1, 1) == 2",
        "together",
        "passed",
    ),
    "found out late": (
        "def f(g, x):\n    return g(x)\n",
        "h = [lambda x: x + 1]\nassert f(h[0], 1) == 2",
        "test",
        "passed",
    ),
    "random input": (
        RIGHT,
        "import random\nrng = random.Random(1)\nfor _ in range(3):\n    x = rng.random()\n    assert f(x) == 2 * x",
        "test",
        "passed",
    ),
    "a seed for both": (
        "import random\ndef f():\n    return random.random()\n",
        "import random\nrandom.seed(1)\nassert f() == 0.13436424411240122",
        "together",
        "passed",
    ),
    "a name like a class's": ("def Find(x):\n    return x[0]\n", "assert Find([3]) == 3", "test", "passed"),
    "a queue": (
        "from collections import deque\ndef f(x):\n    return deque(x)\n",
        "from collections import deque\nassert f([1]) == deque([1])",
        "together",
        "passed",
    ),
    "a main block": (
        RIGHT + "if __name__ == '__main__':\n    raise ValueError\n",
        "assert f(1) == 2",
        "test",
        "passed",
    ),
    "a loop": ("def f(x):\n    while True: pass\n", "assert f(1) == 2", "test", "timed out"),
    "a sleeper": ("import time\ndef f(x):\n    time.sleep(60)\n", "assert f(1) == 2", "test", "timed out"),
    "leaves": ("import os\ndef f(x):\n    os._exit(0)\n", "assert f(1) == 2", "test", "failed"),
    "leaves at once": ("raise SystemExit(0)", "", "together", "failed"),
    "equal to all": (
        "class A:\n    def __eq__(self, other): return True\ndef f(x):\n    return A()\n",
        "assert f(1) == 2",
        "test",
        "failed",
    ),
    "looks for the answer": (
        "import inspect\ndef f(x):\n    return [v for s in inspect.stack() for v in s.frame.f_locals.values()]\n",
        "want = 'a secret'\nassert want in f(1)",
        "test",
        "failed",
    ),
    "asks to be lent the answer": (
        "def f(x):\n    return want\n",
        "want = 'a secret'\nassert f(1) == want",
        "test",
        "failed",
    ),
}


FORGED = ("equal to all", "looks for the answer", "asks to be lent the answer")
"""Where the library's own is taken in."""


@pytest.fixture(scope="module")
def results() -> Results:
    candidates = [[candidate] for candidate, _, _, _ in CASES.values()]
    return run(candidates, [reference for _, reference, _, _ in CASES.values()], workers=2, timeout=0.7)


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_one_text_run_after_the_other(name: str, results: Results) -> None:
    ((number, told),) = results[list(CASES).index(name)]
    assert told["result"].partition(":")[0] == CASES[name][3], told
    assert told["passed"] == (told["result"] == "passed")
    assert (number, told["completion_id"], told["task_id"]) == (0, 0, list(CASES).index(name))


@pytest.mark.parametrize("name", CASES)
def test_a_reference_is_judged_apart_where_plain_data_will_do(name: str) -> None:
    candidate, reference, form, _ = CASES[name]
    assert ("together" if program(candidate, reference).together else "test") == form


def test_k_is_left_out_where_a_task_has_too_few_candidates() -> None:
    wrong = "def f(x): return 0"
    results = run([[RIGHT, wrong, wrong], [RIGHT, RIGHT]], ["assert f(2) == 4"] * 2, workers=1, timeout=3)
    assert [number for number, _ in results[0]] == [0, 1, 2]
    assert pass_at_ks(results, (1, 2, 3, 10)) == {"pass@1": (1 / 3 + 1) / 2, "pass@2": (2 / 3 + 1) / 2}
    assert pass_at_ks({}, (1,)) == {}


def test_a_broken_sandbox_is_raised_and_not_called_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(judging.Pool):
        def submit(self, program: Any, *limits: Any) -> Any:
            future = super().submit(program, *limits)
            future.result()
            broken: Any = type(future)()
            broken.set_result(Verdict("infra", "the worker died"))
            return broken

    monkeypatch.setattr(judging, "Pool", Broken)
    with pytest.raises(PreflightError, match="candidate 0 of task 0: the worker died"):
        run([[RIGHT]], ["assert f(2) == 4"], workers=1, timeout=3)


SCRIPT = """
import json, sys
import evaluate
from engine.evaluate import CODE_EVAL
predictions, references, places = json.load(sys.stdin)
told = []
for place in places:
    metric = evaluate.load(place or CODE_EVAL)
    shares, results = metric.compute(predictions=predictions, references=references, k=[1, 2], timeout=2.0)
    told.append([{k: float(v) for k, v in shares.items()}, [results[n] for n in sorted(results)]])
print(json.dumps(told))
"""


def compute(predictions: list[list[str]], references: list[str], places: list[str], home: Path) -> Any:
    """What `evaluate.load(place).compute` gives in a process without the hub, for each place."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1", "HF_HOME": str(home)}
    if places != [""]:
        environment["HF_ALLOW_CODE_EVAL"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps([predictions, references, places]),
        env=environment | {"PYTHONPATH": str(ROOT)},
        cwd=home,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_evaluate_loads_it_without_the_hub_and_without_leave(tmp_path: Path) -> None:
    candidates = [["def add(a, b): return a * b", "def add(a, b): return a + b"]]
    ((shares, results),) = compute(candidates, ["assert add(2, 3) == 5"], [""], tmp_path)
    assert shares == {"pass@1": 0.5, "pass@2": 1.0}
    assert [number for number, _ in results[0]] == [0, 1]
    assert [told["result"].partition(":")[0] for _, told in results[0]] == ["failed", "passed"]
    assert set(results[0][0][1]) == {"task_id", "passed", "result", "completion_id"}


def test_the_same_is_said_as_by_the_librarys_own(tmp_path: Path) -> None:
    peers = os.environ.get("TEMPER_PEERS")
    if not peers:
        pytest.skip("TEMPER_PEERS is not set: it names the folder with a checkout of huggingface/evaluate")
    chosen = {name: case for name, case in CASES.items() if name not in FORGED}
    predictions = [[candidate] for candidate, _, _, _ in chosen.values()]
    references = [reference for _, reference, _, _ in chosen.values()]
    theirs = str(Path(peers) / "evaluate" / "metrics" / "code_eval")
    mine, other = compute(predictions, references, [CODE_EVAL, theirs], tmp_path)
    for name, left, right in zip(chosen, mine[1], other[1], strict=True):
        said = [told[0][1]["result"].partition(":")[0] for told in (left, right)]
        # A program that leaves has told the original nothing, which it takes for a timeout.
        assert said == (["failed", "timed out"] if name == "leaves" else [said[0]] * 2), name
    assert mine[0] == other[0]
