"""The launch line: exact, complete, the same printed as run, and deaf to a machine-wide accelerate configuration."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.config import Run
from launch.command import PORTS, LaunchPlan, free_port, is_free, plan

ROOT = Path(__file__).parent.parent.parent.parent


def run(**parallel: Any) -> Run:
    return Run.model_validate(
        {"output": "runs/x y", "model": {"path": "m"}, "parallel": {"device": "cpu", **parallel}}
    )


def flag(launch: LaunchPlan, name: str) -> str:
    return launch.argv[launch.argv.index(name) + 1]


def test_the_line_reads_back_to_the_very_same_words() -> None:
    launch = plan(
        run(strategy="zero3", processes=2), "train", "my runs/a.yaml", ["data.train=[{path: 'a b'}]"]
    )
    words = shlex.split(launch.line)
    count = len(launch.environment)
    assert tuple(words[count:]) == launch.argv
    assert tuple(tuple(word.split("=", 1)) for word in words[:count]) == launch.environment


@pytest.mark.parametrize(("strategy", "stage"), [("zero1", "1"), ("zero2", "2"), ("zero3", "3")])
def test_zero_names_its_stage_and_offload(strategy: str, stage: str) -> None:
    launch = plan(run(strategy=strategy, processes=2, offload_optimizer=True), "train", "r.yaml")
    assert "--use_deepspeed" in launch.argv and "--multi_gpu" not in launch.argv
    assert flag(launch, "--zero_stage") == stage
    assert flag(launch, "--offload_optimizer_device") == "cpu"
    assert flag(launch, "--offload_param_device") == "none"
    assert ("DS_ACCELERATOR", "cpu") in launch.environment


def test_replicas_need_multi_gpu_and_one_rank_must_not_have_it() -> None:
    assert "--multi_gpu" in plan(run(strategy="ddp", processes=2), "train", "r.yaml").argv
    assert "--multi_gpu" not in plan(run(), "train", "r.yaml").argv
    assert "--multi_gpu" in plan(run(strategy="fsdp2", processes=2, device="cuda"), "train", "r.yaml").argv


def test_a_server_is_asked_by_one_process_without_the_key_on_its_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    asking = run(strategy="zero3").model_dump(mode="json")
    asking["evaluate"] |= {"benchmark": "basics", "server": {"url": "http://127.0.0.1:8000/v1"}}
    launch = plan(Run.model_validate(asking), "evaluate", "r.yaml")
    assert (launch.strategy, launch.processes) == ("none", 1)
    assert "--multi_gpu" not in launch.argv and "--use_deepspeed" not in launch.argv
    assert "sk-secret" not in launch.line


def test_evaluation_ranks_share_nothing_but_the_list_of_tasks() -> None:
    launch = plan(run(strategy="zero3", processes=2), "evaluate", "r.yaml", words=("--base",))
    assert "--multi_gpu" in launch.argv and "--use_deepspeed" not in launch.argv
    assert launch.target == ("-m", "engine", "evaluate", "r.yaml", "--base")


def test_signals_reach_ranks_with_time_to_save() -> None:
    environment = dict(plan(run(strategy="zero2", processes=4), "train", "r.yaml").environment)
    assert environment["PET_SIGNALS_TO_HANDLE"] == "SIGTERM,SIGINT,SIGUSR1"
    assert int(environment["PET_SHUTDOWN_TIMEOUT"]) >= 60
    assert environment["PET_REDIRECTS"] == "1:3,2:3,3:3"


def test_threads_are_asked_for_or_shared_among_ranks() -> None:
    cores = len(os.sched_getaffinity(0))
    asked = plan(run(strategy="ddp", processes=2, threads=7), "train", "r.yaml")
    assert flag(asked, "--num_cpu_threads_per_process") == dict(asked.environment)["OMP_NUM_THREADS"] == "7"
    shared = plan(run(strategy="ddp", processes=2), "train", "r.yaml")
    assert dict(shared.environment)["OMP_NUM_THREADS"] == str(max(1, cores // 2))


def test_a_run_folder_keeps_its_port_while_it_is_free() -> None:
    first = free_port("runs/some")
    assert first in PORTS
    assert free_port("runs/some") == first
    assert free_port(os.path.abspath("runs/some")) == first
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first))
        taken.listen()
        assert free_port("runs/some") != first


def test_a_port_of_an_address_of_the_new_kind_is_found_free_or_taken() -> None:
    with socket.socket(socket.AF_INET6) as taken:
        try:
            taken.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no ::1")
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free("::1", port)
    assert is_free("::1", port)


# Each rank answers in a file of its own: two ranks that print on one pipe may meet in the middle of a line.
TRY = """
import json, os, pathlib
keys = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "OMP_NUM_THREADS", "ACCELERATE_MIXED_PRECISION",
        "ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_DEBUG_MODE", "ACCELERATE_DEEPSPEED_ZERO_STAGE")
answer = pathlib.Path(__file__).with_name(f"rank{os.environ.get('RANK', 0)}.json")
answer.write_text(json.dumps({key: os.environ.get(key) for key in keys}))
"""


@pytest.mark.dist
@pytest.mark.parametrize("strategy", ["none", "ddp", "zero3"])
def test_accelerate_makes_the_ranks_whatever_its_own_settings_say(tmp_path: Path, strategy: str) -> None:
    """A machine-wide default_config.yaml (here: 7 processes, debug, fp16, inductor) must not act at a distance."""
    settings = tmp_path / "accelerate"
    settings.mkdir()
    (settings / "default_config.yaml").write_text(
        "compute_environment: LOCAL_MACHINE\ndistributed_type: MULTI_GPU\ndebug: true\nmixed_precision: fp16\n"
        "num_processes: 7\ndynamo_config:\n  dynamo_backend: INDUCTOR\n"
    )
    script = tmp_path / "say.py"
    script.write_text(TRY)
    size = 1 if strategy == "none" else 2
    wish = run(strategy=strategy, processes=size).model_copy(update={"output": str(tmp_path / "run")})
    launch = plan(wish, "train", "r.yaml")
    environment = {**os.environ, "HF_HOME": str(tmp_path), **dict(launch.environment)}
    environment.pop("PET_REDIRECTS", None)
    accelerate = Path(sys.executable).with_name("accelerate")
    done = subprocess.run(
        [str(accelerate), *replace(launch, target=(str(script),)).argv[1:]],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said = [json.loads(answer.read_text()) for answer in tmp_path.glob("rank*.json")]
    assert len(said) == size
    if size > 1:
        assert {rank["RANK"] for rank in said} == {"0", "1"}
        assert {rank["WORLD_SIZE"] for rank in said} == {"2"}
        assert {rank["MASTER_PORT"] for rank in said} == {flag(launch, "--main_process_port")}
    assert {rank["ACCELERATE_MIXED_PRECISION"] for rank in said} == {"bf16"}
    assert {rank["ACCELERATE_DEBUG_MODE"] for rank in said} == {None}
    assert {rank["ACCELERATE_DYNAMO_BACKEND"] for rank in said} <= {"NO", None}
    assert {rank["ACCELERATE_DEEPSPEED_ZERO_STAGE"] for rank in said} == {
        "3" if strategy == "zero3" else None
    }
