"""What is read out of /proc and /sys, on invented machines."""

from __future__ import annotations

import os

import pytest

from kerneldyno.bench.instruments import processor

X86 = """processor\t: 0
model name\t: AMD EPYC 9654 96-Core Processor
flags\t\t: fpu sse4_2 avx avx2 fma avx512f avx512_vnni hypervisor

processor\t: 1
model name\t: another
"""
ARM = """processor\t: 0
Features\t: fp asimd asimddp sve i8mm bf16
"""


def test_name_and_instruction_sets(tmp_path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(X86)
    assert processor.name(file) == "AMD EPYC 9654 96-Core Processor"
    assert processor.features(file) == ("sse4_2", "avx", "fma", "avx2", "avx512f", "avx512_vnni")


def test_a_processor_without_a_model_name(tmp_path) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(ARM)
    assert processor.name(file)
    assert set(processor.features(file)) == {"asimd", "asimddp", "sve", "i8mm", "bf16"}
    assert processor.name(tmp_path / "nowhere")
    assert processor.features(tmp_path / "nowhere") == ()


@pytest.mark.parametrize(("text", "share"), [("max 100000", None), ("100000 100000", 1), ("150000 100000", 2), ("1000 100000", 1)])
def test_cores_are_those_of_the_container(tmp_path, text, share) -> None:
    (tmp_path / "cpu.max").write_text(text)
    allowed = len(os.sched_getaffinity(0))
    assert processor.cores(tmp_path) == min(allowed, share or allowed)


def test_cores_under_an_old_cgroup_and_without_one(tmp_path) -> None:
    allowed = len(os.sched_getaffinity(0))
    assert processor.cores(tmp_path) == allowed
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000")
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1")
    assert processor.cores(tmp_path) == allowed
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("100000")
    assert processor.cores(tmp_path) == 1


def test_memory_is_that_of_the_container(tmp_path) -> None:
    whole = processor.memory_bytes(tmp_path)
    assert whole > 2**28
    (tmp_path / "memory.max").write_text("max\n")
    assert processor.memory_bytes(tmp_path) == whole
    (tmp_path / "memory.max").write_text("268435456\n")
    assert processor.memory_bytes(tmp_path) == 2**28


def cache(root, cpu: int, index: int, level: int, size: str, shared: str, kind: str = "Unified") -> None:
    folder = root / f"cpu{cpu}" / "cache" / f"index{index}"
    folder.mkdir(parents=True)
    for name, text in (("level", level), ("type", kind), ("size", size), ("shared_cpu_list", shared)):
        (folder / name).write_text(f"{text}\n")


def test_the_last_level_cache_counts_each_shared_part_once(tmp_path) -> None:
    for cpu in range(4):
        cache(tmp_path, cpu, 0, 1, "32K", str(cpu), "Data")
        cache(tmp_path, cpu, 1, 1, "32K", str(cpu), "Instruction")
        cache(tmp_path, cpu, 3, 3, "32768K", "0-1" if cpu < 2 else "2-3")
    assert processor.last_level_cache(tmp_path, range(4)) == 64 * 2**20
    assert processor.last_level_cache(tmp_path, [0, 1]) == 32 * 2**20
    assert processor.last_level_cache(tmp_path / "nowhere", [0]) is None
    cache(tmp_path, 9, 0, 2, "4M", "9")
    assert processor.last_level_cache(tmp_path, [9]) == 4 * 2**20
