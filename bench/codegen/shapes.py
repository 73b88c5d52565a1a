"""What one instruction on tensor cores multiplies, read from machine code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from .sass import Instruction

TENSOR = re.compile(r"(?:[A-Z]?G?MMA|UTC[A-Z]*MMA)\b")
"""Opcodes of products on tensor cores: HMMA, IMMA; HGMMA, IGMMA, QGMMA of warp groups; UTCHMMA, UTCQMMA, … of Blackwell. Not HFMA2.MMA."""
WARP = re.compile(r"[A-Z]?MMA\.(?:SP\.)?168(?P<k>\d+)\b")
"""HMMA.16816: 16×8×16, of each warp."""
GROUP = re.compile(r"[A-Z]GMMA\.(?P<m>\d+)x(?P<n>\d+)x(?P<k>\d+)\b")
"""HGMMA.64x128x16, of four warps together."""


class Product(NamedTuple):
    """One instruction."""

    flop: int
    warps: int
    """How many warps do it together; 0: one thread starts it for all."""
    speed: float
    """Relative to 16-bit numbers."""
    shared_bytes: int
    """What it reads from shared memory by itself."""


def product(instruction: Instruction, code: Sequence[Instruction], *, sixteen_bit: bool) -> Product | None:
    """The product of an instruction within `code`; None where its shape cannot be read.

    Blackwell's instructions have their shape in a descriptor (PTX ISA, "Instruction descriptor": columns / 8 in bits 17 to 22, rows / 16
    in bits 24 to 28), which is read where a constant is moved into its register; `sixteen_bit` says that it multiplies such numbers.
    """
    opcode = instruction.opcode
    kind = opcode.partition(".")[0]
    speed = 0.5 if "TF32" in opcode else 2 if kind in ("IMMA", "IGMMA", "QMMA", "QGMMA") else 1
    if found := WARP.match(opcode):
        return Product(2 * 16 * 8 * int(found["k"]), 1, speed, 0)
    if found := GROUP.match(opcode):
        m, n, k = (int(found[name]) for name in "mnk")
        width = k * {0.5: 4, 1: 2, 2: 1}[speed]
        # the first matrix comes from registers or, as the second always does, from shared memory
        from_registers = bool(re.search(r"(?:^|, )R\d+(?:\.\w+)*, gdesc", instruction.operands.partition(",")[2].strip()))
        return Product(2 * m * n * k, 4, speed, width * (n + (0 if from_registers else m)))
    if kind == "UTCHMMA" and sixteen_bit:
        shape = _described(instruction, code)
        if shape is not None:
            m, n = shape
            return Product(2 * m * n * 16, 0, 1, 32 * (n + (m if instruction.operands.startswith("gdesc") else 0)))
    return None


def _described(instruction: Instruction, code: Sequence[Instruction]) -> tuple[int, int] | None:
    """(rows, columns) of a Blackwell product."""
    register = re.search(r"idesc\[UR(\d+)\]", instruction.operands)
    number = _constant(int(register[1]), code.index(instruction), code) if register else None
    if number is None:
        return None
    columns, rows = (number >> 17 & 0x3F) << 3, (number >> 24 & 0x1F) << 4
    return (rows, columns) if rows in (64, 128) and 8 <= columns <= 256 else None


def _constant(register: int, place: int, code: Sequence[Instruction]) -> int | None:
    """What the last instruction before a place moves into a uniform register, if that is a constant."""
    for earlier in reversed(code[:place]):
        target, _, source = earlier.operands.partition(", ")
        written = {register} | ({register - 1} if ".64" in earlier.opcode or "WIDE" in earlier.opcode else set())
        if any(target == f"UR{one}" for one in written):
            constant = re.fullmatch(r"0x[0-9a-f]+", source) if earlier.opcode == "UMOV" and not earlier.guard else None
            return int(constant[0], 16) if constant else None
    return None
