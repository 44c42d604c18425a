"""Rewards from execution: the trainer's calling convention, forgeries, and the sandbox's own failures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from engine.errors import WishError
from engine.improve import ExecutionReward
from engine.sandbox import Limits

PROMPT = "def add(a, b):\n"
TEST = "def check(candidate):\n    assert candidate(1, 2) == 3\n"
RIGHT, WRONG, FORGED = "    return a + b\n", "    return a - b\n", "    import os; os._exit(0)\n"


@pytest.fixture(scope="module")
def reward() -> Iterator[ExecutionReward]:
    made = ExecutionReward(limits=Limits(cpu_seconds=1, wall_seconds=3), workers=1)
    yield made
    made.close()


def test_plain_completions_go_on_with_their_prompt(reward: ExecutionReward) -> None:
    given = reward(
        prompts=[PROMPT] * 3,
        completions=[RIGHT, WRONG, FORGED],
        completion_ids=[[1], [2], [3]],
        trainer_state=object(),
        test=[TEST] * 3,
        entry_point=["add"] * 3,
    )
    assert given == [1.0, 0.0, 0.0]
    assert reward.verdicts["passed"] == 1 and reward.verdicts["incomplete"] == 1


def test_conversations_are_searched_for_code(reward: ExecutionReward) -> None:
    def said(code: str) -> list[dict[str, str]]:
        return [{"role": "assistant", "content": f"Sure:\n```python\n{code}```\nDone."}]

    prompts = [[{"role": "user", "content": "Write add(a, b)."}]] * 3
    completions = [
        said(PROMPT + RIGHT),
        said(PROMPT + WRONG),
        [{"role": "assistant", "content": "I cannot."}],
    ]
    calls = [[["add(1, 2)", 3], ["add(0, 0)", 0]], '[["add(1, 2)", 3]]', [["add(1, 2)", 3]]]
    assert reward(prompts, completions, calls=calls, entry_point=["add"] * 3) == [1.0, 0.0, 0.0]


def test_rewards_by_verdict_are_the_users(reward: ExecutionReward) -> None:
    reward.values, reward.otherwise = {"passed": 2.0, "compile_error": -1.0}, -0.5
    try:
        given = reward([PROMPT] * 3, [RIGHT, "  (\n", WRONG], test=[TEST] * 3, entry_point=["add"] * 3)
    finally:
        reward.values, reward.otherwise = {"passed": 1.0}, 0.0
    assert given == [2.0, -1.0, -0.5]


def test_a_row_without_a_test_is_named(reward: ExecutionReward) -> None:
    with pytest.raises(WishError, match="nothing to judge"):
        reward([PROMPT], [RIGHT], other=["x"])
    with pytest.raises(WishError, match="no entry_point"):
        reward([PROMPT], [RIGHT], test=[TEST])
    with pytest.raises(WishError, match="not pairs"):
        reward([PROMPT], [RIGHT], calls=["{"])


def test_trainers_find_a_name_to_log_it_under(reward: ExecutionReward) -> None:
    assert reward.__name__ == "execution_reward"


@pytest.mark.parametrize("calls", ["[]", "[ ]"])
def test_calls_that_judge_nothing_earn_nothing(reward: ExecutionReward, calls: str) -> None:
    with pytest.raises(WishError, match="row 0 of 1: a row has nothing to judge"):
        reward(prompts=[PROMPT], completions=[RIGHT], calls=[calls])


def test_a_row_that_cannot_be_judged_is_named(reward: ExecutionReward) -> None:
    columns = {"entry_point": ["add"] * 2, "test": [TEST, "def check(:"]}
    with pytest.raises(WishError, match="row 1 of 2: a test is not Python"):
        reward(prompts=[PROMPT] * 2, completions=[RIGHT] * 2, **columns)
    with pytest.raises(WishError, match="2 completions came with 1 prompts"):
        reward(prompts=[PROMPT], completions=[RIGHT] * 2, **columns)
    with pytest.raises(WishError, match="a completion is a NoneType"):
        reward(prompts=[PROMPT] * 2, completions=[RIGHT, None], entry_point=["add"] * 2, test=[TEST] * 2)


def test_a_worth_must_be_of_a_verdict() -> None:
    with pytest.raises(WishError, match="no verdict 'pased'"):
        ExecutionReward(values={"pased": 1.0})
