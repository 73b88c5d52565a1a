"""Decoder layers (norms first, rotary positions, grouped heads, a gate) that are right but for one mistake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812

from kerneldyno.kernels.attention.problem import AttentionInputs
from kerneldyno.kernels.layer.problem import Layer

from .attention_memory import as_if_contiguous
from .plants import Plant, in_dtypes, planted

if TYPE_CHECKING:
    from kerneldyno.kernels.layer.problem import LayerInputs, LayerWeights
    from kerneldyno.kernels.registry import Run, Setup

SHORT = Layer(
    batch=2, seq_len=150, dim=96, heads=4, kv_heads=2, hidden_dim=208, mask="causal", norm_first=True, norm="rmsnorm", activation="silu",
    gated=True, bias=False, rope_theta=1e4,
)  # fmt: skip
STRETCHED = replace(SHORT, rope_scaling="llama3:8,1,4,64")
LONG = replace(SHORT, batch=1, seq_len=2048, dim=128, hidden_dim=256, dtype="bfloat16")
VIT = replace(SHORT, norm="layernorm", mask="none", bias=True, gated=False, activation="gelu", rope_theta=0.0, kv_heads=4)

Tensor = torch.Tensor


def turned(x: Tensor, angles: Tensor) -> Tensor:
    """[…, seq_len, head_dim] by [seq_len, head_dim / 2]: feature i with feature i + head_dim / 2."""
    first, second = x.chunk(2, -1)
    return torch.cat([first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()], -1)


def shared(x: Tensor, group: int) -> Tensor:
    """Each key-value head for the `group` query heads that share it."""
    return x.repeat_interleave(group, dim=1)


def rms(problem: Layer, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The norm that the problem asks for."""
    return problem.normalized(x, weight, bias)


@dataclass(frozen=True)
class Steps:
    """The steps in order; all of them right unless replaced."""

    problem: Callable[[Layer], Layer] = lambda problem: problem
    """Another problem than the one that was asked."""
    inputs: Callable[[LayerInputs], LayerInputs] = lambda inputs: inputs
    norm: Callable[[Layer, Tensor, Tensor, Tensor | None], Tensor] = rms
    norms: tuple[bool, bool] = (True, True)
    turn_q: Callable[[Tensor, Tensor], Tensor] = turned
    turn_k: Callable[[Tensor, Tensor], Tensor] = turned
    turn_v: Callable[[Tensor, Tensor], Tensor] = lambda v, _: v
    shared: Callable[[Tensor, int], Tensor] = shared
    attention_sum: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda x, _, out: x + out
    """(x, norm of x, output of the attention)"""
    network_sum: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda z, _, out: z + out
    gated: Callable[[Tensor, Tensor], Tensor] = lambda gate, up: F.silu(gate) * up

    def build(self, asked: Layer, setup: Setup) -> Run:
        """What a kernel's build function does."""
        problem, dtype = self.problem(asked), getattr(torch, asked.dtype)

        def run(inputs: LayerInputs) -> Tensor:
            given = self.inputs(inputs)
            weights: LayerWeights = setup.weights.map(Tensor.float)
            return self._layer(problem, given, given.x.float(), weights).to(dtype)

        return run

    def _layer(self, problem: Layer, inputs: LayerInputs, x: Tensor, w: LayerWeights) -> Tensor:
        h = self.norm(problem, x, w.norm1_weight, w.norm1_bias) if self.norms[0] else x
        z = self.attention_sum(x, h, F.linear(self._attended(problem, inputs, h, w), w.w_out, w.b_out))
        n = self.norm(problem, z, w.norm2_weight, w.norm2_bias) if self.norms[1] else z
        up = F.linear(n, w.w1, w.b1)
        hidden = F.gelu(up) if w.w_gate is None else self.gated(F.linear(n, w.w_gate, w.b_gate), up)
        return self.network_sum(z, n, F.linear(hidden, w.w2, w.b2))

    def _attended(self, problem: Layer, inputs: LayerInputs, h: Tensor, w: LayerWeights) -> Tensor:
        q, k, v = problem.heads_of(F.linear(h, w.w_qkv, w.b_qkv))
        if problem.rope_theta:
            cos, sin = problem.rotation(h.device, torch.float64)
            angles = torch.atan2(sin, cos).float()
            q, k, v = self.turn_q(q, angles), self.turn_k(k, angles), self.turn_v(v, angles)
        group = problem.heads // problem.kv_heads
        k, v = self.shared(k, group), self.shared(v, group)
        attention = replace(problem.attention, kv_heads=problem.heads, dtype="float32")
        return attention.naive(AttentionInputs(q=q, k=k, v=v, lengths=inputs.lengths)).transpose(1, 2).flatten(2)


def neighbours_turned(x: Tensor, angles: Tensor) -> Tensor:
    """Feature 2 i is paired with feature 2 i + 1, as the paper has it and these weights do not."""
    apart = torch.cat([x[..., ::2], x[..., 1::2]], -1)
    first, second = turned(apart, angles).chunk(2, -1)
    return torch.stack([first, second], -1).flatten(-2)


def one_position_on(x: Tensor, angles: Tensor) -> Tensor:
    """Positions count from 1: harmless for queries and keys alike, but not for one of them."""
    return turned(x, angles + angles[1:2])


def backwards(x: Tensor, angles: Tensor) -> Tensor:
    """Turned the other way."""
    return turned(x, -angles)


def half_turned(x: Tensor, angles: Tensor) -> Tensor:
    """The slower half of the wavelengths is left out."""
    kept = torch.arange(angles.shape[1], device=x.device) < angles.shape[1] // 2
    return turned(x, torch.where(kept, angles, 0))


def rounded_positions(x: Tensor, angles: Tensor) -> Tensor:
    """Angles in bfloat16: far from the beginning they are off by whole turns' parts."""
    return turned(x, angles.bfloat16().float())


def heads_in_turns(x: Tensor, group: int) -> Tensor:
    """Query head h uses key-value head h modulo their number."""
    return x.repeat(1, group, 1, 1)


def last_heads_first(x: Tensor, group: int) -> Tensor:
    """Every group uses the key-value head of its neighbour."""
    return shared(x.roll(1, 1), group)


def centred(problem: Layer, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The mean is subtracted, as LayerNorm does."""
    return rms(problem, x - x.mean(-1, keepdim=True), weight, bias)


def unweighted(problem: Layer, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The norm's weights are left out."""
    return rms(problem, x, torch.ones_like(weight), bias)


def plants() -> list[Plant]:
    """All of them, and the right kernel at places of each kind."""
    short = in_dtypes(SHORT, "float32", "bfloat16")
    single, everywhere = in_dtypes(SHORT, "float32"), [*short, LONG]
    vit = in_dtypes(VIT, "float32", "bfloat16")
    norm_after = Steps(attention_sum=lambda _, h, out: h + out)
    return [
        planted("right decoder", Steps().build, [*everywhere, STRETCHED, *vit], right=True),
        planted("positions ignored", Steps(turn_q=lambda x, _: x, turn_k=lambda x, _: x).build, everywhere),
        planted("only queries turned", Steps(turn_k=lambda x, _: x).build, everywhere),
        planted("neighbouring features paired", Steps(turn_q=neighbours_turned, turn_k=neighbours_turned).build, everywhere),
        planted("keys turned backwards", Steps(turn_k=backwards).build, everywhere),
        planted("keys one position on", Steps(turn_k=one_position_on).build, everywhere),
        planted("values turned, too", Steps(turn_v=turned).build, everywhere),
        planted("slow wavelengths left out", Steps(turn_q=half_turned, turn_k=half_turned).build, single, beyond=(short[1], LONG)),
        planted("angles in bfloat16", Steps(turn_q=rounded_positions, turn_k=rounded_positions).build, single, beyond=(short[1], LONG)),
        planted("wavelengths not stretched", Steps(problem=lambda p: replace(p, rope_scaling="")).build, [STRETCHED]),
        planted("another base of wavelengths", Steps(problem=lambda p: replace(p, rope_theta=5e5)).build, everywhere),
        planted("key heads taken in turns", Steps(shared=heads_in_turns).build, everywhere),
        planted("key heads of the neighbour", Steps(shared=last_heads_first).build, everywhere),
        planted("mean subtracted", Steps(norm=centred).build, everywhere),
        planted("norm weights left out", Steps(norm=unweighted).build, everywhere),
        planted("no norm before the attention", Steps(norms=(False, True)).build, everywhere),
        planted("no norm before the network", Steps(norms=(True, False)).build, everywhere),
        planted("residual of what was normed", norm_after.build, [*everywhere, *vit]),
        planted("second residual of what was normed", Steps(network_sum=lambda _, n, out: n + out).build, [*everywhere, *vit]),
        planted("norms after the sums", Steps(norms=(False, False)).build, vit),
        planted("gate and values exchanged", Steps(gated=lambda gate, up: gate * F.silu(up)).build, everywhere),
        planted("gate without its activation", Steps(gated=lambda gate, up: gate * up).build, everywhere),
        planted("gelu in place of silu", Steps(gated=lambda gate, up: F.gelu(gate) * up).build, everywhere),
        planted("strides ignored by a decoder", Steps(inputs=lambda i: i.replace(x=as_if_contiguous(i.x))).build, short),
    ]
