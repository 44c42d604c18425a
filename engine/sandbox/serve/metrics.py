"""What the server counts, in Prometheus' words and in a registry of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from ..verdict import Verdict

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


@dataclass(frozen=True, slots=True)
class Levels:
    """What is read at the moment it is asked for."""

    admitted: Callable[[], float]
    running: Callable[[], float]
    workers: int
    queue: int
    isolation: str


class Metrics:
    """Counters of one server."""

    def __init__(self, levels: Levels) -> None:
        self.registry = registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "temper_sandbox_requests", "Requests answered.", ("door", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "temper_sandbox_request_seconds",
            "From a request's first byte to its answer.",
            ("door",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.programs = Counter(
            "temper_sandbox_programs", "Programs run, by verdict.", ("language", "verdict"), registry=registry
        )
        self.wait_seconds = Histogram(
            "temper_sandbox_wait_seconds",
            "From admission to the start of a program.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.wall_seconds = Histogram(
            "temper_sandbox_program_wall_seconds",
            "Wall time of programs.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.cpu_seconds = Counter(
            "temper_sandbox_program_cpu_seconds", "CPU time of programs, all together.", registry=registry
        )
        self.abandoned = Counter(
            "temper_sandbox_abandoned",
            "Programs never started, since their client had left.",
            registry=registry,
        )
        self._gauge("admitted", "Programs admitted and not yet answered.").set_function(levels.admitted)
        self._gauge("running", "Programs that run now.").set_function(levels.running)
        self._gauge("workers", "Programs that can run at a time.").set(levels.workers)
        self._gauge("queue_limit", "Programs that may wait.").set(levels.queue)
        info = Gauge("temper_sandbox_info", "What holds the programs.", ("isolation",), registry=registry)
        info.labels(levels.isolation).set(1)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"temper_sandbox_{name}", text, registry=self.registry)

    def record(self, language: str, verdict: Verdict) -> None:
        """One program has its verdict; may be called from any thread."""
        self.programs.labels(language, verdict.name).inc()
        self.wall_seconds.observe(verdict.wall_seconds)
        self.cpu_seconds.inc(verdict.cpu_seconds)

    def page(self) -> bytes:
        """All of it as text."""
        return generate_latest(self.registry)
