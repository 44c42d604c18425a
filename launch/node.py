"""The node agent: finds out which node it is on, completes the plan for it, and supervises that node's ranks."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import click

from engine import errors, protocol
from engine.config import load
from engine.errors import PreflightError, TemperError, WishError
from launch import reports, submission
from launch.agent import forget_last_attempt, supervise
from launch.command import is_free
from launch.outlook import everywhere, leave_prediction
from launch.reports import Attempt, Peers, Report
from launch.submission import Submission

# Where a place says which of its nodes this is.
NODE_VARIABLES = {"slurm": "SLURM_NODEID", "kubernetes": "JOB_COMPLETION_INDEX"}
RESOLVE_SECONDS = 180.0
SIOCGIFADDR = 0x8915
# How long a supervisor may take to kill its ranks and report, before its watchdog has to.
KILL_SECONDS = 15.0
PEERS_SECONDS = 30.0


@click.command()
@click.option("--job", "file", type=click.Path(path_type=Path), required=True)
@click.option("--head", required=True, help="Address of node 0.")
@click.option("--attempt", "name", required=True, help="Which start this is, the same on all nodes.")
@click.option("--node", type=int, help="Which node this is; empty: as the place says.")
@click.option(
    "--held", is_flag=True, help="Obey s (stop) and k (kill) on standard input, and end when it ends."
)
def agent(file: Path, head: str, name: str, node: int | None, held: bool) -> None:
    """Start and supervise the ranks of this node. Places run this; people need not."""
    if held:
        threading.Thread(target=_obey, daemon=True).start()
    job = submission.read(file)
    number = _number(job) if node is None else node
    host = _host(job, number)
    os.environ[protocol.HOST_VARIABLE] = host
    os.chdir(job.directory)
    attempt = Attempt(job.launch.folder, name, protocol.now())
    if number > 0 and job.place.kind != "kubernetes":
        _speak_into(job.launch.logs / f"node-{number}.log")
    if alone := job.place.kind == "kubernetes" and number == 0:
        forget_last_attempt(job.launch)
    try:
        code = _run(job, number, head, Peers(attempt, number, host))
    except TemperError as error:
        print(errors.spoken(error), file=sys.stderr, flush=True)
        code = error.exit_code
        reports.leave(attempt, Report(number, host, code, protocol.now(), said=str(error)))
    if alone:
        code = _conclude(job, attempt)
    sys.exit(code)


def _conclude(job: Submission, attempt: Attempt) -> int:
    """Where no lead does so, node 0 waits a moment for the others' reports and says how it ended."""
    deadline = time.monotonic() + PEERS_SECONDS
    while len(reports.read(attempt)) < job.launch.nodes and time.monotonic() < deadline:
        time.sleep(0.5)
    told = {report.node for report in reports.read(attempt)}
    for node in set(range(job.launch.nodes)) - told:
        reports.write(attempt, Report(node, job.place.host(node), errors.BUG, protocol.now(), lost=True))
    verdict = reports.merged(attempt, job.launch.verb, job.launch.world_size)
    return reports.conclude(attempt, verdict, job.launch.logs).exit_code


def _run(job: Submission, node: int, head: str, peers: Peers) -> int:
    private = job.there / submission.ENVIRONMENT
    if job.place.environment and private.is_file():
        os.environ.update(json.loads(private.read_text(encoding="utf-8")))
    address = resolve(head) if job.launch.nodes > 1 else job.launch.head
    if node == 0 and not is_free(address, job.launch.port):
        raise PreflightError(
            f"port {job.launch.port} of {address}, where the ranks are to meet, is taken or not this machine's",
            f"end the process that holds it (ss -ltnp), or name the address of this machine ({peers.host}) first",
        )
    if job.launch.nodes > 1 and "GLOO_SOCKET_IFNAME" not in os.environ:
        # gloo would ask for the address of this machine's own name, which is often a loopback one.
        if interface := interface_to(address):
            os.environ["GLOO_SOCKET_IFNAME"] = interface
    if node == 0 and job.launch.verb == "train":
        leave_prediction(everywhere(load(job.there / protocol.RUN).run, job.launch.nodes))
    launch = job.launch.at(node, address)
    print(launch.line, flush=True)
    return supervise(launch, peers=peers).exit_code


def _number(job: Submission) -> int:
    variable = NODE_VARIABLES.get(job.place.kind)
    said = os.environ.get(variable, "") if variable else ""
    if not said.isdigit() or int(said) >= job.launch.nodes:
        raise WishError(
            f"{variable or 'no variable'} is {said!r}, and the run has {job.launch.nodes} nodes",
            "the agent is started by `temper submit`, or with --node",
        )
    return int(said)


def _host(job: Submission, node: int) -> str:
    if job.place.kind == "hosts":
        return job.place.host(node)
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def resolve(head: str, seconds: float = RESOLVE_SECONDS) -> str:
    """The head's IP address; a pod's name takes a while to be known.

    Raises:
        PreflightError: it is not known within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = socket.getaddrinfo(head, None, type=socket.SOCK_STREAM)
            return str(min(found, key=lambda one: one[0] != socket.AF_INET)[4][0])
        except OSError as error:
            if time.monotonic() > deadline:
                raise PreflightError(
                    f"the head's address {head} is not known here: {error.strerror}", "see DNS or /etc/hosts"
                ) from None
            time.sleep(1.0)


def interface_to(address: str) -> str | None:
    """The network interface whose address packets to `address` leave with."""
    if ":" in address:
        return _interface_of_six(address)
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        own = probe.getsockname()[0]
        for _, name in socket.if_nameindex():
            with suppress(OSError):
                answer = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(answer[20:24]) == own:
                    return name
    return None


def _interface_of_six(address: str) -> str | None:
    """The same for an address of IPv6, whose interfaces the kernel lists with their addresses."""
    with suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        own = socket.inet_pton(socket.AF_INET6, probe.getsockname()[0].partition("%")[0]).hex()
        for line in Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines():
            words = line.split()
            if words[0] == own:
                return words[5]
    return None


def _speak_into(file: Path) -> None:
    """The console belongs to node 0; every other node's goes into a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)


def _obey() -> None:
    """Turn words on standard input into the signals that a supervisor knows; its end means that the lead has gone."""
    while True:
        word = os.read(0, 1)
        os.kill(os.getpid(), signal.SIGTERM)
        if word == b"s":
            continue
        # Pending signals have no order of their own: the one that kills must come second.
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(KILL_SECONDS)
        os._exit(errors.BUG)
