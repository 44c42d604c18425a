"""From YAML to a Run: what is read, what is refused, and in which words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config import Run, dump, load, schema, show
from engine.errors import WishError

WHOLE = """\
output: runs/x
model: {path: some/model}
data:
  train: [{path: rows.jsonl}]
train:
  learning_rate: 2e-5
"""


@pytest.fixture()
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(WHOLE)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(WishError) as caught:
        load(path, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_reads_values_and_defaults(file: Path) -> None:
    run = load(file).run
    assert run.train.learning_rate == 2e-5, "YAML 1.1 would have read a text"
    assert run.train.global_batch == 8
    assert run.data is not None and run.data.train[0].path == "rows.jsonl"


def test_effective_run_reads_back_equal(file: Path, tmp_path: Path) -> None:
    run = load(file, ["train.steps=3", "evaluate.k=[1, 2]", "data.fim={rate: 0.25}"]).run
    (tmp_path / "again.yaml").write_text(dump(run))
    assert load(tmp_path / "again.yaml").run == run


def test_overrides_win_and_say_so(file: Path) -> None:
    loaded = load(file, ["train.learning_rate=1e-3", "adapter.kind=lora"])
    places = {key: (value, place) for key, value, place in show(loaded)}
    assert places["train.learning_rate"] == ("0.001", "--set")
    assert places["adapter.kind"] == ('"lora"', "--set")
    assert places["model.path"] == ('"some/model"', f"{file}:2")
    assert places["train.global_batch"] == ("8", "default")


def test_base_is_merged_deep_and_lies_beside_the_file(file: Path, tmp_path: Path) -> None:
    (tmp_path / "top.yaml").write_text("base: run.yaml\noutput: runs/y\ntrain: {steps: 7}\n")
    loaded = load(tmp_path / "top.yaml")
    assert loaded.run.output == "runs/y"
    assert (loaded.run.train.steps, loaded.run.train.learning_rate) == (7, 2e-5)
    assert loaded.origins["train.learning_rate"] == f"{file}:6"


def test_a_base_has_no_base(file: Path, tmp_path: Path) -> None:
    (tmp_path / "middle.yaml").write_text("base: run.yaml\n")
    (tmp_path / "top.yaml").write_text("base: middle.yaml\n")
    assert "names a base itself" in refusal(tmp_path / "top.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: [", "is not valid YAML"),
        ("just words", "not a mapping"),
        ("", "holds nothing"),
        ("output: a\noutput: b\n", "sets output a second time"),
    ],
)
def test_malformed_files(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    assert words in refusal(path)


def test_missing_file_names_the_nearest(file: Path) -> None:
    assert f"did you mean {file}?" in refusal(file.with_name("rum.yaml"))
    assert "is a folder" in refusal(file.parent)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.learnign_rate=1", "unknown key train.learnign_rate: did you mean learning_rate?"),
        ("trian.steps=1", "unknown key trian: did you mean train?"),
        ("train.steps=many", "train.steps is 'many': input should be a valid integer"),
        ("train.steps=-1", "train.steps is -1: input should be greater than 0"),
        (
            "adapter.kind=lorra",
            "adapter.kind is 'lorra': input should be 'full', 'lora', 'qlora', 'adalora', 'ia3', 'vera', 'oft', "
            "'prefix', 'prompt' or 'ptuning'",
        ),
        ("data.train=[{format: text}]", "data.train.0.path is missing"),
        ("data.train=[{path: a, wieght: 2}]", "did you mean weight?"),
        ("train.steps", "has no `=`"),
        ("train.steps.x=1", "is a value, not a section"),
        ("data.train.x=1", "reaches into the list"),
    ],
)
def test_wrong_wishes(file: Path, override: str, words: str) -> None:
    if override == "train.steps.x=1":
        file.write_text(WHOLE + "  steps: 4\n")
    assert words in refusal(file, override)


def test_place_of_a_wrong_value_is_named(file: Path) -> None:
    file.write_text(WHOLE.replace("2e-5", "fast"))
    assert refusal(file).startswith(f"{file}:6: train.learning_rate is 'fast'")


def test_run_is_frozen(file: Path) -> None:
    run = load(file).run
    with pytest.raises(ValueError, match="frozen"):
        run.train.steps = 5  # type: ignore[misc]


def test_schema_documents_every_field() -> None:
    value = schema()
    json.dumps(value)
    undocumented = [
        f"{name}.{field}"
        for name, section in value["$defs"].items()
        for field, described in section["properties"].items()
        if "description" not in described and "$ref" not in described
    ]
    assert not undocumented
    assert set(Run.model_fields) <= set(value["properties"])


def test_reading_a_run_imports_no_torch(file: Path) -> None:
    code = (
        "import sys; from engine.config import load, check; check(load(sys.argv[1]).run); "
        "print([m for m in ('torch', 'transformers', 'deepspeed', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "text",
    [
        "train: {steps: !!int abc}",
        "output: 2020-99-99",
        f"train: {{steps: {'9' * 5000}}}",
        "train: &t {steps: 5, foo: *t}",
        "[" * 5000,
        "{a: " * 1500,
    ],
)
def test_values_that_break_the_reader_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(WishError):
        load(file)


@pytest.mark.parametrize(
    "change",
    [
        "train.epochs=.inf",
        "train.learning_rate=1e400",
        "train.epsilon=.inf",
        "seed=99999999999999999999999",
        "train.global_batch=4000000000000",
        "train.epochs=1e300",
        "parallel.threads=10000000",
        "output=''",
        "data.train=[]",
        "data.train=[{path: x, weight: .inf}]",
    ],
)
def test_numbers_beyond_any_run_are_refused(tmp_path: Path, change: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("output: runs/x\nmodel: {path: m}\n")
    with pytest.raises(WishError, match=change.partition("=")[0].rpartition(".")[2]):
        load(file, [change])
