"""Every hostile program of the catalogue, at each level, in each mode, as other users and inside a container's cage."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from engine.errors import PreflightError, WishError
from engine.sandbox import LEVELS, VERDICTS, commands
from engine.sandbox.attack import CATALOGUE, CATEGORIES, CLASSES, Attack, Drill, Tally
from engine.sandbox.attack.entry import attack

from .cage import CAGE

ROOT = Path(__file__).parents[3]
ENTRIES = {entry.name: entry for entry in CATALOGUE}
QUICK_CATEGORIES = ("outliving", "escape")
DOCKERS = (
    *(
        "chown",
        "dac_override",
        "fsetid",
        "fowner",
        "mknod",
        "net_raw",
        "setgid",
        "setuid",
        "setfcap",
        "setpcap",
    ),
    *("net_bind_service", "sys_chroot", "kill", "audit_write"),
)
"""The capabilities a container has by default."""


def _is_slow(level: str, mode: str, entry: Attack) -> bool:
    """Whether a trial waits for the slow suite: the quick one has all but compilers at the best level, and what most
    depends on the level at the others."""
    if mode == "fresh" or entry.language != "python":
        return True
    return level != "full" and entry.category not in QUICK_CATEGORIES


def _trials() -> Iterator[object]:
    for level, mode in (*((level, "reused") for level in LEVELS), ("full", "fresh"), ("user", "fresh")):
        for entry in CATALOGUE:
            marks = [pytest.mark.slow] if _is_slow(level, mode, entry) else []
            yield pytest.param((level, mode), entry.name, marks=marks, id=f"{level}-{mode}-{entry.name}")


Opened = dict[tuple[str, str], Drill]


@pytest.fixture(scope="module")
def opened() -> Iterator[Opened]:
    """The drill that is open: one at a time, since each watches all of this process's children."""
    drills: Opened = {}
    yield drills
    _close(drills)


def _close(drills: Opened) -> None:
    while drills:
        assert drills.popitem()[1].close() == []


@pytest.fixture
def drill(request: pytest.FixtureRequest, opened: Opened) -> Drill:
    if request.param not in opened:
        _close(opened)
        try:
            opened[request.param] = Drill(*request.param)
        except WishError as error:
            pytest.skip(error.what)
    return opened[request.param]


@pytest.mark.parametrize(("drill", "name"), _trials(), indirect=["drill"])
def test_an_attack_is_held(drill: Drill, name: str) -> None:
    outcomes = list(drill.trials(ENTRIES[name]))
    assert not [outcome for outcome in outcomes if not outcome.held]
    if all(outcome.skipped for outcome in outcomes):
        pytest.skip(outcomes[0].skipped)


def test_every_class_has_a_program() -> None:
    assert sorted(CLASSES) == list(range(1, 59)) == sorted({entry.number for entry in CATALOGUE})
    assert len(ENTRIES) == len(CATALOGUE)
    assert {entry.category for entry in CATALOGUE} == set(CATEGORIES)
    for entry in CATALOGUE:
        assert {*entry.allowed, *entry.alone} <= {*VERDICTS, "refused"} - {"infra"}, entry.name
        assert not (entry.seeks_answer and "passed" in entry.allowed), entry.name


_DRILL = """
import json, sys
from engine.sandbox.attack import CATALOGUE, Drill, Tally
with Drill({level!r}, {mode!r}) as drill:
    outcomes = [o for entry in CATALOGUE if entry.language == "python" for o in drill.trials(entry)]
    tally = Tally(outcomes, drill.close())
print(json.dumps([tally.classes(), [line for line in tally.lines() if "NOT HELD" in line]]))
"""


def _drilled(script: str, *privileges: str) -> list[str]:
    """Run a drill with other privileges; how many classes were held, not tried, and there; and what was not held."""
    # the interpreter may live where only root may look (/root/.pyenv): show it at /mnt to this test alone
    shell = (
        'mount --bind "$1" /mnt && shift && script="$1" && shift && '
        'exec setpriv "$@" env LD_LIBRARY_PATH=/mnt/lib /mnt/bin/python3 -B -c "$script"'
    )
    command = ["unshare", "--mount", "sh", "-c", shell, "sh", sys.base_prefix, script, *privileges]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=580)
    if "mount:" in done.stderr:
        pytest.skip(f"this machine cannot show the interpreter to another user: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr[-2000:]
    (held, untried, classes), failures = json.loads(done.stdout)
    assert not failures
    return [held + untried, classes]


NOBODY = ("--reuid", "65534", "--regid", "65534", "--clear-groups")
CAGED = (
    "--no-new-privs",
    "--inh-caps=-all",
    f"--bounding-set=-all,{','.join('+' + name for name in DOCKERS)}",
)

_only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become someone else")
_tools = pytest.mark.skipif(
    not all(map(shutil.which, ("unshare", "setpriv"))), reason="needs unshare and setpriv"
)


@pytest.mark.slow
@_only_root
@_tools
@pytest.mark.parametrize(("level", "mode"), [("user", "reused"), ("user", "fresh"), ("process", "reused")])
def test_an_ordinary_user_is_as_safe(level: str, mode: str) -> None:
    held, classes = _drilled(_DRILL.format(level=level, mode=mode), *NOBODY)
    assert held == classes == len(CLASSES) - 1  # compilers are another test's


@pytest.mark.slow
@_only_root
@_tools
@pytest.mark.parametrize("user", ["root", "nobody"])
def test_a_container_without_namespaces_is_as_safe(user: str) -> None:
    privileges = CAGED if user == "root" else (*CAGED, *NOBODY)
    refused = "from engine.sandbox import probe\nassert probe().level == 'process', probe()\n"
    held, classes = _drilled(CAGE + refused + _DRILL.format(level="process", mode="reused"), *privileges)
    assert held == classes == len(CLASSES) - 1


@pytest.fixture(scope="module")
def watched(opened: Opened) -> Iterator[Drill]:
    _close(opened)
    with Drill() as drill:
        yield drill


PASSES = attack(54, "a right program", "def f(x): return x + 1", "wrong", forms=("calls",))


def test_a_forged_pass_is_not_held(watched: Drill) -> None:
    (outcome,) = watched.trials(PASSES)
    assert not outcome.held and outcome.problems[0].startswith("the verdict was passed"), outcome
    lines = list(Tally([outcome]).lines())
    assert any(line.startswith("NOT HELD: class 54 (leaving before the test)") for line in lines), lines
    assert Tally([outcome]).summary("full", "reused") == "0 of 1 classes held at level full, mode reused"


def test_a_silent_end_is_not_held(watched: Drill) -> None:
    (outcome,) = watched.trials(attack(31, "says nothing", "print(1)"))
    assert outcome.problems == ("it came to a good end without a word on what was refused",)


def test_a_secret_that_comes_out_is_not_held(watched: Drill) -> None:
    (outcome,) = watched.trials(attack(38, "tells", f"print('HELD', {watched.bait.secret!r})"))
    assert outcome.problems == ("the secret came out",)


def test_what_is_left_on_the_machine_is_found(watched: Drill, tmp_path: Path) -> None:
    with (
        open("/tmp/temper-attack-left", "w"),
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as survivor,
    ):
        found = watched.traces.found()
        os.unlink("/tmp/temper-attack-left")
        survivor.kill()
    assert found[0] == "/tmp/temper-attack-left was left", found
    assert any(words.startswith("1 processes more than before") for words in found), found
    assert watched.traces.found() == []


def test_bait_that_is_taken_is_missed(watched: Drill) -> None:
    watched.bait.process.kill()
    watched.bait.process.wait()
    watched.bait.file.write_text("other")
    assert watched.bait.touched() == [
        "a process of this machine was ended",
        "a file of this machine was changed",
    ]
    watched.bait.file.write_text(watched.bait.secret)
    assert watched.bait.touched() == []


def test_the_verb_ends_with_3_when_one_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    held = replace(PASSES, allowed=("passed",))
    monkeypatch.setattr(commands, "CATALOGUE", (held,))
    done = CliRunner().invoke(commands.sandbox, ["attack"], catch_exceptions=False)
    assert done.stdout.splitlines()[-1].startswith("1 of 1 classes held at level "), done.stdout
    monkeypatch.setattr(commands, "CATALOGUE", (held, PASSES))
    with pytest.raises(PreflightError) as caught:
        CliRunner().invoke(commands.sandbox, ["attack", "--json"], catch_exceptions=False)
    assert caught.value.exit_code == 3


def test_a_language_that_is_not_here_is_not_tried(watched: Drill, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise WishError(f"toolchain missing: {name}", "install it")

    monkeypatch.setattr("engine.sandbox.attack.drill.toolchain_of", absent)
    outcomes = list(watched.trials(ENTRIES["templates without end"]))
    assert [outcome.skipped for outcome in outcomes] == ["toolchain missing: cpp"]
    assert Tally(outcomes).summary("full", "reused") == (
        "0 of 1 classes held at level full, mode reused, 1 not tried"
    )
