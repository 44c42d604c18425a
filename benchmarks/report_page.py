"""How soon the report of 164 tasks x 100 samples stands on the screen, in headless Chromium.

Run: python benchmarks/report_page.py SAMPLES HUMANEVAL [--write] [--keep FOLDER], both JSONL. The samples
are those published for CodeGen-16B, one line a task; their verdicts are drawn, since the page does not care.
--write puts the table in docs/results/report_page.md too.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from executors.machine import ROOT, facts, prose

from engine.evaluate.benchmarks import humaneval
from engine.evaluate.report import gather, write
from engine.evaluate.results import write_lines
from engine.evaluate.rows import from_file

ROUNDS = 5
TIMES = """<!doctype html><iframe id="page" src="report.html" style="width:1280px;height:900px;border:0"></iframe>
<script>
const began = performance.now();
document.getElementById("page").onload = async function () {
  if (this.done) return;
  this.done = true;
  const page = this.contentDocument;
  const painted = () => new Promise((done) => this.contentWindow.requestAnimationFrame(() => setTimeout(done)));
  await painted();
  const open = performance.now() - began, clicked = performance.now();
  page.querySelector('a[href="#program-7.0"]').click();
  while (!page.getElementById("viewer").dataset.shown) await new Promise((done) => setTimeout(done, 1));
  await painted();
  navigator.sendBeacon("http://127.0.0.1:PORT/", JSON.stringify([open, performance.now() - clicked]));
};
</script>"""


def evaluation(folder: Path, samples: str, data: str) -> int:
    """An evaluation folder of published samples; returns their number."""
    draw = random.Random(0)
    tasks = humaneval.load(data)
    write_lines(
        folder / "tasks.jsonl",
        ({"task_id": t.id, "group": "", "prompt": t.prompt, "reference": t.reference} for t in tasks),
    )
    lines = []
    for task, (_, row) in zip(tasks, from_file(samples), strict=True):
        chance = draw.choice([0.0, draw.random(), 1.0])
        for sample, completion in enumerate(row["samples"]):
            passed = draw.random() < chance
            lines.append(
                {
                    "task_id": task.id,
                    "sample": sample,
                    "verdict": "passed" if passed else draw.choice(["wrong", "runtime_error"]),
                    "detail": "" if passed else "AssertionError: assert candidate(3) == 4",
                    "stderr": ""
                    if passed
                    else "Traceback (most recent call last):\n" + "  File 'program.py'\n" * 8,
                    "completion": completion,
                }
            )
    write_lines(folder / "results.jsonl", lines)
    return len(lines)


class Ear(BaseHTTPRequestHandler):
    """Hears what the page around the report has measured."""

    told: list[list[float]] = []

    def do_POST(self) -> None:
        """Keep the times."""
        self.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def measure(folder: Path, browser: str) -> tuple[float, float]:
    """Seconds to the painted page, and from a tap on the grid to the painted program."""
    server = HTTPServer(("127.0.0.1", 0), Ear)
    server.timeout = 60
    (folder / "times.html").write_text(TIMES.replace("PORT", str(server.server_port)))
    words = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
        f"--user-data-dir={folder / 'profile'}", "--remote-debugging-port=0", (folder / "times.html").as_uri(),
    ]  # fmt: skip
    Ear.told.clear()
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process, server:
        server.handle_request()
        process.terminate()
    if not Ear.told:
        sys.exit("the browser did not answer within a minute")
    return Ear.told[0][0] / 1000, Ear.told[0][1] / 1000


def main() -> None:
    """Print the table, and write it where asked."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        sys.exit("no chromium here: apt-get install chromium")
    keep = sys.argv[sys.argv.index("--keep") + 1] if "--keep" in sys.argv else None
    folder = Path(keep or tempfile.mkdtemp())
    count = evaluation(folder / "codegen", sys.argv[1], sys.argv[2])
    began = time.perf_counter()
    write(gather([folder / "codegen"]), folder / "report.html")
    made = time.perf_counter() - began
    measure(folder, browser)
    times = [measure(folder, browser) for _ in range(ROUNDS)]
    lines = ["| | median | least | most |", "|---|---|---|---|"]
    for name, values in zip(
        ("page opened and painted", "tap on a task to its program"), zip(*times, strict=True), strict=True
    ):
        shown = " | ".join(
            f"{value:.2f} s" for value in (statistics.median(values), min(values), max(values))
        )
        lines.append(f"| {name} | {shown} |")
    version = subprocess.run([browser, "--version"], capture_output=True, text=True).stdout.strip()
    table = "\n".join(lines)
    head = prose(
        f"`python benchmarks/report_page.py SAMPLES HUMANEVAL`, {facts()}; {version}, load average "
        f"{os.getloadavg()[0]:.1f}. {ROUNDS} rounds after one to warm up; {count:,} published programs of CodeGen-16B "
        "on HumanEval, with drawn verdicts. Aim: open in less than 2 s."
    )
    text = f"""# Opening the report

{head}

The page has {(folder / "report.html").stat().st_size / 2**20:.1f} MiB and was written in {made:.1f} s.

{table}
"""
    print(text)
    if "--write" in sys.argv:
        (ROOT / "docs" / "results" / "report_page.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
