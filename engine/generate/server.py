"""Answers from any OpenAI-compatible endpoint: many requests under way, sent again while the server is busy."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal
from urllib.parse import urlsplit

from engine.config import Run, Server
from engine.errors import TemperError, WishError
from engine.generate.pace import Pace, backoff, retry_after
from engine.generate.request import Generation, Request

AGAIN = frozenset((408, 409, 425, 429, *range(500, 600)))
"""Statuses that may be another one the next time."""
LONGEST_QUIET_SECONDS = 600.0
"""A server that asks to be left alone for longer is asked again by a person."""
_LONGEST_ERROR_BYTES = 65536
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Whom to ask, and how patiently. The key is in no text that this value is shown as."""

    url: str
    model: str
    api: Literal["completions", "chat"] = "completions"
    concurrency: int = 16
    requests_per_minute: int | None = None
    timeout_seconds: float = 600.0
    retries: int = 8
    first_wait_seconds: float = 1.0
    longest_wait_seconds: float = 60.0
    body: Mapping[str, Any] = field(default_factory=dict)
    opening: tuple[tuple[str, str], ...] = ()
    """Turns (role, content) that every chat begins with, before the question."""
    key: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, run: Run) -> Endpoint:
        """The endpoint a Run names, with the key its environment variable holds.

        Raises:
            WishError: the variable is not set, or its key would cross a network in clear.
        """
        server = run.evaluate.server
        assert server.url is not None, "the caller looks whether a server is wanted"
        return cls(
            url=server.url.rstrip("/"),
            model=server.model or run.model.path,
            api=server.api,
            concurrency=server.concurrency,
            requests_per_minute=server.requests_per_minute,
            timeout_seconds=server.timeout_seconds,
            retries=server.retries,
            body=server.body,
            key=_key(server),
        )

    @property
    def name(self) -> str:
        """Names the model that answers: whatever changes an answer besides the request itself is in it."""
        more = f" with {json.dumps(self.body, sort_keys=True)}" if self.body else ""
        if self.opening:
            more += f" after {hashlib.sha256(json.dumps(self.opening).encode()).hexdigest()[:20]}"
        return f"{self.model} at {self.url} by {self.api}{more}"


def generate(endpoint: Endpoint, requests: Sequence[Request]) -> Iterator[Generation]:
    """Answer the requests, in the order answers come in.

    A request that fails for a while is sent again after a wait that doubles; one that can never succeed ends
    all, and answers yielded before stay good.

    Raises:
        WishError: the server refuses a request for good (401, 404, ...).
        TemperError: a request failed more often than `retries` allows, or the server asks for a long pause.
    """
    line = _Line(endpoint, Pace(endpoint.requests_per_minute))
    waiting = iter(requests)
    pool = ThreadPoolExecutor(endpoint.concurrency, thread_name_prefix="ask")
    try:
        running = {pool.submit(line.answer, one) for one in islice(waiting, endpoint.concurrency)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            failed = [error for future in done if (error := future.exception()) is not None]
            yield from (future.result() for future in done if future.exception() is None)
            if failed:
                raise failed[0]
            running |= {pool.submit(line.answer, one) for one in islice(waiting, len(done))}
    finally:
        line.pace.stop()
        pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True, slots=True)
class _Reply:
    """What came back: a status (0: the connection failed), what Retry-After said, and the text."""

    status: int
    text: str
    quiet: float = 0.0


class _AsItIs(urllib.request.HTTPRedirectHandler):
    """Follows no redirection, which would send prompts and key to an address nobody named."""

    def redirect_request(self, *_: Any) -> None:
        return None


class _Line:
    """The way to a server, shared by all requests."""

    def __init__(self, endpoint: Endpoint, pace: Pace) -> None:
        self.endpoint = endpoint
        self.pace = pace
        self._opener = urllib.request.build_opener(_AsItIs)
        self._told = 0.0

    def answer(self, request: Request) -> Generation:
        """One answer, however often it must be asked for."""
        body = json.dumps(_body(self.endpoint, request)).encode()
        failures = 0
        while self.pace.turn():
            reply = self._post(body)
            if reply.status == 200 and (found := _generation(self.endpoint.api, request, reply.text)):
                return found
            problem = self._problem(reply, request)
            if reply.status not in AGAIN and reply.status not in (0, 200):
                raise WishError(problem, _fix(reply.status))
            failures += 1
            self._give_up(reply, problem, failures)
            self._wait(reply, problem, failures)
        raise TemperError("the evaluation stopped", "run it again: answers so far are kept")

    def _post(self, body: bytes) -> _Reply:
        endpoint = self.endpoint
        path = "/chat/completions" if endpoint.api == "chat" else "/completions"
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "temper"}
        if endpoint.key:
            headers["Authorization"] = f"Bearer {endpoint.key}"
        asked = urllib.request.Request(endpoint.url + path, body, headers, method="POST")
        try:
            try:
                with self._opener.open(asked, timeout=endpoint.timeout_seconds) as response:
                    return _Reply(response.status, response.read().decode("utf-8", "replace"))
            except urllib.error.HTTPError as error:
                with error:
                    text = error.read(_LONGEST_ERROR_BYTES).decode("utf-8", "replace")
                    return _Reply(error.code, text, retry_after(error.headers.get("Retry-After")))
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise WishError(
                    f"the certificate of {endpoint.url} cannot be verified ({reason.verify_message})",
                    "name your authority's file in the environment variable SSL_CERT_FILE",
                ) from None
            return _Reply(0, str(reason) or type(reason).__name__)

    def _problem(self, reply: _Reply, request: Request) -> str:
        """What went wrong, in a line that never holds the key, even where a server echoes it."""
        said = " ".join(_message(reply.text).split())
        if self.endpoint.key:
            said = said.replace(self.endpoint.key, "***")
        said = said[:_SHOWN] or "no text"
        which = f"{request.task_id} sample {request.sample}"
        if reply.status == 0:
            return f"{self.endpoint.url} cannot be reached for {which} ({said})"
        if reply.status == 200:
            return f"{self.endpoint.url} answered {which} with something that is no completion ({said})"
        return f"{self.endpoint.url} answered {which} with status {reply.status} ({said})"

    def _give_up(self, reply: _Reply, problem: str, failures: int) -> None:
        if reply.quiet > LONGEST_QUIET_SECONDS:
            raise TemperError(
                f"{problem} and asks for {reply.quiet:.0f} s of quiet",
                "run it again then: answers so far are kept",
            )
        if failures > self.endpoint.retries:
            raise TemperError(
                f"{problem}, and so {failures} times in a row",
                "see that the server is up and not overloaded (evaluate.server.concurrency, requests_per_minute), "
                "then run it again: answers so far are kept",
            )

    def _wait(self, reply: _Reply, problem: str, failures: int) -> None:
        endpoint = self.endpoint
        pause = backoff(failures, first=endpoint.first_wait_seconds, longest=endpoint.longest_wait_seconds)
        pause = max(pause, reply.quiet)
        if reply.quiet:
            self.pace.hold(reply.quiet)
        # Silence while a server is down would look like a hang; a line for each of many requests would be noise.
        if (now := time.monotonic()) - self._told > 10:
            self._told = now
            print(f"{problem}; asking again in {pause:.1f} s", file=sys.stderr, flush=True)
        self.pace.rest(pause)


def _body(endpoint: Endpoint, request: Request) -> dict[str, Any]:
    sampling = request.sampling
    body: dict[str, Any] = {"model": endpoint.model}
    if endpoint.api == "chat":
        turns = (*endpoint.opening, ("user", request.prompt))
        body["messages"] = [{"role": role, "content": content} for role, content in turns]
    else:
        body["prompt"] = request.prompt
    body |= {"max_tokens": sampling.max_new_tokens, "temperature": sampling.temperature}
    # Some servers hold a seed in 32 bits, some with a sign.
    body |= {"top_p": sampling.top_p, "seed": request.seed % 2**31}
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    return {name: value for name, value in (body | dict(endpoint.body)).items() if value is not None}


def _generation(api: str, request: Request, text: str) -> Generation | None:
    """The answer in a reply; None where there is none, or the server broke it off."""
    try:
        reply = json.loads(text)
        choice = reply["choices"][0]
        # A model that spent all its tokens on thinking has said nothing.
        raw = (choice["message"].get("content") or "") if api == "chat" else choice["text"]
        tokens = int((reply.get("usage") or {}).get("completion_tokens") or 0)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    reason = choice.get("finish_reason")
    if not isinstance(raw, str) or reason in ("abort", "error"):
        return None
    if reason == "content_filter":
        print(f"{request.task_id} sample {request.sample}: cut by the server's filter", file=sys.stderr)
    cut = min((at for stop in request.sampling.stop if stop and (at := raw.find(stop)) >= 0), default=None)
    return Generation(
        task_id=request.task_id,
        sample=request.sample,
        seed=request.seed,
        text=raw if cut is None else raw[:cut],
        raw=raw,
        tokens=tokens,
        finish="length" if reason == "length" and cut is None else "stop",
    )


def _message(text: str) -> str:
    """What the server says is wrong, whichever of the usual places it says it in."""
    try:
        found = json.loads(text)
    except ValueError:
        return text
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(name):
            found = found[name]
    return found if isinstance(found, str) else json.dumps(found)


def _fix(status: int) -> str:
    if status in (401, 403):
        return "put a valid key into the environment variable that evaluate.server.api_key_env names"
    if status in (404, 405):
        return "check evaluate.server.url (most end in /v1), evaluate.server.model and evaluate.server.api"
    if status < 400:
        return "set evaluate.server.url to the address it points to"
    return "mend the request: evaluate.server.body adds, changes or (with null) leaves out its fields"


def _key(server: Server) -> str | None:
    name = server.api_key_env
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    default = name == Server().api_key_env
    if not key:
        if not default:
            raise WishError(
                f"evaluate.server.api_key_env is {name}, which is not set in the environment",
                f"export {name}, or set api_key_env to null for a server that wants no key",
            )
        return None
    if not (key.isascii() and key.isprintable()):
        raise WishError(f"the key in {name} is not one line of ASCII", "copy the key again")
    parts = urlsplit(server.url or "")
    host = parts.hostname or ""
    if default and parts.scheme == "http" and not (host in ("localhost", "::1") or host.startswith("127.")):
        raise WishError(
            f"the key in {name} would be sent to {host} in clear",
            "use https, set evaluate.server.api_key_env to null, or name the variable of this server's own key",
        )
    return key
