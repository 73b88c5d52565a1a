"""Tiles of linear layers with 8-bit weights, and what their kernels are compiled for: arithmetic without torch or Triton."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .._tiles import require_launch, require_powers_of_two, require_range

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH = 128
"""Rows of 8-bit matrices are filled up with zeros to multiples of it, so that loads need no masks and all of them begin on 16 bytes."""

WIDEST = 32768
"""A token is quantized in registers: so many numbers at most."""

FEW = 16
"""Tokens up to which a matrix is streamed through once, by tiles of as many rows."""


@dataclass(frozen=True)
class Tiles:
    """How one linear layer is cut, for how many warps, with how many stages of loads in flight."""

    bt: int
    """Tokens."""
    bn: int
    """Outputs."""
    bk: int
    """Inputs."""
    warps: int
    stages: int
    group: int = 8
    """Neighbouring blocks of tokens that go through the columns together, so that they share the matrix in the L2 cache."""

    def __post_init__(self) -> None:
        require_powers_of_two(16, 256, bt=self.bt, bn=self.bn, bk=self.bk)
        require_launch(self.warps, self.stages)
        require_range(1, 64, group=self.group)

    def __str__(self) -> str:
        together = f", {self.group} together" if self.group != 8 else ""
        return f"{self.bt}×{self.bn}×{self.bk} w{self.warps} s{self.stages}{together}"

    def shared_bytes(self, *, gated: bool) -> int:
        """What the stages of 8-bit activations and of the one or two matrices take."""
        return self.stages * self.bk * (self.bt + self.bn * (2 if gated else 1))


HOPPER = {
    False: (Tiles(128, 256, 128, 8, 3), Tiles(128, 128, 128, 8, 4), Tiles(64, 64, 128, 4, 4)),
    True: (Tiles(128, 128, 128, 8, 3), Tiles(64, 64, 128, 4, 4)),
}
"""Of integer products on sm_90, whose tensor cores work for warp groups of 64 rows; with a gate there are two sums. Largest first."""

AMPERE = {
    False: (Tiles(128, 128, 64, 8, 4), Tiles(64, 64, 128, 4, 3)),
    True: (Tiles(128, 64, 64, 8, 4), Tiles(64, 32, 128, 4, 3)),
}
"""The same for all other cards: they fit 99 KB. For sm_100's own tensor cores Triton has no integer products; it takes those of sm_80."""

STREAMED = {False: Tiles(16, 64, 128, 4, 4), True: Tiles(16, 32, 128, 4, 4)}
"""For FEW tokens, whatever their products are made of."""

WIDENED = {False: (Tiles(128, 128, 64, 8, 3), Tiles(64, 64, 64, 4, 3)), True: (Tiles(128, 64, 64, 8, 3), Tiles(64, 32, 64, 4, 3))}
"""Of 16-bit products with weights that are widened in registers. Largest first."""

UNALIGNED = (Tiles(64, 32, 32, 8, 2),)
"""The same where rows of activations do not begin on 16 bytes: they are loaded number by number."""

EXACT = {False: (Tiles(64, 32, 32, 4, 3),), True: (Tiles(32, 32, 32, 4, 3),)}
"""The same in full float32, which runs on registers."""
EXACT_STREAMED = Tiles(16, 32, 32, 4, 3)


def row_bytes(columns: int) -> int:
    """Bytes from one row of an 8-bit matrix to the next."""
    return -(-columns // WIDTH) * WIDTH


def integer_tiles(capability: tuple[int, int], *, gated: bool) -> tuple[Tiles, ...]:
    """What is offered for products of integers: those for FEW tokens first, then largest first."""
    return STREAMED[gated], *(HOPPER if capability[0] == 9 else AMPERE)[gated]


def widened_tiles(inputs: int, item_bytes: int, *, gated: bool) -> tuple[Tiles, ...]:
    """What is offered for products with 8-bit weights alone, in the same order."""
    if item_bytes == 4:
        return EXACT_STREAMED, *EXACT[gated]
    return UNALIGNED if inputs % 16 else (STREAMED[gated], *WIDENED[gated])


def chosen(offered: Sequence[Tiles], tokens: int, outputs: int, multiprocessors: int) -> Tiles:
    """The largest tiles that keep every multiprocessor busy, or the smallest; the first for FEW tokens."""
    if tokens <= FEW or len(offered) == 1:
        return offered[0]
    several = offered[1:]
    return next((cut for cut in several if -(-tokens // cut.bt) * -(-outputs // cut.bn) >= multiprocessors), several[-1])


def takes_tma(capability: tuple[int, int], cut: Tiles) -> bool:
    """Whether integers go by descriptors: to the warp groups of sm_90."""
    return capability[0] == 9 and cut.bt >= 64


def constants(cut: Tiles, columns: int, activation: str) -> Mapping[str, object]:
    """What `linear_int8_kernel` is compiled for, beside warps and stages; `columns`: of the activations as they lie in memory."""
    return {"ACTIVATION": activation, "EVEN": columns % cut.bk == 0, "BT": cut.bt, "BN": cut.bn, "BK": cut.bk, "GROUP": cut.group}


def quantizing(dim: int, *, centred: bool) -> tuple[dict[str, object], int]:
    """(what `quantize_kernel` is compiled for, warps) for rows of so many numbers: 16 for each thread, and no more than 16 warps."""
    block = 1 << (row_bytes(dim) - 1).bit_length()
    return {"CENTRED": centred, "BD": block}, min(16, max(1, block // 512))
