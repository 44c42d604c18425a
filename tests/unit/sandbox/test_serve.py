"""The server over real sockets: each shape's answers, who may come in, how much, and an end without loss."""

# ruff: noqa: E501 (programs are single strings)

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.sandbox.serve.options import TOKEN_VARIABLE

ROOT = Path(__file__).parents[3]
TOKEN = "a-token-that-nobody-guesses"
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}


class Server:
    """A server process on a free port."""

    def __init__(self, *options: str, environment: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "engine", "sandbox", "serve", "--port", "0", *options],
            cwd=ROOT,
            env={**ENVIRONMENT, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        found = re.search(r"listening on (http://127\.0\.0\.1:\d+) ", line)
        if not found:
            pytest.fail(f"no address in {line!r}: {self.process.communicate()[1]}")
        self.address = found.group(1)
        self.client = httpx.Client(base_url=self.address, timeout=30)

    def post(self, path: str, body: object, **more: Any) -> httpx.Response:
        return self.client.post(path, json=body, **more)

    def run(self, code: str, **more: object) -> dict[str, Any]:
        answer = self.post("/run_code", {"code": code, "language": "python", **more})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def count(self, name: str) -> float:
        page = self.client.get("/metrics").text
        return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(name))

    def until(self, name: str, least: float) -> None:
        """Wait for a metric."""
        deadline = time.monotonic() + 10
        while self.count(name) < least:
            assert time.monotonic() < deadline, f"{name} stayed below {least}"
            time.sleep(0.01)

    def stop(self, number: int = signal.SIGTERM) -> str:
        """What it said after the signal; it must leave with 0."""
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=20)
        assert (self.process.returncode, err) == (0, ""), (out, err)
        return out

    def close(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.communicate()


def serving(*options: str, **more: Any) -> Iterator[Server]:
    server = Server(*options, **more)
    yield server
    server.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    yield from serving("--workers", "2", "--cpu-seconds", "2", "--wall-seconds", "4", "--memory-mb", "256")


@pytest.fixture(scope="module")
def guarded() -> Iterator[Server]:
    """With a token, a small door and one place."""
    options = ("--workers", "1", "--queue", "2", "--body-mb", "0.01")
    yield from serving(*options, environment={TOKEN_VARIABLE: TOKEN})


@pytest.mark.parametrize(
    ("code", "status", "ran", "return_code", "stdout"),
    [
        ("print(int(input()) + 1)", "Success", "Finished", 0, "42\n"),
        ("import sys; sys.exit(0)", "Success", "Finished", 0, ""),
        ("print(1); raise ValueError('no')", "Failed", "Finished", 1, "1\n"),
        ("import sys; sys.exit(7)", "Failed", "Finished", 7, ""),
        ("x = (", "Failed", "Finished", 1, ""),
        ("import os; os._exit(0)", "Failed", "Finished", 1, ""),
        ("import os; os.kill(os.getpid(), 11)", "Failed", "Finished", -11, ""),
        ("x = bytearray(1 << 30)", "Failed", "Finished", 1, ""),
        ("while True: pass", "Failed", "TimeLimitExceeded", None, ""),
        ("import time; time.sleep(9)", "Failed", "TimeLimitExceeded", None, ""),
    ],
)
def test_a_program_has_the_answer_sandbox_fusion_would_give(
    server: Server, code: str, status: str, ran: str, return_code: int | None, stdout: str
) -> None:
    answer = server.run(code, stdin="41\n", run_timeout=0.5, compile_timeout=3, memory_limit_MB=-1)
    run = answer["run_result"]
    assert (answer["status"], run["status"], run["return_code"], run["stdout"]) == (
        status,
        ran,
        return_code,
        stdout,
    )
    assert set(answer) == {
        "status",
        "message",
        "compile_result",
        "run_result",
        "executor_pod_name",
        "files",
    }
    assert set(run) == {"status", "execution_time", "return_code", "stdout", "stderr"}
    assert answer["compile_result"] is None and 0 <= run["execution_time"] < 3
    assert bool(answer["message"]) == (status != "Success")


def test_a_language_that_is_not_run_has_an_answer_in_the_same_shape(server: Server) -> None:
    answer = server.run("<?php echo 1;", language="php")
    assert answer["status"] == "SandboxError" and answer["run_result"] is None
    assert "'php'" in answer["message"] and "python" in answer["message"]


def test_a_language_runs_as_itself_or_not_at_all(server: Server) -> None:
    answer = server.run("echo $((6 * 7))", language="bash")
    if answer["status"] == "Success":
        assert answer["run_result"]["stdout"] == "42\n"
    else:
        assert answer["status"] == "SandboxError" and "bash" in answer["message"]


def test_output_that_is_cut_is_called_so(server: Server) -> None:
    answer = server.run("print('x' * (3 << 20))")
    assert answer["status"] == "Success" and "cut after 1024 kB" in answer["message"]
    assert len(answer["run_result"]["stdout"]) == 1 << 20


def test_files_go_in_and_come_back(server: Server) -> None:
    data = bytes(range(256))
    answer = server.run(
        "data = open('in/a.bin', 'rb').read(); open('b.bin', 'wb').write(data[::-1])",
        files={"in/a.bin": base64.b64encode(data).decode(), "nothing": None},
        fetch_files=["b.bin", "absent"],
    )
    assert answer["status"] == "Success", answer
    assert {name: base64.b64decode(text) for name, text in answer["files"].items()} == {"b.bin": data[::-1]}


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", "a\0b"])
def test_a_file_outside_the_programs_folder_is_refused(server: Server, name: str) -> None:
    for files in ({"files": {name: "aGk="}}, {"fetch_files": [name]}):
        answer = server.post("/run_code", {"code": "1", "language": "python", **files})
        assert answer.status_code == 400 and "may not be named" in answer.json()["error"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b'{"code": "print(1)"', "not JSON"),
        (b"\xff\xfe\xfa", "not JSON"),
        (b"[" * 50_000, "nested too deeply"),
        (b'{"run_timeout": ' + b"9" * 6000 + b"}", "not JSON"),
        (b'{"run_timeout": NaN}', "not JSON"),
        (b"[1]", "must be a JSON object, not a list"),
        (b'{"language": "python"}', "code is missing"),
        (b'{"code": "1"}', "language is missing"),
        (b'{"code": 1, "language": "python"}', "code must be a string, not a number"),
        (b'{"code": "1", "language": "python", "run_timeout": 1e999}', "run_timeout must be above 0"),
        (b'{"code": "1", "language": "python", "run_timeout": ' + b"9" * 4000 + b"}", "at most"),
        (b'{"code": "1", "language": "python", "run_timeout": -1}', "run_timeout must be above 0"),
        (b'{"code": "1", "language": "python", "run_timeout": true}', "run_timeout must be a number"),
        (b'{"code": "1", "language": "python", "memory_limit_MB": 1e999}', "memory_limit_MB must be at most"),
        (b'{"code": "1", "language": "python", "files": ["x"]}', "files must be an object"),
        (b'{"code": "1", "language": "python", "files": {"x": "a*b"}}', "is not base64"),
        (b'{"code": "1", "language": "python", "files": {"x": 1}}', "must be a base64 string"),
        (b'{"code": "1", "language": "python", "fetch_files": [1]}', "fetch_files[0] must be a string"),
    ],
    ids=lambda value: None if isinstance(value, str) else repr(value[:40]),
)
def test_a_bad_request_is_told_what_is_wrong(server: Server, body: bytes, said: str) -> None:
    answer = server.client.post("/run_code", content=body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["error"]
    assert said in answer.json()["error"] and "Traceback" not in answer.text


def test_text_that_utf_8_cannot_hold_breaks_nothing(server: Server) -> None:
    body = rb'{"code": "print(1) # \ud800", "language": "python", "stdin": "\udc80"}'
    answer = server.client.post("/run_code", content=body)
    assert answer.status_code == 200 and answer.json()["status"] in ("Success", "Failed")
    assert server.client.post("/run_code", content=rb'{"code": "1", "language": "\ud800"}').status_code == 200


def test_a_client_gets_no_more_than_the_server_grants(server: Server) -> None:
    answer = server.run("while True: pass", run_timeout=1e6)
    assert answer["message"] == "cpu_limit: more than 2 CPU seconds"
    assert server.run("x = bytearray(400 << 20)", memory_limit_MB=100_000)["status"] == "Failed"
    answer = server.post("/judge", {"source": "1", "limits": {"cpu_seconds": 3}})
    assert answer.status_code == 400 and "above this server's 2" in answer.json()["error"]


@pytest.mark.parametrize(
    "hostile",
    [
        "import os\nwhile True: os.fork()",
        "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\nos.kill(-1, signal.SIGKILL)",
        "print('x' * (1 << 28))",
        "import os\nos.closerange(0, 1000)\nos._exit(0)",
        "import socket; socket.create_connection(('127.0.0.1', 80), 1)",
    ],
)
def test_a_hostile_program_does_the_next_one_no_harm(server: Server, hostile: str) -> None:
    assert server.run(hostile, run_timeout=1)["status"] == "Failed"
    assert server.run("print(6 * 7)")["run_result"]["stdout"] == "42\n"


def test_the_native_door_gives_the_whole_verdict(server: Server) -> None:
    double = "def f(x): return (x, x)"
    calls = [{"expression": "f(1)", "literal": "(1, 1)"}, {"expression": "f('a')[0]", "expected": "a"}]
    answer = server.post("/judge", {"source": double, "calls": calls, "limits": {"cpu_seconds": 1}}).json()
    assert (answer["verdict"], answer["passed"], answer["form"]) == ("passed", True, "calls")
    assert {"detail", "exit_code", "cpu_seconds", "peak_memory_mb", "isolation", "files"} <= set(answer)
    calls[1]["expected"] = "b"
    assert server.post("/judge", {"source": double, "calls": calls}).json()["verdict"] == "wrong"
    test = {"test": "def check(f):\n    assert f(2) == (2, 2)", "entry_point": "f"}
    assert server.post("/judge", {"source": double, **test}).json()["verdict"] == "passed"
    forged = "class A:\n    def __eq__(self, other): return True\ndef f(x): return A()"
    assert server.post("/judge", {"source": forged, **test}).json()["verdict"] == "wrong"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"source": "1", "cals": []}, "there is no cals: did you mean calls?"),
        (
            {"source": "1", "limits": {"cpu_second": 1}},
            "there is no limits.cpu_second: did you mean cpu_seconds?",
        ),
        ({"source": "1", "test": "def check(f): pass"}, "test needs entry_point"),
        ({"source": "1", "language": "php"}, "language 'php' is none of python"),
        ({"source": "1", "calls": [{"expression": "1"}]}, "calls[0].expected (JSON) or calls[0].literal"),
        ({"source": "1", "calls": [{"expression": "1", "literal": "f()"}]}, "no Python literal"),
        ({"source": "1", "calls": [{"expression": "1", "literal": "(" * 9999}]}, "no Python literal"),
        ({"source": "1", "together": True, "test": "def"}, "not Python"),
    ],
)
def test_the_native_door_refuses_rather_than_guesses(server: Server, body: object, said: str) -> None:
    answer = server.post("/judge", body)
    assert answer.status_code == 400 and said in answer.json()["error"]


def test_a_batch_is_answered_in_its_order(server: Server) -> None:
    slow = {"code": "import time; time.sleep(.3); print(0)", "language": "python"}
    quick = [{"code": f"print({n})", "language": "python"} for n in range(1, 30)]
    batch = {"requests": [slow, *quick, {"source": "raise KeyError"}, {"code": "1", "language": "php"}]}
    answers = server.post("/run_batch", batch).json()
    assert [answer["run_result"]["stdout"] for answer in answers[:30]] == [f"{n}\n" for n in range(30)]
    assert (answers[30]["verdict"], answers[31]["status"]) == ("runtime_error", "SandboxError")
    with server.client.stream(
        "POST", "/run_batch", json=batch, headers={"Accept": "application/x-ndjson"}
    ) as lines:
        assert lines.headers["content-type"] == "application/x-ndjson"
        streamed = [json.loads(line) for line in lines.iter_lines()]
    assert [line.get("status") for line in streamed] == [answer.get("status") for answer in answers]


def test_a_batch_is_streamed_while_it_runs(server: Server) -> None:
    sources = ["print(1)", "import time; time.sleep(1)"]
    batch = {"requests": [{"source": source} for source in sources]}
    with server.client.stream(
        "POST", "/run_batch", json=batch, headers={"Accept": "application/x-ndjson"}
    ) as lines:
        stream = lines.iter_lines()
        next(stream)
        first = time.monotonic()
        next(stream)
        assert time.monotonic() - first > 0.5


@pytest.mark.parametrize(
    ("requests", "said"),
    [
        ([], "are no batch"),
        (
            [{"code": "1", "language": "python"}, {"code": 2, "language": "python"}],
            "requests[1].code must be",
        ),
        ([{"source": "1", "calls": [{"expression": 3}]}], "requests[0].calls[0].expression must be a string"),
        ([7], "requests[0] must be a JSON object"),
        ({}, "requests must be a list"),
    ],
)
def test_a_batch_with_a_fault_names_its_place(server: Server, requests: object, said: str) -> None:
    answer = server.post("/run_batch", {"requests": requests})
    assert answer.status_code == 400 and said in answer.json()["error"]


def packed(value: object) -> str:
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def test_open_instructs_tests_are_counted_one_by_one(server: Server) -> None:
    tests = [
        "assert add(1, 2) == 3",
        "assert add(0, 0) == 1",
        "assert (",
        "import os; os._exit(0)",
        "add(1, 1)",
    ]
    for form in (tests, json.dumps(tests), packed(tests)):
        body = {"program": "def add(a, b): return a + b", "tests": form, "max_execution_time": 1}
        answer = server.post("/test_program", body).json()
        assert answer["results"] == [1, 0, 0, 0, 1]
        assert [runtime > 0 for runtime in answer["runtimes"]] == [True, False, False, False, True]
    assert server.post("/test_program", {"program": "1", "tests": []}).json() == {
        "results": [],
        "runtimes": [],
    }


def test_open_instructs_stdio_tests_compare_lines_and_numbers(server: Server) -> None:
    tests = [
        {"input": "1\n", "output": "2\n"},
        {"input": ["5"], "output": " 6.0 "},
        {"input": "7", "output": "9"},
        {"input": "x", "output": "1"},
    ]
    for form in (tests, packed(tests)):
        body = {"program": "print(int(input()) + 1)", "tests": form}
        assert server.post("/test_program_stdio", body).json()["results"] == [1, 1, 0, 0]


def test_a_pickle_that_names_code_is_never_obeyed(server: Server, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "made"),)

    for tests in (packed([Evil()]), packed({"a": 1}), "junk", base64.b64encode(b"junk").decode()):
        answer = server.post("/test_program", {"program": "1", "tests": tests})
        assert answer.status_code == 400 and "tests" in answer.json()["error"]
    assert not (tmp_path / "made").exists()


def test_what_is_counted_can_be_read(server: Server) -> None:
    before = server.count('temper_sandbox_programs_total{language="python",verdict="passed"}')
    server.run("1")
    assert server.count('temper_sandbox_programs_total{language="python",verdict="passed"}') == before + 1
    assert server.count('temper_sandbox_requests_total{door="/run_code",status="200"}') > 0
    assert server.count("temper_sandbox_workers") == 2
    assert server.count("temper_sandbox_running") == server.count("temper_sandbox_admitted") == 0
    assert server.client.get("/health").json() == {"status": "ok"}
    assert server.client.get("/ready").json() == {"status": "ready"}


def test_other_doors_are_refused_in_json(server: Server) -> None:
    assert server.client.get("/run_code").status_code == 405
    assert server.client.get("/nothing").status_code == 404
    assert "error" in server.client.get("/nothing").json()
    foreign = server.post("/judge", {"source": "1"}, headers={"Origin": "https://example.org"})
    assert foreign.status_code == 403


def test_without_the_token_nothing_is_run(guarded: Server) -> None:
    body = {"source": "1"}
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": TOKEN},
        {"Authorization": "Basic ***"},
    ):
        answer = guarded.post("/judge", body, headers=headers)
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert guarded.client.get("/metrics", headers=headers).status_code == 401
    assert guarded.client.get("/health").status_code == 200
    for login in ({"headers": {"Authorization": f"Bearer {TOKEN}"}}, {"auth": ("anyone", TOKEN)}):
        assert guarded.post("/judge", body, **login).json()["passed"]


def test_the_token_is_not_in_reach_of_programs(guarded: Server) -> None:
    children = Path(f"/proc/{guarded.process.pid}/task/{guarded.process.pid}/children").read_text().split()
    assert children
    for child in children:
        assert TOKEN.encode() not in Path(f"/proc/{child}/environ").read_bytes()
        assert TOKEN.encode() not in Path(f"/proc/{child}/cmdline").read_bytes()


def test_a_body_above_the_limit_is_refused(guarded: Server) -> None:
    login = {"Authorization": f"Bearer {TOKEN}"}
    large = b'{"source": "' + b"#" * 20_000 + b'"}'
    assert guarded.client.post("/judge", content=large, headers=login).status_code == 413
    in_parts = (large[at : at + 1000] for at in range(0, len(large), 1000))
    answer = guarded.client.post("/judge", content=in_parts, headers=login)
    assert answer.status_code == 413 and "0.01 MB" in answer.json()["error"]


def test_a_flood_is_answered_with_a_time_to_come_back(guarded: Server) -> None:
    login = {"Authorization": f"Bearer {TOKEN}"}
    body = {"source": "import time; time.sleep(.5)"}
    with ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: guarded.post("/judge", body, headers=login), range(12)))
    refused = [answer for answer in answers if answer.status_code == 429]
    good = [answer for answer in answers if answer.status_code == 200]
    assert len(refused) >= 6 and len(good) >= 3 and len(refused) + len(good) == 12
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)
    assert guarded.post("/judge", body, headers=login).json()["passed"]


def sleeper(server: Server, seconds: float, answers: list[httpx.Response]) -> threading.Thread:
    """A request whose program runs from now on."""
    source = f"import time; time.sleep({seconds})"
    thread = threading.Thread(
        target=lambda: answers.append(
            httpx.post(f"{server.address}/judge", json={"source": source}, timeout=30)
        )
    )
    thread.start()
    server.until("temper_sandbox_running", 1)
    return thread


def test_what_a_client_no_longer_waits_for_is_not_started_and_a_stop_loses_nothing() -> None:
    """One server, from a client that leaves to a signal with a program in the middle."""
    for server in serving("--workers", "1"):
        answers: list[httpx.Response] = []
        thread = sleeper(server, 1.0, answers)
        with pytest.raises(httpx.ReadTimeout):
            server.post("/judge", {"source": "print(1)"}, timeout=0.2)
        server.until("temper_sandbox_abandoned_total", 1)
        assert server.count("temper_sandbox_admitted") == 1
        said = server.stop()
        thread.join()
        assert answers[0].json()["verdict"] == "passed"
        assert "stopping, 1 programs to finish" in said and said.endswith("temper sandbox: stopped\n")
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.address}/health")


def alive(pids: list[str]) -> list[str]:
    return [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()]


def test_a_stop_has_an_end_even_if_a_program_has_none() -> None:
    for server in serving("--workers", "1", "--drain-seconds", "0.3"):
        workers = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        answers: list[httpx.Response] = []
        thread = sleeper(server, 20.0, answers)
        started = time.monotonic()
        assert "1 programs ended unfinished" in server.stop(signal.SIGINT)
        thread.join()
        assert time.monotonic() - started < 5
        assert answers[0].status_code == 503 and "shut down" in answers[0].json()["error"]
        deadline = time.monotonic() + 10
        while alive(workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert workers and not alive(workers)


def refused(*options: str, **environment: str) -> str:
    """The one line a server says that does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "engine", "sandbox", "serve", "--port", "0", *options],
        cwd=ROOT,
        env=ENVIRONMENT | environment,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done
    return done.stderr


def test_a_server_that_must_not_start_says_why(tmp_path: Path) -> None:
    assert "set a token" in refused("--host", "0.0.0.0")
    assert "can be guessed" in refused(TEMPER_SANDBOX_TOKEN="short")
    (tmp_path / "token").write_text("\n")
    assert "is empty" in refused("--token-file", str(tmp_path / "token"))
    assert "two tokens" in refused("--token-file", str(tmp_path / "token"), TEMPER_SANDBOX_TOKEN=TOKEN)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "in use" in refused("--port", str(taken.getsockname()[1]))


def test_without_the_extra_one_line_names_it() -> None:
    script = (
        "import sys\nfrom engine.sandbox.commands import sandbox\nheavy = ('starlette', 'uvicorn', 'prometheus_client')\n"
        "assert not set(heavy) & set(sys.modules)\nsys.modules.update(dict.fromkeys(heavy))\n"
        "from engine.errors import WishError\n"
        "try: sandbox(['serve', '--port', '0'])\nexcept WishError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert "pip install 'temper-llm[serve]'" in done.stdout and done.stdout.count("\n") == 1, done
