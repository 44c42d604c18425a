"""The report in a real browser: at phone and desktop width, dark and light, with nothing asked of a network."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from engine.evaluate.report import gather, write

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")

HOSTILE = (
    "</script><img src=http://127.0.0.1:9/x onerror=\"parent.document.title='owned'\">"
    "<script>parent.hit=1</script>"
)

# The page under test is unchanged, in a frame of the wanted width; this page around it clicks and measures.
AROUND = """<!doctype html><iframe id="page" src="report.html" style="width:%dpx;height:900px;border:0"></iframe>
<pre id="told"></pre><script>
const later = (ms) => new Promise((done) => setTimeout(done, ms));
const until = async (what) => { for (let i = 0; i < 100 && !what(); i++) await later(50); };
document.getElementById("page").onload = async function () {
  if (this.done) return;
  this.done = true;
  const page = this.contentDocument, wide = () => page.documentElement.scrollWidth - this.clientWidth;
  const told = { before: wide(), hidden: page.getElementById("panel").hidden };
  told.curves = page.querySelectorAll("#efficiency polyline").length;
  page.querySelector('a[href="#program-1.1"]').click();
  await until(() => page.getElementById("viewer").dataset.shown);
  told.shown = page.getElementById("viewer").dataset.shown;
  told.samples = page.querySelectorAll("#samples a").length;
  page.querySelector("#program details.fold summary").click();
  await until(() => page.querySelector("#program .difference"));
  told.difference = [...page.querySelectorAll("#program .add, #program .del")].map((line) => line.className);
  told.text = page.getElementById("program").textContent;
  told.keywords = page.querySelectorAll("#program .k").length;
  page.getElementById("next").click();
  await until(() => page.getElementById("viewer").dataset.shown === "1.1.1");
  told.next = page.getElementById("viewer").dataset.shown;
  told.after = wide();
  page.querySelector('a[href="#program-5.0"]').click();
  await until(() => page.getElementById("viewer").dataset.shown.startsWith("5.0"));
  const marks = page.querySelectorAll("#program > pre .c, #program > pre .k");
  told.language = [...marks].map((mark) => `${mark.className} ${mark.textContent}`);
  told.strangers = page.querySelectorAll("img, iframe, object").length;
  told.ground = getComputedStyle(page.body).backgroundColor;
  told.hit = [window.hit, document.title];
  document.getElementById("told").textContent = JSON.stringify(told);
};
</script>"""


def evaluation(folder: Path, completion: str) -> None:
    """Six tasks, two samples each; half of the tasks are solved."""
    folder.mkdir(parents=True)
    tasks = [
        {
            "task_id": f"T/{n}", "group": "", "prompt": f"def f{n}(x):\n", "reference": "    return x\n",
            "language": "python" if n < 5 else "javascript",
        }
        for n in range(6)
    ]  # fmt: skip
    lines = [
        {
            "task_id": f"T/{n}", "sample": s, "verdict": "passed" if n % 2 == 0 else "wrong", "detail": HOSTILE,
            "stderr": HOSTILE, "completion": completion if n < 5 else "// note\nlet x = '#';\n",
        }
        for n in range(6)
        for s in range(2)
    ]  # fmt: skip
    ratios = [
        {"task_id": f"T/{n}", "cpu_ratio": 2.0**n, "memory_ratio": 1.0 if n else None} for n in range(5)
    ]
    for name, rows in (("tasks", tasks), ("results", lines), ("efficiency", ratios)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def browse(page: Path, *words: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    return subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            "--no-first-run", f"--user-data-dir={page.parent / 'profile'}", "--allow-file-access-from-files",
            "--enable-logging=stderr", f"--log-net-log={page.parent / 'net.json'}", "--virtual-time-budget=8000",
            *words, page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, False), (1280, True)], ids=str)
def test_grid_and_viewer_work(tmp_path: Path, width: int, dark: bool) -> None:
    for name, text in (
        ("first", f"    return '''{HOSTILE}'''\n"),
        ("second", f"    return 1  # {HOSTILE}\n"),
    ):
        evaluation(tmp_path / name, text)
    write(gather([tmp_path / "first", tmp_path / "second"]), tmp_path / "report.html")
    around = tmp_path / "around.html"
    around.write_text(AROUND % width)
    done = browse(
        around, f"--window-size={max(width, 500)},900", f"--blink-settings=preferredColorScheme={int(not dark)}",
        "--dump-dom",
    )  # fmt: skip
    found = re.search(r'<pre id="told">(\{.*\})</pre>', done.stdout)
    assert found, done.stderr[-3000:]
    told = json.loads(found.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert told["before"] <= 0 and told["after"] <= 0, "the page is wider than the screen"
    assert not told["hidden"]
    assert told["curves"] == 4, "run time and memory of two models"
    assert told["shown"] == "1.1.0" and told["samples"] == 2 and told["next"] == "1.1.1"
    assert told["difference"] == ["del", "add"] and told["keywords"] >= 1
    assert told["text"].count(HOSTILE) >= 3
    assert told["strangers"] == 0 and told["hit"] == [None, ""]
    assert (told["ground"] == "rgb(19, 20, 24)") == dark
    assert told["language"] == ["c // note", "k let"]
    assert "CONSOLE" not in done.stderr, done.stderr[-3000:]
    assert "127.0.0.1:9" not in re.sub(
        r'"(command_line|args)"[^\n]*', "", (tmp_path / "net.json").read_text()
    )
