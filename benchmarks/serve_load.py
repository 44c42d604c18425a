"""Programs a second and how long an answer takes, through `temper sandbox serve` and through Pool itself.

Run: python benchmarks/serve_load.py [--clients 1,2,4,...] [--requests N] [--workers N] [--write]. Server, clients and
programs share this machine. Prints a table; --write also puts it in docs/results/serve_load.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from engine.sandbox import Limits, Pool, Program

ROOT = Path(__file__).parent.parent
SOURCE = """\
import sys
n, *rest = map(int, sys.stdin.read().split())
rows = [rest[i * 2 : i * 2 + 2] for i in range(n)]
print(sum(a * b for a, b in rows), max(rows))
"""
STDIN = "4\n1 2\n30 4\n5 60\n7 8\n"
PRINTED = "478 [30, 4]\n"
PATIENCE = Limits(cpu_seconds=10.0, wall_seconds=10.0, output_kb=1024)


@dataclass(frozen=True, slots=True)
class Row:
    """One way to run the programs and what it took."""

    way: str
    rate: float
    times: list[float]

    def show(self, rate: float) -> str:
        """The table's line; `rate` is the pool's own."""
        cuts = statistics.quantiles(self.times, n=100, method="inclusive")
        middle, late = cuts[49] * 1000, cuts[98] * 1000
        return f"| {self.way} | {self.rate:.0f} | {self.rate / rate:.0%} | {middle:.1f} | {late:.1f} |"


def through_pool(workers: int, count: int) -> tuple[Row, str]:
    """As many programs as there are workers at a time, from threads of their own; and the isolation."""
    with Pool(workers) as pool:
        times: list[float] = []

        async def one_after_another(number: int) -> None:
            for _ in range(number):
                started = time.perf_counter()
                verdict = await pool.run_async(Program(SOURCE, stdin=STDIN.encode()), PATIENCE)
                times.append(time.perf_counter() - started)
                assert verdict.stdout == PRINTED, verdict

        async def all_at_once(number: int) -> None:
            await asyncio.gather(*(one_after_another(number) for _ in range(workers)))

        asyncio.run(all_at_once(20))
        times.clear()
        started = time.perf_counter()
        asyncio.run(all_at_once(count // workers))
        return Row(
            f"Pool, {workers} callers", len(times) / (time.perf_counter() - started), times
        ), pool.level


@contextmanager
def server(workers: int) -> Iterator[str]:
    """The address of a server that is up."""
    argv = [sys.executable, "-m", "engine", "sandbox", "serve", "--port", "0", "--workers", str(workers)]
    process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        found = re.search(r"http://\S+", process.stdout.readline())
        if not found:
            sys.exit("the server did not start")
        yield found.group()
    finally:
        process.terminate()
        process.wait()


async def client(address: str, count: int, times: list[float]) -> None:
    """One request after another on one connection. Bare sockets, since any HTTP library costs more than the server."""
    place = urlsplit(address)
    body = json.dumps({"code": SOURCE, "language": "python", "stdin": STDIN, "run_timeout": 10}).encode()
    head = f"POST /run_code HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
    request = head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    for _ in range(count):
        started = time.perf_counter()
        writer.write(request)
        top = await reader.readuntil(b"\r\n\r\n")
        size = re.search(rb"content-length: (\d+)", top)
        assert size and b" 200 " in top, top
        answer = json.loads(await reader.readexactly(int(size[1])))
        times.append(time.perf_counter() - started)
        assert answer["run_result"]["stdout"] == PRINTED, answer
    writer.close()


async def load(address: str, clients: int, count: int) -> Row:
    """`count` requests from `clients` clients."""
    times: list[float] = []
    share = max(1, count // clients)
    started = time.perf_counter()
    await asyncio.gather(*(client(address, share, times) for _ in range(clients)))
    return Row(f"HTTP, {clients} clients", len(times) / (time.perf_counter() - started), times)


def through_http(workers: int, clients: list[int], count: int) -> list[Row]:
    """A row for each number of clients, all to one server."""
    with server(workers) as address:
        asyncio.run(load(address, workers, 40))
        return [asyncio.run(load(address, number, count)) for number in clients]


def main() -> None:
    """Print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description="Load `temper sandbox serve` on this machine.")
    parser.add_argument("--clients", default="1,2,4,8,16,32,64")
    parser.add_argument("--requests", type=int, default=3000, help="for each number of clients")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--write", action="store_true")
    wish = parser.parse_args()
    pool, isolation = through_pool(wish.workers, wish.requests)
    rows = [pool, *through_http(wish.workers, [int(n) for n in wish.clients.split(",")], wish.requests)]
    table = "\n".join(row.show(pool.rate) for row in rows)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "starlette"))
    load_average = os.getloadavg()[0]
    text = f"""# Programs through the HTTP server

`python benchmarks/serve_load.py`, {datetime.now(UTC):%Y-%m-%d}, Python {platform.python_version()}, {libraries},
Linux {platform.release()}, {platform.machine()}, {os.cpu_count()} cores (load average at the end {load_average:.1f}),
{wish.workers} workers, isolation {isolation}.

A script that reads numbers and prints two, {wish.requests:,} times a row, each in a process of its own; every answer is
checked. The first row calls `Pool` in this process; the others POST to /run_code over loopback, each client one request
after another on one connection. Server, clients and programs share the cores. With more clients than workers requests
wait their turn, and that is in the times.

| way | programs/s | of Pool | p50 ms | p99 ms |
|---|---|---|---|---|
{table}
"""
    print(text)
    if wish.write:
        target = ROOT / "docs" / "results" / "serve_load.md"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
