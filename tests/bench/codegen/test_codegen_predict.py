"""The predicted limit, against sums done by hand."""

from __future__ import annotations

import pytest

from kerneldyno.bench.codegen.cards import RATES
from kerneldyno.bench.codegen.predict import Unpredictable, predict
from kerneldyno.bench.codegen.sass import parse

# one round multiplies 128×64 by 64×128, on 8 warps
FLOP = 2 * 128 * 128 * 64


@pytest.mark.parametrize(
    ("arch", "capability", "tensor", "shared", "limit"),
    [
        # 32 KB are written by LDGSTS in 256 clocks; each of 8 warps, 4 by 2 of them, reads 32 rows and 64 columns of 64 numbers: 96 KB
        ("sm_80", (8, 0), 1024, 256 + 768, "tensor cores"),
        # two warp groups read 64 rows and 128 columns each, in four products: 48 KB
        ("sm_90", (9, 0), 512, 256 + 384, "shared memory"),
        # 128 rows and 128 columns once, in four products; 256 are written
        ("sm_100", (10, 0), 256, 256 + 256, "shared memory"),
    ],
)
def test_a_product_by_hand(arch: str, capability: tuple[int, int], tensor: float, shared: float, limit: str, code) -> None:
    found = predict(code(arch), RATES[capability], warps=8, streams=False, sixteen_bit=True)
    assert found.flop == FLOP
    assert found.clocks["tensor cores"] == tensor == FLOP / RATES[capability].tensor
    assert found.clocks["shared memory"] == shared
    assert found.limited_by == limit
    assert found.overlapped == pytest.approx(tensor / max(tensor, shared), abs=1e-4)
    assert found.serial == pytest.approx(tensor / (tensor + shared), abs=1e-4)
    assert found.clocks["issue"] == found.instructions * 8 / 4


def test_what_is_read_once_is_limited_by_the_memory(code) -> None:
    found = predict(code("sm_90"), RATES[9, 0], warps=8, streams=True, sixteen_bit=True)
    assert found.clocks["device memory"] == pytest.approx(32768 / RATES[9, 0].device_bytes, abs=0.01)
    assert found.limited_by == "device memory"


def test_small_numbers_are_counted_as_they_are() -> None:
    loads = ["LDG.E.U16 R1, [R2.64]"] * 2 + ["LDG.E.U8 R1, [R2.64]", "LDG.E.128 R4, [R2.64]", "HMMA.16816.F32 R0, R4, R8, R0"]
    found = predict(of(*loads, "@P0 BRA 0x0", "EXIT"), RATES[8, 0], warps=1, streams=True, sixteen_bit=True)
    assert found.clocks["device memory"] == pytest.approx(32 * (2 + 2 + 1 + 16) / RATES[8, 0].device_bytes, abs=0.01)
    assert found.clocks["shared memory"] == 32 * (4 + 4 + 4 + 16) / 128


@pytest.mark.parametrize(
    ("opcode", "size"),
    [
        ("RED.E.ADD.F32.FTZ.RN.STRONG.GPU", 4),
        ("REDG.E.ADD.F32x4.FTZ.RN.STRONG.GPU", 16),
        ("REDG.E.ADD.F32x2.FTZ.RN.STRONG.GPU", 8),
        ("STG.E.128", 16),
        ("STSM.16.MT88.4", 16),
    ],
)
def test_sums_and_stores_in_memory_are_counted_by_their_bytes(opcode: str, size: int) -> None:
    code = of("HMMA.16816.F32 R0, R4, R8, R0", f"{opcode} [R2.64], R4", "@P0 BRA 0x0", "EXIT")
    found = predict(code, RATES[9, 0], warps=1, streams=False, sixteen_bit=True)
    assert found.clocks["shared memory"] == 32 * size / 128
    assert found.clocks["integer"] == 0


NOTHING = {"warps": 4, "streams": False, "sixteen_bit": True}


def of(*words: str) -> list:
    return list(parse("\n".join(f" /*{16 * i:04x}*/ {word};" for i, word in enumerate(words))))


def test_units_of_instructions() -> None:
    body = (
        ["HMMA.16816.F32 R0, R4, R8, R0"] * 2 + ["MUFU.EX2 R1, R1"] * 4 + ["FFMA R1, R1, R2, R3"] * 8 + ["FMNMX R1, R1, R2, !PT"] * 4
        + ["UIADD3 UR4, UR4, 0x1, URZ", "@!PT LDS.128 R0, [R2]", "LDS.64 R0, [R2]", "IMAD R1, R1, R2, R3"]
    )  # fmt: skip
    code = of(*body, "@P0 BRA 0x0", "EXIT")
    found = predict(code, RATES[9, 0], warps=4, streams=False, sixteen_bit=True)
    assert found.clocks == {
        "tensor cores": 2 * 4 * 4096 / 4096,
        "special functions": 4 * 128 / 16,
        "float32": 8 * 128 / 128 + 128 / 64,
        "integer": 4 * 128 / 64,
        "shared memory": 128 * 8 / 128,
        "issue": 22.0,  # 22 of 23: what never takes place is no slot
    }
    assert found.limited_by == "special functions"


def test_a_half_precision_fma_is_no_product() -> None:
    """Ampere's assembler writes it with MMA in its name, and moves constants with it."""
    found = predict(of("HFMA2.MMA R9, -RZ, RZ, 0, 0", "FFMA R1, R1, R2, R3", "@P0 BRA 0x0", "EXIT"), RATES[8, 0], **NOTHING)
    assert (found.flop, found.clocks["float32"]) == (0, 2 * 128 / 64)


def test_the_loop_without_masks_counts() -> None:
    masked = ["HMMA.16816.F32 R0, R4, R8, R0", *["FSEL R1, R1, R2, P0"] * 9, "@P0 BRA 0x0"]
    plain = ["HMMA.16816.F32 R0, R4, R8, R0", "MUFU.EX2 R1, R1", f"@P0 BRA {16 * len(masked):#x}"]
    found = predict(of(*masked, *plain, "EXIT"), RATES[8, 0], warps=4, streams=False, sixteen_bit=True)
    assert found.instructions == len(plain)


def test_without_tensor_cores_there_is_a_limit_and_no_share() -> None:
    found = predict(of(*["FFMA R1, R1, R2, R3"] * 8, "@P0 BRA 0x0", "EXIT"), RATES[8, 0], warps=4, streams=False, sixteen_bit=False)
    assert found.limited_by == "float32"
    assert (found.overlapped, found.serial, found.flop) == (None, None, 0)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (["FADD R1, R1, R2", "EXIT"], "no loop with products"),
        (["UTCHMMA gdesc[UR2], gdesc[UR4], tmem[UR6], tmem[UR8], idesc[UR9], UPT", "@P0 BRA 0x0", "EXIT"], "shape of UTCHMMA"),
    ],
)
def test_no_prediction_is_made_up(code: list[str], sentence: str) -> None:
    with pytest.raises(Unpredictable, match=sentence):
        predict(of(*code), RATES[10, 0], warps=4, streams=False, sixteen_bit=True)
