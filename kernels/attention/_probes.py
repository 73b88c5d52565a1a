"""Inputs on which the mistakes of attention kernels show plainly, at any length of context.

With random inputs over a long context a key more or less hardly moves the output, since every key has little weight. Here
single keys decide the output, or must not touch it at all.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ..registry import AWKWARD, Probe
from ._paging import paged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .problem import Attention, AttentionInputs

LOUD = {"forward": 2.5, "backward": 1.0}
"""Queries are so many times the key that they look for: its score is LOUD · √head_dim above the others'. Backward it must not be
so loud that the softmax saturates: gradients of scores are then differences of equal numbers."""
UNEVEN = 120.0
"""More than the exponential can tell apart from 0: a maximum that several rows share leaves nothing of the others."""
OVERFLOWING = 100.0
"""Scores times this leave the range of the exponential unless their maximum is taken off first."""
CAPPED = 2.0
"""Random scores are so many times the softcap in the probe of it: most of them are capped, and none decides alone."""
WINDOW = 50
"""The widest window among the awkward lengths, so that it hides something there."""
RUNNING_SUM = 4
"""SDPA's decoding on a CPU was up to 10 times as far off as the plain formula where 2048 weights are summed one after the other."""
LENGTHS = (1, 127, 129, 1000)
"""Lengths that are multiples of no tile."""
FEW = 2
"""Batch rows and key-value heads of the awkward problems."""


def probes(problem: Attention, inputs: AttentionInputs, seed: int) -> Iterator[Probe]:
    """All probes that make sense for the problem, the sharpest first."""
    if not problem.page_size:
        yield from _probes(problem, inputs, seed)
        return
    flat = replace(problem, page_size=0)
    for probe in _probes(flat, problem.dense(inputs), seed):
        other = None if probe.problem is None else type(problem)(**{**probe.problem.fields(), "page_size": problem.page_size})
        yield replace(probe, inputs=paged(other or problem, probe.inputs, seed), problem=other)
    yield from _shared_pages(problem, inputs)


def _probes(problem: Attention, inputs: AttentionInputs, seed: int) -> Iterator[Probe]:
    generator = torch.Generator().manual_seed(seed)
    yield from _edges(problem, inputs)
    yield from _awkward(problem, seed)
    if problem.direction == "forward":
        yield from _values(problem, inputs, generator)
        yield Probe("scores that differ by a hundred between rows", inputs.replace(q=_uneven(problem, inputs)), slack=_of_sums(inputs))
        # which of two nearly equal keys wins is decided by rounding; a softmax that overflows gives no numbers at all
        yield Probe("scores that overflow without their maximum taken off", inputs.replace(q=inputs.q * OVERFLOWING), slack=50)
        if problem.softcap:
            largest = float(torch.finfo(inputs.q.dtype).max / (2 * inputs.q.abs().max()))
            capped = inputs.q * min(largest, max(1.0, CAPPED * problem.softcap))
            yield Probe("scores far beyond the softcap", inputs.replace(q=capped), slack=3)
    yield from _other_masks(problem, inputs)
    yield from _strides(inputs)


def _shared_pages(problem: Attention, inputs: AttentionInputs) -> Iterator[Probe]:
    """Rows with a common beginning share its pages: what a prefix cache does."""
    if problem.batch > 1 and inputs.block_table is not None:
        longest = problem.batch - 1 if inputs.lengths is None else int(inputs.lengths.argmax())
        table = inputs.block_table[longest].expand_as(inputs.block_table).contiguous()
        yield Probe("rows share their pages", inputs.replace(block_table=table))


def _of_sums(inputs: AttentionInputs) -> float:
    """Where all keys weigh alike: the plain formula happens to sum in blocks, a running sum of thousands is several times as far off."""
    return RUNNING_SUM if inputs.v.dtype == torch.float32 else 1


def _edges(problem: Attention, inputs: AttentionInputs) -> Iterator[Probe]:
    """Every query looks for one key: the last or first that it sees, or the next beyond, which it must not see."""
    first, last, hidden = _edge_keys(problem, inputs)
    slack = 1 if problem.direction == "forward" else 10  # small gradients are differences of large numbers here
    yield Probe("the last visible key decides", inputs.replace(q=_looking_for(problem, inputs, last)), slack=slack)
    if bool((hidden >= 0).any()):
        wanted = torch.where(hidden >= 0, hidden, last)
        yield Probe("a key that must not be seen is sought", inputs.replace(q=_looking_for(problem, inputs, wanted)), slack=slack)
    if problem.window:
        yield Probe("the first key of the window decides", inputs.replace(q=_looking_for(problem, inputs, first)), slack=slack)
        before = (first - 1).clamp(min=0)
        yield Probe("a key before the window is sought", inputs.replace(q=_looking_for(problem, inputs, before)), slack=slack)


def _edge_keys(problem: Attention, inputs: AttentionInputs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """int64 [batch, q_len] each: the first and last key visible by position, and one that is not (-1 where there is none)."""
    device = inputs.q.device
    end = torch.full((problem.batch, 1), problem.kv_len - 1, device=device)
    if inputs.lengths is not None:
        end = end.minimum(inputs.lengths[:, None].long() - 1)
    first, last = problem.seen(device, inputs.lengths)
    last = last.minimum(end).expand(problem.batch, -1)
    hidden = torch.where(last + 1 < problem.kv_len, last + 1, -1)
    if inputs.mask is not None:  # the first key that the mask hides: argmin finds the first False
        row = inputs.mask[:, 0]
        none, at = row.all(-1), row.to(torch.uint8).argmin(-1)
        hidden = torch.where(none.expand_as(hidden), hidden, at.expand_as(hidden))
    return first.clamp(min=0).expand_as(last).minimum(end), last.clamp(min=0), hidden


def _looking_for(problem: Attention, inputs: AttentionInputs, keys: torch.Tensor) -> torch.Tensor:
    """Queries that are LOUD times the key with these numbers [batch, q_len], of the key-value head that each head shares."""
    loud = LOUD[problem.direction]
    index = keys[:, None, :, None].expand(-1, problem.kv_heads, -1, problem.head_dim)
    return loud * inputs.k.gather(2, index).repeat_interleave(problem.group, dim=1)


def _uneven(problem: Attention, inputs: AttentionInputs) -> torch.Tensor:
    """Every second query is 0 and sees all its keys alike; the others find their last key with a score of about UNEVEN."""
    _, last, _ = _edge_keys(problem, inputs)
    found: torch.Tensor = _looking_for(problem, inputs, last) * (UNEVEN / LOUD["forward"] / problem.head_dim**0.5)
    found[:, :, ::2] = 0
    return found


def _values(problem: Attention, inputs: AttentionInputs, generator: torch.Generator) -> Iterator[Probe]:
    """Values that tell which keys have been summed up, and with which weights."""
    keys, features = torch.arange(problem.kv_len), torch.arange(problem.head_dim)
    wide = -(-problem.kv_len // problem.head_dim)
    tiles = (keys[:, None] // wide == features).to(inputs.v).expand_as(inputs.v).contiguous()
    yield Probe("every key counts once (each feature sums one run of keys)", inputs.replace(v=tiles))
    yield Probe("weights sum to 1 (values of 1)", inputs.replace(v=torch.ones_like(inputs.v)), slack=_of_sums(inputs))
    if problem.triangular and problem.kv_len > 1 and not problem.ragged:
        yield _late_keys(problem, inputs, generator)
    if inputs.lengths is not None:
        padded = ~problem.padding_mask(inputs.lengths).mT  # [batch, 1, kv_len, 1]
        nothing = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=padded.device)
        yield Probe("values of padded keys must not show", inputs.replace(v=inputs.v * padded * 64), zeros=nothing)


def _late_keys(problem: Attention, inputs: AttentionInputs, generator: torch.Generator) -> Probe:
    """Values of 0 before a key that differs between heads: queries before it must come out as exactly 0."""
    past = problem.kv_len - problem.q_len
    lowest = max(past + 1, 1)
    shape = (problem.batch, problem.kv_heads)
    first = torch.randint(lowest, problem.kv_len, shape, generator=generator) if lowest < problem.kv_len else torch.full(shape, lowest)
    first = torch.where(torch.rand(shape, generator=generator) < 0.5, first // 64 * 64, first).clamp(min=lowest)  # edges of tiles
    first.view(-1)[0] = max(problem.kv_len - 1, lowest)
    first = first.to(inputs.v.device)[..., None, None]
    keys = torch.arange(problem.kv_len, device=inputs.v.device)[:, None]
    queries = torch.arange(problem.q_len, device=inputs.v.device)[:, None]
    blind = (queries + past < first).repeat_interleave(problem.group, dim=1)
    return Probe("values of later keys must not show", inputs.replace(v=inputs.v * (keys >= first) * 64), zeros=blind)


def _other_masks(problem: Attention, inputs: AttentionInputs) -> Iterator[Probe]:
    """Lengths from one to all, and queries that see nothing."""
    if inputs.lengths is not None:
        least = problem.q_len if problem.ragged else 1
        spread = torch.linspace(least, problem.kv_len, max(problem.batch, 2), device=inputs.lengths.device)[: problem.batch]
        yield Probe("lengths from the least to all", inputs.replace(lengths=spread.round().to(inputs.lengths.dtype)))
        yield Probe("lengths that fall from row to row", inputs.replace(lengths=inputs.lengths.flip(0)))
    if inputs.bias is not None and problem.features == {"bias"}:  # or no key would be left to some query
        bias = inputs.bias.clone()
        bias[..., ::2, : problem.kv_len // 2] = -torch.inf
        yield Probe("a bias that hides whole tiles of keys", inputs.replace(bias=bias))
    if inputs.mask is not None:
        mask = inputs.mask.clone()
        mask[..., :: max(2, problem.q_len // 8), :] = False
        yield Probe("queries that see no key give 0", inputs.replace(mask=mask))
        yield Probe("whole tiles of hidden keys", inputs.replace(mask=inputs.mask & ~_hidden_stretches(problem, inputs.mask.device)))


def _hidden_stretches(problem: Attention, device: torch.device) -> torch.Tensor:
    """bool [q_len, kv_len]: true on the first half of the keys, the middle half, or the last, query by query in turn."""
    start = torch.tensor([0, problem.kv_len // 4, problem.kv_len // 2], device=device)[torch.arange(problem.q_len, device=device) % 3]
    keys = torch.arange(problem.kv_len, device=device)
    return (keys >= start[:, None]) & (keys < start[:, None] + problem.kv_len // 2)


def _strides(inputs: AttentionInputs) -> Iterator[Probe]:
    """Equal shapes in other memory orders: a kernel may refuse them, but not misread them."""
    q, k, v = inputs.q, inputs.k, inputs.v
    apart = {name: tensor.transpose(1, 2).contiguous().transpose(1, 2) for name, tensor in (("q", q), ("k", k), ("v", v))}
    yield Probe("tokens before heads in memory", inputs.replace(**apart), optional=True)
    yield Probe("one key-value head expanded to all", inputs.replace(k=k[:, :1].expand_as(k), v=v[:, :1].expand_as(v)), optional=True)
    sliced = inputs.replace(
        q=torch.cat([q.flip(2), q], dim=2)[:, :, 1::2],
        k=torch.cat([-k, k], dim=3)[..., k.shape[3] :],
        v=torch.cat([-v, v], dim=2)[:, :, v.shape[2] :],
    )
    yield Probe("slices from the middle of larger tensors", sliced, optional=True)


def _awkward(problem: Attention, seed: int) -> Iterator[Probe]:
    """Few heads at lengths that fit no tile; the kernel is built anew for each."""
    kv_heads = min(problem.kv_heads, FEW)
    small = replace(problem, batch=min(problem.batch, FEW), kv_heads=kv_heads, heads=kv_heads * problem.group, given="")
    small = replace(small, window=min(problem.window, WINDOW))
    if problem.cross:
        pairs = [(problem.q_len, length) for length in LENGTHS] if problem.q_len == 1 else [(129, 1000), (127, 129), (1, 127)]
    else:
        pairs = [(length, length) for length in LENGTHS]
        pairs += [(129, 65)] * (problem.causal and not problem.ragged)  # 64 queries see nothing
    for q_len, kv_len in pairs:
        other = replace(small, q_len=q_len, kv_len=kv_len)
        yield Probe(f"{AWKWARD} {q_len}→{kv_len}", other.inputs(seed), problem=other)
