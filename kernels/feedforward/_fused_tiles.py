"""Tiles of the linear layers, how inputs are split, and what their kernels are compiled for: arithmetic without torch or Triton.

What is offered compiles for the cards that it is meant for without spills: `kerneldyno codegen` shows it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .._tiles import require_launch, require_powers_of_two, require_range

if TYPE_CHECKING:
    from .._cards import Card

ALL = 1 << 62
"""More tokens than there are."""


@dataclass(frozen=True)
class Tiles:
    """How one linear layer is cut, for how many warps, with how many stages of loads in flight."""

    bt: int
    """Tokens."""
    bn: int
    """Rows of the matrix; where there is a gate, half of them are its own."""
    bk: int
    """Inputs."""
    warps: int
    stages: int
    group: int = 8
    """Neighbouring blocks of tokens that go through the columns together, so that they share the matrix in the L2 cache."""
    subtile: int = 1
    """Parts of the epilogue, one after the other: each has a part of the registers."""
    persistent: int = 0
    """Programs for each multiprocessor that go through all tiles. 0: one program for each tile."""
    tma: bool = False
    """By descriptors, where the tensors allow it."""
    swapped: bool = False
    """The matrix times the tokens: for so few of these that they do not fill the rows of a tensor core's product."""
    aim: int = 2
    """Programs on a multiprocessor that inputs are split for where tokens are few: one alone does not keep the memory busy."""

    def __post_init__(self) -> None:
        require_powers_of_two(16, 256, bt=self.bt, bn=self.bn, bk=self.bk)
        require_launch(self.warps, self.stages)
        require_powers_of_two(1, 4, subtile=self.subtile)
        require_range(1, 64, group=self.group)
        require_range(0, 8, persistent=self.persistent)
        require_range(1, 8, aim=self.aim)

    def __str__(self) -> str:
        words = [f"{self.bt}×{self.bn}×{self.bk} w{self.warps} s{self.stages}{' TMA' * self.tma}{' swapped' * self.swapped}"]
        words += [f"{self.subtile} parts"] if self.subtile != 1 else []
        words += [f"{self.persistent} persistent"] if self.persistent else []
        words += [f"{self.group} together"] if self.group != 8 else []
        words += [f"{self.aim} resident"] if self.aim != 2 else []
        return ", ".join(words)

    def shared_bytes(self, item_bytes: int) -> int:
        """What the stages of x and of the matrix take; by TMA, the epilogue's tile, too."""
        epilogue = 2 * self.bt * self.bn // self.subtile * item_bytes if self.tma else 0
        return self.stages * self.bk * (self.bt + self.bn) * item_bytes + epilogue


Table = dict[int, tuple[Tiles, ...]]
"""Largest number of tokens -> tiles for so many, the largest first: it is taken where there are enough of them for the card."""

HOPPER: Table = {
    16: (Tiles(16, 64, 128, 4, 5, tma=True, swapped=True),),
    64: (Tiles(64, 64, 64, 4, 5, tma=True),),
    ALL: (
        Tiles(128, 256, 64, 8, 4, subtile=4, persistent=1, tma=True),
        Tiles(128, 128, 64, 8, 4, subtile=2, tma=True),
        Tiles(64, 128, 64, 4, 5, tma=True),
    ),
}
"""16-bit tiles for sm_90 and sm_100, in up to 227 KB of shared memory."""

AMPERE: Table = {
    16: (Tiles(16, 64, 128, 4, 3),),
    64: (Tiles(64, 64, 64, 4, 3),),
    ALL: (Tiles(128, 128, 64, 8, 3, subtile=2), Tiles(64, 64, 64, 4, 3)),
}
"""The same for all other cards: they fit 99 KB, which consumer cards have, too."""

A100: Table = {**AMPERE, ALL: (Tiles(128, 256, 64, 8, 3, subtile=4), *AMPERE[ALL])}
"""With up to 163 KB."""

FULL: Table = {16: (Tiles(16, 32, 32, 4, 3),), ALL: (Tiles(64, 64, 32, 4, 3),)}
"""float32 tiles: products in full precision do without tensor cores, on registers."""

UNALIGNED = Tiles(64, 32, 32, 8, 2)
"""For rows that do not begin on 16 bytes: they are loaded number by number, which takes registers for each address."""


def offered(item_bytes: int, capability: tuple[int, int]) -> Table:
    """Tiles by the largest number of tokens they are meant for."""
    if item_bytes == 4:
        return FULL
    return HOPPER if capability[0] in (9, 10) else A100 if capability in ((8, 0), (8, 7)) else AMPERE


def tiles(tokens: int, inputs: int, rows: int, item_bytes: int, card: Card) -> Tiles:
    """The tiles that go with so many tokens, inputs and rows of the matrix: the largest that fill four fifths of the card."""
    if inputs % 16:
        return UNALIGNED
    table = offered(item_bytes, card.capability)
    choice = next(table[limit] for limit in sorted(table) if tokens <= limit)
    return next((cut for cut in choice if 5 * blocks(cut, tokens, rows) >= 4 * card.multiprocessors), choice[-1])


def blocks(cut: Tiles, tokens: int, rows: int) -> int:
    """Tiles that there are."""
    return -(-tokens // cut.bt) * -(-rows // cut.bn)


def by_pointers(cut: Tiles) -> Tiles:
    """The tiles for tensors that TMA does not take, in place of others that were meant for it: addresses take registers, too."""
    return replace(cut, tma=False, persistent=0, stages=min(cut.stages, 3)) if cut.tma else cut


MOST_SPLIT_TOKENS = 64
"""More of them compute for longer than it takes to read the matrix."""
MOST_SPLITS = 32
LEAST_STEPS = 4
"""Blocks of inputs that a split has at least: its loads have to be in flight before they are waited for."""


def part(tokens: int, inputs: int, rows: int, cut: Tiles, multiprocessors: int) -> int:
    """Inputs that one program goes through, a multiple of bk; all of them where nothing is split.

    As FlashAttention-3 chooses splits of a cache: none when the blocks fill four fifths of the places for programs, else the
    smallest number within 85 % of the best use of whole waves.
    """
    programs, steps = blocks(cut, tokens, rows), -(-inputs // cut.bk)
    slots = cut.aim * multiprocessors
    most = min(MOST_SPLITS, steps // LEAST_STEPS)
    if tokens > MOST_SPLIT_TOKENS or programs >= 0.8 * slots or most <= 1:
        return steps * cut.bk

    def used(count: int) -> float:
        waves = programs * count / slots
        return waves / math.ceil(waves) * steps / (count * -(-steps // count))

    shares = [used(count) for count in range(1, most + 1)]
    count = next(count for count, share in enumerate(shares, 1) if share >= 0.85 * max(shares))
    return -(-steps // count) * cut.bk


def tile_constants(cut: Tiles, inputs: int) -> dict[str, object]:
    """What both kernels that multiply are compiled for; EVEN says that loads need no mask at the end of the inputs."""
    even = cut.tma or inputs % cut.bk == 0
    return {"EVEN": even, "SWAPPED": cut.swapped, "BT": cut.bt, "BN": cut.bn, "BK": cut.bk}


def constants(cut: Tiles, inputs: int, activation: str, *, gated: bool) -> dict[str, object]:
    """What `linear_kernel` is compiled for, beside warps and stages."""
    own = {"ACTIVATION": activation, "GATED": gated, "PERSISTENT": cut.persistent > 0, "SUBTILE": cut.subtile, "GROUP": cut.group}
    return {**own, **tile_constants(cut, inputs)}


SUM_BLOCK, SUM_WARPS = 512, 4
"""Columns that one program of `linear_sum_kernel` adds up."""


def norm_constants(dim: int, *, centred: bool) -> tuple[dict[str, object], int]:
    """(what `norm_kernel` is compiled for, warps) for rows of so many numbers: 16 for each thread, and no more than 16 warps."""
    block = 1 << (dim - 1).bit_length()
    return {"CENTRED": centred, "BD": block}, min(16, max(1, block // 512))
