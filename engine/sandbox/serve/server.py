"""Starting the server, in the order that matters: what can be refused, a socket, the pool, and only then its doors."""

from __future__ import annotations

import importlib.util
import os
import resource
import socket
import sys

from ...errors import WishError
from ..pool import Pool
from .options import Options

_EXTRA = ("starlette", "uvicorn", "prometheus_client")
_MOST_FILES = 1 << 16


def serve(options: Options) -> None:
    """Serve until SIGTERM or SIGINT, and return when all that was admitted is answered or the time to drain is over.

    Raises:
        WishError: the extra is not installed, the address is taken, or this machine gives no such isolation.
    """
    if missing := [name for name in _EXTRA if importlib.util.find_spec(name) is None]:
        raise WishError(f"the server needs {', '.join(missing)}", "pip install 'temper-llm[serve]'")
    listener = _bind(options)
    with listener:
        # The jails' interpreters are started before this process grows, and before it has threads.
        pool = Pool(options.places, options.level, mode=options.mode, preload=options.preload)
        _allow_many_connections()
        from .life import live

        if live(options, pool, listener):
            pool.close()
            return
    # Programs still run, and a pool waits for its programs. Its workers end themselves, with all they keep, when this
    # process is gone.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _bind(options: Options) -> socket.socket:
    try:
        found = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM)[0]
        # asyncio sends without delay only on a socket whose protocol is named: 40 ms an answer otherwise
        listener = socket.socket(*found[:3])
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(found[4])
    except OSError as error:
        raise WishError(
            f"cannot listen on {options.host}, port {options.port}: {error.strerror}",
            "name an address of this machine, and a port that is free (0 takes any)",
        ) from None
    return listener


def _allow_many_connections() -> None:
    """A client may hold a connection for each program that waits; the customary 1024 descriptors are few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
