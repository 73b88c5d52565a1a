"""Scaled dot-product attention as a problem: sizes, random inputs, float64 reference, gradients, FLOPs and bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ..registry import ITEM_BYTES, SHORT_DTYPES, Gradients, Probe, Problem, Tensors
from ._probes import probes
from ._symmetry import disguised
from ._textbook import ALL, part, textbook, together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Rows = slice | torch.Tensor

BIASES = {"none": "", "additive": "bias", "boolean": "mask"}
"""What may be given beside q, k, v, and the feature that a kernel accepts it by."""

BLOCK_SCORES = {"cpu": 2**20, "cuda": 2**24}
"""Scores held at once by the reference: on a CPU they fit its caches, on a GPU float64 with its temporaries stays below 1 GiB."""


@dataclass(frozen=True)
class AttentionInputs(Tensors):
    """What one call of an attention kernel reads."""

    q: torch.Tensor
    """[batch, heads, q_len, head_dim]"""
    k: torch.Tensor
    """[batch, kv_heads, kv_len, head_dim]"""
    v: torch.Tensor
    """[batch, kv_heads, kv_len, head_dim]"""
    bias: torch.Tensor | None = None
    """Added to the scaled scores; broadcastable to [batch, heads, q_len, kv_len]."""
    mask: torch.Tensor | None = None
    """bool, true where a query sees a key; broadcastable to [batch, heads, q_len, kv_len]."""
    lengths: torch.Tensor | None = None
    """int32 [batch], at least 1: keys from here on are padding."""
    block_table: torch.Tensor | None = None
    """For paged caches; no problem asks for one yet."""
    grad: torch.Tensor | None = None
    """The gradient of the output, in direction "backward"."""

    differentiable: ClassVar[tuple[str, ...]] = ("q", "k", "v")

    def with_mask(self, mask: torch.Tensor) -> AttentionInputs:
        """A copy in which a key is visible only where `mask` says so too."""
        mask = mask.reshape((1,) * (4 - mask.dim()) + mask.shape)
        return self.replace(mask=mask if self.mask is None else self.mask & mask)


@dataclass(frozen=True, kw_only=True)
class Attention(Problem):
    """softmax(q kᵀ / √head_dim + bias) v, with the keys that a query does not see left out of the softmax.

    `causal` aligns the ends: query i sees keys up to i + kv_len - q_len. A query that sees no key yields 0.
    """

    batch: int = 1
    heads: int = 8
    kv_heads: int = None  # type: ignore[assignment]
    """As many as `heads` when left out; fewer mean grouped-query attention."""
    q_len: int
    kv_len: int = None  # type: ignore[assignment]
    """As long as `q_len` when left out."""
    head_dim: int = 64
    causal: bool = False
    padding: bool = False
    bias: str = "none"

    operator: ClassVar[str] = "attention"
    directions: ClassVar[tuple[str, ...]] = ("forward", "backward")

    def __post_init__(self) -> None:
        for name, default in (("kv_heads", self.heads), ("kv_len", self.q_len)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        super().__post_init__()
        self.require_positive("batch", "heads", "kv_heads", "q_len", "kv_len", "head_dim")
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} cannot share {self.kv_heads} kv_heads evenly: give a multiple of kv_heads")
        if self.bias not in BIASES:
            raise ValueError(f"bias {self.bias!r} is unknown: choose from {', '.join(BIASES)}")

    @property
    def grouped(self) -> bool:
        """Several query heads share a key-value head."""
        return self.kv_heads != self.heads

    @property
    def group(self) -> int:
        """Query heads per key-value head."""
        return self.heads // self.kv_heads

    @property
    def cross(self) -> bool:
        """Queries and keys differ in number."""
        return self.q_len != self.kv_len

    @property
    def triangular(self) -> bool:
        """`causal` hides something: a single query, at the end of all keys, sees them all."""
        return self.causal and self.q_len > 1

    @property
    def masked(self) -> bool:
        """Something is added to scores or hides them."""
        return self.triangular or bool(self.features - {"causal"})

    @property
    def scale(self) -> float:
        """What scores are multiplied with."""
        return 1 / math.sqrt(self.head_dim)

    @property
    def shape(self) -> tuple[int, int]:
        return self.batch, max(self.q_len, self.kv_len)  # a decode step is laid out along its cache

    @property
    def tokens(self) -> int:
        return self.batch * self.q_len

    @property
    def label(self) -> str:
        heads = f"{self.heads}/{self.kv_heads}" if self.grouped else f"{self.heads}"
        length = f"{self.q_len}→{self.kv_len}" if self.cross else f"{self.q_len}"
        words = [f"{self.batch}×{heads}×{length}×{self.head_dim}"]
        words += [word for word in ("causal", "padding") if getattr(self, word)]
        words += [BIASES[self.bias]] if self.bias != "none" else []
        words += [SHORT_DTYPES[self.dtype]] + (["fwd+bwd"] if self.direction == "backward" else [])
        return " ".join(words)

    @property
    def features(self) -> frozenset[str]:
        asked = {"causal": self.causal, "padding": self.padding, "bias": self.bias == "additive", "mask": self.bias == "boolean"}
        return frozenset(name for name, wanted in asked.items() if wanted)

    def lengths(self) -> tuple[int, ...]:
        """Valid keys of each batch row: all without padding, else evenly spread from half of kv_len up to kv_len.

        A single row has three quarters.
        """
        if not self.padding:
            return (self.kv_len,) * self.batch
        if self.batch == 1:
            return (max(1, 3 * self.kv_len // 4),)
        steps = self.batch - 1
        return tuple(max(1, self.kv_len * (steps + row) // (2 * steps)) for row in range(self.batch))

    def inputs(self, seed: int, device: torch.device | str = "cpu") -> AttentionInputs:
        generator = torch.Generator(device).manual_seed(seed)
        dtype = getattr(torch, self.dtype)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(shape, generator=generator, device=device, dtype=dtype)

        q = normal(self.batch, self.heads, self.q_len, self.head_dim)
        k = normal(self.batch, self.kv_heads, self.kv_len, self.head_dim)
        v = normal(self.batch, self.kv_heads, self.kv_len, self.head_dim)
        grad = normal(*q.shape) if self.direction == "backward" else None
        bias = normal(1, self.heads, self.q_len, self.kv_len) if self.bias == "additive" else None
        mask = None
        if self.bias == "boolean":  # a quarter of the pairs is hidden
            mask = torch.rand(1, 1, self.q_len, self.kv_len, generator=generator, device=device) < 0.75
        lengths = torch.tensor(self.lengths(), dtype=torch.int32, device=device) if self.padding else None
        return AttentionInputs(q=q, k=k, v=v, bias=bias, mask=mask, lengths=lengths, grad=grad)

    def causal_mask(self, device: torch.device | str, rows: Rows = ALL) -> torch.Tensor:
        """bool [1, 1, q_len, kv_len]: true on the keys up to each query's own position, ends aligned."""
        query = torch.arange(self.q_len, device=device)[rows, None] + self.kv_len - self.q_len
        return (torch.arange(self.kv_len, device=device) <= query)[None, None]

    def padding_mask(self, lengths: torch.Tensor) -> torch.Tensor:
        """bool [batch, 1, 1, kv_len]: true on the keys before each row's length."""
        return (torch.arange(self.kv_len, device=lengths.device) < lengths[:, None])[:, None, None]

    def visible(self, inputs: AttentionInputs, batch: slice = ALL, heads: slice = ALL, rows: Rows = ALL) -> torch.Tensor | None:
        """bool, broadcastable to [batch, heads, q_len, kv_len] or the given part of it; None when every query sees every key."""
        masks = []
        if self.triangular:
            masks.append(self.causal_mask(inputs.q.device, rows))
        if inputs.lengths is not None:
            masks.append(self.padding_mask(inputs.lengths[batch]))
        if inputs.mask is not None:
            masks.append(part(inputs.mask, batch, heads, rows))
        return together(*masks)

    def reference(self, inputs: AttentionInputs, weights: None = None) -> torch.Tensor:  # noqa: ARG002
        return self._forward(inputs, torch.float64)

    def naive(self, inputs: AttentionInputs, weights: None = None) -> torch.Tensor:  # noqa: ARG002
        return self._forward(inputs, getattr(torch, self.dtype))

    def gradients(self, inputs: AttentionInputs, weights: None = None, *, naive: bool = False) -> Gradients:  # noqa: ARG002
        if inputs.grad is None:
            raise ValueError("the inputs hold no grad: draw them from a problem with direction backward")
        dtype = getattr(torch, self.dtype) if naive else torch.float64
        # sums over blocks are kept wider than 16 bit: one matrix product would do so, too
        wide = torch.promote_types(dtype, torch.float32)
        output = self._empty(inputs, dtype)
        found = {"q": torch.zeros_like(output, dtype=wide)}
        found |= {name: torch.zeros(getattr(inputs, name).shape, dtype=wide, device=inputs.q.device) for name in ("k", "v")}
        for batch, kv_heads, heads, rows in self._blocks(BLOCK_SCORES[inputs.q.device.type] // 2):
            asked = self._asked(rows)
            places: dict[str, tuple[Rows, ...]] = {"q": (batch, heads, asked), "k": (batch, kv_heads), "v": (batch, kv_heads)}
            with torch.enable_grad():
                leaves = {name: getattr(inputs, name)[at].detach().to(dtype).requires_grad_() for name, at in places.items()}
                # the plain formula repeats shared keys and values, and adds up what comes back in its own dtype
                used = {name: leaf.repeat_interleave(self.group, 1) if naive and name != "q" else leaf for name, leaf in leaves.items()}
                result = self._block(inputs, used, batch, heads, asked)
            output[batch, heads, rows] = result.detach()
            grad = inputs.grad[batch, heads, asked].to(dtype)
            targets = {**places, "q": (batch, heads, rows)}
            for (name, at), value in zip(targets.items(), torch.autograd.grad(result, list(leaves.values()), grad), strict=True):
                found[name][at] += value
        return Gradients(output, {name: value.to(dtype) for name, value in found.items()})

    def _forward(self, inputs: AttentionInputs, dtype: torch.dtype) -> torch.Tensor:
        output = self._empty(inputs, dtype)
        with torch.no_grad():
            for batch, kv_heads, heads, rows in self._blocks(BLOCK_SCORES[inputs.q.device.type]):
                asked = self._asked(rows)
                qkv = {"q": inputs.q[batch, heads, asked], "k": inputs.k[batch, kv_heads], "v": inputs.v[batch, kv_heads]}
                qkv = {name: tensor.to(dtype) for name, tensor in qkv.items()}
                output[batch, heads, rows] = self._block(inputs, qkv, batch, heads, asked)
        return output

    def _empty(self, inputs: AttentionInputs, dtype: torch.dtype) -> torch.Tensor:
        """Room for the output, in the rows that are asked for."""
        count = self.q_len if self.rows is None else len(self.rows)
        return torch.empty((*inputs.q.shape[:2], count, self.head_dim), dtype=dtype, device=inputs.q.device)

    def _asked(self, rows: slice) -> Rows:
        """The query rows that a part of the output stands for."""
        return rows if self.rows is None else self.rows[rows]

    def _block(self, inputs: AttentionInputs, qkv: dict[str, torch.Tensor], batch: slice, heads: slice, rows: Rows) -> torch.Tensor:
        bias = None if inputs.bias is None else part(inputs.bias, batch, heads, rows).to(qkv["q"].dtype)
        return textbook(**qkv, scale=self.scale, bias=bias, visible=self.visible(inputs, batch, heads, rows))

    def _blocks(self, scores: int) -> Iterator[tuple[slice, slice, slice, slice]]:
        """(batch, kv_heads, heads, rows of the output) of parts with at most `scores` scores each, as far as single rows allow."""
        count = self.q_len if self.rows is None else len(self.rows)
        rows = min(count, max(1, scores // (self.group * self.kv_len)))
        each = self.kv_len * max(self.group * rows, self.head_dim // 4)  # keys and values of few queries are more than their scores
        kv_heads = min(self.kv_heads, max(1, scores // each))
        batches = min(self.batch, max(1, scores // (kv_heads * each)))
        for b in range(0, self.batch, batches):
            for h in range(0, self.kv_heads, kv_heads):
                kv = slice(h, min(h + kv_heads, self.kv_heads))
                heads = slice(kv.start * self.group, kv.stop * self.group)
                for r in range(0, count, rows):
                    yield slice(b, b + batches), kv, heads, slice(r, r + rows)

    def probes(self, inputs: AttentionInputs, seed: int) -> Iterator[Probe]:
        return probes(self, inputs, seed)

    def disguised(self, inputs: AttentionInputs, seed: int) -> tuple[AttentionInputs, Callable[[Any], Any]]:
        return disguised(self, inputs, seed)

    def flops(self) -> int:
        """4 · batch · heads · pairs · head_dim, pairs being the area under the mask's edge.

        Without a mask pairs = q_len · length. Causal: the triangle that starts at kv_len - q_len keys counts half, cut
        off at the row's length: q·kv - q²/2 for q ≤ kv and kv²/2 otherwise. A boolean mask hides nothing here, since
        what it holds is data. Forward and backward in one call count 3.5 times the forward pass.
        """
        twice_pairs = 0
        for length in self.lengths():
            seeing = min(self.q_len, self.kv_len) if self.triangular else self.q_len
            cut = max(0, length - (self.kv_len - seeing)) if self.triangular else 0
            twice_pairs += 2 * seeing * length - cut * cut
        forward = 2 * self.heads * self.head_dim * twice_pairs
        return forward * 7 // 2 if self.direction == "backward" else forward

    def min_bytes(self) -> int:
        """q, the valid keys and values, bias or mask, and the output; backward adds the gradients of q, k, v and the output."""
        queries = self.batch * self.heads * self.q_len * self.head_dim
        valid = sum(self.lengths()) * self.kv_heads * self.head_dim
        items = 2 * queries + 2 * valid
        if self.direction == "backward":
            items += 2 * queries + 2 * self.batch * self.kv_heads * self.kv_len * self.head_dim
        items += self.heads * self.q_len * self.kv_len if self.bias == "additive" else 0
        mask = self.q_len * self.kv_len if self.bias == "boolean" else 0
        return items * ITEM_BYTES[self.dtype] + mask
