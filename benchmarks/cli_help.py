"""How long a person waits for `temper --help`, a dry run and `config show`, beside what they stand on.

Run: python benchmarks/cli_help.py [--write]. Prints a table; --write also puts it in docs/results/cli_help.md.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parent.parent
RECIPE = "configs/sft/qwen2.5-coder-7b.yaml"
ROUNDS = 15
COMMANDS = {
    "temper --help": ["-m", "launch", "--help"],
    f"temper train {RECIPE} --dry-run": ["-m", "launch", "train", RECIPE, "--dry-run"],
    f"temper config show {RECIPE}": ["-m", "launch", "config", "show", RECIPE],
    "python -c pass": ["-c", "pass"],
    "python -c 'import torch'": ["-c", "import torch"],
    "accelerate launch --help": ["-m", "accelerate.commands.launch", "--help"],
}


def seconds(words: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def table() -> str:
    lines = ["| command | median | least | most |", "|---|---|---|---|"]
    for name, words in COMMANDS.items():
        seconds(words)
        times = [seconds(words) for _ in range(ROUNDS)]
        values = (statistics.median(times), min(times), max(times))
        lines.append(f"| `{name}` | " + " | ".join(f"{value:.3f} s" for value in values) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, and write it where asked."""
    text = f"""# Waiting for the command line

`python benchmarks/cli_help.py`, {datetime.now(UTC):%Y-%m-%d}, {ROUNDS} rounds after one to warm up,
Python {platform.python_version()}, {platform.machine()}. Aim: `temper --help` below 0.25 s.

{table()}
"""
    print(text)
    if "--write" in sys.argv:
        target = ROOT / "docs" / "results" / "cli_help.md"
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
