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
    """Batch rows in another order, and, without masks, their tokens too: no position is special then.

    What is left (a single row under a mask) comes back as it is.
    """
    generator, device = torch.Generator().manual_seed(seed), inputs.x.device
    rows = torch.randperm(problem.batch, generator=generator).to(device)
    plain = problem.mask == "none" and not problem.padding
    tokens = (torch.randperm(problem.seq_len, generator=generator) if plain else torch.arange(problem.seq_len)).to(device)
    lengths = None if inputs.lengths is None else inputs.lengths[rows]
    rows_back, tokens_back = rows.argsort(), tokens.argsort()
    return inputs.replace(x=inputs.x[rows][:, tokens], lengths=lengths), lambda answer: answer[rows_back][:, tokens_back]


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
        other = replace(problem, batch=min(problem.batch, 2), seq_len=length, given="")
        yield Probe(f"{AWKWARD} {length}", other.inputs(seed), problem=other)
