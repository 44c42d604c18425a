"""Which compilers and interpreters this machine has: looked for when first needed, trusted, and shown to jails.

What is found here is run outside any jail, but only to ask for its version and place, and to compile its own standard
library; no program's text is ever near.
"""

from __future__ import annotations

import glob
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

from ...errors import WishError
from .languages import LANGUAGES, Language, find

_COMMON = ("/usr/bin", "/bin", "/etc/alternatives")
_BROAD = ("/", "/usr", "/usr/local", "/opt", "/home", "/root")
"""Folders that hold more than one toolchain, and often secrets: of these only the one with the tools is shown."""
_PATH = "/usr/local/bin:/usr/bin:/bin"
_ASK_SECONDS = 30.0
_STOCK_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Toolchain:
    """What one language is compiled and run with, or why it cannot be."""

    version: str = ""
    """Each tool with its version: "tsc 7.0.2, node 20.20.2"."""
    missing: str = ""
    """What is not there and what to install; empty where all is."""
    tools: dict[str, str] = field(default_factory=dict)
    """The path of each tool, by the name in the language's row."""
    folders: tuple[str, ...] = ()
    """What a jail must show for these tools to work."""
    stock: str = ""
    """The folder of the compiled standard library, where the language has one."""


_found: dict[str, Toolchain] = {}
_looking = {name: threading.Lock() for name in LANGUAGES}


def languages() -> dict[str, Toolchain]:
    """Every language a `Program` may be written in, with its version here or what is missing for it."""
    own = Toolchain(version=f"python {platform.python_version()}")
    return {"python": own, **{name: _find(name) for name in LANGUAGES}}


def toolchain_of(name: str) -> Toolchain:
    """The toolchain of `name`, ready for use. Raises WishError where there is none, or no such language."""
    row = find(name)
    with _looking[name]:
        if name not in _found:  # only success is remembered: a compiler may be installed at any time
            toolchain = _find(name)
            if toolchain.missing:
                raise WishError(f"toolchain missing: {toolchain.missing}", f"install {row.install}")
            _found[name] = _stocked(name, row, toolchain)
        return _found[name]


def _find(name: str) -> Toolchain:
    row = LANGUAGES[name]
    tools: dict[str, str] = {}
    for tool, names in row.tools.items():
        path = _which(names, beside=next(iter(tools.values()), ""))
        if path and not tools and row.root:
            path = _unwrap(path, row.root)
        if not path:
            wanted = " or ".join(names)
            return Toolchain(missing=f"programs in {name} need {wanted}, which is not on this user's PATH")
        tools[tool] = path
    try:
        version = ", ".join(
            f"{tool} {_version(path, row.version if place == 0 else ('--version',))}"
            for place, (tool, path) in enumerate(tools.items())
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Toolchain(missing=f"programs in {name} need a tool that does not start ({error})")
    wanted_folders = [*_COMMON, *map(_folder_of, tools.values())]
    for pattern in row.folders:
        wanted_folders += sorted(glob.glob(pattern))
    folders = tuple(f for f in dict.fromkeys(wanted_folders) if os.access(f, os.R_OK | os.X_OK))
    return Toolchain(version, "", tools, folders)


def _which(names: tuple[str, ...], *, beside: str) -> str:
    """The real path of a command: next to the first tool of its kit, then on PATH, then where rustup puts it."""
    places = [os.path.dirname(beside)] if beside else []
    places += [os.environ.get("PATH", _PATH), _PATH, os.path.expanduser("~/.cargo/bin")]
    for name in names:
        for place in places:
            path = shutil.which(name, path=place)
            if path:
                return (
                    path if os.path.basename(os.path.realpath(path)) == "rustup" else os.path.realpath(path)
                )
    return ""


def _unwrap(path: str, question: tuple[str, ...]) -> str:
    """The tool itself behind a shim that picks one of several installations."""
    try:
        inner = os.path.join(_ask(path, question).strip(), "bin", os.path.basename(path))
    except (OSError, subprocess.SubprocessError):
        return ""
    return inner if os.access(inner, os.X_OK) else path


def _ask(path: str, question: tuple[str, ...]) -> str:
    answer = subprocess.run(
        [path, *question],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env={
            "PATH": f"{os.path.dirname(path)}:{_PATH}",
            "HOME": os.path.expanduser("~"),
            "LC_ALL": "C.UTF-8",
        },
        timeout=_ASK_SECONDS,
        check=True,
    )
    return answer.stdout.decode("utf-8", "replace")


def _version(path: str, question: tuple[str, ...]) -> str:
    text = _ask(path, question)
    number = re.search(r"\d+\.\d+[\w.]*", text)
    return number[0] if number else text.strip()[:40]


def _folder_of(tool: str) -> str:
    """The folder a jail must show for a tool: its whole installation where that is a folder of its own."""
    folder = Path(tool).parent
    if "node_modules" in folder.parts:
        return str(Path(*folder.parts[: folder.parts.index("node_modules") + 1]))
    prefix = folder.parent if folder.name == "bin" else folder
    home = Path.home()
    shared = str(prefix) in _BROAD or prefix in (home, home / ".local")
    return str(folder if shared else prefix)


def _stocked(name: str, row: Language, toolchain: Toolchain) -> Toolchain:
    """With the standard library compiled, into a folder of this user's that later processes find again."""
    if not row.stock:
        return toolchain
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "temper")
    place = caches / f"{name}-{re.sub(r'[^0-9a-zA-Z.]+', '-', toolchain.version)}"
    try:
        if not place.exists():
            caches.mkdir(parents=True, exist_ok=True)
            _make_stock(row, toolchain, place)
        if place.stat().st_uid != os.geteuid():
            return toolchain
    except (OSError, subprocess.SubprocessError):
        return toolchain  # every program then compiles what it needs of the library, which only takes longer
    return Toolchain(toolchain.version, "", toolchain.tools, (*toolchain.folders, str(place)), str(place))


def _make_stock(row: Language, toolchain: Toolchain, place: Path) -> None:
    with tempfile.TemporaryDirectory(dir=place.parent, prefix="making-") as made:
        values = {**toolchain.tools, "stock": made}
        os.chmod(made, 0o755)
        subprocess.run(
            [part.format_map(values) for part in row.stock],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={
                **{"PATH": _PATH, "HOME": made},
                **{name: text.format_map(values) for name, text in row.environment.items()},
            },
            timeout=_STOCK_SECONDS,
            umask=0o022,
        )
        os.rename(made, place)
        os.mkdir(made)  # for the end of this block to remove


def python() -> str:
    """The interpreter that every jail shows."""
    return getattr(sys, "_base_executable", None) or sys.executable
