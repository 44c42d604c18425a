"""A real server process with the embedded model: completions and chat over HTTP, and trouble when asked for it.

`tiny_server.py MODEL` prints its port. POST /trouble takes a list, one entry for each of the next requests:
`{"status": 429, "retry_after": "1"}`, `{"drop": true}`, `{"text": "<html>"}`; GET /seen tells what was asked.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.generate import Request, Sampling, generate

torch.set_num_threads(1)
MODEL = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
TOKENIZER = AutoTokenizer.from_pretrained(sys.argv[1])
ONE_AT_A_TIME = threading.Lock()
COUNTING = threading.Lock()
SEEN: list[dict[str, Any]] = []
TROUBLE: list[dict[str, Any]] = []
UNDER_WAY = {"now": 0, "most": 0}


def answer(body: dict[str, Any], *, chat: bool) -> dict[str, Any]:
    prompt = body.get("prompt")
    if chat:
        prompt = TOKENIZER.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
    sampling = Sampling(body["temperature"], body["top_p"], body["max_tokens"], tuple(body.get("stop", ())))
    with ONE_AT_A_TIME:
        request = Request("asked", 0, prompt, body["seed"], sampling)
        (found,) = generate(MODEL, TOKENIZER, [request], batch=1, device="cpu")
    choice: dict[str, Any] = {"index": 0, "finish_reason": found.finish}
    choice |= {"message": {"role": "assistant", "content": found.text}} if chat else {"text": found.text}
    return {"choices": [choice], "usage": {"completion_tokens": found.tokens}}


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.send(200, {"requests": SEEN, "most": UNDER_WAY["most"]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/trouble":
            TROUBLE[:], SEEN[:], UNDER_WAY["most"] = body, [], 0
            self.send(200, {})
            return
        SEEN.append(
            {"path": self.path, "body": body, "headers": dict(self.headers.items()), "at": time.time()}
        )
        trouble = TROUBLE.pop(0) if TROUBLE else {}
        self.reply(body, trouble)

    def reply(self, body: dict[str, Any], trouble: dict[str, Any]) -> None:
        with COUNTING:
            UNDER_WAY["now"] += 1
            UNDER_WAY["most"] = max(UNDER_WAY["now"], UNDER_WAY["most"])
        time.sleep(trouble.get("pause", 0))
        # Counted off before it is answered: the next request may come sooner than this thread goes on.
        with COUNTING:
            UNDER_WAY["now"] -= 1
        if trouble.get("drop"):
            self.connection.shutdown(socket.SHUT_RDWR)
        elif "text" in trouble:
            self.send(200, trouble["text"])
        elif "status" in trouble:
            said = trouble.get("said", "no, not now")
            self.send(trouble["status"], {"error": {"message": said}}, trouble.get("retry_after"))
        elif self.path in ("/v1/completions", "/v1/chat/completions"):
            self.send(200, answer(body, chat="chat" in self.path))
        else:
            self.send(404, {"detail": "Not Found"})

    def send(self, status: int, body: Any, retry_after: str | None = None) -> None:
        data = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        if status in (301, 307):
            self.send_header("Location", "/v1/completions")
        self.end_headers()
        self.wfile.write(data)


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
