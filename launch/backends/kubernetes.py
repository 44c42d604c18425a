"""Kubernetes: an Indexed Job with one pod a machine; each pod's agent reads its number from the Job."""

from __future__ import annotations

import json
from typing import Any

import yaml

from launch.backends.submitted import State, Submitted, ask, demand, refused
from launch.cluster import Kubernetes
from launch.command import GRACE_SECONDS
from launch.submission import IN_PODS, File, Submission, allowed, common_files

MANIFEST = "manifest.yaml"
LABEL = "temper-submission"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
INDEX_LABEL = "batch.kubernetes.io/job-completion-index"


def render(submission: Submission) -> tuple[File, ...]:
    """A ConfigMap with the job and the effective Run, a headless Service that names the head, and the Job."""
    objects = [_config_map(submission), _service(submission), _job(submission)]
    return (File(MANIFEST, yaml.safe_dump_all(objects, sort_keys=False, width=10_000)),)


def _place(submission: Submission) -> Kubernetes:
    assert isinstance(submission.place, Kubernetes)
    return submission.place


def _head(kind: str, api: str, submission: Submission) -> dict[str, Any]:
    metadata = {
        "name": submission.name,
        "namespace": _place(submission).namespace,
        "labels": {LABEL: submission.name},
    }
    return {"apiVersion": api, "kind": kind, "metadata": metadata}


def _config_map(submission: Submission) -> dict[str, Any]:
    data = {file.name: file.text for file in common_files(submission)}
    return {**_head("ConfigMap", "v1", submission), "immutable": True, "data": data}


def _service(submission: Submission) -> dict[str, Any]:
    # A pod's name must be known before the pod is ready: it is ready only once the ranks have met.
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {LABEL: submission.name}}
    return {**_head("Service", "v1", submission), "spec": spec}


def _job(submission: Submission) -> dict[str, Any]:
    place = _place(submission)
    head = _head("Job", "batch/v1", submission)
    if place.queue:
        head["metadata"]["labels"][QUEUE_LABEL] = place.queue
    spec: dict[str, Any] = {
        "completionMode": "Indexed",
        "completions": place.nodes,
        "parallelism": place.nodes,
        "backoffLimit": 0,
        **({"suspend": True} if place.queue else {}),
        "template": {
            "metadata": {"labels": {LABEL: submission.name}},
            "spec": {
                "restartPolicy": "Never",
                "subdomain": submission.name,
                "terminationGracePeriodSeconds": GRACE_SECONDS,
                "containers": [_container(submission, place)],
                "volumes": [
                    {"name": "job", "configMap": {"name": submission.name}},
                    {"name": "workspace", "persistentVolumeClaim": {"claimName": place.claim}},
                    {
                        "name": "shared-memory",
                        "emptyDir": {
                            "medium": "Memory",
                            "sizeLimit": f"{round(place.shared_memory_gib * 1024)}Mi",
                        },
                    },
                ],
            },
        },
    }
    return {**head, "spec": spec}


def _container(submission: Submission, place: Kubernetes) -> dict[str, Any]:
    resources: dict[str, dict[str, Any]] = {}
    if place.gpus_per_node:
        resources["limits"] = {"nvidia.com/gpu": place.gpus_per_node}
    if place.cpus_per_node:
        resources["requests"] = {"cpu": place.cpus_per_node}
    environment = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": submission.name, "key": name}}}
        for name in place.environment
    ]
    words = ("--head", f"{submission.name}-0.{submission.name}", "--attempt", submission.name)
    return {
        "name": "temper",
        "image": place.image,
        "command": list(submission.agent(*words)),
        "workingDir": place.mount,
        **({"env": environment} if environment else {}),
        **({"resources": resources} if resources else {}),
        "volumeMounts": [
            {"name": "job", "mountPath": str(IN_PODS)},
            {"name": "workspace", "mountPath": place.mount},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
        ],
    }


def command(submission: Submission) -> tuple[str, ...]:
    """The line that creates the objects."""
    return ("kubectl", "create", "-f", str(submission.here / MANIFEST))


def submit(submission: Submission) -> str:
    """Create the Secret, through standard input, and the objects; returns the Job's name."""
    values = allowed(submission)
    if values:
        secret = {**_head("Secret", "v1", submission), "immutable": True, "stringData": values}
        demand(("kubectl", "create", "-f", "-"), text=json.dumps(secret))
    done = ask(command(submission))
    if done.returncode:
        # Only what is ours: an object of this name that was there before is somebody's run.
        made = [line.split()[0] for line in done.stdout.splitlines() if line.endswith(" created")]
        made += [f"secret/{submission.name}"] if values else []
        if made:
            ask(("kubectl", "--namespace", _place(submission).namespace, "delete", *made))
        refused(command(submission), done)
    return submission.name


def status(submitted: Submitted) -> State:
    """What the Job's status says."""
    done = ask((*_kubectl(submitted), "get", "job", submitted.job, "-o", "json"))
    if done.returncode:
        gone = "NotFound" in done.stderr
        return State("ended" if gone else "unknown", " ".join(done.stderr.split()))
    found = json.loads(done.stdout).get("status", {})
    for condition in found.get("conditions", []):
        if condition["type"] in ("Complete", "Failed") and condition["status"] == "True":
            return State("ended", f"job {submitted.job} {condition['type'].lower()}")
    active, ready = found.get("active", 0), found.get("ready", 0)
    return State("running" if ready else "queued", f"job {submitted.job}: {ready} of {active} pods ready")


def cancel(submitted: Submitted, *, now: bool) -> str:
    """Delete all objects; pods are asked first, and have the time they need to save."""
    if now:
        demand((*_kubectl(submitted), "delete", "pod", "-l", f"{LABEL}={submitted.job}", "--grace-period=1"))
    kinds = "job,service,configmap,secret"
    demand((*_kubectl(submitted), "delete", kinds, "-l", f"{LABEL}={submitted.job}", "--wait=false"))
    return "its pods are killed" if now else "it stops at the next step border and saves"


def log_command(submitted: Submitted, node: int, *, follow: bool) -> tuple[str, ...] | None:
    """`kubectl logs` of one pod."""
    chosen = f"{LABEL}={submitted.job},{INDEX_LABEL}={node}"
    words = (*_kubectl(submitted), "logs", "--tail=-1", "-l", chosen)
    return (*words, "-f") if follow else words


def _kubectl(submitted: Submitted) -> tuple[str, ...]:
    return ("kubectl", "--namespace", _place(submitted.submission).namespace)
