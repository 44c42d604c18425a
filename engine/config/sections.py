"""The sections of a Run: every wish a user can write, typed, with its meaning and the reason of its default."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

# Larger numbers than these are slips of the hand, which would otherwise be found out hours later.
Positive = Annotated[int, Field(gt=0, le=2**31 - 1)]
NonNegative = Annotated[int, Field(ge=0, le=2**31 - 1)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0, le=1e6)]
# The libraries that read it know no home folder.
Place = Annotated[
    str,
    Field(min_length=1),
    AfterValidator(lambda text: str(Path(text).expanduser()) if text[:1] == "~" else text),
]
Text = Annotated[str, Field(min_length=1)]


def _tags(wish: Any) -> Any:
    pair = (
        isinstance(wish, list | tuple)
        and len(wish) == 2
        and all(isinstance(tag, str) and tag for tag in wish)
        and wish[0] != wish[1]
    )
    if wish not in ("auto", "keep") and not pair:
        raise ValueError('give auto, keep, or two different tags such as ["<plan>", "</plan>"]')
    return wish


def _start(name: str) -> str:
    if not re.fullmatch(r"default|pissa|pissa_niter_[1-9][0-9]?|olora|loftq", name):
        raise ValueError("give default, pissa, pissa_niter_4 (or another number), olora or loftq")
    return name


class Section(BaseModel):
    """A part of a Run: frozen, and closed to keys it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Model(Section):
    """Which weights to start from and how they are held."""

    path: Place
    """A folder or a hub id that `AutoModelForCausalLM` takes; with another `head`, that class of transformers."""
    tokenizer: Place | None = None
    """A folder or hub id of the tokenizer; empty: the model's own."""
    revision: str | None = None
    """Branch, tag or commit on the hub; empty: the default branch."""
    init: Literal["pretrained", "scratch"] = "pretrained"
    """`scratch` draws new weights from the folder's config.json and the run's seed."""
    attention: Literal[
        "auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"
    ] = "auto"
    """Attention implementation, by its name in transformers; `auto` is torch's own, a sample at a time and without a
    mask, where the model lets it be replaced, and transformers' choice elsewhere."""
    activation_checkpointing: bool = False
    """Recompute activations in backward: about a third more compute for much less memory."""
    activation_offload: bool = False
    """Keep the inputs of recomputed layers in host memory until backward; needs `activation_checkpointing`."""
    compile: bool = False
    """Compile each decoder layer (`torch.compile`) for training: minutes at the first step for faster ones after it."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] | None = None
    """Probability for each of the model's own dropout layers; empty: those of its config.json."""
    head: Literal["language", "sequence", "token"] = "language"
    """What the model tells: the next token; one of `labels` for a text (`sequence`); one for each token (`token`)."""
    labels: tuple[Text, ...] = ()
    """Names of the classes of a `sequence` or `token` head, in the order of its outputs; of a `token` head the first is
    that of tokens outside of every span."""
    trust_remote_code: bool = False
    """Run model code that ships with the weights. Off, since it is code by strangers."""


Kind = Literal["full", "lora", "qlora", "adalora", "ia3", "vera", "oft", "prefix", "prompt", "ptuning"]


class Adapter(Section):
    """What is trained: all weights, or an adapter beside frozen (and perhaps quantised) ones."""

    kind: Kind = "full"
    """`full` trains every weight; `lora` low-rank matrices; `qlora` the same over a 4-bit base; `adalora` low-rank
    matrices whose ranks go where they matter (arXiv 2303.10512); `ia3` a factor for each output (arXiv 2205.05638);
    `vera` two vectors around shared random matrices (arXiv 2310.11454); `oft` rotations of the inputs (arXiv
    2306.07280); `prefix` keys and values before every text (arXiv 2101.00190); `prompt` embeddings before it (arXiv
    2104.08691); `ptuning` the same, made by a small network (arXiv 2103.10385)."""
    rank: Positive = 16
    """Inner size of the low-rank matrices (LoRA, arXiv 2106.09685); VeRA's, which are not trained, want 256 or more;
    AdaLoRA's at the start."""
    alpha: PositiveFloat = 32.0
    """Scale of the update: the product is multiplied by alpha / rank (alpha / sqrt(rank) with `rslora`)."""
    dropout: Fraction = 0.0
    """Dropout before the adapter."""
    rslora: bool = False
    """Rank-stabilised scaling (arXiv 2312.03732), worth having from rank 64 up."""
    dora: bool = False
    """Train the length of each output's weights apart from their direction (DoRA, arXiv 2402.09353)."""
    init: Annotated[str, AfterValidator(_start)] = "default"
    """Where the low-rank matrices start: `default` at no change; `pissa` (arXiv 2404.02948; `pissa_niter_4` for a fast
    approximation) and `olora` (arXiv 2406.01775) at the base's own principal part; `loftq` (arXiv 2310.08659) at what
    4 bits have lost."""
    target_rank: Positive = 8
    """Ranks that AdaLoRA leaves a target on average; less than `rank`."""
    budget_start: Fraction = 0.1
    """Share of the steps after which AdaLoRA begins to take ranks away."""
    budget_end: Fraction = 0.6
    """Share of the steps after which it has `target_rank` left, and keeps to those it has chosen."""
    budget_every: Positive = 10
    """Steps between its choices."""
    orthogonality: Annotated[float, Field(ge=0.0, le=1e3)] = 0.5
    """Weight of AdaLoRA's penalty on ranks that are not at right angles to each other, beside the loss of a token."""
    virtual_tokens: Positive = 20
    """Positions that `prefix`, `prompt` and `ptuning` take before every text."""
    block_size: Positive = 32
    """Inputs that one of OFT's rotations turns; must divide the inputs of each target."""
    new_tokens: tuple[Text, ...] = ()
    """Words that become tokens of their own, in spare rows of the embedding, trained beside the adapter."""
    target_modules: str | tuple[str, ...] = "all-linear"
    """`all-linear`, a list of module name endings, or one regular expression over full module names."""
    quant: Literal["nf4", "fp4"] = "nf4"
    """4-bit data type of the frozen base (QLoRA, arXiv 2305.14314)."""
    double_quant: bool = True
    """Quantise the quantisation constants too: saves about 0.4 bits a weight."""


class Source(Section):
    """One place rows come from."""

    path: str
    """A JSONL, Parquet or CSV file, a folder of them, or a hub id."""
    format: Literal["auto", "messages", "completion", "instruction", "text", "code", "labelled", "spans"] = (
        "auto"
    )
    """`messages` chat turns; `completion` prompt + completion; `instruction` instruction/input/output; `text` plain;
    `code` for fill-in-the-middle; `labelled` text + label and `spans` text + spans for another `model.head`. `auto`
    decides by the field names of the first row."""
    fields: dict[str, str] = {}
    """Renames: the format's field name to the file's column, e.g. `{prompt: question}`."""
    split: str = "train"
    """Split of a hub dataset."""
    name: str | None = None
    """Configuration name of a hub dataset."""
    weight: PositiveFloat = 1.0
    """Epochs of this source in one of the mixture: 2 shows every row twice, 0.5 half of them (others each epoch)."""


class Fim(Section):
    """Fill-in-the-middle (arXiv 2207.14255), applied to rows of format `code`."""

    rate: Fraction = 0.5
    """Share of code rows that are cut into prefix, suffix and middle; the rest stay left-to-right."""
    spm_rate: Fraction = 0.5
    """Share of the cut rows written suffix-prefix-middle; the rest prefix-suffix-middle."""


class Data(Section):
    """Which rows are learnt from, and how they become batches."""

    train: Annotated[tuple[Source, ...], Field(min_length=1)]
    """Sources of the training mixture."""
    validation: tuple[Source, ...] = ()
    """Sources of the validation set; empty: cut `validation_fraction` from the training rows."""
    validation_fraction: Fraction = 0.0
    """Share of training rows set aside for validation, chosen by the run's seed."""
    test_fraction: Fraction = 0.0
    """Share of training rows set aside and never read by training, chosen by the run's seed."""
    max_length: Positive = 1024
    """Tokens in a row; also the length packed rows are filled to."""
    overlong: Literal["refuse", "drop", "truncate"] = "refuse"
    """What to do with a sample longer than `max_length`: refuse the run, drop the sample, or cut its end."""
    packing: bool = True
    """Fill rows with several samples by best fit; positions restart, so samples do not see each other."""
    mask_prompt: bool = True
    """Train on completions and assistant turns only; `false` trains on prompts as well."""
    fim: Fim = Fim()
    """Fill-in-the-middle of rows of format `code`."""
    chat_template: str | None = None
    """Path of a Jinja file that replaces the tokenizer's chat template."""
    decontaminate: bool = True
    """Refuse training rows whose text or Python functions overlap the tasks of the run's benchmarks."""
    processes: Positive = 1
    """Worker processes that tokenise."""
    cache: str = "auto"
    """Folder that keeps encoded rows for the next start and for the other ranks of a machine; `auto`: rows/ of
    `$TEMPER_CACHE`, else of temper/ below `$XDG_CACHE_HOME` or ~/.cache; `none`: every rank encodes all rows at every
    start, and holds them in memory."""
    cache_gib: PositiveFloat = 50.0
    """Size in GiB from which on the rows used least recently are removed from that folder."""


class Parallel(Section):
    """How the work is spread over ranks, and in which precision it is done."""

    strategy: Literal["none", "ddp", "zero1", "zero2", "zero3", "fsdp2"] = "none"
    """`none` one rank; `ddp` replicas; `zero1` sharded optimizer, `zero2` and gradients, `zero3` and weights
    (arXiv 1910.02054); `fsdp2` torch's own fully sharded data parallel (arXiv 2304.11277)."""
    processes: Positive = 1
    """Ranks on each machine; one per accelerator, or any number on CPU."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Where ranks compute; `auto` takes CUDA where it is found. CPU ranks talk over gloo."""
    sequence: Positive = 1
    """Ranks that share each row, every one a part of its tokens, for rows too long for one; neighbours exchange
    heads for tokens around each attention (Ulysses, arXiv 2309.14509). Must divide the ranks and the model's heads."""
    precision: Literal["bf16", "fp16", "fp32"] = "bf16"
    """Precision of weights, activations and gradients; master weights and optimizer state stay fp32."""
    float8: Literal["none", "tensorwise", "rowwise", "rowwise_with_gw_hp"] = "none"
    """Matrix products of the layers in 8 bits, by torchao's recipes: one scale a tensor, one a row, or one a row with
    the weights' gradients in 16 bits, which alone does not depend on what else is in a micro-batch."""
    offload_optimizer: bool = False
    """Keep ZeRO's optimizer state and step in host memory."""
    offload_parameters: bool = False
    """Keep ZeRO-3's parameters in host memory between uses."""
    threads: Annotated[int, Field(ge=0, le=1024)] = 0
    """CPU threads a rank may use; 0: cores divided by ranks on CPU, torch's own default otherwise."""
    timeout_seconds: Positive = 1800
    """How long a collective may wait for a peer."""
    hang_seconds: NonNegative = 300
    """How long a rank may be silent inside a step while the others wait for it before the run is ended, at least; a
    stopped process is not waited for. 0: it is named and never ended."""
    restarts: NonNegative = 0
    """How many times `temper train` starts again by itself, from the newest checkpoint, after a rank has crashed or
    hung. Three attempts without a new checkpoint end it earlier."""


class Server(Section):
    """A model that is served elsewhere and asked over HTTP, as OpenAI's API is."""

    url: str | None = None
    """Address up to the version, such as `http://127.0.0.1:8000/v1`; empty: the model is loaded here."""
    model: str | None = None
    """The model's name on the server; empty: `model.path`."""
    api: Literal["completions", "chat"] = "completions"
    """`completions` continues the task's prompt; `chat` asks a question, to which the server applies its template."""
    concurrency: Annotated[int, Field(gt=0, le=1024)] = 16
    """Requests under way at a time."""
    requests_per_minute: Positive | None = None
    """Most requests sent in a minute, evenly spaced, retries included; empty: no limit."""
    timeout_seconds: PositiveFloat = 600.0
    """How long one answer may be silent before it is asked for again; a long answer comes all at once."""
    retries: NonNegative = 8
    """Further tries of a request after 408, 409, 425, 429, 5xx or a lost connection. Waits double from 1 s to 60 s: 8
    tries wait about three minutes, which a server that restarts may need."""
    api_key_env: str | None = "OPENAI_API_KEY"
    """Environment variable that holds the API key, never the key itself; empty: send none. The default one need not
    be set."""
    body: dict[str, Any] = {}
    """Further fields of every request, e.g. `{repetition_penalty: 1.1}`; `null` leaves out a field that this endpoint
    does not take, e.g. `{seed: null}`."""


class Evaluate(Section):
    """Judgement: which tasks, how many samples, how they are drawn."""

    benchmark: (
        Literal[
            "apps",
            "basics",
            "bigcodebench",
            "codecontests",
            "cruxeval",
            "custom",
            "ds1000",
            "humaneval",
            "humaneval-plus",
            "infilling",
            "livecodebench",
            "mbpp",
            "mbpp-plus",
            "multipl-e",
        ]
        | None
    ) = None
    """Benchmark to run; empty: none."""
    data: Place | None = None
    """The benchmark's file or hub id, where it is not built in."""
    split: str = "test"
    """Split used by `temper evaluate`: one that the benchmark has (`temper benchmark show NAME --split SPLIT`), for
    LiveCodeBench also a window of contest dates such as `2024-08..2025-01`; in-loop evaluation always takes
    `validation` where the benchmark has one.
    HumanEval has none: a checkpoint chosen by its pass@k was chosen on the tasks it is then reported on."""
    samples: Positive = 1
    """Samples drawn per task."""
    k: tuple[Positive, ...] = (1,)
    """The k of pass@k; each at most `samples`."""
    temperature: Annotated[float, Field(ge=0.0)] = 0.0
    """Sampling temperature; 0 takes the likeliest token."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Nucleus: the smallest set of tokens with this much probability is kept."""
    max_new_tokens: Positive = 512
    """Longest answer, in tokens."""
    batch: Positive = 16
    """Samples generated side by side on a rank; it does not change the result beyond rounding."""
    limit: Positive | None = None
    """First this many tasks only; empty: all."""
    in_loop_samples: Positive = 1
    """Samples per task for in-loop evaluation."""
    in_loop_limit: Positive | None = None
    """Tasks for in-loop evaluation; empty: all of the split."""
    chat: Literal["auto", "yes", "no"] = "no"
    """Ask through the tokenizer's chat template; `auto` does so when there is one. A server's is `server.api`."""
    system: str | None = None
    """The system turn of a chat; empty: none, or what the model's template puts there itself."""
    thinking: Annotated[Literal["auto", "keep"] | tuple[Text, Text], BeforeValidator(_tags)] = "auto"
    """How a chat answer's thinking is told from the answer and dropped: by well-known tags (`auto`: `<think>` and its
    like), by your own pair, such as `["<plan>", "</plan>"]`, or not at all (`keep`). Thinking without an end leaves no
    program."""
    shots: Annotated[int, Field(ge=0, le=1000)] = 0
    """Worked examples before each task: the benchmark's own (`basics`: training rows; `mbpp`: its `prompt` split, the
    paper's three first) or those of `shots_data`."""
    shots_data: Place | None = None
    """JSONL of your own examples, each with `prompt` and `completion`; the first `shots` of them are taken."""
    prefix: str = ""
    """Text before every prompt that a base model continues, such as a file's first lines; it is not executed."""
    efficiency: Annotated[int, Field(ge=3)] | None = None
    """Runs of each passing program and of its task's reference, in turn, to compare their time and memory once all is
    judged; empty: none. Python only, as is `static`."""
    static: bool = False
    """Tell length, complexity and a linter's findings of the programs too."""
    server: Server = Server()
    """Where the answers of `temper evaluate` come from, if not from weights loaded here."""


class Sandbox(Section):
    """Limits for programs the model wrote."""

    level: Literal["full", "user", "process"] | None = None
    """Least isolation accepted; empty: the best this kernel grants, which is named in every result."""
    mode: Literal["reused", "fresh"] = "reused"
    """`reused`: a worker's jail is proven clean after each program, or built again; `fresh`: namespaces of its own for
    each program, and costs more time."""
    engine: Literal["runsc", "podman"] | None = None
    """Outer engine to run each program in, a container a program, for those who want a second boundary: `runsc`
    (gVisor) or `podman`. Refused where it is not installed or does not work; far slower than none."""
    preload: tuple[str, ...] = ()
    """Modules of this environment that programs may import besides the standard library, such as numpy."""
    cpu_seconds: PositiveFloat = 3.0
    """CPU time a program may use: this decides, so that load does not change verdicts."""
    wall_seconds: PositiveFloat = 9.0
    """Wall time, only to catch programs that sleep: waiting for a busy CPU does not count."""
    memory_mb: Positive = 1024
    """Memory a program may use, in MiB."""
    workers: Positive = 2
    """Programs run side by side."""


class Track(Section):
    """Where progress is reported beside metrics.jsonl."""

    tensorboard: bool = False
    """Write TensorBoard event files under the run folder."""
    wandb: str | None = None
    """Weights & Biases project; the API key is read from the environment, never from here."""
    live: Literal["auto", "yes", "no"] = "auto"
    """One live line; `auto` on a terminal, plain lines elsewhere."""


class Checkpoint(Section):
    """What is kept, and what a start picks up."""

    every: NonNegative = 0
    """Steps between saves; 0: only at the end (and when asked to stop)."""
    at_end: bool = True
    """Save when the run ends, too. False: only every few steps and when asked to stop."""
    background: bool = False
    """Train on while a checkpoint is written. Each rank copies its part into host memory first: 12 bytes a trained
    weight over all ranks with AdamW, and whole weights on rank 0. A checkpoint exists once all ranks have written it, a
    few steps later; the last one of a run is always waited for."""
    keep_last: Positive = 2
    """Newest checkpoints kept."""
    keep_best: NonNegative = 1
    """Best checkpoints kept beside them, by `metric`; 0 keeps none for being best."""
    metric: str = "validation_loss"
    """What says which checkpoint is best and when to stop early: `validation_loss`, a pass@k of the in-loop evaluation
    such as `pass@1` or `pass@1/GROUP`, or what is logged every few steps (`loss`, `grad_norm`, ...)."""
    mode: Literal["auto", "min", "max"] = "auto"
    """Whether small or large is good; `auto`: losses small, everything else large."""
    resume: Literal["auto", "never"] = "auto"
    """`auto` continues from the newest valid checkpoint of this run folder, if there is one."""
    export: Literal["last", "best", "none"] = "last"
    """Whose weights become `model/` (or `adapter/`) in the run folder, as `from_pretrained` takes them."""
