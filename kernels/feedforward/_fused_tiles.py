"""Tiles of the linear layers, and what their kernel is compiled for: arithmetic without torch or Triton."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .._tiles import require_launch, require_powers_of_two, require_range


@dataclass(frozen=True)
class Tiles:
    """How one linear layer is cut, for how many warps, with how many stages of loads in flight."""

    bt: int
    bn: int
    bk: int
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

    def shared_bytes(self, item_bytes: int, *, gated: bool) -> int:
        """What the stages of x and of the one or two matrices take."""
        return self.stages * self.bk * (self.bt + self.bn * (2 if gated else 1)) * item_bytes


def offered(item_bytes: int, *, gated: bool) -> dict[int, Tiles]:
    """Tiles by the largest number of tokens they are meant for (the last is for all others); they fit 99 KB of shared memory.

    Matrix products in full float32 run without tensor cores, on registers: their tiles are smaller.
    """
    if item_bytes == 4:
        return {16: Tiles(16, 32, 32, 4, 3), 1 << 62: Tiles(64, 32 if gated else 64, 32, 4, 3)}
    few = Tiles(16, 32 if gated else 64, 128, 4, 3)
    some = Tiles(64, 64, 64, 4, 3)
    many = Tiles(128, 64, 64, 8, 3) if gated else Tiles(128, 128, 64, 8, 3)
    return {16: few, 256: some, 1 << 62: many}


UNALIGNED = Tiles(64, 32, 32, 8, 2)
"""For rows that do not begin on 16 bytes: they are loaded number by number, which takes registers for each address."""


def tiles(tokens: int, inputs: int, item_bytes: int, *, gated: bool) -> Tiles:
    """The tiles that go with so many tokens and inputs."""
    if inputs % 16:
        return UNALIGNED
    choice = offered(item_bytes, gated=gated)
    return next(choice[limit] for limit in sorted(choice) if tokens <= limit)


def constants(cut: Tiles, inputs: int, activation: str) -> Mapping[str, object]:
    """What `linear_kernel` is compiled for."""
    tile = {"BT": cut.bt, "BN": cut.bn, "BK": cut.bk, "GROUP": cut.group}
    return {"ACTIVATION": activation, "EVEN": inputs % cut.bk == 0, **tile, "num_warps": cut.warps, "num_stages": cut.stages}


def norm_constants(dim: int, *, centred: bool) -> tuple[dict[str, object], int]:
    """(what `norm_kernel` is compiled for, warps) for rows of so many numbers: 16 for each thread, and no more than 16 warps."""
    block = 1 << (dim - 1).bit_length()
    return {"CENTRED": centred, "BD": block}, min(16, max(1, block // 512))
