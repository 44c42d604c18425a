"""Rows in the formats of the two benchmarks whose tasks need libraries; all are this project's own."""

from __future__ import annotations

from typing import Any

ABSENT = "temper_knows_no_such_library"

UNIT_TESTS = """
import json
import os
import tempfile
import unittest
from unittest.mock import patch


class TestCases(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.path = os.path.join(self.folder, "numbers.json")

    def test_mean(self):
        with open(self.path, "w") as file:
            json.dump([1, 2, 6], file)
        self.assertEqual(task_func(self.path), 3.0)

    def test_seed_is_the_programs(self):
        with patch("numpy.mean", return_value=7.0) as mean:
            with open(self.path, "w") as file:
                json.dump([1], file)
            self.assertEqual(task_func(self.path), 7.0)
            mean.assert_called_once()

    def test_a_constant_of_its_module(self):
        with patch(f"{__name__}.SCALE", 2.0), open(self.path, "w") as file:
            json.dump([4], file)
            file.flush()
            self.assertEqual(task_func(self.path), 8.0)
"""


def unit_tested(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A row as BigCodeBench has them."""
    head = "import numpy as np\n\nSCALE = 1.0\n\ndef task_func(path):\n"
    return {
        "task_id": f"Own/{number}",
        "complete_prompt": f'{head}    """Mean of the numbers in a JSON file, times SCALE."""\n',
        "instruct_prompt": f"Mean of the numbers in a JSON file.\nStart with:\n```\n{head}```",
        "canonical_solution": "    with open(path) as file:\n        return float(np.mean(json.load(file))) * SCALE\n",
        "code_prompt": head,
        "test": UNIT_TESTS,
        "entry_point": "task_func",
        "doc_struct": "{}",
        "libs": "['numpy', 'json']",
        **changes,
    }


CONTEXT = '''
import copy
import io
import tokenize
import numpy as np


def generate_test_case(test_case_id):
    def define_test_input(test_case_id):
        return np.arange(3 * test_case_id)

    def generate_ans(data):
        return data[::-1]

    test_input = define_test_input(test_case_id)
    return test_input, generate_ans(copy.deepcopy(test_input))


def exec_test(result, ans):
    np.testing.assert_array_equal(result, ans)
    return 1


exec_context = r"""
import numpy as np
a = test_input
def turn(a):
[insert]
result = turn(a)
"""


def test_execution(solution: str):
    code = exec_context.replace("[insert]", solution)
    for i in range(2):
        test_input, expected_result = generate_test_case(i + 1)
        test_env = {"test_input": test_input}
        exec(code, test_env)
        assert exec_test(test_env["result"], expected_result)


def test_string(solution: str):
    tokens = [token.string for token in tokenize.tokenize(io.BytesIO(solution.encode("utf-8")).readline)]
    assert "for" not in tokens
'''


def data_science(number: int = 0, **changes: Any) -> dict[str, Any]:
    """A row as DS-1000 has them."""
    return {
        "prompt": "Problem:\nTurn an array around.\nA:\n<code>\nimport numpy as np\ndef turn(a):\n    # return it\n"
        "    ### BEGIN SOLUTION",
        "reference_code": "    return a[::-1]\n",
        "metadata": {
            "problem_id": number,
            "library_problem_id": number,
            "library": "Numpy",
            "test_case_cnt": 2,
            "perturbation_type": "Origin",
            "perturbation_origin_id": number,
        },
        "code_context": CONTEXT,
        **changes,
    }
