"""The walls of the house: imports run downward, and the light rooms never pull in torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FLOORS = {
    "__init__": 0,
    "errors": 0,
    "hub": 0,
    "protocol": 0,
    "heartbeat": 0,
    "peaks": 0,
    "config": 0,
    "dist": 1,
    "rehearse": 1,
    "track": 1,
    "sandbox": 1,
    "model": 2,
    "data": 2,
    "generate": 3,
    "checkpoint": 3,
    "train": 4,
    "evaluate": 5,
    "export": 6,
    "improve": 6,
    "cli": 7,
    "__main__": 8,
}
# A room may hold part of another floor's plain values: these are data without behaviour or torch.
FLOOR_ZERO = {room for room, floor in FLOORS.items() if floor == 0}
LIGHT = ("errors", "hub", "protocol", "heartbeat", "peaks", "config", "sandbox")
HEAVY = {"torch", "transformers", "accelerate", "deepspeed", "peft", "bitsandbytes", "datasets", "numpy"}
HOMES = {
    "deepspeed": {"checkpoint", "train", "config"},
    "bitsandbytes": {"model", "train"},
    "peft": {"model", "export"},
}


@dataclass(frozen=True)
class Import:
    """One import statement: where it stands, what it names, and whether only a type checker reads it."""

    file: Path
    line: int
    name: str
    typing_only: bool

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line} imports {self.name}"


def imports(file: Path) -> Iterator[Import]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name, id(node) in typing_only)
        elif isinstance(node, ast.ImportFrom):
            package = file.relative_to(ROOT).parent.parts[: 1 - node.level or None] if node.level else ()
            module = ".".join([*package, *filter(None, [node.module])])
            for alias in node.names:
                name = f"{module}.{alias.name}" if module.split(".")[0] in ("engine", "launch") else module
                yield Import(file, node.lineno, name, id(node) in typing_only)


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def room(file: Path) -> str:
    part = file.relative_to(ROOT / "engine").parts[0]
    return part.removesuffix(".py")


def engine_imports() -> Iterator[tuple[str, str, Import]]:
    """Each import between rooms of the engine: from, to."""
    for file in sources("engine"):
        for one in imports(file):
            parts = one.name.split(".")
            if parts[0] == "engine" and len(parts) > 1:
                yield room(file), parts[1], one


def test_walls_every_room_has_a_floor() -> None:
    rooms = {room(file) for file in sources("engine")}
    assert rooms <= FLOORS.keys(), f"name the floor of {rooms - FLOORS.keys()} in this test and in the design"


def test_walls_imports_run_downward() -> None:
    wrong = [
        f"{one} (floor {FLOORS[here]} reaches to floor {FLOORS[there]})"
        for here, there, one in engine_imports()
        if here != there and there in FLOORS and FLOORS[there] >= FLOORS[here] and FLOORS[here] > 0
    ]
    assert not wrong, "\n".join(wrong)


def test_walls_floor_zero_stands_on_itself() -> None:
    wrong = [
        str(one) for here, there, one in engine_imports() if FLOORS[here] == 0 and FLOORS.get(there, 9) > 0
    ]
    assert not wrong, "\n".join(wrong)


def doors() -> dict[str, set[str]]:
    """What each room's `__init__.py` re-exports."""
    found: dict[str, set[str]] = {}
    for name in FLOORS:
        door = ROOT / "engine" / name / "__init__.py"
        if door.is_file():
            tree = ast.parse(door.read_text(encoding="utf-8"))
            found[name] = {
                element.value
                for node in ast.walk(tree)
                if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
                for element in getattr(node.value, "elts", [])
            }
    return found


def test_walls_every_room_has_a_door() -> None:
    assert not [name for name, names in doors().items() if not names], (
        "a room's __init__.py names what it gives"
    )


def test_walls_rooms_are_entered_by_their_door() -> None:
    """Names that a room re-exports are taken from the room, not from the file behind it."""
    given = doors()
    wrong = [
        str(one)
        for here, there, one in engine_imports()
        if here != there
        and len(parts := one.name.split(".")) > 3
        and parts[-1] in given.get(there, ())
        and not (ROOT.joinpath(*parts[:3]) / "__init__.py").is_file()
    ]
    assert not wrong, "\n".join(wrong)


def test_walls_engine_never_sees_launch() -> None:
    wrong = [
        str(one) for file in sources("engine") for one in imports(file) if one.name.split(".")[0] == "launch"
    ]
    assert not wrong, "\n".join(wrong)


def test_walls_launch_sees_floor_zero_only() -> None:
    wrong = [
        str(one)
        for file in sources("launch")
        for one in imports(file)
        if one.name.split(".")[0] == "engine" and (one.name.split(".") + ["__init__"])[1] not in FLOOR_ZERO
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("place", ["launch", *(f"engine/{name}" for name in LIGHT)])
def test_walls_light_rooms_name_no_heavy_import(place: str) -> None:
    files = sources(place) if (ROOT / place).is_dir() else [ROOT / f"{place}.py"]
    heavy = [str(one) for file in files for one in imports(file) if one.name.split(".")[0] in HEAVY]
    assert not heavy, "\n".join(heavy)


@pytest.mark.parametrize("heavy", HOMES)
def test_walls_heavy_imports_have_one_home(heavy: str) -> None:
    wrong = [
        str(one)
        for file in sources("engine")
        for one in imports(file)
        if one.name.split(".")[0] == heavy and room(file) not in HOMES[heavy] and not one.typing_only
    ]
    assert not wrong, "\n".join(wrong)


def modules(place: str) -> list[str]:
    files = sources(place) if (ROOT / place).is_dir() else [ROOT / f"{place}.py"]
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts) for file in files]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


@pytest.mark.parametrize("place", ["launch", *(f"engine/{name}" for name in LIGHT)])
def test_walls_light_rooms_import_without_torch(place: str) -> None:
    """The real import, since a wall in the source says nothing about what a third package pulls in."""
    code = (
        "import importlib, sys\n"
        f"for name in {modules(place)!r}: importlib.import_module(name)\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"], ["config", "--help"]])
def test_walls_help_answers_without_torch_or_pydantic(words: list[str]) -> None:
    banned = HEAVY | ({"pydantic"} if words[0].startswith("--") else set())
    code = (
        "import sys\nfrom launch.cli import temper\n"
        f"try: temper({words!r}, prog_name='temper')\nexcept SystemExit as end: assert not end.code\n"
        f"print('imported', sorted({banned!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("imported []")
