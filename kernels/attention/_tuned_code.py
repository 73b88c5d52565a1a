"""Every form of the tiles that were tuned for a card: what `kerneldyno codegen` compiles beside the defaults. No torch and no Triton."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._tuned import Key, tiles
from ..contract import ITEM_BYTES
from . import _backward_code, _backward_tiles, _decode_code, _decode_splits, _prefill_code, _prefill_tiles

if TYPE_CHECKING:
    from .._code import Configuration


def configurations(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Of all our attention kernels. Raises TunedError for a file that is damaged, or holds an impossible tile."""
    yield from prefill(capability)
    yield from decode(capability)
    yield from backward(capability)


def prefill(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Each tile in all that problems with its key may ask for."""
    code = _prefill_code
    for key, cut in tiles("prefill_kernel", capability, _prefill_tiles.Tile):
        for name, asked in code.VARIANTS.items():
            if asked.causal == key.causal and (asked.bias != 0) == ("bias" in key.traits):
                tma, allowed = code.takes_tma(capability, ITEM_BYTES[key.dtype]), code.spills_allowed(capability, asked)
                yield code.configuration(
                    capability, _head_dim(key), key.dtype, f"{name}, tuned for {key.length}", asked, cut,
                    tma=tma, aligned=_aligned(key), spills_allowed=allowed,
                )  # fmt: skip


def decode(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Each tile in all that problems with its key may ask for."""
    for key, cut in tiles("split_kernel", capability, _decode_splits.Tile):
        allowed = max(_decode_code.spills_allowed(capability), 0 if _aligned(key) else 16)
        for name, asked in _decode_code.VARIANTS.items():
            if (asked.bias != 0) == ("bias" in key.traits) and (asked.page_size > 0) == ("pages" in key.traits):
                told = f"{name}, tuned for {key.length}"
                yield _decode_code.configuration(
                    capability, _head_dim(key), key.dtype, told, asked, cut, aligned=_aligned(key), spills_allowed=allowed
                )


def backward(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Each tile in all that problems with its key may ask for, in one kernel or two."""
    code = _backward_code
    for key, cut in tiles("keys_kernel", capability, _backward_tiles.Tile):
        for name, asked in code.VARIANTS.items():
            if asked.causal == key.causal and (asked.softcap or asked.bias > 0) == ("burdened" in key.traits):
                allowed = code.spills_allowed(capability, asked, _head_dim(key))
                for queries in (False, True) if cut.twice else (False,):
                    yield code.configuration(
                        capability, _head_dim(key), key.dtype, f"{name}, tuned for {key.length}", asked, cut, queries=queries,
                        tma=_prefill_code.takes_tma(capability, ITEM_BYTES[key.dtype]), aligned=_aligned(key), spills_allowed=allowed,
                    )  # fmt: skip


def _aligned(key: Key) -> bool:
    """Whether rows in one piece begin on multiples of 16 numbers."""
    return _head_dim(key) % 16 == 0


def _head_dim(key: Key) -> int:
    return int(key.size.removeprefix("head_dim "))
