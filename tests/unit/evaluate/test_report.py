"""The report of real runs: what must be on the page, and that nothing a model wrote can act on it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from huggingface_hub import ModelCard

from engine import protocol
from engine.config import Track
from engine.errors import WishError
from engine.evaluate import Court, Settings, evaluate
from engine.evaluate.benchmarks import humaneval
from engine.evaluate.report.charts import Series, line_chart, running_mean, thin, ticks
from engine.evaluate.report.commands import card as card_command
from engine.evaluate.report.commands import report as report_command
from engine.evaluate.report.highlight import highlight
from engine.evaluate.report.markdown import plain
from engine.evaluate.report.stages import entries, gather
from engine.generate import Generation, Request
from engine.sandbox import Limits
from engine.track import Tracker

HOSTILE = "    raise ValueError('</script><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>')\n"


class Page(HTMLParser):
    """What a browser would see: elements, their attributes, and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.text += data


def judged(small: Path, folder: Path, *, right: int, wrong: str) -> None:
    """An evaluation in which the first `right` tasks are solved."""
    tasks = humaneval.load(str(small))
    answers = {task.id: task.reference if number < right else wrong for number, task in enumerate(tasks)}

    def generator(requests: Sequence[Request]) -> Iterator[Generation]:
        for request in requests:
            text = answers[request.task_id]
            yield Generation(request.task_id, request.sample, request.seed, text, text, 8, "stop")

    court = Court(Limits(cpu_seconds=2, wall_seconds=10))
    evaluate(
        tasks, "humaneval", Settings(model=str(folder), samples=2, k=(1, 2), court=court), generator=generator,
        folder=folder, rank=0, world_size=1, barrier=lambda: None,
        ask=lambda task: (task.prompt, task.stop), chat=False,
    )  # fmt: skip


def trained(folder: Path, strategy: str, adapter: str) -> None:
    """What training leaves in a run folder."""
    tracker = Tracker(folder, Track(), enabled=True)
    for step in range(1, 41):
        tracker.log({"step": step, "loss": 2.0 / step, "seconds": step * 0.5})
        if step % 20 == 0:
            score = step / 50
            tracker.log({"step": step, "validation_loss": 2.1 / step})
            tracker.log(
                {"step": step, "pass@1": score, "low/pass@1": score - 0.1, "high/pass@1": score + 0.1}
            )
    tracker.close()
    facts = {
        "strategy": strategy,
        "world_size": 2,
        "precision": "bf16",
        "adapter": adapter,
        "versions": {"torch": "2"},
    }
    protocol.write_json(folder / protocol.FACTS, facts)
    protocol.write_outcome(folder, protocol.Outcome("finished", 40, 83.0))
    (folder / protocol.RUN).write_text(f"output: {folder}\nseed: 3\nmodel:\n  path: configs/tiny/base\n")


@pytest.fixture(scope="module")
def made(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model judged, then trained in full, and once more with QLoRA."""
    root = tmp_path_factory.mktemp("runs")
    full, qlora = root / "full", root / "qlora"
    for folder, strategy, adapter, right in ((full, "zero2", "full", 4), (qlora, "zero3", "qlora", 3)):
        trained(folder, strategy, adapter)
        judged(small, folder / "evaluations" / "humaneval-test", right=right, wrong=HOSTILE)
    judged(small, full / "evaluations" / "humaneval-test-base", right=1, wrong=HOSTILE)
    return root


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> list[Path]:
    """Copies that a test may change."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return [tmp_path / "full", tmp_path / "qlora"]


def make(runs: list[Path], tmp_path: Path, *more: str) -> str:
    arguments = [*map(str, runs), "--out", str(tmp_path / "report.html"), *more]
    result = CliRunner().invoke(report_command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return (tmp_path / "report.html").read_text()


def test_page_shows_models_curves_bars_failures_programs_and_settings(
    runs: list[Path], tmp_path: Path
) -> None:
    page = Page(make(runs, tmp_path, "--title", "First <run>"))
    assert page.open == []
    for text in ("First <run>", "base", "full", "qlora", "20 %", "80 %", "60 %", "pass@2", "95 % interval"):
        assert text in page.text
    for text in (
        "full, bf16, 2 ranks",
        "zero2",
        "qlora, bf16, 2 ranks",
        "zero3",
        "1 min 23 s",
        "configs/tiny/base",
    ):
        assert text in page.text
    assert page.tags.count("svg") == 3
    assert page.tags.count("polyline") >= 2 * 3 + 2 + 3
    assert page.tags.count("polygon") == 2 + 3
    assert page.tags.count("details") == 5
    # Nothing but the hostile answers' own text: shown whole, as text.
    assert "<script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>" in page.text
    assert "ValueError" in page.text
    assert "runtime_error" in page.text


def test_page_is_self_contained_and_inert(runs: list[Path], tmp_path: Path) -> None:
    html = make(runs, tmp_path)
    page = Page(html)
    assert not {"img", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not {name for name, _ in page.attributes if name in ("src", "srcset") or name.startswith("on")}
    links = [value or "" for name, value in page.attributes if name == "href"]
    assert len(links) == 5 * 3 and all(re.fullmatch(r"#program-\d+\.\d+", link) for link in links)
    assert "url(" not in html and "@import" not in html
    policy = [
        value for name, value in page.attributes if name == "content" and value and "default-src" in value
    ]
    script = re.findall(r"<script>(.*?)</script>", html, re.S)
    assert len(script) == 1
    hashed = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert policy[0].startswith(
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hashed}'; "
    )
    assert "trusted-types 'none'" in policy[0]
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|fetch\(", script[0])
    assert page.tags.count("script") == 1 + 5


def test_page_holds_every_program_packed(runs: list[Path], tmp_path: Path) -> None:
    html = make(runs, tmp_path)
    packed = re.findall(r'<script type="text/plain" id="programs-\d+">([A-Za-z0-9+/=]+)</script>', html)
    tasks = [json.loads(zlib.decompress(base64.b64decode(text))) for text in packed]
    assert [[len(lines) for lines in task["runs"]] for task in tasks] == [[2, 2, 2]] * 5
    assert tasks[4]["runs"][0][1]["completion"] == HOSTILE and tasks[4]["reference"]
    assert tasks[4]["runs"][0][1]["verdict"] == "runtime_error"
    assert 'aria-label="Small/0, base: 2 of 2 passed"' in html
    assert 'aria-label="Small/4, qlora: 0 of 2 passed"' in html


def test_folders_of_score_and_of_evaluations_are_taken(runs: list[Path], tmp_path: Path) -> None:
    scored = tmp_path / "scored"
    scored.mkdir()
    lines = [
        {
            "task_id": f"T/{n}",
            "sample": s,
            "verdict": "passed" if s < n else "wrong",
            "detail": "",
            "stderr": "no",
        }
        for n in range(3)
        for s in range(2)
    ]
    (scored / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    evaluation = runs[0] / "evaluations" / "humaneval-test"
    page = Page(make([scored, evaluation], tmp_path, "--summary", str(tmp_path / "summary.json")))
    assert (
        "no summary.json" in page.text and "holds no programs" in page.text and "no tasks.jsonl" in page.text
    )
    assert "zero2" in page.text  # the evaluation's run is told too
    stages = json.loads((tmp_path / "summary.json").read_text())["stages"]
    assert [stage["pass@1"] for stage in stages] == [0.5, 0.8]
    assert [stage["stage"] for stage in stages] == ["scored", "humaneval-test"]


def test_hostile_names_are_text_too(runs: list[Path], tmp_path: Path) -> None:
    run = tmp_path / "<b onmouseover=alert(1)>"
    runs[0].rename(run)
    rows = (run / "evaluations" / "humaneval-test" / "tasks.jsonl").read_text()
    (run / "evaluations" / "humaneval-test" / "tasks.jsonl").write_text(
        rows.replace("Small/4", '\\"><script>')
    )
    results = run / "evaluations" / "humaneval-test" / "results.jsonl"
    results.write_text(results.read_text().replace("Small/4", '\\"><script>'))
    summary = run / "evaluations" / "humaneval-test" / "summary.json"
    told = json.loads(summary.read_text())
    told["results_sha256"] = hashlib.sha256(results.read_bytes()).hexdigest()
    summary.write_text(json.dumps(told))
    page = Page(make([run], tmp_path))
    assert page.tags.count("script") == 1 + 6
    assert not {name for name, _ in page.attributes if name.startswith("on")}
    assert "<b onmouseover=alert(1)>" in page.text


def test_a_summary_of_other_results_is_not_shown(runs: list[Path], tmp_path: Path) -> None:
    """What a stop between the two files leaves."""
    results = runs[0] / "evaluations" / "humaneval-test" / "results.jsonl"
    results.write_text(results.read_text() + "\n")
    with pytest.raises(WishError, match=r"summary\.json is not of the results\.jsonl beside it"):
        make(runs, tmp_path)


def test_summary_holds_each_stage(runs: list[Path], tmp_path: Path) -> None:
    make(runs, tmp_path, "--summary", str(tmp_path / "summary.json"))
    stages = json.loads((tmp_path / "summary.json").read_text())["stages"]
    assert [stage["stage"] for stage in stages] == ["base", "full", "qlora"]
    assert [stage["strategy"] for stage in stages] == [None, "zero2", "zero3"]
    assert [stage["world_size"] for stage in stages] == [None, 2, 2]
    assert [stage["pass@1"] for stage in stages] == [0.2, 0.8, 0.6]
    for stage in stages:
        estimate = stage["pass_at_k"]["2"]
        assert 0 <= estimate["low"] < estimate["value"] < estimate["high"] <= 1
        assert stage["seconds"]["execution"] > 0
    assert [stage["seconds"]["training"] for stage in stages] == [None, 83.0, 83.0]


def test_programs_that_training_solved_come_first(runs: list[Path], tmp_path: Path) -> None:
    html = make(runs, tmp_path)
    order = [html.index(f"<code>Small/{number}</code>") for number in range(5)]
    assert sorted(range(5), key=lambda number: order[number]) == [1, 2, 3, 0, 4]


def test_one_start_that_two_runs_share_is_shown_once(runs: list[Path]) -> None:
    shared = runs[0] / "evaluations" / "humaneval-test-base"
    copy = runs[1] / "evaluations" / "humaneval-test-base"
    copy.mkdir()
    for file in shared.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert [entry.label for entry in entries(gather(runs))] == ["base", "full", "qlora"]


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for method in ("lora", "qlora"):
        trained(tmp_path / method / "coder-7b", "ddp", method)
    stages = gather([tmp_path / "lora" / "coder-7b", tmp_path / "qlora" / "coder-7b"])
    assert [stage.name for stage in stages] == ["lora/coder-7b", "qlora/coder-7b"]


def test_a_run_still_training_has_its_curves(tmp_path: Path) -> None:
    trained(tmp_path / "young", "ddp", "full")
    page = Page(make([tmp_path / "young"], tmp_path))
    assert "No evaluation has finished yet" in page.text
    assert page.tags.count("svg") == 2


def test_folders_without_a_run_and_damaged_ones_are_named(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(WishError, match=r"empty holds neither metrics\.jsonl nor a finished evaluation"):
        gather([tmp_path / "empty"])
    (runs[0] / "facts.json").write_text("{")
    with pytest.raises(WishError, match="full holds a damaged file"):
        gather(runs[:1])


def test_ticks_are_round_and_enclose() -> None:
    assert ticks(0.0, 1.0, 5) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    for low, high in ((0.013, 0.0131), (-5, 1e6), (3, 3), (0, 0), (2.31, 7.9)):
        values = ticks(low, high, 5)
        assert values[0] <= low and values[-1] >= high
        assert 2 <= len(values) <= 9


def test_charts_of_nothing_one_point_and_very_many() -> None:
    assert line_chart([Series("a", [], 0)], label="x") == ""
    assert "polyline" in line_chart([Series("a", [(5, 1.0)], 0)], label="x")
    many = [(float(step), 1.0) for step in range(100_000)]
    assert len(thin(many)) <= 300
    assert len(line_chart([Series("a", many, 0, smooth=True)], label="x")) < 20_000
    assert running_mean([(1, 4.0), (2, 4.0)]) == [(1, pytest.approx(4.0)), (2, pytest.approx(4.0))]


def test_what_html_cannot_hold_is_shown_as_a_replacement() -> None:
    assert highlight("x\0\x1b[31m\ud800\n\ty") == 'x\ufffd\ufffd[<span class="n">31</span>m\ufffd\n\ty'


def test_highlight_keeps_every_character() -> None:
    source = (
        'def f(x):\n    """<doc> & \'more\' """\n    return x["a<b"] + 0x1F  # </span>\n\'unclosed\n"""open\n'
    )
    page = Page(f"<pre>{highlight(source)}</pre>")
    assert page.text == source
    assert {value for name, value in page.attributes} == {"k", "d", "s", "n", "c"}


def test_a_program_has_the_colours_of_its_language() -> None:
    script = "// sum\nlet sum = 'a' + 1;"
    assert highlight(script, "javascript") == (
        '<span class="c">// sum</span>\n<span class="k">let</span> sum = <span class="s">&#39;a&#39;</span> + '
        '<span class="n">1</span>;'
    )
    assert highlight("<b>", "a language nobody knows") == "&lt;b&gt;"


def test_two_runs_of_different_benchmarks_stand_beside_each_other(runs: list[Path], tmp_path: Path) -> None:
    place = runs[1] / "evaluations" / "humaneval-test"
    summary = json.loads((place / "summary.json").read_text())
    summary |= {"benchmark": "mbpp", "benchmark_sha256": "0" * 64, "limits": {"cpu_seconds": [3.0, 20.0]}}
    (place / "summary.json").write_text(json.dumps(summary))
    page = Page(make(runs, tmp_path, "--markdown", str(tmp_path / "report.md")))
    assert page.open == [] and "3.0 to 20.0" in page.text
    assert "humaneval" in page.text and "mbpp" in page.text
    text = (tmp_path / "report.md").read_text()
    assert "| full | humaneval | 5 |" in text and "| qlora | mbpp | 5 |" in text


def test_markdown_holds_scores_and_hostile_names_as_text(runs: list[Path], tmp_path: Path) -> None:
    run = tmp_path / "<b>|x"
    runs[1].rename(run)
    make([runs[0], run], tmp_path, "--markdown", str(tmp_path / "report.md"))
    text = (tmp_path / "report.md").read_text()
    assert "| full | humaneval | 5 | 80.0% (" in text and "| runtime_error |" in text
    assert "&#60;b&#62;&#124;x" in text and "<b>" not in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("_x_ __init__ runtime_error", "&#95;x&#95; &#95;&#95;init&#95;&#95; runtime_error"),
        ("~~x~~ *y* $z$", "&#126;&#126;x&#126;&#126; &#42;y&#42; &#36;z&#36;"),
        ("@name a@b.c", "&#64;&#8203;name a&#64;&#8203;b.c"),
        ("see HTTPS://x.y and www.x.y: 1", "see HTTPS&#58;&#8203;//x.y and www&#46;&#8203;x.y: 1"),
        ("<b>#12 &amp;\n- d", "&#60;b&#62;&#35;&#8203;12 &#38;amp; - d"),
        ("[a](b) `c` \\ |", "&#91;a&#93;(b) &#96;c&#96; &#92; &#124;"),
    ],
)  # fmt: skip
def test_nothing_of_a_strangers_text_is_live_in_markdown(text: str, shown: str) -> None:
    assert plain(text) == shown
    assert unescape(shown).replace("\u200b", "") == " ".join(text.split())
    markdown_it = pytest.importorskip("markdown_it")
    tokens = markdown_it.MarkdownIt("commonmark").enable(["strikethrough", "table"]).parseInline(shown)
    assert {token.type for token in tokens[0].children or []} <= {"text", "text_special"}


def test_card_says_what_the_run_says(runs: list[Path], tmp_path: Path) -> None:
    run = runs[1]
    wish = {"model": {"path": "some/coder"}, "data": {"train": [{"path": "rows.jsonl"}]}, "seed": 3}
    (run / "run.yaml").write_text(json.dumps(wish))
    words = [str(run), "--out", str(tmp_path / "README.md")]
    with pytest.raises(WishError, match="neither model/ nor adapter/"):
        CliRunner().invoke(card_command, words, catch_exceptions=False)
    (run / "adapter").mkdir()
    result = CliRunner().invoke(card_command, words, catch_exceptions=False)
    assert result.exit_code == 0
    data = ModelCard((tmp_path / "README.md").read_text()).data
    assert (data.base_model, data.library_name, data.license) == ("some/coder", "peft", None)
    assert data.eval_results is not None
    assert [(one.metric_type, one.metric_value, one.dataset_type) for one in data.eval_results] == [
        ("pass@1", 0.6, "humaneval"),
        ("pass@2", 0.6, "humaneval"),
    ]
    text = (tmp_path / "README.md").read_text()
    assert "| strategy | zero3 |" in text and "| training data | rows.jsonl |" in text and "None" not in text
    CliRunner().invoke(card_command, [*words, "--license", "mit"], catch_exceptions=False)
    assert "license: mit" in (tmp_path / "README.md").read_text()
    shutil.rmtree(run / "evaluations")
    with pytest.raises(WishError, match="no finished evaluation of its result"):
        CliRunner().invoke(card_command, words, catch_exceptions=False)
