"""Take the weights of a finished pretraining into configs/tiny/base, and keep the record of how they were made.

python configs/tiny/adopt.py --run runs/tiny/pretrain --corpus runs/tiny/corpus
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

HERE = Path(__file__).parent
CURVE_POINTS = 100


def curve(metrics: Path) -> list[dict[str, float]]:
    """Training and validation losses of a run, thinned to about a hundred points."""
    records = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    train = [record for record in records if record.get("loss") is not None]
    kept = train[:: max(1, len(train) // CURVE_POINTS)] + [r for r in records if "validation_loss" in r]
    kept.sort(key=lambda record: record["step"])
    return [{key: round(r[key], 4) for key in ("step", "loss", "validation_loss") if key in r} for r in kept]


def main() -> None:
    """Write base/model.safetensors in bf16 and pretrain.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--run", type=Path, default=Path("runs/tiny/pretrain"), help="the finished run")
    parser.add_argument(
        "--corpus", type=Path, default=Path("runs/tiny/corpus"), help="what it was trained on"
    )
    wish = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(wish.run / "model", dtype=torch.bfloat16)
    config = (HERE / "base" / "config.json").read_bytes()
    model.save_pretrained(HERE / "base")
    # The recipe starts from this file: what saving adds to it is no part of the recipe.
    (HERE / "base" / "config.json").write_bytes(config)
    weights = hashlib.sha256((HERE / "base" / "model.safetensors").read_bytes()).hexdigest()
    record = {
        "corpus": json.loads((wish.corpus / "corpus.json").read_text(encoding="utf-8")),
        "weights_sha256": weights,
        "curve": curve(wish.run / "metrics.jsonl"),
    }
    lines = json.dumps(record, indent=1).replace("\n   ", " ").replace("\n  }", " }")
    (HERE / "pretrain.json").write_text(lines + "\n", encoding="utf-8")
    print(f"{HERE / 'base'}: weights {weights[:12]}, {len(record['curve'])} points of the loss curve")


if __name__ == "__main__":
    main()
