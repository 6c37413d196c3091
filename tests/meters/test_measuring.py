"""Step timer, energy, peak memory, environment and remaining time."""

import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import torch

from adaptivefreeze.comparison.prediction import RemainingTime
from adaptivefreeze.meters import step_timer
from adaptivefreeze.meters.energy import EnergyMeter, RaplCounter, rapl_counters
from adaptivefreeze.meters.environment import cpu_name, describe
from adaptivefreeze.meters.memory import PeakMemory
from adaptivefreeze.meters.step_timer import StepTimer

CPU = torch.device("cpu")


@dataclass
class Ticking:
    """A counter with given readings."""

    readings: list = field(default_factory=list)

    def read(self):
        return self.readings.pop(0)


def test_the_step_timer_counts_steps_only(monkeypatch):
    now = iter([10.0, 12.0, 50.0, 50.5]).__next__
    monkeypatch.setattr(step_timer, "time", SimpleNamespace(perf_counter=now))
    timer = StepTimer(CPU)
    for _ in range(2):
        timer.opening.on_step_begin(None, None, None)
        timer.closing.on_step_end(None, None, None)
    assert (timer.seconds, list(timer.step_seconds), timer.joules) == (2.5, [2.0, 0.5], None)


def test_the_step_timer_averages_the_load_over_its_steps(monkeypatch):
    loads = iter([(1.0, 0, 0), (4.0, 0, 0)]).__next__
    monkeypatch.setattr(step_timer.psutil, "getloadavg", loads)
    timer = StepTimer(CPU)
    assert timer.load_average == 0
    for _ in range(2):
        timer.start()
        timer.stop()
    assert timer.load_average == 2.5


def test_a_step_timer_that_was_not_started_cannot_be_stopped():
    with pytest.raises(RuntimeError, match="without having been started"):
        StepTimer(CPU).stop()


def test_energy_is_that_of_the_intervals():
    meter = EnergyMeter([Ticking([10.0, 13.0, 100.0, 101.5]), Ticking([0.0, 1.0, 5.0, 5.5])])
    timer = StepTimer(CPU, meter)
    for _ in range(2):
        timer.start()
        timer.stop()
    assert timer.joules == 3.0 + 1.0 + 1.5 + 0.5


def zone(root, name, energy, largest=999):
    folder = root / name
    folder.mkdir()
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text(f"{largest}\n")
    return folder


def test_a_rapl_counter_continues_when_its_register_wraps_around(tmp_path):
    package = zone(tmp_path, "intel-rapl:0", 900)
    counter = RaplCounter(package)
    (package / "energy_uj").write_text("100")
    assert counter.read() == pytest.approx(200e-6)
    (package / "energy_uj").write_text("150")
    assert counter.read() == pytest.approx(250e-6)


def test_rapl_counts_packages_without_their_sub_zones(tmp_path):
    for name in ("intel-rapl:0", "intel-rapl:0:0", "intel-rapl:1"):
        zone(tmp_path, name, 1)
    assert len(rapl_counters(tmp_path)) == 2


def test_a_machine_without_energy_registers_has_no_counters(tmp_path):
    (tmp_path / "intel-rapl:0").mkdir()
    assert rapl_counters(tmp_path) == []


def test_peak_memory_includes_memory_that_was_freed():
    with PeakMemory(CPU, interval=0.005) as peak:
        held = torch.ones(16 * 2**20)  # 64 MiB
        time.sleep(0.3)
        del held
    assert 60 * 2**20 < peak.bytes < 100 * 2**20


def test_peak_memory_excludes_memory_in_use_on_entry():
    before = torch.ones(16 * 2**20)
    with PeakMemory(CPU, interval=0.005) as peak:
        time.sleep(0.02)
    assert peak.bytes < 16 * 2**20
    assert before.numel() > 0


def test_remaining_time_follows_the_predicted_costs():
    now = iter([0.0, 10.0, 20.0, 30.0]).__next__
    left = RemainingTime([1.0, 0.5, 0.25], now)
    assert left.seconds() is None  # no step is done
    left.stepped(5, 10)
    assert left.seconds() == pytest.approx(1.25 * 10 / 0.5)  # at 10 s
    left.run_ended()  # at 20 s
    assert left.seconds() == pytest.approx(0.75 * 20 / 1.0)
    left.stepped(10, 10)
    assert left.seconds() == pytest.approx(0.25 * 30 / 1.5)


def test_the_environment_names_versions_device_and_threads():
    found = describe(CPU, "float32")
    assert {"python", "torch", "transformers", "device", "threads", "dtype", "platform"} <= set(found)
    assert (found["device"], found["threads"]) == ("cpu", torch.get_num_threads())


def test_the_processor_name_is_read_from_cpuinfo(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor : 0\nmodel name\t: Abacus 9000\n")
    assert cpu_name(tmp_path / "cpuinfo") == "Abacus 9000"
    assert cpu_name(tmp_path / "missing") != ""
