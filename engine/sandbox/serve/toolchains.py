"""Which languages this machine runs: believed when a small program of each has said its word here, not before."""

from __future__ import annotations

import threading

from ...errors import WishError
from ..pool import Pool
from ..verdict import Limits, Program

_WORD = "ready"
_PATIENT = Limits(cpu_seconds=60.0, wall_seconds=60.0, memory_mb=2048)
_FIRST = {
    "javascript": 'console.log("ready")',
    "typescript": 'const word: string = "ready"; console.log(word)',
    "cpp": '#include <iostream>\nint main() { std::cout << "ready" << std::endl; }',
    "java": 'public class Main { public static void main(String[] a) { System.out.println("ready"); } }',
    "rust": 'fn main() { println!("ready"); }',
    "go": 'package main\nimport "fmt"\nfunc main() { fmt.Println("ready") }',
    "bash": "echo ready",
    "perl": 'print "ready\\n";',
    "lua": 'io.write("ready\\n")',
}
KNOWN = ("python", *_FIRST)


class Toolchains:
    """What has been tried. Only success is remembered: a compiler may be installed while the server runs."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.versions = {"python": ""}
        self._locks = {language: threading.Lock() for language in _FIRST}

    def problem(self, language: str) -> str:
        """Why programs of `language` cannot be run, or nothing; the first to ask waits for the trial."""
        if language in self.versions:
            return ""
        with self._locks[language]:
            return "" if language in self.versions else self._try(language)

    def _try(self, language: str) -> str:
        try:
            verdict = self.pool.run(Program(_FIRST[language], language=language), _PATIENT)
        except WishError as error:
            return str(error)
        if verdict.passed and verdict.stdout.strip() == _WORD:
            self.versions[language] = verdict.toolchain
            return ""
        return f"{language} does not work on this server ({verdict.name}: {verdict.detail})"
