"""Encoder layers that are right but for one mistake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812

from kerneldyno.kernels.layer.problem import Layer

from .attention_masks import there
from .attention_memory import as_if_contiguous
from .attention_steps import Steps as Attend
from .attention_steps import softmax
from .plants import Plant, in_dtypes, planted

if TYPE_CHECKING:
    from kerneldyno.kernels.attention.problem import AttentionInputs
    from kerneldyno.kernels.layer.problem import LayerInputs, LayerWeights
    from kerneldyno.kernels.registry import Run, Setup

SHORT = Layer(batch=2, seq_len=150, dim=96, heads=4, hidden_dim=208)
LONG = Layer(batch=1, seq_len=2048, dim=128, heads=2, hidden_dim=256, dtype="bfloat16")

Tensor = torch.Tensor


def places(*dtypes: str, **features: Any) -> list[Layer]:
    """A short problem in each dtype and a long one, with these features."""
    short = in_dtypes(replace(SHORT, **features), *(dtypes or ("float32", "bfloat16")))
    return [*short, replace(LONG, dtype=short[-1].dtype, **features)]


RIGHT = Attend()


def merged(output: Tensor) -> Tensor:
    """[batch, heads, seq_len, head_dim] -> [batch, seq_len, dim]"""
    return output.transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class Steps:
    """The steps in order; all of them right unless replaced."""

    inputs: Callable[[LayerInputs], LayerInputs] = lambda inputs: inputs
    weights: Callable[[LayerWeights], LayerWeights] = lambda weights: weights
    attend: Attend = RIGHT
    order: tuple[int, int, int] = (0, 1, 2)
    """Which third of the projection is q, k and v."""
    merged: Callable[[Tensor], Tensor] = merged
    first_sum: Callable[[Tensor, Tensor], Tensor] = torch.add
    second_sum: Callable[[Tensor, Tensor], Tensor] = torch.add
    activation: Callable[[Tensor], Tensor] = torch.relu
    epsilon: float = 1e-5
    norms: tuple[bool, bool] = (True, True)
    pre_norm: bool = False
    output: Callable[[Tensor], Tensor] = lambda output: output

    def build(self, problem: Layer, setup: Setup) -> Run:
        """What a kernel's build function does."""
        dtype = getattr(torch, problem.dtype)

        def run(inputs: LayerInputs) -> Tensor:
            given = self.inputs(inputs)
            weights, x = self.weights(setup.weights.map(Tensor.float)), given.x.float()
            return self.output(self._layer(problem, given, x, weights)).to(dtype)

        return run

    def _layer(self, problem: Layer, inputs: LayerInputs, x: Tensor, weights: LayerWeights) -> Tensor:
        w = weights
        first, second = (w.norm1_weight, w.norm1_bias), (w.norm2_weight, w.norm2_bias)
        if self.pre_norm:
            z = x + self._attention(problem, inputs, self._norm(0, x, first), w)
            return z + self._network(self._norm(1, z, second), w)
        z = self._norm(0, self.first_sum(x, self._attention(problem, inputs, x, w)), first)
        return self._norm(1, self.second_sum(z, self._network(z, w)), second)

    def _norm(self, which: int, x: Tensor, weights: tuple[Tensor, Tensor | None]) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], *weights, self.epsilon) if self.norms[which] else x

    def _attention(self, problem: Layer, inputs: LayerInputs, x: Tensor, w: LayerWeights) -> Tensor:
        from kerneldyno.kernels.attention.problem import AttentionInputs

        thirds = F.linear(x, w.w_qkv, w.b_qkv).chunk(3, -1)
        q, k, v = (thirds[i].view(*x.shape[:2], problem.heads, problem.head_dim).transpose(1, 2) for i in self.order)
        mask = None if inputs.mask is None else inputs.mask[None, None]
        attend = self.attend.build(replace(problem.attention, dtype="float32"), None)  # type: ignore[arg-type]
        out = attend(AttentionInputs(q=q, k=k, v=v, mask=mask, lengths=inputs.lengths))
        return F.linear(self.merged(out), w.w_out, w.b_out)

    def _network(self, z: Tensor, w: LayerWeights) -> Tensor:
        return F.linear(self.activation(F.linear(z, w.w1, w.b1)), w.w2, w.b2)


def without(*names: str) -> Steps:
    """Some of the weights are taken for zero (or one, for the weight of a norm)."""

    def weights(given: LayerWeights) -> LayerWeights:
        zero = {name: torch.zeros_like(getattr(given, name)) for name in names}
        return given.replace(
            **{name: torch.ones_like(value) if "norm" in name and "weight" in name else value for name, value in zero.items()}
        )

    return Steps(weights=weights)


def norms_exchanged(w: LayerWeights) -> LayerWeights:
    """Each norm uses the other's weights."""
    return w.replace(norm1_weight=w.norm2_weight, norm2_weight=w.norm1_weight, norm1_bias=w.norm2_bias, norm2_bias=w.norm1_bias)


def one_tile_less(hidden: Tensor) -> Tensor:
    """One tile of hidden neurons is left out."""
    return torch.relu(hidden) * (torch.arange(hidden.shape[-1], device=hidden.device) // 64 != 1)


def inverted(_: object, inputs: AttentionInputs) -> Tensor:
    """Sees what the mask hides."""
    return ~there(inputs.mask)


def _attention() -> list[Plant]:
    causal, masked, padded = places(mask="causal"), places(mask="boolean"), places(padding=True)
    blind = Attend(softmax=lambda scores, _: softmax(scores, None))
    turned = Attend(inputs=lambda _, i: i.replace(mask=there(i.mask).mT))
    return [
        planted("causal mask ignored", Steps(attend=blind).build, causal),
        planted("mask ignored", Steps(inputs=lambda i: i.replace(mask=None)).build, masked),
        planted("mask inverted", Steps(attend=Attend(visible=inverted)).build, masked),
        planted("mask transposed", Steps(attend=turned).build, masked),
        planted("padding ignored", Steps(inputs=lambda i: i.replace(lengths=None)).build, padded),
        planted(
            "lengths one too long", Steps(inputs=lambda i: i.replace(lengths=there(i.lengths) + 1)).build, padded[:2], beyond=padded[2:]
        ),
        planted("scale 1/head_dim", Steps(attend=Attend(scale=lambda p: 1 / p.head_dim)).build, places()),
        planted("q and k exchanged", Steps(order=(1, 0, 2)).build, places()),
        planted("k and v exchanged", Steps(order=(0, 2, 1)).build, places()),
        planted("heads merged in the wrong order", Steps(merged=lambda o: o.permute(0, 2, 3, 1).flatten(2)).build, places()),
        planted("heads not transposed back", Steps(merged=lambda o: o.reshape(o.shape[0], o.shape[2], -1)).build, places()),
        planted("one head zero", Steps(merged=lambda o: merged(torch.cat([o[:, :-1], 0 * o[:, -1:]], 1))).build, places()),
    ]


def _rest() -> list[Plant]:
    short, single = in_dtypes(SHORT, "float32", "bfloat16"), in_dtypes(SHORT, "float32")
    last = Steps(output=lambda y: torch.cat([y[:, :-1], torch.zeros_like(y[:, -1:])], 1))
    return [
        planted("norm before instead of after", Steps(pre_norm=True).build, places()),
        planted("first residual missing", Steps(first_sum=lambda _, y: y).build, places()),
        planted("second residual missing", Steps(second_sum=lambda _, y: y).build, places()),
        planted("first norm missing", Steps(norms=(False, True)).build, places()),
        planted("second norm missing", Steps(norms=(True, False)).build, places()),
        planted("norms exchanged", Steps(weights=norms_exchanged).build, places()),
        planted("epsilon 1e-3", Steps(epsilon=1e-3).build, single, beyond=in_dtypes(SHORT, "bfloat16")),
        planted("epsilon 1e-12", Steps(epsilon=1e-12).build, (), beyond=single),
        planted("gelu for relu", Steps(activation=F.gelu).build, places()),
        planted("bias of the projection forgotten", without("b_qkv").build, places()),
        planted("bias of the output projection forgotten", without("b_out").build, places()),
        planted("first bias of the network forgotten", without("b1").build, places()),
        planted("second bias of the network forgotten", without("b2").build, places()),
        planted("norm weight ignored", without("norm1_weight").build, places()),
        planted("one tile of hidden neurons skipped", Steps(activation=one_tile_less).build, places()),
        planted("last row zero", last.build, places()),
        planted("strides ignored", Steps(inputs=lambda i: i.replace(x=as_if_contiguous(i.x))).build, short),
        planted("output × 1.05", Steps(output=lambda y: y * 1.05).build, places()),
        planted("output × 1.001", Steps(output=lambda y: y * 1.001).build, places("float32"), beyond=in_dtypes(SHORT, "bfloat16")),
        planted("bfloat16 inside float32", Steps(weights=lambda w: w.map(lambda t: t.bfloat16().float())).build, single),
    ]


def plants() -> list[Plant]:
    """All of them, and the right kernel at places of each kind."""
    kinds = (places(), places(mask="causal"), places(mask="boolean"), places(padding=True))
    control = planted("right", Steps().build, [p for kind in kinds for p in kind], right=True)
    return [control, *_attention(), *_rest()]
