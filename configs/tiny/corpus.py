"""Pretraining text of the embedded base model: Python that ships with Python, and generated pretext programs.

    python configs/tiny/corpus.py --out runs/tiny/corpus

writes `stdlib.jsonl` (rows of `id` and `text`), `pretext.jsonl` (`id`, `prompt`, `completion`, `family`) and
`corpus.json`, which records what was counted and the SHA-256 of both files. Nothing is random but the pretext seed, so
the same Python gives the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import pretext  # a neighbour of this script, not a package

DOCUMENT_CHARACTERS = 1000
"""Longest document: about 300 tokens, so that several fit in a packed row."""
SKIPPED = frozenset(
    # tests, other people's licences, generated grammars, character tables and texts that are not code
    "test tests idlelib idle_test lib2to3 encodings pydoc_data site-packages ensurepip turtledemo __pycache__ "
    "distutils config tkinter".split()
)


def stdlib_files() -> Iterator[Path]:
    """Sources of the running Python's standard library, in a stable order."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if not SKIPPED.intersection(parts) and not parts[0].startswith(("config-", "_sysconfigdata")):
            yield path


def paragraphs(source: str) -> Iterator[str]:
    """Pieces of a file between blank lines that are followed by an unindented line."""
    piece: list[str] = []
    for line in source.splitlines():
        if piece and not piece[-1].strip() and line[:1].strip() and line[0] not in ")]}":
            yield "\n".join(piece).strip("\n")
            piece = []
        piece.append(line.rstrip())
    if piece:
        yield "\n".join(piece).strip("\n")


def documents(source: str) -> Iterator[str]:
    """Neighbouring paragraphs joined up to the longest document; a longer paragraph is cut at its blank lines."""
    held = ""
    for paragraph in paragraphs(source):
        parts = [paragraph] if len(paragraph) <= DOCUMENT_CHARACTERS else paragraph.split("\n\n")
        for part in parts:
            if len(part) > DOCUMENT_CHARACTERS:
                continue
            if held and len(held) + len(part) + 2 > DOCUMENT_CHARACTERS:
                yield held + "\n"
                held = ""
            held = f"{held}\n\n{part}" if held else part
    if held.strip():
        yield held + "\n"


def stdlib_rows() -> Iterator[dict[str, str]]:
    """Rows cut from the standard library."""
    root = Path(sysconfig.get_paths()["stdlib"])
    for path in stdlib_files():
        try:
            source = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for index, text in enumerate(documents(source.expandtabs(4))):
            yield {"id": f"{path.relative_to(root)}:{index}", "text": text}


def write(path: Path, rows: Iterator[Mapping[str, str]]) -> dict[str, int | str]:
    """Write rows as JSONL; the facts to record about the file."""
    digest, count, characters = hashlib.sha256(), 0, 0
    with path.open("wb") as file:
        for row in rows:
            line = (json.dumps(row, ensure_ascii=False) + "\n").encode()
            file.write(line)
            digest.update(line)
            count += 1
            characters += sum(len(row[key]) for key in ("text", "prompt", "completion") if key in row)
    return {"file": path.name, "rows": count, "characters": characters, "sha256": digest.hexdigest()}


def main() -> None:
    """Write the corpus and its record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("runs/tiny/corpus"), help="folder to write")
    parser.add_argument("--pretext-rows", type=int, default=75_000, help="generated programs")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated programs")
    wish = parser.parse_args()
    wish.out.mkdir(parents=True, exist_ok=True)
    files = [
        write(wish.out / "stdlib.jsonl", stdlib_rows()),
        write(
            wish.out / "pretext.jsonl",
            (dict(row) for row in pretext.training_rows(wish.pretext_rows, wish.seed)),
        ),
    ]
    record = {"python": sys.version.split()[0], "pretext_seed": wish.seed, "files": files}
    (wish.out / "corpus.json").write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
