"""Attention that mistakes windows, capped scores and caches: ragged rows, pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from .attention_masks import of_other_lengths, offsets, seeing, there
from .attention_places import LAST_ROWS, SHORT, in_both
from .attention_steps import TILE, Mask, Steps
from .plants import Plant, planted

if TYPE_CHECKING:
    from kerneldyno.kernels.attention.problem import Attention, AttentionInputs

WINDOWED = replace(SHORT, window=60)
CAUSAL_WINDOW = replace(SHORT, window=60, causal=True)
LATER = replace(SHORT, q_len=130, kv_len=260, window=60, causal=True)
"""Queries that stand behind a cache."""
LONG_WINDOW = replace(LAST_ROWS, window=1024, causal=True)
"""One key more or less among a thousand: random outputs do not show it."""
CAPPED = replace(SHORT, softcap=20.0, causal=True)
RAGGED = replace(SHORT, batch=3, q_len=3, kv_len=300, ragged=True, causal=True)
PAGED = replace(SHORT, batch=3, q_len=1, kv_len=300, ragged=True, page_size=16, heads=4, kv_heads=2)
PREFILL = replace(SHORT, q_len=70, kv_len=200, page_size=64, causal=True)

Table = Callable[["Attention", torch.Tensor], torch.Tensor]


def _windows() -> list[Plant]:
    every = tuple(p for problem in (WINDOWED, CAUSAL_WINDOW, LATER) for p in in_both(problem))
    causal, long = tuple(p for p in every if p.causal), in_both(LONG_WINDOW)
    wider = Steps(visible=lambda p, i: replace(p, window=p.window + 1).visible(i))
    narrower = Steps(visible=lambda p, i: replace(p, window=p.window - 1).visible(i))
    after = Steps(visible=lambda p, i: offsets(p, i.q) > -p.window)

    def by_tiles(problem: Attention, inputs: AttentionInputs) -> Mask:
        off = offsets(problem, inputs.q)
        keys = torch.arange(problem.kv_len, device=off.device)
        first = keys - off - problem.window + 1  # of each query, the same in its whole row
        return (off <= 0) & (keys >= first // TILE * TILE)

    top_left = Steps(visible=lambda p, i: (offsets(p, i.q) <= 0) & (offsets(p, i.q) + p.kv_len - p.q_len > -p.window))
    return [
        planted("window ignored", Steps(visible=lambda p, i: replace(p, window=0).visible(i)).build, every),
        planted("window one key too wide", wider.build, (*every, *long)),
        planted("window one key too narrow", narrower.build, (*every, *long)),
        planted("window by whole tiles", Steps(visible=by_tiles).build, causal),
        planted("window hides nothing after the query", after.build, in_both(WINDOWED)),
        planted("window aligned to the top left", top_left.build, in_both(LATER)),
    ]


def _caps() -> list[Plant]:
    at = in_both(CAPPED)
    biased = in_both(replace(CAPPED, bias="additive", causal=False))

    def cap(problem: Attention, scores: torch.Tensor) -> torch.Tensor:
        return problem.softcap * torch.tanh(scores / problem.softcap)

    hidden_are_low = Steps(softmax=lambda scores, visible: torch.softmax(scores if visible is None else scores.where(visible, -20.0), -1))
    clamped = Steps(capped=lambda p, scores: scores.clamp(-p.softcap, p.softcap))
    other_scale = Steps(capped=lambda p, scores: cap(p, scores / p.scale) * p.scale)
    return [
        planted("softcap ignored", Steps(capped=lambda _, scores: scores).build, at),
        planted("softcap is a clamp", clamped.build, at),
        planted("softcap of scores without their scale", other_scale.build, at),
        planted("softcap lifts hidden keys", hidden_are_low.build, at),
        planted("softcap after the bias", _capped_late(cap).build, biased),
    ]


def _capped_late(cap: Callable[[Attention, torch.Tensor], torch.Tensor]) -> Steps:
    """The bias is capped along with the scores: the plants of it have the softcap of CAPPED."""
    return Steps(
        capped=lambda _, scores: scores,
        with_bias=lambda scores, bias: cap(CAPPED, scores if bias is None else scores + bias.float()),
    )


def _ragged() -> list[Plant]:
    at = in_both(RAGGED)
    aligned = Steps(visible=lambda p, i: replace(p, ragged=False, padding=True).visible(i))
    whole = Steps(visible=lambda p, i: replace(p, ragged=False).visible(i.replace(lengths=None)))
    return [
        planted("ragged rows aligned with the whole cache", aligned.build, at),
        planted("lengths of ragged rows ignored", whole.build, at),
        planted("ragged rows one token too long", of_other_lengths(lambda n, most: (n + 1).clamp(max=most)).build, at),
        planted("diagonal of ragged rows missing", seeing(_without_own).build, at),
    ]


def _without_own(problem: Attention, inputs: AttentionInputs, mask: torch.Tensor) -> torch.Tensor:
    _, own = problem.seen(inputs.q.device, inputs.lengths)
    return mask & (torch.arange(problem.kv_len, device=mask.device) != own[:, None, :, None])


def _with_table(change: Table) -> Steps:
    """The block table is read wrongly."""
    return Steps(inputs=lambda problem, inputs: inputs.replace(block_table=change(problem, there(inputs.block_table))))


def _pages() -> list[Plant]:
    at = (*in_both(PAGED), *in_both(PREFILL))
    ragged = in_both(PAGED)
    in_order = _with_table(lambda _, table: torch.arange(table.numel(), device=table.device, dtype=table.dtype).view_as(table))
    to_the_end = of_other_lengths(lambda n, most: (-(-n // PAGED.page_size) * PAGED.page_size).clamp(max=most))
    repeated = _with_table(lambda _, table: torch.cat([table[:, :1], table[:, :1], table[:, 2:]], 1))
    swapped = _with_table(lambda _, table: torch.cat([table[:, :-2], table[:, -2:].flip(1)], 1))
    return [
        planted("block table ignored", in_order.build, at),
        planted("block table of the next row", _with_table(lambda _, table: table.roll(1, 0)).build, at),
        planted("first page read twice", repeated.build, at),
        planted("last two pages swapped", swapped.build, in_both(PREFILL)),
        planted("last page read to its end", to_the_end.build, ragged),
        planted("rows of a page backwards", _turned_pages().build, in_both(PREFILL)),
    ]


def _turned_pages() -> Steps:
    return Steps(inputs=lambda _, inputs: inputs.replace(k=inputs.k.flip(2), v=inputs.v.flip(2)))


def plants() -> list[Plant]:
    """All of them, and the right kernel at places of each kind."""
    kinds = (WINDOWED, CAUSAL_WINDOW, LATER, CAPPED, RAGGED, PAGED, PREFILL)
    control = planted("right, with windows and caches", Steps().build, [p for kind in kinds for p in in_both(kind)], right=True)
    return [control, *_windows(), *_caps(), *_ragged(), *_pages()]
