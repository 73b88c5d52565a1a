"""Every form of the tiles that were tuned for a card: what `kerneldyno codegen` compiles beside the defaults. No torch and no Triton."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from .._tuned import Key, tiles
from ..contract import ITEM_BYTES
from . import _decode_code, _decode_splits, _prefill_code, _prefill_tiles

if TYPE_CHECKING:
    from .._code import Configuration


def configurations(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Of prefill and decode. Raises TunedError for a file that is damaged, or holds an impossible tile."""
    yield from prefill(capability)
    yield from decode(capability)


def prefill(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Each tile in all that problems with its key may ask for."""
    code = _prefill_code
    for key, cut in tiles("prefill_kernel", capability, _prefill_tiles.Tile):
        for name, asked in code.VARIANTS.items():
            if asked.causal == key.causal and (asked.bias != 0) == ("bias" in key.traits):
                tma, allowed = code.takes_tma(capability, ITEM_BYTES[key.dtype]), code.spills_allowed(capability, asked)
                told = f"{name}, tuned for {key.length}"
                yield code.configuration(capability, _head_dim(key), key.dtype, told, asked, cut, tma=tma, spills_allowed=allowed)


def decode(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Each tile in all that problems with its key may ask for."""
    for key, cut in tiles("split_kernel", capability, _decode_splits.Tile):
        aligned = _head_dim(key) % 16 == 0
        allowed = max(_decode_code.spills_allowed(capability), 0 if aligned else 16)
        for name, asked in _decode_code.VARIANTS.items():
            if (asked.bias != 0) == ("bias" in key.traits) and (asked.page_size > 0) == ("pages" in key.traits):
                told = f"{name}, tuned for {key.length}"
                yield _decode_code.configuration(
                    capability, _head_dim(key), key.dtype, told, asked, cut, aligned=aligned, spills_allowed=allowed
                )


def _head_dim(key: Key) -> int:
    return int(key.size.removeprefix("head_dim "))
