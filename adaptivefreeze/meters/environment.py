"""Hardware and software environment of a run."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch


def describe(device: torch.device, dtype: str) -> dict[str, Any]:
    """Return versions, device, number of threads, precision and the command as plain JSON.

    Args:
        device: The device that the run uses.
        dtype: The precision that the run computes in, such as `"bfloat16 autocast"`.
    """
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
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def cpu_name(path: Path = Path("/proc/cpuinfo")) -> str:
    """Return the name of the processor: from `/proc/cpuinfo` on Linux, else from the `platform` module."""
    if path.is_file():
        for line in path.read_text(errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
