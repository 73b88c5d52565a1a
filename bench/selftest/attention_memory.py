"""Attention that reads or writes the wrong memory: heads, rows, edges of tiles, strides, leftovers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import torch

from .attention_places import ALIGNED, SHORT, in_both, places
from .attention_steps import TILE, Steps, mixed, softmax, spread
from .plants import Plant, planted

if TYPE_CHECKING:
    from kerneldyno.kernels.attention.problem import Attention, AttentionInputs
    from kerneldyno.kernels.registry import Run, Setup

Change = Callable[[torch.Tensor], torch.Tensor]


def writing(change: Change) -> Steps:
    """The right output, changed."""
    return Steps(output=lambda _problem, _inputs, right: change(right.clone()))


def setting(place: Any, value: float | Change) -> Steps:
    """Part of the output is something else: a number, or made of the right output."""

    def change(output: torch.Tensor) -> torch.Tensor:
        output[place] = value(output)[place] if callable(value) else value
        return output

    return writing(change)


def as_if_contiguous(tensor: torch.Tensor) -> torch.Tensor:
    """What lies in memory from the tensor's first element on, whatever its strides; wraps at the end of the storage."""
    stored = tensor.untyped_storage().nbytes() // tensor.element_size() - int(tensor.storage_offset())
    flat = tensor.as_strided((stored,), (1,))
    return flat[torch.arange(tensor.numel(), device=tensor.device) % stored].view(tensor.shape)


def from_the_start(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as if it began where its storage begins."""
    return tensor.as_strided(tensor.shape, tensor.stride(), 0)


def reading(change: Change) -> Steps:
    """q, k and v are read so."""
    return Steps(inputs=lambda _, inputs: inputs.replace(**{name: change(getattr(inputs, name)) for name in ("q", "k", "v")}))


def past_the_end(scores: torch.Tensor, visible: torch.Tensor | None) -> torch.Tensor:
    """Keys past the end of the last tile are taken in as zeros: each adds exp(0) to the sum."""
    extra = -scores.shape[-1] % TILE
    wide = torch.cat([scores, scores.new_zeros(*scores.shape[:-1], extra)], -1)
    seen = None if visible is None else torch.cat([visible, visible.new_ones(*visible.shape[:-1], extra)], -1)
    return softmax(wide, seen)[..., : scores.shape[-1]]


def unless_multiple(of: int) -> Steps:
    """Right only where the number of keys is a multiple."""

    def change(weights: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        whole = weights.shape[-1] - weights.shape[-1] % of if weights.shape[-1] >= of else weights.shape[-1]
        if weights.shape[-1] < of:
            return mixed(weights, v) * 0.5
        return mixed(weights[..., :whole], v[..., :whole, :])

    return Steps(mixed=change)


def in_recycled_memory(problem: Attention, setup: Setup) -> Run:
    """The last row of every head is never written."""
    right = Steps().build(problem, setup)

    def run(inputs: AttentionInputs) -> torch.Tensor:
        computed = right(inputs)
        rows = computed[..., :-1, :].clone()
        del computed  # its memory is likely to be handed out again, with the right answer still in it
        output = torch.empty(inputs.q.shape, dtype=inputs.q.dtype, device=inputs.q.device)
        output[..., :-1, :] = rows
        return output

    return run


def in_a_dirty_workspace(problem: Attention, setup: Setup) -> Run:
    """The accumulator is expected to be zero and never set to it."""
    right = Steps().build(problem, setup)

    def run(inputs: AttentionInputs) -> torch.Tensor:
        output = torch.empty(inputs.q.shape, dtype=inputs.q.dtype, device=inputs.q.device)
        return output.add_(right(inputs))

    return run


def racing(every: int, fault: Steps) -> Callable[[Attention, Setup], Run]:
    """Wrong in one call out of so many."""

    def build(problem: Attention, setup: Setup) -> Run:
        right, wrong, calls = Steps().build(problem, setup), fault.build(problem, setup), count(1)

        def run(inputs: AttentionInputs) -> torch.Tensor:
            chosen = right if next(calls) % every else wrong
            output: torch.Tensor = chosen(inputs)
            return output

        return run

    return build


def with_a_stale_tile(problem: Attention, setup: Setup) -> Run:
    """The first tile of keys is that of the previous call."""
    right = Steps().build(problem, setup)
    kept: list[torch.Tensor] = []

    def run(inputs: AttentionInputs) -> torch.Tensor:
        k = inputs.k.clone()
        fresh = k[:, :, :TILE].clone()
        if kept and kept[0].shape == fresh.shape:
            k[:, :, :TILE] = kept.pop()
        kept[:] = [fresh]
        output: torch.Tensor = right(inputs.replace(k=k))
        return output

    return run


def _heads() -> list[Plant]:
    grouped = places(heads=8, kv_heads=2)
    modulo = Steps(spread=lambda p, t: t.repeat(1, p.group, 1, 1) if p.grouped else t)
    first = Steps(spread=lambda p, t: spread(p, t[:, :1].expand_as(t)))
    short = places(length="short")
    return [
        planted("head h uses key-value head h % kv_heads", modulo.build, grouped),
        planted("all heads use key-value head 0", first.build, grouped),
        planted("the last head is that of its neighbour", setting((slice(None), -1), lambda o: o.roll(1, 1)).build, short),
        planted("the last head is off by 10 %", setting((slice(None), -1), lambda o: o * 1.1).build, short),
        planted("the last batch row is that of the first", setting(-1, lambda o: o.roll(1, 0)).build, short),
        planted("k and v swapped", Steps(inputs=lambda _, i: i.replace(k=i.v, v=i.k)).build, places()),
        planted("zeros", writing(torch.zeros_like).build, places()),
        planted("the mean of v", Steps(softmax=lambda s, _: torch.full_like(s, 1 / s.shape[-1])).build, places()),
        planted("infinite in one place", setting((0, 0, 0, 0), torch.inf).build, short),
    ]


def _edges() -> list[Plant]:
    at = (*places(), *in_both(ALIGNED))
    odd, last_rows = places(), (Ellipsis, slice(-1, None), slice(None))

    def partial(problem: Attention, _: AttentionInputs, right: torch.Tensor) -> torch.Tensor:
        whole = problem.q_len - problem.q_len % TILE
        return torch.cat([right[..., :whole, :], 0 * right[..., whole:, :]], -2)

    multiples = [replace(SHORT, q_len=length, dtype=dtype) for length in (256, 512) for dtype in ("float32", "bfloat16")]
    return [
        planted("last partial tile of queries not written", Steps(output=partial).build, at),
        planted("last partial tile of keys left out", unless_multiple(TILE).build, at),
        planted("keys past the end counted as zeros", Steps(softmax=past_the_end).build, at),
        planted("wrong unless the length is a multiple of 128", unless_multiple(128).build, multiples),
        planted("last row zero", setting(last_rows, 0.0).build, odd),
        planted("last row that of its neighbour", setting(last_rows, lambda o: o.roll(1, -2)).build, odd),
        planted("two rows of queries exchanged", writing(_exchanged).build, odd),
    ]


def _exchanged(output: torch.Tensor) -> torch.Tensor:
    rows = list(range(output.shape[-2]))
    rows[: len(rows) // 2 * 2] = [i ^ 1 for i in range(len(rows) // 2 * 2)]
    return output[..., rows, :]


def _memory() -> list[Plant]:
    short = places(length="short")
    tile = Steps(mixed=lambda weights, v: mixed(weights[..., TILE:], v[..., TILE:, :]))
    return [
        planted("strides ignored", reading(as_if_contiguous).build, short),
        planted("storage offset ignored", reading(from_the_start).build, short),
        planted("last row not written", in_recycled_memory, places()),
        planted("workspace not zeroed", in_a_dirty_workspace, places()),
        planted("a tile is lost in 1 call of 3", racing(3, tile), short),
        planted("a tile is lost in 1 call of 5", racing(5, tile), short),
        planted("a tile is lost in 1 call of 50", racing(50, tile), (), beyond=short[:1]),
        planted("first tile of keys from the previous call", with_a_stale_tile, short),
    ]


def plants() -> list[Plant]:
    """All of them, and the right kernel at places of each kind."""
    kinds = (places(heads=8, kv_heads=2), places(), in_both(ALIGNED), in_both(replace(SHORT, q_len=512)))
    control = planted("right, with groups", Steps().build, [p for kind in kinds for p in kind], right=True)
    return [control, *_heads(), *_edges(), *_memory()]
