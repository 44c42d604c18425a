"""What lies out for hostile programs to reach for: a secret, a file, sockets, a process; and whether one got there."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from ..jail import visible_folders

_VARIABLES = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY", "OPENAI_API_KEY")
_PRIVATE = ("~/.ssh", "~/.netrc", "~/.aws", "~/.cache", "~/.config", "~/.bash_history", "~/.gitconfig", "~")
_MOST_PATHS = 60
_TRACED_OR_STOPPED = "tT"


class Bait:
    """Laid out when made, taken in by `close`. The process stands in for the supervisor, which must not be hurt."""

    def __init__(self) -> None:
        self.secret = f"temper-secret-{secrets.token_hex(8)}"
        self._before = {name: os.environ.get(name) for name in _VARIABLES}
        os.environ.update(dict.fromkeys(_VARIABLES, self.secret))
        self._folder = tempfile.TemporaryDirectory(
            prefix="temper-bait-"
        )  # goes with this process if not before
        self.folder = Path(self._folder.name)
        # open to every user: what keeps a program from them must be the box
        self.folder.chmod(0o755)
        self.file = self.folder / "secret"
        self.file.write_text(self.secret)
        self.file.chmod(0o644)
        self._inherited = os.open(self.file, os.O_RDONLY)
        os.set_inheritable(self._inherited, True)
        self.process = _start_process()
        self._listeners = self._listen()

    def _listen(self) -> dict[str, socket.socket]:
        path = str(self.folder / "socket")
        places: dict[str, tuple[int, str | tuple[str, int]]] = {
            "a port": (socket.AF_INET, ("127.0.0.1", 0)),
            "a socket file": (socket.AF_UNIX, path),
            "an abstract socket": (socket.AF_UNIX, f"\0{path}"),
        }
        listeners = {}
        for name, (family, address) in places.items():
            listeners[name] = listener = socket.socket(family)
            listener.bind(address)
            listener.listen()
            listener.setblocking(False)
        os.chmod(path, 0o777)
        return listeners

    @property
    def words(self) -> tuple[str, ...]:
        """What a program is told in argv: the process, the port, the socket file, the file, and paths to try."""
        port = self._listeners["a port"].getsockname()[1]
        paths = (self.file, *hidden_paths())
        return (str(self.process.pid), str(port), str(self.folder / "socket"), *map(str, paths))

    def touched(self) -> list[str]:
        """What a program has reached since this was last asked, in words."""
        found = [f"{name} of this machine was reached" for name in self._listeners if self._reached(name)]
        if self.process.poll() is not None:
            found.append("a process of this machine was ended")
            self._end_process()
            self.process = _start_process()
        elif _state(self.process.pid) in _TRACED_OR_STOPPED:
            found.append("a process of this machine was stopped")
        if self.file.read_text() != self.secret or self.file.stat().st_nlink != 1:
            found.append("a file of this machine was changed")
        if sorted(os.listdir(self.folder)) != ["secret", "socket"]:
            found.append("a folder of this machine was written to")
        return found

    def _reached(self, name: str) -> bool:
        try:
            self._listeners[name].accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        """Take it all in."""
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        for listener in self._listeners.values():
            listener.close()
        self._end_process()
        os.close(self._inherited)
        self._folder.cleanup()

    def _end_process(self) -> None:
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()


def hidden_paths() -> list[Path]:
    """Private places this user may read, less those a jail shows because Python lives in them."""
    wanted = [Path(os.path.expanduser(path)) for path in _PRIVATE]
    wanted += [Path(os.environ[name]) for name in ("HF_HOME", "TEMPER_DATA") if os.environ.get(name)]
    wanted += [Path.cwd(), Path(__file__).resolve(), Path("/etc/shadow"), Path("/sys"), Path("/boot")]
    with contextlib.suppress(OSError):
        wanted += sorted(Path(os.path.expanduser("~")).iterdir())[:_MOST_PATHS]
    shown = [Path(os.path.realpath(folder)) for folder in visible_folders()]
    return [path for path in wanted if os.access(path, os.R_OK) and not _on_the_way(path.resolve(), shown)]


def _start_process() -> subprocess.Popen[bytes]:
    """One that waits for a word that never comes, and ends with this process."""
    command = [sys.executable, "-I", "-S", "-c", "input()"]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)


def _on_the_way(path: Path, shown: list[Path]) -> bool:
    return any(path == folder or path in folder.parents or folder in path.parents for folder in shown)


def _state(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""
