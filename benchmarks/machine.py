"""Describe the machine of a measurement, and control how the process handles freed memory."""

from __future__ import annotations

import ctypes
import platform
from pathlib import Path

import torch
import transformers

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt(3)


def keep_memory(keep: bool) -> None:
    """Keep freed memory in this process, or return it to the system.

    By default glibc returns large blocks to the system and requests them again, so that a step on a CPU includes page
    faults, which are expensive on virtual machines. No effect with a C library other than glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0 if keep else 65536)
        mallopt(M_TRIM_THRESHOLD, -1 if keep else 128 * 1024)


def describe(device: str = "cpu") -> str:
    """Return one line: processor or GPU, number of threads, and the versions of Python, torch and transformers."""
    if device == "cuda":
        chip = torch.cuda.get_device_name()
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        chip = f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{chip}; Python {platform.python_version()}, {versions}"
