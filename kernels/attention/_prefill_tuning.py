"""What may be chosen of the prefill kernel: the tile for a problem, its key, and the candidates that a device can be asked about.

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
from . import _prefill_code as code
from ._pairs import keys_read
from ._prefill_tiles import Tile, for_odd_rows, parts, tile

if TYPE_CHECKING:
    from .._cards import Card
    from .._code import Configuration
    from .problem import Attention

MOST_NUMBERS = 200
"""Of accumulators and scores that a thread may hold: with more of them 255 registers do not do."""
LARGE = 128
"""Queries of a large tile: where there are fewer such tiles than multiprocessors, or half of one is empty, a choice is one of its own."""


def chosen(problem: Attention, card: Card, precision: str = "ieee") -> Chosen[Tile]:
    """The tile that the kernel is launched with for this problem, and where it comes from."""
    return choose(key(problem, card, precision), default(problem, card))


def default(problem: Attention, card: Card) -> Tile:
    """The tile where nobody measured."""
    sizes = (problem.q_len, problem.batch * problem.heads, problem.head_dim, ITEM_BYTES[problem.dtype])
    return tile(*sizes, card.capability, card.multiprocessors, biased=problem.bias != "none")


def key(problem: Attention, card: Card, precision: str = "ieee") -> Key:
    """By the keys that a query sees; few queries, few large tiles, and a bias or a mask are cases of their own."""
    large = problem.batch * problem.heads * -(-problem.q_len // LARGE)
    few = "few queries" if 2 * problem.q_len <= LARGE else "few tiles" if large < card.multiprocessors else ""
    return Key(
        function="prefill_kernel",
        architecture=architecture(card.capability),
        triton=triton_version(),
        dtype=problem.dtype if precision == "ieee" else f"{problem.dtype} as {precision}",
        size=f"head_dim {problem.head_dim}",
        causal=problem.triangular,
        length=length_class(max(1, keys_read(problem, problem.kv_len))),
        traits=", ".join([*(["bias"] if problem.bias != "none" else []), *([few] if few else [])]),
    )


def launched(cut: Tile, problem: Attention, card: Card) -> Tile:
    """The tile that becomes of it where TMA does not take the tensors, or rows begin anywhere."""
    return for_odd_rows(cut, problem.head_dim, biased=problem.bias != "none") if odd(problem, card) else cut


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
    """Tiles of every shape, number of warps and of stages, and the usual one with other orders of the work."""
    if ITEM_BYTES[problem.dtype] == 4:
        found = [Tile(*numbers) for numbers in product((16, 32, 64), (16, 32), (4, 8), (2, 3))]
    else:
        # a warp has 16 rows of products; wide heads need more registers than that leaves, of narrow ones it may have 32
        rows = [(64, 4), (128, 8), (64, 8) if problem.head_dim > 128 else (128, 4)]
        cuts = product(rows, (32, 64, 128), (2, 3, 4), (False, True))
        found = [Tile(bt, bs, warps, stages, ahead) for (bt, warps), bs, stages, ahead in cuts]
    found += [replace(usual, persistent=programs) for programs in (1, 2)]
    if problem.triangular:
        found += [replace(usual, l2_eighths=eighths) for eighths in (0, 2, 8)]
    return tuple(dict.fromkeys(found))


def why_not(cut: Tile, problem: Attention, card: Card) -> str | None:
    """Why arithmetic leaves a tile out, in a sentence."""
    width, item_bytes = sum(parts(problem.head_dim)), ITEM_BYTES[problem.dtype]
    buffers = cut.stages if _tma(problem, card) else cut.stages - 1
    shared = item_bytes * width * (2 * buffers * cut.bs + cut.bt)
    if shared > card.shared_bytes:
        return f"takes {shared >> 10} KB of shared memory: a program has {card.shared_bytes >> 10}"
    numbers = cut.bt * (width + cut.bs * (1.5 if cut.ahead else 1)) / (32 * cut.warps)
    if numbers > MOST_NUMBERS:
        return f"holds {numbers:.0f} numbers in a thread: {MOST_NUMBERS} leave room for the rest of its 255 registers"
    if cut.bt >= 2 * max(problem.q_len, 32):
        return f"half of its {cut.bt} queries are not there: the problem has {problem.q_len}"
    if cut.bs >= 2 * max(problem.kv_len, 16):
        return f"half of its {cut.bs} keys are not there: the problem has {problem.kv_len}"
    return None


def forms(cut: Tile, problem: Attention, card: Card) -> Iterator[Configuration]:
    """What this problem asks for, without spills; and everything that problems with the same key may ask for, with the usual few."""
    bias = {"none": 0, "additive": 1, "boolean": 2}[problem.bias]
    lengths = 2 if problem.ragged else int(problem.padding)
    asked = code.Asked(problem.triangular, lengths, window=problem.window > 0, softcap=problem.softcap > 0, bias=bias)
    most = replace(asked, lengths=2, window=True, softcap=True, bias=min(bias, 1))
    for name, wanted in {"as asked": asked, "everything": most}.items():
        if name == "as asked" or most != asked:
            allowed = 0 if wanted is asked else code.spills_allowed(card.capability, most)
            yield code.configuration(
                card.capability, problem.head_dim, problem.dtype, name, wanted, cut,
                tma=_tma(problem, card), aligned=_aligned(problem, card), spills_allowed=allowed,
            )  # fmt: skip


def _tma(problem: Attention, card: Card) -> bool:
    return code.takes_tma(card.capability, ITEM_BYTES[problem.dtype])


def odd(problem: Attention, card: Card) -> bool:
    """Whether rows in one piece begin where neither TMA nor Triton takes many numbers at once."""
    return ITEM_BYTES[problem.dtype] == 2 and problem.head_dim % (8 if _tma(problem, card) else 16) != 0


def _aligned(problem: Attention, card: Card) -> bool:
    """Whether rows in one piece begin where they are taken many numbers at once: by TMA, or on multiples of 16 numbers, as Triton does."""
    return _tma(problem, card) or problem.head_dim % 16 == 0
