"""What a measurement was taken on, in one line for the tables."""

from __future__ import annotations

import platform
from pathlib import Path

import torch
import transformers


def describe(device: str = "cpu") -> str:
    """Processor or GPU, threads, and the versions that matter."""
    if device == "cuda":
        chip = torch.cuda.get_device_name()
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        chip = f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{chip}; Python {platform.python_version()}, {versions}"
