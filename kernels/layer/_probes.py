"""Inputs on which the mistakes of layer kernels show plainly, and the symmetries by which a layer can be asked anew."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from ..registry import AWKWARD, Probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .problem import Layer, LayerInputs

LARGE = 4.0
LENGTHS = (1, 127, 129, 300)
"""Lengths that are multiples of no tile."""


def disguised(problem: Layer, inputs: LayerInputs, seed: int) -> tuple[LayerInputs, Callable[[Any], Any]]:
    """Batch rows moved on by some places, or, of a single row without masks, its tokens: no position is special then."""
    lengths = inputs.lengths
    if problem.batch > 1:
        axis, shift = 0, seed % problem.batch
        lengths = None if lengths is None else lengths.roll(shift, 0)
    elif problem.mask == "none" and not problem.padding:
        axis, shift = 1, seed % problem.seq_len
    else:
        return inputs, lambda answer: answer
    return inputs.replace(x=inputs.x.roll(shift, axis), lengths=lengths), lambda answer: answer.roll(-shift, axis)


def probes(problem: Layer, inputs: LayerInputs, seed: int) -> Iterator[Probe]:
    """Tokens that stand out, extreme lengths, other memory orders, awkward lengths."""
    x = inputs.x
    yield Probe("large inputs", inputs.replace(x=x * LARGE))
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.rand(problem.batch, problem.seq_len, 1, generator=generator) < 0.05
    chosen[:, -1] = True  # the last token, which a causal mask hides from all others
    yield Probe("single tokens that outweigh the others", inputs.replace(x=torch.where(chosen.to(x.device), 8 * x, x)))
    if inputs.lengths is not None:
        positions = torch.arange(problem.seq_len, device=x.device)
        padded = (positions >= inputs.lengths[:, None])[..., None]
        yield Probe("padded tokens must not show", inputs.replace(x=torch.where(padded, 64 * x, x)))
        spread = torch.linspace(1, problem.seq_len, max(problem.batch, 2), device=x.device)[: problem.batch]
        yield Probe("lengths from 1 to all", inputs.replace(lengths=spread.round().to(inputs.lengths.dtype)))
    yield Probe("tokens before batch rows in memory", inputs.replace(x=x.transpose(0, 1).contiguous().transpose(0, 1)), optional=True)
    yield Probe("slices of a wider tensor", inputs.replace(x=torch.cat([x, -x], dim=2)[..., : problem.dim]), optional=True)
    for length in LENGTHS:
        other = replace(problem, batch=min(problem.batch, 2), seq_len=length)
        yield Probe(f"{AWKWARD} {length}", other.inputs(seed), problem=other)
