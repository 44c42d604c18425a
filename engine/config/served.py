"""Rules about a model that is served elsewhere: an address, a key's name, and a question its interface can carry."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from engine.config.finding import Finding
from engine.config.run import Run
from engine.config.sections import Server

ITS_OWN = ("messages", "model", "n", "prompt", "stream")
"""Fields of a request that say what is asked and how the answer is read."""


def url_is_an_address(run: Run, ranks: int) -> Iterator[Finding]:
    """The address is a plain one; a password or a key in it would be written to the results."""
    server = run.evaluate.server
    if server.url is None:
        if server != Server():
            yield Finding(
                "evaluate.server is set up and evaluate.server.url is empty",
                "set evaluate.server.url, e.g. to http://127.0.0.1:8000/v1, or remove evaluate.server",
            )
        return
    try:
        parts = urlsplit(server.url)
        plain = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        plain = False
    # The address itself is not shown where it may hold a secret.
    if "@" in server.url or "?" in server.url or "#" in server.url:
        yield Finding(
            "evaluate.server.url holds more than scheme, host, port and path",
            "write it as http://127.0.0.1:8000/v1; a key goes into the variable that api_key_env names",
        )
    elif not plain or re.search(r"\s", server.url):
        yield Finding(
            f"evaluate.server.url {server.url!r} is no http address", "write it as http://127.0.0.1:8000/v1"
        )


def key_is_named(run: Run, ranks: int) -> Iterator[Finding]:
    """The run file is kept and shared: it names the variable and never holds the key."""
    name = run.evaluate.server.api_key_env
    if name is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        # Not shown: it may be the key.
        yield Finding(
            "evaluate.server.api_key_env is not the name of an environment variable",
            "put the key into a variable of the environment and name that, e.g. OPENAI_API_KEY",
        )


def api_suits_the_tasks(run: Run, ranks: int) -> Iterator[Finding]:
    """Sentinels are continued, not asked; a question needs the server's template."""
    wish = run.evaluate
    if not wish.server.url:
        return
    if wish.server.api == "chat" and wish.benchmark == "infilling":
        yield Finding(
            "evaluate.server.api is chat and infilling is asked in sentinels",
            "set evaluate.server.api to completions",
        )
    if wish.server.api == "completions" and wish.chat == "yes":
        yield Finding(
            "evaluate.chat is yes and evaluate.server.api is completions",
            "set evaluate.server.api to chat: the server applies its own template",
        )


def body_leaves_the_question(run: Run, ranks: int) -> Iterator[Finding]:
    """Fields that decide what is asked and how the answer is read are not the user's to add."""
    taken = sorted(set(run.evaluate.server.body) & set(ITS_OWN))
    if taken:
        yield Finding(
            f"evaluate.server.body holds {', '.join(taken)}",
            "remove it: the tasks, evaluate.server.model and evaluate.samples say that",
        )


def one_process_asks(run: Run, ranks: int) -> Iterator[Finding]:
    """More ranks would only wait beside each other for the same server."""
    if run.evaluate.server.url and ranks > 1:
        yield Finding(
            f"evaluate.server.url is set and there are {ranks} ranks",
            "set parallel.processes to 1: evaluate.server.concurrency says how many requests are under way",
        )


def the_loop_asks_its_own_model(run: Run, ranks: int) -> Iterator[Finding]:
    """In-loop evaluation judges the weights in training, which no server has."""
    if run.evaluate.server.url and run.train.evaluate_every:
        yield Finding(
            f"train.evaluate_every is {run.train.evaluate_every} and evaluate.server.url is set",
            "remove evaluate.server from this run: in-loop evaluation asks the model in training",
        )
