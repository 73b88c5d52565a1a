"""What may be chosen of the backward kernels: the tile for a problem, its key, and the candidates that a device can be asked about.

No torch and no Triton.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

from .._tuned import Chosen, Key, architecture, choose, length_class, triton_version
from .._tuning import Task
from ..contract import ITEM_BYTES
from . import _backward_code as code
from ._backward_tiles import Tile, for_odd_rows, tile
from ._pairs import keys_read
from ._prefill_code import Asked, takes_tma
from ._prefill_tuning import odd

if TYPE_CHECKING:
    from .._cards import Card
    from .._code import Configuration
    from .problem import Attention

MOST_NUMBERS = 230
"""Of accumulators and scores that a thread may hold: with more of them 255 registers do not do."""
LARGE = 128
"""Keys of a large tile: where there are fewer such tiles than multiprocessors, a choice does not go for more of them."""


def chosen(problem: Attention, card: Card, precision: str = "ieee") -> Chosen[Tile]:
    """The tile that the kernels are launched with for this problem, and where it comes from."""
    return choose(key(problem, card, precision), default(problem, card))


def default(problem: Attention, card: Card) -> Tile:
    """The tile where nobody measured."""
    sizes = (problem.kv_len, problem.batch * problem.kv_heads, problem.head_dim, ITEM_BYTES[problem.dtype])
    return tile(*sizes, card.capability, card.multiprocessors, burdened=burdened(problem))


def burdened(problem: Attention) -> bool:
    """Whether more than weights and their gradients passes through registers."""
    return problem.softcap > 0 or problem.bias != "none"


def key(problem: Attention, card: Card, precision: str = "ieee") -> Key:
    """By the keys that a query sees; few large tiles are a case of their own, and so is a softcap, a bias or a mask."""
    few = problem.batch * problem.kv_heads * -(-problem.kv_len // LARGE) < card.multiprocessors
    return Key(
        function="keys_kernel",
        architecture=architecture(card.capability),
        triton=triton_version(),
        dtype=problem.dtype if precision == "ieee" else f"{problem.dtype} as {precision}",
        size=f"head_dim {problem.head_dim}",
        causal=problem.triangular,
        length=length_class(max(1, keys_read(problem, problem.kv_len))),
        traits=", ".join([*(["burdened"] if burdened(problem) else []), *(["few tiles"] if few else [])]),
    )


def launched(cut: Tile, problem: Attention, card: Card) -> Tile:
    """The tile that becomes of it where rows begin anywhere."""
    return for_odd_rows(cut, problem.head_dim) if odd(problem, card) else cut


def task(problem: Attention, card: Card) -> Task | None:
    """What there is to choose; None for rows that begin anywhere: their tile is made of another."""
    if odd(problem, card):
        return None
    usual = default(problem, card)
    return Task(
        key=key(problem, card),
        default=usual,
        candidates=tuple(cut for cut in candidates(problem, usual) if cut != usual),
        why_not=lambda cut: None if cut == usual else why_not(cut, problem, card),
        forms=lambda cut: forms(cut, problem, card),
    )


def candidates(problem: Attention, usual: Tile) -> tuple[Tile, ...]:
    """Tiles of every shape, number of warps and of stages, with sums in memory or a kernel for the queries; and other orders."""
    if ITEM_BYTES[problem.dtype] == 4:
        grid = product((16, 32), (16, 32, 64), (4, 8), (1, 2), (False, True))
    else:
        grid = product((16, 32, 64, 128), (32, 64, 128), (4, 8), (2, 3), (False, True))
    found = [Tile(*numbers) for numbers in grid]
    if problem.triangular:
        found += [replace(usual, l2_eighths=eighths) for eighths in (0, 2, 8)]
    return tuple(dict.fromkeys(found))


def why_not(cut: Tile, problem: Attention, card: Card) -> str | None:
    """Why arithmetic leaves a tile out, in a sentence."""
    width, item_bytes = code.width(problem.head_dim), ITEM_BYTES[problem.dtype]
    buffers = cut.stages if _tma(problem, card) else max(1, cut.stages - 1)
    shared = item_bytes * width * (2 * buffers * cut.bt + 2 * cut.bs)
    if shared > card.shared_bytes:
        return f"takes {shared >> 10} KB of shared memory: a program has {card.shared_bytes >> 10}"
    numbers = (2 * cut.bs * width + 2 * cut.bt * cut.bs) / (32 * cut.warps)
    if numbers > MOST_NUMBERS:
        return f"holds {numbers:.0f} numbers in a thread: {MOST_NUMBERS} leave room for the rest of its 255 registers"
    if cut.bs >= 2 * max(problem.kv_len, 32):
        return f"half of its {cut.bs} keys are not there: the problem has {problem.kv_len}"
    if cut.bt >= 2 * max(problem.q_len, 16):
        return f"half of its {cut.bt} queries are not there: the problem has {problem.q_len}"
    return None


def forms(cut: Tile, problem: Attention, card: Card) -> Iterator[Configuration]:
    """What this problem asks for, without more spills than usual; and everything that problems with the same key may ask for."""
    bias = {"none": 0, "additive": 1, "boolean": 2}[problem.bias]
    lengths = 2 if problem.ragged else int(problem.padding)
    asked = Asked(problem.triangular, lengths, window=problem.window > 0, softcap=problem.softcap > 0, bias=bias)
    most = replace(asked, lengths=2, window=True, softcap=burdened(problem), bias=int(burdened(problem)))
    for name, wanted in {"as asked": asked, "everything": most}.items():
        if name == "as asked" or most != asked:
            allowed = code.spills_allowed(card.capability, wanted, problem.head_dim)
            for queries in (False, True) if cut.twice else (False,):
                yield code.configuration(
                    card.capability, problem.head_dim, problem.dtype, name, wanted, cut, queries=queries, group=problem.group,
                    tma=_tma(problem, card), aligned=_tma(problem, card) or problem.head_dim % 16 == 0, spills_allowed=allowed,
                )  # fmt: skip


def _tma(problem: Attention, card: Card) -> bool:
    return takes_tma(card.capability, ITEM_BYTES[problem.dtype])
