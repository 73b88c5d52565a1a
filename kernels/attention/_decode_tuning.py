"""What may be chosen of the decode kernel: the tile for a problem, its key, and the candidates that a device can be asked about.

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
from . import _decode_code as code
from ._decode_splits import Tile, for_odd_rows, shared_bytes, tile
from ._pairs import keys_read

if TYPE_CHECKING:
    from .._cards import Card
    from .._code import Configuration
    from .problem import Attention

MOST_NUMBERS = 200
"""Of accumulators and scores that a thread may hold: with more of them 255 registers do not do."""


def chosen(problem: Attention, card: Card, precision: str = "ieee") -> Chosen[Tile]:
    """The tile that the kernel is launched with for this problem, and where it comes from."""
    found = choose(key(problem, card, precision), default(problem, card))
    return Chosen(launched(found.value, problem), found.origin)


def default(problem: Attention, card: Card) -> Tile:
    """The tile where nobody measured."""
    sizes = (problem.q_len * problem.group, problem.head_dim, ITEM_BYTES[problem.dtype])
    return tile(*sizes, card.capability, biased=problem.bias != "none")


def key(problem: Attention, card: Card, precision: str = "ieee") -> Key:
    """By the keys that are read; the rows of a tile, the size of pages and a bias are cases of their own."""
    traits = [f"{default(problem, card).rows} rows", *([f"pages of {problem.page_size}"] if problem.page_size else [])]
    return Key(
        function="split_kernel",
        architecture=architecture(card.capability),
        triton=triton_version(),
        dtype=problem.dtype if precision == "ieee" else f"{problem.dtype} as {precision}",
        size=f"head_dim {problem.head_dim}",
        causal=problem.triangular,
        length=length_class(max(1, keys_read(problem, problem.kv_len))),
        traits=", ".join([*traits, *(["bias"] if problem.bias != "none" else [])]),
    )


def launched(cut: Tile, problem: Attention) -> Tile:
    """The tile that becomes of it where rows begin anywhere."""
    return for_odd_rows(cut, problem.head_dim) if ITEM_BYTES[problem.dtype] == 2 and not _aligned(problem) else cut


def task(problem: Attention, card: Card) -> Task:
    """What there is to choose; where rows begin anywhere, of the tiles that become of the candidates."""
    usual = launched(default(problem, card), problem)
    return Task(
        key=key(problem, card),
        default=usual,
        candidates=tuple(cut for cut in dict.fromkeys(launched(cut, problem) for cut in candidates(problem, usual)) if cut != usual),
        why_not=lambda cut: None if cut == usual else why_not(cut, problem, card),
        forms=lambda cut: forms(cut, problem, card),
    )


def candidates(problem: Attention, usual: Tile) -> tuple[Tile, ...]:
    """As many rows as usual, other numbers of keys, warps and stages; the usual tile with more or fewer splits."""
    full = ITEM_BYTES[problem.dtype] == 4
    grid = product((16, 32) if full else (32, 64, 128), (4, 8), (2, 3) if full else (2, 3, 4, 5))
    found = [Tile(usual.rows, *numbers) for numbers in grid] + [replace(usual, aim=aim) for aim in (1, 2, 3, 4)]
    return tuple(dict.fromkeys(found))


def why_not(cut: Tile, problem: Attention, card: Card) -> str | None:
    """Why arithmetic leaves a tile out, in a sentence."""
    shared = shared_bytes(cut, problem.head_dim, ITEM_BYTES[problem.dtype], card.capability)
    if shared > card.shared_bytes:
        return f"takes {shared >> 10} KB of shared memory: a program has {card.shared_bytes >> 10}"
    numbers = cut.rows * (problem.head_dim + cut.keys) / (32 * cut.warps)
    if numbers > MOST_NUMBERS:
        return f"holds {numbers:.0f} numbers in a thread: {MOST_NUMBERS} leave room for the rest of its 255 registers"
    if cut.keys >= 2 * max(problem.kv_len, 16):
        return f"half of its {cut.keys} keys are not there: the problem has {problem.kv_len}"
    return None


def forms(cut: Tile, problem: Attention, card: Card) -> Iterator[Configuration]:
    """What this problem asks for, without spills; and everything that problems with the same key may ask for, with the usual few."""
    bias = {"none": 0, "additive": 1, "boolean": 2}[problem.bias]
    windowed, capped = problem.window > 0, problem.softcap > 0
    asked = code.Asked(problem.triangular, problem.ragged, windowed, capped, bias=bias, page_size=problem.page_size)
    most = replace(asked, ragged=True, window=True, softcap=True, bias=min(bias, 1))
    given = (card.capability, problem.head_dim, problem.dtype)
    yield code.configuration(*given, "as asked", asked, cut, aligned=_aligned(problem))
    if most != asked:
        yield code.configuration(
            *given, "everything", most, cut, aligned=_aligned(problem), spills_allowed=code.spills_allowed(card.capability)
        )


def _aligned(problem: Attention) -> bool:
    """Whether rows in one piece begin on multiples of 16 numbers, of which Triton takes many at once."""
    return problem.head_dim % 16 == 0
