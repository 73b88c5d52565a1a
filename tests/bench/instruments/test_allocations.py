"""Traces of allocations: the replay against a model of pages and blocks, and real calls against what they are known to take."""

from __future__ import annotations

import mmap
from collections import namedtuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerneldyno.bench.instruments.allocations import ARENA_BYTES, MARK_BYTES, SMALL_BYTES, Traced, replay, trace

memray = pytest.importorskip("memray", reason="memray exists for Linux and macOS")

Record = namedtuple("Record", "allocator address size")
MALLOC, FREE, MMAP, MUNMAP = (int(getattr(memray.AllocatorType, name)) for name in ("MALLOC", "FREE", "MMAP", "MUNMAP"))
MARK = Record(MMAP, 1, MARK_BYTES)
KIB = 1024
SLACK = 64 * KIB


def one_call(*records: Record) -> list[Traced]:
    return list(replay([MARK, *records, MARK, MARK]))


def test_a_call_is_what_lies_between_the_first_two_marks_and_what_stays_is_counted_at_the_third():
    freed_with_the_output = [Record(MALLOC, 100, 7), MARK, Record(FREE, 100, 0), MARK]
    records = [Record(MALLOC, 50, 1000), MARK, Record(MALLOC, 200, 5), *freed_with_the_output, Record(MALLOC, 300, 2000)]
    assert list(replay(records)) == [Traced(peak_bytes=12, kept_bytes=1005)]


def test_freeing_older_memory_does_not_lower_a_peak_but_what_is_kept():
    again = [MARK, Record(FREE, 100, 0), Record(MALLOC, 300, 5), MARK, MARK]
    assert list(replay([MARK, Record(MALLOC, 100, 8), MARK, MARK, *again])) == [Traced(8, 8), Traced(5, 5)]


def test_memory_of_before_the_trace_is_unknown_and_its_frees_are_nothing():
    assert one_call(Record(FREE, 4, 0), Record(MUNMAP, 8192, 4096), Record(MALLOC, 4, 10)) == [Traced(10, 10)]


PAGES = st.tuples(st.sampled_from(["map", "unmap"]), st.integers(0, 15), st.integers(1, 6))


@given(st.lists(PAGES, max_size=40))
def test_any_range_of_mappings_may_be_unmapped(steps):
    """The model is a set of mapped pages; only what is free is mapped, as the system does it."""
    pages: set[int] = set()
    records, highest = [], 0
    for kind, first, count in steps:
        touched = set(range(first, first + count))
        if kind == "unmap":
            pages -= touched
        elif touched & pages:
            continue
        else:
            pages |= touched
        records.append(Record(MMAP if kind == "map" else MUNMAP, first * 4096, count * 4096))
        highest = max(highest, len(pages))
    assert one_call(*records) == [Traced(highest * 4096, len(pages) * 4096)]


BLOCKS = st.tuples(st.sampled_from(["torch", "numpy", "bytes", "mmap", "free", "free old"]), st.integers(0, 9), st.integers(1, 2048))
MAKE = {
    "torch": lambda size: torch.empty(size, dtype=torch.uint8),
    "numpy": lambda size: np.empty(size, np.uint8),
    "bytes": bytearray,
    "mmap": lambda size: mmap.mmap(-1, size),
}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(BLOCKS, max_size=40))
def test_random_allocations_and_frees_have_the_peak_of_a_model(steps):
    """Executed for real; what stays at the end is the output, and what was there before is freed without lowering anything."""
    old = [bytearray(512 * KIB) for _ in range(10)]
    kept: list[bytearray] = []
    model = {"now": 0, "peak": 0}

    def call():
        held: dict[int, tuple[object, int]] = {}
        for kind, place, kibibytes in steps:
            if kind == "free old":
                old[place] = bytearray()
                continue
            model["now"] -= held.pop(place, (None, 0))[1]
            if kind != "free":
                size = kibibytes * KIB
                held[place] = (MAKE[kind](size), size)
                model["now"] += size
                model["peak"] = max(model["peak"], model["now"])
        kept.append(bytearray(KIB))
        return held

    (traced,) = trace(call, 1, 1, 0.0)
    assert model["peak"] <= traced.peak_bytes <= model["peak"] + SLACK
    assert KIB <= traced.kept_bytes <= KIB + SLACK


def test_it_agrees_with_memrays_own_peak(tmp_path):
    def call():
        first = torch.randn(400, 400)
        return torch.softmax(first @ first, -1)

    call()
    with memray.Tracker(tmp_path / "trace"):
        call()
    with memray.FileReader(tmp_path / "trace") as reader:
        theirs = reader.metadata.peak_memory
    (ours,) = trace(call, 1, 1, 0.0)
    assert abs(ours.peak_bytes - theirs) <= 4 * KIB


def test_pythons_small_objects_do_not_bring_an_arena_into_every_call():
    """Python fetches memory for small objects by the mebibyte: without room for them every one of these calls would count one."""
    filler = [bytes(SMALL_BYTES) for _ in range(60_000)]  # no arena has room any more
    traced = trace(lambda: [bytes(100) for _ in range(25_000)], 5, 5, 0.0)
    assert len(filler) == 60_000
    assert sorted(one.peak_bytes for one in traced)[-2] < ARENA_BYTES // 2


def test_quick_calls_are_many_and_slow_ones_few():
    assert len(trace(lambda: None, 2, 9, 60.0)) == 9
    assert len(trace(lambda: None, 2, 9, 0.0)) == 2


def test_what_is_freed_afterwards_is_not_kept():
    held: list[bytearray] = []
    traced = trace(lambda: held.append(bytearray(100 * KIB)), 3, 3, 0.0, afterwards=lambda _: held.clear())
    assert [one.kept_bytes < KIB and one.peak_bytes >= 100 * KIB for one in traced] == [True] * 3


def test_a_mapping_that_looks_like_a_mark_is_an_error():
    with pytest.raises(RuntimeError, match="maps 8191 bytes itself"):
        trace(lambda: mmap.mmap(-1, MARK_BYTES).close(), 3, 3, 0.0)
