"""The feed-forward network as a problem: sizes, random weights and inputs, float64 reference, FLOPs and bytes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F  # noqa: N812

from .. import _given
from .._given_config import require_given, told
from ..registry import AWKWARD, ITEM_BYTES, SHORT_DTYPES, Gradients, Probe, Problem, Tensors
from ._backward import decided, gradients, reordered, turned_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ACTIVATIONS = ("relu", "gelu", "gelu_tanh", "silu")
NORMS = {"none": 0.0, "layernorm": 1e-5, "rmsnorm": 1e-6}
"""What may come before the first matrix, and the epsilon under its root."""
EVERYTHING = (*ACTIVATIONS, "layernorm", "rmsnorm", "gated", "bias", "residual")
"""All features a kernel can accept."""

LARGE, SMALL = 8.0, 2.0**-9
"""Factors of inputs: the smaller makes the variance of a token as small as the epsilon that a norm adds to it."""
LENGTHS = (1, 127, 129, 1000)
"""Numbers of tokens that are multiples of no tile."""
BLOCK_HIDDEN = 2**24
"""Hidden activations held at once by the reference: 128 MiB in float64."""


@dataclass(frozen=True)
class FeedForwardWeights(Tensors):
    """The trained part; None where the problem has none."""

    w1: torch.Tensor
    """[hidden_dim, dim]"""
    w2: torch.Tensor
    """[dim, hidden_dim]"""
    b1: torch.Tensor | None = None
    """[hidden_dim]"""
    b2: torch.Tensor | None = None
    """[dim]"""
    w_gate: torch.Tensor | None = None
    """[hidden_dim, dim]"""
    b_gate: torch.Tensor | None = None
    """[hidden_dim]"""
    norm_weight: torch.Tensor | None = None
    """[dim]"""
    norm_bias: torch.Tensor | None = None
    """[dim]; LayerNorm only"""

    differentiable: ClassVar[tuple[str, ...]] = ("w1", "w2", "b1", "b2", "w_gate", "b_gate", "norm_weight", "norm_bias")


@dataclass(frozen=True)
class FeedForwardInputs(Tensors):
    """What one call of a feed-forward kernel reads."""

    x: torch.Tensor
    """[batch, seq_len, dim]"""
    mask: torch.Tensor | None = None
    lengths: torch.Tensor | None = None
    grad: torch.Tensor | None = None
    """[batch, seq_len, dim]: gradient of the output, in direction "backward"."""

    differentiable: ClassVar[tuple[str, ...]] = ("x",)


def require_epsilon(epsilon: Any) -> None:
    """Raise ValueError for what no norm can add to a variance."""
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float) or not 0 <= epsilon < 1:
        raise ValueError(f"epsilon {epsilon!r} is impossible: give a number from 0 (the norm's usual) to 1")


def unchanged(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself."""
    return tensor


def activate(name: str, x: torch.Tensor) -> torch.Tensor:
    """The activation function of that name, element by element."""
    if name == "relu":
        return F.relu(x)
    if name == "silu":
        return F.silu(x)
    return F.gelu(x, approximate="tanh" if name == "gelu_tanh" else "none")


@dataclass(frozen=True, kw_only=True)
class FeedForward(Problem):
    """h = norm(x); a = act(h W1ᵀ + b1), or act(h Wgᵀ + bg) · (h W1ᵀ + b1) when gated; a W2ᵀ + b2, + x when residual."""

    batch: int = 1
    seq_len: int
    dim: int = 512
    hidden_dim: int = 2048
    activation: str = "relu"
    norm: str = "layernorm"
    gated: bool = False
    bias: bool = True
    residual: bool = False
    epsilon: float = 0.0
    """What a norm adds to the variance under its root; 0: the usual of its kind."""
    given: str = ""
    """NAME/LAYER@DIGEST: the layer of a model whose weights and activations these are; empty: they are drawn. See `_given`."""

    operator: ClassVar[str] = "feedforward"
    directions: ClassVar[tuple[str, ...]] = ("forward", "backward")
    added_later: ClassVar[tuple[str, ...]] = ("epsilon", "given")

    def __post_init__(self) -> None:
        super().__post_init__()
        require_given(self.given)
        self.require_positive("batch", "seq_len", "dim", "hidden_dim")
        for name, known in (("activation", ACTIVATIONS), ("norm", tuple(NORMS))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} {getattr(self, name)!r} is unknown: choose from {', '.join(known)}")
        require_epsilon(self.epsilon)

    @property
    def norm_epsilon(self) -> float:
        """What the norm adds under its root."""
        return self.epsilon or NORMS[self.norm]

    @property
    def shape(self) -> tuple[int, int]:
        return self.batch, self.seq_len

    @property
    def tokens(self) -> int:
        return self.batch * self.seq_len

    @property
    def label(self) -> str:
        words = [f"{self.batch}×{self.seq_len}", f"{self.dim}→{self.hidden_dim}", self.activation]
        words += ["gated"] * self.gated + [self.norm] * (self.norm != "none")
        words += ["residual"] * self.residual + ["no bias"] * (not self.bias)
        words += [f"epsilon {self.epsilon:g}"] if self.epsilon else []
        words += [SHORT_DTYPES[self.dtype], *(["fwd+bwd"] if self.direction == "backward" else []), *told(self.given)]
        return " ".join(words)

    @property
    def features(self) -> frozenset[str]:
        asked = {self.activation: True, self.norm: self.norm != "none", "gated": self.gated, "bias": self.bias, "residual": self.residual}
        return frozenset(name for name, wanted in asked.items() if wanted)

    @property
    def parameters(self) -> int:
        """Numbers in all weights together."""
        matrices = 3 if self.gated else 2
        biases = (matrices - 1) * self.hidden_dim + self.dim if self.bias else 0
        norm = {"none": 0, "rmsnorm": self.dim, "layernorm": 2 * self.dim}[self.norm]
        return matrices * self.dim * self.hidden_dim + biases + norm

    def inputs(self, seed: int, device: torch.device | str = "cpu") -> FeedForwardInputs:
        generator = torch.Generator(device).manual_seed(seed)
        shape = (self.batch, self.seq_len, self.dim)

        def normal() -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=device, dtype=getattr(torch, self.dtype))

        x = _given.network_x(self, seed, device) if self.given else normal()
        return FeedForwardInputs(x=x, grad=normal() if self.direction == "backward" else None)

    def weights(self, seed: int, device: torch.device | str = "cpu") -> FeedForwardWeights:
        """Matrices N(0, 1/fan_in); norm weights around 1; biases small, but not zero, so that a forgotten one shows."""
        if self.given:
            return _given.network_weights(self, device)
        generator = torch.Generator(device).manual_seed(seed)

        def normal(*shape: int, scale: float, mean: float = 0.0) -> torch.Tensor:
            drawn = torch.randn(shape, generator=generator, device=device)
            return (mean + scale * drawn).to(getattr(torch, self.dtype))

        def matrix(rows: int, columns: int) -> torch.Tensor:
            return normal(rows, columns, scale=columns**-0.5)

        return FeedForwardWeights(
            w1=matrix(self.hidden_dim, self.dim),
            w2=matrix(self.dim, self.hidden_dim),
            b1=normal(self.hidden_dim, scale=0.1) if self.bias else None,
            b2=normal(self.dim, scale=0.1) if self.bias else None,
            w_gate=matrix(self.hidden_dim, self.dim) if self.gated else None,
            b_gate=normal(self.hidden_dim, scale=0.1) if self.gated and self.bias else None,
            norm_weight=normal(self.dim, scale=0.1, mean=1.0) if self.norm != "none" else None,
            norm_bias=normal(self.dim, scale=0.1) if self.norm == "layernorm" else None,
        )

    def normalize(self, x: torch.Tensor, weights: FeedForwardWeights) -> torch.Tensor:
        """What the matrices see of x."""
        if self.norm == "layernorm":
            return F.layer_norm(x, (self.dim,), weights.norm_weight, weights.norm_bias, self.norm_epsilon)
        if self.norm == "rmsnorm":
            return F.rms_norm(x, (self.dim,), weights.norm_weight, self.norm_epsilon)
        return x

    def formula(
        self, x: torch.Tensor, weights: FeedForwardWeights, rounded: Callable[[torch.Tensor], torch.Tensor] = unchanged
    ) -> torch.Tensor:
        """The definition, in the tensors' own dtype; `rounded` is applied to whatever a matrix is about to be multiplied with."""
        h = rounded(self.normalize(x, weights))
        up = F.linear(h, weights.w1, weights.b1)
        if weights.w_gate is None:
            a = activate(self.activation, up)
        else:
            a = activate(self.activation, F.linear(h, weights.w_gate, weights.b_gate)) * up
        y = F.linear(rounded(a), weights.w2, weights.b2)
        return x + y if self.residual else y

    def reference(self, inputs: FeedForwardInputs, weights: FeedForwardWeights) -> torch.Tensor:  # type: ignore[override]
        """In float64, as many tokens at a time as BLOCK_HIDDEN allows. The hidden size is that of the weights given."""
        wide = weights.map(torch.Tensor.double)
        x = self.asked(inputs.x)
        step = max(1, BLOCK_HIDDEN // weights.w1.shape[0])
        with torch.no_grad():
            blocks = [self.formula(block.double(), wide) for block in torch.split(x.reshape(-1, self.dim), step)]
        return torch.cat(blocks).view(x.shape)

    def naive(self, inputs: FeedForwardInputs, weights: FeedForwardWeights) -> torch.Tensor:  # type: ignore[override]
        with torch.no_grad():
            return self.formula(self.asked(inputs.x), weights)

    def gradients(self, inputs: FeedForwardInputs, weights: FeedForwardWeights, *, naive: bool = False) -> Gradients:  # type: ignore[override]
        return gradients(self, inputs, weights, naive=naive)

    def decided(self, inputs: FeedForwardInputs, weights: FeedForwardWeights) -> FeedForwardInputs:  # type: ignore[override]
        return decided(self, inputs, weights)

    def asked(self, x: torch.Tensor) -> torch.Tensor:
        """The tokens [batch, rows, dim] that right answers are wanted for: all, unless `at` chose some."""
        return x if self.rows is None else x[:, self.rows]

    def disguised(self, inputs: FeedForwardInputs, seed: int) -> tuple[FeedForwardInputs, Callable[[Any], Any]]:
        """The tokens in another order: each is worked on alone. A single token stays what it is."""
        order = torch.randperm(self.tokens, generator=torch.Generator().manual_seed(seed)).to(inputs.x.device)
        return inputs.map(lambda tensor: reordered(tensor, order)), lambda answer: turned_back(answer, order.argsort())

    def probes(self, inputs: FeedForwardInputs, seed: int) -> Iterator[Probe]:
        """Inputs of other sizes, in other memory orders, of awkward lengths, and with tokens that must not touch one another."""
        x = inputs.x
        yield Probe("large inputs", inputs.replace(x=x * LARGE))
        yield Probe("small inputs, where the norm's epsilon counts", inputs.replace(x=x * SMALL))
        generator = torch.Generator().manual_seed(seed)
        sizes = torch.logspace(-1, 1, self.tokens)[torch.randperm(self.tokens, generator=generator)]
        yield Probe("tokens of very different size", inputs.replace(x=x * sizes.view(self.batch, self.seq_len, 1).to(x)))
        yield Probe("tokens before batch rows in memory", inputs.replace(x=x.transpose(0, 1).contiguous().transpose(0, 1)), optional=True)
        yield Probe("slices of a wider tensor", inputs.replace(x=torch.cat([x, -x], dim=2)[..., : self.dim]), optional=True)
        yield Probe("one token expanded to all", inputs.replace(x=x[:, :1].expand_as(x)), optional=True)
        for length in LENGTHS:
            other = replace(self, batch=1, seq_len=length, given="")
            yield Probe(f"{AWKWARD} {length}", other.inputs(seed), problem=other)

    def flops(self) -> int:
        """2 · tokens · dim · hidden_dim for each of the two matrices, three when gated.

        Forward and backward in one call count 3 times the forward pass: each product has two for its gradients.
        """
        forward = 2 * self.tokens * self.dim * self.hidden_dim * (3 if self.gated else 2)
        return 3 * forward if self.direction == "backward" else forward

    def min_bytes(self) -> int:
        """x, the result and the weights, once each. Backward adds the gradient of each of them."""
        each = 2 if self.direction == "backward" else 1
        return each * (2 * self.tokens * self.dim + self.parameters) * ITEM_BYTES[self.dtype]
