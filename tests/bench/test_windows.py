"""Windows with known numbers: what they come to, and every reason not to believe them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench import windows
from kerneldyno.bench.instruments.joules import Idle, Window

GOOD = Window(joules=1500.0, seconds=5.0, calls=1000, updates=50, edge_error=0.002, temperature_c=60.0, readings_j=1520.0)
REST = [Idle(60.0, 0.1), Idle(64.0, 0.1)]


def summed(*taken: Window, idle=REST, wanted_c=60.0, ended="stopped"):
    return windows.summed(list(taken), idle, "nvml total energy", wanted_c=wanted_c, ended=ended)


def test_four_good_windows_come_to_joules_per_call() -> None:
    energy = summed(*[GOOD] * 3, replace(GOOD, joules=1530.0, temperature_c=61.5))
    assert (energy.valid, energy.reason, energy.source) == (True, None, "nvml total energy")
    assert energy.energy_j == pytest.approx(6030 / 4000)
    assert energy.power_w == pytest.approx(6030 / 20)
    assert energy.idle_w == 62.0
    assert energy.net_energy_j == pytest.approx((6030 - 62 * 20) / 4000)
    assert energy.net_energy_j == pytest.approx(energy.energy_j - energy.idle_w * 20 / 4000)
    assert energy.windows_j == pytest.approx([1.5, 1.5, 1.5, 1.53])
    assert (energy.updates, energy.spread) == (200, pytest.approx(0.03 / 1.5075))
    assert (energy.temperature_low_c, energy.temperature_high_c, energy.throttled_share) == (60.0, 61.5, 0.0)
    assert energy.readings_ratio == pytest.approx(4 * 1520 / 6030)


@pytest.mark.parametrize(
    ("taken", "reason"),
    [
        ([GOOD] * 3, "not valid: 3 of 4 windows: stopped"),
        ([GOOD], "not valid: 1 of 4 windows: stopped"),
        ([GOOD] * 3 + [replace(GOOD, updates=19)], "the counter moved 19 times in a window (at least 20)"),
        ([GOOD] * 3 + [replace(GOOD, joules=1581.0)], "windows differ by 5.3% (at most 5%)"),
        ([GOOD] * 3 + [replace(GOOD, throttled_s=0.25)], "held back for 1.2% of the time (at most 1%)"),
        ([GOOD] * 3 + [replace(GOOD, temperature_c=63.0)], "started at 63 °C, the first of the group at 60 °C (within 2)"),
        ([GOOD] * 3 + [replace(GOOD, temperature_c=57.0)], "started at 57 °C"),
        ([replace(GOOD, readings_j=1700.0)] * 4, "power readings come to 1.13 × the joules of the counter (within 10%)"),
        ([replace(GOOD, readings_j=1300.0)] * 4, "power readings come to 0.87 ×"),
        ([GOOD] * 3 + [replace(GOOD, stray_s=0.1)], "worked on for 2.0% of a window after all its calls seemed to be done"),
    ],
)
def test_an_invalid_window_keeps_its_number_and_says_why(taken, reason) -> None:
    energy = summed(*taken)
    assert energy.valid is False
    assert reason in energy.reason
    assert energy.energy_j == pytest.approx(1.5, rel=0.03)
    assert energy.power_w == pytest.approx(300, rel=0.03)


@pytest.mark.parametrize(
    "taken",
    [
        [GOOD] * 3 + [replace(GOOD, updates=20)],
        [GOOD] * 3 + [replace(GOOD, joules=1570.0)],
        [GOOD] * 3 + [replace(GOOD, throttled_s=0.15)],
        [GOOD] * 3 + [replace(GOOD, temperature_c=62.0)],
        [replace(GOOD, readings_j=1640.0)] * 4,
        [replace(GOOD, readings_j=None)] * 4,
        [replace(GOOD, temperature_c=None)] * 4,
        [GOOD] * 3 + [replace(GOOD, stray_s=0.02)],
    ],
)
def test_what_lies_within_the_limits_is_valid(taken) -> None:
    energy = summed(*taken)
    assert (energy.valid, energy.reason) == (True, None)


def test_all_doubts_are_told() -> None:
    energy = summed(replace(GOOD, updates=3, throttled_s=5.0))
    assert energy.reason.count("not valid: ") == 3
    assert energy.spread is None


@pytest.mark.parametrize(
    ("idle_w", "reason"),
    [
        ([310.0, 310.0], "no net joules: 300 W are not above the 310 W of the idle device"),
        ([60.0, 110.0], "no net joules: idle power was 60 W before and 110 W after"),
    ],
)
def test_joules_above_idle_are_left_out_where_idle_power_does_not_say(idle_w, reason) -> None:
    energy = summed(*[GOOD] * 4, idle=[Idle(watts, 0.1) for watts in idle_w])
    assert (energy.valid, energy.net_energy_j, energy.reason) == (True, None, reason)
    assert energy.energy_j == pytest.approx(1.5)
    assert energy.idle_w == pytest.approx(sum(idle_w) / 2)


def test_one_stretch_of_rest_is_enough_when_it_was_stopped() -> None:
    energy = summed(*[GOOD] * 2, idle=REST[:1])
    assert energy.net_energy_j == pytest.approx(1.5 - 60 * 0.005)
    assert energy.valid is False


@given(
    calls=st.lists(st.integers(1, 10_000), min_size=1, max_size=6),
    call_s=st.floats(1e-5, 5.0),
    watts=st.floats(100, 700),
    idle_w=st.floats(10, 90),
)
def test_constant_power_comes_to_watts_times_seconds(calls, call_s, watts, idle_w) -> None:
    taken = [Window(watts * call_s * number, call_s * number, number, 50, 0.0) for number in calls]
    energy = summed(*taken, idle=[Idle(idle_w, 0.1)], wanted_c=None)
    assert energy.energy_j == pytest.approx(watts * call_s)
    assert energy.net_energy_j == pytest.approx((watts - idle_w) * call_s)
    assert energy.power_w == pytest.approx(watts)
    assert energy.valid == (len(calls) >= 4)
