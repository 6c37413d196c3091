"""Warns of half precision where the processor only emulates it."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import nn
from transformers import TrainingArguments

logger = logging.getLogger(__name__)

_CPUINFO = Path("/proc/cpuinfo")
# Features of x86 processors, and of ARM ones, that multiply in bfloat16.
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


def warn_slow_precision(args: TrainingArguments, model: nn.Module) -> None:
    """Log a warning if a model trains on a CPU in a precision for which the CPU has no instructions."""
    parameter = next(model.parameters())
    if parameter.device.type != "cpu":
        return
    if args.fp16 or parameter.dtype == torch.float16:
        logger.warning("float16 is slow on a CPU: train in float32, or in bfloat16 if the CPU supports it.")
    elif (args.bf16 or parameter.dtype == torch.bfloat16) and not cpu_multiplies_bf16():
        logger.warning("This CPU has no bfloat16 instructions, so bfloat16 is many times slower than float32.")


def cpu_multiplies_bf16() -> bool:
    """Return whether the CPU has instructions for bfloat16. True if that is unknown."""
    if not _CPUINFO.exists():
        return True
    lines = (line for line in _CPUINFO.read_text().splitlines() if line.startswith(("flags", "Features")))
    flags = set(next(lines, "").partition(":")[2].split())
    return not flags or bool(flags & _BF16_FLAGS)
