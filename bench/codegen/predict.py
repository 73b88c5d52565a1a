"""What would limit a kernel if nothing ever had to wait: the instructions of its main loop, counted by the unit that they occupy.

A prediction by counting, not a measurement. It knows nothing of latency, bank conflicts, caches, waits for barriers or how well the
assembler's order lets units work side by side, and of loads and sums by TMA it does not know the size. What a branch within the loop may
pass over, such as the masks of the backward kernels, is counted as if it always took place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import msgspec

from .cards import Rates
from .loops import loops
from .sass import Instruction
from .shapes import TENSOR, Product, product

Unit = Literal["tensor cores", "special functions", "float32", "integer", "shared memory", "issue", "device memory"]

SPECIAL = re.compile(r"MUFU|(I2F|F2I|F2F|FRND)\b")
PACKED = re.compile(r"F(FMA|MUL|ADD)2\b")
FLOAT = re.compile(r"FFMA|FMUL|FADD|HFMA2|HADD2|HMUL2")
MULTIPLY_INTEGERS = re.compile(r"IMAD|IDP")
MEMORY = re.compile(r"LD[SGL]?\b|ST[SGL]?\b|LDSM|STSM|LDGSTS|ATOM|REDG?\b|SHFL")
FROM_DEVICE = re.compile(r"LDG\b|LDGSTS")
ISSUED_ONLY = re.compile(
    r"U[A-Z]|BRA|BSSY|BSYNC|BAR|NOP|EXIT|CALL|RET|WARPSYNC|WARPGROUP|DEPBAR|LDGDEPBAR|SYNCS|FENCE|MEMBAR|CCTL|ERRBAR|"
    r"S2R|S2UR|CS2R|R2UR|VOTE|ELECT|LDC|LDTM|STTM|NANOSLEEP|YIELD"
)
"""Control, the uniform unit, constants, tensor memory: they take their slot and no unit that is counted."""


class Prediction(msgspec.Struct, frozen=True):
    """One round of the main loop of one program, on a multiprocessor of its own."""

    limited_by: Unit
    clocks: dict[Unit, float]
    """For each unit, what its part of the round takes."""
    flop: int
    """Of products on tensor cores."""
    instructions: int
    """Of one warp."""
    overlapped: float | None
    """Share of the tensor cores' rate that is left when all units work at once: theirs over the longest. None without products there."""
    serial: float | None
    """The same when tensor cores and everything else take turns: theirs over theirs and the longest other one."""


class Unpredictable(Exception):
    """There is no prediction; the message says why, in a sentence."""


class _Counted(NamedTuple):
    clocks: dict[Unit, float]
    flop: int
    instructions: int


def predict(code: Sequence[Instruction], rates: Rates, *, warps: int, streams: bool, sixteen_bit: bool) -> Prediction:
    """The limit of the main loop: of the innermost loops with products, the one that does most of them for each instruction.

    That is the loop without masks, where there are several. Without products on tensor cores it is the one with the most FMAs. `streams`:
    what is loaded is read once, from the device's memory. Raises Unpredictable.
    """
    inner = [loop.body for loop in loops(code) if loop.inner]
    counted = [_count(code, body, rates, warps, streams=streams, sixteen_bit=sixteen_bit) for body in inner if _products(body)]
    if not counted:
        inner = [body for body in inner if any(FLOAT.match(i.opcode) for i in body)]
        if not inner:
            raise Unpredictable("it has no loop with products: it waits for memory")
        body = max(inner, key=lambda body: sum(bool(FLOAT.match(i.opcode)) for i in body))
        counted = [_count(code, body, rates, warps, streams=streams, sixteen_bit=sixteen_bit)]
    best = max(counted, key=lambda found: (found.flop / found.instructions, -found.instructions))
    limit = max(best.clocks, key=lambda unit: best.clocks[unit])
    tensor = best.clocks["tensor cores"]
    others = max(clocks for unit, clocks in best.clocks.items() if unit != "tensor cores")
    return Prediction(
        limited_by=limit,
        clocks={unit: round(clocks, 2) for unit, clocks in best.clocks.items()},
        flop=best.flop,
        instructions=best.instructions,
        overlapped=round(tensor / best.clocks[limit], 4) if tensor else None,
        serial=round(tensor / (tensor + others), 4) if tensor else None,
    )


def _products(body: Sequence[Instruction]) -> bool:
    return any(TENSOR.match(i.opcode) for i in body)


def _count(
    code: Sequence[Instruction], body: Sequence[Instruction], rates: Rates, warps: int, *, streams: bool, sixteen_bit: bool
) -> _Counted:
    """Clocks by unit, for a program of so many warps."""
    taken = [i for i in body if i.guard != "@!PT"]
    found: dict[Unit, float] = dict.fromkeys(("tensor cores", "special functions", "float32", "integer", "shared memory"), 0.0)
    flop = 0.0
    for instruction in taken:
        if TENSOR.match(instruction.opcode):
            made = product(instruction, code, sixteen_bit=sixteen_bit)
            if made is None:
                raise Unpredictable(f"the shape of {instruction.opcode} is not to be read from the code")
            flop += made.flop * _times(made, warps)
            found["tensor cores"] += made.flop * _times(made, warps) / (rates.tensor * made.speed)
            found["shared memory"] += made.shared_bytes * _times(made, warps) / rates.memory_bytes
        elif (unit := _unit(instruction.opcode)) is not None:
            found[unit] += _clocks(instruction.opcode, unit, rates, warps)
    found["issue"] = len(taken) * warps / rates.issue
    device_bytes = sum(32 * warps * _loaded(i.opcode) for i in taken if FROM_DEVICE.match(i.opcode))
    if streams and device_bytes:
        found["device memory"] = device_bytes / rates.device_bytes
    return _Counted(found, round(flop), len(taken))


def _unit(opcode: str) -> Unit | None:
    """What an instruction occupies beside its slot, if that is counted."""
    if SPECIAL.match(opcode):
        return "special functions"
    if FLOAT.match(opcode) or MULTIPLY_INTEGERS.match(opcode):
        return "float32"
    if MEMORY.match(opcode):
        return "shared memory"
    return None if ISSUED_ONLY.match(opcode) else "integer"


def _clocks(opcode: str, unit: Unit, rates: Rates, warps: int) -> float:
    """For how long: an instruction of a warp has 32 results."""
    results = 32 * warps
    if unit == "shared memory":
        return results * _bytes(opcode) / rates.memory_bytes
    if unit == "float32":
        # half of the lanes that multiply floats multiply integers, too, where there are 128
        return results / 64 if MULTIPLY_INTEGERS.match(opcode) else results / rates.fp32 * (2 if PACKED.match(opcode) else 1)
    return results / (rates.special if unit == "special functions" else rates.integer)


def _times(made: Product, warps: int) -> float:
    """How often a product takes place in a program, if each of its warps comes by."""
    return 1 if made.warps == 0 else warps / made.warps


def _loaded(opcode: str) -> int:
    """Bytes that one thread loads."""
    parts = set(opcode.split("."))
    return 1 if parts & {"U8", "S8"} else 2 if parts & {"U16", "S16"} else _bytes(opcode)


def _bytes(opcode: str) -> int:
    """Of one thread, at least one bank."""
    parts = opcode.split(".")
    if parts[0] in ("LDSM", "STSM"):
        return 4 * next((int(part) for part in parts if part in ("2", "4")), 1)
    return 16 if {"128", "F32x4"} & set(parts) else 8 if {"64", "F32x2"} & set(parts) else 4
