"""What the kernels of sparse attention may be compiled to: their constants, their tiles, and every form that they may be launched in.

No torch and no Triton. float16 is left out: its code is that of bfloat16 but for one conversion.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .._code import TRITON_TYPES, Configuration, signature
from ..contract import ITEM_BYTES
from ._prefill_code import takes_tma
from ._prefill_tiles import Tile, by_pointers, for_odd_rows, offered, tile
from ._sparse_blocks import KEYS, QUERIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .problem import Attention

HEAD_DIMS = range(16, 129)
MODULE = "attention._sparse_triton"
ATTENDING = (
    "p_q p_k p_v p_o p_lengths p_numbers p_counts t_q t_k t_v t_o s_qb s_qh s_qt s_qd s_kb s_kh s_ks s_kd s_vb s_vh s_vs s_vd "
    "H T S NS TOTAL TOGETHER window sinks scale"
)
POOLING = "p_x p_mean p_lengths s_b s_h s_t s_d H T N"
SELECTING = "p_q p_k p_e p_numbers p_counts p_lengths H T S NT NS scale MASS"
"""Arguments of the kernels that are not constants by themselves."""
BLOCKS = (16, 4096)
"""Room for blocks of keys, a power of two: at least, and at most, that is for 262144 keys."""
ESTIMATED = 16
"""Blocks of keys that are estimated at once."""
COMPARED = 2**12
"""Pairs of blocks that are compared at once: 32 for each thread."""


@dataclass(frozen=True)
class Asked:
    """What a problem asks of the kernels."""

    causal: bool = False
    lengths: int = 0
    """0 none, 1 of padded rows, 2 of ragged rows."""
    listed: bool = True
    """By lists of blocks; else the first keys and a window."""
    precision: str = "ieee"
    """Of float32 products."""


VARIANTS = {
    "blocks": Asked(),
    "blocks, causal, padded": Asked(causal=True, lengths=1),
    "blocks, causal, ragged": Asked(causal=True, lengths=2),
    "sinks": Asked(listed=False),
    "sinks, causal, padded": Asked(listed=False, causal=True, lengths=1),
    "sinks, causal, ragged": Asked(listed=False, causal=True, lengths=2),
}
SIZES = {64: VARIANTS, 128: VARIANTS, 80: ("blocks, causal, padded", "sinks"), 32: ("blocks", "sinks")}
"""Every row of the tables of tiles, a head that fills no power of two, and a small one."""
REPRESENTATIVE = {(128, "blocks, causal, padded"), (64, "sinks, causal, padded")}


def cut_for(problem: Attention, capability: tuple[int, int], multiprocessors: int) -> Tile:
    """The tile for a problem on a card: that of the prefill kernel for a head of a power of two, so far as it divides the blocks."""
    sizes = (problem.q_len, problem.batch * problem.heads, whole_head(problem.head_dim), ITEM_BYTES[problem.dtype])
    return within_blocks(tile(*sizes, capability, multiprocessors))


def within_blocks(cut: Tile) -> Tile:
    """A tile that is no larger than a block. Weights × values are not begun later here: blocks are found one by one."""
    return replace(cut, bt=min(cut.bt, QUERIES["cuda"]), bs=min(cut.bs, KEYS), ahead=False)


def where_it_lies(cut: Tile, head_dim: int, *, by_tma: bool, tma: bool, odd: bool) -> Tile:
    """The tile for tensors that TMA does not take, or whose 16-bit rows begin anywhere."""
    if by_tma:
        return cut
    whole = whole_head(head_dim)
    if odd:
        loose = for_odd_rows(cut, whole, biased=False)
        # an address for each number and a list of blocks: on sm_80 128 queries of a wide head spill 24 to 61 of them
        return replace(loose, bt=64) if whole > 64 else loose
    return by_pointers(cut, whole) if tma else cut


def room(blocks: int) -> int:
    """A power of two that holds so many blocks of keys."""
    return max(BLOCKS[0], 1 << (blocks - 1).bit_length())


def whole_head(head_dim: int) -> int:
    """A power of two that holds a head."""
    return max(16, 1 << (head_dim - 1).bit_length())


def constants(asked: Asked, *, group: int, head_dim: int, cut: Tile) -> dict[str, Any]:
    """What the kernel that attends is compiled for, beside warps and stages."""
    return {
        "G": group, "D": head_dim, "CAUSAL": asked.causal, "LENGTHS": asked.lengths, "LISTED": asked.listed, "PRECISION": asked.precision,
        "QUERIES": QUERIES["cuda"], "KEYS": KEYS, "BT": cut.bt, "BS": cut.bs, "BD": whole_head(head_dim),
    }  # fmt: skip


def pooling(head_dim: int, size: int, *, lengths: bool) -> dict[str, Any]:
    """What the kernel that takes means is compiled for."""
    return {"LENGTHS": lengths, "D": head_dim, "BD": whole_head(head_dim), "SIZE": size}


def selecting(asked: Asked, *, group: int, head_dim: int, blocks: int, parts: int) -> dict[str, Any]:
    """What the kernel that chooses among so many blocks is compiled for; `parts` 0: by mass."""
    return {
        "G": group, "D": head_dim, "CAUSAL": asked.causal, "LENGTHS": asked.lengths, "PARTS": parts, "QUERIES": QUERIES["cuda"],
        "KEYS": KEYS, "BD": whole_head(head_dim), "BN": room(blocks), "BE": ESTIMATED,
        "BC": max(1, min(ESTIMATED, COMPARED // room(blocks))),
    }  # fmt: skip


SELECTING_WARPS = 4
POOLING_WARPS = 4


def configurations(capability: tuple[int, int], *, listed: bool) -> Iterator[Configuration]:
    """Every form that may be launched on a card: the kernel that attends, and where blocks are listed those that choose them."""
    for head_dim, names in SIZES.items():
        for dtype in ("bfloat16", "float32"):
            for name in names:
                if VARIANTS[name].listed == listed:
                    yield from _forms(capability, head_dim, dtype, name, VARIANTS[name])
    if not listed:
        return
    yield from _choosing(capability)


def _forms(capability: tuple[int, int], head_dim: int, dtype: str, name: str, asked: Asked) -> Iterator[Configuration]:
    """Of one head and variant: the tiles, and what becomes of them without TMA or where rows begin anywhere."""
    tma = takes_tma(capability, ITEM_BYTES[dtype])
    cuts = tuple(dict.fromkeys(within_blocks(cut) for cut in offered(whole_head(head_dim), ITEM_BYTES[dtype], capability)))
    for cut in cuts:
        few = dtype == "bfloat16" and cut is cuts[-1] and (head_dim, name) in REPRESENTATIVE
        yield _attending(capability, head_dim, dtype, name, asked, cut, tma=tma, representative=few)
        if dtype != "float32":
            pointed = where_it_lies(cut, head_dim, by_tma=False, tma=tma, odd=False)
            if tma:
                yield _attending(capability, head_dim, dtype, f"{name}, by pointers", asked, pointed, tma=False)
            loose = where_it_lies(cut, head_dim, by_tma=False, tma=tma, odd=True)
            yield _attending(capability, head_dim, dtype, f"{name}, odd rows", asked, loose, tma=False, aligned=False)
        else:
            yield _attending(capability, head_dim, dtype, f"{name}, TF32", replace(asked, precision="tf32"), cut, tma=False)


def _attending(
    capability: tuple[int, int], head_dim: int, dtype: str, variant: str, asked: Asked, cut: Tile, *,
    tma: bool, aligned: bool = True, representative: bool = False,
) -> Configuration:  # fmt: skip
    """The kernel that attends, for groups of 4 heads whose head_dim lies in one piece."""
    fixed = constants(asked, group=4, head_dim=head_dim, cut=cut) | {f"s_{x}d": 1 for x in "qkv"}
    fixed |= {} if asked.lengths else {"p_lengths": None}
    fixed |= {} if asked.listed else {"p_numbers": None, "p_counts": None}
    fixed |= {} if tma else {f"t_{x}": None for x in "qkvo"}
    types = {f"p_{x}": "*i32" for x in ("lengths", "numbers", "counts")}
    for x, rows in (("q", cut.bt), ("k", cut.bs), ("v", cut.bs), ("o", cut.bt)):
        types |= {f"t_{x}": f"tensordesc<{TRITON_TYPES[dtype]}[1, 1, {rows}, {whole_head(head_dim)}]>"}
    found = signature(ATTENDING, fixed, dtype, "scale", types)
    return Configuration(
        function=f"{MODULE}:sparse_kernel",
        capability=capability,
        dtype=dtype,
        size=f"head_dim {head_dim}",
        variant=variant,
        tile=str(cut),
        signature=found,
        constants=fixed,
        aligned=frozenset(name for name in found if name.startswith(("p_", "s_") if aligned else "p_")),
        warps=cut.warps,
        stages=cut.stages,
        tensor_cores=dtype != "float32" or asked.precision != "ieee",
        instruction="HMMA" if cut.bt < 64 else "",
        spills_allowed=spills_allowed(capability, dtype),
        representative=representative,
    )


def spills_allowed(capability: tuple[int, int], dtype: str) -> int:
    """Loads and stores of spilled registers that are let pass: addresses. See the notes, "Budgets"."""
    return 12 if capability[0] == 10 else 8 if dtype == "float32" else 0


def _choosing(capability: tuple[int, int]) -> Iterator[Configuration]:
    """The kernels that take means and choose blocks."""
    for head_dim in (64, 128):
        for dtype in ("bfloat16", "float32"):
            for size in (QUERIES["cuda"], KEYS):
                fixed = pooling(head_dim, size, lengths=True) | {"s_d": 1}
                types = {"p_mean": "*fp32", "p_lengths": "*i32"}
                found = signature(POOLING, fixed, dtype, "", types)
                yield _without_products(
                    capability, "pool_kernel", dtype, head_dim, f"means of {size}", found, fixed, POOLING_WARPS,
                    representative=(head_dim, dtype, size) == (128, "bfloat16", KEYS),
                )  # fmt: skip
        for parts, blocks in ((4, 64), *((0, blocks) for blocks in (16, 64, 256, 512, 1024, 2048, BLOCKS[1]))):
            fixed = selecting(Asked(causal=True, lengths=2), group=4, head_dim=head_dim, blocks=blocks, parts=parts)
            types = {"p_numbers": "*i32", "p_counts": "*i32", "p_lengths": "*i32"}
            found = signature(SELECTING, fixed, "float32", "scale MASS", types)
            which = f"{'mass' if parts == 0 else 'share'} of {blocks} blocks"
            yield _without_products(
                capability, "select_kernel", "float32", head_dim, which, found, fixed, SELECTING_WARPS,
                representative=(head_dim, blocks) == (128, 256),
            )  # fmt: skip


def _without_products(
    capability: tuple[int, int],
    name: str,
    dtype: str,
    head_dim: int,
    variant: str,
    found: dict[str, str],
    fixed: dict[str, Any],
    warps: int,
    *,
    representative: bool,
) -> Configuration:
    return Configuration(
        function=f"{MODULE}:{name}",
        capability=capability,
        dtype=dtype,
        size=f"head_dim {head_dim}",
        variant=variant,
        tile=f"w{warps}",
        signature=found,
        constants=fixed,
        aligned=frozenset(name for name in found if name.startswith(("p_", "s_"))),
        warps=warps,
        stages=2,
        tensor_cores=False,
        representative=representative,
    )
