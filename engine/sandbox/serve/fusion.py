"""The request and answer of SandboxFusion's /run_code, which verl and others send and read.

Its client's own defaults are no wish, so a limit above the server's is lowered here, where our own door would refuse.
"""

from __future__ import annotations

import base64
import socket
from dataclasses import replace
from typing import Any

from ..verdict import Limits, Program, Verdict
from .asked import Asked, Case
from .fields import Fields

LANGUAGES = {
    "python": "python",
    "nodejs": "javascript",
    "typescript": "typescript",
    "cpp": "cpp",
    "java": "java",
    "rust": "rust",
    "go": "go",
    "bash": "bash",
    "perl": "perl",
    "lua": "lua",
}
"""Its names for languages, and ours. Its test runners (pytest, junit, jest, go_test) and the rest are not run here."""

_COMPILED = ("cpp", "java", "rust", "go")
_DEFAULT_SECONDS = 10.0
_DEFAULT_MB = Limits().memory_mb
_HOST = socket.gethostname()
_GOOD_BUILD = {"status": "Finished", "execution_time": 0.0, "return_code": 0, "stdout": "", "stderr": ""}


def read(fields: Fields, ceiling: Limits) -> Asked:
    """One request. A language that is not run here has its answer already, in the shape a client looks into."""
    seconds = fields.number("run_timeout", _DEFAULT_SECONDS)
    fields.number("compile_timeout", _DEFAULT_SECONDS)
    memory = fields.size("memory_limit_MB", _DEFAULT_MB)
    asked = fields.text("language")
    program = Program(
        fields.text("code"),
        stdin=(fields.text("stdin", None) or "").encode("utf-8", "surrogatepass"),
        files=fields.files("files"),
        collect=fields.texts("fetch_files"),
    )
    language = LANGUAGES.get(asked) or (asked if asked in LANGUAGES.values() else None)
    if language is None:
        text = f"the language {asked!r} is not run here, only {', '.join(LANGUAGES)}"
        return Asked((), lambda _: _answer("SandboxError", text, None, None, {}))
    # One number bounds both clocks: waiting for a CPU is in neither, so a busy machine changes no verdict.
    limits = replace(
        ceiling,
        cpu_seconds=min(seconds, ceiling.cpu_seconds),
        wall_seconds=min(seconds, ceiling.wall_seconds),
        memory_mb=min(memory, ceiling.memory_mb),
    )
    Case.of(program, limits)
    case = Case(replace(program, language=language), limits)
    return Asked((case,), lambda verdicts: answer(case, verdicts[0]))


def answer(case: Case, verdict: Verdict) -> dict[str, Any]:
    """A verdict in its words. Nothing but `passed` is a Success, and nothing but that has a return code of 0."""
    if verdict.name == "infra":
        return _answer("SandboxError", verdict.detail, None, _command("Error", verdict, None), {})
    files = {file.name: base64.b64encode(file.data).decode() for file in verdict.files}
    message = _cut(case.limits.output_kb, verdict.stdout)
    if not verdict.passed:
        message = f"{verdict.name}: {verdict.detail}"
    if verdict.name == "compile_error" and case.program.language != "python":
        return _answer("Failed", message, _command("Finished", verdict, _return_code(verdict)), None, files)
    build = _GOOD_BUILD if case.program.language in _COMPILED else None
    if verdict.passed:
        return _answer("Success", message, build, _command("Finished", verdict, 0), files)
    if verdict.name in ("cpu_limit", "wall_limit"):
        return _answer("Failed", message, build, _command("TimeLimitExceeded", verdict, None), files)
    return _answer("Failed", message, build, _command("Finished", verdict, _return_code(verdict)), files)


def _cut(room_kb: int, printed: str) -> str:
    """Comparing a beginning with the whole of what is expected would blame the program."""
    whole = len(printed.encode("utf-8", "replace")) < room_kb << 10
    return "" if whole else f"stdout is cut after {room_kb} kB, the most that this server keeps"


def _answer(
    status: str, message: str, build: dict | None, run: dict | None, files: dict[str, str]
) -> dict[str, Any]:
    return {
        "status": status,
        "message": message,
        "compile_result": build,
        "run_result": run,
        "executor_pod_name": _HOST,
        "files": files,
    }


def _command(status: str, verdict: Verdict, code: int | None) -> dict[str, Any]:
    return {
        "status": status,
        "execution_time": round(verdict.wall_seconds, 6),
        "return_code": code,
        "stdout": verdict.stdout,
        "stderr": verdict.stderr or (verdict.detail if status == "Error" else ""),
    }


def _return_code(verdict: Verdict) -> int:
    """Never 0: some clients look at nothing else, and a program that left early with 0 has not come to its end."""
    if verdict.signal:
        return -verdict.signal
    return verdict.exit_code or 1
