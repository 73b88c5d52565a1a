"""Whether a configuration may be offered, by what its binary holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .cards import LIMITS, RATES, arch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kerneldyno.kernels._code import Configuration

    from .facts import Facts


def faults(configuration: Configuration, facts: Facts) -> list[str]:
    """Why it must not be offered, a sentence for each reason; empty when it may be."""
    return [
        *_spilling(configuration, facts),
        *_too_large(configuration, facts),
        *_without_tensor_cores(configuration, facts),
        *_without_roles(configuration, facts),
    ]


def _spilling(configuration: Configuration, facts: Facts) -> Iterator[str]:
    if facts.spills > configuration.spills_allowed:
        allowed = f"{configuration.spills_allowed} are allowed" if configuration.spills_allowed else "none is allowed"
        yield f"spills: {facts.spill_stores} stores and {facts.spill_loads} loads of local memory, {allowed}"


def _too_large(configuration: Configuration, facts: Facts) -> Iterator[str]:
    limits, card = LIMITS[configuration.capability], arch(configuration.capability)
    if facts.shared_bytes > limits.shared_bytes_program:
        yield f"does not fit: {facts.shared_bytes} bytes of shared memory, a program on {card} may have {limits.shared_bytes_program}"
    if facts.threads > limits.threads_program:
        yield f"does not fit: {facts.threads} threads, a program on {card} may have {limits.threads_program}"
    if facts.tensor_columns > limits.tensor_columns:
        yield f"does not fit: {facts.tensor_columns} columns of tensor memory, {card} has {limits.tensor_columns}"
    if facts.occupancy.programs == 0 and facts.occupancy.limited_by == "registers":
        yield f"does not fit: {facts.registers} registers for each of {facts.threads} threads, {card} has {limits.registers} in all"


def _without_tensor_cores(configuration: Configuration, facts: Facts) -> Iterator[str]:
    if not configuration.tensor_cores:
        if facts.tensor:
            yield f"multiplies on tensor cores ({', '.join(facts.tensor)}), where exact products are wanted"
        return
    wanted = configuration.instruction or RATES[configuration.capability].tensor_opcode
    if not any(_same_kind(opcode, wanted) for opcode in facts.tensor):
        found = f"it has {', '.join(facts.tensor)} instead" if facts.tensor else "it has no product on tensor cores"
        yield f"lacks {wanted}, the tensor-core instruction of {arch(configuration.capability)}: {found}"


def _without_roles(configuration: Configuration, facts: Facts) -> Iterator[str]:
    if configuration.specialized and not facts.traded.get("load", 0) < facts.registers < facts.traded.get("multiply", 0):
        yield f"warp groups do not trade registers: {facts.registers} at the launch, then {facts.traded or 'no others'}"


def _same_kind(opcode: str, wanted: str) -> bool:
    """UTCHMMA and UTCQMMA are one kind, of numbers of other widths; so are HGMMA, IGMMA and QGMMA, and HMMA and IMMA."""
    kinds = [tuple(name.startswith("UTC") or part in name for part in ("UTC", "GMMA")) for name in (opcode, wanted)]
    return kinds[0] == kinds[1]
