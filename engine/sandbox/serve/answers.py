"""Sending answers: JSON that any text survives, line by line where asked, and only while the client is there."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .asked import Asked
from .desk import Order, Overdue

LINES = "application/x-ndjson"
_READING_SECONDS = 60.0
_T = TypeVar("_T")


class Gone(Exception):
    """The client has left before its answer was there."""


def as_json(value: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """ASCII alone: a program's text may hold what UTF-8 cannot."""
    return Response(json.dumps(value) + "\n", status, headers, media_type="application/json")


async def while_there(receive: Receive, work: Coroutine[Any, Any, _T]) -> _T:
    """The result of `work`, which is cancelled when the client leaves (raises Gone)."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Gone
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def in_turn(order: Order, parts: Sequence[Asked]) -> AsyncIterator[Any]:
    """The answer of each part as soon as it and those before it are done; an error for each that the end cut off."""
    verdicts = order.verdicts()
    for part in parts:
        try:
            yield part.answer([await anext(verdicts) for _ in part.cases])
        except Overdue:
            yield {"error": "the server shut down before this was done"}


class Stream(Response):
    """A batch's answers as they come, so that they need not all be held: a line each, or one list."""

    def __init__(self, order: Order, parts: Sequence[Asked], *, lines: bool) -> None:
        self.order = order
        self.parts = parts
        self.opening, self.between = (b"", b"") if lines else (b"[", b",")
        self.closing = b"" if lines else b"]\n"
        super().__init__(media_type=LINES if lines else "application/json")
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, as a server calls it. A client that stops reading keeps its places only so long."""
        with self.order, contextlib.suppress(Gone, TimeoutError):
            await while_there(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        before = self.opening
        async for answer in in_turn(self.order, self.parts):
            await _send_part(send, before + json.dumps(answer).encode() + b"\n")
            before = self.between
        await send({"type": "http.response.body", "body": self.closing, "more_body": False})


async def _send_part(send: Send, body: bytes) -> None:
    async with asyncio.timeout(_READING_SECONDS):
        await send({"type": "http.response.body", "body": body, "more_body": True})
