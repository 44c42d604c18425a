"""What each place is given: exact text, the same printed as written, no number of a node and no value of a variable."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from engine.config import Run
from engine.errors import PreflightError, WishError
from launch import processes, reports, submission
from launch.backends import BACKENDS, hosts, kubernetes, slurm
from launch.backends.submitted import Submitted, keep
from launch.cli import temper
from launch.cluster import KINDS, place
from launch.lead import Lead, Start
from launch.node import interface_to
from launch.submission import Submission
from launch.submit import composed, demand_devices, shown, written
from launch.verdict import Verdict

ROOT = Path(__file__).parents[3]
PYTHON = "/env/bin/python"


@pytest.fixture(autouse=True)
def at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def wish(output: str = "runs/a b", **parallel: Any) -> Run:
    values = {"strategy": "zero3", "processes": 8, "device": "cuda", **parallel}
    tree = {"output": output, "model": {"path": "m"}, "data": {"train": [{"path": "t.jsonl"}]}}
    return Run.model_validate({**tree, "train": {"global_batch": 64}, "parallel": values})


def cluster(**values: Any) -> str:
    Path("c.yaml").write_text(yaml.safe_dump({"gpus_per_node": 8, "gpu": "h100", **values}))
    return "c.yaml"


def made(run: Run | None = None, **values: Any) -> Submission:
    return composed(run or wish(), cluster(**values), "train")


def at(text: str) -> str:
    return text.replace(os.getcwd(), "/home/me")


def test_the_batch_script_to_the_letter() -> None:
    job = made(
        kind="slurm", nodes=2, partition="gpu", account="me", time="1-12:00:00", cpus_per_node=96,
        lines=["#SBATCH --mail-type=END"], python=PYTHON,
    )  # fmt: skip
    (script,) = slurm.render(job)
    assert at(script.text) == (
        "#!/bin/bash\n"
        "#SBATCH --job-name=temper-a-b-1\n"
        "#SBATCH --nodes=2\n"
        "#SBATCH --ntasks-per-node=1\n"
        "#SBATCH --partition=gpu\n"
        "#SBATCH --account=me\n"
        "#SBATCH --time=1-12:00:00\n"
        "#SBATCH --gres=gpu:8\n"
        "#SBATCH --cpus-per-task=96\n"
        "#SBATCH --chdir=/home/me\n"
        "#SBATCH --output='/home/me/runs/a b/submissions/1/slurm-%j.log'\n"
        "#SBATCH --open-mode=append\n"
        "#SBATCH --export=PATH,HOME,USER,LANG,LD_LIBRARY_PATH\n"
        "#SBATCH --signal=B:USR1@300\n"
        "#SBATCH --requeue\n"
        "#SBATCH --mail-type=END\n"
        "exec env 'PYTHONPATH=/home/me/runs/a b/submissions/1/code' PYTHONSAFEPATH=1 /env/bin/python -m launch lead"
        " --job '/home/me/runs/a b/submissions/1/job.json'\n"
    )


def test_ssh_is_given_one_line_a_host() -> None:
    job = made(kind="hosts", hosts=["n1", "n2"], user="me", port=2222, options=["-i", "key"], python=PYTHON)
    first, second = hosts.starts(job, "77-1")
    assert first.argv[:-1] == (
        "ssh",
        "-T",
        "-o",
        "BatchMode=yes",
        "-i",
        "key",
        # After the user's own: of each option ssh takes the first it is given.
        *hosts.LIFE_SIGNS,
        "-l",
        "me",
        "-p",
        "2222",
        "--",
        "n1",
    )
    words = shlex.split(second.argv[-1])
    assert words[:3] == ["cd", os.getcwd(), "&&"]
    assert words[words.index("launch") :] == [
        "launch", "agent", "--job", f"{os.getcwd()}/runs/a b/submissions/1/job.json",
        "--head", "n1", "--attempt", "77-1", "--node", "1", "--held",
    ]  # fmt: skip


def test_the_manifest_names_head_index_and_claim() -> None:
    job = made(
        kind="kubernetes", nodes=2, image="me/temper@sha256:0", claim="disk", queue="team", cpus_per_node=32
    )
    (manifest,) = kubernetes.render(job)
    config, service, work = yaml.safe_load_all(manifest.text)
    assert [one["kind"] for one in (config, service, work)] == ["ConfigMap", "Service", "Job"]
    assert submission.TypeAdapter(Submission).validate_json(config["data"]["job.json"]) == replace(
        job, run=""
    )
    spec = work["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert service["spec"]["clusterIP"] == "None" and service["metadata"]["name"] == job.name
    pod = spec["template"]["spec"]
    assert pod["subdomain"] == job.name and pod["restartPolicy"] == "Never"
    container = pod["containers"][0]
    assert container["command"] == [
        "python", "-m", "launch", "agent", "--job", "/etc/temper/job.json",
        "--head", f"{job.name}-0.{job.name}", "--attempt", job.name,
    ]  # fmt: skip
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 8}, "requests": {"cpu": 32}}
    assert work["metadata"]["labels"][kubernetes.QUEUE_LABEL] == "team" and spec["suspend"] is True


@pytest.mark.parametrize("version", ["1.29", "1.33"])
def test_the_manifest_is_what_the_api_takes(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import kubernetes_validate as validate

    monkeypatch.setenv("SOME_TOKEN", "s3cret")
    job = made(kind="kubernetes", nodes=2, image="i", claim="disk", queue="q", environment=["SOME_TOKEN"])
    for one in yaml.safe_load_all(kubernetes.render(job)[0].text):
        validate.validate(one, version, strict=True)
    one["spec"]["template"]["spec"]["containers"][0]["comand"] = []
    with pytest.raises(validate.ValidationError):
        validate.validate(one, version, strict=True)


SMALLEST: dict[str, dict[str, Any]] = {
    "local": {},
    "hosts": {"hosts": ["n1", "n2"]},
    "slurm": {"nodes": 2},
    "kubernetes": {"nodes": 2, "image": "i", "claim": "c"},
}


def test_every_kind_is_tried_here() -> None:
    assert SMALLEST.keys() == BACKENDS.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", SMALLEST)
def test_what_is_shown_is_what_is_written(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "s3cret value")
    job = made(kind=kind, environment=["SOME_TOKEN"], **SMALLEST[kind])
    text = shown(job)
    assert not job.here.exists(), "showing writes nothing"
    written(job)
    files = [file for file in job.here.iterdir() if file.is_file() and file.name != submission.ENVIRONMENT]
    assert len(files) >= 2
    for file in files:
        assert f"# {file}\n{file.read_text()}" in text
    assert "# environment: SOME_TOKEN, 12 characters" in text
    everywhere = [file for file in Path().rglob("*") if file.is_file()]
    holders = {file.name for file in everywhere if b"s3cret" in file.read_bytes()}
    assert "s3cret" not in text and holders == (set() if kind == "kubernetes" else {submission.ENVIRONMENT})
    if holders:
        assert (job.here / submission.ENVIRONMENT).stat().st_mode & 0o777 == 0o600
    assert submission.read(job.here / "job.json") == replace(job, run="")


def test_no_script_holds_a_number_of_a_node() -> None:
    for kind in ("slurm", "kubernetes"):
        job = made(kind=kind, **SMALLEST[kind])
        text = BACKENDS[kind].render(job)[0].text
        assert "SLURM_NODEID" not in text and "JOB_COMPLETION_INDEX" not in text and "--node " not in text


def test_the_world_is_nodes_times_ranks_a_node() -> None:
    launch = made(kind="slurm", nodes=4).launch.at(3, "10.0.0.1")
    words = launch.argv
    assert (launch.world_size, launch.first_rank) == (32, 24)
    assert words[words.index("--num_processes") + 1] == "32"
    assert words[words.index("--machine_rank") + 1] == "3"
    with pytest.raises(WishError, match="not divisible by 40 ranks"):
        made(kind="slurm", nodes=5)


def test_the_snapshot_is_not_reached_by_later_edits(tmp_path: Path) -> None:
    job = made(wish("runs/a"), kind="hosts", hosts=["n1"])
    written(job)
    code = job.here / submission.CODE
    assert (code / "engine" / "cli.py").read_bytes() == (ROOT / "engine" / "cli.py").read_bytes()
    assert not list(code.rglob("__pycache__"))
    assert job.prefix[1:3] == (f"PYTHONPATH={tmp_path / code}", "PYTHONSAFEPATH=1")
    # A checkout in the working folder does not shadow it.
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "__init__.py").write_text("")
    say = "import engine, launch; print(engine.__file__, launch.__file__)"
    found = subprocess.run([*job.prefix[:-2], "-c", say], capture_output=True, text=True, check=True).stdout
    assert found.split() == [str(tmp_path / code / name / "__init__.py") for name in submission.PACKAGES]
    written(made(wish("runs/a"), kind="hosts", hosts=["n1"]))
    assert [file.name for file in sorted((job.here.parent).iterdir())] == ["1", "2"]


@pytest.mark.parametrize(
    ("parallel", "values", "told"),
    [
        ({"processes": 16}, {}, "use --processes 8"),
        ({}, {"gpus_per_node": 0}, "have no GPU"),
        ({}, {"environment": ["NOT_SET_HERE"]}, "NOT_SET_HERE, not set here"),
    ],
)
def test_a_place_that_cannot_do_it_refuses(parallel: dict, values: dict, told: str) -> None:
    with pytest.raises(WishError, match=told):
        shown(made(wish(**parallel), kind="slurm", nodes=2, **values))


@pytest.mark.parametrize("kind", ["local", "hosts"])
def test_a_run_folder_that_may_be_at_work_is_not_written(kind: str) -> None:
    job = made(kind=kind, **SMALLEST[kind])
    job.launch.folder.mkdir(parents=True)
    keep(Submitted(1, kind, "1", "another-machine", 1.0, str(job.launch.folder)))
    with pytest.raises(WishError, match="may still be running .it was started on another-machine"):
        written(job)
    assert not job.here.exists()


def test_a_run_folder_whose_lead_has_ended_is_written_again() -> None:
    job = made(kind="local")
    written(job)
    # Process 1 is there, and is no lead of ours.
    keep(Submitted(1, "local", "1", socket.gethostname(), 1.0, str(job.launch.folder)))
    written(made(kind="local"))


def test_restarts_are_for_a_run_of_this_machine_alone() -> None:
    restarting = wish(restarts=2)
    with pytest.raises(WishError, match="parallel.restarts is 2.*set it to 0"):
        composed(restarting, cluster(kind="slurm", nodes=2), "train")
    with pytest.raises(WishError, match="evaluate.benchmark is empty"):
        composed(restarting, cluster(kind="slurm", nodes=2), "evaluate")


def test_the_log_of_a_rank_is_what_it_wrote_last() -> None:
    logs = Path("runs/x/logs")
    files = (
        "attempt-1/rank-0.log",
        "rank-0.log",
        "attempt-2/rank-0.log",
        "node-0/none_a/attempt_0/0/stdout.log",
    )
    for seconds, name in enumerate(files):
        file = logs / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{name}\n")
        os.utime(file, (seconds, seconds))
    for name in (files[3], files[2], files[1]):
        assert CliRunner().invoke(temper, ["logs", "runs/x"]).output == f"{name}\n"
        (logs / name).unlink()
    done = CliRunner().invoke(temper, ["logs", "runs/x"])
    assert isinstance(done.exception, WishError), "an older attempt's is not it"


def test_the_verbs_refuse_a_folder_without_a_submission() -> None:
    for verb in ("status", "cancel"):
        done = CliRunner().invoke(temper, [verb, "runs/none"])
        assert isinstance(done.exception, WishError) and "holds no submission" in str(done.exception)


@pytest.mark.parametrize(("refused", "asked"), [("manifest", 3), ("-", 1), ("nothing", 2)])
def test_what_was_made_does_not_outlive_a_refusal(
    refused: str, asked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "bin" / "kubectl"
    tool.parent.mkdir()
    tool.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\n'
        'case "$*" in "create -f "*manifest*) echo configmap/a created;; esac\n'
        f'case "$*" in "create -f "*{refused}*) exit 1;; esac\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SOME_TOKEN", "s3cret")
    job = made(wish("runs/a"), kind="kubernetes", environment=["SOME_TOKEN"], **SMALLEST["kubernetes"])
    try:
        kubernetes.submit(job)
        assert refused == "nothing"
    except PreflightError:
        assert refused != "nothing"
    lines = (tmp_path / "asked").read_text().splitlines()
    assert len(lines) == asked and "s3cret" not in "".join(lines)
    # The Service and the Job were there before or never came to be: they are not this submission's to delete.
    deleted = f"--namespace {job.place.namespace} delete configmap/a secret/{job.name}"  # type: ignore[union-attr]
    assert (deleted in lines) == (refused == "manifest")


def test_a_run_that_somebody_waits_for_is_known_by_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    job = made(kind="hosts", hosts=["n1", "n2"], python=PYTHON)
    mine = processes.began(os.getpid())
    waited = Submitted(1, "hosts", str(os.getpid()), socket.gethostname(), 1.0, "runs/a b", mine)
    assert hosts.status(waited).word == "running"
    assert hosts.status(replace(waited, began=mine - 1)).word == "ended"  # type: ignore[operator]
    # One that ran elsewhere has ended once its verdict is on the disk.
    keep(replace(waited, host="elsewhere", seconds=0.0))
    with pytest.raises(WishError, match="may still be running"):
        written(job)
    reports.conclude(reports.Attempt(job.launch.folder, "7-0", 0.0), Verdict(0, "Finished."), job.launch.logs)
    written(job)


def test_a_lead_on_a_full_disk_still_knows_which_node_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    job = made(kind="hosts", hosts=["n1", "n2"], python=PYTHON)
    # No folder can be made where a file is, as on a disk without room.
    (job.launch.folder / reports.FOLDER).parent.mkdir(parents=True)
    (job.launch.folder / reports.FOLDER).write_text("")
    work = Lead(job, "7-0")
    verdict = work.run([Start(("false",), (0,), held=True), Start(("sh", "-c", "exit 255"), (1,), held=True)])
    assert verdict.exit_code == 1 and re.match(
        r"Node [01] \(n[12]\) was lost before the first step", verdict.sentence
    )


def test_a_broken_ssh_is_told_from_an_agent_that_vanished() -> None:
    for command, how in ((None, "its ssh connection ended"), (["way"], "its agent ended with code 255")):
        job = made(kind="hosts", hosts=["n1"], python=PYTHON, command=command)
        verdict = Lead(job, f"7-{command}").run([Start(("sh", "-c", "exit 255"), (0,), held=True)])
        assert how in verdict.sentence and verdict.exit_code == 1


def test_the_interface_to_an_address_of_either_kind() -> None:
    assert interface_to("127.0.0.1") == "lo"
    if Path("/proc/net/if_inet6").is_file() and " lo\n" in Path("/proc/net/if_inet6").read_text():
        assert interface_to("::1") == "lo"


def test_devices_of_the_examples() -> None:
    for file in sorted((ROOT / "configs" / "cluster").glob("*.yaml")):
        found = place(str(file))
        demand_devices(wish(processes=found.gpus_per_node), found, str(file))
