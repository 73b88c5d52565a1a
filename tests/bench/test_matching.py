"""What must be equal for measurements to stand in one run, and that a difference is told in words."""

from __future__ import annotations

import msgspec
import pytest

from kerneldyno.bench.manifest import PROTOCOLS, Environment, Manifest, Settings
from kerneldyno.bench.matching import differences
from kerneldyno.bench.records import Case

MACHINE = Environment(
    device="cuda:0", device_name="NVIDIA H100", os="Linux", python="3.11.7", versions={"torch": "2.13.0", "triton": "3.7.1"},
    cpu_name="Some CPU", cpu_cores=8, cpu_features=("avx2", "fma"), memory_bytes=1 << 36, threads=8,
    gpu={"driver_major": 570, "cuda": "12.8", "power_limit_w": 700, "clock_mhz": 1980},
)  # fmt: skip
CASE = Case(
    kernel="attention/eager", family="eager", operator="attention", problem={"batch": 1, "shape": (2, 3)}, label="1x8x128x64", batch=1,
    seq_len=128, tokens=128, dtype="float32", direction="forward", device="cpu", seed=0, flops=1000, min_bytes=100, approximate=False,
    baseline="attention/sdpa",
)  # fmt: skip
MANIFEST = Manifest(
    version="0.1.0", created="2025-01-01T00:00:00+00:00", settings=Settings(protocol=PROTOCOLS["default"]), environment=MACHINE,
    cases=[CASE], sources={"attention/eager": "aa", "attention/sdpa": "bb"},
)  # fmt: skip


def changed(struct: msgspec.Struct, **changes: object) -> msgspec.Struct:
    return msgspec.structs.replace(struct, **changes)


def with_settings(**changes: object) -> Manifest:
    return changed(MANIFEST, settings=changed(MANIFEST.settings, **changes))


def with_machine(**changes: object) -> Manifest:
    return changed(MANIFEST, environment=changed(MACHINE, **changes))


@pytest.mark.parametrize(
    "current",
    [
        MANIFEST,
        changed(MANIFEST, created="2026-01-01T00:00:00+00:00", version="0.1.1"),
        with_settings(budget_s=60.0, build_timeout_s=1.0, call_timeout_s=1.0, command="another"),
        with_machine(python="3.11.9", memory_bytes=1, commit="abcdef", os="Linux 7"),
        with_machine(gpu={**MACHINE.gpu, "clock_mhz": 1410}),  # measured, so never compared
        changed(MANIFEST, cases=[changed(CASE, problem={"shape": [2, 3], "batch": 1})]),  # as JSON brings it back
    ],
)
def test_what_does_not_change_the_meaning_of_a_number_may_differ(current: Manifest) -> None:
    assert differences(MANIFEST, current) == []


@pytest.mark.parametrize(
    ("current", "told"),
    [
        (with_settings(protocol=PROTOCOLS["full"]), ["protocol: default there, full here"]),
        (with_settings(protocol=changed(PROTOCOLS["default"], cap_s=9.0)), ["protocol default, cap_s: 3.0 there, 9.0 here"]),
        (with_settings(processes=3, energy="on"), ["processes: 1 there, 3 here", "energy: auto there, on here"]),
        (with_machine(device="cuda:1", device_name="NVIDIA L4"),
         ["device: cuda:0 there, cuda:1 here", "device_name: NVIDIA H100 there, NVIDIA L4 here"]),
        (with_machine(versions={"torch": "2.14.0", "onnx": "1.18"}),
         ["onnx: none there, 1.18 here", "torch: 2.13.0 there, 2.14.0 here", "triton: 3.7.1 there, none here"]),
        (with_machine(python="3.12.1"), ["python: 3.11.7 there, 3.12.1 here"]),
        (with_machine(threads=4), ["threads: 8 there, 4 here"]),
        (with_machine(cpu_features=("avx2",)), ["cpu_features: fma"]),
        (with_machine(gpu={**MACHINE.gpu, "driver_major": 580}), ["driver_major: 570 there, 580 here"]),
        (with_machine(gpu=None),
         ["cuda: 12.8 there, none here", "driver_major: 570 there, none here", "power_limit_w: 700 there, none here"]),
        (with_machine(worker_settings={"MALLOC_ARENA_MAX": "1"}), ["MALLOC_ARENA_MAX: none there, 1 here"]),
        (changed(MANIFEST, sources={"attention/eager": "ff", "attention/new": "cc"}),
         ["the source of kernel attention/eager has changed", "kernel attention/new is new", "kernel attention/sdpa is gone"]),
        (changed(MANIFEST, cases=[]), ["case attention/eager 1x8x128x64: no longer planned"]),
        (changed(MANIFEST, cases=[CASE, changed(CASE, seed=1, label="other"), changed(CASE, seed=2)]),
         ["case attention/eager other and 1 more: not planned then"]),
        (changed(MANIFEST, cases=[changed(CASE, flops=2000)]), ["case attention/eager 1x8x128x64, flops: 1000 there, 2000 here"]),
    ],
)  # fmt: skip
def test_each_difference_is_told_with_both_values(current: Manifest, told: list[str]) -> None:
    assert differences(MANIFEST, current) == told


OTHERS = {
    "versions": {"torch": "9"}, "worker_settings": {"A": "1"}, "gpu": {"driver_major": 1}, "cpu_features": ("x",), "python": "4.0",
    "cpu_cores": 99, "memory_bytes": 99, "threads": 99,
}  # fmt: skip


@pytest.mark.parametrize("name", MACHINE.__struct_fields__)
def test_a_difference_is_told_exactly_where_the_fingerprint_sees_one(name: str) -> None:
    """A field that joins the fingerprint one day must not let a difference pass without a word."""
    current = with_machine(**{name: OTHERS.get(name, "x")})
    assert bool(differences(MANIFEST, current)) == (current.environment.fingerprint != MACHINE.fingerprint)
