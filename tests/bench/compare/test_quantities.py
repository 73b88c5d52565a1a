"""Memory, errors and energy of two measurements: what is a change, and what allocators and rounding may do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench.compare import quantities
from kerneldyno.bench.records import Distance, Energy, Errors, Measurement

MIB = 2**20


def measurement(**fields):
    return Measurement(case="case", status="ok", **fields)


def errors(rms, largest=0.5):
    return Errors(max_ratio=largest, rms_ratio=rms, max_abs=1e-6, relative_rms=1e-7)


# ------------------------------------------------------------------ memory


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        (32 * MIB, 32 * MIB, "SAME"),
        (32 * MIB, 32 * MIB + 4096, "SAME"),
        (32 * MIB, 33 * MIB, "REGRESSED"),
        (32 * MIB, 31 * MIB, "IMPROVED"),
        (0, MIB, "REGRESSED"),
        (0, 512, "SAME"),
    ],
)
def test_peak_bytes(old, new, word):
    found = quantities.memory(measurement(peak_bytes=old), measurement(peak_bytes=new))
    assert found.word == word
    assert (found.base, found.candidate, found.unit) == (old, new, "B")


def test_pages_of_a_device_are_coarser():
    source = "torch CUDA allocator + growth of device memory in use (not in it: what was freed again within the call)"
    old, new = measurement(peak_bytes=32 * MIB, peak_source=source), measurement(peak_bytes=34 * MIB, peak_source=source)
    assert quantities.memory(old, new).word == "SAME"
    assert quantities.memory(measurement(peak_bytes=32 * MIB), measurement(peak_bytes=34 * MIB)).word == "REGRESSED"


def test_leaks_and_weights_count():
    leak = quantities.memory(measurement(peak_bytes=MIB, leak_bytes=0), measurement(peak_bytes=MIB, leak_bytes=512))
    assert leak.word == "REGRESSED"
    assert "512 bytes of every call stay" in leak.reason
    heavy = quantities.memory(measurement(peak_bytes=MIB, weight_bytes=MIB), measurement(peak_bytes=MIB, weight_bytes=2 * MIB))
    assert heavy.word == "REGRESSED"
    assert "weights" in heavy.reason


def test_a_leak_that_grows_counts_and_one_that_stays_does_not():
    def leaking(size):
        return measurement(peak_bytes=MIB, leak_bytes=size)

    assert quantities.memory(leaking(64), leaking(100 * MIB)).word == "REGRESSED"
    assert quantities.memory(leaking(64), leaking(96)).word == "SAME"


def test_different_counters_are_not_compared():
    found = quantities.memory(measurement(peak_bytes=MIB, peak_source="memray"), measurement(peak_bytes=9 * MIB, peak_source="another"))
    assert found.word == "INCONCLUSIVE"
    assert "different counters" in found.reason


def test_power_is_shown_where_there_are_no_joules():
    found = quantities.energy(measurement(energy=Energy(power_w=300.0)), measurement(energy=Energy(power_w=350.0)))
    assert (found.word, found.base, found.candidate, found.unit) == ("INCONCLUSIVE", 300.0, 350.0, "W")


def test_memory_that_was_not_measured_is_unclear():
    found = quantities.memory(measurement(peak_bytes=MIB), measurement(peak_source="not measured: memray is not installed"))
    assert found.word == "INCONCLUSIVE"
    assert "memray" in found.reason


@given(st.integers(0, 2**40), st.integers(0, 2**40))
def test_memory_is_fair_to_both_sides(old, new):
    words = {"REGRESSED": "IMPROVED", "IMPROVED": "REGRESSED", "SAME": "SAME"}
    there = quantities.memory(measurement(peak_bytes=old), measurement(peak_bytes=new)).word
    back = quantities.memory(measurement(peak_bytes=new), measurement(peak_bytes=old)).word
    near = abs(abs(new - old) - quantities.ALLOCATOR_BYTES) <= 0.01 * max(old, new) + 1
    assert near or back == words[there]


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        (errors(0.4), errors(0.4), "SAME"),
        (errors(0.4), errors(0.48), "SAME"),
        (errors(0.4), errors(0.6), "REGRESSED"),
        (errors(0.9), errors(0.4), "IMPROVED"),
        (errors(0.01), errors(0.03), "SAME"),
        (errors(0.4, 0.5), errors(0.4, 1.6), "REGRESSED"),
    ],
)
def test_error_ratios(old, new, word):
    found = quantities.errors(measurement(errors=old), measurement(errors=new))
    assert found.word == word
    assert "naive formula" in found.reason


def test_an_approximation_may_not_drift_away():
    def far(distance):
        return measurement(errors=errors(0.4), distance=Distance(relative_rms=distance, cosine=0.99, max_abs=0.1))

    assert quantities.errors(far(0.010), far(0.0105)).word == "SAME"
    assert quantities.errors(far(0.010), far(0.013)).word == "REGRESSED"
    assert quantities.errors(far(0.013), far(0.010)).word == "IMPROVED"


def test_an_improvement_hides_no_regression():
    better_rms = quantities.errors(measurement(errors=errors(0.8)), measurement(errors=errors(0.5, 1.9)))
    assert better_rms.word == "REGRESSED"
    near, far = (Distance(relative_rms=rms, cosine=0.99, max_abs=0.1) for rms in (0.01, 0.02))
    nearer = quantities.errors(measurement(errors=errors(0.3), distance=far), measurement(errors=errors(1.4), distance=near))
    assert nearer.word == "REGRESSED"


def test_two_kernels_need_not_be_equally_exact():
    exact = measurement(errors=errors(0.4))
    loose = measurement(errors=errors(0.4), distance=Distance(relative_rms=0.08, cosine=0.99, max_abs=0.1))
    assert quantities.errors(exact, loose).word == "REGRESSED"
    told = quantities.errors(exact, loose, one_kernel=False)
    assert told.word == "INCONCLUSIVE"
    assert "the base is exact" in told.reason
    assert quantities.changes(exact, loose, one_kernel=False)["errors"] == told


# ------------------------------------------------------------------ energy


def joules(*windows, valid=True):
    return measurement(energy=Energy(energy_j=sum(windows) / len(windows), windows_j=list(windows), valid=valid))


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        (joules(1.0, 1.01, 0.99, 1.0), joules(1.2, 1.21, 1.19, 1.2), "REGRESSED"),
        (joules(1.0, 1.01, 0.99, 1.0), joules(1.03, 1.03, 1.03, 1.03), "SAME"),
        (joules(1.0, 1.3, 0.99, 1.0), joules(1.2, 1.21, 1.19, 1.2), "SAME"),
        (joules(1.2, 1.21, 1.19, 1.2), joules(1.0, 1.01, 0.99, 1.0), "IMPROVED"),
    ],
)
def test_energy(old, new, word):
    assert quantities.energy(old, new).word == word


def test_energy_that_cannot_be_believed_says_why():
    none = measurement(energy=Energy(reason="this machine exposes no energy counter (RAPL)"))
    assert quantities.energy(none, none).word == "INCONCLUSIVE"
    assert "RAPL" in quantities.energy(none, none).reason
    assert quantities.energy(joules(1.0), joules(2.0, valid=False)).word == "INCONCLUSIVE"


def test_the_worst_of_the_gates():
    found = quantities.changes(measurement(errors=errors(0.4), peak_bytes=MIB), measurement(errors=errors(0.9), peak_bytes=2 * MIB))
    assert quantities.worst(found, ("latency", "errors"))[0] == "errors"
    assert quantities.worst(found, ("memory", "errors"))[0] == "memory"
    assert quantities.worst(found, ("latency",)) is None
