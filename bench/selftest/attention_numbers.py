"""Attention that computes wrongly: scale, bias, softmax, precision."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from .attention_places import ALL, HALF, SHORT, SINGLE, in_both, places
from .attention_steps import TILE, Mask, Steps, products, with_bias
from .plants import Plant, planted

if TYPE_CHECKING:
    from kerneldyno.kernels.attention.problem import Attention
    from kerneldyno.kernels.registry import Run, Setup


def times(factor: float) -> Steps:
    """The whole output is off by a factor."""
    return Steps(output=lambda _problem, _inputs, right: right * factor)


def exponentials(
    scores: torch.Tensor, visible: Mask, top: torch.Tensor | float, exp: Callable[..., torch.Tensor] = torch.exp
) -> torch.Tensor:
    """exp(scores - top), normalized; hidden keys weigh nothing and a row without keys is 0."""
    weights = exp(scores - top)
    if visible is not None:
        weights = weights.masked_fill(~visible, 0)
    total = weights.sum(-1, keepdim=True)
    return torch.where(total == 0, 0, weights / total)


def not_rescaled(scores: torch.Tensor, visible: Mask) -> torch.Tensor:
    """An online softmax that forgets to rescale what it has when a larger score comes along."""
    hidden = scores if visible is None else scores.masked_fill(~visible, -torch.inf)
    running = hidden.cummax(-1).values
    ends = torch.arange(scores.shape[-1], device=scores.device) // TILE * TILE + TILE - 1
    top = running[..., ends.clamp(max=scores.shape[-1] - 1)]
    return exponentials(scores, visible, torch.where(top == -torch.inf, 0, top))


def top_of_first_tile(scores: torch.Tensor, visible: Mask) -> torch.Tensor:
    """The maximum is taken over the first tile only: right until later scores are so much larger that exp overflows."""
    return exponentials(scores, visible, scores[..., :TILE].amax(-1, keepdim=True))


def top_of_a_block_of_rows(scores: torch.Tensor, visible: Mask) -> torch.Tensor:
    """One maximum for all rows: right until a row's own scores are so much smaller that all of its weights underflow."""
    return exponentials(scores, visible, scores.amax((-1, -2), keepdim=True))


def rounded_mix(dtype: torch.dtype) -> Steps:
    """The accumulator is rounded to `dtype` after every tile of keys."""

    def mixed(weights: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        total = torch.zeros_like(weights[..., :1] * v[..., :1, :])
        for start in range(0, weights.shape[-1], TILE):
            part = weights[..., start : start + TILE] @ v[..., start : start + TILE, :]
            total = (total + part).to(dtype).float()
        return total

    return Steps(mixed=mixed)


def rounded_weights(change: Callable[[torch.Tensor], torch.Tensor]) -> Steps:
    """The softmax's weights are rounded before they meet the values."""
    return Steps(mixed=lambda weights, v: change(weights) @ v)


def through(dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    """Rounds to a narrower type and back."""
    return lambda tensor: tensor.to(dtype).float()


def ten_bits(tensor: torch.Tensor) -> torch.Tensor:
    """Float32 cut to the ten bits of TF32."""
    return (tensor.view(torch.int32) & ~0x1FFF).view(torch.float32)


def narrow_inputs(change: Callable[[torch.Tensor], torch.Tensor]) -> Steps:
    """q, k and v are rounded on the way in."""
    return Steps(inputs=lambda _, inputs: inputs.replace(**{name: change(getattr(inputs, name)) for name in ("q", "k", "v")}))


def padded_head(problem: Attention) -> float:
    """1/sqrt of the next power of two, to which the head was padded."""
    return float(1 / math.sqrt(1 << (problem.head_dim - 1).bit_length()))


def dropping(seed: int = 0) -> Steps:
    """Dropout was left on; it has a generator of its own."""
    generator = torch.Generator().manual_seed(seed)

    def mixed(weights: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        kept = (torch.rand(weights.shape, generator=generator) > 0.1).to(weights)
        return (weights * kept / 0.9) @ v

    return Steps(mixed=mixed)


def _scales() -> list[Plant]:
    odd = [replace(p, head_dim=80) for p in (*in_both(SHORT), *places(causal=True, length="long")[:2])]
    narrow = Steps(products=lambda q, k, scale: products(q[..., :64], k[..., :64], scale))
    return [
        planted("output × 1.05", times(1.05).build, (*places(), *places(causal=True))),
        planted("output × 1.001", times(1.001).build, places(*SINGLE), beyond=places("bfloat16", length="short")),
        planted("scale 1/head_dim", Steps(scale=lambda p: 1 / p.head_dim).build, (*places(), *places(causal=True, length="long"))),
        planted("no scale", Steps(scale=lambda _: 1.0).build, places()),
        planted("scale of the padded head", Steps(scale=padded_head).build, odd),
        planted("features past 64 left out of the scores", narrow.build, odd),
        planted("features past 64 left out of the output", _cut_output().build, odd),
    ]


def _cut_output() -> Steps:
    return Steps(output=lambda _problem, _inputs, right: torch.cat([right[..., :64], 0 * right[..., 64:]], -1))


def _biases() -> list[Plant]:
    at = places(bias="additive")
    many = tuple(p for p in at if p.heads > 1)
    after = Steps(with_bias=lambda scores, _: scores)

    def build_after(problem: Attention, setup: Setup) -> Run:
        run = after.build(problem, setup)
        return lambda inputs: run(inputs) + (inputs.bias.float() @ inputs.v.float()).to(inputs.v) / problem.kv_len

    def scaled(scores: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return scores if bias is None else with_bias(scores, bias * 0.125)

    return [
        planted("bias ignored", after.build, at),
        planted("bias added after the softmax", build_after, at),
        planted("bias scaled like the scores", Steps(with_bias=scaled).build, at),
        planted("bias of the next head", Steps(inputs=lambda _, i: i.replace(bias=_there(i.bias).roll(1, 1))).build, many),
        planted("bias transposed", Steps(inputs=lambda _, i: i.replace(bias=_there(i.bias).mT)).build, many),
    ]


def _there(bias: torch.Tensor | None) -> torch.Tensor:
    assert bias is not None
    return bias


def _softmaxes() -> list[Plant]:
    causal = places(causal=True)
    no_maximum = Steps(softmax=lambda scores, visible: exponentials(scores, visible, 0.0))
    two = Steps(softmax=lambda scores, visible: exponentials(scores, visible, scores.amax(-1, keepdim=True), torch.exp2))
    short = places(length="short")
    return [
        planted("no maximum subtracted", no_maximum.build, causal),
        planted("maximum of the first tile only", Steps(softmax=top_of_first_tile).build, causal),
        planted("one maximum for all rows", Steps(softmax=top_of_a_block_of_rows).build, short),
        planted("accumulator not rescaled", Steps(softmax=not_rescaled).build, causal),
        planted("powers of two without the factor", two.build, causal),
        planted("softmax over queries", Steps(softmax=lambda scores, _: torch.softmax(scores, -2)).build, short),
    ]


def _precision() -> list[Plant]:
    at, short = places(*SINGLE), places(*HALF, length="short")
    bf16 = torch.bfloat16
    return [
        planted("accumulator in bfloat16", rounded_mix(bf16).build, (*at, *places("bfloat16", length="long")), beyond=short[:1]),
        planted("accumulator in float16", rounded_mix(torch.float16).build, at, beyond=short[1:]),
        planted("bfloat16 inside float32", narrow_inputs(through(bf16)).build, at),
        planted("TF32 inside float32", narrow_inputs(ten_bits).build, at),
        planted("weights rounded to bfloat16 inside float32", rounded_weights(through(bf16)).build, at),
        planted("weights rounded to 8-bit floats", rounded_weights(through(torch.float8_e5m2)).build, places(*ALL)),
        planted("dropout left on", dropping().build, places(*SINGLE, length="short") + places("bfloat16", length="short")),
    ]


def plants() -> list[Plant]:
    """All of them, and the right kernel at places of each kind."""
    kinds = (places(bias="additive"), places(head_dim=80, length="short"), places(causal=True, head_dim=80, length="long")[:2])
    control = planted("right, with bias", Steps().build, [p for kind in kinds for p in kind], right=True)
    return [control, *_scales(), *_biases(), *_softmaxes(), *_precision()]
