"""What a measurement was taken on, in one line for the tables."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

import torch
import transformers

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt(3)


def keep_memory(keep: bool) -> None:
    """Whether freed memory stays with this process, so that every later step finds its pages there.

    By default glibc gives large blocks back to the system and asks for them anew, so that a step on a CPU also
    measures page faults, which virtual machines pay for dearly. Does nothing where the C library is another one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0 if keep else 65536)
        mallopt(M_TRIM_THRESHOLD, -1 if keep else 128 * 1024)


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
