"""EnergyMeter: joules from the counters that the machine has (NVML for the GPU, RAPL for the processor), or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch

_RAPL = Path("/sys/class/powercap")


class Counter(Protocol):
    """A counter of joules that only grows."""

    def read(self) -> float:
        """Joules since some fixed moment."""


class EnergyMeter:
    """Adds up the joules between `start` and `stop`, over any number of such spans.

    The counters move in ticks (about a millisecond for RAPL, tens of milliseconds for NVML), so a single short span
    is inexact, while the sum over many is not.
    """

    def __init__(self, counters: list[Counter]) -> None:
        self.joules = 0.0
        self._counters = counters
        self._began = 0.0

    @classmethod
    def of(cls, device: torch.device) -> EnergyMeter | None:
        """A meter for what works when `device` trains: the GPU's own counter, or the processor packages'."""
        counters = nvml_counters(device) if device.type == "cuda" else rapl_counters()
        return cls(counters) if counters else None

    def start(self) -> None:
        """A span begins."""
        self._began = self._read()

    def stop(self) -> None:
        """The span has ended."""
        self.joules += self._read() - self._began

    def _read(self) -> float:
        return sum(counter.read() for counter in self._counters)


class RaplCounter:
    """The energy of one processor package, in sysfs. Its register wraps around; this counter does not."""

    def __init__(self, zone: Path) -> None:
        self._file = zone / "energy_uj"
        self._range = int((zone / "max_energy_range_uj").read_text())
        self._last = self._raw()
        self._total = 0

    def read(self) -> float:
        """Joules since the counter was made. Exact as long as it is read once per wrap (minutes)."""
        now = self._raw()
        self._total += (now - self._last) % (self._range + 1)
        self._last = now
        return self._total / 1e6

    def _raw(self) -> int:
        return int(self._file.read_text())


class NvmlCounter:
    """The energy of one NVIDIA GPU (Volta or newer)."""

    def __init__(self, read_millijoules: Callable[[], int]) -> None:
        self._read = read_millijoules

    def read(self) -> float:
        """Joules since the driver was loaded."""
        return self._read() / 1000


def rapl_counters(root: Path = _RAPL) -> list[Counter]:
    """One counter a processor package; none where the system has none or keeps them to the administrator."""
    counters: list[Counter] = []
    for zone in sorted(root.glob("intel-rapl:*")):
        if zone.name.count(":") != 1:  # a sub-zone: its energy is in its package's already
            continue
        try:
            counters.append(RaplCounter(zone))
        except OSError:  # unreadable for this user, or a zone without a counter: no energy, not an error
            return []
    return counters


def nvml_counters(device: torch.device) -> list[Counter]:
    """The counter of a CUDA device; none without the `energy` extra or where the GPU keeps no count."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(_uuid(device))
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:  # an old GPU, or one whose driver hides it
        return []
    return [NvmlCounter(lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)))]


def _uuid(device: torch.device) -> str:
    """NVML's name of a torch device: indices differ between the two under CUDA_VISIBLE_DEVICES."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"
