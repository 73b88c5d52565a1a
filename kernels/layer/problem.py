"""A whole transformer layer as a problem: the seed's post-norm encoder layer, or a pre-norm one as decoders have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812

from .._given_config import require_given, told
from ..attention.problem import Attention, AttentionInputs
from ..feedforward.problem import ACTIVATIONS, NORMS, FeedForward, FeedForwardInputs, FeedForwardWeights, require_epsilon, unchanged
from ..registry import ITEM_BYTES, SHORT_DTYPES, Probe, Problem
from . import _rotary
from ._probes import disguised, probes
from ._tensors import LayerInputs, LayerWeights, drawn_inputs, drawn_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Change = Callable[[torch.Tensor], torch.Tensor]

__all__ = ["ENCODER", "EVERYTHING", "MASKS", "Layer", "LayerInputs", "LayerWeights"]

MASKS = {"none": "", "causal": "causal", "boolean": "mask"}
"""Kinds of src_mask, and the feature that a kernel accepts each by."""
ENCODER = ("causal", "mask", "padding")
"""What may be asked of the seed's layer."""
EVERYTHING = (*ENCODER, *ACTIVATIONS[1:], "gated", "unbiased", "rmsnorm", "norm_first", "rotary", "grouped")
"""All features a kernel can accept."""


@dataclass(frozen=True, kw_only=True)
class Layer(Problem):
    """norm2(z + W2 act(W1 z)) with z = norm1(x + W_out attention(x)): inference, dropout off.

    With norm_first, z + W2 act(W1 norm2(z)) with z = x + W_out attention(norm1(x)). The network may be gated, and queries and
    keys turned by their positions.
    """

    batch: int = 1
    seq_len: int
    dim: int = 512
    heads: int = 8
    hidden_dim: int = 2048
    mask: str = "none"
    padding: bool = False
    kv_heads: int = None  # type: ignore[assignment]
    """As many as `heads` when left out; fewer mean grouped-query attention."""
    head_dim: int = None  # type: ignore[assignment]
    """dim / heads when left out."""
    norm_first: bool = False
    """Norms come before attention and network, inside of the residual paths, instead of after the sums."""
    norm: str = "layernorm"
    epsilon: float = 0.0
    """What a norm adds to the variance under its root; 0: the usual of its kind."""
    activation: str = "relu"
    gated: bool = False
    bias: bool = True
    """Whether projections and network have biases."""
    rope_theta: float = 0.0
    """Base of the rotary positions' wavelengths, such as 10000; 0: queries and keys are not turned."""
    rope_scaling: str = ""
    """How wavelengths are stretched: "linear:4", "llama3:8,1,4,8192"; see `_rotary`."""
    given: str = ""
    """NAME/LAYER@DIGEST: the layer of a model whose weights and activations these are; empty: they are drawn. See `_given`."""

    operator: ClassVar[str] = "layer"
    added_later: ClassVar[tuple[str, ...]] = (
        "norm_first", "norm", "epsilon", "activation", "gated", "bias", "rope_theta", "rope_scaling", "given",
    )  # fmt: skip

    def __post_init__(self) -> None:
        if getattr(self, "kv_heads") is None:  # noqa: B009 - to mypy it is always there
            object.__setattr__(self, "kv_heads", self.heads)
        super().__post_init__()
        self.require_positive("batch", "seq_len", "dim", "heads", "kv_heads", "hidden_dim")
        if getattr(self, "head_dim") is None:  # noqa: B009
            if self.dim % self.heads:
                raise ValueError(f"dim {self.dim} cannot be split among {self.heads} heads: give a multiple of heads, or head_dim")
            object.__setattr__(self, "head_dim", self.dim // self.heads)
        self.require_positive("head_dim")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} cannot share {self.kv_heads} kv_heads evenly: give a multiple of kv_heads")
        norms = tuple(name for name in NORMS if name != "none")
        for name, known in (("mask", tuple(MASKS)), ("activation", ACTIVATIONS), ("norm", norms)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown: choose from {', '.join(known)}")
        require_epsilon(self.epsilon)
        require_given(self.given)
        object.__setattr__(self, "rope_theta", _rotary.required(self.rope_theta, self.rope_scaling, self.head_dim))

    def fields(self) -> dict[str, Any]:
        """As everywhere, less the numbers of key heads and of features per head where they follow from others."""
        usual = {"kv_heads": self.heads, "head_dim": self.dim / self.heads}
        return {name: value for name, value in super().fields().items() if value != usual.get(name)}

    @property
    def norm_epsilon(self) -> float:
        """What the norms add under their roots."""
        return self.epsilon or NORMS[self.norm]

    @property
    def shape(self) -> tuple[int, int]:
        return self.batch, self.seq_len

    @property
    def tokens(self) -> int:
        return self.batch * self.seq_len

    @property
    def label(self) -> str:
        heads = f"{self.heads}/{self.kv_heads}" if self.kv_heads != self.heads else f"{self.heads}"
        size = f"×{self.head_dim}" if self.heads * self.head_dim != self.dim else ""
        words = [f"{self.batch}×{self.seq_len}", f"{self.dim}/{heads}{size}→{self.hidden_dim}"]
        words += [] if self.given else self._kind()  # a model says what its layers are like
        words += [MASKS[self.mask]] * (self.mask != "none") + ["padding"] * self.padding
        return " ".join([*words, SHORT_DTYPES[self.dtype], *told(self.given)])

    def _kind(self) -> list[str]:
        """What is unlike the seed's layer, in words."""
        words = [self.activation] * (self.activation != "relu") + ["gated"] * self.gated
        words += ["rmsnorm"] * (self.norm == "rmsnorm") + ["pre-norm"] * self.norm_first
        words += ["rotary"] * bool(self.rope_theta) + [self.rope_scaling] * bool(self.rope_scaling) + ["no bias"] * (not self.bias)
        return words + ([f"epsilon {self.epsilon:g}"] if self.epsilon else [])

    @property
    def features(self) -> frozenset[str]:
        asked = {"causal": self.mask == "causal", "mask": self.mask == "boolean", "padding": self.padding}
        asked |= {self.activation: self.activation != "relu", "gated": self.gated, "unbiased": not self.bias}
        asked |= {"rmsnorm": self.norm == "rmsnorm", "norm_first": self.norm_first}
        asked |= {"rotary": self.rope_theta > 0, "grouped": self.kv_heads != self.heads}
        return frozenset(name for name, wanted in asked.items() if wanted)

    @property
    def attention(self) -> Attention:
        """The attention inside."""
        return self.attention_of(self.heads)

    def attention_of(self, heads: int) -> Attention:
        """The attention inside when only so many query heads are left, in whole groups."""
        return Attention(
            batch=self.batch,
            heads=heads,
            kv_heads=heads * self.kv_heads // self.heads,
            q_len=self.seq_len,
            head_dim=self.head_dim,
            causal=self.mask == "causal",
            padding=self.padding,
            bias="boolean" if self.mask == "boolean" else "none",
            dtype=self.dtype,
        )

    @property
    def feedforward(self) -> FeedForward:
        """The feed-forward network inside: its residual belongs to it, and its norm does when norms come first."""
        return self.feedforward_of(self.hidden_dim)

    def feedforward_of(self, hidden_dim: int) -> FeedForward:
        """The network inside when only so many neurons are left."""
        norm, epsilon = (self.norm, self.epsilon) if self.norm_first else ("none", 0.0)
        return FeedForward(
            batch=self.batch, seq_len=self.seq_len, dim=self.dim, hidden_dim=hidden_dim, activation=self.activation, gated=self.gated,
            bias=self.bias, residual=True, norm=norm, epsilon=epsilon, dtype=self.dtype,
        )  # fmt: skip

    def network(self, weights: LayerWeights) -> FeedForwardWeights:
        """The weights that the network uses."""
        own = {name: getattr(weights, name) for name in ("b1", "b2", "w_gate", "b_gate")}
        norm = {"norm_weight": weights.norm2_weight, "norm_bias": weights.norm2_bias} if self.norm_first else {}
        return FeedForwardWeights(w1=weights.w1, w2=weights.w2, **own, **norm)

    def inputs(self, seed: int, device: torch.device | str = "cpu") -> LayerInputs:
        return drawn_inputs(self, seed, device)

    def weights(self, seed: int, device: torch.device | str = "cpu") -> LayerWeights:
        return drawn_weights(self, seed, device)

    def normalized(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """x through one of the norms."""
        if self.norm == "rmsnorm":
            return F.rms_norm(x, (self.dim,), weight, self.norm_epsilon)
        return F.layer_norm(x, (self.dim,), weight, bias, self.norm_epsilon)

    def rotation(self, device: torch.device | str, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """(cos, sin) of the angles by which queries and keys are turned, [seq_len, head_dim / 2]."""
        angles = _rotary.angles(self.seq_len, self.head_dim, self.rope_theta, self.rope_scaling)
        return angles.cos().to(device, dtype), angles.sin().to(device, dtype)

    @property
    def widths(self) -> list[int]:
        """Rows of w_qkv for q, k and v."""
        return [count * self.head_dim for count in (self.heads, self.kv_heads, self.kv_heads)]

    def heads_of(self, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """[batch, seq_len, (heads + 2 · kv_heads) · head_dim] -> q, k, v [batch, heads, seq_len, head_dim], not copied."""
        parts = qkv.view(*qkv.shape[:2], -1, self.head_dim).transpose(1, 2)
        queries = parts.shape[1] * self.heads // (self.heads + 2 * self.kv_heads)
        keys = (parts.shape[1] - queries) // 2
        q, k, v = torch.split(parts, [queries, keys, keys], dim=1)
        return q, k, v

    def formula(
        self,
        inputs: LayerInputs,
        weights: LayerWeights,
        *,
        attend: Callable[[AttentionInputs], torch.Tensor],
        feed: Change,
        project_in: Change | None = None,
        project_out: Change | None = None,
        rotation: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """The order of things, whoever does them: `feed` adds its residual; projections are plain unless given.

        `rotation`: that of `self.rotation`, by a caller who made it ahead; None: it is made here, in x's dtype.
        """
        x, first, second = inputs.x, (weights.norm1_weight, weights.norm1_bias), (weights.norm2_weight, weights.norm2_bias)
        h = self.normalized(x, *first) if self.norm_first else x
        q, k, v = self.heads_of(project_in(h) if project_in else F.linear(h, weights.w_qkv, weights.b_qkv))
        if self.rope_theta:
            cos, sin = rotation or self.rotation(x.device, x.dtype)
            q, k = _rotary.rotated(q, cos, sin), _rotary.rotated(k, cos, sin)
        mask = None if inputs.mask is None else inputs.mask[None, None]
        attended = attend(AttentionInputs(q=q, k=k, v=v, mask=mask, lengths=inputs.lengths))
        merged = attended.transpose(1, 2).flatten(2)
        out = project_out(merged) if project_out else F.linear(merged, weights.w_out, weights.b_out)
        z = self.asked(x) + out
        return feed(z) if self.norm_first else self.normalized(feed(self.normalized(z, *first)), *second)

    def reference(self, inputs: LayerInputs, weights: LayerWeights) -> torch.Tensor:  # type: ignore[override]
        """In float64. Heads and hidden size are those of the weights given."""
        return self.rounded_reference(inputs, weights, unchanged)

    def rounded_reference(self, inputs: LayerInputs, weights: LayerWeights, rounded: Change) -> torch.Tensor:
        """In float64, with `rounded` applied to whatever a weight matrix is about to be multiplied with.

        Rounding looks at all tokens together: then all rows are computed, whichever are asked for.
        """
        if rounded is not unchanged and self.rows is not None:
            return self.at(None).rounded_reference(inputs, weights, rounded)[:, self.rows]
        wide = weights.map(torch.Tensor.double)
        attention, network = self.attention_of(weights.w_out.shape[1] // self.head_dim).at(self.rows), self.feedforward
        with torch.no_grad():
            return self.formula(
                inputs.replace(x=inputs.x.double()),
                wide,
                attend=attention.reference,
                feed=lambda z: network.formula(z, self.network(wide), rounded),
                project_in=lambda x: F.linear(rounded(x), wide.w_qkv, wide.b_qkv),
                project_out=lambda x: F.linear(rounded(x), wide.w_out, wide.b_out),
            )

    def naive(self, inputs: LayerInputs, weights: LayerWeights) -> torch.Tensor:  # type: ignore[override]
        attention, network, own = self.attention.at(self.rows), self.feedforward, self.network(weights)
        with torch.no_grad():
            return self.formula(inputs, weights, attend=attention.naive, feed=lambda z: network.naive(FeedForwardInputs(x=z), own))

    def asked(self, x: torch.Tensor) -> torch.Tensor:
        """The tokens [batch, rows, dim] that right answers are wanted for: all, unless `at` chose some."""
        return x if self.rows is None else x[:, self.rows]

    def disguised(self, inputs: LayerInputs, seed: int) -> tuple[LayerInputs, Callable[[Any], Any]]:
        return disguised(self, inputs, seed)

    def probes(self, inputs: LayerInputs, seed: int) -> Iterator[Probe]:
        return probes(self, inputs, seed)

    def compared(self, output: torch.Tensor, inputs: LayerInputs) -> torch.Tensor:
        """Zeroes the padded tokens: PyTorch's layer leaves anything there."""
        if inputs.lengths is None:
            return output
        positions = torch.arange(self.seq_len, device=output.device)
        if self.rows is not None and output.shape[1] == len(self.rows):
            positions = self.rows
        valid = positions < inputs.lengths[:, None]
        return torch.where(valid[..., None], output, 0)

    @property
    def projections(self) -> int:
        """Numbers in the matrices before and after the attention."""
        return 2 * self.dim * self.head_dim * (self.heads + self.kv_heads)

    def flops(self) -> int:
        """The projections of every token, the attention between valid ones, and the network."""
        return 2 * self.tokens * self.projections + self.attention.flops() + self.feedforward.flops()

    @property
    def parameters(self) -> int:
        """Numbers in all weights together."""
        biases = (self.heads + 2 * self.kv_heads) * self.head_dim + self.dim if self.bias else 0
        norm = 2 * self.dim if self.norm == "layernorm" else self.dim
        return self.projections + biases + self.feedforward.parameters + (1 if self.norm_first else 2) * norm

    def min_bytes(self) -> int:
        """x, the result and the weights, once each, and a boolean mask."""
        mask = self.seq_len**2 if self.mask == "boolean" else 0
        return (2 * self.tokens * self.dim + self.parameters) * ITEM_BYTES[self.dtype] + mask
