"""The server's life, from its first line to an end that answers whoever was let in."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator

import uvicorn

from ..pool import Pool
from .app import Doors
from .desk import Desk
from .options import Options

_LAST_ANSWERS_SECONDS = 5
_STOPPING = (signal.SIGTERM, signal.SIGINT)


class _Server(uvicorn.Server):
    """Signals are this module's own: what comes for them is an orderly end with exit code 0."""

    greeting = ""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the handlers as they are."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say the address once it can be connected to."""
        await super().startup(sockets)
        print(self.greeting, flush=True)


def live(options: Options, pool: Pool, listener: socket.socket) -> bool:
    """Serve until told to stop; whether nothing runs any more."""
    return asyncio.run(_live(options, pool, listener))


async def _live(options: Options, pool: Pool, listener: socket.socket) -> bool:
    desk = Desk(pool, options)
    config = uvicorn.Config(
        Doors(desk, options).app(),
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(options.drain_seconds) + _LAST_ANSWERS_SECONDS,
    )
    server = _Server(config)
    server.greeting = _greeting(options, pool, listener)
    loop = asyncio.get_running_loop()
    for number in _STOPPING:
        loop.add_signal_handler(number, _stop, server, desk, options.drain_seconds)
    await server.serve(sockets=[listener])
    left = desk.running
    print(f"temper sandbox: stopped{f', {left} programs ended unfinished' if left else ''}", flush=True)
    if not left:
        desk.close()
    return not left


def _stop(server: _Server, desk: Desk, drain_seconds: float) -> None:
    """The first signal closes the door and lets what is inside be done; a second one ends that too."""
    loop = asyncio.get_running_loop()
    if desk.draining:
        desk.give_up()
        return
    print(f"temper sandbox: stopping, {desk.admitted} programs to finish", flush=True)
    desk.draining = True
    server.should_exit = True
    loop.call_later(drain_seconds, desk.give_up)


def _greeting(options: Options, pool: Pool, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    token = "token required" if options.token else "no token"
    return (
        f"temper sandbox: listening on http://{shown}:{port} "
        f"({options.places} workers, isolation {pool.level}, {token})"
    )
