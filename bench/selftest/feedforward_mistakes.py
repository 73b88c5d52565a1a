"""Feed-forward networks that are right but for one mistake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812

from kerneldyno.kernels.feedforward.problem import NORMS, FeedForward, activate

from .attention_masks import there
from .attention_memory import as_if_contiguous
from .attention_numbers import through
from .feedforward_steps import Steps, norm
from .plants import Plant, in_dtypes, planted

if TYPE_CHECKING:
    from kerneldyno.kernels.feedforward.problem import FeedForwardInputs, FeedForwardWeights
    from kerneldyno.kernels.registry import Run, Setup

TILE = 64
SHORT = FeedForward(batch=2, seq_len=150, dim=96, hidden_dim=208, residual=True)
LONG = FeedForward(batch=1, seq_len=4096, dim=128, hidden_dim=512, residual=True, dtype="bfloat16")
GATED = replace(SHORT, activation="silu", norm="rmsnorm", gated=True)
ALL = ("float32", "bfloat16", "float16")


def places(*dtypes: str, **features: Any) -> list[FeedForward]:
    """A short problem in each dtype and a long one, with these features."""
    short = in_dtypes(replace(SHORT, **features), *(dtypes or ALL[:2]))
    return [*short, replace(LONG, dtype=short[-1].dtype, **features)]


def activating(change: Callable[[torch.Tensor], torch.Tensor]) -> Steps:
    """Another activation."""
    return Steps(combined=lambda _, up, gate: change(up) if gate is None else change(gate) * up)


def without(*names: str) -> Steps:
    """Some of the weights are forgotten."""
    return Steps(weights=lambda _, weights: weights.replace(**dict.fromkeys(names)))


def exchanged(one: str, other: str) -> Steps:
    """Two weights take each other's place."""

    def weights(_: FeedForward, given: FeedForwardWeights) -> FeedForwardWeights:
        return given.replace(**{one: getattr(given, other), other: getattr(given, one)})

    return Steps(weights=weights)


def epsilon(value: float) -> Steps:
    """Another epsilon under the norm's root."""
    return Steps(normalized=lambda p, x, weights: norm(p.norm, x, weights, value))


def by(factor: float) -> Steps:
    """The whole output is off by a factor."""
    return Steps(output=lambda y: y * factor)


def sample_variance(problem: FeedForward, x: torch.Tensor, weights: FeedForwardWeights) -> torch.Tensor:
    """The variance is divided by n - 1."""
    variance = x.var(-1, keepdim=True)
    h = (x - x.mean(-1, keepdim=True)) * torch.rsqrt(variance + problem.norm_epsilon)
    return h * there(weights.norm_weight) + there(weights.norm_bias)


def variance_from_squares(problem: FeedForward, x: torch.Tensor, weights: FeedForwardWeights) -> torch.Tensor:
    """E[x²] - E[x]² in float32: nothing is left of it where the mean is large."""
    mean = x.mean(-1, keepdim=True)
    variance = (x.square().mean(-1, keepdim=True) - mean.square()).clamp(min=0)
    h = (x - mean) * torch.rsqrt(variance + problem.norm_epsilon)
    return h * there(weights.norm_weight) + there(weights.norm_bias)


def statistics_in_half(problem: FeedForward, x: torch.Tensor, weights: FeedForwardWeights) -> torch.Tensor:
    """The norm's sum of squares is taken in float16, where 65504 is the largest number."""
    squares = (x.half() * x.half()).sum(-1, keepdim=True).float() / x.shape[-1]
    return x * torch.rsqrt(squares + problem.norm_epsilon) * there(weights.norm_weight)


def hidden(change: Callable[[torch.Tensor], torch.Tensor]) -> Steps:
    """The activated hidden neurons, changed."""
    return Steps(combined=lambda p, up, gate: change(activate(p.activation, up) if gate is None else activate(p.activation, gate) * up))


def no_tile(x: torch.Tensor) -> torch.Tensor:
    """The second tile of the last axis is left out."""
    return x * (torch.arange(x.shape[-1], device=x.device) // TILE != 1)


def no_partial_tile(axis: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """What comes after the last whole tile of an axis is 0."""

    def change(x: torch.Tensor) -> torch.Tensor:
        keep = torch.arange(x.shape[axis], device=x.device) < x.shape[axis] // TILE * TILE
        return x * (keep if axis == -1 else keep[:, None])

    return change


def narrow_sum(dtype: torch.dtype) -> Steps:
    """The accumulator of the matrix products is rounded after every tile."""

    def linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        total = torch.zeros(*x.shape[:-1], weight.shape[0], device=x.device)
        for start in range(0, x.shape[-1], 16):
            total = (total + x[..., start : start + 16] @ weight[:, start : start + 16].mT).to(dtype).float()
        return total if bias is None else total + bias

    return Steps(linear=linear)


def narrow_products(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """Operands are rounded to bfloat16."""
    return F.linear(x.bfloat16().float(), weight.bfloat16().float(), bias)


def in_recycled_memory(problem: FeedForward, setup: Setup) -> Run:
    """The last row is never written."""
    right = Steps().build(problem, setup)

    def run(inputs: FeedForwardInputs) -> torch.Tensor:
        rows = right(inputs)[:, :-1].clone()  # the right answer's memory is likely to be handed out again
        output = torch.empty(inputs.x.shape, dtype=inputs.x.dtype, device=inputs.x.device)
        output[:, :-1] = rows
        return output

    return run


def _activations() -> list[Plant]:
    swapped = Steps(combined=lambda p, up, gate: activate(p.activation, up) * there(gate))
    outside = Steps(combined=lambda p, up, gate: activate(p.activation, up * there(gate)))
    single = places("float32", activation="gelu")
    return [
        planted("relu for gelu", activating(torch.relu).build, places(activation="gelu")),
        planted("silu for gelu", activating(F.silu).build, places(activation="gelu")),
        planted("tanh gelu for erf gelu", activating(_tanh_gelu).build, single, beyond=places("bfloat16", activation="gelu")),
        planted("erf gelu for tanh gelu", activating(F.gelu).build, places("float32", activation="gelu_tanh")),
        planted("no activation", activating(lambda x: x).build, places()),
        planted("gate and up exchanged", exchanged("w_gate", "w1").build, _gated()),
        planted("activation on up instead of the gate", swapped.build, _gated()),
        planted("activation after the product with the gate", outside.build, _gated()),
    ]


def _tanh_gelu(x: torch.Tensor) -> torch.Tensor:
    return F.gelu(x, approximate="tanh")


def _gated() -> list[FeedForward]:
    return places(activation="silu", norm="rmsnorm", gated=True)


def _norms() -> list[Plant]:
    rms = _gated()
    return [
        planted("norm missing", Steps(normalized=lambda _p, x, _w: x).build, places()),
        planted("layernorm for rmsnorm", Steps(normalized=lambda p, x, w: norm("layernorm", x, w, NORMS[p.norm])).build, rms),
        planted("norm weight ignored", without("norm_weight").build, places()),
        planted("norm bias ignored", without("norm_bias").build, places()),
        planted("epsilon of the norm forgotten", epsilon(0.0).build, in_dtypes(SHORT, "float32"), beyond=in_dtypes(SHORT, "bfloat16")),
        planted("epsilon of the norm 1e-3", epsilon(1e-3).build, in_dtypes(SHORT, "float32"), beyond=in_dtypes(SHORT, "bfloat16")),
        planted(
            "variance divided by n - 1", Steps(normalized=sample_variance).build, in_dtypes(SHORT, "float32"), beyond=places("bfloat16")
        ),
        planted("variance from squares", Steps(normalized=variance_from_squares).build, (), beyond=in_dtypes(SHORT, "float32")),
        planted("norm statistics in float16", Steps(normalized=statistics_in_half).build, in_dtypes(GATED, "float32")),
    ]


def _matrices() -> list[Plant]:
    square = [replace(p, dim=128, hidden_dim=128) for p in places()]
    transposed = Steps(weights=lambda _, w: w.replace(w1=w.w1.mT))
    last = Steps(output=lambda y: torch.cat([y[:, :-1], torch.zeros_like(y[:, -1:])], 1))
    short, single = in_dtypes(SHORT, *ALL), places("float32")
    return [
        planted("output × 1.05", by(1.05).build, places(*ALL)),
        planted("output × 1.001", by(1.001).build, single, beyond=in_dtypes(SHORT, "bfloat16")),
        planted("first bias forgotten", without("b1").build, places()),
        planted("second bias forgotten", without("b2").build, places()),
        planted("bias of the gate forgotten", without("b_gate").build, _gated()),
        planted("residual forgotten", Steps(with_residual=lambda _p, _x, y: y).build, places()),
        planted("residual added twice", Steps(with_residual=lambda _, x, y: 2 * x + y).build, places()),
        planted("first matrix transposed", transposed.build, square),
        planted("one tile of hidden neurons skipped", hidden(no_tile).build, places()),
        planted("last partial tile of hidden neurons skipped", hidden(no_partial_tile(-1)).build, short),
        planted("last partial tile of tokens not written", Steps(output=no_partial_tile(-2)).build, places(seq_len=150)),
        planted("tokens past the last whole tile not written", Steps(output=no_partial_tile(-2)).build, in_dtypes(_aligned(), *ALL[:2])),
        planted("last row zero", last.build, places()),
        planted("last row not written", in_recycled_memory, places()),
        planted("the last batch row is that of the first", Steps(output=lambda y: torch.cat([y[:1], y[:1]])).build, short),
        planted("strides ignored", Steps(inputs=as_if_contiguous).build, short),
        planted(
            "accumulator in bfloat16", narrow_sum(torch.bfloat16).build, [places()[0], places()[-1]], beyond=in_dtypes(SHORT, "bfloat16")
        ),
        planted("bfloat16 inside float32", Steps(linear=narrow_products).build, single),
        planted("hidden neurons rounded to 8-bit floats", hidden(through(torch.float8_e4m3fn)).build, places()),
        planted("zeros", by(0.0).build, places()),
    ]


def _aligned() -> FeedForward:
    """A multiple of every tile."""
    return replace(SHORT, seq_len=128)


def plants() -> list[Plant]:
    """All of them, and the right kernel at places of each kind."""
    kinds = (places(*ALL), _gated(), places(activation="gelu"), places(activation="gelu_tanh"), in_dtypes(_aligned(), *ALL[:2]))
    control = planted("right", Steps().build, [p for kind in kinds for p in kind], right=True)
    return [control, *_activations(), *_norms(), *_matrices()]
