"""Answers over HTTP, from a real server process on loopback that has the embedded model and fails when told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.config import Run
from engine.errors import TemperError, WishError
from engine.evaluate.question import QUESTION
from engine.generate import Endpoint, Generation, Request, Sampling, ask_server, generate
from engine.generate.pace import Pace, backoff, retry_after

ROOT = Path(__file__).parent.parent.parent.parent
BASE = ROOT / "configs" / "tiny" / "base"
KEY = "sk-a-key-that-nobody-may-see"
PROMPTS = ("def add(a, b):\n", 'def first(items):\n    """First of the items."""\n', "class Point:\n", "x = ")
STOP = ("\ndef", "\nclass", "\n#")


@dataclass(frozen=True)
class Served:
    """A server process: where it is, and how to make it fail."""

    url: str

    def trouble(self, *entries: dict[str, Any]) -> None:
        """The next requests meet these; what was seen before is forgotten."""
        data = json.dumps(entries).encode()
        urllib.request.urlopen(self.url.removesuffix("/v1") + "/trouble", data, timeout=30).close()

    def told(self) -> dict[str, Any]:
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/seen", timeout=30) as reply:
            return json.load(reply)

    def seen(self) -> list[dict[str, Any]]:
        return self.told()["requests"]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    command = [sys.executable, str(Path(__file__).with_name("tiny_server.py")), str(BASE)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        yield Served(f"http://127.0.0.1:{int(process.stdout.readline())}/v1")
    finally:
        process.kill()
        process.wait()


@pytest.fixture()
def endpoint(served: Served) -> Endpoint:
    served.trouble()
    return Endpoint(
        served.url, "tiny", concurrency=4, retries=3, first_wait_seconds=0.02, timeout_seconds=30.0
    )


def requests(
    stop: tuple[str, ...] = STOP, *, prompts: tuple[str, ...] = PROMPTS, temperature: float = 0.0
) -> list[Request]:
    sampling = Sampling(temperature, max_new_tokens=16, stop=stop)
    return [Request(f"task/{number}", 0, text, number, sampling) for number, text in enumerate(prompts)]


def by_task(answers: Iterator[Generation]) -> dict[str, Generation]:
    found = list(answers)
    assert len(found) == len({one.task_id for one in found})
    return {one.task_id: one for one in found}


def local(wanted: list[Request], prompts: list[str] | None = None) -> dict[str, Generation]:
    model = AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32).eval()
    if prompts is not None:
        wanted = [replace(one, prompt=prompt) for one, prompt in zip(wanted, prompts, strict=True)]
    return by_task(generate(model, AutoTokenizer.from_pretrained(BASE), wanted, batch=1, device="cpu"))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_completions_are_those_of_the_model_itself(
    served: Served, endpoint: Endpoint, temperature: float
) -> None:
    wanted = requests(temperature=temperature)
    found, expected = by_task(ask_server(endpoint, wanted)), local(wanted)
    assert {task: replace(one, raw=one.text) for task, one in expected.items()} == found
    assert {one.finish for one in found.values()} == {"stop", "length"}
    sent = {json.dumps(one["body"], sort_keys=True) for one in served.seen()}
    assert sent == {
        json.dumps(
            {"model": "tiny", "prompt": one.prompt, "max_tokens": 16, "temperature": temperature}
            | {"top_p": 1.0, "seed": one.seed, "stop": list(STOP)},
            sort_keys=True,
        )
        for one in wanted
    }


@pytest.mark.parametrize("opening", [(), (("system", "Be terse."), ("user", "1?"), ("assistant", "x = 1"))])
def test_chat_sends_messages_and_the_server_applies_the_template(
    served: Served, endpoint: Endpoint, opening: tuple[tuple[str, str], ...]
) -> None:
    wanted = requests(
        (),
        prompts=tuple(QUESTION.format(language="python", prompt=prompt, fence="```") for prompt in PROMPTS),
    )
    tokenizer = AutoTokenizer.from_pretrained(BASE)
    rendered = [
        tokenizer.apply_chat_template(
            [{"role": role, "content": text} for role, text in (*opening, ("user", one.prompt))],
            tokenize=False,
            add_generation_prompt=True,
        )
        for one in wanted
    ]
    chat = replace(endpoint, api="chat", opening=opening)
    assert by_task(ask_server(chat, wanted)) == local(wanted, rendered)
    assert (chat.name == replace(chat, opening=()).name) == (not opening)
    assert {one["path"] for one in served.seen()} == {"/v1/chat/completions"}


def test_failures_that_pass_are_tried_again(
    served: Served, endpoint: Endpoint, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = requests()
    plain = by_task(ask_server(endpoint, wanted))
    kinds: list[dict[str, Any]] = [{"status": status} for status in (408, 409, 425, 429, 500, 503)]
    kinds += [{"drop": True}, {"text": "<html>gateway</html>"}, {"text": '{"error": "overloaded"}'}]
    served.trouble(*kinds)
    assert by_task(ask_server(replace(endpoint, retries=9), wanted)) == plain
    assert len(served.seen()) == len(wanted) + len(kinds)
    assert "asking again in" in capfd.readouterr().err


def test_retry_after_is_kept_by_all_requests(served: Served, endpoint: Endpoint) -> None:
    served.trouble({"status": 429, "retry_after": "1.5"})
    assert len(list(ask_server(replace(endpoint, concurrency=1), requests()))) == len(PROMPTS)
    first, second = (one["at"] for one in served.seen()[:2])
    assert second - first >= 1.4
    served.trouble({"status": 429, "retry_after": "86400"})
    with pytest.raises(TemperError, match="86400 s of quiet"):
        list(ask_server(replace(endpoint, concurrency=1), requests()))


def test_it_gives_up_after_its_retries_and_what_was_answered_stays(
    served: Served, endpoint: Endpoint
) -> None:
    served.trouble({}, *[{"status": 500, "said": "out of memory"}] * 4)
    answers = ask_server(replace(endpoint, concurrency=1), requests())
    assert next(answers).task_id == "task/0"
    with pytest.raises(
        TemperError, match=r"task/1 sample 0 with status 500 \(out of memory\), and so 4 times"
    ):
        next(answers)
    assert len(served.seen()) == 5


def test_a_server_that_is_not_there_is_named(endpoint: Endpoint) -> None:
    nowhere = replace(endpoint, url="http://127.0.0.1:9/v1", retries=1)
    with pytest.raises(TemperError, match="127.0.0.1:9/v1 cannot be reached .*refused.* 2 times in a row"):
        list(ask_server(nowhere, requests()))


@pytest.mark.parametrize(
    ("status", "fix"), [(400, "body"), (401, "api_key_env"), (404, "end in /v1"), (307, "it points to")]
)
def test_a_refusal_for_good_stops_at_once(served: Served, endpoint: Endpoint, status: int, fix: str) -> None:
    served.trouble({"status": status, "said": f"never with {KEY}"})
    with pytest.raises(WishError, match=f"status {status} .never with ") as caught:
        list(ask_server(replace(endpoint, concurrency=1, key=KEY), requests()))
    assert fix in caught.value.fix
    assert KEY not in str(caught.value)
    assert len(served.seen()) == 1


def test_the_key_travels_in_its_header_alone(served: Served, endpoint: Endpoint) -> None:
    with_key = replace(endpoint, key=KEY)
    list(ask_server(with_key, requests()))
    for one in served.seen():
        assert one["headers"].pop("Authorization") == f"Bearer {KEY}"
        assert KEY not in json.dumps(one)
    assert KEY not in repr(with_key) and KEY not in with_key.name
    served.trouble()
    list(ask_server(endpoint, requests()))
    assert not any("Authorization" in one["headers"] for one in served.seen())


def test_so_many_requests_are_under_way_and_no_more(served: Served, endpoint: Endpoint) -> None:
    served.trouble(*[{"pause": 0.2}] * 12)
    list(ask_server(replace(endpoint, concurrency=3), requests(prompts=PROMPTS * 3)))
    assert served.told()["most"] == 3


def test_a_limit_a_minute_spaces_requests(served: Served, endpoint: Endpoint) -> None:
    list(ask_server(replace(endpoint, requests_per_minute=200), requests()))
    times = sorted(one["at"] for one in served.seen())
    assert times[-1] - times[0] >= 3 * 0.3 - 0.1


def test_fields_of_the_body_are_added_changed_and_left_out(served: Served, endpoint: Endpoint) -> None:
    changed = replace(endpoint, body={"top_p": 0.5, "stop": None, "echo": False})
    found = by_task(ask_server(changed, requests(("_",), prompts=PROMPTS[:1])))
    (sent,) = served.seen()
    assert sent["body"]["top_p"] == 0.5 and sent["body"]["echo"] is False and "stop" not in sent["body"]
    # The text is cut here, whatever the server did with the stops.
    answer = found["task/0"]
    assert "_" in answer.raw and answer.text == answer.raw.partition("_")[0] and answer.finish == "stop"
    assert changed.name != endpoint.name


def test_waits_double_up_to_a_limit_and_dates_are_read() -> None:
    for failures, whole in ((1, 1.0), (2, 2.0), (5, 16.0), (7, 60.0), (100, 60.0)):
        assert whole / 2 <= backoff(failures, first=1.0, longest=60.0) <= whole
    assert retry_after("2") == 2.0
    assert [retry_after(text) for text in (None, "", "soon", "-1", "inf", "nan")] == [0.0] * 6
    later = datetime.now(UTC) + timedelta(seconds=30)
    assert 25 < retry_after(format_datetime(later, usegmt=True)) <= 30


def test_a_pace_that_stopped_lets_nobody_leave() -> None:
    pace = Pace(None)
    assert pace.turn()
    pace.stop()
    pace.rest(60)
    assert not pace.turn()


def run_of(tmp_path: Path, served_url: str, **server: Any) -> Run:
    tree: dict[str, Any] = {"output": str(tmp_path / "run"), "model": {"path": "org/served-name"}}
    tree["evaluate"] = {"benchmark": "basics", "limit": 12, "max_new_tokens": 16}
    tree["evaluate"]["server"] = {"url": served_url, "concurrency": 2, **server}
    return Run.model_validate(tree)


def test_keys_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert Endpoint.of(run_of(tmp_path, "http://127.0.0.1:1/v1/")).key is None
    with pytest.raises(WishError, match="MY_KEY, which is not set"):
        Endpoint.of(run_of(tmp_path, "http://127.0.0.1:1/v1", api_key_env="MY_KEY"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert Endpoint.of(run_of(tmp_path, "http://127.0.0.1:1/v1")).key == KEY
    assert Endpoint.of(run_of(tmp_path, "https://example.com/v1")).key == KEY
    assert Endpoint.of(run_of(tmp_path, "http://node7:8000/v1", api_key_env=None)).key is None
    with pytest.raises(WishError, match="sent to node7 in clear") as caught:
        Endpoint.of(run_of(tmp_path, "http://node7:8000/v1"))
    assert KEY not in str(caught.value)
    monkeypatch.setenv("MY_KEY", "two\nlines")
    with pytest.raises(WishError, match="not one line"):
        Endpoint.of(run_of(tmp_path, "http://node7:8000/v1", api_key_env="MY_KEY"))


def evaluation(tmp_path: Path, served: Served, name: str) -> tuple[list[str], dict[str, str], Path]:
    """An evaluation to start: command, environment, and the folder its answers will be in."""
    tree = run_of(tmp_path, served.url).model_dump(mode="json") | {"output": str(tmp_path / name)}
    file = tmp_path / f"{name}.yaml"
    file.write_text(json.dumps(tree))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": KEY}
    folder = tmp_path / name / "evaluations" / "basics-test-server"
    return [sys.executable, "-m", "engine", "evaluate", str(file)], environment, folder


@pytest.mark.faults
def test_an_evaluation_that_was_killed_ends_with_the_same_results(served: Served, tmp_path: Path) -> None:
    served.trouble()
    command, environment, whole = evaluation(tmp_path, served, "whole")
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert len(served.seen()) == 12

    served.trouble(*[{"pause": 0.3}] * 12)
    command, environment, folder = evaluation(tmp_path, served, "killed")
    process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    journal, until = folder / "generations-rank0.jsonl", time.monotonic() + 120
    while not (journal.is_file() and journal.read_bytes().count(b"\n") >= 4):
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = journal.read_bytes().count(b"\n")
    assert 4 <= kept < 12

    served.trouble()
    subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, check=True, timeout=240)
    assert len(served.seen()) == 12 - kept
    assert (folder / "results.jsonl").read_bytes() == (whole / "results.jsonl").read_bytes()
    model = json.loads((folder / "summary.json").read_text())["settings"]["model"]
    assert model == f"org/served-name at {served.url} by completions"
    for file in (file for file in tmp_path.rglob("*") if file.is_file()):
        assert KEY.encode() not in file.read_bytes(), file
    assert KEY not in done.stdout + done.stderr
