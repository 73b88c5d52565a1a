"""Occupancy, counts and judgement, without compiling."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench.codegen import facts
from kerneldyno.bench.codegen.cards import LIMITS, RATES, arch, capability
from kerneldyno.bench.codegen.facts import Facts, Occupancy, occupancy
from kerneldyno.bench.codegen.judge import faults
from kerneldyno.kernels._code import Configuration

USAGE = "Resource usage:\n Function product_kernel:\n  REG:{} STACK:{} SHARED:1024 LOCAL:0 CONSTANT[0]:1416 TEXTURE:0 SURFACE:0 SAMPLER:0\n"
SPILLING = """
        /*0000*/                   STL.64 [R1+0x8], R14 ;
        /*0010*/                   STL [R1], R19 ;
        /*0020*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR12], R24, gsb0 ;
        /*0030*/                   LDL.LU R4, [R1+0x4] ;
        /*0040*/                   LDGSTS.E.BYPASS.128 [R7], [R2.64] ;
        /*0050*/                   LDGSTS.E.64 [R7], [R2.64] ;
        /*0060*/                   EXIT ;
"""


@pytest.mark.parametrize(
    ("card", "registers", "shared_kb", "columns", "threads", "wanted"),
    [
        # by hand, as NVIDIA's calculator has it
        ((9, 0), 255, 225, 0, 256, (1, "registers")),
        ((9, 0), 128, 96, 0, 256, (2, "registers")),
        ((9, 0), 85, 52, 0, 128, (4, "shared memory")),  # 228 / 53
        ((9, 0), 32, 0, 0, 1024, (2, "registers")),
        ((9, 0), 80, 0, 0, 32, (24, "registers")),  # 6 warps in each of four partitions
        ((9, 0), 16, 0, 0, 32, (32, "programs")),
        ((8, 6), 40, 99, 0, 128, (1, "shared memory")),
        ((8, 6), 40, 100, 0, 128, (0, "shared memory")),
        ((8, 6), 16, 1, 0, 256, (6, "threads")),
        ((9, 0), 255, 1, 0, 512, (0, "registers")),
        ((10, 0), 64, 20, 512, 128, (1, "tensor memory")),
    ],
)
def test_occupancy_by_hand(
    card: tuple[int, int], registers: int, shared_kb: int, columns: int, threads: int, wanted: tuple[int, str]
) -> None:
    found = occupancy(LIMITS[card], registers=registers, shared_bytes=shared_kb << 10, tensor_columns=columns, threads=threads)
    assert (found.programs, found.limited_by) == wanted


@given(st.sampled_from(sorted(LIMITS)), st.integers(1, 255), st.integers(0, 250_000), st.integers(1, 32), st.data())
def test_who_takes_more_is_held_less_often(card: tuple[int, int], registers: int, shared: int, warps: int, data: st.DataObject) -> None:
    def programs(registers: int, shared: int, warps: int) -> int:
        return occupancy(LIMITS[card], registers=registers, shared_bytes=shared, tensor_columns=0, threads=32 * warps).programs

    found = programs(registers, shared, warps)
    assert programs(data.draw(st.integers(registers, 255)), shared, warps) <= found
    assert programs(registers, data.draw(st.integers(shared, 260_000)), warps) <= found
    assert programs(registers, shared, data.draw(st.integers(warps, 32))) <= found
    assert found * warps <= LIMITS[card].warps
    assert found * 32 * warps * registers <= LIMITS[card].registers
    assert found * shared <= LIMITS[card].shared_bytes


def test_what_is_counted(configuration: Callable[..., Configuration]) -> None:
    found = facts.read(SPILLING, USAGE.format(255, 16), configuration(), shared_bytes=4096, tensor_columns=0, threads=256)
    assert (found.registers, found.spill_stores, found.spill_loads, found.local_bytes) == (255, 2, 1, 16)
    assert found.tensor == {"HGMMA": 1}
    assert (found.counts["LDGSTS"], found.counts["LDGSTS.128"]) == (2, 1)
    assert found.instructions == 7
    assert found.prediction is None
    assert "no loop" in found.unpredictable


def test_a_loop_that_holds_more_than_a_round_is_not_counted(configuration: Callable[..., Configuration]) -> None:
    found = facts.read(SPILLING, USAGE.format(255, 16), configuration(flattened=True), shared_bytes=0, tensor_columns=0, threads=256)
    assert found.prediction is None
    assert "which most rounds skip" in found.unpredictable


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
def test_of_a_real_binary(arch: str, written: Callable[[str], str], configuration: Callable[..., Configuration]) -> None:
    card = capability(arch)
    assert card
    given_ = {"shared_bytes": 65536, "tensor_columns": 128 if card == (10, 0) else 0, "threads": 256}
    found = facts.read(written(arch), USAGE.format(108, 0), configuration(capability=card), **given_)
    assert found.spills == 0
    assert found.tensor == {RATES[card].tensor_opcode: {"sm_80": 64, "sm_90": 4, "sm_100": 8}[arch]}
    assert found.counts["LDGSTS"] == found.counts["LDGSTS.128"] > 0
    assert found.prediction
    assert faults(configuration(capability=card), found) == []


@pytest.mark.parametrize("code", ["", "no machine code at all"])
def test_what_is_no_machine_code_is_refused(code: str, configuration: Callable[..., Configuration]) -> None:
    with pytest.raises(ValueError, match="no registers or instructions"):
        facts.read(code, USAGE.format(1, 0), configuration(), shared_bytes=0, tensor_columns=0, threads=32)


SOUND = Facts(
    registers=128, spill_stores=0, spill_loads=0, local_bytes=0, shared_bytes=98304, tensor_columns=0, threads=256, instructions=1000,
    tensor={"HGMMA": 4}, counts={}, traded={}, occupancy=Occupancy(2, "registers"), prediction=None, unpredictable="it has no loop",
)  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "found", "sentence"),
    [
        ({}, {}, None),
        ({"spills_allowed": 3}, {"spill_stores": 2, "spill_loads": 1}, None),
        ({"spills_allowed": 2}, {"spill_stores": 2, "spill_loads": 1}, "spills: 2 stores and 1 loads of local memory, 2 are allowed"),
        ({}, {"spill_loads": 1}, "none is allowed"),
        ({}, {"shared_bytes": 232449}, "232449 bytes of shared memory, a program on sm_90 may have 232448"),
        ({}, {"threads": 1056}, "1056 threads"),
        ({}, {"tensor_columns": 16}, "16 columns of tensor memory, sm_90 has 0"),
        ({}, {"occupancy": Occupancy(0, "registers"), "threads": 512, "registers": 255}, "255 registers for each of 512 threads"),
        ({}, {"tensor": {}}, "lacks HGMMA, the tensor-core instruction of sm_90: it has no product on tensor cores"),
        ({}, {"tensor": {"HMMA": 16}}, "it has HMMA instead"),
        ({"instruction": "HMMA"}, {"tensor": {"HMMA": 16}}, None),
        ({"instruction": "HMMA"}, {}, "lacks HMMA"),
        ({}, {"tensor": {"QGMMA": 4}}, None),
        ({"capability": (10, 0)}, {"tensor": {"UTCQMMA": 4}}, None),
        ({"capability": (10, 0)}, {}, "lacks UTCHMMA"),
        ({"capability": (8, 0), "instruction": "HMMA"}, {"tensor": {"IMMA": 4}, "shared_bytes": 0}, None),
        ({"tensor_cores": False}, {"tensor": {}}, None),
        ({"specialized": True}, {"traded": {"multiply": 240, "load": 24}}, None),
        ({"specialized": True}, {}, "warp groups do not trade registers: 128 at the launch, then no others"),
        ({"specialized": True}, {"traded": {"multiply": 120, "load": 24}}, "do not trade registers"),
        ({"tensor_cores": False}, {}, "multiplies on tensor cores (HGMMA), where exact products are wanted"),
    ],
)
def test_judgement(asked: dict, found: dict, sentence: str | None, configuration: Callable[..., Configuration]) -> None:
    told = faults(dataclasses.replace(configuration(), **asked), msgspec.structs.replace(SOUND, **found))
    assert len(told) == (sentence is not None)
    if sentence:
        assert sentence in told[0]


@pytest.mark.parametrize(("word", "wanted"), [("sm_90", (9, 0)), ("90", (9, 0)), (" SM90 ", (9, 0)), ("9.0", (9, 0)), ("100", (10, 0))])
def test_names_of_cards(word: str, wanted: tuple[int, int]) -> None:
    assert capability(word) == wanted
    assert capability(arch(wanted)) == wanted


@given(st.text(max_size=8))
def test_other_names_are_unknown_or_known_cards(word: str) -> None:
    assert capability(word) in {None, *LIMITS}


def test_every_card_has_limits_and_rates() -> None:
    assert set(LIMITS) == set(RATES)
