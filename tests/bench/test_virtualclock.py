"""What the clock shows is what was measured, to the last bit."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench.virtualclock import VirtualClock


def shown(clock, rounds):
    """As pytest-benchmark's pedantic mode reads it."""
    found = []
    for _ in range(rounds):
        clock.rewind()
        start = clock()
        clock.advance()
        found.append(clock() - start)
    return found


@given(st.lists(st.floats(0.0, 1e6)))
def test_it_shows_every_sample_exactly_and_in_order(samples):
    clock = VirtualClock()
    clock.load(samples)
    assert shown(clock, len(samples)) == samples
    assert clock.readings == 2 * len(samples)
    assert shown(clock, 1) == [0.0]  # all have been shown


def test_before_it_is_loaded_it_is_an_ordinary_clock():
    clock = VirtualClock()
    clock.advance()
    assert 0 <= clock() - time.perf_counter() + 1 <= 1
    assert clock.readings == 0
