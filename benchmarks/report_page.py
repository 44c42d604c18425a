"""How soon the report of 164 tasks x 100 samples stands on the screen, in headless Chromium.

Run: python benchmarks/report_page.py SAMPLES.jsonl[.gz] HUMANEVAL.jsonl[.gz] [--write] [--keep FOLDER]. The samples are
published ones in the field's format; their verdicts are drawn, since the page does not care. Prints a table; --write
also puts it in docs/results/report_page.md.
"""

from __future__ import annotations

import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from engine.evaluate.benchmarks import humaneval
from engine.evaluate.report import gather, write
from engine.evaluate.results import write_lines
from engine.evaluate.rows import from_file

ROOT = Path(__file__).parent.parent
ROUNDS = 5
TIMES = """<!doctype html><iframe id="page" src="report.html" style="width:1280px;height:900px;border:0"></iframe>
<pre id="told"></pre><script>
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
  document.getElementById("told").textContent = JSON.stringify([open, performance.now() - clicked]);
};
</script>"""


def evaluation(folder: Path, samples: str, data: str) -> int:
    """An evaluation folder of published samples; returns their number."""
    draw, counted = random.Random(0), Counter[str]()
    tasks = humaneval.load(data)
    write_lines(
        folder / "tasks.jsonl",
        ({"task_id": t.id, "group": "", "prompt": t.prompt, "reference": t.reference} for t in tasks),
    )
    chance = {task.id: draw.random() for task in tasks}
    lines = []
    for _, row in from_file(samples):
        name = row["task_id"]
        passed = draw.random() < chance[name]
        lines.append(
            {
                "task_id": name,
                "sample": counted[name],
                "verdict": "passed" if passed else draw.choice(["wrong", "runtime_error"]),
                "detail": "" if passed else "AssertionError: assert candidate(3) == 4",
                "stderr": ""
                if passed
                else "Traceback (most recent call last):\n" + "  File 'program.py'\n" * 8,
                "completion": row["completion"],
            }
        )
        counted[name] += 1
    write_lines(folder / "results.jsonl", lines)
    return len(lines)


def measure(folder: Path, browser: str) -> tuple[float, float]:
    """Seconds to the painted page, and from a tap on the grid to the painted program."""
    (folder / "times.html").write_text(TIMES)
    done = subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files",
            f"--user-data-dir={folder / 'profile'}", "--timeout=20000", "--dump-dom", (folder / "times.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = re.search(r'<pre id="told">\[([\d.]+),([\d.]+)\]', done.stdout)
    if found is None:
        sys.exit(f"the browser did not answer: {done.stderr[-2000:]}")
    return float(found.group(1)) / 1000, float(found.group(2)) / 1000


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
        ("page opened and painted", "tap on a task to its program"), zip(*times), strict=True
    ):
        shown = " | ".join(
            f"{value:.2f} s" for value in (statistics.median(values), min(values), max(values))
        )
        lines.append(f"| {name} | {shown} |")
    version = subprocess.run([browser, "--version"], capture_output=True, text=True).stdout.strip()
    table = "\n".join(lines)
    text = f"""# Opening the report

`python benchmarks/report_page.py`, {datetime.now(UTC):%Y-%m-%d}, {ROUNDS} rounds after one to warm up, {version},
Python {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}.
{count:,} published programs of CodeGen-16B on HumanEval, with drawn verdicts. Aim: open in less than 2 s.

The page has {(folder / "report.html").stat().st_size / 2**20:.1f} MiB and was written in {made:.1f} s.

{table}
"""
    print(text)
    if "--write" in sys.argv:
        (ROOT / "docs" / "results" / "report_page.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
