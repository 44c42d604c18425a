"""The hub as a small server on loopback: one file is fetched of a model, and a silent hub is one sentence."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import datasets
import huggingface_hub
import pytest

from engine import hub
from engine.config import Source
from engine.data import sources
from engine.errors import WishError

CONFIG = b"""{"model_type": "llama", "hidden_size": 48, "intermediate_size": 96, "num_attention_heads": 4,
"num_hidden_layers": 2, "vocab_size": 320, "max_position_embeddings": 128}"""
REVISION = "0123456789abcdef0123456789abcdef01234567"
NOBODY = "http://127.0.0.1:9"


@dataclass
class LittleHub:
    """Where it listens, and the files it was asked for."""

    address: str
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def little() -> Iterator[LittleHub]:
    """A hub that has one model, org/name."""

    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            known = self.path == "/org/name/resolve/main/config.json"
            if "/resolve/" in self.path:
                found.asked.append(self.path)
            self.send_response(200 if known or self.path == "/" else 404)
            body = CONFIG if known else b""
            headers = {"ETag": hashlib.sha1(body).hexdigest(), "X-Repo-Commit": REVISION} if known else {}
            for name, value in (headers | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            if not known:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_GET = do_HEAD

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        found = LittleHub(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield found
        server.shutdown()
        thread.join()


def plan(folder: Path, address: str, model: str) -> subprocess.CompletedProcess[str]:
    file = folder / "run.yaml"
    file.write_text(
        f"output: {folder / 'run'}\nmodel: {{path: {model}}}\ndata: {{train: [{{path: x.jsonl}}]}}\n"
        "train: {steps: 1}\nparallel: {processes: 1}\n"
    )
    environment = {
        **os.environ,
        "HF_ENDPOINT": address,
        "HF_HOME": str(folder / "home"),
        "HF_HUB_OFFLINE": "0",
    }
    words = [sys.executable, "-m", "launch.cli", "plan", str(file), "--on", "1xh100"]
    return subprocess.run(words, env=environment, capture_output=True, text=True)


def test_a_plan_fetches_the_one_file_it_needs(tmp_path: Path, little: LittleHub) -> None:
    for _ in range(2):
        done = plan(tmp_path, little.address, "org/name")
        assert done.returncode == 0, done.stderr
        assert "it fits" in done.stdout
    assert set(little.asked) == {"/org/name/resolve/main/config.json"}
    assert [file.name for file in (tmp_path / "home").rglob("snapshots/*/*")] == ["config.json"]


def test_a_model_that_the_hub_lacks_is_one_sentence(tmp_path: Path, little: LittleHub) -> None:
    done = plan(tmp_path, little.address, "org/gone")
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "cannot load config.json of org/gone" in done.stderr and "Repository Not Found" in done.stderr
    assert "--model-config FILE" in done.stderr


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """A hub where nobody listens; yields the pauses that were made."""
    pauses: list[float] = []
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", NOBODY)
    monkeypatch.setattr(hub.time, "sleep", pauses.append)
    hub._unreachable.cache_clear()
    yield pauses
    hub._unreachable.cache_clear()


def test_rows_are_not_tried_again_and_again_where_the_hub_is_silent(nobody: list[float]) -> None:
    for _ in range(2):
        with pytest.raises(WishError, match=rf"did not give its split 'train' \({NOBODY} cannot be reached"):
            sources.read(Source(path="no-owner/no-set"))
    assert sum(nobody) <= 1.0, "the client's own tries were waited for, or the hub was asked twice"
    assert datasets.config.HF_HUB_OFFLINE is False


def test_only_what_is_not_here_is_asked_for(tmp_path: Path, nobody: list[float]) -> None:
    assert not hub.cache_only(str(tmp_path)) and not nobody
    assert hub.cache_only("org/name")
