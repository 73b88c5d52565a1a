"""The numbers that say how far a map is from the exact one, from the whole map rather than the pooled one."""

from __future__ import annotations

import torch

from ..explanation import Changed, HeadNumbers

TOLD = 5
"""Queries that are told of one by one."""
LEFT_OUT = 0.01
"""A head whose weights sum to less is left out."""


def compared(head: int, exact: torch.Tensor, weights: torch.Tensor) -> HeadNumbers:
    """One head: `exact` float64 [q_len, kv_len] and a kernel's weights. Queries that see no key do not count."""
    seeing = exact.sum(1) > 0.5
    p, a = exact[seeing], weights.to(exact.device)[seeing].double().clamp(min=0)
    # lost and gained are equal, the total variation distance, unless the weights do not sum to 1: then the larger counts
    moved = torch.maximum((p - a).clamp(min=0).sum(1), (a - p).clamp(min=0).sum(1))
    total = float(a.sum(1).mean())
    gone = total < LEFT_OUT
    top = p.argmax(1)
    # of ties any key is right: the exact weight of the chosen one decides
    same = p.gather(1, a.argmax(1, keepdim=True))[:, 0] >= p.gather(1, top[:, None])[:, 0]
    return HeadNumbers(
        head=head,
        total=total,
        moved_mean=float(moved.mean()),
        moved_worst=float(moved.max()),
        divergence=None if gone else float(divergence(a, p).mean()),
        kept=float(torch.where(a > 0, p, 0).sum(1).mean()),
        same_top=0.0 if gone else float(same.double().mean()),
        entropy_exact=float(entropy(p).mean()),
        entropy=None if gone else float(entropy(a).mean()),
        changed=() if gone else _changed(seeing.nonzero()[:, 0], p, a, moved),
    )


def entropy(weights: torch.Tensor) -> torch.Tensor:
    """Of each row, in nats."""
    summed: torch.Tensor = torch.special.xlogy(weights, weights).sum(1)
    return -summed


def divergence(a: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
    """Kullback-Leibler divergence of rows a from rows p in nats: this way round it is finite where keys are left out of a."""
    tiny = torch.finfo(p.dtype).tiny
    each: torch.Tensor = torch.special.xlogy(a, a) - torch.special.xlogy(a, p.clamp(min=tiny))
    return each.sum(1)


def _changed(queries: torch.Tensor, p: torch.Tensor, a: torch.Tensor, moved: torch.Tensor) -> tuple[Changed, ...]:
    found = []
    for row in moved.argsort(descending=True, stable=True)[:TOLD].tolist():
        exact_key, key = int(p[row].argmax()), int(a[row].argmax())
        found.append(
            Changed(
                query=int(queries[row]),
                moved=float(moved[row]),
                exact_key=exact_key,
                exact_weight=float(p[row, exact_key]),
                key=key,
                weight=float(a[row, key]),
            )
        )
    return tuple(found)
