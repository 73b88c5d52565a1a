"""Meters with known readings: counters that turn over, stand still, are missing, or may not be read."""

from __future__ import annotations

import time

import pytest

from kerneldyno.bench.instruments import energy, nvml
from kerneldyno.bench.instruments.energy import FakeMeter, NoMeter, NvmlMeter, RaplMeter, find_meter, measure_power

UUID = "GPU-aaaa1111-0000-0000-0000-000000000000"


def domain(root, name: str, label: str, energy_uj: int, turn: int = 1_000_000):
    folder = root / name
    folder.mkdir()
    (folder / "name").write_text(f"{label}\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{turn}\n")
    return folder


def test_rapl_adds_up_packages_only(tmp_path) -> None:
    first = domain(tmp_path, "intel-rapl:0", "package-0", 100)
    second = domain(tmp_path, "intel-rapl:1", "package-1", 500)
    parts = [domain(tmp_path, "intel-rapl:0:0", "core", 7), domain(tmp_path, "intel-rapl:2", "psys", 7)]
    meter = RaplMeter(tmp_path)
    assert meter.reason is None
    start = meter.energy_j()
    for folder in (first, second, *parts):
        (folder / "energy_uj").write_text(str(int((folder / "energy_uj").read_text()) + 2000))
    assert meter.energy_j() - start == pytest.approx(4000e-6)
    assert meter.power_w() is None


def test_rapl_counters_turn_over(tmp_path) -> None:
    folder = domain(tmp_path, "intel-rapl:0", "package-0", 999_000)
    meter = RaplMeter(tmp_path)
    start = meter.energy_j()
    seen = [start]
    for reading in (999_900, 400, 999_999, 5):
        (folder / "energy_uj").write_text(str(reading))
        seen.append(meter.energy_j())
    assert seen == sorted(seen)
    assert seen[-1] - start == pytest.approx((2 * 1_000_000 + 5 - 999_000) * 1e-6)


def test_no_counter_and_a_locked_counter_are_reasons(tmp_path) -> None:
    assert RaplMeter(tmp_path).reason == "not measured: this machine exposes no energy counter (RAPL)"
    assert RaplMeter(tmp_path / "nowhere").reason == energy.NO_RAPL
    folder = domain(tmp_path, "intel-rapl:0", "package-0", 1)
    (folder / "energy_uj").unlink()
    (folder / "energy_uj").mkdir()  # cannot be read, even by root
    meter = RaplMeter(tmp_path)
    assert "may not read" in meter.reason
    assert meter.energy_j() is None


def test_the_meter_of_a_machine_without_counters_says_so(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(energy.RaplMeter.__init__, "__defaults__", (tmp_path,))
    meter = find_meter("cpu")
    assert isinstance(meter, NoMeter)
    measured = measure_power(lambda _: pytest.fail("nothing is run for nothing"), meter, 1.0)
    assert (measured.power_w, measured.energy_j, measured.reason) == (None, None, energy.NO_RAPL)


def test_the_meter_of_a_machine_with_counters(monkeypatch, tmp_path) -> None:
    domain(tmp_path, "intel-rapl:0", "package-0", 1)
    monkeypatch.setattr(energy.RaplMeter.__init__, "__defaults__", (tmp_path,))
    assert isinstance(find_meter("cpu"), RaplMeter)


def test_a_gpu_that_nobody_knows(monkeypatch) -> None:
    monkeypatch.setattr(nvml, "_driver", lambda: None)
    assert "does not answer" in find_meter("cuda:0").reason


def test_nvml_reads_power_and_energy(driver, board, monkeypatch) -> None:
    monkeypatch.setattr(nvml, "_driver", lambda: driver(board(UUID)))
    meter = find_meter("cuda:0")
    assert isinstance(meter, NvmlMeter)
    assert (meter.power_w(), meter.energy_j()) == (300.0, 1.0)


def test_nvml_without_counters_and_slices_are_reasons(driver, board) -> None:
    (mute,) = nvml.devices(driver(board(UUID, instant_mw=None, average_mw=None, energy_mj=0)), {})
    assert "neither power nor energy" in NvmlMeter(mute).reason
    (part,) = nvml.devices(driver(board(UUID, instances=["MIG-1"])), {})
    assert "MIG" in NvmlMeter(part).reason


def test_a_counter_gives_joules_per_call_and_watts() -> None:
    meter = FakeMeter(energy=[100.0, 160.0])
    measured = measure_power(lambda seconds: (30, seconds), meter, 2.0)
    assert (measured.power_w, measured.energy_j) == (30.0, 2.0)
    assert measured.source == "fake total energy"
    assert measured.reason is None


def test_a_short_window_falls_back_on_power_readings_without_the_ramp() -> None:
    # the first readings show the idle board: what was asked before the window, then 40 W until the ramp is over
    meter = FakeMeter(power=[40.0, 40.0, 40.0, 200.0], energy=[0.0, 1.0], window_s=5.0)

    def call_many(seconds: float) -> tuple[int, float]:
        time.sleep(seconds)
        return 50, seconds

    measured = measure_power(call_many, meter, 0.4)
    assert measured.power_w == pytest.approx(200.0)
    assert measured.energy_j == pytest.approx(200.0 * 0.4 / 50)
    assert measured.source == "fake power_instant (indicative)"


@pytest.mark.parametrize(
    ("meter", "calls", "reason"),
    [
        (FakeMeter(energy=[5.0, 5.0]), 10, "did not move"),
        (FakeMeter(energy=[0.0, 0.0]), 10, "did not move"),
        (FakeMeter(energy=[5.0, None]), 10, "could not be read"),
        (FakeMeter(energy=[5.0, 6.0], window_s=5.0), 10, "too short"),
        (FakeMeter(energy=[5.0, 6.0]), 0, "no call was made"),
        (FakeMeter(power=[0.0], energy=[0.0]), 10, "did not move"),
    ],
)
def test_what_was_not_measured_is_a_reason_and_never_zero(meter, calls, reason) -> None:
    measured = measure_power(lambda seconds: (calls, seconds), meter, 0.1)
    assert (measured.power_w, measured.energy_j) == (None, None)
    assert reason in measured.reason


def test_the_sampling_thread_ends_when_the_call_raises() -> None:
    import threading

    with pytest.raises(RuntimeError, match="on purpose"):
        measure_power(lambda _: (_ for _ in ()).throw(RuntimeError("on purpose")), FakeMeter(power=[1.0]), 0.1)
    assert "power meter" not in {thread.name for thread in threading.enumerate()}
