"""The ZeRO strategy of a Run as DeepSpeed's own settings (a dict: deepspeed itself is not imported here)."""

from __future__ import annotations

from typing import Any

from engine.config.run import Run

STAGES = {"zero1": 1, "zero2": 2, "zero3": 3}


def deepspeed_settings(run: Run, world_size: int, *, cpu: bool | None = None) -> dict[str, Any]:
    """DeepSpeed's settings for a Run of strategy `zero1`, `zero2` or `zero3`.

    Gradients are summed and reduced in fp32, so that the result does not depend on how a step is cut
    into micro-batches; loss scaling by the number of trained tokens is the loop's, not DeepSpeed's.

    Args:
        run: the Run.
        world_size: ranks in all.
        cpu: whether the ranks compute on CPU; None: as `parallel.device` says, `auto` taken for CUDA.
    """
    train, parallel = run.train, run.parallel
    groups = max(1, world_size // parallel.sequence)
    # A pass against the model is to DeepSpeed a micro-batch of its own.
    passes = 2 if train.adversarial_epsilon else 1
    cpu = parallel.device == "cpu" if cpu is None else cpu
    stage = STAGES[parallel.strategy]
    zero: dict[str, Any] = {
        "stage": stage,
        "contiguous_gradients": True,
        # Overlap needs streams, which CPU ranks do not have.
        "overlap_comm": not cpu,
        "reduce_bucket_size": 50_000_000,
        "allgather_bucket_size": 200_000_000,
    }
    if parallel.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": not cpu}
    if parallel.offload_parameters:
        zero["offload_param"] = {"device": "cpu", "pin_memory": not cpu}
    if stage == 3:
        zero |= {
            # Small tensors would otherwise stay whole on every rank; on CPU models are small, so all are sharded.
            "stage3_param_persistence_threshold": 0 if cpu else 100_000,
            "stage3_gather_16bit_weights_on_model_save": True,
            "stage3_prefetch_bucket_size": 50_000_000,
            "stage3_max_live_parameters": 1_000_000_000,
        }
    return {
        "train_micro_batch_size_per_gpu": train.micro_batch,
        "gradient_accumulation_steps": passes * train.global_batch // (train.micro_batch * groups),
        # DeepSpeed knows of no ranks that share a row: to it each has rows of its own.
        "train_batch_size": passes * train.global_batch * parallel.sequence,
        "gradient_clipping": train.clip_norm,
        "zero_optimization": zero,
        "bf16": {"enabled": parallel.precision == "bf16"},
        "fp16": {"enabled": parallel.precision == "fp16", "initial_scale_power": 16},
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",
        "zero_allow_untested_optimizer": True,
        # The optimizer is the Run's; DeepSpeed would otherwise swap in its own compiled Adam under offload.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
        "wall_clock_breakdown": False,
    }
