"""What a binary for a GPU tells: registers, spills, shared memory, instructions, occupancy. Plain data; no torch, no Triton."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from . import sass
from .cards import LIMITS, RATES, Limits
from .predict import Prediction, Unpredictable, predict
from .shapes import TENSOR

if TYPE_CHECKING:
    from kerneldyno.kernels._code import Configuration

COUNTED = {
    "LDGSTS": r"LDGSTS\b",
    "LDGSTS.128": r"LDGSTS\S*\.128\b",
    "UTMALDG": r"UTMALDG\b",
    "WARPGROUP.DEPBAR": r"WARPGROUP\.DEPBAR\b",
    "FFMA": r"FFMA\b",
    "MUFU": r"MUFU\b",
}
"""What else is counted, by the pattern that finds it: asynchronous loads, those of 16 bytes, those of TMA, waits for warp groups."""

Resource = Literal["registers", "shared memory", "threads", "programs", "tensor memory"]


class Occupancy(msgspec.Struct, frozen=True):
    """How many programs a multiprocessor holds at once, and what there would have to be more of for another."""

    programs: int
    limited_by: Resource


class Facts(msgspec.Struct, frozen=True):
    """What was found in one binary."""

    registers: int
    """Of a thread."""
    spill_stores: int
    """Instructions that put registers into local memory …"""
    spill_loads: int
    """… and that fetch them."""
    local_bytes: int
    """Local memory of a thread."""
    shared_bytes: int
    """Of a program, as its launch asks for it."""
    tensor_columns: int
    """Of Blackwell's tensor memory, for a program."""
    threads: int
    """Of a program."""
    instructions: int
    tensor: dict[str, int]
    """Instructions on tensor cores, by opcode."""
    counts: dict[str, int]
    """Others, by the names in COUNTED."""
    traded: dict[str, int]
    """Registers of a thread in warp groups that have roles, once they have traded: those that multiply, and those that load by TMA."""
    occupancy: Occupancy
    prediction: Prediction | None
    """What would limit it if nothing had to wait."""
    unpredictable: str
    """Why there is no prediction, in a sentence; empty when there is one."""

    @property
    def spills(self) -> int:
        return self.spill_stores + self.spill_loads


def read(code: str, usage: str, configuration: Configuration, *, shared_bytes: int, tensor_columns: int, threads: int) -> Facts:
    """The facts of a binary, out of what cuobjdump writes of it with -sass and -res-usage.

    Raises ValueError where that is not what cuobjdump writes, and KeyError for a card that `cards` does not know.
    """
    registers, local = (re.search(rf"\b{name}:(\d+)", usage) for name in ("REG", "STACK"))
    instructions = list(sass.parse(code))
    opcodes = Counter(instruction.opcode for instruction in instructions)
    if registers is None or local is None or not opcodes:
        raise ValueError("no registers or instructions were found in what cuobjdump wrote of the binary")
    found = int(registers[1])
    limits = LIMITS[configuration.capability]
    prediction, unpredictable = _predicted(instructions, configuration, threads)
    return Facts(
        registers=found,
        spill_stores=_count(opcodes, r"STL\b"),
        spill_loads=_count(opcodes, r"LDL\b"),
        local_bytes=int(local[1]),
        shared_bytes=shared_bytes,
        tensor_columns=tensor_columns,
        threads=threads,
        instructions=opcodes.total(),
        tensor=_tensor(opcodes),
        counts={name: _count(opcodes, pattern) for name, pattern in COUNTED.items()},
        traded=traded(instructions),
        occupancy=occupancy(limits, registers=found, shared_bytes=shared_bytes, tensor_columns=tensor_columns, threads=threads),
        prediction=prediction,
        unpredictable=unpredictable,
    )


def _predicted(instructions: Sequence[sass.Instruction], configuration: Configuration, threads: int) -> tuple[Prediction | None, str]:
    """The prediction, or why there is none."""
    if configuration.flattened:
        return None, "its main loop holds the ends of tiles, too, which most rounds skip"
    sixteen_bit = configuration.dtype != "float32"
    try:
        found = predict(
            instructions,
            RATES[configuration.capability],
            warps=configuration.warps if configuration.specialized else threads // 32,
            streams=configuration.streams,
            sixteen_bit=sixteen_bit,
        )
    except Unpredictable as reason:
        return None, str(reason)
    return found, ""


def occupancy(limits: Limits, *, registers: int, shared_bytes: int, tensor_columns: int, threads: int) -> Occupancy:
    """Programs of so many threads on a multiprocessor; 0 where not even one fits.

    As NVIDIA's occupancy calculator has it: registers are given to warps in units, shared memory to programs, less what is kept back.
    """
    warps = -(-threads // 32)
    by_warp = -(-registers * 32 // limits.register_unit) * limits.register_unit
    shared = -(-(shared_bytes + limits.shared_reserved) // limits.shared_unit) * limits.shared_unit
    rooms: dict[Resource, int] = {
        "registers": limits.registers // limits.partitions // by_warp * limits.partitions // warps,
        "shared memory": limits.shared_bytes // shared if shared_bytes <= limits.shared_bytes_program else 0,
        "threads": limits.warps // warps,
        "programs": limits.programs,
    }
    if tensor_columns:
        rooms["tensor memory"] = limits.tensor_columns // tensor_columns
    least = min(rooms, key=lambda name: rooms[name])
    return Occupancy(rooms[least], least)


def traded(instructions: Sequence[sass.Instruction]) -> dict[str, int]:
    """What setmaxnreg has set before products and before loads by TMA, in the order of the code, the least where there are several."""
    found: dict[str, int] = {}
    now = 0
    for instruction in instructions:
        if instruction.opcode.startswith("USETMAXREG"):
            now = int(instruction.operands.split()[-1], 16)
        role = "multiply" if TENSOR.match(instruction.opcode) else "load" if instruction.opcode.startswith("UTMALDG") else ""
        if role and now:
            found[role] = min(found.get(role, now), now)
    return dict(sorted(found.items(), reverse=True))


def _tensor(opcodes: Mapping[str, int]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for opcode, count in opcodes.items():
        if TENSOR.match(opcode):
            found[opcode.partition(".")[0]] += count
    return dict(found)


def _count(opcodes: Mapping[str, int], pattern: str) -> int:
    return sum(count for opcode, count in opcodes.items() if re.match(pattern, opcode))
