"""The metric `code_eval` as the library evaluate loads it: candidates are judged in Temper's sandbox.

`evaluate.load` copies this one file elsewhere and imports it there, so it says little and takes the rest from the
installed package. It is the only one that imports evaluate and datasets, which take seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from engine.evaluate.code_eval.compute import Results, pass_at_ks, run

_DESCRIPTION = "pass@k (arXiv 2107.03374) of candidate programs, each judged by its task's test in a sandbox."
_INPUTS = """
Args:
    predictions: for each task a list of candidate programs.
    references: for each task its test, source that raises unless the candidate before it is right.
    k: of pass@k; one that a task has too few candidates for is left out.
    num_workers: candidates run side by side.
    timeout: CPU seconds a candidate may take; one that sleeps is ended after three times as many on the clock.
    preload: modules of this environment that candidates may import besides the standard library.
    level: least isolation accepted (full, user or process); None: the best this kernel grants.
Returns:
    pass_at_k: "pass@k" to its mean over tasks.
    results: index of a task to a list of (completion_id, {task_id, passed, result, completion_id}).
"""


class CodeEval(evaluate.Metric):
    """`compute` takes and gives what the hub's `code_eval` does (docs/how-to/code-eval.md names the differences)."""

    def _info(self) -> Any:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(datasets.Value("string")),
                    "references": datasets.Value("string"),
                }
            ),
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[str]],
        references: Sequence[str],
        k: Sequence[int] = (1, 10, 100),
        num_workers: int = 4,
        timeout: float = 3.0,
        preload: Sequence[str] = (),
        level: str | None = None,
    ) -> tuple[dict[str, float], Results]:
        results = run(
            predictions, references, workers=num_workers, timeout=timeout, preload=tuple(preload), level=level
        )
        return pass_at_ks(results, k), results
