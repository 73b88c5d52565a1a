"""Attention that sees the wrong keys: masks, causality, padding, tiles left out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from .attention_places import ALIGNED, HALF, SHORT, SINGLE, in_both, places
from .attention_steps import TILE, Mask, Steps, softmax
from .plants import Plant, planted

if TYPE_CHECKING:
    from kerneldyno.kernels.attention.problem import Attention, AttentionInputs

Sight = Callable[["Attention", "AttentionInputs"], Mask]


def there(tensor: Mask) -> torch.Tensor:
    """What the problem promises to be among the inputs."""
    assert tensor is not None
    return tensor


def seeing(change: Callable[[Attention, AttentionInputs, torch.Tensor], torch.Tensor]) -> Steps:
    """Steps whose mask is the right one, changed."""

    def visible(problem: Attention, inputs: AttentionInputs) -> Mask:
        right = problem.visible(inputs)
        if right is None:
            right = torch.ones(1, 1, problem.q_len, problem.kv_len, dtype=torch.bool, device=inputs.q.device)
        return change(problem, inputs, right)

    return Steps(visible=visible)


def offsets(problem: Attention, like: torch.Tensor) -> torch.Tensor:
    """[q_len, kv_len]: how far a key lies behind the query's own position, ends aligned; negative before it."""
    query = torch.arange(problem.q_len, device=like.device)[:, None] + problem.kv_len - problem.q_len
    return torch.arange(problem.kv_len, device=like.device) - query


def without_tile(which: Callable[[int], int]) -> Callable[[Attention, AttentionInputs, torch.Tensor], torch.Tensor]:
    """Hides one tile of keys; `which` tells it from the number of tiles."""

    def change(problem: Attention, _: AttentionInputs, mask: torch.Tensor) -> torch.Tensor:
        tile = which(-(-problem.kv_len // TILE))
        return mask & (torch.arange(problem.kv_len, device=mask.device) // TILE != tile)

    return change


TILES = {"first": lambda _: 0, "middle": lambda tiles: tiles // 2, "last": lambda tiles: tiles - 1}


def unnormalized(which: Callable[[int], int]) -> Steps:
    """One tile's weights are counted in the softmax, but its values are left out."""

    def without(weights: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        tile = which(-(-weights.shape[-1] // TILE))
        return weights * (torch.arange(weights.shape[-1], device=v.device) // TILE != tile) @ v

    return Steps(mixed=without)


def leaking(rows: Callable[[Attention, torch.Tensor], torch.Tensor]) -> Steps:
    """The key after the query's own is seen, in the chosen rows."""

    def change(problem: Attention, inputs: AttentionInputs, mask: torch.Tensor) -> torch.Tensor:
        row = torch.arange(problem.q_len, device=mask.device)
        leak = (offsets(problem, mask) == 1) & rows(problem, row)[:, None]
        padding = True if inputs.lengths is None else problem.padding_mask(inputs.lengths)
        return mask | (leak & padding)

    return seeing(change)


def of_other_lengths(change: Callable[[torch.Tensor, int], torch.Tensor]) -> Steps:
    """The lengths are read wrongly."""
    return Steps(inputs=lambda problem, inputs: inputs.replace(lengths=change(there(inputs.lengths), problem.kv_len)))


def first_tile_hidden_is_nan(scores: torch.Tensor, visible: Mask) -> torch.Tensor:
    """An online softmax that starts from -inf and meets nothing but hidden keys: exp(-inf - -inf)."""
    weights = softmax(scores, visible)
    if visible is None:
        return weights
    blind = ~visible[..., :TILE].any(-1, keepdim=True) & visible.any(-1, keepdim=True)
    return weights.masked_fill(blind, torch.nan)


def blind_rows(value: Callable[[torch.Tensor], torch.Tensor]) -> Steps:
    """Rows that see no key get something else than 0."""

    def output(problem: Attention, inputs: AttentionInputs, right: torch.Tensor) -> torch.Tensor:
        visible = problem.visible(inputs)
        return right if visible is None else torch.where(visible.any(-1, keepdim=True), right, value(inputs.v.float()))

    return Steps(output=output)


def _tiles() -> list[Plant]:
    found = []
    for name, which in TILES.items():
        causal = name != "middle"
        at = places(causal=True) if causal else places()
        found += [
            planted(f"{name} key tile skipped", seeing(without_tile(which)).build, at),
            planted(f"{name} key tile skipped, weights not renormalized", unnormalized(which).build, at),
        ]
    return found


def _causal() -> list[Plant]:
    at, cross = places(causal=True), tuple(replace(p, kv_len=p.q_len + 57) for p in places(causal=True, length="short"))
    decoding = replace(SHORT, q_len=3, kv_len=300, causal=True)
    top_left = Steps(visible=lambda p, i: offsets(p, i.q) - p.q_len + p.kv_len <= 0)
    by_tiles = seeing(lambda p, _, mask: mask | (offsets(p, mask) <= (-1 - torch.arange(p.q_len, device=mask.device)[:, None]) % TILE))
    return [
        planted("diagonal missing", seeing(lambda p, _, mask: mask & (offsets(p, mask) != 0)).build, at),
        planted("one future key leaks", leaking(lambda _, row: row >= 0).build, at),
        planted("one future key leaks in one row", leaking(lambda p, row: row == p.q_len // 2).build, at),
        planted("one future key leaks at tile boundaries", leaking(lambda _, row: row % TILE == TILE - 1).build, at),
        planted("causal aligned to the top left", top_left.build, (*cross, decoding, *places(causal=True, length="long")[:2])),
        planted("causal by whole tiles", by_tiles.build, at),
        planted("causal ignored", Steps(visible=lambda *_: None).build, at),
        planted("blind rows of a causal problem are NaN", blind_rows(lambda v: v.new_tensor(torch.nan)).build, in_both(_short_keys())),
        planted("blind rows are the mean of v", blind_rows(lambda v: v.mean(2, keepdim=True)).build, in_both(_short_keys())),
    ]


def _short_keys() -> Attention:
    """Causal with fewer keys than queries: the first queries see none."""
    return replace(SHORT, q_len=200, kv_len=133, causal=True)


def _given() -> list[Plant]:
    """Masks, lengths."""
    masked, padded = places(bias="boolean"), places(padding=True)
    many = tuple(p for p in padded if p.batch > 1)
    inverted = Steps(visible=lambda _, i: ~there(i.mask))
    transposed = Steps(inputs=lambda _, i: i.replace(mask=there(i.mask).mT))
    square = places(*SINGLE, *HALF, bias="boolean", length="short")
    return [
        planted("mask ignored", Steps(inputs=lambda _, i: i.replace(mask=None)).build, masked),
        planted("mask inverted", inverted.build, square),
        planted("mask transposed", transposed.build, square),
        planted("blind rows of a mask are NaN", blind_rows(lambda v: v.new_tensor(torch.nan)).build, square),
        planted("NaN where the first tile of keys is hidden", Steps(softmax=first_tile_hidden_is_nan).build, square),
        planted("padding ignored", Steps(inputs=lambda _, i: i.replace(lengths=None)).build, padded),
        planted("lengths one too long", of_other_lengths(lambda n, most: (n + 1).clamp(max=most)).build, padded),
        planted("lengths one too short", of_other_lengths(lambda n, _: n - 1).build, padded),
        planted("lengths of the next batch row", of_other_lengths(lambda n, _: n.roll(1)).build, many),
        planted("lengths rounded up to a tile", of_other_lengths(lambda n, most: (-(-n // TILE) * TILE).clamp(max=most)).build, padded),
    ]


def plants() -> list[Plant]:
    """All of them, and the right kernel at places of each kind."""
    kinds = (places(), places(causal=True), places(bias="boolean"), places(padding=True), in_both(_short_keys()), (ALIGNED,))
    control = planted("right, with masks", Steps().build, [p for kind in kinds for p in kind], right=True)
    return [control, *_tiles(), *_causal(), *_given()]
