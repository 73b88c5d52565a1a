"""Scaled dot-product attention as a problem: sizes, random inputs, float64 reference, gradients, FLOPs and bytes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from .._given_config import require_given, told
from ..contract import MOST
from ..registry import ITEM_BYTES, SHORT_DTYPES, Gradients, Probe, Problem
from . import _blocks, _pairs
from ._drawing import drawn
from ._inputs import AttentionInputs
from ._paging import gathered
from ._probes import probes
from ._symmetry import disguised
from ._textbook import ALL, part, together

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Rows = slice | torch.Tensor

__all__ = ["BIASES", "EVERYTHING", "Attention", "AttentionInputs"]

BIASES = {"none": "", "additive": "bias", "boolean": "mask"}
"""What may be given beside q, k, v, and the feature that a kernel accepts it by."""

EVERYTHING = ("causal", "padding", "bias", "mask", "window", "softcap", "ragged", "paged")
"""All features: what a kernel accepts that takes any problem."""

LARGEST_PAGE = 1024
"""Tokens in a page of a cache that is not so long: larger ones waste memory."""


@dataclass(frozen=True, kw_only=True)
class Attention(Problem):
    """softmax(q kᵀ / √head_dim + bias) v, with the keys that a query does not see left out of the softmax.

    Query i stands at position i + past, past being kv_len - q_len: ends are aligned. A query that sees no key yields 0.
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
    """Keys after a query's own position are hidden."""
    padding: bool = False
    """Keys from a length on, one for each batch row, are hidden."""
    bias: str = "none"
    window: int = 0
    """Keys so far from a query's own position, or farther, are hidden: before it and, unless causal, after it. 0: none."""
    softcap: float = 0.0
    """Scores x become softcap · tanh(x / softcap) before the bias is added (Gemma 2, arXiv 2408.00118). 0: they stay."""
    ragged: bool = False
    """A cache whose rows end at lengths of their own; the queries are the last q_len tokens of each: past is length - q_len."""
    page_size: int = 0
    """Tokens in a page of a paged cache (PagedAttention, arXiv 2309.06180), found by a block table. 0: rows lie in one piece."""
    structured: bool = False
    """Inputs as trained models have them, instead of N(0, 1): recent and repeated tokens and the first ones get more weight.

    For approximations, which are judged too harshly by random inputs, where every key matters alike; see `_drawing`."""
    given: str = ""
    """NAME/LAYER@DIGEST: the layer of a model whose queries, keys and values these are; empty: they are drawn. See `_given`."""

    operator: ClassVar[str] = "attention"
    directions: ClassVar[tuple[str, ...]] = ("forward", "backward")
    added_later: ClassVar[tuple[str, ...]] = ("window", "softcap", "ragged", "page_size", "structured", "given")

    def __post_init__(self) -> None:
        for name, default in (("kv_heads", self.heads), ("kv_len", self.q_len)):
            if getattr(self, name) is None:
                object.__setattr__(self, name, default)
        super().__post_init__()
        self.require_positive("batch", "heads", "kv_heads", "q_len", "kv_len", "head_dim")
        for name in ("window", "page_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MOST:
                raise ValueError(f"{name} {value!r} is impossible: give a whole number from 1 to {MOST}, or 0 for none")
        self._require_softcap()
        self._require_sense()
        if self.heads % self.kv_heads:
            raise ValueError(f"heads {self.heads} cannot share {self.kv_heads} kv_heads evenly: give a multiple of kv_heads")
        if self.bias not in BIASES:
            raise ValueError(f"bias {self.bias!r} is unknown: choose from {', '.join(BIASES)}")

    def _require_softcap(self) -> None:
        cap: Any = self.softcap
        if isinstance(cap, bool) or not isinstance(cap, int | float) or not 0 <= cap < math.inf:
            raise ValueError(f"softcap {cap!r} is impossible: give a positive number, or 0 for none")
        object.__setattr__(self, "softcap", float(cap))

    def _require_sense(self) -> None:
        """Raise ValueError for fields that contradict one another."""
        require_given(self.given)
        if self.given and self.structured:
            raise ValueError("structured inputs are drawn, those of a model are given: leave structured out")
        if self.given and self.q_len > self.kv_len:
            raise ValueError(f"q_len {self.q_len} is more than kv_len {self.kv_len}, and the queries given are those of the last keys")
        if self.ragged and self.padding:
            raise ValueError("ragged and padding are two meanings of the same lengths: give one of them")
        if self.ragged and self.q_len > self.kv_len:
            raise ValueError(f"q_len {self.q_len} is impossible in a ragged cache of kv_len {self.kv_len}: give at most as many")
        if self.page_size > max(self.kv_len, LARGEST_PAGE):
            raise ValueError(f"page_size {self.page_size} is far more than kv_len {self.kv_len}: give at most {LARGEST_PAGE}, or kv_len")
        if self.page_size and self.direction == "backward":
            raise ValueError("direction 'backward' is not defined for a paged cache: choose forward, or page_size 0")

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
    def positional(self) -> bool:
        """What a query sees depends on where it stands."""
        return self.triangular or self.window > 0

    @property
    def masked(self) -> bool:
        """Something is added to scores or hides them."""
        return self.positional or bool(self.features & {"padding", "ragged", "bias", "mask"})

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
    def summands(self) -> int:
        return self.kv_len

    @property
    def label(self) -> str:
        heads = f"{self.heads}/{self.kv_heads}" if self.grouped else f"{self.heads}"
        length = f"{self.q_len}→{self.kv_len}" if self.cross else f"{self.q_len}"
        words = [f"{self.batch}×{heads}×{length}×{self.head_dim}"]
        words += [word for word in ("causal", "padding", "ragged") if getattr(self, word)]
        words += [BIASES[self.bias]] if self.bias != "none" else []
        words += [f"window {self.window}"] if self.window else []
        words += [f"softcap {self.softcap:g}"] if self.softcap else []
        words += [f"pages of {self.page_size}"] if self.page_size else []
        words += ["structured"] if self.structured else []
        words += [SHORT_DTYPES[self.dtype], *(["fwd+bwd"] if self.direction == "backward" else []), *told(self.given)]
        return " ".join(words)

    @property
    def features(self) -> frozenset[str]:
        asked = {name: bool(getattr(self, name)) for name in ("causal", "padding", "window", "softcap", "ragged")}
        asked |= {"paged": self.page_size > 0, "bias": self.bias == "additive", "mask": self.bias == "boolean"}
        return frozenset(name for name, wanted in asked.items() if wanted)

    def lengths(self) -> tuple[int, ...]:
        """Valid keys of each batch row: all without padding, else evenly spread from half of kv_len up to kv_len.

        A single row has three quarters. Rows of a ragged cache hold at least their queries.
        """
        if not (self.padding or self.ragged):
            return (self.kv_len,) * self.batch
        least = self.q_len if self.ragged else 1
        if self.batch == 1:
            return (max(least, 3 * self.kv_len // 4),)
        steps = self.batch - 1
        return tuple(max(least, self.kv_len * (steps + row) // (2 * steps)) for row in range(self.batch))

    @property
    def pages(self) -> int:
        """Pages that a full row of a paged cache takes."""
        return -(-self.kv_len // self.page_size)

    @property
    def kv_shape(self) -> tuple[int, int, int, int]:
        """Of k and v as the inputs hold them; the pool of a paged cache has room for all rows in full, and a page nobody uses."""
        if self.page_size:
            return self.batch * self.pages + 1, self.kv_heads, self.page_size, self.head_dim
        return self.batch, self.kv_heads, self.kv_len, self.head_dim

    def inputs(self, seed: int, device: torch.device | str = "cpu") -> AttentionInputs:
        return drawn(self, seed, device)

    def dense(self, inputs: AttentionInputs) -> AttentionInputs:
        """The inputs with k and v [batch, kv_heads, kv_len, head_dim]: the pages of a paged cache copied together."""
        if inputs.block_table is None:
            return inputs
        k, v = (gathered(pool, inputs.block_table, self.kv_len) for pool in (inputs.k, inputs.v))
        return inputs.replace(k=k, v=v, block_table=None)

    def seen(self, device: torch.device | str, lengths: torch.Tensor | None = None, rows: Rows = ALL) -> tuple[torch.Tensor, torch.Tensor]:
        """(first, last) key that each query sees by its position, not clipped to the keys there are: int64 [1 or batch, q_len]."""
        past: int | torch.Tensor = self.kv_len - self.q_len
        if self.ragged and lengths is not None:
            past = lengths.long()[:, None] - self.q_len
        position = torch.arange(self.q_len, device=device)[None, rows] + past
        first = position - self.window + 1 if self.window else torch.zeros_like(position)
        last = position if self.causal else position + self.window - 1 if self.window else torch.full_like(position, self.kv_len - 1)
        return first, last

    def position_mask(self, device: torch.device | str, lengths: torch.Tensor | None = None, rows: Rows = ALL) -> torch.Tensor:
        """bool [1 or batch, 1, q_len, kv_len]: true on the keys that a query sees by its position; `lengths` matter if ragged."""
        first, last = (edge[:, None, :, None] for edge in self.seen(device, lengths, rows))
        keys = torch.arange(self.kv_len, device=device)
        visible = keys <= last
        return visible & (keys >= first) if self.window else visible

    def padding_mask(self, lengths: torch.Tensor) -> torch.Tensor:
        """bool [batch, 1, 1, kv_len]: true on the keys before each row's length."""
        return (torch.arange(self.kv_len, device=lengths.device) < lengths[:, None])[:, None, None]

    def visible(self, inputs: AttentionInputs, batch: slice = ALL, heads: slice = ALL, rows: Rows = ALL) -> torch.Tensor | None:
        """bool, broadcastable to [batch, heads, q_len, kv_len] or the given part of it; None when every query sees every key."""
        masks = []
        if self.positional:
            masks.append(self.position_mask(inputs.q.device, None if inputs.lengths is None else inputs.lengths[batch], rows))
        if inputs.lengths is not None:
            masks.append(self.padding_mask(inputs.lengths[batch]))
        if inputs.mask is not None:
            masks.append(part(inputs.mask, batch, heads, rows))
        return together(*masks)

    def reference(self, inputs: AttentionInputs, weights: None = None) -> torch.Tensor:  # noqa: ARG002
        return _blocks.forward(self, inputs, torch.float64)

    def naive(self, inputs: AttentionInputs, weights: None = None) -> torch.Tensor:  # noqa: ARG002
        return _blocks.forward(self, inputs, getattr(torch, self.dtype))

    def gradients(self, inputs: AttentionInputs, weights: None = None, *, naive: bool = False) -> Gradients:  # noqa: ARG002
        return _blocks.gradients(self, inputs, naive=naive)

    def probes(self, inputs: AttentionInputs, seed: int) -> Iterator[Probe]:
        return probes(self, inputs, seed)

    def disguised(self, inputs: AttentionInputs, seed: int) -> tuple[AttentionInputs, Callable[[Any], Any]]:
        return disguised(self, inputs, seed)

    def flops(self) -> int:
        """4 · batch · heads · pairs · head_dim, pairs being the area under the mask's edge; see `_pairs`.

        A boolean mask hides nothing here, since what it holds is data. Forward and backward in one call count 3.5 times
        the forward pass.
        """
        forward = 2 * self.heads * self.head_dim * sum(_pairs.twice_pairs(self, length) for length in self.lengths())
        return forward * 7 // 2 if self.direction == "backward" else forward

    def min_bytes(self) -> int:
        """q, the keys and values that somebody sees, bias or mask, block table, and the output.

        Backward adds the gradients of q, k, v and the output.
        """
        queries = self.batch * self.heads * self.q_len * self.head_dim
        valid = sum(_pairs.keys_read(self, length) for length in self.lengths()) * self.kv_heads * self.head_dim
        items = 2 * queries + 2 * valid
        if self.direction == "backward":
            items += 2 * queries + 2 * self.batch * self.kv_heads * self.kv_len * self.head_dim
        items += self.heads * self.q_len * self.kv_len if self.bias == "additive" else 0
        others = self.q_len * self.kv_len if self.bias == "boolean" else 0
        others += sum(-(-length // self.page_size) for length in self.lengths()) * 4 if self.page_size else 0
        return items * ITEM_BYTES[self.dtype] + others
