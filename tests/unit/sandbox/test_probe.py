"""What the probe says: which step was refused, where this is, and what helps there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.sandbox import LEVELS, probe
from engine.sandbox.remedies import PLACES, STEPS, places, remedies, step_of

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("problem", "step"),
    [
        ("[Errno 1] unshare(0x10000000): Operation not permitted", "namespaces"),
        ("[Errno 28] unshare(0x10000000): No space left on device", "namespaces"),
        ("[Errno 1] Operation not permitted: '/proc/self/uid_map'", "namespaces"),
        ("[Errno 1] writing the user map: [Errno 1] Operation not permitted", "namespaces"),
        ("[Errno 13] mount tmpfs on /mnt: Permission denied", "mounts"),
        ("[Errno 1] pivot_root: Operation not permitted", "mounts"),
        ("[Errno 1] no writable cgroup (v2: not mounted; v1: no memory controller)", "cgroup"),
        ("[Errno 38] landlock: Function not implemented", "landlock"),
        ("the jail's process ended while it was being built", ""),
    ],
)
def test_a_refusal_names_its_step(problem: str, step: str) -> None:
    assert step_of(problem) == step
    assert not step or STEPS[step]


def signs(root: Path, *files: str, release: str = "ID=debian") -> Path:
    for name in ("etc/os-release", *files):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(release)
    return root


def test_places_are_known_by_their_signs_nearest_first(tmp_path: Path) -> None:
    ubuntu = 'NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian'
    assert places(signs(tmp_path / "a"), {}) == ("linux",)
    assert places(signs(tmp_path / "b", ".dockerenv", release=ubuntu), {}) == ("docker", "ubuntu", "linux")
    assert places(tmp_path / "b", {"KUBERNETES_SERVICE_HOST": "x"}) == ("kubernetes", "ubuntu", "linux")
    assert places(signs(tmp_path / "c", "run/.containerenv"), {}) == ("podman", "linux")
    (tmp_path / "a/run/systemd/system").mkdir(parents=True)
    assert places(tmp_path / "a", {"SLURM_JOB_ID": "7"}) == ("slurm", "systemd", "linux")
    assert places(signs(tmp_path / "d", release='ID=pop\nID_LIKE="ubuntu debian"'), {})[0] == "ubuntu"
    assert places(tmp_path / "nowhere", {}) == ("linux",)


@pytest.mark.parametrize("place", PLACES)
def test_remedies_of_this_place_come_first_and_the_others_follow(place: str) -> None:
    found = remedies(["cgroup", "namespaces", "mounts", "landlock"], (place,))
    assert {remedy.place for remedy in found} == set(PLACES)
    for step in STEPS:
        of_step = [remedy for remedy in found if remedy.step == step]
        assert of_step and all(remedy.how for remedy in of_step)
        assert [remedy.here for remedy in of_step] == sorted((r.here for r in of_step), reverse=True)


def test_remedies_can_be_pasted() -> None:
    text = "\n".join(remedy.how for remedy in remedies(list(STEPS), ("linux",)))
    for needle in (
        "docker run --security-opt seccomp=unconfined",
        "writable-cgroups=true",
        "seccompProfile: {type: Unconfined}",
        "container.apparmor.security.beta.kubernetes.io/",
        "user.max_user_namespaces",
        "kernel.apparmor_restrict_unprivileged_userns=0",
        "systemd-run --user --scope -p Delegate=yes",
        sys.base_prefix,
    ):
        assert needle in text, needle


def test_a_probe_has_a_reason_a_need_and_a_remedy_for_each_level_that_fails() -> None:
    found = probe()
    failed = {level for level, problem in found.levels.items() if problem}
    assert set(found.levels) == set(LEVELS) and set(found.needs) == set(found.steps) == failed
    assert {remedy.step for remedy in found.remedies} == {step for step in found.steps.values() if step}
    assert found.places[-1] == "linux"


def test_inside_a_container_that_forbids_namespaces_the_probe_says_which_step_and_what_helps() -> None:
    script = (
        "from click.testing import CliRunner\nfrom engine.sandbox import kernel, seccomp\n"
        "from engine.sandbox.commands import sandbox\n"
        "kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)\nseccomp.install(seccomp.jail_filter(memory_files=True))\n"
        "print(CliRunner().invoke(sandbox, ['probe']).stdout)\n"
        "print(CliRunner().invoke(sandbox, ['probe', '--json']).stdout)\n"
    )
    environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done
    text, _, answer = done.stdout.rstrip().rpartition("\n")
    found = json.loads(answer)
    assert found["levels"]["user"] == "[Errno 1] unshare(0x10000000): Operation not permitted"
    assert found["steps"]["user"] == "namespaces" and found["places"][0] == "kubernetes"
    assert "refused at making namespaces as an unprivileged user; needs user namespaces" in text
    here, elsewhere = text.index("what helps here"), text.index("what helps elsewhere")
    assert here < text.index("namespaces (Kubernetes): securityContext") < elsewhere
    assert elsewhere < text.index("namespaces (Docker): docker run")
