"""What the kernel for Hopper may be compiled to: the constants that its launcher fixes, and every form that it may be launched in.

No torch and no Triton. float16 is left out: its code is that of bfloat16 but for one conversion.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .._code import TRITON_TYPES, Configuration, signature
from ._hopper_tiles import DECODE, PREFILL, Tile

CAPABILITY = (9, 0)
FUNCTION = "attention._hopper_gluon:hopper_kernel"
ARGUMENTS = "t_q t_k t_v t_o p_part p_lses p_lengths H T S TOTAL TOGETHER splits scale"
"""Those of the kernel that are not constants by themselves."""


@dataclass(frozen=True)
class Asked:
    """What a problem asks of the kernel."""

    causal: bool = False
    lengths: int = 0
    """0 none, 1 of padded rows, 2 of ragged rows."""
    tokens: int = 0
    """The rows are those of a group of heads, so many tokens of each; 0: they are tokens of one head."""
    partial: bool = False
    """Several programs share the keys of a row."""


VARIANTS = {
    "plain": Asked(),
    "causal": Asked(causal=True),
    "padded": Asked(lengths=1),
    "causal, padded": Asked(causal=True, lengths=1),
    "causal, ragged": Asked(causal=True, lengths=2),
}
DECODED = {
    "decode": Asked(tokens=1),
    "decode, split": Asked(tokens=1, partial=True),
    "decode, split, padded": Asked(tokens=1, partial=True, lengths=1),
    "decode of 4, causal, ragged": Asked(causal=True, tokens=4, lengths=2),
    "decode of 4, causal, split, ragged": Asked(causal=True, tokens=4, partial=True, lengths=2),
}
REPRESENTATIVE = {(64, "plain"), (128, "causal, padded"), (256, "causal"), (128, "decode, split")}


def constants(asked: Asked, *, group: int, head_dim: int, cut: Tile) -> dict[str, Any]:
    """What the kernel is compiled for, beside warps and registers; `group` is 1 where the rows are those of a group."""
    return {
        "G": group, "D": head_dim, "CAUSAL": asked.causal, "LENGTHS": asked.lengths, "TOKENS": asked.tokens, "PARTIAL": asked.partial,
        "BS": cut.bs, "STAGES": cut.stages, "GROUPS": cut.groups, "IN_TURN": cut.in_turn, "HOLDS": cut.held,
    }  # fmt: skip


def configurations(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form that may be launched on a card: none but on Hopper."""
    if capability != CAPABILITY:
        return
    for head_dim, tiles in PREFILL.items():
        for name, asked in VARIANTS.items():
            for i, cut in enumerate(tiles):
                yield configuration(head_dim, name, asked, cut, representative=i == 1 and (head_dim, name) in REPRESENTATIVE)
        for name, asked in DECODED.items():
            yield configuration(head_dim, name, asked, DECODE[head_dim], representative=(head_dim, name) in REPRESENTATIVE)


def configuration(
    head_dim: int, variant: str, asked: Asked, cut: Tile, *, dtype: str = "bfloat16", representative: bool = False
) -> Configuration:
    """The kernel for groups of 4 heads."""
    fixed = constants(asked, group=1 if asked.tokens else 4, head_dim=head_dim, cut=cut)
    fixed |= {} if asked.lengths else {"p_lengths": None}
    fixed |= {} if asked.partial else {"p_part": None, "p_lses": None}
    types = {"p_lengths": "*i32", "p_part": "*fp32", "p_lses": "*fp32"}
    for x, rows in (("q", 64), ("k", cut.bs), ("v", cut.bs), ("o", 64)):
        types[f"t_{x}"] = f"tensordesc<{TRITON_TYPES[dtype]}[1, 1, {rows}, {head_dim}]>"
    found = signature(ARGUMENTS, fixed, dtype, "scale", types)
    return Configuration(
        function=FUNCTION,
        capability=CAPABILITY,
        dtype=dtype,
        size=f"head_dim {head_dim}",
        variant=variant,
        tile=str(cut),
        signature=found,
        constants=fixed,
        aligned=frozenset(name for name in found if name.startswith("p_")),
        warps=4,
        stages=cut.stages,
        registers=cut.registers,
        specialized=True,
        streams=asked.tokens > 0,
        representative=representative,
    )
