"""What the kernels for 8-bit weights may be compiled to, in every form that they may be launched in. No torch and no Triton.

float16 is left out: its code is that of bfloat16 but for one conversion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._code import TRITON_TYPES, Configuration, signature
from ..contract import ITEM_BYTES
from . import _int8_tiles as cuts
from ._fused_code import DIMS, VARIANTS, Asked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._int8_tiles import Tiles

LINEAR = "feedforward._int8_triton:linear_int8_kernel"
LINEAR_ARGUMENTS = "p_x p_sx p_w p_sw p_g p_sg p_b p_bg p_r p_y t_x t_w t_g T K N W s_x s_r"
QUANTIZE = "feedforward._int8_triton:quantize_kernel"
QUANTIZE_ARGUMENTS = "p_x p_w p_b p_q p_s s_x D W eps"
INPUTS = (4096, 4080, 100)
"""Of a layer whose weights are widened: a multiple of every tile, of 16 alone, and rows that begin anywhere. Integers are filled up."""
REPRESENTATIVE = ("gelu, bias", "silu, gated")
SCALES = dict.fromkeys(("p_sx", "p_sw", "p_sg", "p_s"), "*fp32")


def configuration(
    capability: tuple[int, int],
    inputs: int,
    dtype: str,
    variant: str,
    asked: Asked,
    cut: Tiles,
    *,
    integers: bool,
    tma: bool = False,
    representative: bool = False,
) -> Configuration:
    """The linear kernel for products of `integers`, or with weights that are widened to the activations' dtype."""
    columns = cuts.row_bytes(inputs) if integers else inputs
    fixed = dict(cuts.constants(cut, columns, asked.activation))
    there = {"p_g": asked.gated, "p_sg": asked.gated, "p_bg": asked.gated and asked.bias, "p_b": asked.bias, "p_r": asked.residual}
    there |= {"p_sx": integers, "t_x": tma, "t_w": tma, "t_g": tma and asked.gated}
    fixed |= {name: None for name, given in there.items() if not given}
    types = {**SCALES, "p_w": "*i8", "p_g": "*i8", "p_x": "*i8" if integers else f"*{TRITON_TYPES[dtype]}"}
    types |= {f"t_{name}": f"tensordesc<i8[{rows}, {cut.bk}]>" for name, rows in (("x", cut.bt), ("w", cut.bn), ("g", cut.bn))}
    found = signature(LINEAR_ARGUMENTS, fixed, dtype, more=types)
    multiples = {"K", "N", "W", "s_x", "s_r"} if columns % 16 == 0 else {"W"}
    on_registers = not integers and dtype == "float32"
    return Configuration(
        function=LINEAR,
        capability=capability,
        dtype=dtype,
        size=f"{inputs} inputs",
        variant=f"{variant}, {'integers' if integers else 'widened'}" + ", by pointers" * (integers and not tma and cut.bt >= 64),
        tile=str(cut),
        signature=found,
        constants=fixed,
        aligned=frozenset(name for name in found if name.startswith("p_") or name in multiples),
        warps=cut.warps,
        stages=cut.stages,
        tensor_cores=not on_registers,
        instruction=_instruction(capability, cut, integers=integers),
        streams=cut.bt < 64,
        # 128 sums in a thread leave registers for the loop, not for all of what follows it: see the notes
        spills_allowed=176 if cut.bt * cut.bn * (2 if asked.gated else 1) == 128 * 256 else 4,
        representative=representative,
    )


def _instruction(capability: tuple[int, int], cut: Tiles, *, integers: bool) -> str:
    """Warp groups take 64 rows; the tensor cores of sm_100 have no integer products in Triton, which takes those of sm_80."""
    if integers:
        return "IGMMA" if capability[0] == 9 and cut.bt >= 64 else "IMMA"
    return "HMMA" if cut.bt < 64 else ""


def configurations(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form in which feedforward/int8 may launch its kernels on a card."""
    for dtype in ("bfloat16", "float32"):
        for name, asked in VARIANTS.items():
            for cut in cuts.integer_tiles(capability, gated=asked.gated):
                given = (capability, INPUTS[0], dtype, name, asked, cut)
                few = dtype == "bfloat16" and name in REPRESENTATIVE
                yield configuration(*given, integers=True, tma=cuts.takes_tma(capability, cut), representative=few)
        yield from quantizing(capability, dtype)


def widened(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form in which feedforward/int8_weights may launch its own kernel on a card."""
    for dtype in ("bfloat16", "float32"):
        for inputs in INPUTS:
            for name, asked in VARIANTS.items():
                for cut in dict.fromkeys(cuts.widened_tiles(inputs, ITEM_BYTES[dtype], gated=asked.gated)):
                    few = dtype == "bfloat16" and inputs == INPUTS[0] and name in REPRESENTATIVE
                    yield configuration(capability, inputs, dtype, name, asked, cut, integers=False, representative=few)


def quantizing(capability: tuple[int, int], dtype: str) -> Iterator[Configuration]:
    """The kernel that quantizes tokens: behind each norm, and behind none."""
    for dim in (512, *DIMS[1:]):  # every number of warps, as wide as it takes
        for norm in ("none", "RMSNorm", "LayerNorm"):
            fixed, warps = cuts.quantizing(dim, centred=norm == "LayerNorm")
            absent = {"none": {"p_w": None, "p_b": None}, "RMSNorm": {"p_b": None}, "LayerNorm": {}}[norm]
            found = signature(QUANTIZE_ARGUMENTS, {**fixed, **absent}, dtype, "eps", {**SCALES, "p_q": "*i8"})
            yield Configuration(
                function=QUANTIZE,
                capability=capability,
                dtype=dtype,
                size=f"dim {dim}",
                variant=f"norm {norm}",
                tile=f"{fixed['BD']} w{warps}",
                signature=found,
                constants={**fixed, **absent},
                aligned=frozenset(name for name in found if name.startswith("p_") or name in ("s_x", "D", "W")),
                warps=warps,
                stages=3,  # what Triton takes where nobody says; it has no loop
                tensor_cores=False,
                # as in the norm of `fused`: 64 numbers of a row, and of its weights and biases, in each thread
                spills_allowed=96 if dim > 16384 else 0,
                representative=(dim, dtype, norm) == (4096, "bfloat16", "LayerNorm"),
            )
