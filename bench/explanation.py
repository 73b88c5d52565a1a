"""What is found of attention maps: plain data, no torch. Weights of a query are shares: those of the exact map sum to 1."""

from __future__ import annotations

import msgspec

Cells = list[list[float]]
"""A map pooled for display, [blocks of queries][blocks of keys]: the share of these queries' attention that goes to these keys."""


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """A query whose attention changed much."""

    query: int
    moved: float
    """Share of its attention that goes to other keys than it should."""
    exact_key: int
    """Where most of it should go, and how much …"""
    exact_weight: float
    key: int
    """… and where most of it goes."""
    weight: float


class HeadNumbers(msgspec.Struct, frozen=True, kw_only=True):
    """One head as a kernel computes it, against the exact map, over all queries that see a key."""

    head: int
    total: float
    """Mean sum of a query's weights: 1, but 0 for a head that is left out."""
    moved_mean: float
    """Total variation distance of the weights from the exact ones, half the sum of |differences|: mean over queries …

    Of a head that is left out all has moved.
    """
    moved_worst: float
    """… and the largest."""
    divergence: float | None
    """Kullback-Leibler divergence of the weights from the exact ones in nats, mean over queries; None for a head that is left out."""
    kept: float
    """Share of the exact weights that lies on keys to which the kernel gives any."""
    same_top: float
    """Share of the queries whose heaviest key is the exact one's."""
    entropy_exact: float
    """Mean entropy of a query's weights in nats; its exponential is the number of keys that would be attended evenly."""
    entropy: float | None
    changed: tuple[Changed, ...] = ()
    """The queries that changed most, worst first."""


class Explained(msgspec.Struct, frozen=True, kw_only=True):
    """One kernel."""

    kernel: str
    summary: str
    approximate: bool
    reason: str = ""
    """Why there are no maps of it, in a sentence."""
    failed: bool = False
    unexplained: float = 0.0
    """Relative distance of its real answer from its map times the real values: what of it is no attention map."""
    heads: tuple[HeadNumbers, ...] = ()
    maps: dict[int, Cells] = {}
    """Head -> its map, pooled."""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """All that one call of `kerneldyno explain` found."""

    version: str
    label: str
    """Of the problem."""
    device: str
    seed: int
    q_len: int
    kv_len: int
    group: int
    """Query heads per key-value head."""
    heads: tuple[int, ...]
    query_cell: int
    """Queries in a cell of a pooled map …"""
    key_cell: int
    """… and keys."""
    exact: dict[int, Cells]
    kernels: tuple[Explained, ...]
    notes: tuple[str, ...] = ()
    command: str = ""
