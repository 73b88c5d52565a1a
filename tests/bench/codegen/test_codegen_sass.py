"""Reading machine code: lines, loops, shapes of products. The cases with addresses are of real binaries."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerneldyno.bench.codegen.loops import loops
from kerneldyno.bench.codegen.sass import Instruction, parse
from kerneldyno.bench.codegen.shapes import product

LINES = """
\t\tFunction : prefill_kernel
\t.headerflags\t@"EF_CUDA_TEXMODE_UNIFIED EF_CUDA_64BIT_ADDRESS EF_CUDA_ACCELERATORS EF_CUDA_SM90"
        /*0000*/                   LDC R1, c[0x0][0x28] ;                                             /* 0x00000a00ff017b82 */
                                                                                                      /* 0x000e700000000800 */
        /*0910*/                   STL [R1], R19 ;                                                    /* 0x0000001301007387 */
        /*0a00*/              @!P0 BRA 0x9340 ;                                                       /* 0x0000008800a48947 */
        /*0c00*/                   @UP1 UTMALDG.4D [UR40], [UR8] ;                                    /* 0x00000028080015b4 */
        /*64d0*/                   LDL.LU R4, [R1+0x4] ;                                              /* 0x0000040001047983 */
        /*9460*/                   BRA 0x9460;                                                        /* 0xfffffffc00fc7947 */
"""


def test_lines_become_instructions() -> None:
    assert list(parse(LINES)) == [
        Instruction(0x0, "", "LDC", "R1, c[0x0][0x28]"),
        Instruction(0x910, "", "STL", "[R1], R19"),
        Instruction(0xA00, "@!P0", "BRA", "0x9340"),
        Instruction(0xC00, "@UP1", "UTMALDG.4D", "[UR40], [UR8]"),
        Instruction(0x64D0, "", "LDL.LU", "R4, [R1+0x4]"),
        Instruction(0x9460, "", "BRA", "0x9460"),
    ]


@given(
    st.integers(0, 0xFFFFF),
    st.sampled_from(["", "@P0", "@!P6", "@UP2", "@!UPT"]),
    st.from_regex(r"[A-Z]{2,8}(\.[A-Z0-9]{1,6}){0,3}", fullmatch=True),
    st.from_regex(r"R\d{1,3}(, R\d{1,3}){0,3}", fullmatch=True),
)
def test_an_instruction_is_read_as_it_was_written(address: int, guard: str, opcode: str, operands: str) -> None:
    line = f"        /*{address:04x}*/              {guard} {opcode} {operands} ;   /* 0x0000000000000000 */"
    assert list(parse(line)) == [Instruction(address, guard, opcode, operands)]


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
def test_no_line_of_a_binary_is_passed_over(arch: str, written, code) -> None:
    found = code(arch)
    assert len(found) == len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/", written(arch), re.MULTILINE))
    assert [later.address - earlier.address for earlier, later in pairwise(found)] == [16] * (len(found) - 1)


def instructions(*words: str) -> list[Instruction]:
    """One every 16 bytes: "opcode", or "@P0 BRA 0x10"."""
    return list(parse("\n".join(f" /*{16 * i:04x}*/ {word};" for i, word in enumerate(words))))


def test_a_loop_within_a_loop() -> None:
    code = instructions("MOV", "FADD", "FFMA", "@P0 BRA 0x20", "IADD3", "@P1 BRA 0x10", "EXIT", "BRA 0x70")
    found = {loop.head: loop for loop in loops(code)}
    assert set(found) == {0x10, 0x20}  # nothing leads to the last one
    assert [i.address for i in found[0x10].body] == [0x10, 0x20, 0x30, 0x40, 0x50]
    assert (found[0x10].inner, found[0x20].inner) == (False, True)


def test_an_uniform_branch_may_fall_through() -> None:
    code = instructions("MOV", "FFMA", "BRA.U !UP1, 0x10", "IADD3", "EXIT")
    assert [[i.opcode for i in loop.body] for loop in loops(code)] == [["FFMA", "BRA.U"]]


def test_a_wait_beside_the_way_is_no_loop() -> None:
    """The assembler puts the spinning on a barrier behind the end: its jump back is none of a loop."""
    code = instructions(
        "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R2", "@!P0 BRA 0x50", "HGMMA.64x64x16.F32.BF16", "@P1 BRA 0x0", "EXIT",
        "SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR4], R2", "@!P0 BRA 0x50", "BRA 0x20",
    )  # fmt: skip
    (found,) = loops(code)
    assert found.head == 0
    assert found.inner


@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
def test_the_product_has_one_loop_with_products(arch: str, code) -> None:
    found = [loop for loop in loops(code(arch)) if any("MMA" in i.opcode for i in loop.body)]
    assert len(found) == 1
    assert found[0].inner


@pytest.mark.parametrize(
    ("opcode", "operands", "wanted"),
    [
        # (FLOP, warps, speed, bytes from shared memory)
        ("HMMA.16816.F32.BF16", "R4, R8, R2, R4", (4096, 1, 1, 0)),
        ("HMMA.1688.F32.TF32", "R4, R8, R2, R4", (2048, 1, 0.5, 0)),
        ("IMMA.16832.S8.S8", "R4, R8, R2, R4", (8192, 1, 2, 0)),
        ("HGMMA.64x128x16.F32.BF16", "R24, gdesc[UR12], R24, gsb0", (262144, 4, 1, 6144)),
        ("HGMMA.64x64x16.F32.BF16", "R88, R120, gdesc[UR12].tnspB, R88", (131072, 4, 1, 2048)),
        ("QGMMA.64x64x32.F32.E4M3.E4M3", "R88, gdesc[UR12], R88", (262144, 4, 2, 4096)),
        ("DMMA.884", "R2, R4, R6, R2", None),
    ],
)
def test_shapes_of_products(opcode: str, operands: str, wanted: object) -> None:
    assert product(Instruction(0, "", opcode, operands), [], sixteen_bit=True) == wanted


BLACKWELL = "UTCHMMA gdesc[UR10], gdesc[UR12], tmem[UR7], tmem[UR32], idesc[UR33], !UPT"


def test_a_shape_in_a_descriptor_is_read_where_it_is_a_constant() -> None:
    code = instructions("UMOV UR33, 0x8200490", "UMOV UR32, URZ", BLACKWELL)
    # 128 rows, 128 columns, both operands in shared memory
    assert product(code[-1], code, sixteen_bit=True) == (2 * 128 * 128 * 16, 0, 1, 32 * 256)
    assert product(code[-1], code, sixteen_bit=False) is None


@pytest.mark.parametrize("between", ["UMOV UR33, UR2", "@UP1 UMOV UR33, 0x8200490", "UIADD3.64 UR32, UR4, 0x40, URZ", "R2UR UR33, R5"])
def test_a_shape_that_is_not_a_constant_is_not_guessed(between: str) -> None:
    code = instructions("UMOV UR33, 0x8200490", between, BLACKWELL)
    assert product(code[-1], code, sixteen_bit=True) is None
