"""What the server was asked to be: where it listens, who may use it, and the most a client may wish for."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import WishError
from ..verdict import Limits

TOKEN_VARIABLE = "TEMPER_SANDBOX_TOKEN"
SHORTEST_TOKEN = 16

CEILING = Limits(cpu_seconds=30.0, wall_seconds=60.0, memory_mb=2048, output_kb=1024)
"""The most a client gets unless the server's options say otherwise: above what reward functions ask for by habit."""


@dataclass(frozen=True, slots=True)
class Options:
    """All that the server's start decides; nothing of it can be changed by a client."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0 takes any free port."""
    workers: int = 0
    """Programs that run at a time; 0 is one for each CPU this process may use."""
    level: str | None = None
    mode: str = "reused"
    preload: tuple[str, ...] = ()
    ceiling: Limits = CEILING
    queue: int = 512
    """Programs that may wait beyond those that run; the next ones are answered 429."""
    body_mb: float = 16.0
    drain_seconds: float = 30.0
    token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Raises WishError for what cannot be served, and for a door open to strangers."""
        if not (self.workers >= 0 and self.queue > 0 and self.body_mb > 0 and self.drain_seconds >= 0):
            raise WishError(
                f"workers {self.workers}, queue {self.queue}, body {self.body_mb:g} MB and drain "
                f"{self.drain_seconds:g} s cannot be served",
                "give a queue and a body above 0, and workers (0: one a CPU) and a drain of 0 or more",
            )
        if not 0 <= self.port <= 65535:
            raise WishError(f"port {self.port} does not exist", "give one up to 65535, or 0 for any free one")
        if self.token and (len(self.token) < SHORTEST_TOKEN or not self.token.isascii() or " " in self.token):
            raise WishError(
                f"a token of {len(self.token)} characters can be guessed, or cannot be sent",
                f"use at least {SHORTEST_TOKEN} ASCII characters without blanks, e.g. of `openssl rand -hex 32`",
            )
        if not self.token and not is_loopback(self.host):
            raise WishError(
                f"{self.host} can be reached from other machines, and whoever reaches this server runs programs on it",
                f"set a token in {TOKEN_VARIABLE} or give --token-file, or listen on 127.0.0.1",
            )

    @property
    def places(self) -> int:
        """Programs that run at a time."""
        return self.workers or len(os.sched_getaffinity(0))


def is_loopback(host: str) -> bool:
    """Whether every address of `host` is this machine's own."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host or "0.0.0.0", None)}
    except OSError:
        raise WishError(f"the host {host!r} has no address", "name one of this machine's addresses") from None
    return all(ipaddress.ip_address(address.partition("%")[0]).is_loopback for address in found)


def take_token(file: Path | None, environment: MutableMapping[str, str]) -> str:
    """The token from `file` or the environment, which no longer holds it then: children have no use for it."""
    given = environment.pop(TOKEN_VARIABLE, None)
    if file is None:
        if given is not None and not given.strip():
            raise WishError(f"{TOKEN_VARIABLE} is empty", "unset it, or put a token in it")
        return (given or "").strip()
    if given is not None:
        raise WishError(f"there are two tokens, in {TOKEN_VARIABLE} and in {file}", "give one of them")
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise WishError(f"cannot read a token from {file}: {error}", "name a readable text file") from None
    if not token:
        raise WishError(f"the token file {file} is empty", "put a token in it")
    return token
