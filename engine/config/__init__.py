"""Typed wishes: one YAML is one Run. Imports neither torch nor transformers."""

from engine.config.adapters import VIRTUAL
from engine.config.deepspeed import STAGES, deepspeed_settings
from engine.config.load import Loaded, dump, load, read_tree, schema, show
from engine.config.rules import LOGGED, Finding, beyond_context, check, demand
from engine.config.run import Run
from engine.config.sections import (
    Adapter,
    Checkpoint,
    Data,
    Evaluate,
    Fim,
    Model,
    Parallel,
    Sandbox,
    Server,
    Source,
    Track,
)
from engine.config.shape import ModelShape, shape
from engine.config.train import Train

__all__ = [
    "LOGGED",
    "STAGES",
    "VIRTUAL",
    "Adapter",
    "Checkpoint",
    "Data",
    "Evaluate",
    "Fim",
    "Finding",
    "Loaded",
    "Model",
    "ModelShape",
    "Parallel",
    "Run",
    "Sandbox",
    "Server",
    "Source",
    "Track",
    "Train",
    "beyond_context",
    "check",
    "deepspeed_settings",
    "demand",
    "dump",
    "load",
    "read_tree",
    "schema",
    "shape",
    "show",
]
