"""Peak memory of a run."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from types import TracebackType

import psutil
import torch
from accelerate.utils import release_memory


class PeakMemory:
    """Context manager that measures the peak memory allocated inside it.

    On CUDA, this is the peak of PyTorch's allocator. On the CPU, a thread samples the resident set size of the process,
    so a spike shorter than the sampling interval can be missed. Memory that was in use on entry does not count.

    Args:
        device: The device that the run uses.
        interval: Seconds between two samples on the CPU.

    Attributes:
        bytes: The peak in bytes, available after exit.

    Example:
        ```python
        with PeakMemory(torch.device("cpu")) as peak:
            train()
        print(peak.bytes)
        ```
    """

    def __init__(self, device: torch.device, interval: float = 0.02) -> None:
        self.bytes = 0
        self._device = device
        self._interval = interval
        self._process = psutil.Process()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_done, name="peak-memory", daemon=True)
        self._baseline = 0
        self._highest = 0

    def __enter__(self) -> PeakMemory:
        release_memory()
        _trim_heap()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            self._baseline = torch.cuda.memory_allocated(self._device)
        else:
            self._baseline = self._highest = self._process.memory_info().rss
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
            self._sample()
        self.bytes = max(0, self._highest - self._baseline)

    def _sample_until_done(self) -> None:
        while not self._done.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        self._highest = max(self._highest, self._process.memory_info().rss)


def _trim_heap() -> None:
    """Return freed heap memory to the system, so that it is not part of the resident set size.

    Only glibc keeps freed memory and has this call. With another C library there is nothing to do.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
