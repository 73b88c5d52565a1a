"""Who gets joules: windows take half a minute a kernel, so by default the fastest kernels of one shape of each kind do. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from .manifest import Settings
    from .messages import Joules
    from .plan import Group
    from .records import Case

ShapeClass = Literal["prefill", "decode"]
DECODE_TOKENS = 16
"""Up to so many query tokens per sequence a shape is called decoding: its weights or its cache outweigh its work."""
EXACT_FINALISTS = 2
BUDGET_SHARE = 0.25
"""Of --budget, for power and joules of all groups together."""


def shape_class(case: Case) -> ShapeClass:
    """Decoding: few query tokens per sequence, in attention against a longer cache. Everything else is prefill."""
    fields = case.problem
    if "q_len" in fields:
        few = fields["q_len"] <= DECODE_TOKENS and (fields.get("kv_len") or 0) > fields["q_len"]
    else:
        few = case.tokens <= DECODE_TOKENS * case.batch
    return "decode" if few else "prefill"


def joule_groups(groups: Iterable[Group]) -> frozenset[str]:
    """The ids of the groups whose finalists get joules: of each operator and shape class the first, most informative one."""
    first: dict[tuple[str, ShapeClass], str] = {}
    for group in groups:
        first.setdefault((group.operator, shape_class(group.cases[0])), group.id)
    return frozenset(first.values())


def asked(settings: Settings, groups: Iterable[Group], group: str, spent_s: float) -> tuple[Joules, float | None]:
    """(who of a group gets joules, seconds for them; None: as long as it takes), after `spent_s` were spent on other groups.

    The smoke protocol answers within a minute whether everything works: it takes joules only when told to.
    """
    allowance_s = None if settings.budget_s is None else max(BUDGET_SHARE * settings.budget_s - spent_s, 0.0)
    if settings.energy == "on":
        return "all", allowance_s
    if settings.energy == "off" or settings.protocol.name == "smoke" or group not in joule_groups(groups):
        return "none", allowance_s
    return "finalists", allowance_s


def ranking(latency_s: Sequence[float], approximate: Sequence[bool]) -> tuple[list[int], int]:
    """(places of all kernels, finalists first, by latency; how many of them are finalists).

    Finalists are the two fastest exact kernels and the fastest approximate one, which nobody may mix up with them but
    which everybody wants to know about.
    """
    by_speed = sorted(range(len(latency_s)), key=lambda place: latency_s[place])
    exact = [place for place in by_speed if not approximate[place]]
    loose = [place for place in by_speed if approximate[place]]
    finalists = exact[:EXACT_FINALISTS] + loose[:1]
    return finalists + [place for place in by_speed if place not in finalists], len(finalists)
