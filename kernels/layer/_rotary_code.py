"""What the kernel that turns queries and keys may be compiled to. No torch and no Triton."""

from __future__ import annotations

from collections.abc import Iterator

from .._code import Configuration, signature

ROTATE = "layer._rotary_triton:rotate_kernel"
ARGUMENTS = "p_x p_cos p_sin T S s_x"
HALVES = (8, 16, 32, 48, 64, 128)
"""Half of head_dim: those of known models, and the ends of what the attention takes."""
NUMBERS = 2048
"""Pairs of features that a program turns: 16 in each thread of 4 warps."""


def constants(half: int) -> tuple[dict[str, int], int]:
    """(what `rotate_kernel` is compiled for, warps) for so many pairs of features."""
    block = 1 << (half - 1).bit_length()
    return {"HALF": half, "BT": max(1, NUMBERS // block), "BD": block}, 4


def configurations(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form that may be launched on a card."""
    for dtype in ("bfloat16", "float32"):
        for half in HALVES:
            fixed, warps = constants(half)
            found = signature(ARGUMENTS, fixed, dtype, more={"p_cos": "*fp32", "p_sin": "*fp32"})
            yield Configuration(
                function=ROTATE,
                capability=capability,
                dtype=dtype,
                size=f"head_dim {2 * half}",
                variant="in place",
                tile=f"{fixed['BT']}×{fixed['BD']} w{warps}",
                signature=found,
                constants=fixed,
                aligned=frozenset(name for name in found if name.startswith("p_") or name == "s_x"),
                warps=warps,
                stages=3,  # what Triton takes where nobody says; it has no loop
                tensor_cores=False,
                representative=(half, dtype) == (64, "bfloat16"),
            )
