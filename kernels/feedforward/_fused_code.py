"""What the kernels of the feed-forward network may be compiled to, in every form that they may be launched in. No torch and no Triton.

float16 is left out: its code is that of bfloat16 but for one conversion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .._code import Configuration, signature
from ..contract import ITEM_BYTES
from ._fused_tiles import Tiles, constants, norm_constants, offered, tiles

LINEAR = "feedforward._fused_triton:linear_kernel"
LINEAR_ARGUMENTS = "p_x p_w p_g p_b p_bg p_r p_y T K N s_x s_r"
NORM = "feedforward._fused_triton:norm_kernel"
NORM_ARGUMENTS = "p_x p_w p_b p_y s_x D eps"


@dataclass(frozen=True)
class Asked:
    """What a problem asks of one linear layer."""

    activation: str = "none"
    gated: bool = False
    bias: bool = False
    residual: bool = False


VARIANTS = {
    "plain": Asked(),
    "relu, bias": Asked("relu", bias=True),
    "gelu, bias": Asked("gelu", bias=True),
    "gelu_tanh": Asked("gelu_tanh"),
    "silu, gated": Asked("silu", gated=True),
    "gelu, gated, bias, residual": Asked("gelu", gated=True, bias=True, residual=True),
    "bias, residual": Asked(bias=True, residual=True),
}
"""Together they hold every activation and everything around the products: W1 with and without a gate, and W2."""
INPUTS = (4096, 4080, 100)
"""Of a layer: a multiple of every tile, of 16 alone, and rows that begin anywhere."""
DIMS = (64, 1024, 2048, 4096, 8192, 16384, 32768)
"""Of a norm: every number of warps, as wide as it takes."""
REPRESENTATIVE = {("gelu, bias", 1 << 62), ("silu, gated", 1 << 62), ("silu, gated", 16)}
"""Variant, and the number of tokens up to which the tiles are meant."""


def configuration(
    capability: tuple[int, int], inputs: int, dtype: str, variant: str, asked: Asked, cut: Tiles, *, representative: bool = False
) -> Configuration:
    """The linear kernel for so many inputs, with as many outputs, and rows of x and of what is added at multiples of as many."""
    fixed = dict(constants(cut, inputs, asked.activation))
    warps, stages = (int(str(fixed.pop(name))) for name in ("num_warps", "num_stages"))
    absent = {"p_g": asked.gated, "p_bg": asked.gated and asked.bias, "p_b": asked.bias, "p_r": asked.residual}
    fixed |= {name: None for name, given in absent.items() if not given}
    found = signature(LINEAR_ARGUMENTS, fixed, dtype)
    multiples = {"K", "N", "s_x", "s_r"} if inputs % 16 == 0 else set()
    return Configuration(
        function=LINEAR,
        capability=capability,
        dtype=dtype,
        size=f"{inputs} inputs",
        variant=variant,
        tile=str(cut),
        signature=found,
        constants=fixed,
        aligned=frozenset(name for name in found if name.startswith("p_") or name in multiples),
        warps=warps,
        stages=stages,
        tensor_cores=dtype != "float32",
        # warp groups take 64 rows
        instruction="HMMA" if cut.bt < 64 else "",
        streams=cut.bt < 64,  # one block of tokens: each number of the matrix is read once
        # there the assembler gives up a register or two where one more program then fits a multiprocessor
        spills_allowed=4,
        representative=representative,
    )


def configurations(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form that may be launched on a card, of both kernels."""
    for dtype in ("bfloat16", "float32"):
        for inputs in INPUTS:
            for name, asked in VARIANTS.items():
                choice = offered(ITEM_BYTES[dtype], gated=asked.gated)
                for cut in dict.fromkeys(tiles(limit, inputs, ITEM_BYTES[dtype], gated=asked.gated) for limit in choice):
                    few = (
                        dtype == "bfloat16"
                        and inputs == INPUTS[0]
                        and any((name, limit) in REPRESENTATIVE for limit in choice if choice[limit] == cut)
                    )
                    yield configuration(capability, inputs, dtype, name, asked, cut, representative=few)
        for dim in DIMS:
            for centred in (False, True):
                yield _norm(capability, dim, dtype, centred=centred)


def _norm(capability: tuple[int, int], dim: int, dtype: str, *, centred: bool) -> Configuration:
    fixed, warps = norm_constants(dim, centred=centred)
    absent = {} if centred else {"p_b": None}
    found = signature(NORM_ARGUMENTS, {**fixed, **absent}, dtype, "eps")
    return Configuration(
        function=NORM,
        capability=capability,
        dtype=dtype,
        size=f"dim {dim}",
        variant="LayerNorm" if centred else "RMSNorm",
        tile=f"{fixed['BD']} w{warps}",
        signature=found,
        constants={**fixed, **absent},
        aligned=frozenset(name for name in found if name.startswith("p_") or name in ("s_x", "D")),
        warps=warps,
        stages=3,  # what Triton takes where nobody says; it has no loop
        tensor_cores=False,
        # 64 numbers of a row, and of its weights and biases, in each thread: with twice the warps there would be half the registers
        spills_allowed=96 if dim > 16384 else 0,
        representative=(dim, dtype, centred) == (4096, "bfloat16", True),
    )
