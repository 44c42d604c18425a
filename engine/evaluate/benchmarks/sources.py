"""Where benchmarks come from: origin, licence, and the known versions of their files, each pinned by SHA-256."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pinned:
    """One known version of a file, unpacked: gzip gives one text many forms."""

    name: str
    tasks: int
    size: int
    """Bytes."""
    sha256: str


@dataclass(frozen=True, slots=True)
class Source:
    """Where a benchmark's tasks come from, and what may be done with them."""

    origin: str
    """Whose files are pinned, and where they lie."""
    licence: str
    files: tuple[Pinned, ...] = ()

    def named(self, sha256: str) -> Pinned | None:
        """The known file with this hash."""
        return next((file for file in self.files if file.sha256 == sha256), None)


SOURCES: dict[str, Source] = {
    "basics": Source("built in (101 tasks)", "Apache-2.0"),
    "humaneval": Source(
        "github.com/openai/human-eval",
        "MIT",
        (
            Pinned(
                "HumanEval.jsonl",
                tasks=164,
                size=214_438,
                sha256="1d49078ba3e2b196b9344535bef34a43021f038fad9561d6ee7c53450609a6a2",
            ),
        ),
    ),
    "humaneval-plus": Source(
        "github.com/evalplus/humanevalplus_release (v0.1.10)",
        "Apache-2.0",
        (
            Pinned(
                "HumanEvalPlus.jsonl",
                tasks=164,
                size=7_714_666,
                sha256="42526ec0e7d5f3ee0b06d6ced98f8c8bae3d76519151bfb3d36f79010645bd7f",
            ),
            Pinned(
                "HumanEvalPlus-Mini.jsonl",
                tasks=164,
                size=218_838,
                sha256="78fbba8865b20c5a979cda6e02fd72538e1762e65980af7d1a6e93c3e87e93af",
            ),
        ),
    ),
    "infilling": Source(
        "github.com/openai/human-eval-infilling",
        "MIT",
        (
            Pinned(
                "HumanEval-SingleLineInfilling.jsonl",
                tasks=1_033,
                size=1_647_941,
                sha256="6fffc71ec2f1674372fcc177511f92312f1a27a9eacd8e43255c9f5ee9eca8c8",
            ),
            Pinned(
                "HumanEval-RandomSpanInfillingLight.jsonl",
                tasks=164,
                size=221_823,
                sha256="cbb2b36f90311a3a7d844b6361852bb33e3ab11ab3bca2b7e85bfb9bf78c5891",
            ),
        ),
    ),
    "mbpp": Source(
        "github.com/google-research/google-research (mbpp), as in github.com/deepseek-ai/DeepSeek-Coder",
        "CC-BY-4.0",
        (
            Pinned(
                "mbpp.jsonl",
                tasks=974,
                size=563_743,
                sha256="ccf64ceae9c5403bf50a044cb6d505bfd2a2963ee58338ba268fd65beab92a9f",
            ),
        ),
    ),
    "multipl-e": Source(
        "github.com/nuprl/MultiPL-E, as in github.com/bytedance/SandboxFusion",
        "BSD-3-Clause with a machine learning restriction",
        (
            Pinned(
                "humaneval-cpp.jsonl",
                tasks=161,
                size=485_696,
                sha256="a1a0796d028d53cd385cb295e906f57b721181a6152ebbec9fa4efaae126c82c",
            ),
            Pinned(
                "humaneval-java.jsonl",
                tasks=158,
                size=601_486,
                sha256="6250789eb51e9f9463f750d3a228e13657cde5ca2a5fd2af0189161624a72482",
            ),
            Pinned(
                "humaneval-js.jsonl",
                tasks=161,
                size=343_897,
                sha256="5faa6c748fef5834526292b176ac6097b8feddc10002006fd49f12e4d193746f",
            ),
            Pinned(
                "humaneval-lua.jsonl",
                tasks=161,
                size=366_157,
                sha256="19401269c52bb1a5470e2414220fbf660e50101f7b914e293881f1bab9856e50",
            ),
            Pinned(
                "humaneval-pl.jsonl",
                tasks=161,
                size=434_285,
                sha256="9b6c05603204867ffb037218f14438be41b9d43b8d9e2b0696bc66b01be0639c",
            ),
            Pinned(
                "humaneval-rs.jsonl",
                tasks=156,
                size=395_787,
                sha256="7886c7646cfa0561cb7230befe945a514a4e9c182a8cff561d0ea4c7bb3b59da",
            ),
            Pinned(
                "humaneval-sh.jsonl",
                tasks=158,
                size=388_031,
                sha256="339613e446df07743cb05fb70328d20e4f0819fc66169291c5f7cc48a65bc8c7",
            ),
            Pinned(
                "humaneval-ts.jsonl",
                tasks=159,
                size=350_276,
                sha256="02b891d976ec6496de73781d6c65742a027f77537b808d74173c4411731dc127",
            ),
        ),
    ),
}
"""By the benchmark's name; one that is not here has nothing pinned."""
