"""PeakMemory: how many bytes one run needed at most, on CUDA by the allocator, on the CPU by sampling."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
from types import TracebackType

import psutil
import torch


class PeakMemory:
    """A span whose peak is measured; `bytes` holds it afterwards.

    On CUDA it is the allocator's peak since the span began. On the CPU a thread samples the resident size every
    `interval` seconds and the peak is counted above what the process held when the span began; a shorter spike than
    the interval can be missed.

    >>> with PeakMemory(torch.device("cpu")) as peak:
    ...     trained = train()
    >>> peak.bytes
    """

    def __init__(self, device: torch.device, interval: float = 0.02) -> None:
        self.bytes = 0
        self._device = device
        self._interval = interval
        self._process = psutil.Process()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="peak-memory", daemon=True)
        self._before = 0
        self._highest = 0

    def __enter__(self) -> PeakMemory:
        release_memory()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._before = torch.cuda.memory_allocated(self._device)
        else:
            self._before = self._highest = self._process.memory_info().rss
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._device.type == "cuda":
            self._highest = torch.cuda.max_memory_allocated(self._device)
        else:
            self._done.set()
            self._thread.join()
            self._note()
        self.bytes = max(0, self._highest - self._before)

    def _sample(self) -> None:
        while not self._done.wait(self._interval):
            self._note()

    def _note(self) -> None:
        self._highest = max(self._highest, self._process.memory_info().rss)


def release_memory() -> None:
    """Give back what earlier runs have freed, so that it is not taken for held (or for free) by the next one."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    # glibc keeps freed memory for itself; another C library has no such call, and then there is nothing to do.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
