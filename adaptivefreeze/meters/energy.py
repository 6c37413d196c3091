"""Energy of a run, from hardware counters: NVML for NVIDIA GPUs, RAPL for processors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch

_RAPL = Path("/sys/class/powercap")


class Counter(Protocol):
    """A monotonic energy counter."""

    def read(self) -> float:
        """Return the energy since a fixed point in time, in joules."""


class EnergyMeter:
    """Accumulates the energy used between `start` and `stop`, over any number of such intervals.

    The counters are updated about every millisecond (RAPL) or every few tens of milliseconds (NVML). A single short
    interval is therefore inaccurate, but the error does not accumulate over many.

    Args:
        counters: The counters to sum.

    Attributes:
        joules: Total energy of all intervals, in joules.
    """

    def __init__(self, counters: list[Counter]) -> None:
        self.joules = 0.0
        self._counters = counters
        self._at_start = 0.0

    @classmethod
    def of(cls, device: torch.device) -> EnergyMeter | None:
        """Return a meter for training on `device`, or None if the machine has no readable counter.

        It reads the counter of the GPU for a CUDA device, and those of all processor packages otherwise.
        """
        counters = nvml_counters(device) if device.type == "cuda" else rapl_counters()
        return cls(counters) if counters else None

    def start(self) -> None:
        """Start an interval."""
        self._at_start = self._read()

    def stop(self) -> None:
        """End the interval."""
        self.joules += self._read() - self._at_start

    def _read(self) -> float:
        return sum(counter.read() for counter in self._counters)


class RaplCounter:
    """Energy counter of one processor package, read from sysfs.

    The hardware register wraps around. This counter does not, provided that it is read at least once per wrap, which
    takes minutes.

    Args:
        zone: The package's folder below `/sys/class/powercap`.

    Raises:
        OSError: If the register does not exist or is not readable by this user.
    """

    def __init__(self, zone: Path) -> None:
        self._file = zone / "energy_uj"
        self._range = int((zone / "max_energy_range_uj").read_text())
        self._last = self._register()
        self._total = 0

    def read(self) -> float:
        """Return the energy since the counter was created, in joules."""
        now = self._register()
        self._total += (now - self._last) % (self._range + 1)
        self._last = now
        return self._total / 1e6

    def _register(self) -> int:
        return int(self._file.read_text())


class NvmlCounter:
    """Energy counter of one NVIDIA GPU (Volta or newer).

    Args:
        read_millijoules: Returns the energy since the driver was loaded, in millijoules.
    """

    def __init__(self, read_millijoules: Callable[[], int]) -> None:
        self._read_millijoules = read_millijoules

    def read(self) -> float:
        """Return the energy since the driver was loaded, in joules."""
        return self._read_millijoules() / 1000


def rapl_counters(root: Path = _RAPL) -> list[Counter]:
    """Return one counter per processor package; none if there are none or this user may not read them."""
    counters: list[Counter] = []
    for zone in sorted(root.glob("intel-rapl:*")):
        if zone.name.count(":") != 1:  # a sub-zone, whose energy is part of its package's
            continue
        try:
            counters.append(RaplCounter(zone))
        except OSError:  # energy is optional
            return []
    return counters


def nvml_counters(device: torch.device) -> list[Counter]:
    """Return the counter of a CUDA device; none without the `energy` extra or if the GPU has no counter."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(_uuid(device))
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:  # an old GPU, or no permission
        return []
    return [NvmlCounter(lambda: int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)))]


def _uuid(device: torch.device) -> str:
    """NVML's UUID of a torch device. Their indices differ under CUDA_VISIBLE_DEVICES."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"
