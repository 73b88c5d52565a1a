"""A whole encoder layer as a problem: the seed's post-norm layer with self-attention and a ReLU network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812

from ..attention.problem import Attention, AttentionInputs
from ..feedforward.problem import FeedForward, FeedForwardInputs, FeedForwardWeights, unchanged
from ..registry import ITEM_BYTES, SHORT_DTYPES, Probe, Problem, Tensors
from ._probes import disguised, probes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Change = Callable[[torch.Tensor], torch.Tensor]

MASKS = {"none": "", "causal": "causal", "boolean": "mask"}
"""Kinds of src_mask, and the feature that a kernel accepts each by."""
EVERYTHING = ("causal", "mask", "padding")
"""All features a kernel can accept."""
EPSILON = 1e-5


@dataclass(frozen=True)
class LayerWeights(Tensors):
    """The trained part. The number of heads is w_qkv's rows / 3 / head_dim, so that pruned layers are weights, too."""

    w_qkv: torch.Tensor
    """[3 · heads · head_dim, dim]: the rows of q, then of k, then of v"""
    b_qkv: torch.Tensor
    w_out: torch.Tensor
    """[dim, heads · head_dim]"""
    b_out: torch.Tensor
    norm1_weight: torch.Tensor
    norm1_bias: torch.Tensor
    w1: torch.Tensor
    """[hidden_dim, dim]"""
    b1: torch.Tensor
    w2: torch.Tensor
    """[dim, hidden_dim]"""
    b2: torch.Tensor
    norm2_weight: torch.Tensor
    norm2_bias: torch.Tensor

    @property
    def feedforward(self) -> FeedForwardWeights:
        """The part that the feed-forward network uses."""
        return FeedForwardWeights(w1=self.w1, b1=self.b1, w2=self.w2, b2=self.b2)


@dataclass(frozen=True)
class LayerInputs(Tensors):
    """What one call of a layer kernel reads."""

    x: torch.Tensor
    """[batch, seq_len, dim]"""
    mask: torch.Tensor | None = None
    """bool [seq_len, seq_len], true where a query sees a key; each sees itself and the first key."""
    lengths: torch.Tensor | None = None
    """int32 [batch]: tokens from here on are padding."""

    differentiable: ClassVar[tuple[str, ...]] = ("x",)


@dataclass(frozen=True, kw_only=True)
class Layer(Problem):
    """norm2(z + W2 relu(W1 z)) with z = norm1(x + W_out attention(x)): inference, dropout off."""

    batch: int = 1
    seq_len: int
    dim: int = 512
    heads: int = 8
    hidden_dim: int = 2048
    mask: str = "none"
    padding: bool = False

    operator: ClassVar[str] = "layer"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require_positive("batch", "seq_len", "dim", "heads", "hidden_dim")
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} cannot be split among {self.heads} heads: give a multiple of heads")
        if self.mask not in MASKS:
            raise ValueError(f"mask {self.mask!r} is unknown: choose from {', '.join(MASKS)}")

    @property
    def head_dim(self) -> int:
        """Features per head."""
        return self.dim // self.heads

    @property
    def shape(self) -> tuple[int, int]:
        return self.batch, self.seq_len

    @property
    def tokens(self) -> int:
        return self.batch * self.seq_len

    @property
    def label(self) -> str:
        words = [f"{self.batch}×{self.seq_len}", f"{self.dim}/{self.heads}→{self.hidden_dim}"]
        words += [MASKS[self.mask]] * (self.mask != "none") + ["padding"] * self.padding
        return " ".join([*words, SHORT_DTYPES[self.dtype]])

    @property
    def features(self) -> frozenset[str]:
        asked = {"causal": self.mask == "causal", "mask": self.mask == "boolean", "padding": self.padding}
        return frozenset(name for name, wanted in asked.items() if wanted)

    @property
    def attention(self) -> Attention:
        """The attention inside."""
        return self.attention_of(self.heads)

    def attention_of(self, heads: int) -> Attention:
        """The attention inside when only so many heads are left."""
        return Attention(
            batch=self.batch,
            heads=heads,
            q_len=self.seq_len,
            head_dim=self.head_dim,
            causal=self.mask == "causal",
            padding=self.padding,
            bias="boolean" if self.mask == "boolean" else "none",
            dtype=self.dtype,
        )

    @property
    def feedforward(self) -> FeedForward:
        """The feed-forward network inside: its residual belongs to it, the norm comes after."""
        return self.feedforward_of(self.hidden_dim)

    def feedforward_of(self, hidden_dim: int) -> FeedForward:
        """The network inside when only so many neurons are left."""
        return FeedForward(
            batch=self.batch, seq_len=self.seq_len, dim=self.dim, hidden_dim=hidden_dim, norm="none", residual=True, dtype=self.dtype
        )

    def inputs(self, seed: int, device: torch.device | str = "cpu") -> LayerInputs:
        generator = torch.Generator(device).manual_seed(seed)
        shape = (self.batch, self.seq_len, self.dim)
        x = torch.randn(shape, generator=generator, device=device, dtype=getattr(torch, self.dtype))
        mask = None
        if self.mask == "boolean":  # a quarter of the pairs is hidden
            mask = torch.rand(self.seq_len, self.seq_len, generator=generator, device=device) < 0.75
            mask = mask | torch.eye(self.seq_len, dtype=torch.bool, device=device)
            mask[:, 0] = True  # no length hides the first key, so that every query sees one
        lengths = torch.tensor(self.attention.lengths(), dtype=torch.int32, device=device) if self.padding else None
        return LayerInputs(x=x, mask=mask, lengths=lengths)

    def weights(self, seed: int, device: torch.device | str = "cpu") -> LayerWeights:
        """Matrices N(0, 1/fan_in); norm weights around 1; biases small, but not zero, so that a forgotten one shows."""
        generator = torch.Generator(device).manual_seed(seed)

        def normal(*shape: int, scale: float = 0.1, mean: float = 0.0) -> torch.Tensor:
            drawn = torch.randn(shape, generator=generator, device=device)
            return (mean + scale * drawn).to(getattr(torch, self.dtype))

        dim, hidden = self.dim, self.hidden_dim
        return LayerWeights(
            w_qkv=normal(3 * dim, dim, scale=dim**-0.5),
            b_qkv=normal(3 * dim),
            w_out=normal(dim, dim, scale=dim**-0.5),
            b_out=normal(dim),
            norm1_weight=normal(dim, mean=1.0),
            norm1_bias=normal(dim),
            w1=normal(hidden, dim, scale=dim**-0.5),
            b1=normal(hidden),
            w2=normal(dim, hidden, scale=hidden**-0.5),
            b2=normal(dim),
            norm2_weight=normal(dim, mean=1.0),
            norm2_bias=normal(dim),
        )

    def formula(
        self,
        inputs: LayerInputs,
        weights: LayerWeights,
        *,
        attend: Callable[[AttentionInputs], torch.Tensor],
        feed: Change,
        project_in: Change | None = None,
        project_out: Change | None = None,
    ) -> torch.Tensor:
        """The order of things, whoever does them: `feed` adds its residual; projections are plain unless given."""
        x = inputs.x
        qkv = project_in(x) if project_in else F.linear(x, weights.w_qkv, weights.b_qkv)
        # [batch, seq_len, 3, heads, head_dim] -> three of [batch, heads, seq_len, head_dim], not copied
        q, k, v = qkv.view(*x.shape[:2], 3, -1, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        mask = None if inputs.mask is None else inputs.mask[None, None]
        attended = attend(AttentionInputs(q=q, k=k, v=v, mask=mask, lengths=inputs.lengths))
        merged = attended.transpose(1, 2).flatten(2)
        out = project_out(merged) if project_out else F.linear(merged, weights.w_out, weights.b_out)
        z = F.layer_norm(self.asked(x) + out, (self.dim,), weights.norm1_weight, weights.norm1_bias, EPSILON)
        return F.layer_norm(feed(z), (self.dim,), weights.norm2_weight, weights.norm2_bias, EPSILON)

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
                feed=lambda z: network.formula(z, wide.feedforward, rounded),
                project_in=lambda x: F.linear(rounded(x), wide.w_qkv, wide.b_qkv),
                project_out=lambda x: F.linear(rounded(x), wide.w_out, wide.b_out),
            )

    def naive(self, inputs: LayerInputs, weights: LayerWeights) -> torch.Tensor:  # type: ignore[override]
        attention, network = self.attention.at(self.rows), self.feedforward
        with torch.no_grad():
            return self.formula(
                inputs,
                weights,
                attend=attention.naive,
                feed=lambda z: network.naive(FeedForwardInputs(x=z), weights.feedforward),
            )

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

    def flops(self) -> int:
        """Four projections of every token, the attention between valid ones, and the network."""
        return 8 * self.tokens * self.dim**2 + self.attention.flops() + self.feedforward.flops()

    @property
    def parameters(self) -> int:
        """Numbers in all weights together."""
        return 4 * self.dim * (self.dim + 1) + self.feedforward.parameters + 4 * self.dim

    def min_bytes(self) -> int:
        """x, the result and the weights, once each, and a boolean mask."""
        mask = self.seq_len**2 if self.mask == "boolean" else 0
        return (2 * self.tokens * self.dim + self.parameters) * ITEM_BYTES[self.dtype] + mask
