"""Weights and inputs that come from a model's files instead of being drawn: problems whose field `given` says so ask here.

What reaches a layer is what the layers before it make of the model's tokens or images: our own formula of the layer, in float32.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ._given_embeddings import entering, read
from ._given_files import current

if TYPE_CHECKING:
    from ._given_files import Source
    from .attention.problem import Attention, AttentionInputs
    from .feedforward.problem import FeedForward, FeedForwardWeights
    from .layer.problem import Layer, LayerWeights

REMEMBERED_BYTES = 2**28
"""Of what reaches layers, kept for the next who asks; the oldest goes first."""


@dataclass(frozen=True)
class Reaching:
    """What reaches the parts of a layer, float32."""

    x: torch.Tensor
    """[batch, seq_len, dim]: the layer itself"""
    network: torch.Tensor
    """[batch, seq_len, dim]: its feed-forward network"""
    attention: AttentionInputs
    """q, k and v after projection and rotation"""

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return (self.x.nbytes + self.network.nbytes) + self.attention.nbytes


_states: OrderedDict[tuple[object, ...], torch.Tensor] = OrderedDict()


def layer_weights(problem: Layer, device: torch.device | str = "cpu") -> LayerWeights:
    """The weights of the layer that `problem.given` names, in the problem's dtype. Raises ModelError."""
    source, layer = current(problem.given)
    return _weights(source, layer, getattr(torch, problem.dtype), device)


def network_weights(problem: FeedForward, device: torch.device | str = "cpu") -> FeedForwardWeights:
    """Those of its feed-forward network."""
    source, layer = current(problem.given)
    whole = _layer(source, batch=problem.batch, seq_len=problem.seq_len, dtype=problem.dtype)
    return whole.network(_weights(source, layer, getattr(torch, problem.dtype), device))


def layer_x(problem: Layer, seed: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """What reaches the layer, [batch, seq_len, dim] in the problem's dtype; other seeds mean other tokens or images."""
    source, layer = current(problem.given)
    whole = _layer(source, batch=problem.batch, seq_len=problem.seq_len, padding=problem.padding)
    return _entering(source, layer, whole, seed, device).to(getattr(torch, problem.dtype), copy=True)


def network_x(problem: FeedForward, seed: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """What reaches the feed-forward network of the layer, after the attention."""
    source, layer = current(problem.given)
    reaching = _reaching(source, layer, _layer(source, batch=problem.batch, seq_len=problem.seq_len), seed, device)
    return reaching.network.to(getattr(torch, problem.dtype))


def attention_qkv(problem: Attention, seed: int, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """q, k, v of the layer's attention over kv_len tokens, of q the last q_len; in one piece, in the problem's dtype."""
    source, layer = current(problem.given)
    whole = _layer(source, batch=problem.batch, seq_len=problem.kv_len, padding=problem.padding)
    inside = _reaching(source, layer, whole, seed, device).attention
    dtype = getattr(torch, problem.dtype)
    q, k, v = (tensor.to(dtype).contiguous() for tensor in (inside.q[:, :, -problem.q_len :], inside.k, inside.v))
    return q, k, v


def _layer(source: Source, *, batch: int, seq_len: int, padding: bool = False, dtype: str = "float32") -> Layer:
    from .layer.problem import Layer

    return Layer(batch=batch, seq_len=seq_len, padding=padding, dtype=dtype, **source.config.layer)


def _weights(source: Source, layer: int, dtype: torch.dtype, device: torch.device | str) -> LayerWeights:
    """Of one layer. Biases that the model lacks where others are there are 0."""
    from .layer.problem import LayerWeights

    source.require(layer)
    config = source.config.layer

    def tensor(part: str, kind: str = "weight") -> torch.Tensor | None:
        name = source.part(layer, part, kind)
        return read(source.files[name], name).to(device, dtype, copy=True) if name in source.files else None

    def matrix(part: str) -> torch.Tensor:
        found = tensor(part)
        assert found is not None  # required above
        return found

    def bias(part: str, rows: int) -> torch.Tensor | None:
        if not config.get("bias", True):
            return None
        found = tensor(part, "bias")
        return torch.zeros(rows, dtype=dtype, device=device) if found is None else found

    w_qkv = [matrix(part) for part in "qkv"]
    b_qkv = [bias(part, len(rows)) for part, rows in zip("qkv", w_qkv, strict=True)]
    w_out, w1, w2 = matrix("out"), matrix("w1"), matrix("w2")
    gated = {"w_gate": matrix("gate"), "b_gate": bias("gate", len(w1))} if config.get("gated") else {}
    centred = config.get("norm", "layernorm") == "layernorm"
    return LayerWeights(
        w_qkv=torch.cat(w_qkv),
        b_qkv=torch.cat([rows for rows in b_qkv if rows is not None]) if b_qkv[0] is not None else None,
        w_out=w_out,
        b_out=bias("out", len(w_out)),
        norm1_weight=matrix("norm1"),
        norm1_bias=tensor("norm1", "bias") if centred else None,
        w1=w1,
        b1=bias("w1", len(w1)),
        w2=w2,
        b2=bias("w2", len(w2)),
        norm2_weight=matrix("norm2"),
        norm2_bias=tensor("norm2", "bias") if centred else None,
        **gated,
    )


def _entering(source: Source, layer: int, whole: Layer, seed: int, device: torch.device | str) -> torch.Tensor:
    """float32 [batch, seq_len, dim]: what reaches this layer, from what is remembered of the layers before it."""
    key = (source.digest, str(device), seed, whole.batch, whole.seq_len, whole.padding)
    first = max((done for done in range(layer + 1) if (*key, done) in _states), default=None)
    if first is None:
        first = 0
        _remember((*key, 0), entering(source, seed, whole.batch, whole.seq_len).to(device))
    x = _states[*key, first]
    for before in range(first, layer):
        x = _through(whole, _weights(source, before, torch.float32, device), x)[0]
        _remember((*key, before + 1), x)
    return x


def _reaching(source: Source, layer: int, whole: Layer, seed: int, device: torch.device | str) -> Reaching:
    x = _entering(source, layer, whole, seed, device)
    return _through(whole, _weights(source, layer, torch.float32, device), x)[1]


def _through(whole: Layer, weights: LayerWeights, x: torch.Tensor) -> tuple[torch.Tensor, Reaching]:
    """The output of a layer, and what reached its parts on the way."""
    from .feedforward.problem import FeedForwardInputs
    from .layer.problem import LayerInputs

    seen: dict[str, AttentionInputs] = {}
    reached: list[torch.Tensor] = []
    own, network, attention = whole.network(weights), whole.feedforward, whole.attention

    def attend(inputs: AttentionInputs) -> torch.Tensor:
        seen["attention"] = inputs
        return attention.naive(inputs)

    def feed(z: torch.Tensor) -> torch.Tensor:
        reached.append(z)
        return network.naive(FeedForwardInputs(x=z), own)

    lengths = torch.tensor(attention.lengths(), dtype=torch.int32, device=x.device) if whole.padding else None
    with torch.no_grad():
        output = whole.formula(LayerInputs(x=x, lengths=lengths), weights, attend=attend, feed=feed)
    return output, Reaching(x=x, network=reached[0], attention=seen["attention"])


def _remember(key: tuple[object, ...], state: torch.Tensor) -> None:
    _states[key] = state
    while len(_states) > 1 and sum(kept.nbytes for kept in _states.values()) > REMEMBERED_BYTES:
        _states.popitem(last=False)
