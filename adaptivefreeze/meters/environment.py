"""What a run was measured with: versions, device, threads, precision."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def describe(device: torch.device, dtype: str) -> dict[str, Any]:
    """The environment of this process as plain JSON; `dtype` is what the run computes in."""
    import transformers

    return {
        "adaptivefreeze": version("adaptivefreeze"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "platform": platform.platform(),
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "dtype": dtype,
    }


def cpu_name(listing: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as Linux lists it, elsewhere what Python knows about it."""
    if listing.is_file():
        for line in listing.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
