"""Masks: exactly what the model must write is trained, its end included, for templates of several families."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.data.batch import Encoded
from engine.data.chat import end_of_turn
from engine.data.formats import Chat, Document, Pair
from engine.data.tokenize import Encoder
from engine.errors import WishError

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTENTS = [
    ("add", "def add(a, b):\n    return a + b\n"),
    ("x", "assistant"),
    ("user", "  indented, and space at the end  "),
    ("ünïcode 🙂", "🙂 straße\n\n"),
    ("say <b>", "x"),
]


def _chat(*contents: str) -> Chat:
    roles = ("user", "assistant")
    turns = tuple({"role": roles[i % 2], "content": content} for i, content in enumerate(contents))
    return Chat("c", "rows.jsonl:1", turns)


def _trained(tokenizer: Any, sample: Encoded) -> list[str]:
    """The trained runs of a sample as text."""
    runs: list[list[int]] = []
    before = False
    for token, trained in zip(sample.ids.tolist(), sample.trained.tolist(), strict=True):
        if trained:
            runs = runs if before else [*runs, []]
            runs[-1].append(token)
        before = trained
    return [tokenizer.decode(run, skip_special_tokens=False) for run in runs]


@pytest.mark.parametrize(("ask", "answer"), CONTENTS)
def test_chatml_trains_each_answer_and_its_end(chatml: Any, ask: str, answer: str) -> None:
    (sample,) = Encoder(chatml, mask_prompt=True).encode([_chat(ask, answer, "again", answer)])
    assert _trained(chatml, sample) == [f"{answer}<|im_end|>"] * 2


@pytest.mark.parametrize(("ask", "answer"), CONTENTS)
def test_llama3_trains_what_its_template_made_of_the_answer(llama3: Any, ask: str, answer: str) -> None:
    (sample,) = Encoder(llama3, mask_prompt=True).encode([_chat(ask, answer, "again", answer)])
    assert _trained(llama3, sample) == [f"{answer.strip()}<|eot_id|>"] * 2


def test_llama2_trains_answers_that_end_with_eos(codellama: Any) -> None:
    (sample,) = Encoder(codellama, mask_prompt=True).encode([_chat("add", "return a", "again", "b")])
    assert _trained(codellama, sample) == ["return a </s>", "b </s>"]


@pytest.mark.parametrize("name", ["chatml", "llama3", "codellama"])
def test_a_conversation_has_the_tokens_of_the_tokenizers_own_template(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(name)
    chat = _chat("add", "x\n", "again", "def f():\n\n    return 1")
    (sample,) = Encoder(tokenizer, mask_prompt=True).encode([chat])
    assert sample.ids.tolist() == tokenizer.apply_chat_template(list(chat.messages), return_dict=False)


@pytest.mark.parametrize("name", ["chatml", "llama3"])
def test_training_starts_where_generation_does(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(name)
    chat = _chat("add", "a", "b", " c d")
    (sample,) = Encoder(tokenizer, mask_prompt=True).encode([chat])
    asked = tokenizer.apply_chat_template(
        list(chat.messages[:3]), add_generation_prompt=True, return_dict=False
    )
    assert sample.ids.tolist()[: len(asked)] == asked
    assert sample.trained[len(asked)] and not sample.trained[len(asked) - 1]


def test_a_template_that_thinks_first_trains_what_comes_after_the_generation_prompt(chatml: Any) -> None:
    thinking = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}"
        "<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    sample = _with_template(chatml, thinking, _chat("a", "first", "b", "second"))
    assert _trained(chatml, sample) == ["first<|im_end|>", "<think>\n\n</think>\n\nsecond<|im_end|>"]


def test_tool_calls_are_trained_with_the_turn_that_makes_them(chatml: Any) -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}{% for c in m.tool_calls or [] %}"
        "CALL {{ c.name }}{% endfor %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    turns = (
        {"role": "user", "content": "time?"},
        {"role": "assistant", "content": None, "tool_calls": [{"name": "clock"}]},
        {"role": "tool", "content": "noon"},
        {"role": "assistant", "content": "It is noon."},
    )
    sample = _with_template(chatml, template, Chat("c", "rows.jsonl:1", turns))
    assert _trained(chatml, sample) == ["CALL clock<|im_end|>", "It is noon.<|im_end|>"]


def _with_template(tokenizer: Any, template: str, chat: Chat) -> Encoded:
    before = tokenizer.chat_template
    tokenizer.chat_template = template
    try:
        return Encoder(tokenizer, mask_prompt=True).encode([chat])[0]
    finally:
        tokenizer.chat_template = before


def test_a_template_without_an_end_of_turn_is_refused(chatml: Any) -> None:
    open_ended = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}\n{% endfor %}"
    with pytest.raises(WishError, match="without an end-of-turn token"):
        _with_template(chatml, open_ended, _chat("a", "b", "c", "d"))


def test_a_template_that_rewrites_history_is_refused_where_its_turns_cannot_be_found(chatml: Any) -> None:
    forgets = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{{ m.content if loop.last or m.role != 'assistant' else m.content | length }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    with pytest.raises(
        WishError, match=r"rows\.jsonl:1: the chat template renders earlier turns differently"
    ):
        _with_template(chatml, forgets, _chat("a", "long answer", "c", "d"))


def test_roles_the_template_refuses_are_named(chatml: Any) -> None:
    strict = "{% if messages[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}x<|im_end|>"
    with pytest.raises(WishError, match=r"refuses the conversation \(user first\); its roles are system"):
        _with_template(chatml, strict, Chat("c", "rows.jsonl:1", ({"role": "system", "content": "a"},)))


@pytest.mark.parametrize("name", ["chatml", "llama3", "starcoder", "codellama"])
def test_a_completion_and_its_eos_are_trained_also_where_pad_is_eos(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer = request.getfixturevalue(name)
    pair = Pair("p", "rows.jsonl:1", "def f(values):\n", "    return values\n")
    (sample,) = Encoder(tokenizer, mask_prompt=True).encode([pair])
    # What the model is asked with is exactly what it was trained after.
    prompt = tokenizer(pair.prompt)["input_ids"]
    assert sample.ids[: len(prompt)].tolist() == prompt and not sample.trained[: len(prompt)].any()
    assert sample.trained[len(prompt) :].all() and sample.ids[-1] == tokenizer.eos_token_id
    whole = tokenizer.decode(sample.ids.tolist(), skip_special_tokens=True)
    assert whole.endswith(pair.prompt + pair.completion) or whole == (pair.prompt + pair.completion).lstrip()


def test_text_trains_everything_but_its_first_token(chatml: Any, llama3: Any) -> None:
    document = Document("d", "rows.jsonl:1", "def f(): pass", code=False)
    (plain,) = Encoder(chatml, mask_prompt=True).encode([document])
    assert plain.trained.tolist() == [False] + [True] * (len(plain) - 1)
    (with_bos,) = Encoder(llama3, mask_prompt=True).encode([document])
    assert with_bos.ids[0] == llama3.bos_token_id and with_bos.trained[1:].all()


def test_prompts_are_trained_when_asked_for(chatml: Any) -> None:
    pair, chat = Pair("p", "r:1", "a b", "c"), _chat("ask", "answer")
    for sample in Encoder(chatml, mask_prompt=False).encode([pair, chat]):
        assert sample.trained.tolist() == [False] + [True] * (len(sample) - 1)


def test_samples_of_all_kinds_keep_their_order(chatml: Any) -> None:
    kinds = [_chat("a", "b"), Pair("p", "r", "a", "b"), Document("d", "r", "x", code=True), _chat("c", "d")]
    encoded = Encoder(chatml, mask_prompt=True).encode(kinds)
    assert [sample.id for sample in encoded] == ["c", "p", "d", "c"]


def test_the_end_of_turn_is_known_to_whoever_generates(chatml: Any, llama3: Any, starcoder: Any) -> None:
    assert end_of_turn(chatml) == chatml.convert_tokens_to_ids("<|im_end|>")
    assert end_of_turn(llama3) == llama3.convert_tokens_to_ids("<|eot_id|>")
    assert end_of_turn(starcoder) is None


# Habits met in the wild: (template, what is trained of the answer "ok"), on a tokenizer that knows the tokens.
WILD = {
    "a generation prompt shorter than the header": (
        "{% for m in messages %}{% if m.role == 'user' %}### Instruction:\n{{ m.content }}\n{% else %}### Response:\n"
        "{{ m.content }}\n<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:{% endif %}",
        "\nok\n<|im_end|>",
    ),
    "another name for the assistant": (
        "{% for m in messages %}<|im_start|>{{ 'model' if m.role == 'assistant' else m.role }}\n"
        "{{ m.content | trim }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}",
        "ok<|im_end|>",
    ),
    "a system turn of its own making": (
        "{% if messages[0].role != 'system' %}<|im_start|>system\nBe kind. assistant<|im_end|>\n{% endif %}"
        + CHATML,
        "ok<|im_end|>",
    ),
    "thoughts dropped from the answer": (
        CHATML.replace("{{ m.content }}", "{{ m.content.split('</think>')[-1] }}"),
        "ok<|im_end|>",
    ),
    "generation blocks": (
        CHATML.replace(
            "{{ m.content }}<|im_end|>",
            "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
            "{% else %}{{ m.content }}<|im_end|>{% endif %}",
        ),
        "ok<|im_end|>",
    ),
    "no generation prompt, and alternation enforced": (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('no') }}"
        "{% endif %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}<|endoftext|>"
        "{% endif %}{% endfor %}",
        " ok<|endoftext|>",
    ),
}


@pytest.mark.parametrize("habit", WILD)
def test_templates_as_they_are_met_train_just_the_answers(habit: str, chatml: Any) -> None:
    template, trained = WILD[habit]
    answer = "<think>hm</think>ok" if "thoughts" in habit else "ok"
    sample = _with_template(chatml, template, _chat("assistant\nok", answer, "ok", answer))
    assert _trained(chatml, sample) == [trained, trained]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    contents=st.lists(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), min_size=2, max_size=6
    )
)
def test_whatever_is_said_the_answers_and_nothing_else_are_trained(chatml: Any, contents: list[str]) -> None:
    (sample,) = Encoder(chatml, mask_prompt=True).encode([_chat(*contents)])
    assert _trained(chatml, sample) == [f"{answer}<|im_end|>" for answer in contents[1::2]]
