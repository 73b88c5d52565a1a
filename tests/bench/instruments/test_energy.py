"""Meters with known readings: counters that turn over, are reset, are missing, or may not be read; and the made-up one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench.instruments import energy, nvml
from kerneldyno.bench.instruments.clock import FakeClock
from kerneldyno.bench.instruments.energy import FakeMeter, NoMeter, NvmlMeter, RaplMeter, find_meter

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
    assert (meter.power_w(), meter.energy_j(), meter.reason) == (None, None, energy.NO_RAPL)


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


def test_a_board_that_counts_0_does_not_count(driver, board) -> None:
    (gpu,) = nvml.devices(driver(board(UUID, energy_mj=0)), {})
    meter = NvmlMeter(gpu)
    assert (meter.energy_j(), meter.power_w(), meter.reason) == (None, 300.0, None)


@given(start=st.integers(0, 999), steps=st.lists(st.integers(0, 499), max_size=30))
def test_what_a_counter_that_turns_over_has_counted_is_the_sum_of_its_steps(start: int, steps: list[int]) -> None:
    shown, total = start, 0
    for step in steps:
        before, shown = shown, (shown + step) % 1000
        moved = energy._moved(before, shown, turn=1000)
        assert moved == step
        total += moved
    assert total == sum(steps)


@given(last=st.integers(1, 999), now=st.integers(0, 998))
def test_a_counter_that_falls_back_far_was_reset(last: int, now: int) -> None:
    moved = energy._moved(last, now, turn=1000)
    if now >= last or now - last + 1000 <= 500:
        assert moved >= 0
    else:
        assert moved == now - last < 0


def test_a_reset_of_rapl_is_a_step_backwards_and_no_turn(tmp_path) -> None:
    folder = domain(tmp_path, "intel-rapl:0", "package-0", 400_000)
    meter = RaplMeter(tmp_path)
    start = meter.energy_j()
    (folder / "energy_uj").write_text("12")
    assert meter.energy_j() < start


def test_the_made_up_counter_shows_its_last_update_rounded_down() -> None:
    clock = FakeClock()
    meter = FakeMeter(clock, idle_w=10.0, period_s=1.0, phase_s=0.25, step_j=0.5)
    clock.advance(1.0)
    meter.work(1.0, 110.0)
    assert meter.drawn_j(2.0) == pytest.approx(1000 + 10 + 110)
    assert meter.energy_j() == pytest.approx(1000 + 10 * 1.25 + 100 * 0.25)  # as of 1.25 s
    assert meter.power_w() == 110.0
    clock.advance(0.3)
    assert meter.energy_j() == pytest.approx(1000 + 22.5 + 100)  # as of 2.25 s
    assert meter.power_w() == 10.0


@given(
    spans=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 2), st.floats(0, 500)), max_size=8),
    asked=st.lists(st.floats(0, 1), min_size=2, max_size=5),
)
def test_the_made_up_device_draws_what_its_work_and_its_rest_come_to(spans, asked) -> None:
    clock = FakeClock()
    meter = FakeMeter(clock, idle_w=20.0)
    expected = 1000.0
    for rest, seconds, watts in spans:
        clock.advance(rest)
        meter.work(seconds, watts)
        expected += rest * 20.0 + seconds * watts
    assert meter.drawn_j(clock.now()) == pytest.approx(expected)
    drawn = [meter.drawn_j(share * clock.now()) for share in sorted(asked)]
    assert all(later >= earlier - 1e-9 for earlier, later in pairwise(drawn))
