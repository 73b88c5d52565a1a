"""Crashes in real workers as the self-test plants them: a few of them, in one run."""

from __future__ import annotations

from kerneldyno.bench.selftest import crashes, crashing
from kerneldyno.bench.selftest.context import Context
from kerneldyno.bench.selftest.findings import Control, Finding
from kerneldyno.kernels.registry import Device


def test_each_costs_its_own_case_and_not_its_neighbour_s():
    found = list(crashes._one_run(Context(Device("cpu")), ["aborts", "raises", "runs_out_of_memory_in_torch"]))
    assert [item.caught for item in found if isinstance(item, Finding)] == [True, True, True], found
    (neighbour,) = [item for item in found if isinstance(item, Control)]
    assert neighbour.alarm is False, neighbour.said
    said = {item.plant: item.said for item in found if isinstance(item, Finding)}
    assert "SIGABRT" in said["aborts"]
    assert "out of memory" in said["runs out of memory in torch"]


def test_short_and_meddlers_are_among_the_deeds():
    assert set(crashing.SHORT) | set(crashing.MEDDLERS) <= set(crashing.DEEDS)
    assert {status for _, _, status in crashing.DEEDS.values()} == {"timeout", "failed", "invalid"}
