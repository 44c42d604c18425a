"""When a request may leave: so many a minute, not while the server asks for quiet, and later after each failure."""

from __future__ import annotations

import random
import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


class Pace:
    """What all requests to one server share.

    Args:
        per_minute: most requests in a minute, evenly spaced; None: as fast as they come.
    """

    def __init__(self, per_minute: int | None) -> None:
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._lock = threading.Lock()
        self._next = 0.0
        self._stopped = threading.Event()

    def turn(self) -> bool:
        """Wait until one more request may leave; False: none may any more."""
        while not self._stopped.is_set():
            with self._lock:
                now = time.monotonic()
                if now >= self._next:
                    self._next = now + self._gap
                    return True
                wait = self._next - now
            self._stopped.wait(wait)
        return False

    def hold(self, seconds: float) -> None:
        """Let no request leave for so long: a server that is asked for too much is not asked by others either."""
        with self._lock:
            self._next = max(self._next, time.monotonic() + seconds)

    def rest(self, seconds: float) -> None:
        """Wait, unless all is stopped."""
        self._stopped.wait(seconds)

    def stop(self) -> None:
        """Wake whoever waits: no request leaves any more."""
        self._stopped.set()


def backoff(failures: int, *, first: float, longest: float) -> float:
    """Seconds to wait after so many failures in a row: doubling, with jitter between half and all of it.

    The jitter takes no seed: two processes that failed together must not come back together.
    """
    return min(longest, first * 2.0 ** min(failures - 1, 30)) * random.uniform(0.5, 1.0)


def retry_after(header: str | None) -> float:
    """Seconds a Retry-After header asks for, as a number or as a date (RFC 9110, 10.2.3); 0 where it says nothing."""
    text = (header or "").strip()
    try:
        return max(0.0, float(text)) if float(text) < float("inf") else 0.0
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
