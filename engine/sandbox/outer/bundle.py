"""What an engine is given to make a container of: a root folder, and one line or file that describes the rest."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import sys
from pathlib import Path

from .. import jail, kernel
from ..jail import Shape
from ..keeper import BOOT

_ROOM = Path(__file__).resolve().parent.parent
_HOME = "/opt/temper"
"""Where the container's first process finds this room; programs, which are another user, may not look there."""
_CODE = f"{_HOME}/engine/sandbox"
_NAMESPACES = ("pid", "network", "ipc", "uts", "mount")
_LIMITS = {"NOFILE": 256, "CORE": 0, "MEMLOCK": 0, "MSGQUEUE": 0}
_CAPABILITIES = ("CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_PTRACE")
_MOST_PROCESSES = 4096
_SPARE_UIDS = 60_000
_OUTER_USERS = 1_879_048_192


class Bundle:
    """A root folder that any number of containers share, since none can write to it."""

    def __init__(self, folder: str, shape: Shape) -> None:
        self.folder = folder
        self.shape = shape
        self.root = f"{folder}/root"
        self.shared: list[str] = []
        """The host's folders that are shown read-only at the same paths."""
        self.podman_settings = f"{folder}/containers.conf"
        """In place of the user's own, which may add mounts and rights; and locks that are files of this folder."""
        os.makedirs(self.root, 0o755)
        self._lay_files()
        self._lay_code()
        for path in jail.visible_folders(shape.shown):
            self._make_place(path)

    def _lay_files(self) -> None:
        for name in ("proc", "dev", "etc", "var", "sys", "tmp"):
            os.mkdir(f"{self.root}/{name}", 0o755)
        for name, text in jail.FILES.items():
            Path(self.root, name).write_text(text)
        os.symlink(jail.SCRATCH, f"{self.root}/var/tmp")
        if os.path.exists("/etc/ld.so.cache"):
            shutil.copyfile("/etc/ld.so.cache", f"{self.root}/etc/ld.so.cache")

    def _lay_code(self) -> None:
        target = Path(self.root + _CODE)
        for file in (*_ROOM.glob("*.py"), *_ROOM.glob("outer/*.py")):
            place = target / file.relative_to(_ROOM)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        shutil.copyfile(_ROOM.parent / "errors.py", target.parent / "errors.py")
        compileall.compile_dir(str(target.parent), quiet=2, stripdir=self.root)
        os.chmod(self.root + _HOME, 0o700)

    def _make_place(self, path: str) -> None:
        if os.path.islink(path):
            os.makedirs(os.path.dirname(self.root + path), 0o755, exist_ok=True)
            os.symlink(os.readlink(path), self.root + path)
            return
        os.makedirs(self.root + path, 0o755, exist_ok=True)
        self.shared.append(path)

    def _argv(self, door: int) -> list[str]:
        python = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
        flags = ["-s", "-S", "-P", "-B", "-X", "utf8"]
        return [python, *flags, "-c", BOOT, _CODE, "outer.inmate", str(door)]

    def _environment(self) -> dict[str, str]:
        home = {"HOME": jail.SCRATCH, "TMPDIR": jail.SCRATCH, "PATH": f"{sys.base_prefix}/bin"}
        return {**home, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}

    def runsc(self, executable: str, name: str) -> list[str]:
        """The command that starts container `name`, whose door is descriptor 0. Writes its description."""
        place = f"{self.folder}/{name}"
        os.mkdir(place)
        Path(place, "config.json").write_text(json.dumps(self._description()))
        rootless = ["--rootless"] if os.geteuid() else []
        return [
            *(
                executable,
                "--root",
                f"{self.folder}/state",
                *rootless,
                "--network",
                "none",
                "--ignore-cgroups",
            ),
            *("--platform", "ptrace", "run", "--bundle", place, name),
        ]

    def _description(self) -> dict:
        """A container in the words of the OCI runtime specification 1.0."""
        scratch = ["nosuid", "nodev", "mode=1777", f"size={self.shape.disk_mb}m"]
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            *({"destination": p, "type": "tmpfs", "source": "tmpfs", "options": scratch} for p in _SCRATCHES),
            *(
                {"destination": p, "type": "bind", "source": p, "options": ["rbind", "ro"]}
                for p in self.shared
            ),
        ]
        kinds = ("bounding", "effective", "permitted", "inheritable")
        process = {
            "user": {"uid": 0, "gid": 0},
            "args": self._argv(0),
            "env": [f"{k}={v}" for k, v in self._environment().items()],
            "cwd": jail.SCRATCH,
            "capabilities": {kind: _CAPABILITIES for kind in kinds},
            "noNewPrivileges": True,
            "rlimits": [{"type": f"RLIMIT_{k}", "hard": v, "soft": v} for k, v in _LIMITS.items()],
        }
        return {
            "ociVersion": "1.0.2",
            "process": process,
            "root": {"path": self.root, "readonly": True},
            "hostname": "sandbox",
            "mounts": mounts,
            "linux": {"namespaces": [{"type": kind} for kind in _NAMESPACES]},
        }

    def podman(self, executable: str, name: str) -> list[str]:
        """The command that starts container `name`, whose door, stdout and stderr are descriptors 3, 4 and 5.

        It is to be run with `podman_settings` as its only settings file.
        """
        Path(self.podman_settings).write_text('[engine]\nlock_type = "file"\n')
        scratch = f"size={self.shape.disk_mb}m,mode=1777,nosuid,nodev"
        places = (("--root", "store"), ("--runroot", "run"), ("--tmpdir", "tmp"))
        stores = [word for option, place in places for word in (option, f"{self.folder}/{place}")]
        quiet = ("--cgroup-manager", "cgroupfs", "--events-backend", "none", "--runtime", "crun")
        user = f"{jail.INSIDE_UID}:{self._outer_uid()}:1"
        maps = [f"--{kind}map={pair}" for kind in ("uid", "gid") for pair in ("0:0:1", user)]
        # without a word on it podman asks for more than a user without CAP_SYS_RESOURCE may
        limits = {**_LIMITS, "NPROC": _MOST_PROCESSES}
        walls = ("--network", "none", "--read-only", "--read-only-tmpfs=false", "--cgroups", "disabled")
        rights = ["--cap-drop=all", *(f"--cap-add={c}" for c in _CAPABILITIES), "--user", "0:0"]
        return [
            *(
                executable,
                *stores,
                "--storage-driver",
                "vfs",
                *quiet,
                "run",
                "--rm",
                "--name",
                name,
                "--preserve-fds",
                "3",
            ),
            *("--log-driver", "none", "--hostname", "sandbox", *walls, *maps, *rights),
            *("--security-opt", "no-new-privileges", "--workdir", jail.SCRATCH, "--no-hosts"),
            *(f"--tmpfs={place}:{scratch}" for place in _SCRATCHES),
            *(f"--ulimit={kind.lower()}={value}:{value}" for kind, value in limits.items()),
            *(f"--volume={path}:{path}:ro" for path in self.shared),
            *(f"--env={key}={value}" for key, value in self._environment().items()),
            *("--rootfs", self.root, *self._argv(3)),
        ]

    def _outer_uid(self) -> int:
        """A user of its own for each worker's programs, so that no other worker's processes count against it. Root
        maps any; an ordinary user has a range, whose members podman numbers from 1."""
        return _OUTER_USERS + os.getpid() if os.geteuid() == 0 else 1 + os.getpid() % _SPARE_UIDS


_SCRATCHES = (jail.SCRATCH, "/dev/shm")


def leave_hybrid_cgroups() -> None:
    """Hide the second cgroup tree from this process and what it starts: crun refuses a machine with both versions."""
    tree = "/sys/fs/cgroup/unified"
    if os.geteuid() == 0 and os.path.ismount(tree):
        kernel.unshare(kernel.CLONE_NEWNS)
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        kernel.detach(tree)
