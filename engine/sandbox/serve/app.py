"""The doors: which path reads which shape, who may come in, how much they may bring, and what they are told."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hmac
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ..verdict import Limits
from . import batch, fusion, native, open_instruct
from .answers import LINES, Gone, Stream, as_json, while_there
from .asked import Asked
from .desk import Desk, Overdue
from .fields import Fields, parse
from .metrics import CONTENT_TYPE
from .options import Options
from .refusal import Refusal

_BODY_SECONDS = 60.0
_READ_ASIDE = 1 << 16
"""Bodies above this many bytes are read in a thread, so that others are answered meanwhile."""
_HELD = 1 << 30
"""All bodies in memory together."""

_T = TypeVar("_T")
Handle = Callable[[Request], Awaitable[Response]]


class Doors:
    """One server's paths and what they share."""

    def __init__(self, desk: Desk, options: Options) -> None:
        self.desk = desk
        self.options = options
        self.most = int(options.body_mb * (1 << 20))
        self.held = 0

    def app(self) -> Starlette:
        """The application that the server runs."""
        posts: dict[str, Handle] = {
            "/run_code": self.run_code,
            "/run_batch": self.run_batch,
            "/judge": self.judge,
            "/test_program": self.test_program,
            "/test_program_stdio": self.test_program_stdio,
        }
        routes = [Route(path, self._door(path, handle), methods=["POST"]) for path, handle in posts.items()]
        routes += [
            Route("/metrics", self._door("/metrics", self.metrics), methods=["GET"]),
            Route("/health", self.health, methods=["GET"]),
            Route("/ready", self.ready, methods=["GET"]),
            Route("/v1/ping", _ping, methods=["GET"]),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: _no_such_door})

    def _door(self, name: str, handle: Handle) -> Handle:
        """`handle` with what holds for every door: who may come in, and one sentence for what goes wrong."""

        async def answer(request: Request) -> Response:
            started = time.monotonic()
            request.state.held = 0
            try:
                self._authorize(request)
                response = await handle(request)
            except Refusal as refusal:
                response = as_json({"error": refusal.text}, refusal.status, refusal.headers)
            except Overdue:
                response = as_json({"error": "the server shut down before this was done"}, 503)
            except (Gone, ClientDisconnect):
                response = Response(status_code=499)
            except Exception:
                traceback.print_exc(file=sys.stderr)
                response = as_json({"error": "the server has a fault; its log says which"}, 500)
            finally:
                self.held -= request.state.held
            self.desk.metrics.requests.labels(name, response.status_code).inc()
            self.desk.metrics.request_seconds.labels(name).observe(time.monotonic() - started)
            return response

        return answer

    def _authorize(self, request: Request) -> None:
        """A token, where there is one. Without one no web page may use a browser on this machine as its messenger."""
        if not self.options.token:
            if "origin" in request.headers:
                raise Refusal(403, "a server without a token answers no web page")
            return
        given = _secret(request.headers.get("authorization", ""))
        if not hmac.compare_digest(given, self.options.token.encode()):
            raise Refusal(
                401, "send the token as `Authorization: Bearer TOKEN`", {"WWW-Authenticate": "Bearer"}
            )

    async def _read(self, request: Request, read: Callable[[Any], _T]) -> _T:
        """What the body asks for; room for its programs is looked for before it is read."""
        self.desk.check_room()
        body = await self._body(request)
        if len(body) < _READ_ASIDE:
            return read(parse(body))
        return await asyncio.to_thread(lambda: read(parse(body)))

    async def _body(self, request: Request) -> bytes:
        """The body, bounded in size and time."""
        length = request.headers.get("content-length", "")
        if length.isdecimal() and (len(length) > 15 or int(length) > self.most):
            raise self._too_large()
        chunks, size = [], 0
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > self.most:
                        raise self._too_large()
                    self._hold(request, len(chunk))
                    chunks.append(chunk)
        except TimeoutError:
            raise Refusal(408, f"the body did not come within {_BODY_SECONDS:g} s") from None
        return b"".join(chunks)

    def _hold(self, request: Request, size: int) -> None:
        if self.held + size > _HELD:
            text = f"requests of {self.held >> 20} MB are being held; ask again later"
            raise Refusal(429, text, {"Retry-After": "1"})
        self.held += size
        request.state.held += size

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the body is larger than {self.options.body_mb:g} MB")

    async def _answer(self, request: Request, read: Callable[[Fields, Limits], Asked]) -> Response:
        """One request in one of the shapes."""
        asked = await self._read(request, lambda value: read(Fields(value), self.options.ceiling))
        with self.desk.take(asked.cases) as order:
            verdicts = await while_there(request.receive, order.all())
        return as_json(asked.answer(verdicts))

    async def run_code(self, request: Request) -> Response:
        """SandboxFusion's door."""
        return await self._answer(request, fusion.read)

    async def judge(self, request: Request) -> Response:
        """Our own door."""
        return await self._answer(request, native.read)

    async def test_program(self, request: Request) -> Response:
        """Open-instruct's door for tests that are source."""
        return await self._answer(request, partial(open_instruct.read, stdio=False))

    async def test_program_stdio(self, request: Request) -> Response:
        """Open-instruct's door for tests that are inputs and outputs."""
        return await self._answer(request, partial(open_instruct.read, stdio=True))

    async def run_batch(self, request: Request) -> Response:
        """Many requests in one; lines as they are done where the client accepts them, otherwise one list."""
        parts = await self._read(request, lambda value: batch.read(value, self.options.ceiling))
        order = self.desk.take([case for part in parts for case in part.cases])
        return Stream(order, parts, lines=LINES in request.headers.get("accept", ""))

    async def metrics(self, request: Request) -> Response:
        """All counters, as Prometheus reads them."""
        return Response(self.desk.metrics.page(), media_type=CONTENT_TYPE)

    async def health(self, request: Request) -> Response:
        """Whether the process answers: of no use to a stranger, so it takes no token."""
        return as_json({"status": "ok"})

    async def ready(self, request: Request) -> Response:
        """Whether a program sent now would be admitted."""
        try:
            self.desk.check_room()
        except Refusal as refusal:
            return as_json({"status": "busy", "error": refusal.text}, 503, refusal.headers)
        return as_json({"status": "ready"})


async def _ping(request: Request) -> Response:
    return as_json("pong")


def _no_such_door(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = f"{request.method} {request.url.path} is no door of this server"
    return as_json({"error": text}, error.status_code, error.headers)


def _secret(header: str) -> bytes:
    """The token of a header: Bearer, or the password of Basic, which clients take from a URL or from ~/.netrc."""
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip().encode("latin-1", "replace")
    if scheme.lower() == "basic":
        with contextlib.suppress(binascii.Error, ValueError):
            return base64.b64decode(rest, validate=True).partition(b":")[2]
    return b""
