"""What the kernels of the feed-forward network may be compiled to, in every form that they may be launched in. No torch and no Triton.

float16 is left out: its code is that of bfloat16 but for one conversion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from .._code import TRITON_TYPES, Configuration, signature
from ..contract import ITEM_BYTES
from ._fused_tiles import (
    MOST_SPLIT_TOKENS,
    SUM_BLOCK,
    SUM_WARPS,
    UNALIGNED,
    Tiles,
    by_pointers,
    constants,
    norm_constants,
    offered,
    tile_constants,
)

LINEAR = "feedforward._fused_linear:linear_kernel"
LINEAR_ARGUMENTS = "p_x p_w p_b p_r p_y p_h t_x t_w t_y T K N s_x s_r"
SPLIT = "feedforward._fused_linear:linear_split_kernel"
SPLIT_ARGUMENTS = "p_x p_w p_sums t_x t_w T K N s_x part"
SUM = "feedforward._fused_linear:linear_sum_kernel"
SUM_ARGUMENTS = "p_sums p_b p_r p_y p_h T N s_r splits"
NORM = "feedforward._fused_triton:norm_kernel"
NORM_ARGUMENTS = "p_x p_w p_b p_y s_x D eps"


@dataclass(frozen=True)
class Asked:
    """What a problem asks of one linear layer."""

    activation: str = "none"
    gated: bool = False
    bias: bool = False
    residual: bool = False
    before: bool = False
    """What the activation is applied to is kept: for a backward pass."""


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
KEEPING = {
    "gelu, bias, kept": Asked("gelu", bias=True, before=True),
    "gelu, gated, bias, kept": Asked("gelu", gated=True, bias=True, before=True),
}
"""The forward pass of direction "backward"."""
INPUTS = (4096, 4080, 100)
"""Of a layer: a multiple of every tile, of 16 alone, and rows that begin anywhere."""
DIMS = (64, 1024, 2048, 4096, 8192, 16384, 32768)
"""Of a norm: every number of warps, as wide as it takes."""
REPRESENTATIVE = {("gelu, bias", 256), ("silu, gated", 256), ("silu, gated", 64)}
"""Variant, and rows of the matrix in a tile, of 16-bit tiles with the most inputs."""


def configuration(
    capability: tuple[int, int], inputs: int, dtype: str, variant: str, asked: Asked, cut: Tiles, *, representative: bool = False
) -> Configuration:
    """The linear kernel for so many inputs, with as many outputs, and rows of x and of what is added at multiples of as many."""
    fixed = constants(cut, inputs, asked.activation, gated=asked.gated)
    absent = {"p_b": asked.bias, "p_r": asked.residual, "p_h": asked.before, **dict.fromkeys(("t_x", "t_w", "t_y"), cut.tma)}
    fixed |= {name: None for name, given in absent.items() if not given}
    types = _descriptors(cut, dtype) | {"t_y": _descriptor(dtype, cut.bt, cut.bn // cut.subtile // (2 if asked.gated else 1))}
    found = signature(LINEAR_ARGUMENTS, fixed, dtype, "", types)
    return replace(_of_products(capability, inputs, dtype, cut), function=LINEAR, variant=variant, signature=found, constants=fixed,
                   aligned=_aligned(found, inputs), flattened=cut.persistent > 0, representative=representative)  # fmt: skip


def split_configuration(
    capability: tuple[int, int], inputs: int, dtype: str, cut: Tiles, *, variant: str = "split", representative: bool = False
) -> Configuration:
    """The kernel that multiplies a part of so many inputs."""
    fixed = tile_constants(cut, inputs) | ({} if cut.tma else {"t_x": None, "t_w": None})
    found = signature(SPLIT_ARGUMENTS, fixed, dtype, "", _descriptors(cut, dtype) | {"p_sums": "*fp32"})
    aligned = _aligned(found, inputs) | ({"part"} if cut.bk % 16 == 0 else set())
    return replace(_of_products(capability, inputs, dtype, cut), function=SPLIT, variant=variant, signature=found, constants=fixed,
                   aligned=aligned, representative=representative)  # fmt: skip


def _of_products(capability: tuple[int, int], inputs: int, dtype: str, cut: Tiles) -> Configuration:
    """What both kernels that multiply have in common; function, signature and constants are still to be said."""
    return Configuration(
        function="",
        capability=capability,
        dtype=dtype,
        size=f"{inputs} inputs",
        variant="",
        tile=str(cut),
        signature={},
        constants={},
        aligned=frozenset(),
        warps=cut.warps,
        stages=cut.stages,
        tensor_cores=dtype != "float32",
        # warp groups take 64 rows: of the tokens, or of the matrix where the two are swapped
        instruction="HMMA" if cut.bt < 64 and not cut.swapped else "",
        streams=cut.bt < 64,  # one block of tokens: each number of the matrix is read once
        # the assembler gives up a register or two where one more program then fits a multiprocessor
        spills_allowed=4 if dtype == "float32" else 0,
    )


def _aligned(arguments: dict[str, str], inputs: int) -> frozenset[str]:
    multiples = {"K", "N", "s_x", "s_r"} if inputs % 16 == 0 else set()
    return frozenset(name for name in arguments if name.startswith("p_") or name in multiples)


def _descriptor(dtype: str, rows: int, columns: int) -> str:
    return f"tensordesc<{TRITON_TYPES[dtype]}[{rows}, {columns}]>"


def _descriptors(cut: Tiles, dtype: str) -> dict[str, str]:
    return {"t_x": _descriptor(dtype, cut.bt, cut.bk), "t_w": _descriptor(dtype, cut.bn, cut.bk)}


def sum_configuration(
    capability: tuple[int, int], dtype: str, variant: str, asked: Asked, *, representative: bool = False
) -> Configuration:
    """The kernel that adds the sums of splits up, and does all that comes after the products."""
    fixed: dict[str, object] = {"ACTIVATION": asked.activation, "GATED": asked.gated, "BN": SUM_BLOCK}
    fixed |= {name: None for name, given in {"p_b": asked.bias, "p_r": asked.residual, "p_h": asked.before}.items() if not given}
    found = signature(SUM_ARGUMENTS, fixed, dtype, "", {"p_sums": "*fp32"})
    return Configuration(
        function=SUM,
        capability=capability,
        dtype=dtype,
        size=f"{SUM_BLOCK} columns",
        variant=variant,
        tile=f"{SUM_BLOCK} w{SUM_WARPS}",
        signature=found,
        constants=fixed,
        aligned=_aligned(found, 16),
        warps=SUM_WARPS,
        stages=3,
        tensor_cores=False,
        representative=representative,
    )


def configurations(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form that may be launched on a card, of all kernels of the forward pass."""
    for dtype in ("bfloat16", "float32"):
        for inputs in INPUTS:
            for cut in _cuts(capability, dtype, inputs):
                yield from _forms(capability, inputs, dtype, cut)
        for name, asked in (VARIANTS | KEEPING).items():
            few = (dtype, name) == ("bfloat16", "bias, residual")
            yield sum_configuration(capability, dtype, name, asked, representative=few)
        for dim in DIMS:
            for centred in (False, True):
                yield _norm(capability, dim, dtype, centred=centred)


def _cuts(capability: tuple[int, int], dtype: str, inputs: int) -> tuple[Tiles, ...]:
    """Every tile for so many inputs: as offered, and without descriptors."""
    if inputs % 16:
        return (UNALIGNED,)
    cuts = [cut for row in offered(ITEM_BYTES[dtype], capability).values() for cut in row]
    by_tma = [cut for cut in cuts if not cut.tma or inputs == INPUTS[0]]
    return tuple(dict.fromkeys([*by_tma, *(by_pointers(cut) for cut in cuts)]))


def _forms(capability: tuple[int, int], inputs: int, dtype: str, cut: Tiles) -> Iterator[Configuration]:
    first = dtype == "bfloat16" and inputs == INPUTS[0] and cut in [one for row in offered(2, capability).values() for one in row]
    for name, asked in (VARIANTS | KEEPING).items():
        yield configuration(capability, inputs, dtype, name, asked, cut, representative=first and (name, cut.bn) in REPRESENTATIVE)
    if cut.bt <= MOST_SPLIT_TOKENS:
        yield split_configuration(capability, inputs, dtype, cut, representative=first and cut.bt == 16)


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
