"""Drawing the inputs of an attention problem: plain N(0, 1) numbers, or ones with structure, or those of a model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from .. import _given
from ._inputs import AttentionInputs
from ._paging import block_table, paged

if TYPE_CHECKING:
    from .problem import Attention

RECENCY, REPETITION = 4.0, 3.0
"""Scores of a query's own position, and of an equal token, above those of others, from WIDE features on; less below."""
SINKS = 4
"""First tokens that draw attention whatever they say: StreamingLLM found four enough to keep (arXiv 2309.17453)."""
SINK_VALUE = 0.1
"""Values of sinks are small in trained models (arXiv 2410.10781), so that what they draw is lost."""
WIDE = 64
REACH = (1 / 256, 1 / 8)
"""Of the nearest and the farthest head, in parts of all keys: at this distance recency has fallen to 1/e."""
VOCABULARY = 256
OF_QUERY = 0.5
"""Standard deviation of what a query has of its own. A key has three parts alike: position, token, its own."""
OF_TOKEN = 0.8
"""Standard deviation of a value's token; its own part has what is missing to 1."""


def drawn(problem: Attention, seed: int, device: torch.device | str = "cpu") -> AttentionInputs:
    """Inputs of the problem; equal seeds give equal values on one kind of device."""
    generator = torch.Generator(device).manual_seed(seed)
    dtype = getattr(torch, problem.dtype)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device, dtype=dtype)

    whole = problem.structured or problem.given  # k and v in one piece, paged afterwards
    if problem.given:
        q, k, v = _given.attention_qkv(problem, seed, device)
    else:
        q = normal(problem.batch, problem.heads, problem.q_len, problem.head_dim)
        kv_shape = (problem.batch, problem.kv_heads, problem.kv_len, problem.head_dim) if whole else problem.kv_shape
        k, v = normal(*kv_shape), normal(*kv_shape)
    grad = normal(*q.shape) if problem.direction == "backward" else None
    bias = normal(1, problem.heads, problem.q_len, problem.kv_len) if problem.bias == "additive" else None
    mask = None
    if problem.bias == "boolean":  # a quarter of the pairs is hidden
        mask = torch.rand(1, 1, problem.q_len, problem.kv_len, generator=generator, device=device) < 0.75
    lengths = torch.tensor(problem.lengths(), dtype=torch.int32, device=device) if problem.padding or problem.ragged else None
    inputs = AttentionInputs(q=q, k=k, v=v, bias=bias, mask=mask, lengths=lengths, grad=grad)
    if problem.structured:
        _impose(problem, inputs, generator)
    if whole:
        return paged(problem, inputs, seed) if problem.page_size else inputs
    table = block_table(problem, problem.lengths(), generator) if problem.page_size else None
    return inputs.replace(block_table=table)


def _impose(problem: Attention, inputs: AttentionInputs, generator: torch.Generator) -> None:
    """Give q, k and v, which are N(0, 1) and lie in one piece, the structure that attention of trained models shows.

    A query scores its own position highest, and keys less and less with their distance, each head with a reach of its own:
    q and k have random Fourier features of their positions (Rahimi and Recht 2007) whose product falls as exp(-distance / reach).
    Tokens are drawn from a small vocabulary by Zipf's law, keys and values are vectors of their token plus noise, and a query
    holds the key of the token at its position. All queries look for the first SINKS keys, so far that these together get
    about as much weight as all others would get without structure; their values are small.
    """
    device, (batch, kv_heads, kv_len, head_dim) = inputs.q.device, inputs.k.shape
    share = 3**-0.5  # of each part of a key, whose variance stays 1
    gain = 1 / (share * max(head_dim, WIDE) ** 0.5)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, device=device)

    tokens = _tokens(batch, kv_len, generator)
    at = _positions(problem, inputs)
    own = tokens.gather(1, at)
    keys, values = normal(kv_heads, VOCABULARY, head_dim), normal(kv_heads, VOCABULARY, head_dim)
    features = _fourier(kv_heads, kv_len, head_dim, generator)
    sinking = math.log(max(1.0, kv_len / SINKS))
    towards_sinks = normal(kv_heads, 1, head_dim)
    inputs.q.mul_(OF_QUERY)
    inputs.k.mul_(share)
    inputs.v.mul_((1 - OF_TOKEN**2) ** 0.5)
    for row in range(batch):
        inputs.k[row] += share * (keys[:, tokens[row]] + features)
        inputs.v[row] += OF_TOKEN * values[:, tokens[row]]
        sought = REPETITION * keys[:, own[row]] + RECENCY * features[:, at[row]] + share * sinking * towards_sinks
        inputs.q[row] += gain * sought.repeat_interleave(problem.group, dim=0)
    inputs.k[:, :, :SINKS] += towards_sinks
    inputs.v[:, :, :SINKS] *= SINK_VALUE


def _tokens(batch: int, kv_len: int, generator: torch.Generator) -> torch.Tensor:
    """int64 [batch, kv_len]: the token at each place, the r-th of the vocabulary r times as rare as the first."""
    rarity = 1 / torch.arange(1, VOCABULARY + 1, device=generator.device, dtype=torch.float32)
    edges = (rarity / rarity.sum()).cumsum(0)
    drawn_at = torch.rand(batch, kv_len, generator=generator, device=generator.device)
    return torch.searchsorted(edges, drawn_at).clamp(max=VOCABULARY - 1)


def _positions(problem: Attention, inputs: AttentionInputs) -> torch.Tensor:
    """int64 [batch, q_len]: where each query stands among its row's keys, the last key where it would stand behind it."""
    past: int | torch.Tensor = problem.kv_len - problem.q_len
    if problem.ragged and inputs.lengths is not None:
        past = inputs.lengths.long()[:, None] - problem.q_len
    last: int | torch.Tensor = problem.kv_len - 1 if inputs.lengths is None else inputs.lengths.long()[:, None] - 1
    place = (torch.arange(problem.q_len, device=inputs.q.device) + past).expand(problem.batch, -1).clamp(min=0)
    return place.minimum(torch.as_tensor(last, device=place.device))


def _fourier(kv_heads: int, kv_len: int, head_dim: int, generator: torch.Generator) -> torch.Tensor:
    """[kv_heads, kv_len, head_dim] of squared length about head_dim, products of two places falling with their distance.

    The frequencies of exp(-distance / reach) are Cauchy-distributed; one is drawn from each of equally likely ranges.
    """
    device, pairs = generator.device, -(-head_dim // 2)
    nearest, farthest = (math.log(max(1.0, kv_len * part)) for part in REACH)
    reach = torch.linspace(nearest, farthest, kv_heads + 2, device=device)[1:-1].exp()
    place = (torch.arange(pairs, device=device) + torch.rand(kv_heads, pairs, generator=generator, device=device)) / pairs
    frequency = torch.tan(math.pi / 2 * place.clamp(max=0.999)) / reach[:, None]
    phase = torch.arange(kv_len, device=device)[:, None] * frequency[:, None]
    return 2**0.5 * torch.cat([phase.cos(), phase.sin()], dim=-1)[..., :head_dim]
