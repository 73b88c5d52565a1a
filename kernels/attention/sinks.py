"""Attention to the first keys and to a window of near ones, exactly masked: what StreamingLLM keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .._cards import Card
from .._identity import triton_kernels
from ..registry import Device, Kernel, NotAsNamed, Run, Setup, Trace, kernel
from . import _sparse_card
from ._on_device import started
from ._precision import precision
from ._sparse_band import Band, keys_attended, through_band
from ._sparse_blocks import too_few
from ._sparse_code import Asked, configurations
from .problem import Attention, AttentionInputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .._code import Configuration


def refuses(problem: Attention, device: Device) -> str | None:
    """Few keys, of which there is nothing to leave out, and what the Triton kernel is not written for."""
    return too_few(problem) or _sparse_card.refuses(problem, device)


def claimed(problem: Attention, inputs: AttentionInputs, parts: int) -> torch.Tensor:
    """Exact attention with a mask, token by token."""
    band = Band.of(problem, parts)
    past: int | torch.Tensor = problem.kv_len - problem.q_len
    if problem.ragged and inputs.lengths is not None:
        past = inputs.lengths.long()[:, None, None] - problem.q_len
    at = torch.arange(problem.q_len, device=inputs.q.device)[:, None] + past
    key = torch.arange(problem.kv_len, device=inputs.q.device)
    mask = (key < band.sinks) | ((at - key).abs() < band.window)
    return problem.reference(inputs.with_mask(mask if mask.dim() == 2 else mask[:, None]))


def launched(problem: Attention, parts: int, card: Card, *, precision: str = "ieee") -> Run:
    """inputs -> output by the Triton kernel, cut for the card; in Triton's interpreter on a CPU."""
    from ._sparse_launch import attend

    band = Band.of(problem, parts)
    options = _sparse_card.options(problem, card, Asked(listed=False, precision=precision))
    return lambda inputs: attend(inputs.q, inputs.k, inputs.v, lengths=inputs.lengths, window=band.window, sinks=band.sinks, **options)


def device_code(capability: tuple[int, int]) -> Iterator[Configuration]:
    """Every form in which its kernel may be launched on a card."""
    return configurations(capability, listed=False)


def judge_of(parts: int) -> Callable[[Attention, Setup, Trace], str]:
    """Who says what ran, and how many keys that leaves."""

    def ran(problem: Attention, setup: Setup, trace: Trace) -> str:
        band = Band.of(problem, parts)
        told = f"{band.sinks} first keys and a window of {band.window}"
        if setup.device.type == "cuda":
            cut = _sparse_card.options(problem, Card.of(setup.device), Asked(listed=False))["cut"]
            return f"{triton_kernels('sparse_kernel', alone=True)(problem, setup, trace)}: {told}, {cut}"
        most = 4 * problem.heads * problem.head_dim * keys_attended(problem, band)
        if not 0 < trace.product_flops <= most:
            raise NotAsNamed(f"torch's products took {trace.product_flops:.3g} flop, those with the kept keys take at most {most:.3g}")
        return told

    return ran


def declared(name: str, parts: int, share: str) -> Kernel:
    """The kernel of that name, which keeps one of so many parts of the keys.

    Up to 64 first keys, which draw attention whatever they say (StreamingLLM, arXiv 2309.17453); the others lie in the window, before a
    query's own position and, unless causal, after it. What it sees follows from positions alone, nothing is estimated.
    """

    def claim(problem: Attention, setup: Setup, inputs: AttentionInputs) -> torch.Tensor:  # noqa: ARG001
        return claimed(problem, inputs, parts)

    def build(problem: Attention, setup: Setup) -> Run:
        if setup.device.type != "cuda":
            return through_band(problem, Band.of(problem, parts))
        return started(launched(problem, parts, Card.of(setup.device), precision=precision()), setup.calibration)

    build.__doc__ = f"{share} of the keys: the first ones and a window of those nearest to each query, through SDPA or a Triton kernel."
    return kernel(
        Attention,
        name=name,
        accepts=("causal", "padding", "ragged"),
        requires=("cuda:triton",),
        approximate=True,
        claim=claim,
        refuses=refuses,
        identified=judge_of(parts),
        device_code=device_code,
    )(build)


sinks_50 = declared("sinks_50", 2, "Half")
sinks_25 = declared("sinks_25", 4, "A quarter")
sinks_12 = declared("sinks_12", 8, "An eighth")
